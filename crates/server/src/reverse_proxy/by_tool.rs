//! What is counted for each tool: requests by class of status, their times, bytes both ways, and what is open.
//!
//! A request looks its tool up once and then counts without a lock. A tool takes less than half a KiB, and only those
//! that were asked for take any; names that clients think up never become series, which callers see to.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// Upper bounds, in microseconds: fewer than for all tools together, since each is a series for each tool.
const BOUNDS: [u64; 6] = [10_000, 50_000, 250_000, 1_000_000, 5_000_000, 30_000_000];

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The counters of all tools.
#[derive(Debug, Default)]
pub(super) struct ByTool(RwLock<HashMap<Box<str>, Arc<OfTool>>>);

/// The counters of one tool.
#[derive(Debug, Default)]
pub(super) struct OfTool {
    classes: [AtomicU64; CLASSES.len()],
    /// By bound, and the slower ones.
    times: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    open: AtomicI64,
}

/// A request or tunnel of a tool that is open until this is dropped.
#[derive(Debug)]
pub(super) struct Open(Arc<OfTool>);

impl ByTool {
    /// The counters of the tool of this name, or of no tool.
    pub(super) fn of(&self, tool: &str) -> Arc<OfTool> {
        if let Some(found) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(tool) {
            return found.clone();
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(tool.into()).or_default().clone()
    }

    /// All tools in the order of their names.
    fn sorted(&self) -> Vec<(Box<str>, Arc<OfTool>)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut tools: Vec<_> = all.iter().map(|(name, tool)| (name.clone(), tool.clone())).collect();
        tools.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        tools
    }
}

impl OfTool {
    /// A request is answered whole.
    pub(super) fn answered(&self, status: StatusCode, elapsed: Duration, sent: u64) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let slot = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        for counter in [self.classes.get(class), self.times.get(slot)].into_iter().flatten() {
            counter.fetch_add(1, Relaxed);
        }
        self.microseconds.fetch_add(micros, Relaxed);
        self.sent(sent);
    }

    /// Bytes went to a visitor.
    pub(super) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Relaxed);
    }

    /// Bytes came from a visitor.
    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Relaxed);
    }

    /// A request begins.
    pub(super) fn open(self: Arc<Self>) -> Open {
        self.open.fetch_add(1, Relaxed);
        Open(self)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

// === impl Collector ===

impl Collector for ByTool {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let tools = self.sorted();
        let text = "Requests answered, by tool and class of status";
        let mut requests = encoder.encode_descriptor("requests", text, None, MetricType::Counter)?;
        for (name, tool) in &tools {
            for (class, counter) in CLASSES.iter().zip(&tool.classes) {
                // Most tools know two or three classes.
                let count = counter.load(Relaxed);
                if count > 0 {
                    let labels = [("tool", name.as_ref()), ("class", class)];
                    requests.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
        }
        for (name, text, of) in [
            (
                "response_bytes",
                "Bytes that were sent to visitors, by tool",
                (|tool| &tool.sent) as fn(&OfTool) -> &AtomicU64,
            ),
            ("request_bytes", "Bytes that came from visitors, by tool", |tool| &tool.received),
        ] {
            let mut bytes = encoder.encode_descriptor(name, text, None, MetricType::Counter)?;
            for (name, tool) in &tools {
                let labels = [("tool", name.as_ref())];
                let count = of(tool).load(Relaxed);
                bytes.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let mut open =
            encoder.encode_descriptor("open", "Open requests and WebSockets, by tool", None, MetricType::Gauge)?;
        for (name, tool) in &tools {
            open.encode_family(&[("tool", name.as_ref())])?.encode_gauge(&tool.open.load(Relaxed))?;
        }
        let text = "Time from a request's head to the end of its answer, by tool";
        let (name, unit) = ("tool_request_duration", Unit::Seconds);
        let mut times = encoder.encode_descriptor(name, text, Some(&unit), MetricType::Histogram)?;
        for (name, tool) in &tools {
            let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(tool.times.iter().map(|count| count.load(Relaxed))).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let sum = tool.microseconds.load(Relaxed) as f64 / 1e6;
            let labels = [("tool", name.as_ref())];
            times.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    fn rendered(tools: &Arc<ByTool>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(tools.clone()));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn each_tool_has_its_own() {
        let tools = Arc::new(ByTool::default());
        let a = tools.of("a");
        let open = a.clone().open();
        a.answered(StatusCode::OK, Duration::from_millis(7), 100);
        a.answered(StatusCode::BAD_GATEWAY, Duration::from_secs(60), 20);
        a.received(3);
        tools.of("").answered(StatusCode::NOT_FOUND, Duration::ZERO, 1);
        let text = rendered(&tools);
        for line in [
            "requests_total{tool=\"a\",class=\"2xx\"} 1",
            "requests_total{tool=\"a\",class=\"5xx\"} 1",
            "requests_total{tool=\"\",class=\"4xx\"} 1",
            "response_bytes_total{tool=\"a\"} 120",
            "request_bytes_total{tool=\"a\"} 3",
            "open{tool=\"a\"} 1",
            "tool_request_duration_seconds_bucket{le=\"0.01\",tool=\"a\"} 1",
            "tool_request_duration_seconds_bucket{le=\"30.0\",tool=\"a\"} 1",
            "tool_request_duration_seconds_bucket{le=\"+Inf\",tool=\"a\"} 2",
            "tool_request_duration_seconds_count{tool=\"a\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line} in {text}");
        }
        drop(open);
        assert!(rendered(&tools).contains("open{tool=\"a\"} 0"));
    }

    #[test]
    fn four_thousand_tools_are_told_of_in_a_few_megabytes() {
        let tools = Arc::new(ByTool::default());
        for number in 0..4000 {
            tools.of(&format!("tool-number-{number}")).answered(StatusCode::OK, Duration::from_millis(1), 1);
        }
        assert!(size_of::<OfTool>() < 256);
        let text = rendered(&tools);
        assert!(text.len() < 5_000_000, "{}", text.len());
    }
}
