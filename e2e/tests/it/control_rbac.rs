//! What a tool may do by RBAC: every verb of every resource that the API server knows, compared with a table that was
//! reviewed. What its rights could be turned into is `control_escalation`'s.
//!
//! The walk asks the API server itself (`SubjectAccessReview`), so it sees what roles, bindings and the API server's
//! own defaults come to together. A new resource, or a right that somebody adds, fails here until it is in `rbac.yaml`.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use hearth_core::ToolName;
use hearth_core::account::owner::Owner;
use hearth_core::account::subject::{Epoch, Identity, Subject};
use hearth_core::account::{admins, objects};
use hearth_core::names::annotation;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::control_admission::stage;
use crate::control_escalation::{attempt, tried};
use crate::control_plane::ControlPlane;

/// The tool, and another that it must not reach.
pub(crate) const TOOL: &str = "rights";
const OTHER: &str = "beside";

/// The parts of `deploy/base` that say who may do what.
const ROLES: &[&str] = &[
    include_str!("../../../deploy/base/accounts.yaml"),
    include_str!("../../../deploy/base/admission.yaml"),
    include_str!("../../../deploy/base/coredns.yaml"),
    include_str!("../../../deploy/base/image-config.yaml"),
    include_str!("../../../deploy/base/namespaces.yaml"),
    include_str!("../../../deploy/base/proxy.yaml"),
    include_str!("../../../deploy/base/registry-auth.yaml"),
    include_str!("../../../deploy/base/signer.yaml"),
    include_str!("../../../deploy/base/tools-user.yaml"),
];

/// What was reviewed.
const TABLE: &str = include_str!("rbac.yaml");

/// Where each resource is asked about. The name of the place in the table, and the namespace; the empty one stands for
/// the cluster, and for all namespaces at once.
const PLACES: &[(&str, &str)] = &[
    ("own", "tool-rights"),
    ("other", "tool-beside"),
    ("platform", "hearth-system"),
    ("public", "hearth-public"),
    ("system", "kube-system"),
    ("cluster", ""),
];

/// Verbs that discovery does not list, because they are not done to objects.
const SPECIAL: &[&str] = &["*", "approve", "attest", "bind", "escalate", "impersonate", "sign", "use"];

/// Resources that exist for such verbs alone.
const VIRTUAL: &[(&str, &str)] = &[
    ("", "groups"),
    ("", "users"),
    ("authentication.k8s.io", "uids"),
    ("authentication.k8s.io", "userextras/scopes"),
    ("certificates.k8s.io", "signers"),
    ("*", "*"),
];

fn tool(name: &str) -> ToolName {
    name.parse().unwrap()
}

pub(crate) fn identity(name: &str) -> Identity {
    Identity { owner: tool(name).into(), epoch: Epoch::of([7; 16]) }
}

/// An administrator whose rights are bound, and the same with an epoch that is over.
fn administrators() -> [Identity; 2] {
    [7, 8].map(|byte| Identity { owner: Owner::Admin("ada".parse().unwrap()), epoch: Epoch::of([byte; 16]) })
}

/// The control plane with policies, roles and two tools.
pub(crate) async fn rights() -> &'static ControlPlane {
    static READY: OnceCell<()> = OnceCell::const_new();
    let plane = stage().await;
    READY.get_or_init(|| set_up(plane)).await;
    plane
}

async fn set_up(plane: &ControlPlane) {
    let admin = plane.admin().await;
    for namespace in ["hearth-system", "hearth-public"] {
        apply(&admin, &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } })).await;
    }
    for (name, uid) in [(TOOL, "50140"), (OTHER, "50141")] {
        let identity = identity(name);
        plane.namespace(&tool(name).namespace(), &[(annotation::UID, uid)]).await.unwrap();
        apply(&admin, &serde_json::to_value(objects::binding(&tool(name), &identity.epoch)).unwrap()).await;
    }
    let [current, _] = administrators();
    for binding in admins::bindings(&current) {
        apply(&admin, &serde_json::to_value(binding).unwrap()).await;
    }
    // What a controller does, of which there is none here.
    let role = |name: &str| format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}");
    let parts = http::Request::get(role("system:aggregate-to-view")).body(Vec::new()).unwrap();
    let rules = admin.request::<Value>(parts).await.unwrap()["rules"].take();
    let rules = serde_json::to_vec(&json!({ "rules": rules })).unwrap();
    let view = http::Request::patch(role("view")).header("content-type", "application/merge-patch+json");
    admin.request::<Value>(view.body(rules).unwrap()).await.unwrap();
    for document in ROLES.iter().flat_map(|text| text.split("\n---\n")) {
        let object: Value = serde_saphyr::from_str(document).unwrap();
        if object["apiVersion"] == "rbac.authorization.k8s.io/v1" {
            apply(&admin, &object).await;
        }
    }
}

