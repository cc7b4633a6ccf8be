//! Ingresses: a tool claims its own hosts, or its own paths of the legacy host, and nothing else.
//!
//! There is no default backend (it would answer for every host), no certificate (TLS is the front door's) and no
//! annotation that another program could read as configuration.

use super::super::node::{always, any, checked};
use super::super::{Field, Node, Rule};
use super::{Section, metadata};
use crate::names;

/// An Ingress.
pub(super) const SECTIONS: &[Section] = &[
    Section { at: &["spec"], open: false, fields: SPEC },
    Section { at: &["metadata"], open: true, fields: METADATA },
];

/// Most rules of one Ingress, and most paths of one rule. An entry of `tls` is no use here beside that of a manifest
/// which is written for elsewhere too.
const MOST_RULES: usize = 20;
const MOST_PATHS: usize = 50;
const MOST_TLS: usize = 10;

const SPEC: &[Field] = &[
    checked("ingressClassName", Rule::Host, Node::OneOf(&[names::INGRESS_CLASS])),
    always(
        "rules",
        Rule::Host,
        Node::Each { key: "host", node: &Node::All(&[Node::Object(RULE), Node::LegacyPaths]), most: MOST_RULES },
    ),
    checked("tls", Rule::Host, Node::Each { key: "", node: &Node::Object(TLS), most: MOST_TLS }),
];

/// What `kubectl` and `webservice` write for themselves. Everything else could be another program's configuration: all
/// that was ever wrong with the annotations of ingress-nginx stands in the cases of `ingress_nginx_cves.yaml`.
const METADATA: &[Field] = &[
    checked(
        "annotations",
        Rule::Annotation,
        Node::All(&[
            Node::KeysWithin(&[
                LAST_APPLIED,
                "kubectl.kubernetes.io/restartedAt",
                "kubernetes.io/change-cause",
                "toolforge.org/started-at",
            ]),
            Node::OneLines { longest: 1024, but: LAST_APPLIED },
        ]),
    ),
    metadata::FINALIZERS,
];

/// The manifest itself, which is read by `kubectl apply` alone.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

const RULE: &[Field] = &[
    always("host", Rule::Host, Node::OwnOrLegacyHost),
    always("http", Rule::Path, Node::Object(&[always("paths", Rule::Path, PATHS)])),
];

const PATHS: Node = Node::Each { key: "path", node: &Node::Object(PATH), most: MOST_PATHS };

const PATH: &[Field] = &[
    always("backend", Rule::Path, Node::Object(&[always("service", Rule::Path, Node::Object(SERVICE))])),
    always("path", Rule::Path, Node::PlainPath),
    always("pathType", Rule::Path, Node::OneOf(&["Exact", "Prefix"])),
];

const SERVICE: &[Field] = &[any("name"), checked("port", Rule::Path, Node::Object(&[any("name"), any("number")]))];

const TLS: &[Field] = &[checked("hosts", Rule::Host, Node::Each { key: "", node: &Node::OwnHost, most: MOST_RULES })];
