//! Secrets: what a tool keeps for itself, of types that nothing in the cluster acts upon.
//!
//! A Secret of type `kubernetes.io/service-account-token` makes a controller write a token that never ends into it, and
//! a bootstrap token is a credential. Contents are never looked at, and no message repeats them: the webhook is not
//! even sent them, the policies speak alone.

use super::super::node::{any, checked};
use super::super::{Field, Node, Rule};
use super::{Section, metadata};

/// A Secret.
pub(super) const SECTIONS: &[Section] = &[Section { at: &[], open: false, fields: SECRET }, metadata::SECTION];

/// Types that are only read by who mounts them.
const TYPES: &[&str] = &[
    "Opaque",
    "",
    "kubernetes.io/tls",
    "kubernetes.io/basic-auth",
    "kubernetes.io/ssh-auth",
    "kubernetes.io/dockercfg",
    "kubernetes.io/dockerconfigjson",
    "helm.sh/release.v1",
];

const SECRET: &[Field] = &[
    any("apiVersion"),
    any("data"),
    any("immutable"),
    any("kind"),
    any("metadata"),
    any("stringData"),
    checked("type", Rule::Secret, Node::OneOf(TYPES)),
];
