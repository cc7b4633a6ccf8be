//! What was observed of the cluster and of the homes: the material of a plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LimitRangeSpec, ResourceQuotaSpec};
use k8s_openapi::api::rbac::v1::{RoleRef, Subject as BindingSubject};

use super::kubeconfig::Server;
use super::subject::Subject;
use crate::{ToolName, names};

/// What was observed, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterState {
    /// The tools' namespaces, and foreign ones that have a tool's name.
    pub namespaces: BTreeMap<ToolName, Corner>,
    /// The homes that were looked at. What belongs into a home is planned only for these.
    pub homes: BTreeMap<ToolName, Home>,
}

/// A namespace, and what the platform keeps in it. There are thousands, alike for the most part: what is alike may be
/// shared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Corner {
    /// `metadata.uid`: another namespace of the same name has another.
    pub uid: String,
    /// Whether the namespace is being deleted.
    pub terminating: bool,
    /// Its labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Its annotations.
    pub annotations: Arc<BTreeMap<String, String>>,
    /// The quota of our name and label.
    pub quota: Option<Arc<ResourceQuotaSpec>>,
    /// The limits of our name and label.
    pub limits: Option<Arc<LimitRangeSpec>>,
    /// The role binding of our name and label.
    pub binding: Option<Arc<Binding>>,
}

/// A role binding.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// What it gives; cannot be changed.
    pub role: RoleRef,
    /// Whom it is given.
    pub subjects: Vec<BindingSubject>,
}

/// A tool's home, seen from outside and, where it is the tool's, from inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// There is nothing at its path.
    Missing,
    /// There is something that must not be touched.
    Foreign(Foreign),
    /// It is the tool's.
    Own(Contents),
}

/// What stands in the place of a home and is not the tool's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Not a directory: a link, a file.
    NotADirectory,
    /// A directory of another user.
    OwnedBy(u32),
}

/// What a home holds of what the platform writes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Contents {
    /// `.kube/config`.
    pub kubeconfig: Kubeconfig,
    /// `.docker/config.json`.
    pub credential: Credential,
}

/// The state of a tool's kubeconfig.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Kubeconfig {
    /// It is not there, or has nothing of the platform in it.
    Missing,
    /// It cannot be used and is left alone; the reason.
    Unusable(String),
    /// It has the platform's cluster in it.
    Present {
        /// The server, where all of it is there.
        server: Option<Server>,
        /// The certificate, where there is one that can be read, with its key.
        certificate: Option<Certificate>,
    },
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Certificate {
    /// Whose it is.
    pub subject: Subject,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// The state of a tool's login to the registry.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Credential {
    /// It is not there.
    Missing,
    /// It is a login as somebody else, and is left alone.
    Other,
    /// The file cannot be used and is left alone; the reason.
    Unusable(String),
    /// The tool's password has this SHA-256, in hexadecimal.
    Password(String),
}

impl Corner {
    /// Whether the namespace is the platform's to change.
    pub fn is_ours(&self) -> bool {
        self.labels.get(names::label::MANAGED_BY).is_some_and(|by| by == names::FIELD_MANAGER)
    }

    /// An annotation's value, where it is set.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }
}
