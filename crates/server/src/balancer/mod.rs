//! The balancer: keeps HAProxy's configuration equal to the cluster's nodes.
//!
//! HAProxy runs by itself, in master-worker mode, started by whoever starts this role; neither waits for the other. What
//! is written is decided in `hearth_core::balancer`; here nodes are followed, the file is put in the place of the old
//! one after HAProxy itself has found no fault in it, and HAProxy's master is told to read it (module `haproxy`). A
//! change drops no connection: the sockets go over to the new worker, and what is open lives on in the old one.
//!
//! It never dials a node, never takes the last node of a way away, and does nothing while the API server is away.

mod haproxy;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::routing::get;
use futures::StreamExt;
use hearth_core::balancer::{Members, Pace, Settings};
use http::StatusCode;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::time::Instant;

pub use self::haproxy::Haproxy;
use crate::{http_service, kubernetes};

/// How long changes are gathered.
const GATHER: Duration = Duration::from_millis(500);

/// The pause after a configuration that could not be put in use.
const AGAIN: Duration = Duration::from_secs(5);

/// What the role is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where the front door comes to, on its way to the ingress; may be given several times.
    #[arg(long, value_name = "ADDR", required = true)]
    ingress: Vec<SocketAddr>,
    /// Where clients of the Kubernetes API come to; may be given several times. Never an address that visitors reach.
    #[arg(long, value_name = "ADDR")]
    api: Vec<SocketAddr>,
    /// Where HAProxy's own /stats and /metrics are.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8404")]
    stats: SocketAddr,
    /// Where this role's /healthz, /readyz and /metrics are, without TLS.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9102")]
    health: SocketAddr,
    /// How to reach the Kubernetes API; the balancer runs outside the cluster.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The name in the API servers' certificate.
    #[arg(long, value_name = "NAME", default_value = "api.hearth.internal")]
    api_name: String,
    /// The authority of that certificate, PEM.
    #[arg(long, value_name = "FILE")]
    api_ca: PathBuf,
    /// With what HAProxy asks the API servers how they are: a client certificate of the cluster, PEM.
    #[arg(long, value_name = "FILE", requires = "api_key")]
    api_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "api_cert")]
    api_key: Option<PathBuf>,
    /// As whom HAProxy runs, where it is started as root.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// HAProxy's program, by which a configuration is looked at before it is used.
    #[arg(long, value_name = "PROGRAM", default_value = "/usr/sbin/haproxy")]
    program: PathBuf,
    /// The folder of haproxy.cfg and of HAProxy's sockets: haproxy.sock, and master.sock, which HAProxy is started with.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/hearth/balancer")]
    state: PathBuf,
}

/// What is counted.
pub struct Metrics {
    registry: Registry,
    /// Configurations that were put in use.
    pub applied: Counter,
    /// Configurations that could not be.
    pub failed: Counter,
    ingress: Gauge<i64, AtomicI64>,
    api: Gauge<i64, AtomicI64>,
}

/// Runs the role until it is told to stop. HAProxy goes on.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { ingress, api, stats, health, kubeconfig, api_name, api_ca, api_cert, api_key, user, program, state } =
        args;
    std::fs::create_dir_all(&state).with_context(|| format!("failed to make {}", state.display()))?;
    let haproxy = Haproxy::new(program, state.clone());
    let api_client = match (api_cert, api_key) {
        (Some(cert), Some(key)) => Some(haproxy.client_certificate(&cert, &key)?),
        _ => None,
    };
    let settings = Settings {
        ingress,
        api,
        stats,
        folder: state.display().to_string(),
        api_name,
        api_ca: api_ca.display().to_string(),
        api_client: api_client.map(|file| file.display().to_string()),
        user,
        pace: Pace::default(),
    };
    let client = kubernetes::client(kubeconfig.as_deref()).await?;
    let metrics = Metrics::new();
    let listener = TcpListener::bind(health).await.with_context(|| format!("failed to listen on {health}"))?;
    let served = http_service::serve(listener, None, observation(metrics.clone()), http_service::stop_signal());
    tokio::select! {
        served = served => served,
        kept = keep(client, haproxy, settings, metrics) => kept,
    }
}

