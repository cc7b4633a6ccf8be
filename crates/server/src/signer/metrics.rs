//! What the role exports: how many requests it approved, denied and gave up.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The content type of the text that [`text::encode`] writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Decision {
    /// It was approved.
    Approved,
    /// It was denied.
    Denied,
    /// The API server did not answer for too long.
    GivenUp,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    decision: Decision,
}

/// The role's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
}

impl Metrics {
    /// Metrics that count from zero.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("hearth_signer");
        let requests = Family::<Labels, Counter>::default();
        registry.register("requests", "Certificate requests by decision", requests.clone());
        for decision in [Decision::Approved, Decision::Denied, Decision::GivenUp] {
            let _ = requests.get_or_create(&Labels { decision });
        }
        Arc::new(Self { registry, requests })
    }

    pub(super) fn decided(&self, decision: Decision) {
        self.requests.get_or_create(&Labels { decision }).inc();
    }

    /// `/healthz` and `/metrics`.
    pub fn router(self: Arc<Self>) -> Router {
        let metrics = move || async move {
            let mut body = String::new();
            match text::encode(&mut body, &self.registry) {
                Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, OPENMETRICS)], body),
                Err(error) => {
                    let plain = [(header::CONTENT_TYPE, "text/plain")];
                    (StatusCode::INTERNAL_SERVER_ERROR, plain, format!("the metrics cannot be written: {error}\n"))
                }
            }
        };
        Router::new().route("/healthz", get(|| async { "ok\n" })).route("/metrics", get(metrics))
    }
}
