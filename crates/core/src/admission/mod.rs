//! The rulebook: what tools may do in the cluster.
//!
//! Every field of the objects that tools write is classified in the tables of [`fields`]: allowed, checked, or, if no
//! table lists it, refused. The tables are data, read twice: [`review`] judges an object with them for the webhook,
//! and [`cel`] writes them out as the policies that the API server enforces itself. A rule that is added to a table
//! is therefore in both layers, and nothing is decided in one of them alone.
//!
//! Objects are judged as JSON, not as typed structures: a structure would drop the fields that it does not know, and
//! those are the ones to refuse. The decision needs the request and its namespace's annotations, nothing else: no
//! cache, no look-up, no network, no clock. Nothing here changes an object; one mutating policy fills in what a pod
//! leaves out ([`cel`]).

pub mod cel;
mod check;
pub mod fields;
pub mod json;
mod kept;
mod listed;
mod node;
mod tenant;
mod verdict;
pub mod wire;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::host::Domains;
use crate::image::Repository;
use crate::names::label;
use crate::platform::{Kind, Mount, Namespaces, Platform};

pub use listed::Listed;
pub use node::{Field, Need, Node};
pub use verdict::{Rule, Verdict, Violation};

use check::Check;
use fields::{Book, Role, Section};
use tenant::Tenant;

/// What the rules are about on this installation.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// The domains under which tools are reached.
    pub domains: Domains,
    /// Registries and repositories, with all below them, from which tools run images.
    pub registries: Vec<Repository>,
    /// The parent of the tools' homes.
    pub homes: String,
    /// The lowest user number of a tool.
    pub first_uid: u32,
    /// The highest user number of a tool.
    pub last_uid: u32,
    /// Namespaces that are not judged as a tool's. Every other is.
    pub namespaces: Namespaces,
    /// Paths of the nodes that tools' pods may mount, beside the own home.
    pub mounts: Vec<Mount>,
    /// Priority classes that tools' pods may carry.
    pub priority_classes: Vec<String>,
    /// Chapters that are tried before they bite: what they refuse goes through with a warning.
    pub trial: Vec<String>,
}

/// What is being done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// Anything else, which the rules do not judge: deleting must always be possible.
    Other,
}

/// What the API server asks about. Its objects are [`Value`]s, or [`json::Value`]s, which are cheaper.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a, O = Value> {
    /// What is being done.
    pub operation: Operation,
    /// The API group of the resource, empty for the core group.
    pub group: &'a str,
    /// The resource, in the plural, such as `pods`.
    pub resource: &'a str,
    /// The subresource, or empty.
    pub subresource: &'a str,
    /// The object's namespace.
    pub namespace: &'a str,
    /// The name of the user who asks.
    pub user: &'a str,
    /// The object as it would be stored.
    pub object: &'a O,
    /// The object as it is stored, when it is changed.
    pub old: Option<&'a O>,
    /// The annotations of the namespace.
    pub annotations: &'a BTreeMap<String, String>,
}

impl Rules {
    /// The rules of an installation.
    pub fn of(platform: &Platform) -> Self {
        Self {
            domains: platform.domains.clone(),
            registries: platform.registry.allowed.clone(),
            homes: platform.homes.root.clone(),
            first_uid: platform.tools.first_uid,
            last_uid: platform.tools.last_uid,
            namespaces: platform.namespaces.clone(),
            mounts: platform.mounts.clone(),
            priority_classes: platform.tools.priority_classes.clone(),
            trial: platform.admission.trial.clone(),
        }
    }
}

impl<V> Request<'_, V> {
    /// Whether what is asked about is judged by a chapter that is on trial, so that a refusal is to be a warning. The
    /// platform's own namespaces are never on trial.
    pub fn is_on_trial(&self, rules: &Rules) -> bool {
        if rules.namespaces.kind(self.namespace) != Kind::Tool {
            return false;
        }
        let chapter = fields::chapter(self.group, self.resource, self.subresource);
        chapter.is_some_and(|chapter| rules.trial.iter().any(|name| name == chapter))
    }
}

/// Judges a request. All that is wrong is in the verdict, not the first fault only.
///
/// A change is judged on what it changes: a field of the specification that stays as it was is not looked at, so that
/// objects from before a rule can still be labelled, finalised and deleted.
pub fn review(rules: &Rules, request: &Request<'_>) -> Verdict {
    let (object, old) = (json::Value::from(request.object), request.old.map(json::Value::from));
    let &Request { operation, group, resource, subresource, namespace, user, annotations, .. } = request;
    review_read(
        rules,
        &Request {
            operation,
            group,
            resource,
            subresource,
            namespace,
            user,
            object: &object,
            old: old.as_ref(),
            annotations,
        },
    )
}