/// Keeps the configuration equal to the nodes, for ever.
pub async fn keep(
    client: kube::Client,
    haproxy: Haproxy,
    settings: Settings,
    metrics: Arc<Metrics>,
) -> anyhow::Result<()> {
    haproxy.begin(&Members::default().configuration(&settings))?;
    let events = watcher(Api::<Node>::all(client), Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut nodes = Nodes::default();
    let mut keeper = Keeper { haproxy, settings, metrics, members: Members::default(), in_use: None };
    let mut due: Option<Instant> = None;
    loop {
        tokio::select! {
            event = events.next() => match event.context("the nodes are not followed any more")? {
                Ok(event) => {
                    if nodes.take(event) {
                        due = due.or(Some(Instant::now() + GATHER));
                    }
                }
                Err(error) => tracing::warn!(%error, "the nodes are not heard of"),
            },
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                due = if keeper.put_in_use(&nodes).await { None } else { Some(Instant::now() + AGAIN) };
            }
        }
    }
}

/// What is known of the nodes.
#[derive(Default)]
struct Nodes {
    known: BTreeMap<String, Node>,
    listed: BTreeMap<String, Node>,
    complete: bool,
}

impl Nodes {
    /// Takes in what was heard; whether all nodes are known.
    fn take(&mut self, event: Event<Node>) -> bool {
        let of = |node: Node| Some((node.metadata.name.clone()?, node));
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(node) => self.listed.extend(of(node)),
            Event::InitDone => {
                self.known = std::mem::take(&mut self.listed);
                self.complete = true;
            }
            Event::Apply(node) => self.known.extend(of(node)),
            Event::Delete(node) => {
                self.known.remove(node.metadata.name.as_deref().unwrap_or_default());
            }
        }
        self.complete
    }
}

/// What HAProxy was told.
struct Keeper {
    haproxy: Haproxy,
    settings: Settings,
    metrics: Arc<Metrics>,
    members: Members,
    in_use: Option<String>,
}

impl Keeper {
    /// Tells HAProxy of the nodes, where that is news; whether it knows them now.
    async fn put_in_use(&mut self, nodes: &Nodes) -> bool {
        self.members = Members::of(nodes.known.values()).or_else(std::mem::take(&mut self.members));
        let (ingress, api) = (self.members.ingress.len(), self.members.api.len());
        self.metrics.ingress.set(i64::try_from(ingress).unwrap_or(i64::MAX));
        self.metrics.api.set(i64::try_from(api).unwrap_or(i64::MAX));
        let text = self.members.configuration(&self.settings);
        // The first is always applied: nobody knows what HAProxy read last. A cluster without any is no reason to.
        if self.members == Members::default() || self.in_use.as_ref() == Some(&text) {
            return true;
        }
        match self.haproxy.apply(&text).await {
            Ok(()) => {
                self.metrics.applied.inc();
                tracing::info!(ingress, api, "new nodes are in use");
                self.in_use = Some(text);
                true
            }
            Err(error) => {
                self.metrics.failed.inc();
                tracing::error!(error = format!("{error:#}"), "the nodes could not be put in use");
                false
            }
        }
    }
}

fn observation(metrics: Arc<Metrics>) -> Router {
    let ready = metrics.clone();
    let readyz = async move || match ready.applied.get() {
        0 => (StatusCode::SERVICE_UNAVAILABLE, "no configuration has been put in use\n"),
        _ => (StatusCode::OK, "ready\n"),
    };
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(async move || metrics.render()))
}

// === impl Metrics ===

impl Metrics {
    /// All at nought.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("hearth_balancer");
        let (applied, failed) = (Counter::default(), Counter::default());
        let (ingress, api) = (Gauge::default(), Gauge::default());
        registry.register("applied", "Configurations that HAProxy was given", applied.clone());
        registry.register("failed", "Configurations that could not be put in use", failed.clone());
        registry.register("ingress_nodes", "Nodes behind the way to the ingress", ingress.clone());
        registry.register("api_nodes", "Nodes behind the way to the API servers", api.clone());
        Arc::new(Self { registry, applied, failed, ingress, api })
    }

    fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
