//! Plans against a model of the cluster: what is planned is applied to the model, and planned again.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use proptest::prelude::*;

use super::objects;
use super::plan::{Action, Fresh, Given, Password, Plan, Reason, Was, plan, renewal};
use super::state::{Binding, Certificate, ClusterState, Contents, Corner, Credential, Foreign, Home, Kubeconfig};
use super::subject::{Epoch, Identity};
use crate::directory_entry::{self, Snapshot, Tool, ToolState};
use crate::{Platform, ToolName, names};

const CA: &str = "the authority\n";

/// Random values that are all different.
#[derive(Default)]
struct Counter(u8);

impl Fresh for Counter {
    fn epoch(&mut self) -> Epoch {
        self.0 += 1;
        Epoch::of([self.0; 16])
    }

    fn password(&mut self) -> Password {
        self.0 += 1;
        Password { text: format!("password {}", self.0), sha256: format!("digest {}", self.0) }
    }
}

/// The world: a directory, a cluster and the homes.
struct World {
    platform: Platform,
    now: Timestamp,
    directory: Snapshot,
    cluster: ClusterState,
    fresh: Counter,
    namespaces_made: u32,
}

impl World {
    fn new() -> Self {
        let text = r#"
            domains = { public = ["hearth.localhost"], legacy = "tools.hearth.localhost" }
            api = { server = "https://10.88.0.2:6443" }
            directory = { url = "ldaps://ldap", base = "dc=hearth", bind_dn = "cn=reader" }
            registry = { host = "registry.example" }
            tools = { deletion_share_percent = 40 }
        "#;
        Self {
            platform: Platform::from_toml(text).unwrap(),
            now: "2026-11-22T00:00:00Z".parse().unwrap(),
            directory: Snapshot::default(),
            cluster: ClusterState::default(),
            fresh: Counter::default(),
            namespaces_made: 0,
        }
    }

    fn with_tools(names: &[&str]) -> Self {
        let mut world = Self::new();
        for (i, tool) in names.iter().enumerate() {
            world.add(tool, 50001 + u32::try_from(i).unwrap());
        }
        world
    }

    fn add(&mut self, tool: &str, uid: u32) {
        let tool = Tool {
            name: name(tool),
            uid,
            maintainers: BTreeSet::from(["member1".to_owned()]),
            state: ToolState::Active,
        };
        self.cluster.homes.entry(tool.name.clone()).or_insert(Home::Missing);
        self.directory.tools.insert(tool.name.clone(), tool);
    }

    fn tool(&mut self, tool: &str) -> &mut Tool {
        self.directory.tools.get_mut(&name(tool)).unwrap()
    }

    fn corner(&mut self, tool: &str) -> &mut Corner {
        self.cluster.namespaces.get_mut(&name(tool)).unwrap()
    }

    fn plan(&mut self) -> Plan {
        let given = Given { platform: &self.platform, api_ca: CA, now: self.now };
        plan(&self.directory, &self.cluster, given, &mut self.fresh)
    }

    /// Plans, applies, and checks that nothing is left to do.
    fn settle(&mut self) -> Plan {
        let first = self.plan();
        for (tool, actions) in &first.tools {
            for action in actions {
                self.apply(tool, action);
            }
        }
        let second = self.plan();
        assert_eq!(second.tools, BTreeMap::new(), "after {:?}", first.tools);
        assert_eq!(second.refused, first.refused);
        first
    }

