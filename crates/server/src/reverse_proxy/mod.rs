//! Routing requests to tools: what the front door outside the cluster and the ingress inside it have in common.
//!
//! While it handles a request it reads the table of routes and nothing else: no API, no directory, no disk. The table
//! is replaced whole when the cluster changes (module `watch`); no socket and no connection notices. A table
//! that is older than 30 s is not dialled from (module `freshness`): better no page than another tool's.
//!
//! It never tells a tool the visitor's address, never passes on a request of which two hosts could be read, and never
//! collects a body.

mod access;
mod access_log;
mod allowances;
mod authority;
mod bodies;
mod by_tool;
pub mod certificates;
mod compressed;
mod compression;
mod freshness;
mod guard;
mod h2c;
mod headers;
mod journal;
mod listener;
mod metrics;
mod pages;
mod passage;
mod plain;
mod pool;
mod request;
mod shared_origin;
mod snapshot;
mod stall;
pub mod switches;
mod tls;
mod tunnel;
mod upstream;
mod watch;
mod workers;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hearth_core::ToolName;
use hearth_core::limit::Allowance;
use hearth_core::platform::FrontDoor;
use hearth_core::route::{Index, Served, Table};
use http::StatusCode;
use tokio::sync::Semaphore;

use self::allowances::Meters;
pub use access_log::{AccessLog, Writer};
pub use freshness::{Freshness, STALE_AFTER};
pub use listener::{Course, Listeners, SOCKETS, Tunnels, serve};
pub use metrics::Metrics;
pub use passage::{Passage, PassageFiles};
use switches::Switches;
pub use tls::{Pair, PairError, Tls};
pub use upstream::Patience;
pub use workers::{Sockets, Workers};

/// The port that browsers come to when their URL names none.
const HTTPS: u16 = 443;

/// All that answering a request needs. Made once for each thread that serves, given to every connection.
pub struct Door {
    table: tokio::sync::watch::Receiver<Arc<Table>>,
    freshness: Arc<Freshness>,
    metrics: Arc<Metrics>,
    access_log: AccessLog,
    upstream: upstream::Upstream,
    limits: Limits,
    front_door: FrontDoor,
    visitors: Meters<IpAddr>,
    /// How many connections visitors have.
    connections: Meters<IpAddr>,
    /// What an operator switches.
    pub switches: Arc<Switches>,
    /// As many mebibytes as compressing may still take.
    compressing: Arc<Semaphore>,
    tools: Meters<ToolName>,
    stand: Stand,
    /// The port to which browsers come by TLS.
    port: u16,
    /// How many more connections may be open.
    free: Arc<Semaphore>,
}

/// What a door is made of.
pub struct DoorParts {
    /// The table, and how old it is.
    pub followed: Followed,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
    /// What a request may have.
    pub limits: Limits,
    /// What the operator allows visitors and tools.
    pub front_door: FrontDoor,
    /// Where requests are written down.
    pub access_log: AccessLog,
    /// The port to which browsers come by TLS.
    pub port: u16,
}

/// Where a door stands.
enum Stand {
    /// Where browsers come to, with the way through the cluster's ingress, where there is one.
    Outside(Option<Passage>),
    /// Inside the cluster, where the front door alone comes to. What it says of visitors is believed, and what they and
    /// tools may use has been looked at.
    Inside,
}

/// What a request may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes of a request's body.
    pub body: u64,
    /// How long a client of HTTP/1 may take for the head of a request, and keep a connection without one.
    pub client_head: Duration,
    /// How long a client may pause in the middle of a body, be it one that it sends or one that it is sent.
    pub client_pause: Duration,
    /// How long a client of HTTP/2 may keep a connection without a request; it is found out before twice that.
    pub client_idle: Duration,
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

/// What load balancers ask.
pub fn probe(freshness: Arc<Freshness>) -> Router {
    let readyz = async move || match freshness.is_ready() {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the table of routes is not complete, or too old\n"),
    };
    Router::new().route("/readyz", get(readyz))
}

/// What operators ask, and what load balancers do.
pub fn observation(metrics: Arc<Metrics>, freshness: Arc<Freshness>) -> Router {
    probe(freshness.clone())
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(async move || metrics.render(&freshness)))
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 128 * 1024 * 1024,
            client_head: Duration::from_secs(30),
            client_pause: Duration::from_secs(60),
            client_idle: Duration::from_secs(150),
            patience: Patience::default(),
        }
    }
}

