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
mod node;
mod tenant;
mod verdict;
pub mod wire;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::host::Domains;
use crate::image::Repository;
use crate::names;
use crate::platform::Platform;

pub use node::{Field, Need, Node};
pub use verdict::{Rule, Verdict, Violation};

use check::Check;
use fields::{Book, Section};
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
    pub platform_namespaces: Vec<String>,
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
            platform_namespaces: names::PLATFORM_NAMESPACES.iter().map(|&name| name.to_owned()).collect(),
        }
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
    let tools = !rules.platform_namespaces.iter().any(|name| name == request.namespace);
    let book = fields::book(request.group, request.resource, request.subresource);
    let (true, Some(book)) = (tools && request.operation != Operation::Other, book) else {
        return Verdict::Allow;
    };
    let mut found = Vec::new();
    match book {
        Book::Writers(users) => {
            if !users.contains(&request.user) {
                found.push(Violation::writer(request.resource, request.user));
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
    if tenant.is_none() && !sections.iter().filter(|section| !section.open).all(unchanged) {
        return found.push(Violation::tenant(rules, request.namespace));
    }
    let tenant = tenant.unwrap_or_default();
    for section in sections {
        let (new, before) = (section.of(request.object), old.map(|old| section.of(old)));
        let mut check = Check::new(rules, &tenant, filled, section.path(), found);
        let empty = json::Map::default();
        check.top(section, new.unwrap_or(&empty), before.map(|before| before.unwrap_or(&empty)));
    }
}

/// `Deployment "web"`, by what the object says of itself.
fn describe(request: &Request<'_, json::Value<'_>>) -> String {
    let text =
        |pointer: &str| request.object.pointer(pointer).and_then(json::Value::as_str).filter(|text| !text.is_empty());
    let kind = text("/kind").unwrap_or(request.resource);
    match (text("/metadata/name"), text("/metadata/generateName")) {
        (Some(name), _) => format!("{kind} \"{name}\""),
        (None, Some(start)) => format!("{kind} \"{start}…\""),
        (None, None) => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests;
