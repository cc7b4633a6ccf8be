//! Sending a request to one of a service's addresses.
//!
//! Connections are HTTP/1.1 and kept alive (module `pool`), or HTTP/2 where the Service asks for it (module `h2c`). A
//! request goes to another address only when nothing of it can have reached the first: its connection was refused or
//! not made in time. A request that may be repeated (GET, HEAD, OPTIONS without a body) is also sent once more when a
//! connection ended without an answer, which is what a server does that closes an idle connection in the same moment.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hearth_core::route::{Backend, Protocol, Reason};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, Uri, Version};

use super::bodies::{ToolBody, Upload, UploadBody};
use super::h2c::H2c;
use super::pool::Pool;

/// How many addresses are tried for one request.
const ATTEMPTS: usize = 3;

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
    pool: Pool,
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
    /// A page says why.
    Page(Reason),
    /// The client's body was longer than is allowed.
    TooLong,
    /// The client paused for too long in the middle of its body.
    TooSlow,
    /// The client's body could not be read to its end.
    Broken,
}

/// Why an address gave no answer.
#[derive(Debug)]
pub(super) enum Lost {
    /// Nobody took the request: nothing of it was sent.
    Connect(String),
    /// It was sent, or some of it.
    Sent(String),
}

/// An answer, and how many addresses had been tried in vain before.
pub(super) struct Answer {
    pub(super) response: Response<ToolBody>,
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
        let (pool, h2c) = (Pool::new(patience.connect), H2c::new(patience.connect));
        Self { pool, h2c, patience, turn: AtomicUsize::new(0) }
    }

    /// One with connections of its own, for another thread.
    pub(super) fn beside(&self) -> Self {
        Self::new(self.patience)
    }

    /// Has unused connections closed after a while. Called once, where the door serves.
    pub(super) fn sweep(&self) {
        self.pool.sweep();
    }

    /// How long a tool may take between two pieces of its answer.
    pub(super) fn read_patience(&self) -> Duration {
        self.patience.read
    }

    /// Sends `outgoing` to an address of `backend`, each in its turn.
    pub(super) async fn send(&self, backend: &Backend, outgoing: &Outgoing) -> Result<Answer, Failure> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let addresses = &backend.addresses;
        let mut may_repeat = outgoing.may_be_repeated();
        let mut reason = Reason::Unavailable;
        // A single address gets a second attempt only for a connection that ended in the moment it was used.
        for attempt in 0..ATTEMPTS.min(addresses.len().max(2)) {
            let Some(address) = addresses.get((first.wrapping_add(attempt)) % addresses.len().max(1)) else { break };
            let asked = self.ask(backend, *address, outgoing.request());
            let lost = match tokio::time::timeout(self.patience.read, asked).await {
                Ok(Ok(response)) => return Ok(Answer { response, retries: attempt as u64 }),
                Ok(Err(lost)) => lost,
                Err(_) => return Err(Failure::Page(Reason::NoAnswer)),
            };
            tracing::debug!(tool = %backend.tool, %address, error = lost.text(), "no answer");
            if let Some(failure) = outgoing.failed() {
                return Err(failure);
            }
            let is_unconnected = matches!(lost, Lost::Connect(_));
            reason = if is_unconnected { Reason::Unreachable } else { Reason::BrokenAnswer };
            let unsent = is_unconnected && outgoing.upload.is_untouched() && addresses.len() > 1;
            if !unsent && !std::mem::take(&mut may_repeat) {
                break;
            }
        }
        Err(Failure::Page(reason))
    }

    async fn ask(
        &self,
        backend: &Backend,
        address: SocketAddr,
        request: Request<UploadBody>,
    ) -> Result<Response<ToolBody>, Lost> {
        match backend.protocol {
            Protocol::Http1 => {
                let (response, lease) = self.pool.send(&backend.tool, address, request).await?;
                Ok(response.map(|body| ToolBody::new(body, Some(lease))))
            }
            Protocol::H2c => Ok(self.h2c.request(address, request).await?.map(|body| ToolBody::new(body, None))),
        }
    }
}

// === impl Lost ===

impl Lost {
    /// No connection was made.
    pub(super) fn unconnected(error: &dyn std::error::Error) -> Self {
        Self::Connect(chain(error))
    }

    /// The error, for the log.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Connect(text) | Self::Sent(text) => text,
        }
    }
}

impl From<hyper::Error> for Lost {
    fn from(error: hyper::Error) -> Self {
        Self::Sent(chain(&error))
    }
}

impl Outgoing {
    /// Whether it may be sent once more although it may have reached somebody.
    pub(super) fn may_be_repeated(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS) && self.upload.is_empty()
    }

    /// Why sending failed, where the client is to blame.
    pub(super) fn failed(&self) -> Option<Failure> {
        if self.upload.was_too_long() {
            return Some(Failure::TooLong);
        }
        if self.upload.was_too_slow() {
            return Some(Failure::TooSlow);
        }
        self.upload.was_broken().then_some(Failure::Broken)
    }

    /// The request for one attempt.
    pub(super) fn request(&self) -> Request<UploadBody> {
        let mut request = Request::new(self.upload.attempt());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.path.clone());
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = self.headers.clone();
        request
    }
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