impl Door {
    /// A door where browsers come to, with the way through the cluster's ingress, where there is one. It serves its
    /// table as long as that is fresh.
    pub fn outside(parts: DoorParts, passage: Option<Passage>) -> Arc<Self> {
        Self::at(Stand::Outside(passage), parts)
    }

    /// A door inside the cluster, behind a front door, which must be the only one that can connect to it, and which
    /// keeps the log.
    pub fn inside(followed: Followed, metrics: Arc<Metrics>, limits: Limits) -> Arc<Self> {
        let (front_door, access_log) = (FrontDoor::default(), AccessLog::none());
        Self::at(Stand::Inside, DoorParts { followed, metrics, limits, front_door, access_log, port: HTTPS })
    }

    fn at(stand: Stand, parts: DoorParts) -> Arc<Self> {
        let DoorParts { followed: Followed { table, freshness }, metrics, limits, front_door, access_log, port } =
            parts;
        let upstream = upstream::Upstream::new(limits.patience);
        let (visitors, tools) = (Meters::new(front_door.visitor), Meters::new(front_door.tool));
        let compressing = Arc::new(Semaphore::new(compressed::MEMORY));
        let at_once = Allowance { per_second: u32::MAX, burst: u32::MAX, at_once: front_door.visitor_connections };
        let (connections, switches) = (Meters::new(at_once), Switches::new(metrics.switches.clone()));
        let free = Arc::new(Semaphore::new(listener::CONNECTIONS));
        Arc::new(Self {
            table,
            freshness,
            metrics,
            access_log,
            upstream,
            limits,
            front_door,
            visitors,
            connections,
            switches,
            compressing,
            tools,
            stand,
            port,
            free,
        })
    }

    /// The same door for another thread, with connections to pods of its own.
    fn beside(&self) -> Arc<Self> {
        Arc::new(Self {
            table: self.table.clone(),
            freshness: self.freshness.clone(),
            metrics: self.metrics.clone(),
            access_log: self.access_log.clone(),
            upstream: self.upstream.beside(),
            limits: self.limits,
            front_door: self.front_door.clone(),
            visitors: self.visitors.clone(),
            connections: self.connections.clone(),
            switches: self.switches.clone(),
            compressing: self.compressing.clone(),
            tools: self.tools.clone(),
            stand: self.stand.beside(),
            port: self.port,
            free: self.free.clone(),
        })
    }
}

// === impl Stand ===

impl Stand {
    /// The same for another thread.
    fn beside(&self) -> Self {
        match self {
            Self::Outside(passage) => Self::Outside(passage.as_ref().map(Passage::beside)),
            Self::Inside => Self::Inside,
        }
    }
}

// === impl Follower ===

impl Follower {
    /// A follower that begins with the snapshot in `state`, where there is one. Nothing is followed before
    /// [`Follower::run`].
    pub fn new(
        client: kube::Client,
        served: impl Into<Served>,
        state: Option<PathBuf>,
        stale_after: Duration,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<(Self, Followed)> {
        let store = state.map(snapshot::Store::open).transpose()?;
        let freshness = Arc::new(Freshness::new(stale_after));
        let mut index = Index::new(served);
        if let Some(loaded) = store.as_ref().and_then(|store| store.load(&mut index)) {
            loaded.restore(index.table().tools(), &freshness);
        }
        let (sender, table) = tokio::sync::watch::channel(index.table());
        metrics.tools.set(i64::try_from(table.borrow().tools()).unwrap_or(i64::MAX));
        let keeper = watch::Keeper { index, table: sender, freshness: freshness.clone(), metrics };
        Ok((Self { keeper, store, client }, Followed { table, freshness }))
    }

    /// Follows the cluster for ever. What it knows is kept on disk until a successor keeps it there.
    pub async fn run(self, course: tokio::sync::watch::Receiver<Course>) {
        let Self { mut keeper, store, client } = self;
        let (_tasks, mut messages) = watch::follow_all(&client, keeper.freshness.limit(), &keeper.metrics);
        let mut listed = Vec::new();
        let mut saver = store.map(snapshot::Saver::new);
        let mut tick = tokio::time::interval(snapshot::SETTLE);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                more = keeper.step(&mut messages, &mut listed) => if !more { return },
                _ = tick.tick() => {
                    match saver.as_mut().filter(|_| *course.borrow() == Course::Serves) {
                        Some(saver) => saver.save(&mut keeper),
                        None => drop(keeper.index.take_changed()),
                    }
                }
            }
        }
    }
}
