//! A front door in process, and what stands on both of its sides.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails where its set-up fails")]

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use hearth_core::Domains;
use hearth_core::limit::Allowance;
use hearth_core::platform::FrontDoor;
use hearth_core::route::{Change, Entry, Index, Kind, Served, Table};
use hearth_server::proxy::handover::cloned;
use hearth_server::reverse_proxy::switches::Switches;
use hearth_server::reverse_proxy::{
    AccessLog, Course, Door, DoorParts, Followed, Freshness, Limits, Listeners, Metrics, Pair, Passage, Tls,
    observation, serve,
};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::ServiceExt;

/// No step of a test takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Completes with `future`, or fails the test.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("this takes too long")
}

/// One that has heard of everything just now.
fn fresh() -> Freshness {
    let freshness = Freshness::new(Duration::from_secs(600));
    for kind in Kind::ALL {
        freshness.heard(kind, tokio::time::Instant::now());
    }
    freshness
}

/// A certificate for all hosts, and what a client has to trust for it.
pub(crate) fn certificates() -> (Tls, Arc<rustls::RootCertStore>) {
    let (shown, certificate) = certificate();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    (Tls::new(shown, &[]), Arc::new(roots))
}

/// A new certificate for all hosts.
pub(crate) fn certificate() -> (Arc<Pair>, CertificateDer<'static>) {
    let names = ["hearth.example", "*.hearth.example", "x.y.hearth.example", "old.example"].map(str::to_owned);
    let pair = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    (Arc::new(Pair::new(vec![pair.cert.der().clone()], key).unwrap()), pair.cert.der().clone())
}

/// All visitors of a test come from one address, and ask as quickly as they can.
pub(crate) fn unlimited() -> FrontDoor {
    let tool = Allowance { per_second: 1_000_000, burst: 1_000_000, at_once: 1_000_000 };
    FrontDoor { tool, unlimited_visitors: vec!["127.0.0.0/8".parse().unwrap()], ..FrontDoor::default() }
}

/// A running front door.
pub(crate) struct Front {
    pub(crate) https: SocketAddr,
    pub(crate) http: SocketAddr,
    table: watch::Sender<Arc<Table>>,
    roots: Arc<rustls::RootCertStore>,
    tls: Tls,
    pub(crate) switches: Arc<Switches>,
    metrics: Arc<Metrics>,
    /// What a successor is given.
    pub(crate) sockets: Mutex<Vec<OwnedFd>>,
    pub(crate) course: watch::Sender<Course>,
    pub(crate) served: JoinHandle<()>,
}

/// Where tools are: a name with the addresses of its web service.
pub(crate) type Tools<'a> = &'a [(&'a str, &'a [SocketAddr])];

pub(crate) fn domains() -> Domains {
    Domains { public: vec!["hearth.example".parse().unwrap()], legacy: "old.example".parse().unwrap() }
}

/// A table with these tools. One whose name begins with `old` is served below the legacy host
/// as well, one whose name begins with `grid` has registered on the grid, one with `h2c` speaks
/// HTTP/2.
pub(crate) fn table(tools: Tools<'_>) -> Arc<Table> {
    table_of(domains(), tools)
}

/// The same for other domains.
pub(crate) fn table_of(domains: Domains, tools: Tools<'_>) -> Arc<Table> {
    let (own, legacy) = (domains.public[0].clone(), domains.legacy.clone());
    let legacy_tools = tools.iter().filter(|(tool, _)| tool.starts_with("old")).map(|(tool, _)| tool.parse().unwrap());
    let mut index = Index::new(Served { domains, legacy_tools: legacy_tools.collect() });
    for (tool, addresses) in tools {
        let mut set = |name: &str, fact: serde_json::Value| {
            let entry: Entry = serde_json::from_value(json!({"tool": tool, "name": name, "fact": fact})).unwrap();
            index.apply(Change::Set(entry));
        };
        set("namespace", json!({"Namespace": {"disabled": false}}));
        let protocol = if tool.starts_with("h2c") { "H2c" } else { "Http1" };
        set(tool, json!({"Service": {"ports": [{"name": "http", "number": 8000, "protocol": protocol}]}}));
        if *tool != "fourohfour" {
            let path = |host: &str, path: &str| json!({"host": host, "path": path, "exact": false, "service": tool, "port": {"Number": 8000}});
            let paths = [path(&format!("{tool}.{own}"), "/"), path(legacy.as_str(), &format!("/{tool}"))];
            set("ingress", json!({"Ingress": {"created": null, "paths": paths}}));
        }
        if tool.starts_with("grid") {
            let fact = json!({"Grid": {"address": addresses[0], "ready": true}});
            set(&format!("hearth-grid/{tool}"), fact);
            continue;
        }
        for address in *addresses {
            let ports = json!([{"name": "http", "number": address.port()}]);
            let slice = json!({"service": tool, "ports": ports, "ready": [address.ip()], "draining": []});
            set(&address.to_string(), json!({"EndpointSlice": slice}));
        }
    }
    index.table()
}

