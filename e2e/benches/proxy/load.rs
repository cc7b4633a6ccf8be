//! The load, and the backend that answers it.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;

/// The host that is asked for.
pub(crate) const HOST: &str = "a.hearth.localhost";

/// How many requests are open at a time: one on each connection of HTTP/1.1, eight on each of HTTP/2.
const OPEN: usize = 64;
const STREAMS: usize = 8;

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// What is asked.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// The authority of its certificate; without one there is no TLS.
    pub(crate) roots: Option<Arc<rustls::RootCertStore>>,
    pub(crate) protocol: Protocol,
    /// The bytes of an answer.
    pub(crate) size: usize,
}

/// A connection.
pub(crate) enum Client {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

/// Starts a backend that answers `/N` with N bytes, at an address that an `EndpointSlice` may have.
pub(crate) async fn backend() -> anyhow::Result<SocketAddr> {
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    probe.connect("198.51.100.1:9").await.context("this machine has no address beside its loopback")?;
    let listener = TcpListener::bind((probe.local_addr()?.ip(), 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let service = service_fn(answer);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(address)
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    static CONTENT: [u8; 1 << 20] = [b'x'; 1 << 20];
    let size = request.uri().path().trim_start_matches('/').parse::<usize>().unwrap_or(0).min(CONTENT.len());
    Ok(Response::new(Full::new(Bytes::from_static(&CONTENT[..size]))))
}

/// Asks `count` times, and reads each answer to its end.
pub(crate) async fn run(target: &Target, count: usize) -> anyhow::Result<()> {
    let connections = if target.protocol == Protocol::Http2 { OPEN / STREAMS } else { OPEN };
    let each = count / connections;
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let target = target.clone();
            tokio::spawn(async move { on_one_connection(&target, each).await })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn on_one_connection(target: &Target, count: usize) -> anyhow::Result<()> {
    let mut client = Client::connect(target).await?;
    let streams = if target.protocol == Protocol::Http2 { STREAMS } else { 1 };
    let size = target.size;
    let mut others = Vec::new();
    while let Some(mut other) = client.another().filter(|_| others.len() + 1 < streams) {
        others.push(tokio::spawn(async move { other.ask(count / streams, size).await }));
    }
    client.ask(count / streams, size).await?;
    for other in others {
        other.await??;
    }
    Ok(())
}

// === impl Client ===

impl Client {
    /// Connects without any memory of earlier connections: every handshake is a full one.
    pub(crate) async fn connect(target: &Target) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let Some(roots) = &target.roots else { return Self::speak(stream, target.protocol).await };
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots.clone()).with_no_client_auth();
        let protocol: &[u8] = if target.protocol == Protocol::Http2 { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(HOST)?, stream).await?;
        Self::speak(stream, target.protocol).await
    }

    async fn speak<S>(stream: S, protocol: Protocol) -> anyhow::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await?;
                tokio::spawn(connection);
                Ok(Self::Http1(sender))
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                tokio::spawn(connection);
                Ok(Self::Http2(sender))
            }
        }
    }

    /// The same connection once more, where it can have several requests open.
    fn another(&self) -> Option<Self> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(sender) => Some(Self::Http2(sender.clone())),
        }
    }

    async fn ask(&mut self, count: usize, size: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            self.get(size).await?;
        }
        Ok(())
    }

    /// Asks once, and reads the answer to its end.
    pub(crate) async fn get(&mut self, size: usize) -> anyhow::Result<()> {
        let answer = match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                let request = Request::get(format!("/{size}")).header("host", HOST).header("user-agent", "bench");
                sender.send_request(request.body(Empty::new())?).await?
            }
            Self::Http2(sender) => {
                let request = Request::get(format!("https://{HOST}/{size}")).header("user-agent", "bench");
                sender.send_request(request.body(Empty::new())?).await?
            }
        };
        read(answer, size).await
    }
}

async fn read(answer: Response<Incoming>, size: usize) -> anyhow::Result<()> {
    ensure!(answer.status().is_success(), "answered with {}", answer.status());
    let mut body = answer.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, Bytes::len);
    }
    ensure!(length == size, "{length} bytes came instead of {size}");
    Ok(())
}
