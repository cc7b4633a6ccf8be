//! The objects that a tool has in the cluster, as functions of what is known of it.
//!
//! Names and numbers are the original's, which users and their scripts depend on (behaviour of maintain-kubeusers);
//! only the identity in the role binding is another, see [`super::subject`]. Quantities are written as the API
//! server writes them, so that an object that it returns equals the one that was sent.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    LimitRange, LimitRangeItem, LimitRangeSpec, Namespace, ResourceQuota, ResourceQuotaSpec,
};
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::quotas::{Amount, Quotas};
use super::subject::{Epoch, Identity};
use crate::directory_entry::{Tool, ToolState};
use crate::{ToolName, names};

/// What a tool may use altogether. Beside the original's: what a node's disk holds for it, and what controllers and
/// etcd keep. A Deployment has as many old `ReplicaSets` as admission lets it keep (10), its own, and another while it
/// is replaced: 36 for three of them, and some made by hand. Claims of storage are made by administrators.
pub(super) const QUOTA: &[(&str, &str)] = &[
    ("configmaps", "10"),
    ("count/cronjobs.batch", "50"),
    ("count/deployments.apps", "3"),
    ("count/ingresses.networking.k8s.io", "10"),
    ("count/jobs.batch", "15"),
    ("count/poddisruptionbudgets.policy", "5"),
    ("count/replicasets.apps", "40"),
    ("count/statefulsets.apps", "3"),
    ("limits.cpu", "2"),
    ("limits.ephemeral-storage", "20Gi"),
    ("limits.memory", "8Gi"),
    ("persistentvolumeclaims", "3"),
    ("pods", "10"),
    ("replicationcontrollers", "1"),
    ("requests.cpu", "2"),
    ("requests.ephemeral-storage", "4Gi"),
    ("requests.memory", "6Gi"),
    ("requests.storage", "10Gi"),
    ("secrets", "10"),
    ("services", "1"),
    ("services.nodeports", "0"),
];

/// What the platform keeps on a tool's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The tool, as the directory has it.
    pub tool: &'a Tool,
    /// Its epoch.
    pub epoch: &'a Epoch,
    /// SHA-256 of its registry password, in hexadecimal, once it has one.
    pub credential: Option<&'a str>,
    /// Whether everything that ran is stopped because the tool is disabled.
    pub stopped: bool,
}

/// The keys of [`Facts::annotations`], whether or not they are set.
pub const ANNOTATIONS: [&str; 7] = [
    names::annotation::UID,
    names::annotation::MAINTAINERS,
    names::annotation::STATE,
    names::annotation::DISABLED_AT,
    names::annotation::EPOCH,
    names::annotation::REGISTRY_CREDENTIAL,
    names::annotation::STOPPED,
];

impl Facts<'_> {
    /// The annotations of the namespace.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        use names::annotation as key;
        let maintainers: Vec<&str> = self.tool.maintainers.iter().map(String::as_str).collect();
        let mut annotations = vec![
            (key::UID, self.tool.uid.to_string()),
            (key::MAINTAINERS, maintainers.join(",")),
            (key::EPOCH, self.epoch.to_string()),
        ];
        match self.tool.state {
            ToolState::Active => annotations.push((key::STATE, "active".to_owned())),
            ToolState::Disabled { since } => {
                annotations.push((key::STATE, "disabled".to_owned()));
                annotations.push((key::DISABLED_AT, since.to_string()));
            }
        }
        if let Some(credential) = self.credential {
            annotations.push((key::REGISTRY_CREDENTIAL, credential.to_owned()));
        }
        if self.stopped {
            annotations.push((key::STOPPED, "true".to_owned()));
        }
        annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// The whole namespace. `uid` is that of the existing one: another namespace of the name is then not changed.
    pub fn namespace(&self, uid: Option<&str>) -> Namespace {
        let mut namespace = new_namespace(&self.tool.name);
        namespace.metadata.annotations = Some(self.annotations());
        namespace.metadata.uid = uid.map(str::to_owned);
        namespace
    }
}

/// The labels of a tool's namespace.
pub fn namespace_labels(tool: &ToolName) -> BTreeMap<String, String> {
    map(&[
        (names::label::NAME, tool.namespace().as_str()),
        (names::label::TENANCY, "tool"),
        (names::label::MANAGED_BY, names::FIELD_MANAGER),
    ])
}

