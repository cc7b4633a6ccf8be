//! Plans for administrators against a model of the cluster: what is planned is applied to the model, and planned again.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use proptest::prelude::*;

use super::admins::{BindingAction, HomeAction, Rights, binding_name, bindings, epoch, plan_home, plan_rights};
use super::kubeconfig::Server;
use super::owner::Owner;
use super::plan::{Fresh, Given, Password};
use super::quotas::Quotas;
use super::refused::Reason;
use super::state::{Certificate, Contents, Credential, Foreign, Home, Kubeconfig};
use super::subject::{Epoch, Identity};
use crate::directory_entry::Admin;
use crate::directory_entry::person_name::PersonName;
use crate::{Platform, names};

const CA: &str = "the authority\n";

/// Random values that are all different.
struct Counter(u8);

impl Fresh for Counter {
    fn epoch(&mut self) -> Epoch {
        self.0 += 1;
        Epoch::of([self.0; 16])
    }

    fn password(&mut self) -> Password {
        panic!("an administrator has no password")
    }
}

struct World {
    platform: Platform,
    now: Timestamp,
    directory: BTreeMap<PersonName, Admin>,
    bindings: BTreeMap<String, ClusterRoleBinding>,
    homes: BTreeMap<PersonName, Home>,
    fresh: Counter,
}

fn name(text: &str) -> PersonName {
    text.parse().unwrap()
}

impl World {
    fn new(people: &[&str]) -> Self {
        let text = r#"
            domains = { public = ["hearth.localhost"], legacy = "tools.hearth.localhost" }
            api = { server = "https://10.88.0.2:6443" }
            directory = { url = "ldaps://ldap", base = "dc=hearth", bind_dn = "cn=reader" }
            registry = { host = "registry.example" }
        "#;
        let mut world = Self {
            platform: Platform::from_toml(text).unwrap(),
            now: "2026-11-25T00:00:00Z".parse().unwrap(),
            directory: BTreeMap::new(),
            bindings: BTreeMap::new(),
            homes: BTreeMap::new(),
            fresh: Counter(0),
        };
        world.list(people);
        world
    }

    /// Makes these the administrators of the directory.
    fn list(&mut self, people: &[&str]) {
        let admin = |text: &&str| (name(text), Admin { name: name(text), uid: 10001, gid: 500 });
        self.directory = people.iter().map(admin).collect();
    }

    fn rights(&mut self) -> Rights {
        plan_rights(&self.directory, &self.bindings, &mut self.fresh)
    }

    fn home(&mut self, person: &str) -> Result<Vec<HomeAction>, Reason> {
        let (person, quotas) = (name(person), Quotas::default());
        let given = Given { platform: &self.platform, quotas: &quotas, api_ca: CA, now: self.now };
        let identities = plan_rights(&self.directory, &self.bindings, &mut self.fresh).identities;
        let found = self.homes.get(&person).unwrap_or(&Home::Missing);
        plan_home(&self.directory[&person], &identities[&person], found, given)
    }

    /// Does the first `most` actions of each person's.
    fn apply(&mut self, rights: &Rights, most: usize) {
        for action in rights.people.values().flat_map(|actions| actions.iter().take(most)) {
            match action {
                BindingAction::Delete(name) => drop(self.bindings.remove(name).unwrap()),
                BindingAction::Apply(binding, _) => {
                    let name = binding.metadata.name.clone().unwrap();
                    let old = self.bindings.insert(name, binding.as_ref().clone());
                    assert!(old.is_none_or(|old| old.role_ref == binding.role_ref), "a role cannot be changed");
                }
            }
        }
    }

    fn certify(&mut self, person: &str) {
        let (person, identity) = (name(person), self.rights().identities[&name(person)].clone());
        // As `signer` judges it: by the binding that is there.
        let binding = self.bindings.get(&binding_name(&person));
        assert_eq!(super::approval::approve_admin(&person, &identity.epoch, binding), Ok(()));
        let certificate = Certificate {
            subject: identity.subject(),
            not_before: self.now,
            not_after: self.now + SignedDuration::from_hours(30 * 24),
        };
        let api = &self.platform.api;
        let server = Server { url: api.server.clone(), tls_name: api.name.clone(), ca: CA.to_owned() };
        let kubeconfig = Kubeconfig::Present { server: Some(server), certificate: Some(certificate) };
        self.homes.insert(person, Home::Own(Contents { kubeconfig, credential: Credential::Missing }));
    }

    fn settle(&mut self) {
        let rights = self.rights();
        self.apply(&rights, usize::MAX);
        assert_eq!(self.rights().people, BTreeMap::new());
        let people: Vec<String> = self.directory.keys().map(ToString::to_string).collect();
        for person in people {
            if self.home(&person).unwrap().contains(&HomeAction::Certify) {
                self.certify(&person);
            }
            assert_eq!(self.home(&person), Ok(vec![]));
        }
    }

    fn epoch(&self, person: &str) -> Option<Epoch> {
        epoch(&name(person), self.bindings.get(&binding_name(&name(person)))?)
    }
}

fn kinds(rights: &Rights, person: &str) -> Vec<&'static str> {
    rights.people.get(&name(person)).into_iter().flatten().map(BindingAction::kind).collect()
}