impl Front {
    pub(crate) async fn start(tools: Tools<'_>) -> Self {
        Self::with(tools, Limits::default()).await
    }

    pub(crate) async fn with(tools: Tools<'_>, limits: Limits) -> Self {
        Self::of(tools, (limits, unlimited()), fresh()).await
    }

    /// One whose visitors and tools may use so much.
    pub(crate) async fn allowing(tools: Tools<'_>, front_door: FrontDoor) -> Self {
        Self::of(tools, (Limits::default(), front_door), fresh()).await
    }

    /// One that has not heard from the cluster yet.
    pub(crate) async fn stale(tools: Tools<'_>) -> Self {
        Self::of(tools, (Limits::default(), unlimited()), Freshness::new(Duration::from_secs(600))).await
    }

    async fn of(tools: Tools<'_>, limits: (Limits, FrontDoor), freshness: Freshness) -> Self {
        Self::made(tools, limits, freshness, None).await
    }

    async fn made(
        tools: Tools<'_>,
        limits: (Limits, FrontDoor),
        freshness: Freshness,
        passage: Option<Passage>,
    ) -> Self {
        Self::at([listen().await, listen().await], tools, limits, freshness, certificates(), passage)
    }

    /// One that shows these certificates, to clients who trust those.
    pub(crate) async fn showing(tools: Tools<'_>, tls: Tls, roots: rustls::RootCertStore) -> Self {
        let limits = (Limits::default(), unlimited());
        Self::at([listen().await, listen().await], tools, limits, fresh(), (tls, Arc::new(roots)), None)
    }

    /// One with a way through an ingress, that has heard from the cluster or has not.
    pub(crate) async fn through(tools: Tools<'_>, passage: Option<Passage>, hears: bool) -> Self {
        let freshness = if hears { fresh() } else { Freshness::new(Duration::from_secs(600)) };
        Self::made(tools, (Limits::default(), unlimited()), freshness, passage).await
    }

    /// One with the same certificates, at these sockets.
    pub(crate) fn successor(&self, https: TcpListener, http: TcpListener, tools: Tools<'_>) -> Self {
        let certificates = (self.tls.clone(), self.roots.clone());
        Self::at([https, http], tools, (Limits::default(), unlimited()), fresh(), certificates, None)
    }

    fn at(
        [tls_socket, plain]: [TcpListener; 2],
        tools: Tools<'_>,
        (limits, front_door): (Limits, FrontDoor),
        freshness: Freshness,
        (tls, roots): (Tls, Arc<rustls::RootCertStore>),
        passage: Option<Passage>,
    ) -> Self {
        let (https, http) = (tls_socket.local_addr().unwrap(), plain.local_addr().unwrap());
        let sockets = Mutex::new(cloned([&tls_socket, &plain]).unwrap());
        let listeners = Listeners { https: vec![tls_socket], http: vec![plain] };
        let (table, tables) = watch::channel(table(tools));
        let followed = Followed { table: tables, freshness: Arc::new(freshness) };
        let metrics = Metrics::new();
        let (access_log, port) = (AccessLog::none(), https.port());
        let parts = DoorParts { followed, metrics: metrics.clone(), limits, front_door, access_log, port };
        let door = Door::outside(parts, passage);
        let switches = door.switches.clone();
        let (steer, course) = watch::channel(Course::Serves);
        let config = tls.clone();
        let served = tokio::spawn(async move {
            let tunnels = serve(listeners, config, door, course.clone()).await;
            tunnels.closed(course).await;
        });
        Self { https, http, table, roots, tls, switches, metrics, sockets, course: steer, served }
    }

    /// What it counts, as operators read it.
    pub(crate) async fn metrics(&self) -> String {
        let router = observation(self.metrics.clone(), Arc::new(fresh()));
        let request = Request::get("/metrics").body(axum::body::Body::empty()).unwrap();
        let answer = router.oneshot(request).await.unwrap().into_body().collect().await.unwrap();
        String::from_utf8(answer.to_bytes().to_vec()).unwrap()
    }

    /// Replaces the table.
    pub(crate) fn swap(&self, tools: Tools<'_>) {
        self.put(table(tools));
    }

    /// The same with one that was made elsewhere.
    pub(crate) fn put(&self, table: Arc<Table>) {
        self.table.send_replace(table);
    }

