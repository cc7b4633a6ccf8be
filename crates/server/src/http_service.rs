//! HTTP services of the roles: a listener, TLS from files that are read again when they change, and a drain at the end.

mod tls;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::{conn::auto, graceful::GracefulShutdown};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use tls::Acceptor;
pub use tls::{Tls, TlsCounters, TlsFiles};

/// How long a stopping service waits for the requests that it is answering.
const DRAIN: Duration = Duration::from_secs(10);

/// How many clients may be in the TLS handshake at once, which whoever reaches the port can begin. Another is cut off,
/// and may try again.
const MOST_HANDSHAKES: usize = 256;

/// Serves `router` on `listener`, over TLS where `tls` is given, until `shutdown` completes; then answers what has
/// begun, for ten seconds at most.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let acceptor = tls.map(Acceptor::start).transpose()?.map(Arc::new);
    let handshakes = Arc::new(Semaphore::new(MOST_HANDSHAKES));
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
        let handshake = match &acceptor {
            Some(acceptor) => match handshakes.clone().try_acquire_owned() {
                Ok(place) => Some((acceptor.clone(), place)),
                Err(_) => continue,
            },
            None => None,
        };
        tokio::spawn(async move {
            let outcome = match handshake {
                Some((acceptor, place)) => {
                    let Some(stream) = acceptor.accept(stream).await else { return };
                    drop(place);
                    watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned()).await
                }
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
