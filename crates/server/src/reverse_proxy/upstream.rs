//! Sending a request to one of a service's addresses.
//!
//! Connections are HTTP/1.1, kept alive and shared. A request goes to another address only when nothing of it can
//! have reached the first: its connection was refused or not made in time. A request that may be repeated (GET, HEAD,
//! OPTIONS without a body) is also sent once more when a connection ended without an answer, which is what a server
//! does that closes an idle connection in the same moment.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hearth_core::route::{Backend, Reason};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::bodies::{Upload, UploadBody};

/// How many addresses are tried for one request.
const ATTEMPTS: usize = 3;

/// How long an unused connection to a pod is kept.
const IDLE: Duration = Duration::from_secs(55);

/// How long a pod's node may leave unconfirmed what was sent to it.
const SILENCE: Duration = Duration::from_secs(20);

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
        Self { client: pool(connector(patience)), patience, turn: AtomicUsize::new(0) }
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
            let request = outgoing.to(Scheme::HTTP, *address).ok_or(Failure::Page(Reason::Unavailable))?;
            let answer = tokio::time::timeout(self.patience.read, self.client.request(request)).await;
            let error = match answer {
                Ok(Ok(response)) => return Ok(Answer { response, retries: attempt as u64 }),
                Ok(Err(error)) => error,
                Err(_) => return Err(Failure::Page(Reason::NoAnswer)),
            };
            tracing::debug!(tool = %backend.tool, %address, error = chain(&error), "no answer");
            if let Some(failure) = outgoing.failed(&error) {
                return Err(failure);
            }
            reason = if error.is_connect() { Reason::Unreachable } else { Reason::BrokenAnswer };
            let unsent = error.is_connect() && outgoing.upload.is_untouched() && addresses.len() > 1;
            if !unsent && !std::mem::take(&mut may_repeat) {
                break;
            }
        }
        Err(Failure::Page(reason))
    }
}

/// What makes connections.
pub(super) fn connector(patience: Patience) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(patience.connect));
    connector.set_nodelay(true);
    connector.set_keepalive(Some(Duration::from_secs(60)));
    // A node that lost its power says nothing: without this a request on a kept connection waits for a quarter of an hour.
    connector.set_tcp_user_timeout(Some(SILENCE));
    connector
}

/// What keeps connections.
pub(super) fn pool<C: Connect + Clone>(connector: C) -> Client<C, UploadBody> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .http1_max_buf_size(BUFFER)
        .set_host(false)
        .build(connector)
}

impl Outgoing {
    /// Whether it may be sent once more although it may have reached somebody.
    pub(super) fn may_be_repeated(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS) && self.upload.is_empty()
    }

    /// Why sending failed, where the client is to blame.
    pub(super) fn failed(&self, error: &Error) -> Option<Failure> {
        if self.upload.was_too_long() {
            return Some(Failure::TooLong);
        }
        if self.upload.was_too_slow() {
            return Some(Failure::TooSlow);
        }
        is_of_the_body(error).then_some(Failure::Broken)
    }

    /// The request for one attempt.
    pub(super) fn to(&self, scheme: Scheme, address: SocketAddr) -> Option<Request<UploadBody>> {
        let authority = Authority::try_from(address.to_string()).ok()?;
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(self.path.clone());
        let mut request = Request::new(self.upload.attempt());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri.build().ok()?;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = self.headers.clone();
        Some(request)
    }
}

/// Whether sending failed because the client's body could not be read.
fn is_of_the_body(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<hyper::Error>());
    source.is_some_and(hyper::Error::is_user)
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
