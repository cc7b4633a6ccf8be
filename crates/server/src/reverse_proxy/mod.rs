//! Routing requests to tools: what the front door outside the cluster and the ingress inside it have in common.
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
mod headers;
mod listener;
mod metrics;
mod pages;
mod plain;
mod request;
mod snapshot;
mod stall;
pub mod tls;
mod tunnel;
mod upstream;
mod watch;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hearth_core::platform::FrontDoor;
use hearth_core::route::{Index, Table};
use hearth_core::{Domains, ToolName};
use http::StatusCode;

use self::allowances::Meters;
pub use freshness::{Freshness, STALE_AFTER};
pub use listener::{Course, Listeners, Tunnels, serve};
pub use metrics::Metrics;
pub use tls::{Tls, configuration};
pub use upstream::Patience;

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
