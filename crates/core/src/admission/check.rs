//! The Rust half of the rulebook: holds a value against a [`Node`].
//!
//! Every arm here has its counterpart in `cel::render`, and the shared cases hold them together.

use std::borrow::Cow;

use super::fields::{Role, Section};
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
    /// Where the walk is, as in `spec.containers[web]`.
    path: String,
    /// What the field of the section held before.
    before: Option<&'a Value<'a>>,
    found: &'a mut Vec<Violation>,
}

impl<'a> Check<'a> {
    /// A walk that starts at `path`.
    pub(super) fn new(
        rules: &'a Rules,
        tenant: &'a Tenant,
        role: &'static Role,
        filled: bool,
        path: String,
        found: &'a mut Vec<Violation>,
    ) -> Self {
        let lists = Lists { rules, tenant, role, read_only: Vec::new() };
        Self { rules, tenant, lists, filled, path, before: None, found }
    }

    /// Judges a section of an object on the fields that differ from `before`.
    pub(super) fn top(&mut self, section: &Section, object: &'a Map<'a>, before: Option<&'a Map<'a>>) {
        self.lists.read(object);
        let same = |name: &str| before.is_some_and(|before| present(before, name) == present(object, name));
        for (name, value) in object.iter().filter(|(name, _)| !section.open && !same(name)) {
            self.listed(section.fields, name, value);
        }
        for field in section.fields.iter().filter(|field| !same(field.name)) {
            self.before = before.and_then(|before| present(before, field.name));
            self.field(field, object);
        }
    }

    fn listed(&mut self, fields: &[Field], name: &str, value: &Value<'_>) {
        if !value.is_null() && !fields.iter().any(|field| field.name == name) {
            self.below(&escaped(name), |check| check.found.push(Violation::unlisted(&check.path)));
        }
    }

    fn field(&mut self, field: &Field, object: &Map<'_>) {
        let value = present(object, field.name);
        if value.is_none() && (field.need == Need::Optional || (field.need == Need::Filled && !self.filled)) {
            return;
        }
        self.below(field.name, |check| match value {
            Some(value) => check.node(&field.node, field.rule, value),
            None => {
                let expected = check.expected(&field.node);
                check.found.push(Violation::missing(field.rule, &check.path, &expected));
            }
        });
    }

    fn node(&mut self, node: &Node, rule: Rule, value: &Value<'_>) {
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
                Some(list) => return self.added(node, texts, rule, list),
                None => false,
            },
            Node::Has(text) => {
                value.as_array().is_some_and(|list| list.iter().any(|entry| entry.as_str() == Some(text)))
            }
            Node::KeysWithin(_) | Node::Annotations { .. } | Node::OneLines { .. } => {
                return self.keys(node, rule, value);
            }
            Node::Object(fields) => match value.as_object() {
                Some(object) => return self.object(fields, object),
                None => false,
            },
            Node::Open(fields) => match value.as_object() {
                Some(object) => return fields.iter().for_each(|field| self.field(field, object)),
                None => false,
            },
            Node::Each { key, node: entry, most } => match value.as_array() {
                Some(list) if list.len() <= *most => return self.each(key, entry, rule, list),
                _ => false,
            },
            Node::All(nodes) => return nodes.iter().for_each(|node| self.node(node, rule, value)),
        };
        if !right {
            self.refuse(node, rule, value);
        }
    }

    fn refuse(&mut self, node: &Node, rule: Rule, value: &Value<'_>) {
        let expected = self.expected(node);
        self.found.push(Violation::value(rule, &self.path, value, &expected));
    }

    fn object(&mut self, fields: &[Field], object: &Map<'_>) {
        object.iter().for_each(|(name, value)| self.listed(fields, name, value));
        fields.iter().for_each(|field| self.field(field, object));
    }

    fn each(&mut self, key: &str, node: &Node, rule: Rule, list: &[Value<'_>]) {
        for (index, entry) in list.iter().enumerate() {
            if self.found.len() >= MOST_FOUND {
                return;
            }
            let name = entry.get(key).and_then(Value::as_str).filter(|name| !name.is_empty());
            let name = name.map_or_else(|| Cow::Owned(index.to_string()), escaped);
            self.step(&["[", &name, "]"], |check| check.node(node, rule, entry));
        }
    }

    fn keys(&mut self, node: &Node, rule: Rule, value: &Value<'_>) {
        let wrong = |key: &str, value: &Value<'_>| match node {
            Node::KeysWithin(keys) => !keys.contains(&key),
            Node::Annotations { under, keys } => {
                key.contains(['/', '.'])
                    && !under.iter().any(|start| key.starts_with(start))
                    && !keys.contains(&key)
                    && self.before.and_then(|before| before.get(key)) != Some(value)
            }
            Node::OneLines { longest, but } => {
                key != *but && !value.as_str().is_some_and(|text| is_line(text, *longest))
            }
            _ => false,
        };
        match value.as_object() {
            Some(map) => {
                for (key, value) in map.iter().filter(|(key, value)| wrong(key, value)).take(MOST_FOUND) {
                    let expected = self.expected(node);
                    let place = format!("{}[{}]", self.path, escaped(key));
                    self.found.push(Violation::value(rule, &place, value, &expected));
                }
            }
            None => {
                let expected = self.expected(node);
                self.found.push(Violation::value(rule, &self.path, value, &expected));
            }
        }
    }

    /// Judges only those entries of a list of texts that were not in it before.
    fn added(&mut self, node: &Node, texts: &[&str], rule: Rule, list: &[Value<'_>]) {
        let before = self.before.and_then(Value::as_array);
        let kept = |entry: &Value<'_>| before.is_some_and(|before| before.contains(entry));
        let listed = |entry: &Value<'_>| entry.as_str().is_some_and(|text| texts.contains(&text));
        for (index, entry) in list.iter().enumerate().filter(|(_, entry)| !listed(entry) && !kept(entry)) {
            self.step(&["[", &index.to_string(), "]"], |check| check.refuse(node, rule, entry));
        }
    }

    /// Goes to a field; at the top of an object nothing is before its name.
    fn below(&mut self, name: &str, judge: impl FnOnce(&mut Self)) {
        match self.path.is_empty() {
            true => self.step(&[name], judge),
            false => self.step(&[".", name], judge),
        }
    }

    fn step(&mut self, step: &[&str], judge: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.extend(step.iter().copied());
        judge(self);
        self.path.truncate(length);
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