    fn apply(&mut self, tool: &ToolName, action: &Action) {
        let now = self.now;
        let corner = self.cluster.namespaces.get_mut(tool);
        match action {
            Action::CreateNamespace(object) => {
                assert!(corner.is_none(), "{tool} exists");
                self.namespaces_made += 1;
                let corner = Corner {
                    uid: format!("uid-{}", self.namespaces_made),
                    labels: object.metadata.labels.clone().unwrap(),
                    ..Corner::default()
                };
                self.cluster.namespaces.insert(tool.clone(), corner);
            }
            Action::ApplyNamespace(object) => apply_namespace(corner.unwrap(), object),
            Action::ApplyQuota(object, was) => {
                let corner = corner.unwrap();
                assert_eq!(*was == Was::Ours, corner.quota.is_some());
                corner.quota = object.spec.clone();
            }
            Action::ApplyLimits(object, _) => corner.unwrap().limits = object.spec.clone(),
            Action::ApplyBinding(object, _) => {
                let subjects = object.subjects.clone().unwrap();
                corner.unwrap().binding = Some(Binding { role: object.role_ref.clone(), subjects });
            }
            Action::DeleteBinding(_) => corner.unwrap().binding = None,
            Action::Stop => assert!(corner.unwrap().binding.is_none(), "{tool} could start things again"),
            Action::Start => (),
            Action::MakeHome(_) => {
                let contents = Contents { kubeconfig: Kubeconfig::Missing, credential: Credential::Missing };
                self.cluster.homes.insert(tool.clone(), Home::Own(contents));
            }
            Action::IssueCertificate { identity, .. } => {
                let corner = corner.unwrap();
                assert_eq!(corner.annotation(names::annotation::EPOCH), Some(identity.epoch.as_str()));
                assert_eq!(corner.annotation(names::annotation::STATE), Some("active"));
                let server = super::kubeconfig::Server {
                    url: self.platform.api.server.clone(),
                    tls_name: self.platform.api.name.clone(),
                    ca: CA.to_owned(),
                };
                let certificate = Certificate {
                    subject: identity.subject(),
                    not_before: now,
                    not_after: now + SignedDuration::from_hours(24 * 30),
                };
                self.contents(tool).kubeconfig =
                    Kubeconfig::Present { server: Some(server), certificate: Some(certificate) };
            }
            Action::WriteCredential { password, .. } => {
                self.contents(tool).credential = Credential::Password(password.sha256.clone());
            }
            Action::DeleteNamespace(uid) => {
                assert_eq!(corner.unwrap().uid, *uid);
                self.cluster.namespaces.remove(tool);
            }
        }
    }

    fn contents(&mut self, tool: &ToolName) -> &mut Contents {
        match self.cluster.homes.get_mut(tool) {
            Some(Home::Own(contents)) => contents,
            other => panic!("{tool} has no home of its own: {other:?}"),
        }
    }

    fn kinds(plan: &Plan, tool: &str) -> Vec<&'static str> {
        plan.tools.get(&name(tool)).into_iter().flatten().map(Action::kind).collect()
    }
}

fn apply_namespace(corner: &mut Corner, object: &Namespace) {
    assert!(object.metadata.uid.as_ref().is_none_or(|uid| *uid == corner.uid));
    let annotations = object.metadata.annotations.clone().unwrap();
    corner.annotations.retain(|key, _| !objects::ANNOTATIONS.contains(&key.as_str()));
    corner.annotations.extend(annotations);
    corner.labels.extend(object.metadata.labels.clone().unwrap());
}

fn name(text: &str) -> ToolName {
    text.parse().unwrap()
}

fn disabled(world: &World, days: i64) -> ToolState {
    ToolState::Disabled { since: world.now - SignedDuration::from_hours(24 * days) }
}

#[test]
fn a_new_tool_gets_everything_in_one_plan() {
    let mut world = World::with_tools(&["a"]);
    let plan = world.settle();
    let expected = [
        "create-namespace",
        "apply-namespace",
        "apply-limits",
        "apply-quota",
        "apply-binding",
        "make-home",
        "issue-certificate",
        "write-credential",
        "apply-namespace",
    ];
    assert_eq!(World::kinds(&plan, "a"), expected);
    let corner = world.corner("a").clone();
    assert_eq!(corner.annotation(names::annotation::UID), Some("50001"));
    assert_eq!(corner.annotation(names::annotation::MAINTAINERS), Some("member1"));
    assert_eq!(corner.annotation(names::annotation::REGISTRY_CREDENTIAL), Some("digest 2"));
    let identity =
        Identity { tool: name("a"), epoch: corner.annotation(names::annotation::EPOCH).unwrap().parse().unwrap() };
    assert_eq!(corner.binding.unwrap().subjects[0].name, identity.group());
}

