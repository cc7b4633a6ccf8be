//! Accepting connections: TLS, the protocol that was agreed on, limits on every connection, and the drain at the end.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use hearth_core::framing::{LONGEST_HEAD, Violation};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_rustls::server::TlsStream;

use super::allowances::Pass;
use super::bodies::ResponseBody;
use super::guard::{Gate, Guarded};
use super::stall::{Pieces, Streams, Written};
use super::tls::{Greeting, Pair, Tls};
use super::{Door, plain, request};

/// How many connections are open at a time; more wait in the kernel's queue.
pub(super) const CONNECTIONS: usize = 20_000;

/// How many sockets the front door may need: for each connection one more to a pod, and those that are kept for others.
pub const SOCKETS: u64 = 2 * CONNECTIONS as u64 + 10_000;

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How many requests a client of HTTP/2 may have open on one connection.
const STREAMS: u32 = 128;

/// How many requests of HTTP/2 may be reset on one connection before the front door has begun them: h2 begins what it
/// has read in one go, so an honest client comes to none or a few.
const RESET_UNSEEN: usize = 20;

/// How many requests of one connection of HTTP/2 the front door resets for faults of the client. An honest one commits
/// none; each may have begun work at a tool, which is given up.
const RESET_FOR_FAULTS: usize = 128;

/// How much of an answer is buffered on a stream of HTTP/2 that the client does not read, beside one piece.
const UNREAD: usize = 64 * 1024;

/// How often a silent client of HTTP/2 is asked whether it is there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(30);

/// How long a stopping proxy waits for the requests that it is answering.
const DRAIN: Duration = Duration::from_secs(10);

/// The sockets of the front door.
#[derive(Debug)]
pub struct Listeners {
    /// For TLS.
    pub https: Vec<TcpListener>,
    /// For redirects to TLS.
    pub http: Vec<TcpListener>,
}

/// What a front door does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Course {
    /// It accepts connections.
    Serves,
    /// A successor accepts them: what is open here lives on until it ends.
    Relieved,
    /// It ends: what has begun is answered, for ten seconds at most.
    Stops,
}

/// What is left of a front door when its last request was answered: connections that speak another protocol.
#[derive(Debug)]
pub struct Tunnels(mpsc::Receiver<Infallible>);

/// Held by each tunnel as long as it is open.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "it is there to be dropped")]
pub(super) struct Held {
    open: mpsc::Sender<Infallible>,
    /// The place that its connection takes, among all and among the visitor's own.
    place: Option<Arc<(OwnedSemaphorePermit, Option<Pass<IpAddr>>)>>,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    /// For what is counted alone.
    pub(super) address: IpAddr,
    /// The certificate that was shown, where there was one.
    pub(super) shown: Option<Arc<Pair>>,
}

/// Before a connection is accepted.
const NOBODY: Visitor = Visitor { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), shown: None };

/// Serves all sockets until the course changes, and then what is open as the course says.
pub async fn serve(listeners: Listeners, tls: Tls, door: Arc<Door>, mut course: watch::Receiver<Course>) -> Tunnels {
    let ((alive, mut all_gone), (tunnels, all_closed)) = (mpsc::channel(1), mpsc::channel(1));
    door.upstream.sweep();
    let connections = Connections {
        door,
        course: course.clone(),
        alive,
        tunnels: Held { open: tunnels, place: None },
        visitor: NOBODY,
    };
    let sockets = listeners.https.iter().map(|listener| (listener, Some(&tls)));
    let sockets = sockets.chain(listeners.http.iter().map(|listener| (listener, None)));
    tokio::select! {
        _ = join_all(sockets.map(|(listener, tls)| connections.accept(listener, tls))) => (),
        _ = course.wait_for(|course| *course != Course::Serves) => (),
    }
    drop(listeners);
    drop(connections);
    // Nobody sends; it ends when the last connection has dropped its end.
    tokio::select! {
        _ = all_gone.recv() => (),
        () = drained(course) => (),
    }
    Tunnels(all_closed)
}

/// Completes when what is open has had its time.
async fn drained(mut course: watch::Receiver<Course>) {
    // Whoever set the course is gone: nobody waits.
    let _ = course.wait_for(|course| *course == Course::Stops).await;
    tokio::time::sleep(DRAIN).await;
}

impl Tunnels {
    /// Waits for them: until they are closed if the door was relieved, and not at all if it stops.
    pub async fn closed(mut self, mut course: watch::Receiver<Course>) {
        tokio::select! {
            _ = self.0.recv() => (),
            _ = course.wait_for(|course| *course == Course::Stops) => (),
        }
    }
}

/// What every connection is given.
#[derive(Clone)]
struct Connections {
    door: Arc<Door>,
    course: watch::Receiver<Course>,
    /// Held by each connection as long as it is open.
    alive: mpsc::Sender<Infallible>,
    tunnels: Held,
    visitor: Visitor,
}