pub(crate) async fn apply(admin: &Client, object: &Value) {
    let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let version = text("/apiVersion");
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &text("/kind")));
    let api: Api<DynamicObject> = match text("/metadata/namespace") {
        namespace if namespace.is_empty() => Api::all_with(admin.clone(), &resource),
        namespace => Api::namespaced_with(admin.clone(), &namespace, &resource),
    };
    let params = PatchParams::apply("tests").force();
    let applied = api.patch(&text("/metadata/name"), &params, &Patch::Apply(object)).await;
    applied.unwrap_or_else(|error| panic!("{}: {error}", text("/metadata/name")));
}

/// A resource as RBAC knows it: `deployments.apps`, `pods/exec`.
fn named(group: &str, resource: &str) -> String {
    match (group, resource.split_once('/')) {
        ("", _) => resource.to_owned(),
        (group, None) => format!("{resource}.{group}"),
        (group, Some((resource, sub))) => format!("{resource}.{group}/{sub}"),
    }
}

/// Every resource that discovery lists and the virtual ones, with their verbs, and whether it is in namespaces.
async fn resources(admin: &Client) -> BTreeMap<(String, String), (bool, BTreeSet<String>)> {
    let mut lists = vec![(String::new(), admin.list_core_api_resources("v1").await.unwrap())];
    for group in admin.list_api_groups().await.unwrap().groups {
        for version in &group.versions {
            lists.push((group.name.clone(), admin.list_api_group_resources(&version.group_version).await.unwrap()));
        }
    }
    let mut all: BTreeMap<(String, String), (bool, BTreeSet<String>)> = BTreeMap::new();
    for (group, list) in lists {
        for resource in list.resources {
            // A namespace is asked about as being in itself.
            let itself = group.is_empty() && resource.name.split('/').next() == Some("namespaces");
            let (namespaced, verbs) = all.entry((group.clone(), resource.name)).or_default();
            *namespaced |= resource.namespaced || itself;
            verbs.extend(resource.verbs);
        }
    }
    for (group, resource) in VIRTUAL {
        all.entry(((*group).to_owned(), (*resource).to_owned())).or_insert((true, BTreeSet::new()));
    }
    for (_, verbs) in all.values_mut() {
        verbs.extend(SPECIAL.iter().map(|&verb| verb.to_owned()));
    }
    all
}

/// Whether the tool may, as the API server says.
async fn may(admin: &Client, attributes: Value) -> bool {
    allowed(admin, &identity(TOOL).subject(), attributes).await
}

/// Whether whoever has a certificate of this subject may.
async fn allowed(admin: &Client, subject: &Subject, attributes: Value) -> bool {
    let groups: Vec<&str> = subject.organizations.iter().map(String::as_str).chain(["system:authenticated"]).collect();
    let mut spec = json!({ "user": subject.common_name, "groups": groups });
    spec.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
    let review: SubjectAccessReview = serde_json::from_value(json!({ "spec": spec })).unwrap();
    let answer = Api::all(admin.clone()).create(&PostParams::default(), &review).await.unwrap();
    answer.status.unwrap().allowed
}

/// Everything that a tool may do, as the table writes it: place, resource, verbs.
async fn walk(admin: &Client) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut questions = Vec::new();
    for ((group, resource), (namespaced, verbs)) in resources(admin).await {
        for (place, namespace) in PLACES.iter().filter(|(_, namespace)| namespaced || namespace.is_empty()) {
            for verb in &verbs {
                questions.push((*place, *namespace, group.clone(), resource.clone(), verb.clone()));
            }
        }
    }
    assert!(questions.len() > 5_000, "only {} questions: discovery is not complete", questions.len());
    let answers = stream::iter(questions).map(|(place, namespace, group, resource, verb)| async move {
        let (name, sub) = resource.split_once('/').unwrap_or((&resource, ""));
        let attributes = json!({ "resourceAttributes": {
            "namespace": namespace, "group": group, "resource": name, "subresource": sub, "verb": verb,
        }});
        may(admin, attributes).await.then(|| (place, named(&group, &resource), verb))
    });
    let mut found: BTreeMap<String, BTreeMap<String, String>> =
        PLACES.iter().map(|(place, _)| ((*place).to_owned(), BTreeMap::new())).collect();
    let allowed: BTreeSet<_> = answers.buffer_unordered(16).filter_map(std::future::ready).collect().await;
    for (place, resource, verb) in allowed {
        let verbs = found.get_mut(place).unwrap().entry(resource).or_default();
        *verbs = format!("{verbs} {verb}").trim().to_owned();
    }
    found
}

