//! HTTP services of the roles: a listener, TLS from files that are read again when they change, and a drain at the end.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::{conn::auto, graceful::GracefulShutdown};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// How long a stopping service waits for the requests that it is answering.
const DRAIN: Duration = Duration::from_secs(10);

/// How often the files of a certificate are looked at.
const RELOAD: Duration = Duration::from_secs(30);

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The files of a server's certificate.
#[derive(Clone, Debug, clap::Args)]
pub struct TlsFiles {
    /// The server's certificate and its chain, PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_cert: PathBuf,
    /// The server's private key, PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_key: PathBuf,
    /// Serve only clients with a certificate of this authority, PEM.
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
}

/// Serves `router` on `listener`, over TLS where `tls` is given, until `shutdown` completes; then answers what has
/// begun, for ten seconds at most.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsFiles>,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let acceptor = match tls {
        Some(files) => Some(reloading(files)?),
        None => None,
    };
    let builder = Arc::new(auto::Builder::new(TokioExecutor::new()));
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = &mut shutdown => break,
        };
        let _ = stream.set_nodelay(true);
        let (builder, watcher, service) =
            (builder.clone(), graceful.watcher(), TowerToHyperService::new(router.clone()));
        let acceptor = acceptor.as_ref().map(|a| TlsAcceptor::from(a.load_full()));
        tokio::spawn(async move {
            let outcome = match acceptor {
                Some(acceptor) => match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
                        watcher.watch(connection).await
                    }
                    Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
                    Err(_) => return tracing::debug!("TLS handshake took too long"),
                },
                None => watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned()).await,
            };
            if let Err(error) = outcome {
                tracing::debug!(error, "connection ended");
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    Ok(())
}

/// Completes when the process is told to stop (SIGTERM or SIGINT).
pub async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => (),
                _ = interrupt.recv() => (),
            }
        }
        _ => std::future::pending().await,
    }
}

/// The TLS configuration from its files, replaced whenever they hold another certificate. A faulty file leaves the
/// last good one in use.
fn reloading(files: TlsFiles) -> anyhow::Result<Arc<ArcSwap<rustls::ServerConfig>>> {
    crate::kubernetes::install_crypto();
    let mut last = std::fs::read(&files.tls_cert)
        .with_context(|| format!("failed to read the certificate {}", files.tls_cert.display()))?;
    let current = Arc::new(ArcSwap::from_pointee(load(&files)?));
    let swap = Arc::downgrade(&current);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(RELOAD).await;
            let Some(swap) = swap.upgrade() else { return };
            match tokio::fs::read(&files.tls_cert).await {
                Ok(bytes) if bytes != last => match load(&files) {
                    Ok(config) => {
                        swap.store(Arc::new(config));
                        last = bytes;
                        tracing::info!(file = %files.tls_cert.display(), "a new certificate is in use");
                    }
                    Err(error) => tracing::warn!(error = format!("{error:#}"), "the new certificate is not usable"),
                },
                Ok(_) => (),
                Err(error) => {
                    tracing::warn!(%error, file = %files.tls_cert.display(), "the certificate cannot be read")
                }
            }
        }
    });
    Ok(current)
}

fn load(files: &TlsFiles) -> anyhow::Result<rustls::ServerConfig> {
    let chain = CertificateDer::pem_file_iter(&files.tls_cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("failed to read the certificate {}", files.tls_cert.display()))?;
    let key = PrivateKeyDer::from_pem_file(&files.tls_key)
        .with_context(|| format!("failed to read the key {}", files.tls_key.display()))?;
    let builder = rustls::ServerConfig::builder();
    let builder = match &files.client_ca {
        Some(file) => {
            let mut roots = rustls::RootCertStore::empty();
            for ca in
                CertificateDer::pem_file_iter(file).with_context(|| format!("failed to read {}", file.display()))?
            {
                roots.add(ca?)?;
            }
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build()?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .with_context(|| format!("{} and its key do not belong together", files.tls_cert.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
