//! The load, and the backend that answers it.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
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
    let stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    let Some(roots) = &target.roots else { return http1(stream, target, count).await };
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots.clone()).with_no_client_auth();
    let protocol: &[u8] = if target.protocol == Protocol::Http2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(HOST)?, stream).await?;
    match target.protocol {
        Protocol::Http1 => http1(stream, target, count).await,
        Protocol::Http2 => http2(stream, target, count).await,
    }
}

async fn http1<S>(stream: S, target: &Target, count: usize) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    for _ in 0..count {
        sender.ready().await?;
        let request = Request::get(format!("/{}", target.size)).header("host", HOST).header("user-agent", "bench");
        read(sender.send_request(request.body(Empty::<Bytes>::new())?).await?, target.size).await?;
    }
    Ok(())
}

async fn http2<S>(stream: S, target: &Target, count: usize) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| {
            let (mut sender, size) = (sender.clone(), target.size);
            tokio::spawn(async move {
                for _ in 0..count / STREAMS {
                    let request = Request::get(format!("https://{HOST}/{size}")).header("user-agent", "bench");
                    read(sender.send_request(request.body(Empty::<Bytes>::new())?).await?, size).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for stream in streams {
        stream.await??;
    }
    Ok(())
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
