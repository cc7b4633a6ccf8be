//! A client that asks as the API server does: HTTP/2 over TLS, connections kept, a certificate shown.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How reviews are asked for: over so many connections, so many at once on each.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) connections: usize,
    pub(crate) streams: usize,
}

/// Asks `count` times for the same review, which must be allowed each time.
pub(crate) async fn ask(
    address: SocketAddr,
    pki: &Path,
    shape: Shape,
    count: usize,
    review: &Bytes,
) -> anyhow::Result<()> {
    let mut tasks = Vec::new();
    for _ in 0..shape.connections {
        let sender = connect(address, pki).await?;
        for _ in 0..shape.streams {
            let (mut sender, review) = (sender.clone(), review.clone());
            let each = count.div_ceil(shape.connections * shape.streams);
            tasks.push(tokio::spawn(async move {
                for _ in 0..each {
                    one(&mut sender, address, review.clone()).await?;
                }
                anyhow::Ok(())
            }));
        }
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn one(sender: &mut SendRequest<Full<Bytes>>, address: SocketAddr, review: Bytes) -> anyhow::Result<()> {
    let request = Request::post(format!("https://{address}/review"))
        .header("content-type", "application/json")
        .body(Full::new(review))?;
    let answer = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
    let text = std::str::from_utf8(&answer)?;
    ensure!(text.contains("\"allowed\":true"), "the review was not allowed: {text}");
    Ok(())
}

async fn connect(address: SocketAddr, pki: &Path) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.join("ca.crt"))?)?;
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(
        vec![CertificateDer::from_pem_file(pki.join("client.crt"))?],
        PrivateKeyDer::from_pem_file(pki.join("client.key"))?,
    )?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.with_context(|| format!("failed to connect to {address}"))?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::from(address.ip()), stream).await?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