/// A namespace as it is created: with its labels, which say whose it is. Annotations are applied afterwards, so that
/// one manager owns all of them.
pub fn new_namespace(tool: &ToolName) -> Namespace {
    Namespace {
        metadata: ObjectMeta {
            name: Some(tool.namespace()),
            labels: Some(namespace_labels(tool)),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    }
}

/// The tool's quota, `tool-<name>`.
pub fn quota(tool: &ToolName, quotas: &Quotas) -> ResourceQuota {
    let mut hard = quantities(QUOTA);
    hard.extend(quotas.of(tool).into_iter().flat_map(|own| quantities_of(&own.quota)));
    ResourceQuota {
        metadata: metadata(tool, tool.namespace()),
        spec: Some(ResourceQuotaSpec { hard: Some(hard), ..ResourceQuotaSpec::default() }),
        ..ResourceQuota::default()
    }
}

/// What a container of the tool gets that asks for nothing, and the least and most that it may ask for:
/// `tool-<name>`. Ephemeral storage is what a container writes outside of the home: its own layer, `emptyDir` and logs.
/// The quota counts it, so that whoever does not ask for any must be given some.
pub fn limits(tool: &ToolName, quotas: &Quotas) -> LimitRange {
    let mut max = quantities(&[("cpu", "1"), ("ephemeral-storage", "8Gi"), ("memory", "4Gi")]);
    max.extend(quotas.of(tool).into_iter().flat_map(|own| quantities_of(&own.container)));
    let item = LimitRangeItem {
        type_: "Container".to_owned(),
        default: Some(quantities(&[("cpu", "500m"), ("ephemeral-storage", "1Gi"), ("memory", "512Mi")])),
        default_request: Some(quantities(&[("cpu", "150m"), ("ephemeral-storage", "64Mi"), ("memory", "256Mi")])),
        min: Some(quantities(&[("cpu", "50m"), ("memory", "100Mi")])),
        max: Some(max),
        max_limit_request_ratio: None,
    };
    LimitRange { metadata: metadata(tool, tool.namespace()), spec: Some(LimitRangeSpec { limits: vec![item] }) }
}

/// The name of the role binding that gives a tool its rights.
pub fn binding_name(tool: &ToolName) -> String {
    format!("{tool}-tool-binding")
}

/// What the tool's certificate of the current epoch may do in its namespace.
pub fn binding(tool: &ToolName, epoch: &Epoch) -> RoleBinding {
    let identity = Identity { owner: tool.clone().into(), epoch: epoch.clone() };
    let group = "rbac.authorization.k8s.io".to_owned();
    RoleBinding {
        metadata: metadata(tool, binding_name(tool)),
        role_ref: RoleRef {
            api_group: Some(group.clone()),
            kind: "ClusterRole".to_owned(),
            name: names::TOOLS_ROLE.to_owned(),
        },
        subjects: Some(vec![Subject {
            api_group: Some(group),
            kind: "Group".to_owned(),
            name: identity.group(),
            namespace: None,
        }]),
    }
}

fn metadata(tool: &ToolName, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(tool.namespace()),
        labels: Some(our_label()),
        ..ObjectMeta::default()
    }
}

/// What marks an object as the platform's.
pub(super) fn our_label() -> BTreeMap<String, String> {
    map(&[(names::label::MANAGED_BY, names::FIELD_MANAGER)])
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn quantities(pairs: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), Quantity(value.to_owned()))).collect()
}

fn quantities_of(amounts: &BTreeMap<String, Amount>) -> impl Iterator<Item = (String, Quantity)> {
    amounts.iter().map(|(key, amount)| (key.clone(), Quantity(amount.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The objects of an active and of a disabled tool, as one document.
    fn rendered() -> String {
        let epoch = Epoch::of([0; 16]);
        let mut tool = Tool {
            name: "wikibot".parse().unwrap(),
            uid: 50001,
            maintainers: ["member2".to_owned(), "member1".to_owned()].into(),
            state: ToolState::Active,
        };
        let active = Facts { tool: &tool, epoch: &epoch, credential: Some("c0ffee"), stopped: false }.namespace(None);
        let parts = [
            serde_json::to_value(active),
            serde_json::to_value(quota(&tool.name, &Quotas::default())),
            serde_json::to_value(limits(&tool.name, &Quotas::default())),
            serde_json::to_value(binding(&tool.name, &epoch)),
        ];
        tool.state = ToolState::Disabled { since: "2026-11-01T00:00:00Z".parse().unwrap() };
        let disabled = Facts { tool: &tool, epoch: &epoch, credential: None, stopped: true }.namespace(Some("u-1"));
        let parts = parts.into_iter().chain([serde_json::to_value(disabled)]);
        parts.map(|part| serde_json::to_string_pretty(&part.unwrap()).unwrap() + "\n").collect()
    }

    /// To accept a change, put what the failure prints into `golden/objects.json`.
    #[test]
    fn objects_are_as_they_were_agreed() {
        let rendered = rendered();
        assert_eq!(rendered, include_str!("golden/objects.json"), "\n{rendered}");
    }
}
