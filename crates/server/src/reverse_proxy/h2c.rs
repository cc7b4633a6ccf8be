//! Speaking HTTP/2 without TLS to pods whose Service asks for it (`appProtocol: kubernetes.io/h2c`), as gRPC servers do.
//!
//! One connection to each address, on which all requests to it are streams. It is used by the address that the table
//! gives, never by a name, so that it is gone with the pod. The request itself names the visitor's host.
//!
//! It never tries HTTP/1.1 where HTTP/2 is not understood: the tool said what it speaks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Request, Response, Uri, Version, header, uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::bodies::UploadBody;
use super::upstream::Lost;

/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(55);

/// How often a connection with open streams is asked for a sign of life, and how long it may take.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// What a pod may send of one answer, and of all together, before it is read.
const WINDOWS: (u32, u32) = (256 * 1024, 1024 * 1024);

/// The most bytes of the fields of an answer.
const LONGEST_HEAD: u32 = 256 * 1024;

/// The connections.
pub(super) struct H2c {
    open: Arc<Mutex<HashMap<SocketAddr, Held>>>,
    connect: Duration,
}

struct Held {
    sender: SendRequest<UploadBody>,
    used: Instant,
}

type Open = Mutex<HashMap<SocketAddr, Held>>;

impl H2c {
    /// No connections yet; one may take `connect` to be made.
    pub(super) fn new(connect: Duration) -> Self {
        Self { open: Arc::default(), connect }
    }

    /// Sends a request, made for HTTP/1.1, to an address.
    pub(super) async fn request(
        &self,
        address: SocketAddr,
        request: Request<UploadBody>,
    ) -> Result<Response<Incoming>, Lost> {
        let request = as_http2(request).ok_or_else(|| Lost::Connect("the host is not one".to_owned()))?;
        if let Some(mut sender) = self.held(address)
            && sender.ready().await.is_ok()
        {
            return sender.send_request(request).await.map_err(Lost::from);
        }
        let made = tokio::time::timeout(self.connect, self.connected(address)).await;
        let mut sender = made.map_err(|_| Lost::Connect("it took too long".to_owned()))??;
        sender.send_request(request).await.map_err(Lost::from)
    }

    fn held(&self, address: SocketAddr) -> Option<SendRequest<UploadBody>> {
        let mut open = locked(&self.open);
        let held = open.get_mut(&address).filter(|held| !held.sender.is_closed())?;
        held.used = Instant::now();
        Some(held.sender.clone())
    }

    /// A new connection, which others use from now on. Two that are made at once are both good.
    async fn connected(&self, address: SocketAddr) -> Result<SendRequest<UploadBody>, Lost> {
        let stream = TcpStream::connect(address).await.map_err(|error| Lost::unconnected(&error))?;
        stream.set_nodelay(true).map_err(|error| Lost::unconnected(&error))?;
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1)
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_header_list_size(LONGEST_HEAD);
        let (sender, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(|error| Lost::unconnected(&error))?;
        locked(&self.open).insert(address, Held { sender: sender.clone(), used: Instant::now() });
        tokio::spawn(kept(connection, address, self.open.clone()));
        Ok(sender)
    }
}

/// Drives a connection until it ends, and forgets it when it was not used for a while.
async fn kept(
    mut connection: Connection<TokioIo<TcpStream>, UploadBody, TokioExecutor>,
    address: SocketAddr,
    open: Arc<Open>,
) {
    loop {
        let ended = tokio::select! {
            ended = &mut connection => Some(ended),
            () = tokio::time::sleep(IDLE) => None,
        };
        let is_over = |held: &Held| held.sender.is_closed() || held.used.elapsed() >= IDLE;
        let mut open = locked(&open);
        // Streams that are open go on; without a sender the connection ends with the last of them.
        if open.get(&address).is_some_and(is_over) {
            open.remove(&address);
        }
        if let Some(ended) = ended {
            if let Err(error) = ended {
                tracing::debug!(%address, error = super::upstream::chain(&error), "a connection was cut off");
            }
            return;
        }
    }
}

fn locked(open: &Open) -> MutexGuard<'_, HashMap<SocketAddr, Held>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request as HTTP/2 has it: the host is its authority, and what speaks of one connection of HTTP/1.1 is not there.
/// Trailers are passed on, which gRPC asks to be told.
fn as_http2(mut request: Request<UploadBody>) -> Option<Request<UploadBody>> {
    let fields = request.headers_mut();
    fields.remove(header::CONNECTION);
    fields.remove(header::UPGRADE);
    fields.insert(header::TE, HeaderValue::from_static("trailers"));
    let host = fields.remove(header::HOST)?;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(uri::Scheme::HTTP);
    parts.authority = Some(uri::Authority::try_from(host.as_bytes()).ok()?);
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    *request.version_mut() = Version::HTTP_2;
    Some(request)
}
