//! What the role exports: how many tools there are, what was done to them, and when all was last as it should be.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use hearth_core::account::admins;
use hearth_core::account::plan::Action;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The content type of the text that [`text::encode`] writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The loop looks at everything at least this often, in seconds; one that does not is stuck.
const STUCK_AFTER: i64 = 60;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Done {
    kind: &'static str,
    outcome: &'static str,
}

/// The role's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    tools: Gauge,
    actions: Family<Done, Counter>,
    refused: Gauge,
    failing: Gauge,
    last_clean_pass: Gauge<i64, AtomicI64>,
    passes: Counter<u64, AtomicU64>,
    leads: Gauge,
    admins: Gauge,
    failing_admins: Gauge,
    refused_admins: Gauge,
    /// When the loop last ran, in seconds since 1970.
    last_turn: AtomicI64,
}

impl Metrics {
    /// Metrics that count from zero.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("hearth_accounts");
        let metrics = Self {
            tools: Gauge::default(),
            actions: Family::default(),
            refused: Gauge::default(),
            failing: Gauge::default(),
            last_clean_pass: Gauge::default(),
            passes: Counter::default(),
            leads: Gauge::default(),
            admins: Gauge::default(),
            failing_admins: Gauge::default(),
            refused_admins: Gauge::default(),
            last_turn: AtomicI64::new(crate::clock::now().as_second()),
            registry: Registry::default(),
        };
        registry.register("tools", "Tools in the directory", metrics.tools.clone());
        registry.register("actions", "Actions by kind and outcome", metrics.actions.clone());
        registry.register("refused", "What is left alone although it is not as it should be", metrics.refused.clone());
        registry.register("failing_tools", "Tools whose last action failed", metrics.failing.clone());
        registry.register("passes", "Plans made", metrics.passes.clone());
        registry.register("leads", "1 if this copy of the role acts, 0 if another does", metrics.leads.clone());
        registry.register(
            "last_clean_pass_timestamp_seconds",
            "When nothing was left to do",
            metrics.last_clean_pass.clone(),
        );
        registry.register("administrators", "Administrators in the directory", metrics.admins.clone());
        registry.register(
            "failing_administrators",
            "Administrators for whom the last action failed",
            metrics.failing_admins.clone(),
        );
        registry.register(
            "refused_administrators",
            "What of administrators is left alone although it is not as it should be",
            metrics.refused_admins.clone(),
        );
        for kind in Action::KINDS.into_iter().chain(admins::KINDS) {
            for outcome in ["done", "failed"] {
                let _ = metrics.actions.get_or_create(&Done { kind, outcome });
            }
        }
        Arc::new(Self { registry, ..metrics })
    }

    pub(super) fn acted(&self, kind: &'static str, is_done: bool) {
        let outcome = if is_done { "done" } else { "failed" };
        self.actions.get_or_create(&Done { kind, outcome }).inc();
    }

    /// A plan was made for so many tools; `is_clean` says that there was nothing to do.
    pub(super) fn passed(&self, tools: usize, refused: usize, failing: usize, is_clean: bool) {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.tools.set(number(tools));
        self.refused.set(number(refused));
        self.failing.set(number(failing));
        self.passes.inc();
        if is_clean {
            self.last_clean_pass.set(crate::clock::now().as_second());
        }
    }

    /// A pass looked after so many administrators.
    pub(super) fn looked_after(&self, admins: usize, failing: usize, refused: usize) {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.admins.set(number(admins));
        self.failing_admins.set(number(failing));
        self.refused_admins.set(number(refused));
    }

    pub(super) fn leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }

    pub(super) fn turned(&self) {
        self.last_turn.store(crate::clock::now().as_second(), Ordering::Relaxed);
    }

    /// `/healthz` and `/metrics`.
    pub fn router(self: Arc<Self>) -> Router {
        let health = self.clone();
        let healthz = move || async move {
            let silent = crate::clock::now().as_second() - health.last_turn.load(Ordering::Relaxed);
            if silent > STUCK_AFTER {
                (StatusCode::SERVICE_UNAVAILABLE, format!("the role has done nothing for {silent} s\n"))
            } else {
                (StatusCode::OK, "ok\n".to_owned())
            }
        };
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
        Router::new().route("/healthz", get(healthz)).route("/metrics", get(metrics))
    }
}