#[test]
fn a_new_administrator_gets_everything_and_then_nothing() {
    let mut world = World::new(&["jane"]);
    assert_eq!(kinds(&world.rights(), "jane"), ["apply-admin-binding"; 2]);
    assert_eq!(world.home("jane"), Ok(vec![HomeAction::Make, HomeAction::Certify]));
    world.settle();
    let roles: Vec<(&str, &str)> =
        world.bindings.iter().map(|(name, found)| (name.as_str(), found.role_ref.name.as_str())).collect();
    assert_eq!(roles, [("jane-binding", names::ADMINS_ROLE), ("jane-view-binding", names::VIEW_ROLE)]);
}

#[test]
fn whoever_comes_back_has_another_epoch() {
    let mut world = World::new(&["jane", "joe"]);
    world.settle();
    let before = world.epoch("jane").unwrap();
    world.list(&["joe"]);
    let rights = world.rights();
    assert_eq!(kinds(&rights, "jane"), ["delete-admin-binding"; 2]);
    let first = &rights.people[&name("jane")][0];
    assert_eq!(*first, BindingAction::Delete("jane-binding".to_owned()), "the right to act goes first");
    world.settle();
    assert_eq!(world.epoch("jane"), None);
    world.list(&["jane", "joe"]);
    world.settle();
    assert_ne!(world.epoch("jane").unwrap(), before);
}

#[test]
fn a_binding_that_somebody_changed_is_made_right() {
    let mut world = World::new(&["jane"]);
    world.settle();
    let before = world.epoch("jane").unwrap();
    for person in ["jane-binding", "jane-view-binding"] {
        let found = world.bindings.get_mut(person).unwrap();
        found.role_ref.name = "cluster-admin".to_owned();
        world.settle();
    }
    let found = world.bindings.get_mut("jane-binding").unwrap();
    found.subjects.as_mut().unwrap()[0].name = "system:authenticated".to_owned();
    world.settle();
    assert_ne!(world.epoch("jane").unwrap(), before, "an epoch that is not known is another");
}

#[test]
fn certificates_are_renewed_in_time() {
    let mut world = World::new(&["jane"]);
    world.settle();
    world.now += SignedDuration::from_hours(15 * 24);
    assert_eq!(world.home("jane"), Ok(vec![]));
    world.now += SignedDuration::from_hours(6 * 24);
    assert_eq!(world.home("jane"), Ok(vec![HomeAction::Certify]));
}

#[test]
fn what_is_not_the_administrators_is_left_alone() {
    let mut world = World::new(&["jane", "joe"]);
    let file = Contents { kubeconfig: Kubeconfig::Unusable("it is odd".into()), credential: Credential::Missing };
    world.homes.insert(name("jane"), Home::Own(file));
    world.homes.insert(name("joe"), Home::Foreign(Foreign::OwnedBy(7)));
    let said = ["jane", "joe"].map(|person| world.home(person).unwrap_err().to_string());
    assert!(said[0].contains("the file /home/jane/.kube/config is left alone: it is odd"), "{said:?}");
    assert!(said[1].contains("the home /home/joe is owned by user number 7, not 10001"), "{said:?}");
}

#[test]
fn only_a_few_administrators_go_at_once() {
    let mut world = World::new(&["a", "b", "c", "d", "e", "f", "g"]);
    world.settle();
    for left in [vec![], vec!["a"]] {
        world.list(&left);
        let rights = world.rights();
        assert_eq!((rights.people.len(), rights.refused.is_some()), (0, true), "{left:?}");
    }
    world.list(&["a", "b"]);
    world.settle();
    assert_eq!(world.bindings.len(), 4);
    world.list(&[]);
    world.settle();
    assert_eq!(world.bindings.len(), 0);
}

#[test]
fn only_a_binding_as_the_platform_makes_it_has_an_epoch() {
    let jane = Identity { owner: Owner::Admin(name("jane")), epoch: Epoch::of([7; 16]) };
    let [view, right] = bindings(&jane);
    assert_eq!(epoch(&name("jane"), &right), Some(jane.epoch.clone()));
    let mut wrong = vec![view, right.clone(), right.clone(), right.clone(), right.clone()];
    wrong[1].metadata.labels = None;
    wrong[2].role_ref.name = "view".to_owned();
    wrong[3].subjects.as_mut().unwrap().push(right.subjects.as_ref().unwrap()[0].clone());
    wrong[4].subjects.as_mut().unwrap()[0].kind = "User".to_owned();
    for binding in &wrong {
        assert_eq!(epoch(&name("jane"), binding), None, "{binding:?}");
    }
    assert_eq!(epoch(&name("joe"), &right), None);
}

proptest! {
    /// Whatever happened before, also half of it: applying a plan leaves nothing to do, and old epochs never return.
    #[test]
    fn applying_leaves_nothing_to_do(steps in proptest::collection::vec((0..8_u8, 0..6_usize), 1..20)) {
        let mut world = World::new(&["z"]);
        world.settle();
        let mut lost = Vec::new();
        for (who, most) in steps {
            let people: Vec<&str> = [(1, "a"), (2, "b"), (4, "c")]
                .into_iter()
                .filter_map(|(bit, person)| (who & bit != 0).then_some(person))
                .chain(["z"])
                .collect();
            let before: Vec<Option<Epoch>> = ["a", "b", "c"].iter().map(|person| world.epoch(person)).collect();
            world.list(&people);
            let rights = world.rights();
            world.apply(&rights, most);
            for (person, before) in ["a", "b", "c"].iter().zip(before) {
                let now = world.epoch(person);
                prop_assert!(now.is_none() || !lost.contains(&(*person, now.clone())), "{person} has an old epoch");
                if before.is_some() && before != now {
                    lost.push((*person, before));
                }
            }
        }
        world.settle();
    }
}
