//! The admission webhook: explains, counts and refuses; the API server's own policies enforce.
//!
//! It parses a review, asks `hearth_core::admission`, and encodes the answer. It changes no object, holds no secret
//! and looks nothing up while it answers: a tool's number comes from a watch of the namespaces that is kept in memory.
//! Whatever it is sent it answers; when it does not know, it allows and says so, because the policies decide.
//!
//! What cannot be read gets a status instead of a review: 413 where it is too long, 408 where it does not come to its
//! end, 404 and 405 where it is sent elsewhere or otherwise. The API server then goes on as if nobody had answered.

mod metrics;
mod namespaces;
mod review;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hearth_core::admission::Rules;
use hearth_core::names::path;
use http_body_util::LengthLimitError;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::http_service::{Tls, TlsFiles, serve, stop_signal};
use metrics::Metrics;
pub use namespaces::Namespaces;

/// The largest review that is read, in bytes: two objects of the API server's own limit of 1.5 MiB.
const LARGEST: usize = (3 << 20) + ENVELOPE;

/// What a review holds beside its objects, in bytes: who asks, and with which options.
const ENVELOPE: usize = 64 << 10;

/// The largest review of the usual size, in bytes, and how many of those are read at once; further ones wait. Of the
/// larger ones one is read at a time.
const USUAL: usize = 64 << 10;
const MOST_USUAL: usize = 64;

/// About how many values a review may hold, because each takes many times the bytes that it is written in: enough for
/// two objects of the API server's own limit that are lists of variables.
const MOST_VALUES: usize = 300_000;

/// How long a review may take to come to its end. The API server has given up by then.
const READ: Duration = Duration::from_secs(5);

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
    usual: Semaphore,
    large: Semaphore,
}

/// Runs the role until it is told to stop.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { platform, listen, health, kubeconfig, tls } = args;
    let rules = Rules::of(&crate::configuration::read(&platform)?);
    let client = crate::kubernetes::client(kubeconfig.as_deref()).await?;
    let ctx = Arc::new(Ctx::new(rules, Namespaces::watch(client)));
    let bind = async |address: &str| {
        TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))
    };
    let (reviews, health) = (bind(&listen).await?, bind(&health).await?);
    let tls = Tls { counters: ctx.metrics.tls.clone(), ..Tls::from(tls) };
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
    let body = request.into_body();
    let is_usual = body.size_hint().upper().is_some_and(|size| size <= USUAL as u64);
    // Nothing closes the semaphores, so there is always a permit in the end.
    let _permit = if is_usual { &ctx.usual } else { &ctx.large }.acquire().await;
    match tokio::time::timeout(READ, axum::body::to_bytes(body, LARGEST)).await {
        Ok(Ok(body)) if body.len() > USUAL && values(&body) > MOST_VALUES => {
            let text = format!("the review is too intricate: it may hold about {MOST_VALUES} values\n");
            ctx.unread(StatusCode::PAYLOAD_TOO_LARGE, "too_intricate", text)
        }
        // Whoever writes much waits for it, and nobody else does: all reviews share one thread.
        Ok(Ok(body)) if body.len() > USUAL => {
            let ctx = ctx.clone();
            let judged = tokio::task::spawn_blocking(move || ctx.judge(&body)).await;
            judged.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
        }
        Ok(Ok(body)) => ctx.judge(&body),
        Ok(Err(error)) if error.source().is_some_and(|source| source.is::<LengthLimitError>()) => {
            let text = format!("the review is too large: it may have {LARGEST} bytes\n");
            ctx.unread(StatusCode::PAYLOAD_TOO_LARGE, "too_large", text)
        }
        Ok(Err(error)) => ctx.unread(StatusCode::BAD_REQUEST, "broken_off", format!("the review broke off: {error}\n")),
        Err(_) => {
            let text = format!("the review did not come to its end within {} s\n", READ.as_secs());
            ctx.unread(StatusCode::REQUEST_TIMEOUT, "too_slow", text)
        }
    }
}

/// No fewer than the values in this JSON: each but the first follows one of these, or a name that does.
fn values(body: &[u8]) -> usize {
    body.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count()
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
        let (usual, large) = (Semaphore::new(MOST_USUAL), Semaphore::new(1));
        Self { rules, namespaces, metrics: Metrics::new(), usual, large }
    }

    /// The answer to a review.
    fn judge(&self, body: &[u8]) -> Response {
        let reviewed = review::review(&self.rules, &self.namespaces, body);
        self.metrics.count(&reviewed);
        reviewed.log();
        ([(header::CONTENT_TYPE, "application/json")], reviewed.body()).into_response()
    }

    /// The answer to what was not read to its end.
    fn unread(&self, status: StatusCode, why: &'static str, text: String) -> Response {
        self.metrics.count_unread(why);
        tracing::warn!(why, "a review could not be read");
        (status, text).into_response()
    }
}