impl Connections {
    /// Accepts for ever.
    async fn accept(&self, listener: &TcpListener, tls: Option<&Tls>) {
        loop {
            let Ok(permit) = self.door.free.clone().acquire_owned().await else { return };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Most likely there are no file descriptors; some are given back soon.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            // Whoever has too many is not told, which would take a handshake.
            let Some(pass) = self.door.admit_connection(peer.ip()) else { continue };
            let connections = Self {
                visitor: Visitor { address: peer.ip(), shown: None },
                tunnels: Held { place: Some(Arc::new((permit, pass))), ..self.tunnels.clone() },
                ..self.clone()
            };
            let greeting = tls.map(Tls::greeting);
            tokio::spawn(async move {
                let metrics = connections.door.metrics.clone();
                metrics.connections.inc();
                match greeting {
                    Some(greeting) => connections.serve_tls(&greeting, stream).await,
                    None => connections.serve_plain(stream).await,
                }
                metrics.connections.dec();
            });
        }
    }

    async fn serve_tls(self, greeting: &Greeting, stream: TcpStream) {
        // What a connection needs for a while is allocated for that while, here and below: most wait for their next
        // request, and a task is as large as all that it ever needs.
        let handshake = Box::pin(tokio::time::timeout(HANDSHAKE, greeting.acceptor().accept(stream)));
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.door.metrics.handshake_failures.inc();
                return tracing::debug!(%error, "TLS handshake failed");
            }
            Err(_) => {
                self.door.metrics.handshake_failures.inc();
                return tracing::debug!("TLS handshake took too long");
            }
        };
        self.serve_greeted(greeting, stream).await;
    }

    /// Serves a connection by the protocol that was agreed on, never one that is guessed from the first bytes.
    fn serve_greeted(
        mut self,
        greeting: &Greeting,
        stream: TlsStream<TcpStream>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.visitor.shown = greeting.shown(stream.get_ref().1.server_name());
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Box::pin(self.serve_http2(stream)),
            _ => Box::pin(self.serve_http1(stream, request::handle)),
        }
    }

    fn serve_plain(self, stream: TcpStream) -> impl Future<Output = ()> {
        self.serve_http1(stream, plain::handle)
    }

    fn serve_http1<S, H, F>(self, stream: S, handle: H) -> impl Future<Output = ()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        H: Fn(Arc<Door>, Request<Incoming>, Option<Violation>) -> F,
        F: Future<Output = Result<Response<ResponseBody>, Infallible>>,
    {
        let (door, gate) = (self.door.clone(), Arc::new(Gate::default()));
        let stream = Guarded::new(stream, gate.clone(), door.limits.client_pause);
        let (course, tunnels, visitor) = (self.course.clone(), self.tunnels.clone(), self.visitor.clone());
        let head = door.limits.client_head;
        let answers = gate.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (gate, course) = (answers.clone(), course.clone());
            let refused = gate.refused(request.headers());
            request.extensions_mut().insert(tunnels.clone());
            request.extensions_mut().insert(visitor.clone());
            let answering = handle(door.clone(), request, refused);
            // hyper keeps room for this as long as the connection is open.
            Box::pin(async move {
                let mut response = answering.await?;
                gate.answers(response.status());
                // A client that goes on finds the successor.
                if *course.borrow() != Course::Serves && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            })
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head)
            .max_buf_size(LONGEST_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        // One that waits for its next request is not closed for a successor: the request may be on its way.
        self.run(Box::pin(connection), Course::Stops, pending(), |connection| connection.graceful_shutdown())
    }

    fn serve_http2<S>(self, stream: S) -> impl Future<Output = ()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (door, visitor, limits) = (self.door.clone(), self.visitor.clone(), self.door.limits);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(visitor.clone());
            let answering = request::handle(door.clone(), request, None);
            async { answering.await.map(|response| response.map(Pieces::new)) }
        });
        let streams = Streams::new(limits.client_pause);
        let open = streams.open();
        let connection = http2::Builder::new(streams)
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(LONGEST_HEAD as u32)
            .max_pending_accept_reset_streams(RESET_UNSEEN)
            .max_local_error_reset_streams(RESET_FOR_FAULTS)
            .max_send_buf_size(UNREAD)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .serve_connection(TokioIo::new(Written::new(stream, limits.client_pause)), service);
        let idle = async move { open.idle(limits.client_idle).await };
        self.run(Box::pin(connection), Course::Relieved, idle, |connection| connection.graceful_shutdown())
    }

    /// Serves a connection to its end; from a course on, or when it is idle, to the end of the requests that have begun.
    async fn run<C>(
        mut self,
        mut connection: Pin<Box<C>>,
        from: Course,
        idle: impl Future<Output = ()>,
        drain: impl FnOnce(Pin<&mut C>),
    ) where
        C: Future<Output = Result<(), hyper::Error>>,
    {
        let mut farewell = Duration::MAX;
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            _ = self.course.wait_for(|course| *course >= from) => None,
            () = idle => {
                // No request is open; all there is may be what the client does not take.
                farewell = self.door.limits.client_pause;
                None
            }
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                drain(connection.as_mut());
                tokio::time::timeout(farewell, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = super::upstream::chain(&error), "a connection was cut off");
        }
        drop(self.alive);
    }
}
