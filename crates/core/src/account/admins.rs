//! What is to be done so that the administrators of the directory, and nobody else, are the cluster's.
//!
//! An administrator has two cluster role bindings: one to look into all namespaces but not at secrets, and one to act as
//! somebody else, which is all power there is and is used by saying so (`--as-group=system:masters`). Both name the group
//! of an epoch that only this administrator's certificates have; where the bindings are made anew, the epoch is another,
//! so that an older certificate never works again. There are few administrators: rights are planned for all of them at
//! once, and never wait for a home.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::plan::{Fresh, Given, Was, is_current};
use super::refused::Reason;
use super::state::Home;
use super::subject::{Epoch, Identity};
use super::{objects, owner::Owner};
use crate::directory_entry::Admin;
use crate::directory_entry::person_name::PersonName;
use crate::names;

/// How many administrators may lose their rights in one pass.
const FEW: usize = 5;

/// How the name of the binding ends that gives an administrator the role to act, and that of the one to look.
const ENDS: [(&str, &str); 2] = [("-view-binding", names::VIEW_ROLE), ("-binding", names::ADMINS_ROLE)];

/// What is to be done about rights, and what is not done and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rights {
    /// For each person with something to do: what, in this order.
    pub people: BTreeMap<PersonName, Vec<BindingAction>>,
    /// Who each administrator is to the cluster once that is done.
    pub identities: BTreeMap<PersonName, Identity>,
    /// Why nobody loses any, although somebody should.
    pub refused: Option<Reason>,
}

/// One thing to do about a person's rights.
#[derive(Clone, Debug, PartialEq)]
pub enum BindingAction {
    /// Delete the cluster role binding of this name.
    Delete(String),
    /// Make the cluster role binding this.
    Apply(Box<ClusterRoleBinding>, Was),
}

/// One thing to do in an administrator's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HomeAction {
    /// Make the home.
    Make,
    /// Get a certificate, and write the kubeconfig.
    Certify,
}

/// The name of the binding that gives a person the role to act, in which the person's epoch is kept.
pub fn binding_name(person: &PersonName) -> String {
    format!("{person}-binding")
}

/// The bindings of an administrator: to look, and to act. The second is made last and says that all is there.
pub fn bindings(identity: &Identity) -> [ClusterRoleBinding; 2] {
    ENDS.map(|(end, role)| binding(identity, end, role))
}

/// The epoch that a person's binding gives rights to, if it is the platform's and as the platform makes it.
pub fn epoch(person: &PersonName, found: &ClusterRoleBinding) -> Option<Epoch> {
    let ours = found.metadata.labels.as_ref()?.get(names::label::MANAGED_BY)? == names::FIELD_MANAGER;
    let [subject] = found.subjects.as_deref()? else { return None };
    let identity = Identity::of_group(Owner::Admin(person.clone()), &subject.name)?;
    let [_, expected] = bindings(&identity);
    let is_right = found.metadata.name == expected.metadata.name
        && found.role_ref == expected.role_ref
        && found.subjects == expected.subjects;
    (ours && is_right).then_some(identity.epoch)
}

/// Why a person can be no administrator, whatever the directory says.
///
/// # Errors
/// The name's bindings would have names that are another's.
pub fn can_be_admin(person: &PersonName) -> Result<(), String> {
    match person.as_str().ends_with("-view") {
        false => Ok(()),
        true => Err(format!(
            "'{person}' ends in '-view': its cluster role binding would have the name of another administrator's"
        )),
    }
}

/// What is to be done so that these and nobody else have an administrator's rights. `bindings` are the cluster role
/// bindings with our label, by name.
pub fn plan_rights(
    desired: &BTreeMap<PersonName, Admin>,
    bindings: &BTreeMap<String, ClusterRoleBinding>,
    fresh: &mut impl Fresh,
) -> Rights {
    let mut rights = Rights::default();
    removals(desired, bindings, &mut rights);
    for name in desired.keys() {
        let known = bindings.get(&binding_name(name)).and_then(|found| epoch(name, found));
        let epoch = known.unwrap_or_else(|| fresh.epoch());
        let identity = Identity { owner: Owner::Admin(name.clone()), epoch };
        let wanted = self::bindings(&identity).into_iter();
        let actions: Vec<BindingAction> = wanted.flat_map(|wanted| apply(wanted, bindings)).collect();
        if !actions.is_empty() {
            rights.people.insert(name.clone(), actions);
        }
        rights.identities.insert(name.clone(), identity);
    }
    rights
}

