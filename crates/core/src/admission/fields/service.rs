//! Services: reached inside the cluster only, at addresses that the cluster gives them.

use super::super::node::{any, checked, each};
use super::super::{Field, Node, Rule};
use super::{Section, metadata};

/// A Service.
pub(super) const SECTIONS: &[Section] = &[
    Section { at: &["spec"], open: false, fields: SPEC },
    Section { at: &["metadata"], open: true, fields: METADATA },
];

/// Balancers, DNS and meshes take orders from annotations of Services: addresses, names, certificates. So none may be
/// set but what `kubectl` and `webservice` write for themselves.
const METADATA: &[Field] = &[
    checked(
        "annotations",
        Rule::Annotation,
        Node::KeysWithin(&[
            "kubectl.kubernetes.io/last-applied-configuration",
            "kubectl.kubernetes.io/restartedAt",
            "kubernetes.io/change-cause",
            "toolforge.org/started-at",
        ]),
    ),
    metadata::FINALIZERS,
];

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
