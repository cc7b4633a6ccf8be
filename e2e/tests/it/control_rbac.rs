//! What a tool may do by RBAC: every verb of every resource that the API server knows, compared with a table that was
//! reviewed; and what its rights could be turned into, tried with its own certificate.
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
use kube::{Api, Client, Error};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::control_admission::stage;
use crate::control_plane::ControlPlane;

/// The tool, and another that it must not reach.
const TOOL: &str = "rights";
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

fn identity(name: &str) -> Identity {
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

/// Something that a tool might try: why it would be a gain, and the request.
pub(crate) struct Attempt {
    pub(crate) why: &'static str,
    method: &'static str,
    path: String,
    body: Value,
    /// Who to be instead, as a header says.
    instead: Option<(&'static str, &'static str)>,
}

pub(crate) fn attempt(why: &'static str, method: &'static str, path: impl Into<String>, body: Value) -> Attempt {
    Attempt { why, method, path: path.into(), body, instead: None }
}

fn impersonation() -> impl Iterator<Item = Attempt> {
    let whom = [
        ("an administrator", ("impersonate-user", "admin:ada")),
        ("the signer", ("impersonate-user", "system:serviceaccount:hearth-system:signer")),
        ("the own service account", ("impersonate-user", "system:serviceaccount:tool-rights:default")),
        ("another tool", ("impersonate-user", "tool:beside")),
        ("the node", ("impersonate-user", "system:node:node")),
    ];
    whom.into_iter().map(|(why, header)| Attempt {
        instead: Some(header),
        ..attempt(why, "GET", "/api/v1/namespaces/tool-rights/pods", Value::Null)
    })
}

/// Rights that would make rights.
fn escalations() -> Vec<Attempt> {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let own = format!("{rbac}/namespaces/tool-rights");
    let role = json!({ "kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io" });
    let me = json!([{ "kind": "User", "name": "tool:rights", "apiGroup": "rbac.authorization.k8s.io" }]);
    let rules = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
    let binding = |kind: &str| {
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": { "name": "more" },
                "roleRef": role, "subjects": me })
    };
    let token = |account: &str| {
        json!({ "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
                "metadata": { "name": "token", "annotations": { "kubernetes.io/service-account.name": account } } })
    };
    let request = json!({ "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": { "name": "more" },
        "spec": { "request": "", "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"] } });
    let csr = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let ask = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "audiences": [] } });
    vec![
        attempt("a role", "POST", format!("{own}/roles"), json!({ "metadata": { "name": "more" }, "rules": rules })),
        attempt("a binding", "POST", format!("{own}/rolebindings"), binding("RoleBinding")),
        attempt(
            "another subject",
            "PATCH",
            format!("{own}/rolebindings/rights-tool-binding"),
            json!({ "subjects": me }),
        ),
        attempt("more for all tools", "PATCH", format!("{rbac}/clusterroles/tools-user"), json!({ "rules": rules })),
        attempt("all", "POST", format!("{rbac}/clusterrolebindings"), binding("ClusterRoleBinding")),
        attempt("a token that never ends", "POST", "/api/v1/namespaces/tool-rights/secrets", token("default")),
        attempt("the platform's token", "POST", "/api/v1/namespaces/hearth-system/secrets", token("signer")),
        attempt("a token", "POST", "/api/v1/namespaces/tool-rights/serviceaccounts/default/token", ask.clone()),
        attempt("a controller's token", "POST", "/api/v1/namespaces/kube-system/serviceaccounts/x/token", ask),
        attempt(
            "an account",
            "POST",
            "/api/v1/namespaces/tool-rights/serviceaccounts",
            json!({ "metadata": { "name": "more" } }),
        ),
        attempt("a certificate", "POST", csr, request.clone()),
        attempt("its approval", "PUT", format!("{csr}/more/approval"), request.clone()),
        attempt("its signature", "PUT", format!("{csr}/more/status"), request),
    ]
}