/// [`review`] of objects that were read as [`json::Value`]s.
pub fn review_read(rules: &Rules, request: &Request<'_, json::Value<'_>>) -> Verdict {
    let kind = rules.namespaces.kind(request.namespace);
    let book = fields::book(kind, request.group, request.resource, request.subresource);
    let (true, Some(book)) = (request.operation != Operation::Other, book) else {
        return Verdict::Allow;
    };
    let mut found = Vec::new();
    match book {
        Book::Writers(writers) => {
            let old = request.old.filter(|_| request.operation == Operation::Update);
            if !writers.has(request.user) && !old.is_some_and(|old| is_only_labelled(request.object, old)) {
                found.push(Violation::writer(writers, request.resource, request.user));
            }
        }
        Book::Fields { sections, filled } => judge(rules, request, sections, *filled, &mut found),
    }
    match found.is_empty() {
        true => Verdict::Allow,
        false => Verdict::Refuse { object: describe(request), violations: found },
    }
}

fn judge(
    rules: &Rules,
    request: &Request<'_, json::Value<'_>>,
    sections: &[Section],
    filled: bool,
    found: &mut Vec<Violation>,
) {
    let old = request.old.filter(|_| request.operation == Operation::Update);
    let tenant = Tenant::of(rules, request.namespace, request.annotations);
    let unchanged = |section: &Section| old.is_some_and(|old| section.of(old) == section.of(request.object));
    if tenant.is_none() && !sections.iter().filter(|section| section.needs_tenant()).all(unchanged) {
        return found.push(Violation::tenant(rules, request.namespace));
    }
    let tenant = tenant.unwrap_or_default();
    let empty = json::Map::default();
    for section in sections {
        let (new, before) = (section.of(request.object), old.map(|old| section.of(old)));
        let role = Role::of(request.namespace, section.label(request.object, label::ROLE));
        let mut check = Check::new(rules, &tenant, role, filled, found);
        check.section(section, new.unwrap_or(&empty), before.map(|before| before.unwrap_or(&empty)));
    }
}

/// Whether a change leaves the content of an object as it was, and of its metadata all that other programs read as
/// content: its owners, and labels of Kubernetes' own, of which one says to which Service a slice belongs. Finalizers
/// may be taken away. The counterpart of the policies' `writers`.
fn is_only_labelled(object: &json::Value<'_>, old: &json::Value<'_>) -> bool {
    /// The labels of Kubernetes' own.
    fn labels<'v, 'a>(value: &'v json::Value<'a>) -> BTreeMap<&'v str, &'v json::Value<'a>> {
        let all = value.pointer("/metadata/labels").and_then(json::Value::as_object);
        let all = all.into_iter().flat_map(json::Map::iter);
        all.filter(|(key, _)| key.contains("kubernetes.io/")).collect()
    }
    fn list<'v, 'a>(value: &'v json::Value<'a>, pointer: &str) -> &'v [json::Value<'a>] {
        value.pointer(pointer).and_then(json::Value::as_array).unwrap_or_default()
    }
    let empty = json::Map::default();
    let (new, before) = (object.as_object().unwrap_or(&empty), old.as_object().unwrap_or(&empty));
    let same = |name: &str| name == "metadata" || new.get(name) == before.get(name);
    let (owners, finalizers) = ("/metadata/ownerReferences", "/metadata/finalizers");
    new.keys().chain(before.keys()).all(same)
        && labels(object) == labels(old)
        && list(object, owners) == list(old, owners)
        && list(object, finalizers).iter().all(|finalizer| list(old, finalizers).contains(finalizer))
}

/// `Deployment "web"`, by what the object says of itself.
fn describe(request: &Request<'_, json::Value<'_>>) -> String {
    let quoted = |text: &str, rest: &str| format!("\"{}{rest}\"", verdict::escaped(text));
    let text =
        |pointer: &str| request.object.pointer(pointer).and_then(json::Value::as_str).filter(|text| !text.is_empty());
    let kind = text("/kind").unwrap_or(request.resource);
    let kind = verdict::escaped(kind);
    match (text("/metadata/name"), text("/metadata/generateName")) {
        (Some(name), _) => format!("{kind} {}", quoted(name, "")),
        (None, Some(start)) => format!("{kind} {}", quoted(start, "…")),
        (None, None) => kind.into_owned(),
    }
}

#[cfg(test)]
mod tests;
