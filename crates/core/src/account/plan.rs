//! What is to be done so that the cluster and the homes are what the directory says.
//!
//! A tool's actions are carried out in their order, and the first that fails ends them: they are ordered so that
//! what is left is safe and the next plan goes on from there. Rights go first when a tool is disabled and come last
//! when it is enabled. Tools do not depend on each other.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota};
use k8s_openapi::api::rbac::v1::RoleBinding;

use super::kubeconfig::Server;
use super::objects::{self, Facts};
use super::owner::Owner;
use super::quotas::Quotas;
pub use super::refused::{Reason, Refused};
use super::removals::{is_to_be_disabled, removals};
use super::state::{Certificate, ClusterState, Contents, Corner, Credential, Foreign, Home, Kubeconfig};
use super::subject::{Epoch, Identity};
use crate::directory_entry::{Snapshot, Tool, ToolState};
use crate::{Platform, ToolName, names};

/// What is to be done, and what is not done and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// For each tool with something to do: what, in this order.
    pub tools: BTreeMap<ToolName, Vec<Action>>,
    /// What is left alone although it is not as it should be.
    pub refused: Vec<Refused>,
}

/// One thing to do for a tool.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create the namespace. It must not exist: one that does is another's.
    CreateNamespace(Namespace),
    /// Make the namespace's labels and annotations these; others stay.
    ApplyNamespace(Namespace),
    /// Make the quota this.
    ApplyQuota(ResourceQuota, Was),
    /// Make the limits these.
    ApplyLimits(LimitRange, Was),
    /// Make the role binding this.
    ApplyBinding(RoleBinding, Was),
    /// Delete the role binding of this name.
    DeleteBinding(String),
    /// Stop everything that the tool runs, see [`super::workload::stop`].
    Stop,
    /// Start everything that was stopped, see [`super::workload::start`].
    Start,
    /// Make the home of this user, with what belongs into it.
    MakeHome(u32),
    /// Get a certificate for this identity, and write the home's kubeconfig.
    IssueCertificate {
        /// The home's owner.
        uid: u32,
        /// The certificate's subject.
        identity: Identity,
    },
    /// Write the login to the registry into the home.
    WriteCredential {
        /// The home's owner.
        uid: u32,
        /// The password.
        password: Password,
    },
    /// Put the home of this user where only operators reach it.
    ArchiveHome(u32),
    /// Delete the namespace that has this `metadata.uid`, with all that is in it.
    DeleteNamespace(String),
}

/// Whether an object that is applied was there, as ours. One that was not is never taken from another manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    /// It was not seen.
    Absent,
    /// It was there and differed.
    Ours,
}

/// A random password and its digest.
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    /// The password.
    pub text: String,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// Where random values come from.
pub trait Fresh {
    /// A new epoch.
    fn epoch(&mut self) -> Epoch;
    /// A new password.
    fn password(&mut self) -> Password;
}

/// What a plan is made with, besides what was observed.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// The configuration.
    pub platform: &'a Platform,
    /// What single tools may use beyond what all may.
    pub quotas: &'a Quotas,
    /// The certificate authority of the Kubernetes API, PEM.
    pub api_ca: &'a str,
    /// The time.
    pub now: Timestamp,
}

/// What is to be done so that the cluster and the homes are what the directory says.
pub fn plan(desired: &Snapshot, observed: &ClusterState, given: Given<'_>, fresh: &mut impl Fresh) -> Plan {
    plan_each(desired.tools.values(), desired, observed, given, fresh)
}

/// What of [`plan`] concerns these tools. Deletions are planned for all: how many there may be depends on all.
pub fn plan_for(
    tools: &BTreeSet<ToolName>,
    desired: &Snapshot,
    observed: &ClusterState,
    given: Given<'_>,
    fresh: &mut impl Fresh,
) -> Plan {
    plan_each(tools.iter().filter_map(|tool| desired.tools.get(tool)), desired, observed, given, fresh)
}

