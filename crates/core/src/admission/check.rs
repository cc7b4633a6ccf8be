//! The Rust half of the rulebook: holds a value against a [`Node`].
//!
//! Every arm here has its counterpart in `cel::expression`, and the shared cases hold them together.

use std::fmt;

use super::fields::{Role, Section, find};
use super::json::{Map, Value};
use super::listed::Lists;
use super::tenant::Tenant;
use super::verdict::escaped;
use super::{Field, Need, Node, Rule, Rules, Violation};
use crate::Host;
use crate::host::Place;
use crate::image::ImageRef;
use crate::route::path;

/// About how many faults are collected. A message shows fewer, and each takes memory: a list may have very many.
const MOST_FOUND: usize = 200;

/// One walk through an object.
pub(super) struct Check<'a> {
    rules: &'a Rules,
    tenant: &'a Tenant,
    lists: Lists<'a>,
    /// Whether what the filling policy adds must be there.
    filled: bool,
    /// What the field of the section held before.
    before: Option<&'a Value<'a>>,
    found: &'a mut Vec<Violation>,
}

/// Where a walk is, as in `spec.containers[web]`: put together only where something is wrong.
#[derive(Clone, Copy)]
enum At<'p> {
    /// In a section.
    Section(&'p Section),
    /// In a field.
    Field(&'p At<'p>, &'p str),
    /// In an entry of a list, by its name where it has one.
    Entry(&'p At<'p>, Option<&'p str>, usize),
    /// At a key of a map.
    Key(&'p At<'p>, &'p str),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Section(section) => f.write_str(&section.path()),
            // At the top of an object nothing is before the name.
            Self::Field(Self::Section(section), name) if section.at.is_empty() => f.write_str(&escaped(name)),
            Self::Field(above, name) => write!(f, "{above}.{}", escaped(name)),
            Self::Entry(above, Some(name), _) | Self::Key(above, name) => write!(f, "{above}[{}]", escaped(name)),
            Self::Entry(above, None, index) => write!(f, "{above}[{index}]"),
        }
    }
}

impl<'a> Check<'a> {
    /// A walk that has found nothing yet.
    pub(super) fn new(
        rules: &'a Rules,
        tenant: &'a Tenant,
        role: &'static Role,
        filled: bool,
        found: &'a mut Vec<Violation>,
    ) -> Self {
        let lists = Lists { rules, tenant, role, read_only: Vec::new() };
        Self { rules, tenant, lists, filled, before: None, found }
    }

    /// Judges a section of an object on the fields that differ from `before`.
    pub(super) fn section(&mut self, section: &Section, object: &'a Map<'a>, before: Option<&'a Map<'a>>) {
        self.lists.read(object);
        let at = At::Section(section);
        for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            let before = before.and_then(|before| present(before, name));
            if before != Some(value) {
                self.before = before;
                self.field(&at, section.fields, section.open, name, value);
            }
        }
        let gone = |field: &&Field| before.is_none_or(|before| present(before, field.name).is_some());
        self.needed(&at, section.fields.iter().filter(gone), object);
    }

    fn object(&mut self, at: &At<'_>, fields: &[Field], open: bool, object: &Map<'_>) {
        for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            self.field(at, fields, open, name, value);
        }
        self.needed(at, fields.iter(), object);
    }

    fn field(&mut self, at: &At<'_>, fields: &[Field], open: bool, name: &str, value: &Value<'_>) {
        match find(fields, name) {
            Some(field) => self.node(&At::Field(at, name), &field.node, field.rule, value),
            None if open => (),
            None => self.found.push(Violation::unlisted(&At::Field(at, name).to_string())),
        }
    }

    /// Finds the fields that an object lacks of those that it must have.
    fn needed<'f>(&mut self, at: &At<'_>, fields: impl Iterator<Item = &'f Field>, object: &Map<'_>) {
        for field in fields {
            let needed = field.need == Need::Always || (field.need == Need::Filled && self.filled);
            if needed && present(object, field.name).is_none() {
                let expected = self.expected(&field.node);
                let at = At::Field(at, field.name).to_string();
                self.found.push(Violation::missing(field.rule, &at, &expected));
            }
        }
    }

    fn node(&mut self, at: &At<'_>, node: &Node, rule: Rule, value: &Value<'_>) {
        let right = match node {
            Node::Any => true,
            Node::OneOf(texts) => value.as_str().is_some_and(|text| texts.contains(&text)),
            Node::Is(truth) => value.as_bool() == Some(*truth),
            Node::Zero => value.as_i64() == Some(0),
            Node::AtMost(most) => value.as_i64().is_some_and(|number| (0..=*most).contains(&number)),
            Node::Exactly(number) => value.as_i64() == Some(*number),
            Node::Uid => value.as_i64() == Some(self.tenant.uid),
            Node::Never => false,
            Node::Listed(listed) => listed.holds(&self.lists, value),
            Node::Image => value.as_str().is_some_and(|text| self.is_allowed_image(text)),
            Node::OwnHost => value.as_str().is_some_and(|host| self.is_own(host, false)),
            Node::OwnOrLegacyHost => value.as_str().is_some_and(|host| self.is_own(host, true)),
            Node::LegacyPaths => self.has_own_legacy_paths(value),
            Node::PlainPath => value.as_str().is_some_and(path::is_plain),
            Node::GivenAddress => match value.as_array() {
                Some(list) => list.iter().all(is_given),
                None => is_given(value),
            },
            Node::NotEmpty => value.as_array().is_some_and(|list| !list.is_empty()),
            Node::Added(texts) => match value.as_array() {
                Some(list) => return self.added(at, node, texts, rule, list),
                None => false,
            },
            Node::Has(text) => {
                value.as_array().is_some_and(|list| list.iter().any(|entry| entry.as_str() == Some(text)))
            }
            Node::KeysWithin(_) | Node::Annotations { .. } | Node::OneLines { .. } => {
                return self.keys(at, node, rule, value);
            }
            Node::Object(fields) | Node::Open(fields) => match value.as_object() {
                Some(object) => return self.object(at, fields, matches!(node, Node::Open(_)), object),
                None => false,
            },
            Node::Each { key, node: entry, most } => match value.as_array() {
                Some(list) if list.len() <= *most => return self.each(at, key, entry, rule, list),
                _ => false,
            },
            Node::All(nodes) => return nodes.iter().for_each(|node| self.node(at, node, rule, value)),
        };
        if !right {
            self.refuse(at, node, rule, value);
        }
    }

    fn refuse(&mut self, at: &At<'_>, node: &Node, rule: Rule, value: &Value<'_>) {
        let expected = self.expected(node);
        self.found.push(Violation::value(rule, &at.to_string(), value, &expected));
    }

    fn each(&mut self, at: &At<'_>, key: &str, node: &Node, rule: Rule, list: &[Value<'_>]) {
        for (index, entry) in list.iter().enumerate() {
            if self.found.len() >= MOST_FOUND {
                return;
            }
            let name = entry.get(key).and_then(Value::as_str).filter(|name| !name.is_empty());
            self.node(&At::Entry(at, name, index), node, rule, entry);
        }
    }

    fn keys(&mut self, at: &At<'_>, node: &Node, rule: Rule, value: &Value<'_>) {
        let before = self.before;
        let wrong = |key: &str, value: &Value<'_>| match node {
            Node::KeysWithin(keys) => !keys.contains(&key),
            Node::Annotations { under, keys } => {
                key.contains(['/', '.'])
                    && !under.iter().any(|start| key.starts_with(start))
                    && !keys.contains(&key)
                    && before.and_then(|before| before.get(key)) != Some(value)
            }
            Node::OneLines { longest, but } => {
                key != *but && !value.as_str().is_some_and(|text| is_line(text, *longest))
            }
            _ => false,
        };
        match value.as_object() {
            Some(map) => {
                for (key, value) in map.iter().filter(|(key, value)| wrong(key, value)).take(MOST_FOUND) {
                    self.refuse(&At::Key(at, key), node, rule, value);
                }
            }
            None => self.refuse(at, node, rule, value),
        }
    }

    /// Judges only those entries of a list of texts that were not in it before.
    fn added(&mut self, at: &At<'_>, node: &Node, texts: &[&str], rule: Rule, list: &[Value<'_>]) {
        let before = self.before.and_then(Value::as_array);
        let kept = |entry: &Value<'_>| before.is_some_and(|before| before.contains(entry));
        let listed = |entry: &Value<'_>| entry.as_str().is_some_and(|text| texts.contains(&text));
        for (index, entry) in list.iter().enumerate().filter(|(_, entry)| !listed(entry) && !kept(entry)) {
            self.refuse(&At::Entry(at, None, index), node, rule, entry);
        }
    }

    fn expected(&self, node: &Node) -> String {
        node.expected(self.rules, &self.tenant.tool, &self.tenant.uid.to_string())
    }

    /// Whether a host is the tool's own, or the legacy one where that is allowed: what the front door takes it for.
    fn is_own(&self, host: &str, or_legacy: bool) -> bool {
        host.parse::<Host>().is_ok_and(|host| match self.rules.domains.place(&host) {
            Place::Tool(owner) => owner.as_str() == self.tenant.tool,
            Place::Legacy => or_legacy,
            Place::Apex | Place::Elsewhere => false,
        })
    }

    fn is_allowed_image(&self, text: &str) -> bool {
        text.parse::<ImageRef>()
            .is_ok_and(|image| self.rules.registries.iter().any(|allowed| image.repository().is_within(allowed)))
    }

    fn has_own_legacy_paths(&self, rule: &Value<'_>) -> bool {
        if rule.get("host").and_then(Value::as_str) != Some(self.rules.domains.legacy.as_str()) {
            return true;
        }
        let paths = rule.pointer("/http/paths").and_then(Value::as_array);
        let own = |entry: &Value<'_>| {
            let path = entry.get("path").and_then(Value::as_str);
            path.is_some_and(|path| path::is_plainly_below(path, &self.tenant.tool))
        };
        paths.is_some_and(|paths| paths.iter().all(own))
    }
}

/// A field that is there: null is not.
fn present<'v, 'a>(object: &'v Map<'a>, name: &str) -> Option<&'v Value<'a>> {
    object.get(name).filter(|value| !value.is_null())
}

/// Whether an address is left to the cluster.
fn is_given(address: &Value<'_>) -> bool {
    address.as_str().is_some_and(|text| ["", "None"].contains(&text))
}

/// Whether a text is one line of so many characters at most.
fn is_line(text: &str, longest: usize) -> bool {
    text.chars().count() <= longest && !text.chars().any(|c| c < ' ' || c == '\u{7f}')
}