#[test]
fn disabling_takes_the_rights_first_and_enabling_gives_them_back() {
    let mut world = World::with_tools(&["a"]);
    world.settle();
    let epoch = world.corner("a").annotation(names::annotation::EPOCH).unwrap().to_owned();
    world.tool("a").state = disabled(&world, 1);
    let plan = world.settle();
    assert_eq!(World::kinds(&plan, "a"), ["delete-binding", "apply-namespace", "stop", "apply-namespace"]);
    assert_eq!(world.corner("a").annotation(names::annotation::DISABLED_AT), Some("2026-11-21T00:00:00Z"));
    world.tool("a").state = ToolState::Active;
    let plan = world.settle();
    assert_eq!(World::kinds(&plan, "a"), ["apply-namespace", "apply-binding", "start", "apply-namespace"]);
    let corner = world.corner("a");
    assert_eq!(corner.annotation(names::annotation::DISABLED_AT), None);
    assert_eq!(corner.annotation(names::annotation::EPOCH), Some(epoch.as_str()));
}

#[test]
fn a_tool_is_deleted_when_it_is_gone_or_disabled_for_too_long() {
    let mut world = World::with_tools(&["a", "b", "c", "d", "e"]);
    world.settle();
    world.tool("a").state = disabled(&world, 40);
    world.directory.tools.remove(&name("b"));
    let plan = world.settle();
    assert_eq!(World::kinds(&plan, "b"), ["delete-namespace"]);
    assert!(world.cluster.namespaces.contains_key(&name("a")));
    world.tool("a").state = disabled(&world, 41);
    assert_eq!(World::kinds(&world.settle(), "a"), ["delete-namespace"]);
    world.add("b", 50009);
    let before = world.fresh.0;
    world.cluster.homes.insert(name("b"), Home::Foreign(Foreign::OwnedBy(50002)));
    let plan = world.settle();
    assert!(world.fresh.0 > before, "a tool made again gets another epoch");
    assert_eq!(
        plan.refused[0].reason.to_string(),
        "the home /data/project/b is owned by user number 50002, not 50009: it is left alone, and the tool gets no credentials; move it away or correct its owner"
    );
}

#[test]
fn a_short_or_empty_directory_deletes_nothing() {
    let mut world = World::with_tools(&["a", "b", "c", "d", "e"]);
    world.settle();
    let all = world.directory.clone();
    for tool in ["a", "b", "c"] {
        world.directory.tools.remove(&name(tool));
    }
    let plan = world.settle();
    assert_eq!(
        plan.refused[0].reason.to_string(),
        "3 of 5 tools are to be deleted, at most 2 may be in one pass: none is; if this is meant, raise tools.deletion_share_percent"
    );
    world.directory.tools.clear();
    let plan = world.settle();
    assert_eq!(
        plan.refused[0].reason.to_string(),
        "the directory lists no tool at all, while 5 have a namespace: none is deleted"
    );
    world.directory = all;
    world.directory.tools.remove(&name("a"));
    world.directory.refused.push(directory_entry::Refused {
        dn: "cn=tools.a".to_owned(),
        tool: Some(name("a")),
        reason: directory_entry::Refusal::Missing("uidNumber"),
    });
    assert_eq!(world.settle(), Plan::default(), "a tool whose entry is faulty is not gone");
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let mut world = World::with_tools(&["a", "b", "c"]);
    world.cluster.namespaces.insert(name("a"), Corner { uid: "foreign".to_owned(), ..Corner::default() });
    world.tool("b").uid = 0;
    let before = world.cluster.namespaces.clone();
    let plan = world.settle();
    let messages: Vec<String> = plan.refused.iter().map(|r| r.reason.to_string()).collect();
    assert_eq!(
        messages,
        [
            "the namespace tool-a exists without the label app.kubernetes.io/managed-by=hearth-accounts: it is left alone; delete it, or label it if it is the tool's",
            "the user number 0 is not between 50000 and 59999, see tools.first_uid and tools.last_uid",
        ]
    );
    assert_eq!(world.cluster.namespaces[&name("a")], before[&name("a")]);
    world.tool("c").uid = 50099;
    world.directory.tools.remove(&name("a"));
    let plan = world.plan();
    assert_eq!(plan.tools, BTreeMap::new());
    assert_eq!(
        plan.refused.last().unwrap().reason.to_string(),
        "the namespace tool-c is of user number 50003, the directory says 50099: it is left alone; delete it if it is that of an earlier tool of the name"
    );
}