fn plan_each<'a>(
    tools: impl Iterator<Item = &'a Tool>,
    desired: &Snapshot,
    observed: &ClusterState,
    given: Given<'_>,
    fresh: &mut impl Fresh,
) -> Plan {
    let mut plan = Plan::default();
    let may_disable = removals(desired, observed, given, &mut plan);
    for tool in tools {
        let corner = observed.namespaces.get(&tool.name);
        if plan.tools.contains_key(&tool.name) || (!may_disable && is_to_be_disabled(tool, corner)) {
            continue;
        }
        match safe_to_change(tool, corner, given) {
            Ok(()) => {
                let actions = Planner { tool, corner, given, actions: Vec::new(), refused: &mut plan.refused }
                    .run(observed.homes.get(&tool.name), fresh);
                if !actions.is_empty() {
                    plan.tools.insert(tool.name.clone(), actions);
                }
            }
            Err(reason) => plan.refused.push(Refused { tool: Some(tool.name.clone()), reason }),
        }
    }
    plan
}

/// Whether a kubeconfig leads to the platform with a certificate of this identity that is good for a while.
///
/// # Errors
/// The file cannot be used, and is left alone; the reason.
pub(super) fn is_current<'a>(found: &'a Kubeconfig, identity: &Identity, given: Given<'_>) -> Result<bool, &'a str> {
    let api = &given.platform.api;
    match found {
        Kubeconfig::Missing => Ok(false),
        Kubeconfig::Unusable(problem) => Err(problem),
        Kubeconfig::Present { server, certificate } => {
            let wanted = Server { url: api.server.clone(), tls_name: api.name.clone(), ca: given.api_ca.to_owned() };
            let is_good = |certificate: &Certificate| {
                certificate.subject == identity.subject() && given.now < renewal(&identity.owner, certificate)
            };
            Ok(server.as_ref() == Some(&wanted) && certificate.as_ref().is_some_and(is_good))
        }
    }
}

/// When a certificate is to be replaced: when a third of its life is left, and earlier by up to a twelfth, so that
/// tools which were made together are not renewed together.
pub fn renewal(owner: &Owner, certificate: &Certificate) -> Timestamp {
    let life = certificate.not_after.as_second().saturating_sub(certificate.not_before.as_second()).max(0);
    // FNV-1a: any even spread does, as long as it stays the same.
    let hash = owner
        .name()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let spread = i64::try_from(hash % 1000).unwrap_or(0).saturating_mul(life / 12) / 1000;
    let early = SignedDuration::from_secs((life / 3).saturating_add(spread));
    certificate.not_after.checked_sub(early).unwrap_or(Timestamp::MIN)
}

fn safe_to_change(tool: &Tool, corner: Option<&Corner>, given: Given<'_>) -> Result<(), Reason> {
    let tools = &given.platform.tools;
    if tool.uid < tools.first_uid || tool.uid > tools.last_uid {
        return Err(Reason::UidOutOfRange { uid: tool.uid, first: tools.first_uid, last: tools.last_uid });
    }
    let Some(corner) = corner else { return Ok(()) };
    if !corner.is_ours() {
        return Err(Reason::ForeignNamespace(tool.name.namespace()));
    }
    match corner.annotation(names::annotation::UID) {
        Some(found) if found != tool.uid.to_string() => {
            Err(Reason::OtherUid { namespace: tool.name.namespace(), found: found.to_owned(), expected: tool.uid })
        }
        _ => Ok(()),
    }
}

/// Plans for one tool that may be changed and is not to be deleted.
struct Planner<'a> {
    tool: &'a Tool,
    corner: Option<&'a Corner>,
    given: Given<'a>,
    actions: Vec<Action>,
    refused: &'a mut Vec<Refused>,
}

