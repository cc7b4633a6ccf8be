//! What a judgement says: allowed, or everything that is wrong, in sentences.

use std::borrow::Cow;
use std::fmt;

use super::Rules;
use super::fields::Writers;
use super::json::Value;

/// Which part of the rulebook a refusal is counted under, in the order of `docs/rules.md`. The names are metric labels.
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
    /// Where and before whom a pod runs, and how long it may take to end.
    Scheduling,
    /// What of a node a container uses.
    Resources,
    /// Annotations with a meaning to other programs.
    Annotation,
    /// Who has to agree before an object is gone: finalizers that nothing removes.
    Finalizer,
    /// Numbers that keep controllers busy.
    Limit,
    /// The hosts of Ingresses and `HTTPRoutes`.
    Host,
    /// Their paths, and where these lead.
    Path,
    /// Kinds of Services, and their addresses.
    Service,
    /// Who writes endpoints.
    Endpoints,
    /// Types of Secrets.
    Secret,
    /// Budgets that could keep a node from being emptied.
    Disruption,
    /// Who writes network policies.
    Network,
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

/// Longest name or key that a message repeats, in characters.
pub(super) const LONGEST_NAME: usize = 63;

/// Most faults that a message spells out.
const MOST_SHOWN: usize = 40;

impl Rule {
    /// Where it is explained, for the messages of the policies.
    pub(super) fn page(self) -> String {
        format!("docs/rules.md#{}", self.name())
    }

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
        Self::Resources,
        Self::Annotation,
        Self::Finalizer,
        Self::Limit,
        Self::Host,
        Self::Path,
        Self::Service,
        Self::Endpoints,
        Self::Secret,
        Self::Disruption,
        Self::Network,
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
            Self::Resources => "resources",
            Self::Annotation => "annotation",
            Self::Finalizer => "finalizer",
            Self::Limit => "limit",
            Self::Host => "host",
            Self::Path => "path",
            Self::Service => "service",
            Self::Endpoints => "endpoints",
            Self::Secret => "secret",
            Self::Disruption => "disruption",
            Self::Network => "network",
        }
    }
}

/// A name or a key as a message repeats it: one line, nothing invisible, and no longer than is needed to find it.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    if text.len() <= LONGEST_NAME && text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    let shown: String = text.chars().take(LONGEST_NAME).flat_map(char::escape_debug).collect();
    Cow::Owned(if text.chars().nth(LONGEST_NAME).is_some() { format!("{shown}…") } else { shown })
}

impl Violation {
    /// A field whose value is not right.
    pub(super) fn value(rule: Rule, field: &str, value: &Value<'_>, expected: &str) -> Self {
        // JSON has escaped quotes and control characters already; what is invisible otherwise is not.
        let text = value.to_string();
        let plain = |c: char| if c.is_ascii() { vec![c] } else { c.escape_debug().collect() };
        let mut shown: String = text.chars().take(LONGEST_VALUE).flat_map(plain).collect();
        if text.chars().nth(LONGEST_VALUE).is_some() {
            shown.push('…');
        }
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
        let namespace = escaped(namespace);
        Self {
            rule: Rule::Tenant,
            message: format!(
                "the namespace {namespace} is not that of a tool (its name must be tool-<name> and its annotation {} a \
                 number from {} to {}) and not one of the platform's: {}",
                crate::names::annotation::UID,
                rules.first_uid,
                rules.last_uid,
                rules.namespaces.all().collect::<Vec<_>>().join(", ")
            ),
        }
    }

    /// Someone who may not write this resource in a tool's namespace.
    pub(super) fn writer(writers: &Writers, resource: &str, user: &str) -> Self {
        let Writers { by, instead, .. } = writers;
        let user = escaped(user);
        Self {
            rule: writers.rule,
            message: format!("{resource} of a tool are written by {by}, not by \"{user}\": {instead}"),
        }
    }
}

impl fmt::Display for Verdict {
    /// One line: the object, and every fault with the rule that it is against, of which `docs/rules.md` has more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow => f.write_str("allowed"),
            Self::Refuse { object, violations } => {
                write!(f, "{object} is not allowed for a tool: ")?;
                for (index, violation) in violations.iter().take(MOST_SHOWN).enumerate() {
                    let separator = if index == 0 { "" } else { "; " };
                    write!(f, "{separator}{} (rule {})", violation.message, violation.rule.name())?;
                }
                match violations.len().saturating_sub(MOST_SHOWN) {
                    0 => Ok(()),
                    more => write!(f, "; and {more} more"),
                }
            }
        }
    }
}
