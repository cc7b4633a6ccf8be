//! The front proxy: from a browser's request to the pod of a tool.
//!
//! While it handles a request it reads the table of routes and nothing else: no API, no directory, no disk. The table
//! is replaced whole when the cluster changes (module `watch`); no socket and no connection notices. A table
//! that is older than 30 s is not dialled from (module `freshness`): better no page than another tool's.
//!
//! It never tells a tool the visitor's address, never passes on a request of which two hosts could be read, and never
//! collects a body.

mod access;
mod allowances;
mod authority;
mod bodies;
mod freshness;
mod guard;
pub mod handover;
mod headers;
mod listener;
mod metrics;
mod pages;
mod plain;
mod request;
mod snapshot;
mod tls;
mod upstream;
mod watch;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::routing::get;
use hearth_core::names::path;
use hearth_core::platform::FrontDoor;
use hearth_core::route::{Index, Table};
use hearth_core::{Domains, Platform, ToolName};
use http::StatusCode;

use self::allowances::Meters;
use self::handover::{Desk, Inheritance};
use crate::{http_service, kubernetes};

pub use freshness::{Freshness, STALE_AFTER};
pub use listener::{Course, Listeners, Tunnels, serve};
pub use metrics::Metrics;
pub use tls::{Tls, configuration};
pub use upstream::Patience;

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
    /// Where the last known routes are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/hearth/proxy")]
    state: PathBuf,
}

/// All that answering a request needs. Made once, given to every connection.
pub struct Door {
    table: tokio::sync::watch::Receiver<Arc<Table>>,
    freshness: Arc<Freshness>,
    metrics: Arc<Metrics>,
    upstream: upstream::Upstream,
    limits: Limits,
    front_door: FrontDoor,
    visitors: Meters<IpAddr>,
    tools: Meters<ToolName>,
    /// The port to which browsers come by TLS.
    port: u16,
}

/// What a request may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes of a request's body.
    pub body: u64,
    /// How long a client may pause in the middle of a body.
    pub client_pause: Duration,
    /// How long things may take with a tool's pod.
    pub patience: Patience,
}

/// The follower of the cluster: everything that keeps a table current.
pub struct Follower {
    keeper: watch::Keeper,
    store: Option<snapshot::Store>,
    client: kube::Client,
}

/// What a [`Follower`] keeps current.
pub struct Followed {
    /// The table, replaced whole.
    pub table: tokio::sync::watch::Receiver<Arc<Table>>,
    /// How long ago the cluster was heard from.
    pub freshness: Arc<Freshness>,
}

/// Runs the role until it is told to stop.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { https, http, health, kubeconfig, tls_cert, tls_key, platform, state } = args;
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
    let door = Door::new(followed, metrics.clone(), Limits::default(), front_door, port);
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

/// What operators and load balancers ask.
pub fn observation(metrics: Arc<Metrics>, freshness: Arc<Freshness>) -> Router {
    let ready = freshness.clone();
    let readyz = async move || match ready.is_ready() {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the table of routes is not complete, or too old\n"),
    };
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(async move || metrics.render(&freshness)))
}

impl Default for Limits {
    fn default() -> Self {
        Self { body: 128 * 1024 * 1024, client_pause: Duration::from_secs(60), patience: Patience::default() }
    }
}

impl Door {
    /// A door that serves `followed.table` as long as it is fresh. `port` is where browsers come to by TLS.
    pub fn new(
        followed: Followed,
        metrics: Arc<Metrics>,
        limits: Limits,
        front_door: FrontDoor,
        port: u16,
    ) -> Arc<Self> {
        let Followed { table, freshness } = followed;
        let upstream = upstream::Upstream::new(limits.patience);
        let (visitors, tools) = (Meters::new(front_door.visitor), Meters::new(front_door.tool));
        Arc::new(Self { table, freshness, metrics, upstream, limits, front_door, visitors, tools, port })
    }
}

// === impl Follower ===

impl Follower {
    /// A follower that begins with the snapshot in `state`, where there is one. Nothing is followed before
    /// [`Follower::run`].
    pub fn new(
        client: kube::Client,
        domains: Domains,
        state: Option<PathBuf>,
        stale_after: Duration,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<(Self, Followed)> {
        let store = state.map(snapshot::Store::open).transpose()?;
        let freshness = Arc::new(Freshness::new(stale_after));
        let mut index = Index::new(domains);
        if let Some(snapshot) = store.as_ref().and_then(snapshot::Store::load) {
            snapshot.restore(&mut index, &freshness);
        }
        let (sender, table) = tokio::sync::watch::channel(index.table());
        metrics.tools.set(i64::try_from(table.borrow().tools()).unwrap_or(i64::MAX));
        let keeper = watch::Keeper { index, table: sender, freshness: freshness.clone(), metrics, changes: 0 };
        Ok((Self { keeper, store, client }, Followed { table, freshness }))
    }

    /// Follows the cluster for ever. What it knows is kept on disk until a successor keeps it there.
    pub async fn run(self, course: tokio::sync::watch::Receiver<Course>) {
        let Self { mut keeper, store, client } = self;
        let (_tasks, mut messages) = watch::follow_all(&client, &keeper.metrics);
        let mut listed = Vec::new();
        let mut saver = store.map(snapshot::Saver::new);
        let mut tick = tokio::time::interval(snapshot::SETTLE);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                more = keeper.step(&mut messages, &mut listed) => if !more { return },
                _ = tick.tick() => {
                    if let Some(saver) = saver.as_mut().filter(|_| *course.borrow() == Course::Serves) {
                        saver.save(&keeper);
                    }
                }
            }
        }
    }
}
