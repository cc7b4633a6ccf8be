//! Sending a request to one of a service's addresses.
//!
//! Connections are HTTP/1.1, kept alive and shared, or HTTP/2 where the Service asks for it (module `h2c`). A request goes to another address only when nothing of it can
//! have reached the first: its connection was refused or not made in time. A request that may be repeated (GET, HEAD,
//! OPTIONS without a body) is also sent once more when a connection ended without an answer, which is what a server
//! does that closes an idle connection in the same moment.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hearth_core::route::{Backend, Protocol, Reason};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::bodies::{Upload, UploadBody};
use super::h2c::{H2c, Lost};

/// How many addresses are tried for one request.
const ATTEMPTS: usize = 3;

/// How long an unused connection to a pod is kept.
const IDLE: Duration = Duration::from_secs(55);

/// How many unused connections to one pod are kept.
const IDLE_CONNECTIONS: usize = 64;

/// The most that is buffered of a pod's head or body on one connection.
const BUFFER: usize = 256 * 1024;

/// How long things may take with a tool's pod.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// To accept a connection.
    pub connect: Duration,
    /// To begin its answer, and between two pieces of it.
    pub read: Duration,
}

/// The connections to pods.
pub(super) struct Upstream {
    client: Client<HttpConnector, UploadBody>,
    h2c: H2c,
    patience: Patience,
    turn: AtomicUsize,
}

/// A request to a tool, before it is known which address takes it.
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) path: PathAndQuery,
    pub(super) headers: HeaderMap,
    pub(super) upload: Upload,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The tool's fault; a page says so.
    Tool(Reason),
    /// The client's body was longer than is allowed.
    TooLong,
    /// The client paused for too long in the middle of its body.
    TooSlow,
    /// The client's body could not be read to its end.
    Broken,
}

/// An answer, and how many addresses had been tried in vain before.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) retries: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), read: Duration::from_secs(3600) }
    }
}

impl Upstream {
    /// No connections yet.
    pub(super) fn new(patience: Patience) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(patience.connect));
        connector.set_nodelay(true);
        connector.set_keepalive(Some(Duration::from_secs(60)));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(BUFFER)
            .set_host(false)
            .build(connector);
        Self { client, h2c: H2c::new(patience.connect), patience, turn: AtomicUsize::new(0) }
    }

    /// How long a tool may take between two pieces of its answer.
    pub(super) fn read_patience(&self) -> Duration {
        self.patience.read
    }

    /// Sends `outgoing` to an address of `backend`, each in its turn.
    pub(super) async fn send(&self, backend: &Backend, outgoing: &Outgoing) -> Result<Answer, Failure> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let addresses = &backend.addresses;
        let mut may_repeat = may_be_repeated(&outgoing.method) && outgoing.upload.is_empty();
        let mut reason = Reason::Unavailable;
        // A single address gets a second attempt only for a connection that ended in the moment it was used.
        for attempt in 0..ATTEMPTS.min(addresses.len().max(2)) {
            let Some(address) = addresses.get((first.wrapping_add(attempt)) % addresses.len().max(1)) else { break };
            let request = outgoing.to(*address).ok_or(Failure::Tool(Reason::Unavailable))?;
            let answer = tokio::time::timeout(self.patience.read, self.ask(backend.protocol, *address, request)).await;
            let error = match answer {
                Ok(Ok(response)) => return Ok(Answer { response, retries: attempt as u64 }),
                Ok(Err(error)) => error,
                Err(_) => return Err(Failure::Tool(Reason::NoAnswer)),
            };
            tracing::debug!(tool = %backend.tool, %address, error = error.text(), "no answer");
            if outgoing.upload.was_too_long() {
                return Err(Failure::TooLong);
            }
            if outgoing.upload.was_too_slow() {
                return Err(Failure::TooSlow);
            }
            if error.is_of_the_body() {
                return Err(Failure::Broken);
            }
            let unconnected = matches!(error, Lost::Connect(_));
            reason = if unconnected { Reason::Unreachable } else { Reason::BrokenAnswer };
            let unsent = unconnected && outgoing.upload.is_untouched() && addresses.len() > 1;
            if !unsent && !std::mem::take(&mut may_repeat) {
                break;
            }
        }
        Err(Failure::Tool(reason))
    }

    async fn ask(
        &self,
        protocol: Protocol,
        address: SocketAddr,
        request: Request<UploadBody>,
    ) -> Result<Response<Incoming>, Lost> {
        match protocol {
            Protocol::Http1 => self.client.request(request).await.map_err(lost),
            Protocol::H2c => self.h2c.request(address, request).await,
        }
    }
}

impl Outgoing {
    fn to(&self, address: SocketAddr) -> Option<Request<UploadBody>> {
        let authority = Authority::try_from(address.to_string()).ok()?;
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(self.path.clone());
        let mut request = Request::new(self.upload.attempt());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri.build().ok()?;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = self.headers.clone();
        Some(request)
    }
}

fn may_be_repeated(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn lost(error: Error) -> Lost {
    if error.is_connect() {
        return Lost::Connect(chain(&error));
    }
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<hyper::Error>());
    Lost::Sent { of_the_body: source.is_some_and(hyper::Error::is_user), text: chain(&error) }
}

/// An error with everything that caused it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
