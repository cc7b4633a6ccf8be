//! Connections to pods, kept alive: each is used for one request at a time and given back with the end of its answer.
//!
//! A pool belongs to one thread that serves. What has been unused for a while is closed, what the pod has closed is not
//! used again; and a request that a kept connection did not take any more comes back unsent.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hearth_core::ToolName;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::bodies::UploadBody;
use super::upstream::Lost;

/// How long an unused connection to a pod is kept.
const IDLE: Duration = Duration::from_secs(55);

/// How often unused connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// How many unused connections to one pod are kept.
const IDLE_CONNECTIONS: usize = 64;

/// The most that is buffered of a pod's head or body on one connection.
const BUFFER: usize = 128 * 1024;

/// How long a connection is silent before the kernel asks whether the other end is there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long, in milliseconds, a pod's node may leave unconfirmed what was sent to it. One that lost its power says
/// nothing: without this a request on a kept connection waits for a quarter of an hour.
const SILENCE: u32 = 20_000;

type Sender = SendRequest<UploadBody>;

/// The connections of a thread.
#[derive(Clone)]
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    connect: Duration,
    idle: Mutex<HashMap<SocketAddr, Vec<Idle>>>,
}

struct Idle {
    sender: Sender,
    tool: ToolName,
    since: Instant,
}

/// A connection that is in use. Dropped, it is closed.
pub(super) struct Lease {
    sender: Sender,
    tool: ToolName,
    address: SocketAddr,
    pool: Weak<Shared>,
}

impl Pool {
    /// No connections yet, each of which is made in so much time.
    pub(super) fn new(connect: Duration) -> Self {
        Self(Arc::new(Shared { connect, idle: Mutex::default() }))
    }

    /// Sends a request of this tool to an address. What was connected for another tool is not used, whoever has the
    /// address now.
    pub(super) async fn send(
        &self,
        tool: &ToolName,
        address: SocketAddr,
        mut request: Request<UploadBody>,
    ) -> Result<(Response<Incoming>, Lease), Lost> {
        while let Some(sender) = self.0.take(tool, address) {
            let mut lease = Lease { sender, tool: tool.clone(), address, pool: Arc::downgrade(&self.0) };
            match lease.sender.try_send_request(request).await {
                Ok(response) => return Ok((response, lease)),
                Err(mut failed) => match failed.take_message() {
                    // It was closed in the same moment: nothing of the request was sent.
                    Some(unsent) => request = unsent,
                    None => return Err(failed.into_error().into()),
                },
            }
        }
        let mut lease = self.connect(tool, address).await?;
        let response = lease.sender.send_request(request).await?;
        Ok((response, lease))
    }

    async fn connect(&self, tool: &ToolName, address: SocketAddr) -> Result<Lease, Lost> {
        let stream = tokio::time::timeout(self.0.connect, TcpStream::connect(address)).await;
        let stream = stream.unwrap_or_else(|elapsed| Err(elapsed.into()));
        let stream = stream.map_err(|error| Lost::unconnected(&error))?;
        let _ = stream.set_nodelay(true);
        let _ = sockopt::set_socket_keepalive(&stream, true);
        let _ = sockopt::set_tcp_keepidle(&stream, KEEPALIVE);
        let _ = sockopt::set_tcp_user_timeout(&stream, SILENCE);
        let (sender, connection) = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await?;
        // What goes wrong with it, whoever waits for an answer is told.
        tokio::spawn(connection.with_upgrades());
        Ok(Lease { sender, tool: tool.clone(), address, pool: Arc::downgrade(&self.0) })
    }

    /// Closes what has been unused for too long, as long as the pool is there.
    pub(super) fn sweep(&self) {
        let pool = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(pool) = pool.upgrade() else { return };
                pool.with(|idle| {
                    idle.retain(|_, connections| {
                        connections.retain(|kept| !kept.sender.is_closed() && kept.since.elapsed() < IDLE);
                        !connections.is_empty()
                    });
                });
            }
        });
    }
}

// === impl Shared ===

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<SocketAddr, Vec<Idle>>) -> T) -> T {
        work(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The connection to an address that was used last, among those that can take a request.
    fn take(&self, tool: &ToolName, address: SocketAddr) -> Option<Sender> {
        self.with(|idle| {
            let connections = idle.get_mut(&address)?;
            let last = connections.iter().rposition(|kept| kept.tool == *tool && kept.sender.is_ready())?;
            Some(connections.remove(last).sender)
        })
    }
}

// === impl Lease ===

impl Lease {
    /// Its answer has been read to the end: another request can have the connection, once it has noticed so itself.
    pub(super) fn give_back(self) {
        let Some(pool) = self.pool.upgrade().filter(|_| !self.sender.is_closed()) else { return };
        pool.with(|idle| {
            let connections = idle.entry(self.address).or_default();
            if connections.len() < IDLE_CONNECTIONS {
                connections.push(Idle { sender: self.sender, tool: self.tool, since: Instant::now() });
            }
        });
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("address", &self.address).finish_non_exhaustive()
    }
}
