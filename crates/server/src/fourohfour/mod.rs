//! The pages for hosts and tools that serve nothing.
//!
//! The front door sends here whatever no tool answers, with the reason and the tool's name in fields of the request
//! ([`reason`](hearth_core::route::reason)); a request without them is judged by its host. What is known of tools
//! comes from one watch of the namespaces' metadata and is held in memory.
//!
//! It never asks an API while it answers, never shows what the visitor sent without parsing it first, and never
//! answers a page of the platform with somebody else's scripts or styles.

mod accept;
mod page;
mod render;
mod suggest;
mod tools;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use hearth_core::Host;
use hearth_core::route::Reason;
use hearth_core::route::reason::{REASON_FIELD, TOOL_FIELD};
use http::{HeaderMap, StatusCode, header};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::{http_service, kubernetes};

pub use tools::{Tool, Tools, follow};

/// What the role is started with. It needs no configuration: hosts come with the requests.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where the pages are served.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8000")]
    listen: SocketAddr,
    /// Where /healthz, /readyz and /metrics are.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:9100")]
    health: SocketAddr,
    /// How to reach the Kubernetes API outside of a pod.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// All that answering needs.
pub struct Pages {
    tools: Arc<Tools>,
    render: render::Renderer,
    registry: Registry,
    served: Family<ReasonLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Runs the role until it is told to stop.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { listen, health, kubeconfig } = args;
    let client = kubernetes::client(kubeconfig.as_deref()).await?;
    let bind = async |address: SocketAddr| {
        TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))
    };
    let (listener, health) = (bind(listen).await?, bind(health).await?);
    let tools = Arc::new(Tools::default());
    let pages = Pages::new(tools.clone());
    let following = tokio::spawn(follow(client, tools));
    let (served, observed) = tokio::join!(
        http_service::serve(listener, None, router(pages.clone()), http_service::stop_signal()),
        http_service::serve(health, None, observation(pages), http_service::stop_signal()),
    );
    following.abort();
    served.and(observed)
}

/// Every path of every host.
pub fn router(pages: Arc<Pages>) -> Router {
    Router::new().fallback(answer).with_state(pages)
}

/// What operators and the cluster ask.
pub fn observation(pages: Arc<Pages>) -> Router {
    let ready = async |State(pages): State<Arc<Pages>>| match pages.tools.is_complete() {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the namespaces are not known yet\n"),
    };
    let metrics = async |State(pages): State<Arc<Pages>>| {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &pages.registry);
        text
    };
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(pages)
}

async fn answer(State(pages): State<Arc<Pages>>, headers: HeaderMap) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let asked = page::Asked {
        reason: text(REASON_FIELD).and_then(|word| word.parse::<Reason>().ok()),
        tool: text(TOOL_FIELD).and_then(|name| name.parse().ok()),
        host: text(header::HOST.as_str()).and_then(|authority| Host::of_authority(authority).ok()),
        port: text(header::HOST.as_str()).and_then(|authority| authority.split_once(':')?.1.parse().ok()),
    };
    let page = page::decide(&pages.tools, asked);
    pages.served.get_or_create(&ReasonLabel { reason: page.reason.as_str() }).inc();
    pages.render.response(&page, accept::format(text(header::ACCEPT.as_str())))
}

// === impl Pages ===

impl Pages {
    /// Pages about `tools`.
    pub fn new(tools: Arc<Tools>) -> Arc<Self> {
        let mut registry = Registry::with_prefix("hearth_fourohfour");
        let served = Family::<ReasonLabel, Counter>::default();
        registry.register("pages", "Pages served, by reason", served.clone());
        Arc::new(Self { tools, render: render::Renderer::new(), registry, served })
    }
}