impl Planner<'_> {
    fn run(mut self, home: Option<&Home>, fresh: &mut impl Fresh) -> Vec<Action> {
        let active = self.tool.state == ToolState::Active;
        match self.corner {
            // It is planned again when the namespace is gone.
            Some(corner) if corner.terminating => return self.actions,
            None if !active => return self.actions,
            _ => (),
        }
        let known = self.corner.and_then(|corner| corner.annotation(names::annotation::EPOCH)?.parse().ok());
        let epoch: Epoch = known.unwrap_or_else(|| fresh.epoch());
        let identity = Identity { owner: self.tool.name.clone().into(), epoch };
        if active {
            self.activate(&identity, home, fresh)
        } else {
            self.disable(&identity.epoch)
        }
        self.actions
    }

    fn activate(&mut self, identity: &Identity, home: Option<&Home>, fresh: &mut impl Fresh) {
        let stopped = self.is_stopped();
        if self.corner.is_none() {
            self.actions.push(Action::CreateNamespace(objects::new_namespace(&self.tool.name)));
        }
        let credential = self.credential();
        let facts = Facts { tool: self.tool, epoch: &identity.epoch, credential: credential.as_deref(), stopped };
        self.namespace(&facts);
        self.bounds();
        self.binding(identity);
        if stopped {
            self.actions.push(Action::Start);
            self.applied(&Facts { stopped: false, ..facts.clone() });
        }
        let Some(home) = home else { return };
        let contents = match home {
            Home::Missing => {
                self.actions.push(Action::MakeHome(self.tool.uid));
                &Contents { kubeconfig: Kubeconfig::Missing, credential: Credential::Missing }
            }
            Home::Own(contents) => contents,
            Home::Foreign(foreign) => return self.refuse_home(foreign),
        };
        self.kubeconfig(&contents.kubeconfig, identity);
        if let Some(password) = self.login(&contents.credential, credential.as_deref(), fresh) {
            let sha256 = password.sha256.clone();
            self.actions.push(Action::WriteCredential { uid: self.tool.uid, password });
            self.applied(&Facts { credential: Some(&sha256), stopped: false, ..facts });
        }
    }

    fn disable(&mut self, epoch: &Epoch) {
        if self.corner.is_some_and(|corner| corner.binding.is_some()) {
            self.actions.push(Action::DeleteBinding(objects::binding_name(&self.tool.name)));
        }
        let credential = self.credential();
        let facts = Facts { tool: self.tool, epoch, credential: credential.as_deref(), stopped: self.is_stopped() };
        self.namespace(&facts);
        self.bounds();
        if !facts.stopped {
            self.actions.push(Action::Stop);
            self.applied(&Facts { stopped: true, ..facts });
        }
    }

    /// The digest of the tool's registry password, as the namespace has it.
    fn credential(&self) -> Option<String> {
        self.corner?.annotation(names::annotation::REGISTRY_CREDENTIAL).map(str::to_owned)
    }

    fn is_stopped(&self) -> bool {
        self.corner.is_some_and(|corner| corner.annotation(names::annotation::STOPPED).is_some())
    }

    /// Brings labels and annotations to what they should be before anything else is done.
    fn namespace(&mut self, facts: &Facts<'_>) {
        let annotations = facts.annotations();
        let is_right = self.corner.is_some_and(|corner| {
            let labels = objects::namespace_labels(&self.tool.name);
            labels.iter().all(|(key, value)| corner.labels.get(key) == Some(value))
                && objects::ANNOTATIONS.iter().all(|&key| corner.annotations.get(key) == annotations.get(key))
        });
        if !is_right {
            self.applied(facts);
        }
    }

    fn applied(&mut self, facts: &Facts<'_>) {
        let uid = self.corner.map(|corner| corner.uid.as_str());
        self.actions.push(Action::ApplyNamespace(facts.namespace(uid)));
    }

    /// Limits, and then the quota: it counts what the limits give to pods that ask for nothing.
    fn bounds(&mut self) {
        let was = |present: bool| if present { Was::Ours } else { Was::Absent };
        let found = self.corner.and_then(|corner| corner.limits.as_deref());
        let limits = objects::limits(&self.tool.name, self.given.quotas);
        if found != limits.spec.as_ref() {
            self.actions.push(Action::ApplyLimits(limits, was(found.is_some())));
        }
        let found = self.corner.and_then(|corner| corner.quota.as_deref());
        let quota = objects::quota(&self.tool.name, self.given.quotas);
        if found != quota.spec.as_ref() {
            self.actions.push(Action::ApplyQuota(quota, was(found.is_some())));
        }
    }

    fn binding(&mut self, identity: &Identity) {
        let binding = objects::binding(&self.tool.name, &identity.epoch);
        match self.corner.and_then(|corner| corner.binding.as_deref()) {
            None => self.actions.push(Action::ApplyBinding(binding, Was::Absent)),
            // What a binding gives cannot be changed.
            Some(found) if found.role != binding.role_ref => {
                self.actions.push(Action::DeleteBinding(objects::binding_name(&self.tool.name)));
                self.actions.push(Action::ApplyBinding(binding, Was::Absent));
            }
            Some(found) if Some(&found.subjects) != binding.subjects.as_ref() => {
                self.actions.push(Action::ApplyBinding(binding, Was::Ours));
            }
            Some(_) => (),
        }
    }

    fn kubeconfig(&mut self, found: &Kubeconfig, identity: &Identity) {
        match is_current(found, identity, self.given) {
            Ok(true) => (),
            Ok(false) => {
                self.actions.push(Action::IssueCertificate { uid: self.tool.uid, identity: identity.clone() });
            }
            Err(problem) => self.refuse_file(".kube/config", problem),
        }
    }

    /// A new password, where the home and the namespace do not agree on one.
    fn login(&mut self, found: &Credential, current: Option<&str>, fresh: &mut impl Fresh) -> Option<Password> {
        match found {
            Credential::Password(sha256) if Some(sha256.as_str()) == current => None,
            Credential::Password(_) | Credential::Missing => Some(fresh.password()),
            Credential::Other => None,
            Credential::Unusable(problem) => {
                self.refuse_file(".docker/config.json", problem);
                None
            }
        }
    }

    fn refuse_file(&mut self, file: &str, problem: &str) {
        let path = format!("{}/{file}", self.given.platform.homes.of(&self.tool.name));
        self.refuse(Reason::UnusableFile { path, problem: problem.to_owned() });
    }

    fn refuse_home(&mut self, foreign: &Foreign) {
        let path = self.given.platform.homes.of(&self.tool.name);
        self.refuse(Reason::foreign_home(path, foreign, self.tool.uid));
    }

    fn refuse(&mut self, reason: Reason) {
        self.refused.push(Refused { tool: Some(self.tool.name.clone()), reason });
    }
}

// === impl Action ===

impl Action {
    /// Every kind of action, as [`Action::kind`] names them.
    pub const KINDS: [&'static str; 13] = [
        "create-namespace",
        "apply-namespace",
        "apply-quota",
        "apply-limits",
        "apply-binding",
        "delete-binding",
        "stop",
        "start",
        "make-home",
        "issue-certificate",
        "write-credential",
        "archive-home",
        "delete-namespace",
    ];

    /// The action's kind, one of [`Action::KINDS`]: a word for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CreateNamespace(_) => "create-namespace",
            Self::ApplyNamespace(_) => "apply-namespace",
            Self::ApplyQuota(..) => "apply-quota",
            Self::ApplyLimits(..) => "apply-limits",
            Self::ApplyBinding(..) => "apply-binding",
            Self::DeleteBinding(_) => "delete-binding",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::MakeHome(_) => "make-home",
            Self::IssueCertificate { .. } => "issue-certificate",
            Self::WriteCredential { .. } => "write-credential",
            Self::ArchiveHome(_) => "archive-home",
            Self::DeleteNamespace(_) => "delete-namespace",
        }
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Password").field("sha256", &self.sha256).finish_non_exhaustive()
    }
}
