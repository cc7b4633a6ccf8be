//! `HTTPRoutes` of the Gateway API: a tool's own hosts, through the platform's Gateway, to Services of its namespace.
//!
//! Fields of the API's standard channel only. Nothing is mirrored or rewritten, and no filter of another program's
//! runs. Where the API is not installed, nothing here is ever asked.

use super::super::node::{always, any, checked};
use super::super::{Field, Node, Rule};
use super::{Section, metadata};
use crate::names;

/// An `HTTPRoute`.
pub(super) const SECTIONS: &[Section] = &[Section { at: &["spec"], open: false, fields: SPEC }, metadata::SECTION];

/// The API's own limits of lists.
const MOST_HOSTS: usize = 16;
const MOST_RULES: usize = 16;
const MOST_MATCHES: usize = 64;
const MOST_OTHERS: usize = 16;

const fn list(key: &'static str, node: &'static Node, most: usize) -> Node {
    Node::Each { key, node, most }
}

const SPEC: &[Field] = &[
    // Without one, a route is for every host of the Gateway.
    always("hostnames", Rule::Host, Node::All(&[Node::NotEmpty, list("", &Node::OwnHost, MOST_HOSTS)])),
    always("parentRefs", Rule::Host, list("name", &Node::Object(PARENT), 1)),
    checked("rules", Rule::Path, list("name", &Node::Object(RULE), MOST_RULES)),
];

const PARENT: &[Field] = &[
    checked("group", Rule::Host, Node::OneOf(&["gateway.networking.k8s.io"])),
    checked("kind", Rule::Host, Node::OneOf(&["Gateway"])),
    always("name", Rule::Host, Node::OneOf(&[names::GATEWAY])),
    always("namespace", Rule::Host, Node::OneOf(&[names::PLATFORM_NAMESPACE])),
    any("port"),
    any("sectionName"),
];

const RULE: &[Field] = &[
    checked("backendRefs", Rule::Path, list("name", &Node::Object(BACKEND), MOST_OTHERS)),
    checked("filters", Rule::Path, list("type", &Node::Object(FILTER), MOST_OTHERS)),
    checked("matches", Rule::Path, list("", &Node::Object(MATCH), MOST_MATCHES)),
    any("name"),
    any("timeouts"),
];

/// Without `namespace`, which would be another's.
const BACKEND: &[Field] = &[
    checked("filters", Rule::Path, list("type", &Node::Object(FILTER), MOST_OTHERS)),
    checked("group", Rule::Path, Node::OneOf(&[""])),
    checked("kind", Rule::Path, Node::OneOf(&["Service"])),
    any("name"),
    any("port"),
    any("weight"),
];

/// What a tool's own server could say as well.
const FILTER: &[Field] = &[
    any("requestHeaderModifier"),
    any("requestRedirect"),
    any("responseHeaderModifier"),
    always("type", Rule::Path, Node::OneOf(&["RequestHeaderModifier", "RequestRedirect", "ResponseHeaderModifier"])),
];

const MATCH: &[Field] = &[
    checked("headers", Rule::Path, list("name", &Node::Object(VALUE), MOST_OTHERS)),
    any("method"),
    checked("path", Rule::Path, Node::Object(PATH)),
    checked("queryParams", Rule::Path, list("name", &Node::Object(VALUE), MOST_OTHERS)),
];

const PATH: &[Field] = &[
    checked("type", Rule::Path, Node::OneOf(&["Exact", "PathPrefix"])),
    checked("value", Rule::Path, Node::PlainPath),
];

const VALUE: &[Field] = &[any("name"), checked("type", Rule::Path, Node::OneOf(&["Exact"])), any("value")];
