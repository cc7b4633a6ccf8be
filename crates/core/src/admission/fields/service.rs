//! Services: reached inside the cluster only, at addresses that the cluster gives them.

use super::super::node::{any, checked, each};
use super::super::{Field, Node, Rule};
use super::{Section, metadata};

/// A Service.
pub(super) const SECTIONS: &[Section] = &[Section { at: &["spec"], open: false, fields: SPEC }, metadata::SECTION];

const SPEC: &[Field] = &[
    // An address that a tool chooses may be one that the platform's own Service had a moment ago.
    checked("clusterIP", Rule::Service, Node::GivenAddress),
    checked("clusterIPs", Rule::Service, Node::GivenAddress),
    // It has a meaning only for what is refused below; the API server sets it beside that.
    any("externalTrafficPolicy"),
    any("internalTrafficPolicy"),
    any("ipFamilies"),
    any("ipFamilyPolicy"),
    checked("ports", Rule::Service, each("name", &Node::Object(PORT))),
    any("publishNotReadyAddresses"),
    any("selector"),
    any("sessionAffinity"),
    any("sessionAffinityConfig"),
    any("trafficDistribution"),
    checked("type", Rule::Service, Node::OneOf(&["ClusterIP"])),
];

const PORT: &[Field] = &[
    any("appProtocol"),
    any("name"),
    checked("nodePort", Rule::Service, Node::Zero),
    any("port"),
    any("protocol"),
    any("targetPort"),
];
