//! What a judgement says: allowed, or everything that is wrong, in sentences.

use std::fmt;

use super::Rules;
use super::json::Value;

/// Which part of the rulebook a refusal is counted under. The names are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The namespace is not that of a tool.
    Tenant,
    /// A field that nobody has classified.
    Field,
    /// Where images come from.
    Image,
    /// The user and group numbers of processes.
    Identity,
    /// Privilege and everything like it.
    Privilege,
    /// The node's own namespaces, ports and addresses.
    Node,
    /// Kinds of volumes, and paths of the node.
    Volume,
    /// Service accounts.
    Account,
    /// Where and before whom a pod runs.
    Scheduling,
    /// The hosts of an Ingress.
    Host,
    /// The paths of an Ingress.
    Path,
    /// Annotations with a meaning to other programs.
    Annotation,
    /// Kinds of Services.
    Service,
    /// Who writes endpoints.
    Endpoints,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule it is against.
    pub rule: Rule,
    /// A sentence without its full stop: the field, its value, and what would be right.
    pub message: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong.
    Allow,
    /// Something is.
    Refuse {
        /// The object, as in `Pod "web"`.
        object: String,
        /// Everything that is wrong with it. Never empty.
        violations: Vec<Violation>,
    },
}

/// Longest part of a value that a message repeats, in characters.
const LONGEST_VALUE: usize = 100;

/// Most faults that a message spells out.
const MOST_SHOWN: usize = 40;

impl Rule {
    /// Every rule.
    pub const ALL: &[Self] = &[
        Self::Tenant,
        Self::Field,
        Self::Image,
        Self::Identity,
        Self::Privilege,
        Self::Node,
        Self::Volume,
        Self::Account,
        Self::Scheduling,
        Self::Host,
        Self::Path,
        Self::Annotation,
        Self::Service,
        Self::Endpoints,
    ];

    /// The rule's name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Field => "field",
            Self::Image => "image",
            Self::Identity => "identity",
            Self::Privilege => "privilege",
            Self::Node => "node",
            Self::Volume => "volume",
            Self::Account => "account",
            Self::Scheduling => "scheduling",
            Self::Host => "host",
            Self::Path => "path",
            Self::Annotation => "annotation",
            Self::Service => "service",
            Self::Endpoints => "endpoints",
        }
    }
}

impl Violation {
    /// A field whose value is not right.
    pub(super) fn value(rule: Rule, field: &str, value: &Value<'_>, expected: &str) -> Self {
        let text = value.to_string();
        let shown = match text.char_indices().nth(LONGEST_VALUE) {
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
            None => text,
        };
        Self { rule, message: format!("{field} is {shown}: {expected}") }
    }

    /// A field that must be present.
    pub(super) fn missing(rule: Rule, field: &str, expected: &str) -> Self {
        Self { rule, message: format!("{field} is missing: {expected}") }
    }

    /// A field that is in no table.
    pub(super) fn unlisted(field: &str) -> Self {
        Self { rule: Rule::Field, message: format!("{field} is not a field that tools may set: leave it out") }
    }

    /// A namespace that is neither the platform's nor a tool's.
    pub(super) fn tenant(rules: &Rules, namespace: &str) -> Self {
        Self {
            rule: Rule::Tenant,
            message: format!(
                "the namespace {namespace} is not that of a tool (its name must be tool-<name> and its annotation {} a \
                 number from {} to {}) and not one of the platform's: {}",
                crate::names::annotation::UID,
                rules.first_uid,
                rules.last_uid,
                rules.platform_namespaces.join(", ")
            ),
        }
    }

    /// Someone who may not write this resource in a tool's namespace.
    pub(super) fn writer(resource: &str, user: &str) -> Self {
        Self {
            rule: Rule::Endpoints,
            message: format!(
                "{resource} of a tool are written by the cluster's own controllers, not by \"{user}\": make a Service \
                 with a selector instead"
            ),
        }
    }
}

impl fmt::Display for Verdict {
    /// One line: the object, and every fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow => f.write_str("allowed"),
            Self::Refuse { object, violations } => {
                write!(f, "{object} is not allowed for a tool: ")?;
                for (index, violation) in violations.iter().take(MOST_SHOWN).enumerate() {
                    let separator = if index == 0 { "" } else { "; " };
                    write!(f, "{separator}{}", violation.message)?;
                }
                match violations.len().saturating_sub(MOST_SHOWN) {
                    0 => Ok(()),
                    more => write!(f, "; and {more} more"),
                }
            }
        }
    }
}
