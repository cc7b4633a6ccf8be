//! The protocol of admission reviews (`admission.k8s.io/v1`): bytes in, bytes out, and between them one question to
//! the rulebook.

use hearth_core::admission::{self, Operation, Request, Rules, Verdict, Violation};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Namespaces;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// Most warnings of one answer: the API server shows 4096 characters of them altogether.
const MOST_WARNINGS: usize = 16;

/// A review, as far as it is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Asked,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    uid: String,
    resource: Resource,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    namespace: String,
    operation: String,
    #[serde(default)]
    user_info: User,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

#[derive(Debug, Deserialize)]
struct Resource {
    #[serde(default)]
    group: String,
    resource: String,
}

#[derive(Debug, Default, Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

/// A review that has been answered.
#[derive(Debug)]
pub(super) struct Reviewed {
    uid: String,
    namespace: String,
    resource: String,
    user: String,
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
        /// The whole sentence.
        message: String,
        /// What is wrong, one by one.
        violations: Vec<Violation>,
    },
    /// Something is wrong.
    Refused {
        /// The whole sentence.
        message: String,
        /// What is wrong, one by one.
        violations: Vec<Violation>,
    },
    /// It is no review.
    Malformed(String),
}

/// Answers a review, whatever it is.
pub(super) fn review(rules: &Rules, namespaces: &Namespaces, body: &[u8]) -> Reviewed {
    match serde_json::from_slice::<Review>(body) {
        Ok(review) if review.api_version == API_VERSION && review.kind == KIND => {
            let answer = judge(rules, namespaces, &review.request);
            let Asked { uid, namespace, sub_resource, resource: Resource { group: _, resource }, user_info, .. } =
                review.request;
            let resource = if sub_resource.is_empty() { resource } else { format!("{resource}/{sub_resource}") };
            Reviewed { uid, namespace, resource, user: user_info.username, answer }
        }
        Ok(review) => malformed(
            review.request.uid,
            format!("a {} of {} was sent; expected is {KIND} of {API_VERSION}", review.kind, review.api_version),
        ),
        Err(error) => malformed(uid_of(body), format!("this is not an {KIND} of {API_VERSION}: {error}")),
    }
}

fn judge(rules: &Rules, namespaces: &Namespaces, asked: &Asked) -> Answer {
    let operation = match asked.operation.as_str() {
        "CREATE" => Operation::Create,
        "UPDATE" => Operation::Update,
        _ => Operation::Other,
    };
    let known = namespaces.annotations(&asked.namespace);
    let (is_known, annotations) = (known.is_some(), known.unwrap_or_default());
    let request = Request {
        operation,
        group: &asked.resource.group,
        resource: &asked.resource.resource,
        subresource: &asked.sub_resource,
        namespace: &asked.namespace,
        user: &asked.user_info.username,
        object: &asked.object,
        old: Some(&asked.old_object).filter(|old| !old.is_null()),
        annotations: &annotations,
    };
    let verdict = admission::review(rules, &request);
    match verdict {
        Verdict::Allow => Answer::Allowed,
        // What is wrong may be no more than that the tool's number is not known here yet.
        Verdict::Refuse { .. } if !is_known => Answer::Unknown,
        Verdict::Refuse { ref violations, .. } if request.is_on_trial(rules) => {
            Answer::Warned { message: verdict.to_string(), violations: violations.clone() }
        }
        Verdict::Refuse { ref violations, .. } => {
            Answer::Refused { message: verdict.to_string(), violations: violations.clone() }
        }
    }
}

fn malformed(uid: String, message: String) -> Reviewed {
    Reviewed {
        uid,
        namespace: String::new(),
        resource: String::new(),
        user: String::new(),
        answer: Answer::Malformed(message),
    }
}

/// The identity of a review that is otherwise not readable, so that the answer finds its question.
fn uid_of(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    value.pointer("/request/uid").and_then(Value::as_str).unwrap_or_default().to_owned()
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

impl Reviewed {
    /// The answer as the API server reads it.
    pub(super) fn body(&self) -> String {
        let mut response = json!({ "uid": self.uid, "allowed": true });
        let refuse = |code: u16, reason: &str, message: &str| {
            json!({
                "uid": self.uid,
                "allowed": false,
                "status": { "status": "Failure", "code": code, "reason": reason, "message": message },
            })
        };
        match &self.answer {
            Answer::Allowed => (),
            Answer::Unknown => {
                let warning =
                    format!("the namespace {} is new here; only the cluster's policies judged this", self.namespace);
                response = json!({ "uid": self.uid, "allowed": true, "warnings": [warning] });
            }
            Answer::Warned { violations, .. } => {
                let warnings = violations.iter().take(MOST_WARNINGS);
                let warnings: Vec<String> =
                    warnings.map(|violation| format!("not allowed for a tool soon: {}", violation.message)).collect();
                response = json!({ "uid": self.uid, "allowed": true, "warnings": warnings });
            }
            Answer::Refused { message, .. } => response = refuse(403, "Forbidden", message),
            Answer::Malformed(message) => response = refuse(400, "BadRequest", message),
        }
        json!({ "apiVersion": API_VERSION, "kind": KIND, "response": response }).to_string()
    }

    /// A line for everything but what is allowed.
    pub(super) fn log(&self) {
        let Self { uid: _, namespace, resource, user, answer } = self;
        match answer {
            Answer::Allowed => (),
            Answer::Unknown => tracing::warn!(namespace, resource, user, "the namespace is not known yet: allowed"),
            Answer::Warned { message, violations } | Answer::Refused { message, violations } => {
                let mut rules: Vec<&str> = violations.iter().map(|violation| violation.rule.name()).collect();
                rules.sort_unstable();
                rules.dedup();
                tracing::info!(namespace, resource, user, rules = rules.join(","), message, "{}", answer.name());
            }
            Answer::Malformed(message) => tracing::warn!(message, "malformed"),
        }
    }
}
