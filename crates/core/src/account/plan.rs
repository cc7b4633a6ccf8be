//! What is to be done so that the cluster and the homes are what the directory says.
//!
//! A tool's actions are carried out in their order, and the first that fails ends them: they are ordered so that
//! what is left is safe and the next plan goes on from there. Rights go first when a tool is disabled and come last
//! when it is enabled. Tools do not depend on each other.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota};
use k8s_openapi::api::rbac::v1::RoleBinding;

use super::kubeconfig::Server;
use super::objects::{self, Facts};
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
    /// The certificate authority of the Kubernetes API, PEM.
    pub api_ca: &'a str,
    /// The time.
    pub now: Timestamp,
}

/// Something that is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The tool, where it is about one.
    pub tool: Option<ToolName>,
    /// Why.
    pub reason: Reason,
}

/// Why something is left alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The namespace was made by somebody else.
    #[error(
        "the namespace {0} exists without the label {label}={manager}: it is left alone; delete it, or label it if it is the tool's",
        label = names::label::MANAGED_BY,
        manager = names::FIELD_MANAGER
    )]
    ForeignNamespace(String),
    /// The namespace belongs to another incarnation of the tool.
    #[error(
        "the namespace {namespace} is of user number {found}, the directory says {expected}: it is left alone; delete it if it is that of an earlier tool of the name"
    )]
    OtherUid {
        /// The namespace.
        namespace: String,
        /// What the annotation says.
        found: String,
        /// What the directory says.
        expected: u32,
    },
    /// The user number is not one that tools may have.
    #[error("the user number {uid} is not between {first} and {last}, see tools.first_uid and tools.last_uid")]
    UidOutOfRange {
        /// The number.
        uid: u32,
        /// The lowest that is allowed.
        first: u32,
        /// The highest that is allowed.
        last: u32,
    },
    /// The home is not the tool's.
    #[error(
        "the home {path} is {what}: it is left alone, and the tool gets no credentials; move it away or correct its owner"
    )]
    ForeignHome {
        /// Where it is.
        path: String,
        /// What it is instead.
        what: String,
    },
    /// A file in the home cannot be used.
    #[error("the file {path} is left alone: {problem}; move it away to get a new one")]
    UnusableFile {
        /// Where it is.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Too many tools are gone.
    #[error(
        "{wanted} of {total} tools are to be deleted, at most {allowed} may be in one pass: none is; if this is meant, raise tools.deletion_share_percent"
    )]
    TooManyDeletions {
        /// How many would be deleted.
        wanted: usize,
        /// How many may be.
        allowed: usize,
        /// How many tools have a namespace.
        total: usize,
    },
    /// The directory has no tools at all.
    #[error("the directory lists no tool at all, while {0} have a namespace: none is deleted")]
    EmptyDirectory(usize),
}