#[test]
fn a_file_that_cannot_be_used_is_named_and_left() {
    let mut world = World::with_tools(&["a"]);
    let contents = Contents {
        kubeconfig: Kubeconfig::Unusable("its 'users' is not a list".to_owned()),
        credential: Credential::Unusable("it is not a JSON object".to_owned()),
    };
    world.cluster.homes.insert(name("a"), Home::Own(contents));
    let plan = world.settle();
    assert!(!World::kinds(&plan, "a").contains(&"issue-certificate"));
    let messages: Vec<String> = plan.refused.iter().map(|r| r.reason.to_string()).collect();
    assert_eq!(
        messages,
        [
            "the file /data/project/a/.kube/config is left alone: its 'users' is not a list; move it away to get a new one",
            "the file /data/project/a/.docker/config.json is left alone: it is not a JSON object; move it away to get a new one",
        ]
    );
}

#[test]
fn certificates_are_renewed_in_time_and_spread() {
    let mut world = World::with_tools(&["a", "b"]);
    world.settle();
    let certificate = |world: &mut World, tool: &str| match &world.contents(&name(tool)).kubeconfig {
        Kubeconfig::Present { certificate: Some(certificate), .. } => certificate.clone(),
        other => panic!("{other:?}"),
    };
    let days = |d: i64| SignedDuration::from_hours(24 * d);
    let (a, b) = (certificate(&mut world, "a"), certificate(&mut world, "b"));
    let (a, b) = (renewal(&name("a"), &a), renewal(&name("b"), &b));
    assert_ne!(a, b);
    for at in [a, b] {
        assert!(at > world.now + days(17) && at <= world.now + days(20), "{at}");
    }
    world.now += days(17);
    assert_eq!(world.settle(), Plan::default());
    world.now += days(3);
    assert_eq!(World::kinds(&world.settle(), "a"), ["issue-certificate"]);
    world.platform.api.server = "https://other.example".to_owned();
    assert_eq!(World::kinds(&world.settle(), "a"), ["issue-certificate"]);
}

#[test]
fn replacing_the_epoch_replaces_binding_and_certificate() {
    let mut world = World::with_tools(&["a"]);
    world.settle();
    world.corner("a").annotations.remove(names::annotation::EPOCH);
    let plan = world.settle();
    assert_eq!(World::kinds(&plan, "a"), ["apply-namespace", "apply-binding", "issue-certificate"]);
    world.corner("a").annotations.remove(names::annotation::REGISTRY_CREDENTIAL);
    assert_eq!(World::kinds(&world.settle(), "a"), ["write-credential", "apply-namespace"]);
    world.corner("a").binding.as_mut().unwrap().role.name = "cluster-admin".to_owned();
    assert_eq!(World::kinds(&world.settle(), "a"), ["delete-binding", "apply-binding"]);
}

