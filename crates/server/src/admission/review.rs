//! The protocol of admission reviews (`admission.k8s.io/v1`): bytes in, bytes out, and between them one question to
//! the rulebook.
//!
//! What is not looked at is not kept: texts are borrowed from what was sent, and the answer to what is allowed is
//! written without building it first.

use std::borrow::Cow;
use std::collections::BTreeMap;

use hearth_core::admission::json::Value;
use hearth_core::admission::wire::{self, API_VERSION, Asked, KIND, NotAReview};
use hearth_core::admission::{self, Rule, Rules, Verdict};
use serde_json::json;

use super::Namespaces;
use super::metrics::kind;

/// Longest part of a name that the log repeats, in characters.
const LONGEST_WORD: usize = 256;

/// Most warnings of one answer: the API server shows 4096 characters of them altogether.
const MOST_WARNINGS: usize = 16;

/// A review that has been answered.
#[derive(Debug)]
pub(super) struct Reviewed<'a> {
    uid: Cow<'a, str>,
    namespace: Cow<'a, str>,
    user: Cow<'a, str>,
    name: Cow<'a, str>,
    /// The resource as the rulebook names it, or that it is another.
    pub(super) kind: &'static str,
    pub(super) answer: Answer,
}

/// What is answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// Nothing is wrong.
    Allowed,
    /// The namespace is not known here yet: allowed, and left to the policies.
    Unknown,
    /// Something is wrong by a chapter that is on trial: allowed, with a warning of each fault.
    Warned {
        /// What is wrong, one by one.
        faults: Vec<String>,
        /// The rules that it is against, each once.
        rules: Vec<Rule>,
    },
    /// Something is wrong.
    Refused {
        /// The whole sentence.
        message: String,
        /// The rules that it is against, each once.
        rules: Vec<Rule>,
    },
    /// It is no review.
    Malformed(String),
}

/// Answers a review, whatever it is.
pub(super) fn review<'a>(rules: &Rules, namespaces: &Namespaces, body: &'a [u8]) -> Reviewed<'a> {
    match wire::read(rules, body) {
        Ok(asked) => {
            let answer = judge(rules, namespaces, &asked);
            let Asked { uid, namespace, name, sub_resource, resource, user_info, object, .. } = asked;
            let kind = kind(&resource.group, &resource.resource, &sub_resource);
            let name = match (name.is_empty(), &answer) {
                (true, Answer::Warned { .. } | Answer::Refused { .. }) => Cow::Owned(name_of(&object).to_owned()),
                _ => name,
            };
            Reviewed { uid, namespace, user: user_info.username, name, kind, answer }
        }
        Err(NotAReview { uid, why }) => malformed(uid, why),
    }
}

fn judge(rules: &Rules, namespaces: &Namespaces, asked: &Asked<'_>) -> Answer {
    let (known, nothing) = (namespaces.annotations(&asked.namespace), BTreeMap::new());
    let request = asked.request(known.as_deref().unwrap_or(&nothing));
    let verdict = admission::review_read(rules, &request);
    let on_trial = || request.is_on_trial(rules);
    match &verdict {
        Verdict::Allow => Answer::Allowed,
        // What is wrong may be no more than that the tool's number is not known here yet.
        Verdict::Refuse { .. } if known.is_none() => Answer::Unknown,
        Verdict::Refuse { violations, .. } => {
            let mut against: Vec<Rule> = violations.iter().map(|violation| violation.rule).collect();
            against.sort_unstable();
            against.dedup();
            match on_trial() {
                true => {
                    let faults = violations.iter().take(MOST_WARNINGS).map(|violation| violation.message.clone());
                    Answer::Warned { faults: faults.collect(), rules: against }
                }
                false => Answer::Refused { message: verdict.to_string(), rules: against },
            }
        }
    }
}

/// The name of an object that has yet to get one, or how it will begin.
fn name_of<'v>(object: &'v Value<'_>) -> &'v str {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    text("/metadata/name").or_else(|| text("/metadata/generateName")).unwrap_or_default()
}

fn malformed(uid: Cow<'_, str>, message: String) -> Reviewed<'_> {
    let nothing = Cow::Borrowed("");
    let (namespace, user, name) = (nothing.clone(), nothing.clone(), nothing);
    Reviewed { uid, namespace, user, name, kind: kind("", "", ""), answer: Answer::Malformed(message) }
}

/// A word for the log: what someone else wrote, without what could end a line, colour a terminal or fill a disk.
fn word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c == ' ' || c.is_ascii_graphic();
    match text.len() <= LONGEST_WORD && text.chars().all(plain) {
        true => Cow::Borrowed(text),
        false => text.chars().take(LONGEST_WORD).map(|c| if plain(c) { c } else { '?' }).collect(),
    }
}

// === impl Answer ===

impl Answer {
    /// The answer's name in metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Unknown => "unknown_namespace",
            Self::Warned { .. } => "warned",
            Self::Refused { .. } => "refused",
            Self::Malformed(_) => "malformed",
        }
    }
}

// === impl Reviewed ===

impl Reviewed<'_> {
    /// The answer as the API server reads it.
    pub(super) fn body(&self) -> String {
        let refuse = |code: u16, reason: &str, message: &str| {
            let status = json!({ "status": "Failure", "code": code, "reason": reason, "message": message });
            format!(",\"allowed\":false,\"status\":{status}")
        };
        let rest = match &self.answer {
            Answer::Allowed => Cow::Borrowed(",\"allowed\":true"),
            Answer::Unknown => {
                let warning =
                    format!("the namespace {} is new here; only the cluster's policies judged this", self.namespace);
                format!(",\"allowed\":true,\"warnings\":{}", json!([warning])).into()
            }
            Answer::Warned { faults, .. } => {
                let warnings: Vec<String> =
                    faults.iter().map(|fault| format!("not allowed for a tool soon: {fault}")).collect();
                format!(",\"allowed\":true,\"warnings\":{}", json!(warnings)).into()
            }
            Answer::Refused { message, .. } => refuse(403, "Forbidden", message).into(),
            Answer::Malformed(message) => refuse(400, "BadRequest", message).into(),
        };
        let uid = json!(self.uid);
        format!("{{\"apiVersion\":\"{API_VERSION}\",\"kind\":\"{KIND}\",\"response\":{{\"uid\":{uid}{rest}}}}}")
    }

    /// A line for everything but what is allowed. It repeats no value of an object: those are the tool's.
    pub(super) fn log(&self) {
        let Self { uid: _, namespace, user, name, kind, answer } = self;
        let (namespace, user, name) = (&*word(namespace), &*word(user), &*word(name));
        match answer {
            Answer::Allowed => (),
            Answer::Unknown => tracing::warn!(user, namespace, kind, name, "the namespace is not known yet: allowed"),
            Answer::Warned { rules, .. } | Answer::Refused { rules, .. } => {
                let rules = rules.iter().map(|rule| rule.name()).collect::<Vec<_>>().join(",");
                tracing::info!(user, namespace, kind, name, rules, "{}", answer.name());
            }
            Answer::Malformed(why) => tracing::warn!(why = &*word(why), "malformed"),
        }
    }
}