    /// Stops, and waits for the drain.
    pub(crate) async fn stop(self) {
        self.begin_to_stop();
        soon(self.served).await.unwrap();
    }

    /// Tells it to stop.
    pub(crate) fn begin_to_stop(&self) {
        self.sockets.lock().unwrap().clear();
        self.course.send_replace(Course::Stops);
    }

    pub(crate) async fn connect(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        self.connect_to("a.hearth.example", protocol).await
    }

    /// As a client who says this name, and none where it is an address.
    pub(crate) async fn connect_to(&self, name: &'static str, protocol: &[u8]) -> TlsStream<TcpStream> {
        self.connect_as("127.0.0.1", name, protocol).await
    }

    /// A connection of the visitor with this address.
    pub(crate) async fn connect_from(&self, visitor: &str, protocol: &[u8]) -> TlsStream<TcpStream> {
        self.connect_as(visitor, "a.hearth.example", protocol).await
    }

    async fn connect_as(&self, visitor: &str, name: &'static str, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut config =
            rustls::ClientConfig::builder().with_root_certificates(self.roots.clone()).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(visitor.parse().unwrap(), 0)).unwrap();
        let stream = socket.connect(self.https).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from(name).unwrap();
        let stream = soon(TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        stream
    }

    /// Sends bytes over TLS and reads until the front door closes.
    pub(crate) async fn raw(&self, request: impl AsRef<str>) -> String {
        let mut stream = self.connect(b"http/1.1").await;
        exchange(&mut stream, request.as_ref()).await
    }

    /// The same without TLS.
    pub(crate) async fn raw_plain(&self, request: impl AsRef<str>) -> String {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        exchange(&mut stream, request.as_ref()).await
    }

    /// GET over HTTP/1.1: the whole answer.
    pub(crate) async fn get(&self, host: &str, path: &str) -> String {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: t\r\nConnection: close\r\n\r\n")).await
    }
}

/// Sends a request and reads until the other end closes.
pub(crate) async fn exchange(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), request: &str) -> String {
    soon(stream.write_all(request.as_bytes())).await.unwrap();
    // TLS may hold bytes back until it is told not to.
    let _ = soon(stream.flush()).await;
    let mut answer = Vec::new();
    // A connection that is closed without TLS' farewell is read to the same end.
    let _ = soon(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// An address that refuses connections.
pub(crate) async fn refusing() -> SocketAddr {
    listen().await.local_addr().unwrap()
}

/// A body of one piece.
pub(crate) fn full(text: impl Into<Bytes>) -> BoxBody<Bytes, Infallible> {
    Full::new(text.into()).boxed()
}

/// A body that is sent piece by piece.
pub(crate) fn piped() -> (futures::channel::mpsc::Sender<Bytes>, BoxBody<Bytes, Infallible>) {
    let (sender, pieces) = futures::channel::mpsc::channel(1);
    (sender, BodyExt::boxed(StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece))))))
}

/// A tool's pod: answers by a function and counts.
#[derive(Clone)]
pub(crate) struct Pod {
    pub(crate) address: SocketAddr,
    pub(crate) requests: Arc<AtomicUsize>,
}

impl Pod {
    pub(crate) async fn start<H, F>(handle: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<BoxBody<Bytes, Infallible>>> + Send + 'static,
    {
        let listener = listen().await;
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = requests.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (handle, counter) = (handle.clone(), counter.clone());
                let service = service_fn(move |request| {
                    counter.fetch_add(1, Ordering::SeqCst);
                    let answer = handle(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, requests }
    }

    /// Says when a request came, and answers `late` when it is told to.
    pub(crate) async fn hanging(came: mpsc::Sender<()>, release: Arc<Notify>) -> Self {
        Self::start(move |_| {
            let (came, release) = (came.clone(), release.clone());
            async move {
                came.send(()).await.unwrap();
                release.notified().await;
                Response::new(full("late\n"))
            }
        })
        .await
    }

    /// Answers with its name and the head of the request, as lines, and the body's length.
    pub(crate) async fn echo(name: &'static str) -> Self {
        Self::start(move |request| async move {
            let (parts, body) = request.into_parts();
            let mut lines: Vec<String> =
                parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            lines.sort();
            let length = body.collect().await.map_or(0, |body| body.to_bytes().len());
            let head = format!("{name} {} {} {length}", parts.method, parts.uri);
            Response::new(full(format!("{head}\n{}\n", lines.join("\n"))))
        })
        .await
    }

    pub(crate) fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// A pod that does what `serve` does with each connection.
pub(crate) async fn raw_pod<H, F>(serve: H) -> SocketAddr
where
    H: Fn(TcpStream) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Reads the head of a message.
pub(crate) async fn read_head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match soon(stream.read_u8()).await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}
