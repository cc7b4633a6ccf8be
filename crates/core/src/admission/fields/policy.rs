//! Disruption budgets, which may slow the emptying of a node and not stop it; and who writes network policies.

use super::super::node::{always, any};
use super::super::{Field, Node, Rule};
use super::{Section, Writers, metadata};

/// A `PodDisruptionBudget`: one pod of those that it selects may always be missing. `minAvailable` is refused, since it
/// can be as high as the number of pods; pods that are not ready may be evicted, or one that never becomes ready would
/// keep its node from being emptied.
pub(super) const DISRUPTION_BUDGET: &[Section] =
    &[Section { at: &["spec"], open: false, fields: BUDGET }, metadata::SECTION];

const BUDGET: &[Field] = &[
    always("maxUnavailable", Rule::Disruption, Node::Exactly(1)),
    any("selector"),
    always("unhealthyPodEvictionPolicy", Rule::Disruption, Node::OneOf(&["AlwaysAllow"])),
];

/// Network policies are how the platform keeps tools apart. Administrators and the platform's own accounts write them;
/// RBAC says which of those.
pub(super) const NETWORK_POLICY: &Writers = &Writers {
    users: &["admin:*", "system:serviceaccount:hearth-system:*", "system:serviceaccount:kube-system:*"],
    rule: Rule::Network,
    by: "the platform",
    instead: "ask the people who run it",
};

/// Endpoints are written by the controller manager, by the accounts of its controllers or, where those are not used,
/// by its own name. A slice that a tool wrote could name another tool's pods.
pub(super) const ENDPOINTS: &Writers = &Writers {
    users: &[
        "system:kube-controller-manager",
        "system:serviceaccount:kube-system:endpoint-controller",
        "system:serviceaccount:kube-system:endpointslice-controller",
        "system:serviceaccount:kube-system:endpointslicemirroring-controller",
        "system:serviceaccount:kube-system:generic-garbage-collector",
    ],
    rule: Rule::Endpoints,
    by: "the cluster's own controllers",
    instead: "make a Service with a selector instead",
};