/// What bounds the tool, out of its way.
fn bounds() -> Vec<Attempt> {
    let patch = json!({ "metadata": { "annotations": { annotation::UID: "50141" } } });
    vec![
        attempt("another number", "PATCH", "/api/v1/namespaces/tool-rights", patch),
        attempt("a namespace", "POST", "/api/v1/namespaces", json!({ "metadata": { "name": "tool-more" } })),
        attempt("no namespace", "DELETE", "/api/v1/namespaces/tool-rights", Value::Null),
        attempt("no quota", "DELETE", "/api/v1/namespaces/tool-rights/resourcequotas/tool-rights", Value::Null),
        attempt("no limits", "DELETE", "/api/v1/namespaces/tool-rights/limitranges/tool-rights", Value::Null),
        attempt(
            "no policies",
            "DELETE",
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/hearth-tool-pods",
            Value::Null,
        ),
        attempt(
            "no bindings of policies",
            "DELETE",
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/hearth-tool-pods",
            Value::Null,
        ),
        attempt(
            "a webhook",
            "POST",
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
            json!({ "metadata": { "name": "more" } }),
        ),
        attempt(
            "an API",
            "POST",
            "/apis/apiregistration.k8s.io/v1/apiservices",
            json!({ "metadata": { "name": "v1.more" } }),
        ),
        attempt(
            "a kind",
            "POST",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            json!({ "metadata": { "name": "more" } }),
        ),
    ]
}

/// Ways into what others run and keep.
fn ways_in() -> Vec<Attempt> {
    let get = |why, path: &str| attempt(why, "GET", path, Value::Null);
    vec![
        get("a shell of the platform's", "/api/v1/namespaces/hearth-system/pods/signer/exec?command=sh&stdout=true"),
        get("a shell of another tool's", "/api/v1/namespaces/tool-beside/pods/web/exec?command=sh&stdout=true"),
        get("a program of another tool's", "/api/v1/namespaces/tool-beside/pods/web/attach?stdout=true"),
        get("a port of another tool's", "/api/v1/namespaces/tool-beside/pods/web/portforward?ports=8000"),
        get("what another tool writes", "/api/v1/namespaces/tool-beside/pods/web/log"),
        get("the kubelet", "/api/v1/nodes/node/proxy/pods"),
        get("the node's files", "/api/v1/nodes/node/proxy/logs/"),
        get("the own pod through the API server", "/api/v1/namespaces/tool-rights/pods/web/proxy/"),
        get("a service of the platform's", "/api/v1/namespaces/hearth-system/services/https:registry:443/proxy/"),
        get("another tool's secrets", "/api/v1/namespaces/tool-beside/secrets"),
        get("the platform's secrets", "/api/v1/namespaces/hearth-system/secrets"),
        get("everybody's secrets", "/api/v1/secrets"),
        get("everybody's pods", "/api/v1/pods"),
        get("the nodes", "/api/v1/nodes"),
        get("the API server's figures", "/metrics"),
        attempt(
            "a container in another's pod",
            "PATCH",
            "/api/v1/namespaces/tool-beside/pods/web/ephemeralcontainers",
            json!({ "spec": {} }),
        ),
        attempt("another's pod away", "DELETE", "/api/v1/namespaces/tool-beside/pods/web", Value::Null),
        attempt(
            "a place on a node",
            "POST",
            "/api/v1/namespaces/tool-rights/pods/web/binding",
            json!({ "metadata": { "name": "web" }, "target": { "name": "node" } }),
        ),
        attempt(
            "a status",
            "PATCH",
            "/api/v1/namespaces/tool-rights/pods/web/status",
            json!({ "status": { "phase": "Running" } }),
        ),
        attempt(
            "another's list of types",
            "PATCH",
            "/api/v1/namespaces/hearth-public/configmaps/image-config",
            json!({ "data": {} }),
        ),
        attempt(
            "a leader's place",
            "POST",
            "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases",
            json!({ "metadata": { "name": "more" } }),
        ),
    ]
}

