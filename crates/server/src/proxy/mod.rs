//! The front proxy: the front door of the platform, outside the cluster, where browsers come to.
//!
//! What becomes of a request is decided by the module `reverse_proxy`. Here its parts are put together, and the sockets
//! are handed to a successor when another program takes over (module `handover`).

pub mod handover;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::Context;
use hearth_core::Platform;
use hearth_core::names::path;

use self::handover::{Desk, Inheritance};
use crate::reverse_proxy::{
    Course, Door, Follower, Limits, Listeners, Metrics, Passage, PassageFiles, STALE_AFTER, observation, serve, tls,
};
use crate::{http_service, kubernetes};

/// What the role is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where browsers come to, by TLS; may be given several times, with the same port.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:443")]
    https: Vec<SocketAddr>,
    /// Where browsers are sent to TLS from; may be given several times.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:80")]
    http: Vec<SocketAddr>,
    /// Where /healthz, /readyz and /metrics are, without TLS.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9100")]
    health: SocketAddr,
    /// How to reach the Kubernetes API; the proxy runs outside the cluster.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The certificate for every domain and its chain, PEM.
    #[arg(long, value_name = "FILE")]
    tls_cert: PathBuf,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE")]
    tls_key: PathBuf,
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = path::PLATFORM)]
    platform: PathBuf,
    #[command(flatten)]
    ingress: PassageFiles,
    /// Where the last known routes are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/hearth/proxy")]
    state: PathBuf,
}

/// Runs the role until it is told to stop.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { https, http, health, kubeconfig, tls_cert, tls_key, platform, ingress, state } = args;
    let text = std::fs::read_to_string(&platform)
        .with_context(|| format!("failed to read the configuration {}", platform.display()))?;
    let Platform { domains, front_door, .. } =
        Platform::from_toml(&text).with_context(|| platform.display().to_string())?;
    let client = kubernetes::client(kubeconfig.as_deref()).await?;
    let files = tls::Files { certificate: tls_cert, key: tls_key };
    let tls = tls::read(&files)?;
    let port = https.first().context("--https names no address")?.port();
    let metrics = Metrics::new();
    let (steer, course) = tokio::sync::watch::channel(Course::Serves);
    let place = handover::place(&state);
    let (follower, followed) = Follower::new(client, domains, Some(state), STALE_AFTER, metrics.clone())?;
    let freshness = followed.freshness.clone();
    let passage = Passage::open(ingress, &front_door, Limits::default().patience)?;
    let door = Door::with_passage(passage, followed, metrics.clone(), Limits::default(), front_door, port);
    let following = tokio::spawn(follower.run(course.clone()));
    tokio::spawn(tls::keep_current(files, tls.clone()));

    let mut inherited = Inheritance::ask(&place).await?;
    let mut listeners = Listeners { https: Vec::new(), http: Vec::new() };
    for address in &https {
        listeners.https.push(inherited.socket(*address).await?);
    }
    for address in &http {
        listeners.http.push(inherited.socket(*address).await?);
    }
    let health = inherited.socket(health).await?;
    let sockets = handover::cloned(listeners.https.iter().chain(&listeners.http).chain([&health]))?;
    let predecessor = inherited.predecessor();
    if predecessor.is_some() {
        tracing::info!("another front door is open: it goes on until the table here is complete");
        tokio::select! {
            () = freshness.completed() => (),
            () = http_service::stop_signal() => return Ok(()),
        }
    }
    // From here on a successor is given the sockets by this one.
    let desk = Desk::open(&place)?;
    let observed = http_service::serve(health, None, observation(metrics, freshness), ended(course.clone()));
    let observed = tokio::spawn(observed);
    let served = tokio::spawn(serve(listeners, tls, door, course.clone()));
    tracing::info!(?https, ?http, "the front door is open");
    if let Some(predecessor) = predecessor {
        predecessor.relieve().await;
    }
    tokio::spawn(steered(steer, desk, sockets));
    let tunnels = served.await?;
    following.abort();
    tunnels.closed(course).await;
    observed.await?
}

/// Sets the course: by a successor's word, and by the signal to stop.
async fn steered(steer: tokio::sync::watch::Sender<Course>, desk: Desk, sockets: Vec<OwnedFd>) {
    tokio::select! {
        () = http_service::stop_signal() => (),
        () = desk.relieved(&sockets) => {
            tracing::info!("a successor has taken over");
            // Whoever comes now must not wait in a queue that nobody accepts from here.
            drop(sockets);
            steer.send_replace(Course::Relieved);
            http_service::stop_signal().await;
        }
    }
    steer.send_replace(Course::Stops);
}

/// Completes when this front door accepts no more.
async fn ended(mut course: tokio::sync::watch::Receiver<Course>) {
    let _ = course.wait_for(|course| *course != Course::Serves).await;
}
