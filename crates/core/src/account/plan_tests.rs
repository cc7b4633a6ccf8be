//! Plans against a model of the cluster: what is planned is applied to the model, and planned again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use proptest::prelude::*;

use super::objects;
use super::plan::{Action, Fresh, Given, Password, Plan, Reason, Refused, Was, plan, plan_for, renewal};
use super::quotas::Quotas;
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
    quotas: Quotas,
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
            quotas: Quotas::default(),
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
        let given = Given { platform: &self.platform, quotas: &self.quotas, api_ca: CA, now: self.now };
        plan(&self.directory, &self.cluster, given, &mut self.fresh)
    }

    /// Checks that a plan for some tools is that part of the whole plan.
    fn agrees_in_part(&mut self, tools: &BTreeSet<ToolName>) {
        let given = Given { platform: &self.platform, quotas: &self.quotas, api_ca: CA, now: self.now };
        let part = plan_for(tools, &self.directory, &self.cluster, given, &mut self.fresh);
        let whole = self.plan();
        let of_none = |refused: &&Refused| refused.tool.is_none();
        assert!(part.refused.iter().filter(of_none).eq(whole.refused.iter().filter(of_none)));
        for tool in tools {
            assert_eq!(Self::kinds(&part, tool.as_str()), Self::kinds(&whole, tool.as_str()));
            let of_it = |refused: &&Refused| refused.tool.as_ref() == Some(tool);
            assert!(part.refused.iter().filter(of_it).eq(whole.refused.iter().filter(of_it)));
        }
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
        let corner = self.cluster.namespaces.get_mut(tool);
        match action {
            Action::CreateNamespace(object) => {
                assert!(corner.is_none(), "{tool} exists");
                self.namespaces_made += 1;
                let corner = Corner {
                    uid: format!("uid-{}", self.namespaces_made),
                    labels: Arc::new(object.metadata.labels.clone().unwrap()),
                    ..Corner::default()
                };
                self.cluster.namespaces.insert(tool.clone(), corner);
            }
            Action::ApplyNamespace(object) => apply_namespace(corner.unwrap(), object),
            Action::ApplyQuota(object, was) => {
                let corner = corner.unwrap();
                assert_eq!(*was == Was::Ours, corner.quota.is_some());
                corner.quota = object.spec.clone().map(Arc::new);
            }
            Action::ApplyLimits(object, _) => corner.unwrap().limits = object.spec.clone().map(Arc::new),
            Action::ApplyBinding(object, _) => {
                let subjects = object.subjects.clone().unwrap();
                corner.unwrap().binding = Some(Arc::new(Binding { role: object.role_ref.clone(), subjects }));
            }
            Action::DeleteBinding(_) => corner.unwrap().binding = None,
            Action::Stop => assert!(corner.unwrap().binding.is_none(), "{tool} could start things again"),
            Action::Start => (),
            Action::MakeHome(_) => {
                let contents = Contents { kubeconfig: Kubeconfig::Missing, credential: Credential::Missing };
                self.cluster.homes.insert(tool.clone(), Home::Own(contents));
            }
            Action::IssueCertificate { identity, .. } => self.certify(tool, identity),
            Action::WriteCredential { password, .. } => {
                self.contents(tool).credential = Credential::Password(password.sha256.clone());
            }
            Action::ArchiveHome(_) => {
                assert!(corner.unwrap().binding.is_none(), "{tool} could be at work in it");
                if let Some(home @ Home::Own(_)) = self.cluster.homes.get_mut(tool) {
                    *home = Home::Missing;
                }
            }
            Action::DeleteNamespace(uid) => {
                assert_eq!(corner.unwrap().uid, *uid);
                self.cluster.namespaces.remove(tool);
            }
        }
    }

    fn certify(&mut self, tool: &ToolName, identity: &Identity) {
        let corner = &self.cluster.namespaces[tool];
        assert_eq!(corner.annotation(names::annotation::EPOCH), Some(identity.epoch.as_str()));
        assert_eq!(corner.annotation(names::annotation::STATE), Some("active"));
        let server = super::kubeconfig::Server {
            url: self.platform.api.server.clone(),
            tls_name: self.platform.api.name.clone(),
            ca: CA.to_owned(),
        };
        let certificate = Certificate {
            subject: identity.subject(),
            not_before: self.now,
            not_after: self.now + SignedDuration::from_hours(24 * 30),
        };
        self.contents(tool).kubeconfig = Kubeconfig::Present { server: Some(server), certificate: Some(certificate) };
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
    Arc::make_mut(&mut corner.annotations).retain(|key, _| !objects::ANNOTATIONS.contains(&key.as_str()));
    Arc::make_mut(&mut corner.annotations).extend(annotations);
    Arc::make_mut(&mut corner.labels).extend(object.metadata.labels.clone().unwrap());
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
    let identity = Identity {
        owner: name("a").into(),
        epoch: corner.annotation(names::annotation::EPOCH).unwrap().parse().unwrap(),
    };
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
    assert!(matches!(world.cluster.homes[&name("b")], Home::Own(_)), "its entry may be forgotten by mistake");
    assert!(world.cluster.namespaces.contains_key(&name("a")));
    world.tool("a").state = disabled(&world, 41);
    assert_eq!(World::kinds(&world.settle(), "a"), ["archive-home", "delete-namespace"]);
    // One that is to be gone at once is stopped first all the same, and enabling it later makes it anew.
    world.tool("c").state = ToolState::Disabled { since: "0000-01-01T00:00:00Z".parse().unwrap() };
    let plan = world.settle();
    assert_eq!(World::kinds(&plan, "c"), ["delete-binding", "stop", "archive-home", "delete-namespace"]);
    world.tool("c").state = ToolState::Active;
    assert!(World::kinds(&world.settle(), "c").contains(&"make-home"));
    world.add("b", 50009);
    let before = world.fresh.0;
    world.cluster.homes.insert(name("b"), Home::Foreign(Foreign::OwnedBy(50002)));
    let plan = world.settle();
    assert!(world.fresh.0 > before, "a tool made again gets another epoch");
    assert_eq!(
        plan.refused[0].reason.to_string(),
        "the home /data/project/b is owned by user number 50002, not 50009: it is left alone, and gets no credentials; move it away or correct its owner"
    );
}