/// What is to be done in the home of an administrator who has the rights of this identity.
///
/// # Errors
/// Something in the way, which is left alone.
pub fn plan_home(
    admin: &Admin,
    identity: &Identity,
    found: &Home,
    given: Given<'_>,
) -> Result<Vec<HomeAction>, Reason> {
    let home = || given.platform.homes.of_person(&admin.name);
    let kubeconfig = match found {
        Home::Missing => return Ok(vec![HomeAction::Make, HomeAction::Certify]),
        Home::Own(contents) => &contents.kubeconfig,
        Home::Foreign(foreign) => return Err(Reason::foreign_home(home(), foreign, admin.uid)),
    };
    match is_current(kubeconfig, identity, given) {
        Ok(true) => Ok(Vec::new()),
        Ok(false) => Ok(vec![HomeAction::Certify]),
        Err(problem) => {
            let path = format!("{}/.kube/config", home());
            Err(Reason::UnusableFile { path, problem: problem.to_owned() })
        }
    }
}

/// Takes the rights of those who are administrators no longer; what lies in their homes is worth nothing then.
fn removals(
    desired: &BTreeMap<PersonName, Admin>,
    bindings: &BTreeMap<String, ClusterRoleBinding>,
    rights: &mut Rights,
) {
    let mut gone: BTreeMap<PersonName, Vec<BindingAction>> = BTreeMap::new();
    let mut all = BTreeSet::new();
    // In this order the one to act goes first: its name comes before that of the one to look.
    for name in bindings.keys() {
        let Some(person) = person_of(name) else { continue };
        if !desired.contains_key(&person) {
            gone.entry(person.clone()).or_default().push(BindingAction::Delete(name.clone()));
        }
        all.insert(person);
    }
    if gone.len() > FEW {
        rights.refused = Some(Reason::TooManyAdmins { wanted: gone.len(), total: all.len() });
    } else {
        rights.people = gone;
    }
}

/// Makes one binding what it should be.
fn apply(wanted: ClusterRoleBinding, bindings: &BTreeMap<String, ClusterRoleBinding>) -> Vec<BindingAction> {
    let name = wanted.metadata.name.clone().unwrap_or_default();
    match bindings.get(&name) {
        None => vec![BindingAction::Apply(Box::new(wanted), Was::Absent)],
        // What a binding gives cannot be changed.
        Some(found) if found.role_ref != wanted.role_ref => {
            vec![BindingAction::Delete(name), BindingAction::Apply(Box::new(wanted), Was::Absent)]
        }
        Some(found) if found.subjects != wanted.subjects => vec![BindingAction::Apply(Box::new(wanted), Was::Ours)],
        Some(_) => Vec::new(),
    }
}

/// The person whose binding has this name. No administrator's name ends so that two could have the same.
fn person_of(binding: &str) -> Option<PersonName> {
    ENDS.iter().find_map(|(end, _)| binding.strip_suffix(end))?.parse().ok()
}

fn binding(identity: &Identity, end: &str, role: &str) -> ClusterRoleBinding {
    let group = "rbac.authorization.k8s.io".to_owned();
    ClusterRoleBinding {
        metadata: ObjectMeta {
            name: Some(format!("{}{end}", identity.owner.name())),
            labels: Some(objects::our_label()),
            ..ObjectMeta::default()
        },
        role_ref: RoleRef { api_group: Some(group.clone()), kind: "ClusterRole".to_owned(), name: role.to_owned() },
        subjects: Some(vec![Subject {
            api_group: Some(group),
            kind: "Group".to_owned(),
            name: identity.group(),
            namespace: None,
        }]),
    }
}

/// Every kind of action, as the actions name themselves.
pub const KINDS: [&str; 4] =
    ["delete-admin-binding", "apply-admin-binding", "make-admin-home", "issue-admin-certificate"];

// === impl BindingAction ===

impl BindingAction {
    /// The action's kind, one of [`KINDS`]: a word for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Delete(_) => "delete-admin-binding",
            Self::Apply(..) => "apply-admin-binding",
        }
    }
}

// === impl HomeAction ===

impl HomeAction {
    /// The action's kind, one of [`KINDS`]: a word for metrics and logs.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Make => "make-admin-home",
            Self::Certify => "issue-admin-certificate",
        }
    }
}