/// Workloads for which a controller with more rights would do something.
fn workloads() -> Vec<Attempt> {
    let apps = "/apis/apps/v1/namespaces/tool-rights";
    let labels = json!({ "name": "a" });
    let workload = |kind: &str, spec: Value| {
        let containers = json!([{ "name": "a", "image": "registry.hearth.internal/a" }]);
        let mut object = json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": "deputy" }, "spec": {
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": containers } },
        }});
        object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        object
    };
    let claim = json!({ "metadata": { "name": "d" }, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
    let set = workload("StatefulSet", json!({ "serviceName": "a", "volumeClaimTemplates": [claim.clone()] }));
    let mut account = workload("Deployment", json!({}));
    account["spec"]["template"]["spec"]["serviceAccountName"] = "deployer".into();
    let many = json!({ "spec": { "replicas": 101 } });
    let claims = "/api/v1/namespaces/tool-rights/persistentvolumeclaims";
    vec![
        attempt("the controller of StatefulSets", "POST", format!("{apps}/statefulsets"), set),
        attempt("a provisioner", "POST", claims, claim),
        attempt("the controller of Deployments", "POST", format!("{apps}/deployments"), account),
        attempt("the controller of DaemonSets", "POST", format!("{apps}/daemonsets"), workload("DaemonSet", json!({}))),
        attempt("pods beside the workload", "PATCH", format!("{apps}/deployments/scaled/scale"), many),
    ]
}

/// What other controllers with more rights would do for the tool.
fn deputies() -> Vec<Attempt> {
    let addresses = json!({ "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": "a" },
        "subsets": [{ "addresses": [{ "ip": "10.244.0.9" }], "ports": [{ "port": 8000 }] }] });
    let slice = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": { "name": "a" },
        "addressType": "IPv4", "endpoints": [{ "addresses": ["10.244.0.9"] }] });
    let stay = json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "stay", "finalizers": ["example.org/stay"] } });
    let network = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "open" }, "spec": { "podSelector": {}, "ingress": [{}] } });
    let budget = json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "hold" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "name": "a" } } } });
    let scaler = json!({ "metadata": { "name": "a" } });
    let address = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "address" },
        "spec": { "clusterIP": "10.96.66.66", "ports": [{ "port": 80 }] } });
    let core = |name: &str| format!("/api/v1/namespaces/tool-rights/{name}");
    let of = |group: &str, name: &str| format!("/apis/{group}/namespaces/tool-rights/{name}");
    vec![
        attempt("the mirroring controller", "POST", core("endpoints"), addresses),
        attempt("kube-proxy and the front door", "POST", of("discovery.k8s.io/v1", "endpointslices"), slice),
        attempt("the controller of namespaces", "POST", core("configmaps"), stay),
        attempt("the network", "POST", of("networking.k8s.io/v1", "networkpolicies"), network),
        attempt("whoever empties a node", "POST", of("policy/v1", "poddisruptionbudgets"), budget),
        attempt("the autoscaler", "POST", of("autoscaling/v2", "horizontalpodautoscalers"), scaler),
        attempt("kube-proxy, for an address that others had", "POST", core("services"), address),
    ]
}

/// The status that an attempt meets, and what it says.
pub(crate) async fn tried(client: &Client, attempt: &Attempt) -> (u16, String) {
    let mut request = http::Request::builder().method(attempt.method).uri(&attempt.path);
    let kind = if attempt.method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    request = request.header("content-type", kind);
    if let Some((header, value)) = attempt.instead {
        request = request.header(header, value);
    }
    let body = if attempt.body.is_null() { Vec::new() } else { serde_json::to_vec(&attempt.body).unwrap() };
    match client.request_text(request.body(body).unwrap()).await {
        Ok(text) => (200, text),
        Err(Error::Api(status)) => (status.code, status.message.clone()),
        Err(error) => (0, error.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tools_rights_cannot_be_turned_into_others() {
    let plane = rights().await;
    let client = plane.certified(&identity(TOOL).subject()).await;
    // It is the tool that tries: what it may do, it can.
    let own = "/api/v1/namespaces/tool-rights";
    let deployment = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "scaled" }, "spec": {
        "replicas": 0, "selector": { "matchLabels": { "name": "a" } },
        "template": { "metadata": { "labels": { "name": "a" } },
                      "spec": { "containers": [{ "name": "a", "image": "registry.hearth.internal/a" }] } },
    }});
    let deployments = "/apis/apps/v1/namespaces/tool-rights/deployments";
    let allowed = [
        attempt("to look", "GET", format!("{own}/pods"), Value::Null),
        attempt(
            "to keep",
            "POST",
            format!("{own}/configmaps"),
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "mine" } }),
        ),
        attempt(
            "to keep secret",
            "POST",
            format!("{own}/secrets"),
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "mine" } }),
        ),
        attempt("to run", "POST", deployments, deployment),
        attempt("to run more", "PATCH", format!("{deployments}/scaled/scale"), json!({ "spec": { "replicas": 3 } })),
    ];
    for attempt in &allowed {
        let (code, text) = tried(&client, attempt).await;
        assert_eq!(code, 200, "{}: {} {}: {text}", attempt.why, attempt.method, attempt.path);
    }
    let mut got = Vec::new();
    let attempts = escalations().into_iter().chain(bounds()).chain(ways_in()).chain(workloads()).chain(deputies());
    let attempts = attempts.chain(impersonation());
    for attempt in attempts {
        let (code, text) = tried(&client, &attempt).await;
        // An address is refused by a policy that fails, which is another answer than a refusal.
        if code != 403 && !text.contains("the cluster gives addresses") {
            got.push(format!("{}: {} {}: {code} {text}", attempt.why, attempt.method, attempt.path));
        }
    }
    assert!(got.is_empty(), "not refused:\n{}", got.join("\n"));
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
