//! A front door in process that follows a fake API server, and can be killed as a process can.
//!
//! It has a runtime of its own: nothing of it outlives a kill, and its connections end in the middle of whatever they
//! carry. Its visitors speak TLS and count what they are answered.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up fails")]

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hearth_core::route::{Decision, Table};
use hearth_server::proxy::handover::cloned;
use hearth_server::reverse_proxy::{
    AccessLog, Course, Door, DoorParts, Followed, Follower, Freshness, Limits, Listeners, Metrics, Tls, serve,
};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::proxy_api::Api;
use crate::proxy_front::{domains, unlimited};

/// A front door that runs.
pub(crate) struct Live {
    pub(crate) https: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) tables: watch::Receiver<Arc<Table>>,
    pub(crate) freshness: Arc<Freshness>,
    /// What a successor is given.
    pub(crate) sockets: Mutex<Vec<OwnedFd>>,
    pub(crate) course: watch::Sender<Course>,
    pub(crate) served: JoinHandle<()>,
    runtime: Runtime,
}

/// What a front door is started with.
pub(crate) struct Setting<'a> {
    pub(crate) api: &'a Api,
    pub(crate) state: Option<&'a Path>,
    pub(crate) stale_after: Duration,
    pub(crate) tls: Tls,
}

/// A browser's side of a connection.
pub(crate) type Sender = SendRequest<Full<Bytes>>;

impl Live {
    /// One at a port of its own.
    pub(crate) fn start(setting: &Setting<'_>) -> Self {
        let socket = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Self::at([socket(), socket()], setting)
    }

    /// One that accepts from these sockets, for TLS and without.
    pub(crate) fn at(sockets: [std::net::TcpListener; 2], setting: &Setting<'_>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let _entered = runtime.enter();
        let [https_address, http_address] = [0, 1].map(|socket| sockets[socket].local_addr().unwrap());
        let [https, http] = sockets.map(|socket| {
            socket.set_nonblocking(true).unwrap();
            TcpListener::from_std(socket).unwrap()
        });
        let sockets = Mutex::new(cloned([&https, &http]).unwrap());
        let listeners = Listeners { https: vec![https], http: vec![http] };
        let (state, metrics) = (setting.state.map(Path::to_owned), Metrics::new());
        let client = setting.api.client();
        let (follower, followed) =
            Follower::new(client, domains(), state, setting.stale_after, metrics.clone()).unwrap();
        let Followed { table: tables, freshness } = &followed;
        let (tables, freshness) = (tables.clone(), freshness.clone());
        let (limits, access_log, port) = (Limits::default(), AccessLog::none(), https_address.port());
        let parts = DoorParts { followed, metrics, limits, front_door: unlimited(), access_log, port };
        let door = Door::outside(parts, None);
        let (steer, course) = watch::channel(Course::Serves);
        runtime.spawn(follower.run(course.clone()));
        let tls = setting.tls.clone();
        let served =
            runtime.spawn(async move { serve(listeners, tls, door, course.clone()).await.closed(course).await });
        Self { https: https_address, http: http_address, tables, freshness, sockets, course: steer, served, runtime }
    }

    /// Ends it as a kill does. What it was writing to its state directory is complete or was never begun.
    pub(crate) async fn kill(self) {
        let Self { runtime, .. } = self;
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(5))).await.unwrap();
    }
}

/// The addresses to which a table sends requests for a tool's first page.
pub(crate) fn addresses(table: &Table, tool: &str) -> Vec<SocketAddr> {
    match table.route(&format!("{tool}.hearth.example").parse().unwrap(), "/") {
        Decision::Endpoints(backend) => backend.addresses.to_vec(),
        _ => Vec::new(),
    }
}

/// A TLS connection; nothing where nobody accepts, or it is cut off.
pub(crate) async fn connect(https: SocketAddr, roots: &Arc<rustls::RootCertStore>) -> Option<TlsStream<TcpStream>> {
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots.clone()).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(https).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let name = ServerName::try_from("a.hearth.example").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()
}

/// The same, for requests one after another.
pub(crate) async fn open(https: SocketAddr, roots: &Arc<rustls::RootCertStore>) -> Option<Sender> {
    let stream = connect(https, roots).await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}

/// An answer and its body; an error where the connection ends before both are there.
pub(crate) async fn ask(
    sender: &mut Sender,
    method: &str,
    tool: &str,
    body: &'static str,
) -> Result<(Response<()>, Bytes), hyper::Error> {
    sender.ready().await?;
    let request = Request::builder().method(method).uri("/").header("user-agent", "t");
    let request = request.header("host", format!("{tool}.hearth.example")).body(Full::from(body)).unwrap();
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok((Response::from_parts(parts, ()), body))
}
