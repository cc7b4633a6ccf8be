//! Pods of the platform's own namespaces: no privilege but what each of Hearth's roles is listed for.
//!
//! Other than a tool's, these pods are written by operators, so only what gives power over a node is judged, and all
//! else is left alone. The list of roles is for Hearth's own namespace: in others of the platform no pod has any.

use super::super::node::{always, checked, each};
use super::super::{Field, Listed, Node, Rule};
use super::Section;
use crate::names::PLATFORM_NAMESPACE;

/// A role of the platform, and what its pods may do beyond others.
#[derive(Debug, PartialEq, Eq)]
pub struct Role {
    /// The value of its pods' label `app.kubernetes.io/name`.
    pub name: &'static str,
    /// Capabilities that its containers may add.
    pub capabilities: &'static [&'static str],
    /// Paths of the node that it may mount, exactly.
    pub paths: &'static [&'static str],
    /// Whether its programs may gain privilege, as by `sudo`.
    pub escalates: bool,
}

/// The roles that need something.
pub const ROLES: &[Role] = &[
    // Gives a new home to its owner, and becomes the owner to work in it.
    Role {
        name: "accounts",
        capabilities: &["CHOWN", "SETGID", "SETUID"],
        paths: &["/data/home", "/data/project"],
        escalates: false,
    },
    // Where people log in and become tools by sudo.
    Role {
        name: "bastion",
        capabilities: &["AUDIT_WRITE", "CHOWN", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID", "SYS_CHROOT"],
        paths: &["/data/home", "/data/project"],
        escalates: true,
    },
    // Both keep their data on the node.
    Role { name: "directory", capabilities: &[], paths: &["/data/platform/directory"], escalates: false },
    Role { name: "registry", capabilities: &[], paths: &["/data/platform/registry"], escalates: false },
];

/// Everyone else.
const NOBODY: &Role = &Role { name: "", capabilities: &[], paths: &[], escalates: false };

impl Role {
    /// What a pod of this namespace with this label is listed for.
    pub(in super::super) fn of(namespace: &str, name: &str) -> &'static Self {
        let listed = ROLES.iter().find(|role| namespace == PLATFORM_NAMESPACE && role.name == name);
        listed.unwrap_or(NOBODY)
    }
}

/// A pod.
pub(super) const SECTIONS: &[Section] = &[Section { at: &["spec"], open: true, fields: POD }];

/// What makes pods.
pub(super) const TEMPLATE_SECTIONS: &[Section] =
    &[Section { at: &["spec", "template", "spec"], open: true, fields: POD }];

/// What makes jobs.
pub(super) const CRON_SECTIONS: &[Section] =
    &[Section { at: &["spec", "jobTemplate", "spec", "template", "spec"], open: true, fields: POD }];

const CONTAINERS: Node = each("name", &Node::Open(CONTAINER));

const POD: &[Field] = &[
    checked("containers", Rule::Privilege, CONTAINERS),
    checked("initContainers", Rule::Privilege, CONTAINERS),
    checked("ephemeralContainers", Rule::Privilege, CONTAINERS),
    checked("hostIPC", Rule::Node, Node::Is(false)),
    checked("hostNetwork", Rule::Node, Node::Is(false)),
    checked("hostPID", Rule::Node, Node::Is(false)),
    checked("securityContext", Rule::Privilege, Node::Open(POD_SECURITY)),
    checked("volumes", Rule::Volume, each("name", &Node::Open(VOLUME))),
];

const POD_SECURITY: &[Field] = &[
    checked("appArmorProfile", Rule::Privilege, Node::Open(CONFINED)),
    checked("seccompProfile", Rule::Privilege, Node::Open(CONFINED)),
    checked("sysctls", Rule::Privilege, Node::Never),
    checked("windowsOptions", Rule::Privilege, Node::Never),
];

const CONFINED: &[Field] = &[always("type", Rule::Privilege, Node::OneOf(&["RuntimeDefault", "Localhost"]))];

const CONTAINER: &[Field] = &[
    checked("ports", Rule::Node, each("name", &Node::Open(PORT))),
    always("securityContext", Rule::Privilege, Node::Open(CONTAINER_SECURITY)),
];

const CONTAINER_SECURITY: &[Field] = &[
    // Left out, it would be true.
    always("allowPrivilegeEscalation", Rule::Privilege, Node::Listed(Listed::RoleEscalation)),
    checked("appArmorProfile", Rule::Privilege, Node::Open(CONFINED)),
    always("capabilities", Rule::Privilege, Node::Open(CAPABILITIES)),
    checked("privileged", Rule::Privilege, Node::Is(false)),
    checked("procMount", Rule::Privilege, Node::OneOf(&["Default"])),
    checked("seccompProfile", Rule::Privilege, Node::Open(CONFINED)),
    checked("windowsOptions", Rule::Privilege, Node::Never),
];

const CAPABILITIES: &[Field] = &[
    checked("add", Rule::Privilege, Node::Listed(Listed::RoleCapabilities)),
    always("drop", Rule::Privilege, Node::Has("ALL")),
];

const PORT: &[Field] = &[checked("hostPort", Rule::Node, Node::Zero)];

const VOLUME: &[Field] = &[checked("hostPath", Rule::Volume, Node::Open(HOST_PATH))];

const HOST_PATH: &[Field] = &[always("path", Rule::Volume, Node::Listed(Listed::RolePath))];