/// More than are always allowed, and more than the test's share of them.
const MANY: [&str; 15] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o"];

#[test]
fn a_short_or_empty_directory_deletes_nothing() {
    let mut world = World::with_tools(&MANY);
    world.settle();
    let all = world.directory.clone();
    for tool in MANY.iter().take(7) {
        world.directory.tools.remove(&name(tool));
    }
    let plan = world.settle();
    assert_eq!(
        plan.refused[0].reason.to_string(),
        "7 of 15 tools are to be deleted or disabled, at most 6 may be in one pass: none is; if this is meant, raise tools.deletion_share_percent"
    );
    assert_eq!(world.cluster.namespaces.len(), 15);
    world.directory.tools.clear();
    let plan = world.settle();
    assert_eq!(
        plan.refused[0].reason.to_string(),
        "the directory lists no tool at all, while 15 have a namespace: none is deleted"
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
fn a_directory_that_disables_many_at_once_stops_nothing() {
    let mut world = World::with_tools(&MANY);
    world.settle();
    for tool in MANY.iter().take(6) {
        world.tool(tool).state = disabled(&world, 1);
    }
    let plan = world.settle();
    assert_eq!(World::kinds(&plan, "a"), ["delete-binding", "apply-namespace", "stop", "apply-namespace"]);
    for tool in MANY.iter().skip(6).take(7) {
        world.tool(tool).state = disabled(&world, 1);
    }
    let plan = world.settle();
    assert_eq!(plan.tools, BTreeMap::new());
    assert!(plan.refused[0].reason.to_string().starts_with("7 of 15 tools are to be deleted or disabled"));
    // Those that are disabled already do not count, and what else there is to do is done.
    world.add("p", 50030);
    assert_eq!(World::kinds(&world.settle(), "p").first(), Some(&"create-namespace"));
    world.tool("g").state = ToolState::Active;
    let plan = world.settle();
    assert_eq!(plan.refused, []);
    assert_eq!(plan.tools.len(), 6);
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
    let (a, b) = (renewal(&name("a").into(), &a), renewal(&name("b").into(), &b));
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
    Arc::make_mut(&mut world.corner("a").annotations).remove(names::annotation::EPOCH);
    let plan = world.settle();
    assert_eq!(World::kinds(&plan, "a"), ["apply-namespace", "apply-binding", "issue-certificate"]);
    Arc::make_mut(&mut world.corner("a").annotations).remove(names::annotation::REGISTRY_CREDENTIAL);
    assert_eq!(World::kinds(&world.settle(), "a"), ["write-credential", "apply-namespace"]);
    Arc::make_mut(world.corner("a").binding.as_mut().unwrap()).role.name = "cluster-admin".to_owned();
    assert_eq!(World::kinds(&world.settle(), "a"), ["delete-binding", "apply-binding"]);
}

#[test]
fn a_tools_own_quota_is_applied_and_taken_back() {
    let mut world = World::with_tools(&["a", "b"]);
    world.settle();
    let text = "[a]\nwhy = \"dumps\"\nquota = { pods = \"20\" }\ncontainer = { memory = \"8Gi\" }";
    world.quotas = Quotas::from_toml(text).unwrap();
    let plan = world.settle();
    assert_eq!(World::kinds(&plan, "a"), ["apply-limits", "apply-quota"]);
    assert_eq!(World::kinds(&plan, "b"), [""; 0]);
    world.quotas = Quotas::default();
    assert_eq!(World::kinds(&world.settle(), "a"), ["apply-limits", "apply-quota"]);
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
    let tool = 0..9_usize;
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
    const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
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
                Event::LoseAnnotation(_, key) => {
                    drop(Arc::make_mut(&mut corner.annotations).remove(objects::ANNOTATIONS[key]))
                }
                Event::LoseLabel(_) => drop(Arc::make_mut(&mut corner.labels).remove(names::label::TENANCY)),
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
            world.agrees_in_part(&["a", "c", "e"].map(name).into());
            let plan = world.settle();
            let is_removed = |tool: &ToolName| {
                let is_there = |world: &ClusterState| world.namespaces.get(tool).is_some_and(|c| c.binding.is_some());
                let is_meant = world.directory.tools.get(tool).is_none_or(|tool| tool.state != ToolState::Active);
                is_meant && is_there(&before) && !is_there(&world.cluster)
            };
            let removed = plan.tools.keys().filter(|tool| is_removed(tool)).count();
            prop_assert!(removed <= (total * 40 / 100).max(5));
            let too_many = plan.refused.iter().any(|r| matches!(r.reason, Reason::TooManyRemovals { .. }));
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
                prop_assert!(!corner.is_ours() || too_many || is_active == corner.binding.is_some());
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
