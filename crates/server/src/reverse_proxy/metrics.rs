//! What the front door counts.
//!
//! The label `tool` holds names of tools that exist, or nothing: names that clients think up do not become series.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use hearth_core::route::Kind;
use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::by_tool::{ByTool, OfTool};
use super::certificates::CertificateMetrics;
use super::freshness::Freshness;
use super::switches::SwitchMetrics;

/// Upper bounds, in seconds: from a page on the same machine to a long poll.
const LATENCIES: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The counters of one proxy.
pub struct Metrics {
    registry: Registry,
    /// Of each tool.
    pub(super) by_tool: Arc<ByTool>,
    latency: Histogram,
    pub(super) table_latency: Histogram,
    pub(super) connections: Gauge,
    pub(super) tunnels: Gauge,
    pub(super) handshake_failures: Counter,
    pub(super) retries: Counter,
    pub(super) limited: Family<KindLabel, Counter>,
    /// Lines of the access log for which there was no room.
    pub lost_lines: Counter,
    pub(super) table_changes: Counter,
    pub(super) watch_failures: Family<KindLabel, Counter>,
    pub(super) tools: Gauge,
    pub(super) switches: SwitchMetrics,
    /// Of certificates.
    pub certificates: CertificateMetrics,
    ages: Family<KindLabel, Gauge<f64, AtomicU64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KindLabel {
    pub(super) kind: &'static str,
}

impl Metrics {
    /// All counters at nought.
    pub fn new() -> Arc<Self> {
        Self::named("hearth_proxy")
    }

    /// All counters at nought, with names that begin with `prefix`.
    pub fn named(prefix: &str) -> Arc<Self> {
        let mut registry = Registry::with_prefix(prefix);
        let metrics = Self {
            by_tool: Arc::default(),
            latency: Histogram::new(LATENCIES),
            table_latency: Histogram::new(LATENCIES),
            connections: Gauge::default(),
            tunnels: Gauge::default(),
            handshake_failures: Counter::default(),
            retries: Counter::default(),
            limited: Family::default(),
            lost_lines: Counter::default(),
            table_changes: Counter::default(),
            watch_failures: Family::default(),
            tools: Gauge::default(),
            switches: SwitchMetrics::default(),
            certificates: CertificateMetrics::default(),
            ages: Family::default(),
            registry: Registry::default(),
        };
        registry.register_collector(Box::new(metrics.by_tool.clone()));
        registry.register_with_unit(
            "table_change_duration",
            "Time from the news of a change to the table that has it",
            Unit::Seconds,
            metrics.table_latency.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "Time from a request's head to the end of its answer",
            Unit::Seconds,
            metrics.latency.clone(),
        );
        registry.register("connections", "Open connections of clients", metrics.connections.clone());
        registry.register("websockets", "Open WebSockets", metrics.tunnels.clone());
        let failures = metrics.handshake_failures.clone();
        registry.register("tls_handshake_failures", "Connections that never became TLS", failures);
        registry.register("upstream_retries", "Requests sent to a second address", metrics.retries.clone());
        registry.register("limited", "Requests over the allowance of a visitor or a tool", metrics.limited.clone());
        let lost = metrics.lost_lines.clone();
        registry.register("access_log_lost", "Lines of the access log that were lost: its reader is too slow", lost);
        registry.register("table_changes", "Tables that replaced another", metrics.table_changes.clone());
        registry.register("watch_failures", "Lists and watches that failed", metrics.watch_failures.clone());
        registry.register("tools", "Tools in the table", metrics.tools.clone());
        registry.register_with_unit(
            "table_age",
            "Time since the cluster was last heard from",
            Unit::Seconds,
            metrics.ages.clone(),
        );
        metrics.certificates.register(&mut registry);
        metrics.switches.register(&mut registry);
        Arc::new(Self { registry, ..metrics })
    }

    /// Counts a request whose answer is complete.
    pub(super) fn request(&self, tool: &OfTool, status: StatusCode, elapsed: Duration, bytes: u64) {
        tool.answered(status, elapsed, bytes);
        self.latency.observe(elapsed.as_secs_f64());
    }

    /// In the text format of `OpenMetrics`.
    pub(super) fn render(&self, freshness: &Freshness) -> String {
        for kind in Kind::ALL {
            if let Some(age) = freshness.age_of(kind) {
                self.ages.get_or_create(&KindLabel { kind: kind.as_str() }).set(age.as_secs_f64());
            }
        }
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
