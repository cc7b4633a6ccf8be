//! What the webhook counts. Labels come from fixed lists, never from what is asked: the rules of the rulebook, the
//! kinds that it judges, and what can be answered.

use hearth_core::admission::fields::CHAPTERS;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::review::{Answer, Reviewed};
use crate::http_service::TlsCounters;

/// Of what is not judged.
const OTHER: &str = "other";

/// Where a label has nothing to say.
const NONE: &str = "";

type Labels = [(&'static str, &'static str); 3];

/// The webhook's counters.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    reviews: Family<Labels, Counter>,
    /// What its TLS counts.
    pub(super) tls: TlsCounters,
}

impl Metrics {
    /// Counters that stand at nothing.
    pub(super) fn new() -> Self {
        let (reviews, tls) = (Family::<Labels, Counter>::default(), TlsCounters::default());
        let mut registry = Registry::with_prefix("hearth_admission");
        registry.register(
            "reviews",
            "Reviews answered, by the resource, what was answered, and the rule: one that was refused counts once \
             under each rule that it is against",
            reviews.clone(),
        );
        registry.register(
            "clients_turned_away",
            "Clients whose certificate is missing or not the API server's",
            tls.turned_away.clone(),
        );
        registry.register(
            "certificate_reload_failures",
            "Looks at the certificate's files that found them unreadable, or changed and not usable",
            tls.failed_reloads.clone(),
        );
        Self { registry, reviews, tls }
    }

    /// Counts an answer.
    pub(super) fn count(&self, reviewed: &Reviewed<'_>) {
        match &reviewed.answer {
            Answer::Warned { rules, .. } | Answer::Refused { rules, .. } => {
                let verdict = reviewed.answer.name();
                rules.iter().for_each(|rule| self.one(reviewed.kind, verdict, rule.name()));
            }
            answer => self.one(reviewed.kind, answer.name(), NONE),
        }
    }

    /// Counts a request that was not read to its end.
    pub(super) fn count_unread(&self, why: &'static str) {
        self.one(OTHER, why, NONE);
    }

    /// All of it, in the text format.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn one(&self, kind: &'static str, verdict: &'static str, rule: &'static str) {
        self.reviews.get_or_create(&[("kind", kind), ("rule", rule), ("verdict", verdict)]).inc();
    }
}

/// A resource as the rulebook names it, with its subresource; `other` where it is not judged.
pub(super) fn kind(group: &str, resource: &str, subresource: &str) -> &'static str {
    let mut judged = CHAPTERS.iter().flat_map(|chapter| chapter.resources);
    judged.find(|known| known.is(group, resource, subresource)).map_or(OTHER, |known| known.name)
}
