//! Values that somebody has listed: an operator in the configuration or on a namespace, or Hearth for its own roles.
//!
//! Only what each list allows is said here, for the Rust judge and its messages; `cel::listed` says the same to the API
//! server. The lists themselves come with the judging.

use super::Rules;
use super::fields::Role;
use super::json::{Map, Value};
use super::tenant::Tenant;
use crate::names::annotation;

/// By which list a value is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// The name of a service account that the tool's pods may run as: `default`, or the one of the namespace.
    Account,
    /// The name of a priority class of the configuration, or the empty text.
    PriorityClass,
    /// The path of the tool's own home, or one of the configuration's.
    Path,
    /// A container's mount: it is read-only where it is of a volume whose path the configuration lists so.
    Mount,
    /// Capabilities that the role's containers add.
    RoleCapabilities,
    /// A path of the node that the role mounts.
    RolePath,
    /// Whether programs may gain privilege, as by `sudo`: for roles that are listed for it.
    RoleEscalation,
}

/// The lists that an object is judged by.
pub(super) struct Lists<'a> {
    /// The configuration's.
    pub(super) rules: &'a Rules,
    /// The tool's.
    pub(super) tenant: &'a Tenant,
    /// The role's, in the platform's namespaces.
    pub(super) role: &'static Role,
    /// Names of the pod's volumes that must be mounted read-only.
    pub(super) read_only: Vec<&'a str>,
}

impl Listed {
    /// What would be right, as the end of a sentence that starts with the field.
    pub(super) fn expected(self, rules: &Rules, tool: &str) -> String {
        let right = match self {
            Self::Account => {
                format!("\"default\", or what the namespace's annotation {} says", annotation::SERVICE_ACCOUNT)
            }
            Self::PriorityClass => match rules.priority_classes.as_slice() {
                [] => "left out".to_owned(),
                classes => {
                    let names: Vec<String> = classes.iter().map(|class| format!("\"{class}\"")).collect();
                    format!("{}, or left out", names.join(" or "))
                }
            },
            Self::Path => {
                let listed: String = rules.mounts.iter().map(|mount| format!(" or \"{}\"", mount.path)).collect();
                format!("\"{}/{tool}\", the tool's own home{listed}", rules.homes)
            }
            Self::Mount => return "it must say readOnly: true, since tools may only read what it mounts".to_owned(),
            Self::RoleCapabilities => "one of the capabilities that the role is listed for".to_owned(),
            Self::RolePath => "one of the paths that the role is listed for".to_owned(),
            Self::RoleEscalation => "false, unless the role is listed for it".to_owned(),
        };
        format!("it must be {right}")
    }

    /// Whether a value is right.
    pub(super) fn holds(self, lists: &Lists<'_>, value: &Value<'_>) -> bool {
        let text = value.as_str();
        match self {
            Self::Account => text.is_some_and(|name| ["", "default", &lists.tenant.account].contains(&name)),
            Self::PriorityClass => text
                .is_some_and(|name| name.is_empty() || lists.rules.priority_classes.iter().any(|class| class == name)),
            Self::Path => text.is_some_and(|path| {
                path == lists.tenant.home || lists.rules.mounts.iter().any(|mount| mount.path == path)
            }),
            Self::Mount => {
                let name = value.get("name").and_then(Value::as_str).unwrap_or_default();
                let read_only = value.get("readOnly").and_then(Value::as_bool).unwrap_or_default();
                read_only || !lists.read_only.contains(&name)
            }
            Self::RoleCapabilities => value.as_array().is_some_and(|added| {
                added.iter().all(|one| one.as_str().is_some_and(|one| lists.role.capabilities.contains(&one)))
            }),
            Self::RolePath => text.is_some_and(|path| lists.role.paths.contains(&path)),
            Self::RoleEscalation => value.as_bool().is_some_and(|escalates| lists.role.escalates || !escalates),
        }
    }
}

impl<'a> Lists<'a> {
    /// Takes in the volumes of the pod that is judged next.
    pub(super) fn read(&mut self, pod: &'a Map<'a>) {
        let mounts = &self.rules.mounts;
        let listed = |path: &str| mounts.iter().any(|mount| mount.read_only && mount.path == path);
        let volumes = pod.get("volumes").and_then(Value::as_array).unwrap_or_default().iter();
        self.read_only = volumes
            .filter(|volume| volume.pointer("/hostPath/path").and_then(Value::as_str).is_some_and(listed))
            .map(|volume| volume.get("name").and_then(Value::as_str).unwrap_or_default())
            .collect();
    }
}