/// Something that happens to the world.
#[derive(Clone, Debug)]
enum Event {
    Add(usize),
    Gone(usize),
    Disable(usize, i64),
    Enable(usize),
    Maintainer(usize, u8),
    Days(i64),
    LoseObject(usize, u8),
    LoseAnnotation(usize, usize),
    LoseLabel(usize),
    Terminating(usize),
    HomeIs(usize, u8),
    Foreign(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let tool = 0..5_usize;
    prop_oneof![
        4 => tool.clone().prop_map(Event::Add),
        1 => tool.clone().prop_map(Event::Gone),
        1 => (tool.clone(), 0..60_i64).prop_map(|(t, d)| Event::Disable(t, d)),
        1 => tool.clone().prop_map(Event::Enable),
        1 => (tool.clone(), 0..4_u8).prop_map(|(t, m)| Event::Maintainer(t, m)),
        1 => (0..50_i64).prop_map(Event::Days),
        1 => (tool.clone(), 0..4_u8).prop_map(|(t, o)| Event::LoseObject(t, o)),
        1 => (tool.clone(), 0..objects::ANNOTATIONS.len()).prop_map(|(t, a)| Event::LoseAnnotation(t, a)),
        1 => tool.clone().prop_map(Event::LoseLabel),
        1 => tool.clone().prop_map(Event::Terminating),
        1 => (tool.clone(), 0..7_u8).prop_map(|(t, h)| Event::HomeIs(t, h)),
        1 => tool.prop_map(Event::Foreign),
    ]
}

fn happen(world: &mut World, event: &Event) {
    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
    let state = |world: &World, days: i64| disabled(world, days);
    match *event {
        Event::Add(i) => world.add(NAMES[i], 50001 + u32::try_from(i).unwrap()),
        Event::Gone(i) => drop(world.directory.tools.remove(&name(NAMES[i]))),
        Event::Disable(i, days) => {
            let state = state(world, days);
            if let Some(tool) = world.directory.tools.get_mut(&name(NAMES[i])) {
                tool.state = state;
            }
        }
        Event::Enable(i) => {
            if let Some(tool) = world.directory.tools.get_mut(&name(NAMES[i])) {
                tool.state = ToolState::Active;
            }
        }
        Event::Maintainer(i, n) => {
            if let Some(tool) = world.directory.tools.get_mut(&name(NAMES[i])) {
                tool.maintainers.insert(format!("member{n}"));
            }
        }
        Event::Days(days) => world.now += SignedDuration::from_hours(24 * days),
        Event::HomeIs(i, what) => {
            let home = match what {
                0 => Home::Missing,
                1 => Home::Foreign(Foreign::NotADirectory),
                2 => Home::Foreign(Foreign::OwnedBy(0)),
                n => Home::Own(Contents {
                    kubeconfig: if n % 2 == 0 { Kubeconfig::Missing } else { Kubeconfig::Unusable("x".to_owned()) },
                    credential: if n > 4 { Credential::Other } else { Credential::Password("own".to_owned()) },
                }),
            };
            world.cluster.homes.insert(name(NAMES[i]), home);
        }
        Event::Foreign(i) => {
            let corner = Corner { uid: "foreign".to_owned(), ..Corner::default() };
            world.cluster.namespaces.entry(name(NAMES[i])).or_insert(corner);
        }
        Event::LoseObject(i, _) | Event::LoseAnnotation(i, _) | Event::LoseLabel(i) | Event::Terminating(i) => {
            let Some(corner) = world.cluster.namespaces.get_mut(&name(NAMES[i])) else { return };
            match *event {
                Event::LoseObject(_, 0) => corner.quota = None,
                Event::LoseObject(_, 1) => corner.limits = None,
                Event::LoseObject(_, 2) => corner.binding = None,
                Event::LoseObject(..) => corner.quota = Some(Default::default()),
                Event::LoseAnnotation(_, key) => drop(corner.annotations.remove(objects::ANNOTATIONS[key])),
                Event::LoseLabel(_) => drop(corner.labels.remove(names::label::TENANCY)),
                _ => corner.terminating = true,
            }
        }
    }
}

proptest! {
    #[test]
    fn applying_a_plan_leaves_nothing_to_do(history in proptest::collection::vec(event(), 1..40)) {
        let mut world = World::new();
        for event in &history {
            happen(&mut world, event);
            let before = world.cluster.clone();
            let ours = before.namespaces.values().filter(|corner| corner.is_ours()).count();
            let new = |tool: &&Tool| tool.state == ToolState::Active && !before.namespaces.contains_key(&tool.name);
            let total = ours + world.directory.tools.values().filter(new).count();
            let plan = world.settle();
            let deleted = plan.tools.values().filter(|a| matches!(a[0], Action::DeleteNamespace(_))).count();
            prop_assert!(deleted <= (total * 40 / 100).max(1));
            for (tool, corner) in &before.namespaces {
                if corner.uid == "foreign" || corner.terminating {
                    prop_assert_eq!(world.cluster.namespaces.get(tool), Some(corner));
                }
            }
            for (tool, home) in &before.homes {
                if matches!(home, Home::Foreign(_)) {
                    prop_assert_eq!(world.cluster.homes.get(tool), Some(home));
                }
            }
            for tool in world.directory.tools.values() {
                let Some(corner) = world.cluster.namespaces.get(&tool.name).filter(|c| !c.terminating) else { continue };
                let is_active = tool.state == ToolState::Active;
                prop_assert!(!corner.is_ours() || is_active == corner.binding.is_some());
            }
        }
    }
}

#[test]
fn refusals_name_their_tool() {
    let mut world = World::with_tools(&["a"]);
    world.cluster.namespaces.insert(name("a"), Corner::default());
    let plan = world.plan();
    assert_eq!(plan.refused[0].tool, Some(name("a")));
    assert!(matches!(plan.refused[0].reason, Reason::ForeignNamespace(_)));
}
