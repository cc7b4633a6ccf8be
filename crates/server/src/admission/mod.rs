//! The admission webhook: explains, counts and refuses; the API server's own policies enforce.
//!
//! It parses a review, asks `hearth_core::admission`, and encodes the answer. It changes no object, holds no secret
//! and looks nothing up while it answers: a tool's number comes from a watch of the namespaces that is kept in memory.
//! Whatever it is sent it answers; when it does not know, it allows and says so, because the policies decide.

mod metrics;
mod namespaces;
mod review;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hearth_core::Platform;
use hearth_core::admission::Rules;
use hearth_core::names::path;
use tokio::net::TcpListener;

use crate::http_service::{TlsFiles, serve, stop_signal};
use metrics::Metrics;
pub use namespaces::Namespaces;

/// The largest review that is read, in bytes: two objects of the API server's own limit of 1.5 MiB.
const LARGEST: usize = 3 << 20;

/// What the role is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = path::PLATFORM)]
    platform: PathBuf,
    /// Where to serve reviews, over TLS.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8443")]
    listen: String,
    /// Where to serve health and metrics, in the clear.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:9100")]
    health: String,
    /// Outside a pod: how to reach the Kubernetes API.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsFiles,
}

/// What answering needs.
#[derive(Debug)]
pub struct Ctx {
    rules: Rules,
    namespaces: Namespaces,
    metrics: Metrics,
}

/// Runs the role until it is told to stop.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { platform, listen, health, kubeconfig, tls } = args;
    let text = std::fs::read_to_string(&platform)
        .with_context(|| format!("failed to read the configuration {}", platform.display()))?;
    let rules = Rules::of(&Platform::from_toml(&text)?);
    let client = crate::kubernetes::client(kubeconfig.as_deref()).await?;
    let ctx = Arc::new(Ctx::new(rules, Namespaces::watch(client)));
    let bind = async |address: &str| {
        TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))
    };
    let (reviews, health) = (bind(&listen).await?, bind(&health).await?);
    tracing::info!(listen, "reviewing");
    tokio::try_join!(
        serve(reviews, Some(tls), router(ctx.clone()), stop_signal()),
        serve(health, None, health_router(ctx), stop_signal()),
    )?;
    Ok(())
}

/// What the API server calls: `POST /review`.
pub fn router(ctx: Arc<Ctx>) -> Router {
    Router::new().route("/review", post(answer)).with_state(ctx)
}

/// What the kubelet and the metrics' collector call.
pub fn health_router(ctx: Arc<Ctx>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(ctx)
}

async fn answer(State(ctx): State<Arc<Ctx>>, request: Request<Body>) -> Response {
    match axum::body::to_bytes(request.into_body(), LARGEST).await {
        Ok(body) => {
            let reviewed = review::review(&ctx.rules, &ctx.namespaces, &body);
            ctx.metrics.count(&reviewed);
            reviewed.log();
            ([(header::CONTENT_TYPE, "application/json")], reviewed.body()).into_response()
        }
        Err(error) => {
            ctx.metrics.count_unread();
            tracing::warn!(%error, "a review could not be read");
            let text = format!("the review could not be read; it may have {LARGEST} bytes: {error}\n");
            (StatusCode::PAYLOAD_TOO_LARGE, text).into_response()
        }
    }
}

async fn ready(State(ctx): State<Arc<Ctx>>) -> Response {
    match ctx.namespaces.is_complete() {
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the namespaces have not been listed yet\n").into_response(),
    }
}

async fn metrics(State(ctx): State<Arc<Ctx>>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], ctx.metrics.text()).into_response()
}

// === impl Ctx ===

impl Ctx {
    /// What answering by these rules needs.
    pub fn new(rules: Rules, namespaces: Namespaces) -> Self {
        Self { rules, namespaces, metrics: Metrics::new() }
    }
}