/// What is to be done so that the cluster and the homes are what the directory says.
pub fn plan(desired: &Snapshot, observed: &ClusterState, given: Given<'_>, fresh: &mut impl Fresh) -> Plan {
    let mut plan = Plan::default();
    for tool in desired.tools.values() {
        let corner = observed.namespaces.get(&tool.name);
        if is_expired(tool, given) {
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
    deletions(desired, observed, given, &mut plan);
    plan
}

/// When a certificate is to be replaced: when a third of its life is left, and earlier by up to a twelfth, so that
/// tools which were made together are not renewed together.
pub fn renewal(tool: &ToolName, certificate: &Certificate) -> Timestamp {
    let life = certificate.not_after.as_second().saturating_sub(certificate.not_before.as_second()).max(0);
    // FNV-1a: any even spread does, as long as it stays the same.
    let hash = tool
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let spread = i64::try_from(hash % 1000).unwrap_or(0).saturating_mul(life / 12) / 1000;
    let early = SignedDuration::from_secs((life / 3).saturating_add(spread));
    certificate.not_after.checked_sub(early).unwrap_or(Timestamp::MIN)
}

/// Whether a tool is disabled for longer than the days of grace.
fn is_expired(tool: &Tool, given: Given<'_>) -> bool {
    let grace = SignedDuration::from_hours(24)
        .saturating_mul(i32::try_from(given.platform.tools.grace_days).unwrap_or(i32::MAX));
    match tool.state {
        ToolState::Active => false,
        ToolState::Disabled { since } => since.duration_until(given.now) > grace,
    }
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

/// Plans the deletion of namespaces whose tools are gone or disabled for too long; all of them or none.
fn deletions(desired: &Snapshot, observed: &ClusterState, given: Given<'_>, plan: &mut Plan) {
    let unclear = |tool: &ToolName| desired.refused.iter().any(|refused| refused.tool.as_ref() == Some(tool));
    let is_wanted = |tool: &ToolName| match desired.tools.get(tool) {
        Some(tool) => is_expired(tool, given),
        None => !unclear(tool),
    };
    let ours = || observed.namespaces.iter().filter(|(_, corner)| corner.is_ours());
    let wanted: Vec<_> = ours().filter(|(tool, corner)| !corner.terminating && is_wanted(tool)).collect();
    // With the tools that this very pass makes, or the next pass would count otherwise.
    let new = |tool: &&Tool| tool.state == ToolState::Active && !observed.namespaces.contains_key(&tool.name);
    let total = ours().count() + desired.tools.values().filter(new).count();
    let allowed = (total * given.platform.tools.deletion_share_percent as usize / 100).max(1);
    let refuse = |reason| Refused { tool: None, reason };
    if desired.tools.is_empty() && !wanted.is_empty() {
        plan.refused.push(refuse(Reason::EmptyDirectory(total)));
    } else if wanted.len() > allowed {
        plan.refused.push(refuse(Reason::TooManyDeletions { wanted: wanted.len(), allowed, total }));
    } else {
        for (tool, corner) in wanted {
            plan.tools.insert(tool.clone(), vec![Action::DeleteNamespace(corner.uid.clone())]);
        }
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
        let identity = Identity { tool: self.tool.name.clone(), epoch };
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
        let found = self.corner.and_then(|corner| corner.limits.as_ref());
        let limits = objects::limits(&self.tool.name);
        if found != limits.spec.as_ref() {
            self.actions.push(Action::ApplyLimits(limits, was(found.is_some())));
        }
        let found = self.corner.and_then(|corner| corner.quota.as_ref());
        let quota = objects::quota(&self.tool.name);
        if found != quota.spec.as_ref() {
            self.actions.push(Action::ApplyQuota(quota, was(found.is_some())));
        }
    }

    fn binding(&mut self, identity: &Identity) {
        let binding = objects::binding(identity);
        match self.corner.and_then(|corner| corner.binding.as_ref()) {
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
        let is_right = match found {
            Kubeconfig::Missing => false,
            Kubeconfig::Unusable(problem) => return self.refuse_file(".kube/config", problem),
            Kubeconfig::Present { server, certificate } => {
                let certificate = certificate.as_ref();
                server.as_ref() == Some(&self.server())
                    && certificate.is_some_and(|certificate| {
                        certificate.subject == identity.subject()
                            && self.given.now < renewal(&self.tool.name, certificate)
                    })
            }
        };
        if !is_right {
            self.actions.push(Action::IssueCertificate { uid: self.tool.uid, identity: identity.clone() });
        }
    }

    fn server(&self) -> Server {
        let api = &self.given.platform.api;
        Server { url: api.server.clone(), tls_name: api.name.clone(), ca: self.given.api_ca.to_owned() }
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
        let what = match foreign {
            Foreign::NotADirectory => "not a directory".to_owned(),
            Foreign::OwnedBy(uid) => format!("owned by user number {uid}, not {}", self.tool.uid),
        };
        self.refuse(Reason::ForeignHome { path: self.given.platform.homes.of(&self.tool.name), what });
    }

    fn refuse(&mut self, reason: Reason) {
        self.refused.push(Refused { tool: Some(self.tool.name.clone()), reason });
    }
}

// === impl Action ===

impl Action {
    /// Every kind of action, as [`Action::kind`] names them.
    pub const KINDS: [&'static str; 12] = [
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
            Self::DeleteNamespace(_) => "delete-namespace",
        }
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Password").field("sha256", &self.sha256).finish_non_exhaustive()
    }
}
