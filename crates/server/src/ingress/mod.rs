//! The ingress: what routes requests inside the cluster where the front door cannot reach pods by itself, and where its
//! own table is too old to be dialled from.
//!
//! It routes as the front door does (module `reverse_proxy`), by its own view of the cluster, and serves its table
//! whatever its age: it stands where the pods are, so it loses sight of the cluster only together with them. Its clients
//! show the front door's certificate, so what they say of visitors is believed, and nothing else inside the cluster can
//! say it. Balancers ask another socket whether it stands, which serves nothing else.
//!
//! It never limits visitors and never ends their TLS: the front door does. It keeps nothing on disk.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use hearth_core::Platform;
use hearth_core::names::path;
use hearth_core::route::Served;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::http_service::{TlsFiles, stop_signal};
use crate::reverse_proxy::{Course, Door, Follower, Limits, Metrics, Sockets, Tls, Workers, observation, probe};
use crate::{configuration, http_service, kubernetes};

/// How long what is open lives on when the role is told to stop: meanwhile each answer tells the front door to come anew,
/// and another copy is found. The pod's grace must be longer by the time of the drain that follows.
const RELIEF: Duration = Duration::from_secs(45);

/// What the role is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where the front door comes to, by TLS.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Where balancers ask for /readyz, without TLS.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:9101")]
    probe: SocketAddr,
    /// Where /healthz, /readyz and /metrics are, without TLS.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:9100")]
    health: SocketAddr,
    /// Outside a pod: how to reach the Kubernetes API.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = path::PLATFORM)]
    platform: PathBuf,
    #[command(flatten)]
    tls: TlsFiles,
}

/// Runs the role until it is told to stop.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { listen, probe: probed, health, kubeconfig, platform, tls } = args;
    ensure!(
        tls.client_ca.is_some() && tls.client_name.is_some(),
        "--client-ca and --client-name are needed: whoever may connect is believed whom a request is from"
    );
    let Platform { domains, front_door, .. } = configuration::read(&platform)?;
    let client = kubernetes::client(kubeconfig.as_deref()).await?;
    let tls = Tls::given(http_service::Tls::from(tls).current()?);
    let served = Served { domains, legacy_tools: front_door.legacy_tools.iter().cloned().collect() };
    let metrics = Metrics::named("hearth_ingress");
    let (steer, course) = watch::channel(Course::Serves);
    let (follower, followed) = Follower::new(client, served, None, Duration::MAX, metrics.clone())?;
    let freshness = followed.freshness.clone();
    let door = Door::inside(followed, metrics.clone(), Limits::default());
    let following = tokio::spawn(follower.run(course.clone()));
    let bind = async |address: SocketAddr| {
        TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))
    };
    let sockets = Sockets { https: vec![bind(listen).await?.into_std()?], http: Vec::new() };
    let (probed, health) = (bind(probed).await?, bind(health).await?);
    let asked = [
        tokio::spawn(http_service::serve(probed, None, probe(freshness.clone()), ended(course.clone()))),
        tokio::spawn(http_service::serve(health, None, observation(metrics, freshness), ended(course.clone()))),
    ];
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut workers = Workers::start(threads, &sockets, &tls, &door, &course)?;
    drop(sockets);
    tracing::info!(%listen, "the ingress is open");
    tokio::spawn(steered(steer));
    workers.served().await?;
    workers.closed().await?;
    following.abort();
    for asked in asked {
        asked.abort();
    }
    Ok(())
}

/// Sets the course when the role is told to stop.
async fn steered(steer: watch::Sender<Course>) {
    stop_signal().await;
    steer.send_replace(Course::Relieved);
    tokio::time::sleep(RELIEF).await;
    steer.send_replace(Course::Stops);
}

/// Completes when no connection is accepted any more.
async fn ended(mut course: watch::Receiver<Course>) {
    let _ = course.wait_for(|course| *course != Course::Serves).await;
}
