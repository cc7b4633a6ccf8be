//! The words in which the rulebook is written: what a field of an object may hold.
//!
//! A [`Node`] says what would be right, not how to find out: it is read by the Rust judge and by the CEL writer alike.
//! It holds nothing of one tool or one installation; those come with the judging.

use super::{Listed, Rule, Rules};

/// A field of an object, and what it may hold. A field that is in no list is refused.
#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// Whether it may be left out.
    pub need: Need,
    /// Which rule a refusal is counted under.
    pub rule: Rule,
    /// What it may hold.
    pub node: Node,
}

/// Whether a field may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It may.
    Optional,
    /// In a pod it may not, but there the filling policy has put it; in a template it may.
    Filled,
    /// It may not.
    Always,
}

/// What a value may be.
#[derive(Debug)]
pub enum Node {
    /// Anything.
    Any,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// This truth value.
    Is(bool),
    /// The number 0, which stands for absence.
    Zero,
    /// A number from 0 to this one.
    AtMost(i64),
    /// This number.
    Exactly(i64),
    /// The tool's own user number, which is its group number too.
    Uid,
    /// Nothing: the field must be left out.
    Never,
    /// What a list allows.
    Listed(Listed),
    /// A reference to an image of an allowed registry.
    Image,
    /// A host of the tool's own.
    OwnHost,
    /// A host of the tool's own, or the legacy host.
    OwnOrLegacyHost,
    /// An Ingress rule: where its host is the legacy one, every path is the tool's.
    LegacyPaths,
    /// A path that can be read in one way only.
    PlainPath,
    /// An address of a Service, or a list of them, that leaves the choice to the cluster. The validating policies see
    /// a Service after an address was given to it, so in the API server a policy of its own judges this.
    GivenAddress,
    /// An object with these fields and no others.
    Object(&'static [Field]),
    /// An object in which these fields are judged, and others are left alone.
    Open(&'static [Field]),
    /// A list, each of which is shown by the field `key` where it has one; so many at most.
    Each {
        /// The field by which messages name an entry.
        key: &'static str,
        /// What each entry is.
        node: &'static Node,
        /// How many there may be.
        most: usize,
    },
    /// A list with at least one entry.
    NotEmpty,
    /// A list of texts; a change adds none but these, and may keep or remove any other. Only for a field of a section.
    Added(&'static [&'static str]),
    /// A list of texts in which this one is.
    Has(&'static str),
    /// A map with none but these keys.
    KeysWithin(&'static [&'static str]),
    /// Annotations: keys that are listed, and keys with neither a slash nor a dot. Kubernetes leaves all keys without a
    /// prefix to the user, but runtimes read some that have none, such as `io.katacontainers.config.hypervisor.path`.
    /// What was there before may stay as it is. Only for a field of a section.
    Annotations {
        /// With these prefixes, each with its slash.
        under: &'static [&'static str],
        /// These.
        keys: &'static [&'static str],
    },
    /// A map whose values are single lines, but for the value of one key.
    OneLines {
        /// How many characters a line may have.
        longest: usize,
        /// The key whose value may be anything.
        but: &'static str,
    },
    /// All of these.
    All(&'static [Node]),
}

/// No bound on the length of a list.
pub(super) const UNBOUNDED: usize = usize::MAX;

/// A field that may hold anything.
pub(super) const fn any(name: &'static str) -> Field {
    Field { name, need: Need::Optional, rule: Rule::Field, node: Node::Any }
}

/// A field that is checked where it is present.
pub(super) const fn checked(name: &'static str, rule: Rule, node: Node) -> Field {
    Field { name, need: Need::Optional, rule, node }
}

/// A field that every pod has once it is filled in.
pub(super) const fn filled(name: &'static str, rule: Rule, node: Node) -> Field {
    Field { name, need: Need::Filled, rule, node }
}

/// A field that must be present.
pub(super) const fn always(name: &'static str, rule: Rule, node: Node) -> Field {
    Field { name, need: Need::Always, rule, node }
}

/// A list without a bound.
pub(super) const fn each(key: &'static str, node: &'static Node) -> Node {
    Node::Each { key, node, most: UNBOUNDED }
}

impl Node {
    /// What would be right, as the end of a sentence that starts with the field. `tool` and `uid` stand for the tool's
    /// own, or for a placeholder.
    pub(super) fn expected(&self, rules: &Rules, tool: &str, uid: &str) -> String {
        let list = |texts: &[&str]| texts.iter().map(|text| format!("\"{text}\"")).collect::<Vec<_>>().join(" or ");
        match self {
            Self::Any => "anything is allowed".to_owned(),
            Self::OneOf(texts) => format!("it must be {}", list(texts)),
            Self::Is(value) => format!("it must be {value}"),
            Self::Zero | Self::Never => "it must be left out".to_owned(),
            Self::AtMost(most) => format!("it must be a number from 0 to {most}"),
            Self::Exactly(number) => format!("it must be {number}"),
            Self::PlainPath => format!(
                "it must start with a slash and have plain segments: letters, digits and . _ ~ + : @ , = -, {} \
                 characters at most",
                crate::route::path::LONGEST
            ),
            Self::GivenAddress => "it must be left out or \"None\": the cluster gives addresses".to_owned(),
            Self::NotEmpty => "it must not be empty".to_owned(),
            Self::OneLines { longest, but } => {
                format!("all but {but} must be one line of {longest} characters at most")
            }
            Self::Uid => format!("it must be {uid}, the tool's own number"),
            Self::Listed(listed) => listed.expected(rules, tool),
            Self::Image => {
                let from: Vec<String> = rules.registries.iter().map(ToString::to_string).collect();
                format!("images come from {}", from.join(" or "))
            }
            Self::OwnHost => format!("it must be {}", hosts(rules, tool)),
            Self::OwnOrLegacyHost => {
                let own = hosts(rules, tool);
                format!("it must be {own}, or {} with paths at or below /{tool}", rules.domains.legacy)
            }
            Self::LegacyPaths => {
                format!("on {} every path must be /{tool} or plainly below it", rules.domains.legacy)
            }
            Self::Object(fields) => {
                let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
                format!("it must be an object of {}", names.join(", "))
            }
            Self::Open(_) => "it must be an object".to_owned(),
            Self::Each { most: UNBOUNDED, .. } => "it must be a list".to_owned(),
            Self::Each { most, .. } => format!("it must be a list of {most} at most"),
            Self::Has(text) => format!("\"{text}\" must be among them"),
            Self::KeysWithin(keys) => format!("only {} may be set", list(keys).replace(" or ", ", ")),
            Self::Annotations { under, keys } => {
                let listed =
                    under.iter().map(|start| format!("{start}…")).chain(keys.iter().map(|&key| key.to_owned()));
                format!(
                    "a key has neither a dot nor a slash, or it is one of {}",
                    listed.collect::<Vec<_>>().join(", ")
                )
            }
            Self::Added(texts) => format!("only {} may be added", list(texts)),
            Self::All(nodes) => {
                nodes.iter().map(|node| node.expected(rules, tool, uid)).collect::<Vec<_>>().join(", and ")
            }
        }
    }
}

fn hosts(rules: &Rules, tool: &str) -> String {
    rules.domains.public.iter().map(|domain| format!("{tool}.{domain}")).collect::<Vec<_>>().join(" or ")
}
