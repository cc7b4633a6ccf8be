//! What the webhook counts. Labels come from fixed lists, never from what is asked.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::review::{Answer, Reviewed};

type Labels = [(&'static str, &'static str); 1];

/// The webhook's counters.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    reviews: Family<Labels, Counter>,
    refusals: Family<Labels, Counter>,
}

impl Metrics {
    /// Counters that stand at nothing.
    pub(super) fn new() -> Self {
        let (reviews, refusals) = (Family::<Labels, Counter>::default(), Family::<Labels, Counter>::default());
        let mut registry = Registry::with_prefix("hearth_admission");
        registry.register("reviews", "Reviews answered, by what was answered", reviews.clone());
        registry.register(
            "violations",
            "Things found wrong in objects that were refused or warned of, by rule",
            refusals.clone(),
        );
        Self { registry, reviews, refusals }
    }

    /// Counts an answer.
    pub(super) fn count(&self, reviewed: &Reviewed) {
        self.reviews.get_or_create(&[("verdict", reviewed.answer.name())]).inc();
        if let Answer::Refused { violations, .. } | Answer::Warned { violations, .. } = &reviewed.answer {
            for violation in violations {
                self.refusals.get_or_create(&[("rule", violation.rule.name())]).inc();
            }
        }
    }

    /// Counts a request whose body could not be read.
    pub(super) fn count_unread(&self) {
        self.reviews.get_or_create(&[("verdict", "unread")]).inc();
    }

    /// All of it, in the text format.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
