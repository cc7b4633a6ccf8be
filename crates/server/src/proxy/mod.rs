//! The front proxy: the front door of the platform, outside the cluster, where browsers come to.
//!
//! What becomes of a request is decided by the module `reverse_proxy`. Here its parts are put together, and the sockets
//! are handed to a successor when another program takes over (module `handover`).

pub mod handover;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use hearth_core::Platform;
use hearth_core::names::{MAINTENANCE, path};
use hearth_core::route::Served;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::handover::{Desk, Inheritance};
use crate::reverse_proxy::certificates::{self, Files, SecretName, Sources};
use crate::reverse_proxy::switches::{self, SwitchFiles};
use crate::reverse_proxy::{
    AccessLog, Course, Door, DoorParts, Follower, Limits, Metrics, Passage, PassageFiles, SOCKETS, STALE_AFTER,
    Sockets, Tls, Workers, observation,
};
use crate::{configuration, http_service, kubernetes};

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
    /// A certificate and its chain, PEM; may be given several times. The first is shown to whoever names no host.
    #[arg(long, value_name = "FILE")]
    tls_cert: Vec<PathBuf>,
    /// Its private key, PEM; as many, in the same order.
    #[arg(long, value_name = "FILE")]
    tls_key: Vec<PathBuf>,
    /// A Secret of the type kubernetes.io/tls; may be given several times.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    tls_secret: Vec<SecretName>,
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = path::PLATFORM)]
    platform: PathBuf,
    /// Whose requests are refused; read again when it changes, and it may be missing.
    #[arg(long, value_name = "FILE")]
    blocked: Option<PathBuf>,
    #[command(flatten)]
    ingress: PassageFiles,
    /// Where the last known routes are kept, and where `maintenance` switches the page for technical problems.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/hearth/proxy")]
    state: PathBuf,
}

/// Runs the role until it is told to stop.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { https, http, health, kubeconfig, tls_cert, tls_key, tls_secret, platform, blocked, ingress, state } =
        args;
    let Platform { domains, front_door, .. } = configuration::read(&platform)?;
    let served = Served { domains, legacy_tools: front_door.legacy_tools.iter().cloned().collect() };
    use_all_sockets();
    let client = kubernetes::client(kubeconfig.as_deref()).await?;
    ensure!(tls_cert.len() == tls_key.len(), "each --tls-cert needs a --tls-key, in the same order");
    let files = tls_cert.into_iter().zip(tls_key).map(|(certificate, key)| Files { certificate, key }).collect();
    let copies = state.join("certificates");
    let sources = Sources { files, every: certificates::EVERY, secrets: tls_secret, copies };
    let port = https.first().context("--https names no address")?.port();
    let metrics = Metrics::new();
    let Some(tls) = certificates(sources, &client, &metrics).await? else { return Ok(()) };
    let (steer, course) = tokio::sync::watch::channel(Course::Serves);
    let place = handover::place(&state);
    let switches = SwitchFiles { maintenance: state.join(MAINTENANCE), blocked };
    let (follower, followed) = Follower::new(client, served, Some(state), STALE_AFTER, metrics.clone())?;
    let freshness = followed.freshness.clone();
    let (access_log, log_writer) =
        AccessLog::start(front_door.access_log.clone(), metrics.lost_lines.clone(), std::io::stderr())?;
    let passage = Passage::open(ingress, &front_door, Limits::default().patience)?;
    let parts =
        DoorParts { followed, metrics: metrics.clone(), limits: Limits::default(), front_door, access_log, port };
    let door = Door::outside(parts, passage);
    tokio::spawn(door.switches.clone().follow(switches, switches::EVERY));
    let following = tokio::spawn(follower.run(course.clone()));

    let mut inherited = Inheritance::ask(&place).await?;
    let listeners =
        Sockets { https: opened(&mut inherited, &https).await?, http: opened(&mut inherited, &http).await? };
    let health = inherited.socket(health).await?;
    let mut sockets = handover::cloned(listeners.https.iter().chain(&listeners.http))?;
    sockets.extend(handover::cloned([&health])?);
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
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut workers = Workers::start(threads, &listeners, &tls, &door, &course)?;
    drop(listeners);
    tracing::info!(?https, ?http, "the front door is open");
    if let Some(predecessor) = predecessor {
        predecessor.relieve().await;
    }
    tokio::spawn(steered(steer, desk, sockets));
    workers.served().await?;
    following.abort();
    workers.closed().await?;
    log_writer.finish();
    observed.await?
}

/// Uses as many sockets as the kernel allows, of which a request may need two: one to the visitor, one to the pod.
fn use_all_sockets() {
    let allowed = getrlimit(Resource::Nofile).maximum;
    let raised = setrlimit(Resource::Nofile, Rlimit { current: allowed, maximum: allowed });
    if raised.is_err() || allowed.is_some_and(|allowed| allowed < SOCKETS) {
        let allowed = allowed.unwrap_or(u64::MAX);
        tracing::warn!(allowed, needed = SOCKETS, "the limit on open files is below what all visitors may need");
    }
}

/// The sockets at these addresses.
async fn opened(inherited: &mut Inheritance, addresses: &[SocketAddr]) -> anyhow::Result<Vec<TcpListener>> {
    let mut sockets = Vec::new();
    for address in addresses {
        sockets.push(inherited.socket(*address).await?.into_std()?);
    }
    Ok(sockets)
}

/// The certificates that browsers are shown, kept current; nothing where the role was told to stop before they were
/// there.
async fn certificates(sources: Sources, client: &kube::Client, metrics: &Metrics) -> anyhow::Result<Option<Tls>> {
    tokio::select! {
        tls = certificates::follow(sources, client, metrics.certificates.clone()) => tls.map(Some),
        () = http_service::stop_signal() => Ok(None),
    }
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
