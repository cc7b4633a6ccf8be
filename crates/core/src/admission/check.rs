//! The Rust half of the rulebook: holds a value against a [`Node`].
//!
//! Every arm here has its counterpart in `cel::render`, and the shared cases hold them together.

use std::borrow::Cow;

use super::fields::Section;
use super::json::{Map, Value};
use super::tenant::Tenant;
use super::{Field, Need, Node, Rule, Rules, Violation};
use crate::image::ImageRef;

/// About how many faults are collected. A message shows fewer, and each takes memory: a list may have very many.
const MOST_FOUND: usize = 200;

/// One walk through an object.
pub(super) struct Check<'a> {
    rules: &'a Rules,
    tenant: &'a Tenant,
    /// Whether what the filling policy adds must be there.
    filled: bool,
    /// Where the walk is, as in `spec.containers[web]`.
    path: String,
    found: &'a mut Vec<Violation>,
}

impl<'a> Check<'a> {
    /// A walk that starts at `path`.
    pub(super) fn new(
        rules: &'a Rules,
        tenant: &'a Tenant,
        filled: bool,
        path: String,
        found: &'a mut Vec<Violation>,
    ) -> Self {
        Self { rules, tenant, filled, path, found }
    }

    /// Judges a section of an object on the fields that differ from `before`.
    pub(super) fn top(&mut self, section: &Section, object: &Map<'_>, before: Option<&Map<'_>>) {
        let same = |name: &str| before.is_some_and(|before| present(before, name) == present(object, name));
        for (name, value) in object.iter().filter(|(name, _)| !section.open && !same(name)) {
            self.listed(section.fields, name, value);
        }
        for field in section.fields.iter().filter(|field| !same(field.name)) {
            self.field(field, object);
        }
    }

    fn listed(&mut self, fields: &[Field], name: &str, value: &Value<'_>) {
        if !value.is_null() && !fields.iter().any(|field| field.name == name) {
            self.found.push(Violation::unlisted(&format!("{}.{name}", self.path)));
        }
    }

    fn field(&mut self, field: &Field, object: &Map<'_>) {
        let value = present(object, field.name);
        if value.is_none() && (field.need == Need::Optional || (field.need == Need::Filled && !self.filled)) {
            return;
        }
        self.below(&[".", field.name], |check| match value {
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
            Node::Uid => value.as_i64() == Some(self.tenant.uid),
            Node::Home => value.as_str() == Some(&self.tenant.home),
            Node::Image => value.as_str().is_some_and(|text| self.is_allowed_image(text)),
            Node::OwnHost => value.as_str().is_some_and(|host| self.is_own(host)),
            Node::OwnOrLegacyHost => {
                value.as_str().is_some_and(|host| self.is_own(host) || host == self.rules.domains.legacy.as_str())
            }
            Node::LegacyPaths => self.has_own_legacy_paths(value),
            Node::Has(text) => {
                value.as_array().is_some_and(|list| list.iter().any(|entry| entry.as_str() == Some(text)))
            }
            Node::KeysWithin(_) | Node::NoKeyUnder(_) => return self.keys(node, rule, value),
            Node::Object(fields) => match value.as_object() {
                Some(object) => return self.object(fields, object),
                None => false,
            },
            Node::Each { key, node: entry, most } => match value.as_array() {
                Some(list) if list.len() <= *most => return self.each(key, entry, rule, list),
                _ => false,
            },
            Node::All(nodes) => return nodes.iter().for_each(|node| self.node(node, rule, value)),
        };
        if !right {
            let expected = self.expected(node);
            self.found.push(Violation::value(rule, &self.path, value, &expected));
        }
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
            let name = name.map_or_else(|| Cow::Owned(index.to_string()), Cow::Borrowed);
            self.below(&["[", &name, "]"], |check| check.node(node, rule, entry));
        }
    }

    fn keys(&mut self, node: &Node, rule: Rule, value: &Value<'_>) {
        let wrong = |key: &str| match node {
            Node::KeysWithin(keys) => !keys.contains(&key),
            Node::NoKeyUnder(starts) => starts.iter().any(|start| key.starts_with(start)),
            _ => false,
        };
        match value.as_object() {
            Some(map) => {
                for (key, value) in map.iter().filter(|(key, _)| wrong(key)).take(MOST_FOUND) {
                    let expected = self.expected(node);
                    self.found.push(Violation::value(rule, &format!("{}[{key}]", self.path), value, &expected));
                }
            }
            None => {
                let expected = self.expected(node);
                self.found.push(Violation::value(rule, &self.path, value, &expected));
            }
        }
    }

    fn below(&mut self, step: &[&str], judge: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.extend(step.iter().copied());
        judge(self);
        self.path.truncate(length);
    }

    fn expected(&self, node: &Node) -> String {
        node.expected(self.rules, &self.tenant.tool, &self.tenant.uid.to_string())
    }

    fn is_own(&self, host: &str) -> bool {
        self.tenant.hosts.iter().any(|own| own == host)
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
        let path = |entry: &Value<'_>| entry.get("path").and_then(Value::as_str).map(str::to_owned);
        paths.is_some_and(|paths| {
            paths.iter().all(|entry| path(entry).is_some_and(|path| is_plainly_below(&path, &self.tenant.tool)))
        })
    }
}

/// A field that is there: null is not.
fn present<'v, 'a>(object: &'v Map<'a>, name: &str) -> Option<&'v Value<'a>> {
    object.get(name).filter(|value| !value.is_null())
}

/// Whether the path's first segment is the tool's name and every further one is plain: letters, digits, `-`, `_`, `~`
/// and inner dots, so that no reader can decode or resolve it into another tool's path. One slash may end it.
fn is_plainly_below(path: &str, tool: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut segments = path.split('/');
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'~' | b'-' | b'.');
    segments.next() == Some("")
        && segments.next() == Some(tool)
        && !tool.is_empty()
        && segments.all(|segment| !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(plain))
}