/// Lines of one that the other lacks.
fn lacking(one: &Value, two: &Value, sign: char) -> Vec<String> {
    let mut lines = Vec::new();
    for (place, resources) in one.as_object().unwrap() {
        for (resource, verbs) in resources.as_object().into_iter().flatten() {
            if two[place][resource] != *verbs {
                lines.push(format!("{sign} {place}: {resource}: {}", verbs.as_str().unwrap_or_default()));
            }
        }
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_may_do_what_was_reviewed_and_nothing_else() {
    let admin = rights().await.admin().await;
    let found = serde_json::to_value(walk(&admin).await).unwrap();
    let table: Value = serde_saphyr::from_str(TABLE).unwrap();
    let mut difference = lacking(&table["resources"], &found, '-');
    difference.extend(lacking(&found, &table["resources"], '+'));
    difference.sort_by_key(|line| line.get(2..).map(str::to_owned));
    assert!(
        difference.is_empty(),
        "a tool's rights are not those of rbac.yaml (- is only in the table, + only in the cluster):\n{}",
        difference.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_reads_what_was_reviewed_beside_resources() {
    let admin = rights().await.admin().await;
    let root: Value = admin.request(http::Request::get("/").body(Vec::new()).unwrap()).await.unwrap();
    let listed = root["paths"].as_array().unwrap().iter().map(|path| path.as_str().unwrap());
    let others = ["/", "/logs", "/metrics/slis", "/debug/pprof/", "/debug/flags/v", "/configz", "/statusz", "/flagz"];
    let paths: BTreeSet<&str> = listed.chain(others).collect();
    let table: Value = serde_saphyr::from_str(TABLE).unwrap();
    let reviewed: Vec<&str> = table["paths"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    let is_reviewed = |path: &str| {
        reviewed.iter().any(|known| match known.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            None => path == *known,
        })
    };
    let mut wrong = Vec::new();
    for path in paths {
        for verb in ["get", "post", "put", "patch", "delete"] {
            let allowed = may(&admin, json!({ "nonResourceAttributes": { "path": path, "verb": verb } })).await;
            if allowed != (verb == "get" && is_reviewed(path)) {
                wrong.push(format!("{verb} {path}: {}", if allowed { "allowed" } else { "refused" }));
            }
        }
    }
    assert!(wrong.is_empty(), "not as in rbac.yaml:\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_looks_and_acts_as_somebody_else_and_loses_both() {
    let plane = rights().await;
    let admin = plane.admin().await;
    let [current, over] = administrators();
    let asked = [
        ("list", "", "pods", true),
        ("get", "", "pods/log", true),
        ("list", "networking.k8s.io", "ingresses", true),
        ("impersonate", "", "users", true),
        ("impersonate", "", "groups", true),
        ("get", "", "secrets", false),
        ("create", "", "pods", false),
        ("create", "", "pods/exec", false),
        ("delete", "", "namespaces", false),
        ("create", "rbac.authorization.k8s.io", "clusterrolebindings", false),
        ("create", "certificates.k8s.io", "certificatesigningrequests", false),
    ];
    for (verb, group, resource, expected) in asked {
        let (name, sub) = resource.split_once('/').unwrap_or((resource, ""));
        let attributes = json!({ "resourceAttributes": {
            "namespace": "tool-rights", "verb": verb, "group": group, "resource": name, "subresource": sub,
        }});
        let found = allowed(&admin, &current.subject(), attributes.clone()).await;
        assert_eq!(found, expected, "{verb} {resource}");
        assert!(!allowed(&admin, &over.subject(), attributes.clone()).await, "{verb} {resource}, the epoch is over");
        let bare = Subject { organizations: vec!["admins".to_owned()], ..current.subject() };
        assert!(!allowed(&admin, &bare, attributes).await, "{verb} {resource}, the group of all administrators");
    }
    // All power is had by saying so.
    let secrets = "/api/v1/namespaces/tool-rights/secrets";
    let ada = plane.certified(&current.subject()).await;
    assert_eq!(tried(&ada, &attempt("to read", "GET", secrets, Value::Null)).await.0, 403);
    let instead = |who: &Identity| who.owner.to_string();
    let request = || {
        let request = http::Request::get(secrets).header("impersonate-user", instead(&current));
        request.header("impersonate-group", "system:masters").body(Vec::new()).unwrap()
    };
    ada.request_text(request()).await.unwrap();
    let former = plane.certified(&over.subject()).await;
    assert!(former.request_text(request()).await.is_err());
}

#[test]
fn an_observer_only_looks_and_not_into_things() {
    let documents = ROLES.iter().flat_map(|text| text.split("\n---\n"));
    let mut roles = documents.map(|document| serde_saphyr::from_str::<Value>(document).unwrap());
    let role = roles.find(|role| role["metadata"]["name"] == "tool-observer" && role["kind"] == "ClusterRole").unwrap();
    for rule in role["rules"].as_array().unwrap() {
        assert_eq!(rule["verbs"], json!(["get", "list", "watch"]), "{rule}");
        for resource in rule["resources"].as_array().unwrap() {
            let resource = resource.as_str().unwrap();
            let (name, sub) = resource.split_once('/').unwrap_or((resource, ""));
            assert!(!resource.contains('*') && !["secrets", "configmaps"].contains(&name), "{resource}");
            assert!(["", "status", "scale"].contains(&sub), "{resource}");
        }
    }
}
