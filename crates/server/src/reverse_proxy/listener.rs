//! Accepting connections: TLS, the protocol that was agreed on, limits on every connection, and the drain at the end.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use hearth_core::framing::{LONGEST_HEAD, Violation};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;

use super::bodies::ResponseBody;
use super::guard::{Gate, Guarded};
use super::tls::Tls;
use super::{Door, plain, request};

/// How many connections are open at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 20_000;

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a client of HTTP/1 may take for the head of a request, and keep a connection without one.
const HEAD: Duration = Duration::from_secs(30);

/// How many requests a client of HTTP/2 may have open on one connection.
const STREAMS: u32 = 128;

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
pub(super) struct Held(#[expect(dead_code, reason = "it is there to be dropped")] mpsc::Sender<Infallible>);

/// Who is at the other end of a connection, for what is counted alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visitor(pub(super) IpAddr);

/// Before a connection is accepted.
const NOBODY: Visitor = Visitor(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

/// Serves all sockets until the course changes, and then what is open as the course says.
pub async fn serve(listeners: Listeners, tls: Tls, door: Arc<Door>, mut course: watch::Receiver<Course>) -> Tunnels {
    let ((alive, mut all_gone), (tunnels, all_closed)) = (mpsc::channel(1), mpsc::channel(1));
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let connections =
        Connections { door, course: course.clone(), alive, tunnels: Held(tunnels), visitor: NOBODY, free };
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
    free: Arc<Semaphore>,
}

impl Connections {
    /// Accepts for ever.
    async fn accept(&self, listener: &TcpListener, tls: Option<&Tls>) {
        loop {
            let Ok(permit) = self.free.clone().acquire_owned().await else { return };
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
            let connections = Self { visitor: Visitor(peer.ip()), ..self.clone() };
            let acceptor = tls.map(|tls| TlsAcceptor::from(tls.load_full()));
            tokio::spawn(async move {
                let metrics = connections.door.metrics.clone();
                metrics.connections.inc();
                match acceptor {
                    Some(acceptor) => connections.serve_tls(acceptor, stream).await,
                    None => connections.serve_plain(stream).await,
                }
                metrics.connections.dec();
                drop(permit);
            });
        }
    }

    async fn serve_tls(self, acceptor: TlsAcceptor, stream: TcpStream) {
        let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
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
        // The protocol is the one that was agreed on, never guessed from the first bytes.
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.serve_http2(stream).await;
        } else {
            self.serve_http1(stream, request::handle).await;
        }
    }

    async fn serve_plain(self, stream: TcpStream) {
        self.serve_http1(stream, plain::handle).await;
    }

    async fn serve_http1<S, H, F>(self, stream: S, handle: H)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        H: Fn(Arc<Door>, Request<Incoming>, Option<Violation>) -> F,
        F: Future<Output = Result<Response<ResponseBody>, Infallible>>,
    {
        let (door, gate) = (self.door.clone(), Arc::new(Gate::default()));
        let stream = Guarded::new(stream, gate.clone());
        let (course, tunnels, visitor) = (self.course.clone(), self.tunnels.clone(), self.visitor);
        let service = service_fn(|mut request: Request<Incoming>| {
            let refused = gate.refused(request.headers());
            request.extensions_mut().insert(tunnels.clone());
            request.extensions_mut().insert(visitor);
            let answering = handle(door.clone(), request, refused);
            async {
                let mut response = answering.await?;
                gate.answers(response.status());
                // A client that goes on finds the successor.
                if *course.borrow() != Course::Serves && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(LONGEST_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        // One that waits for its next request is not closed for a successor: the request may be on its way.
        self.run(connection, Course::Stops, |connection| connection.graceful_shutdown()).await;
    }

    async fn serve_http2<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (door, visitor) = (self.door.clone(), self.visitor);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(visitor);
            request::handle(door.clone(), request, None)
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(LONGEST_HEAD as u32)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .serve_connection(TokioIo::new(stream), service);
        self.run(connection, Course::Relieved, |connection| connection.graceful_shutdown()).await;
    }

    /// Serves a connection to its end; from a course on, to the end of the requests that have begun.
    async fn run<C>(mut self, connection: C, from: Course, drain: impl FnOnce(Pin<&mut C>))
    where
        C: Future<Output = Result<(), hyper::Error>>,
    {
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            _ = self.course.wait_for(|course| *course >= from) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                drain(connection.as_mut());
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = super::upstream::chain(&error), "a connection was cut off");
        }
        drop(self.alive);
    }
}
