//! `hearth conformance` against real API servers: nothing is possible for a tool of Hearth, and every attempt is
//! possible where nothing forbids it, so that none is refused for a fault of its own. The same attempts by the rules
//! of the article and by Pod Security with plain RBAC make the table of `docs/conformance.md`.
#![expect(clippy::print_stderr, reason = "what is inconclusive, and why, is to be read in the test's output")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use hearth_core::ToolName;
use hearth_core::account::objects;
use hearth_core::account::quotas::Quotas;
use hearth_core::account::subject::{Epoch, Identity};
use hearth_core::names::annotation;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Error};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::control_admission::{register, stage};
use crate::control_plane::{ControlPlane, start};

/// How long the API server may take to act on new rules.
const EFFECT: Duration = Duration::from_secs(60);

/// What no credentials can do in the test's control plane, which has no controllers and serves only Kubernetes' own
/// APIs; or what Kubernetes itself never lets anybody do.
const NOT_POSSIBLE_ANYWHERE: &[&str] = &[
    // The namespace would have to carry a label of the operator's.
    "claim-devices-as-administrator",
    // The API server drops the field unless a feature is switched on.
    "claim-from-another-namespace",
    // The Gateway API is not served.
    "own-gateway",
    "route-to-another-host",
    // This API server serves neither.
    "read-logs-of-the-control-plane",
    "read-profiles-of-the-api-server",
];

/// The control plane for all rules but Hearth's.
pub(crate) async fn bare_plane() -> &'static ControlPlane {
    static PLANE: OnceCell<ControlPlane> = OnceCell::const_new();
    let started = async {
        let plane = start().await.expect("a control plane could not be started");
        runtime_class(&plane).await;
        plane
    };
    PLANE.get_or_init(|| started).await
}

/// The program, which `make test` builds before the tests.
pub(crate) fn hearth() -> PathBuf {
    let cache = std::env::var_os("HEARTH_CACHE").map_or_else(|| PathBuf::from("/var/cache/hearth"), PathBuf::from);
    cache.join("programs/hearth")
}

/// What the suite says of a tenant, and its exit status.
async fn conformance(kubeconfig: &Path, arguments: &[&str]) -> (Value, Option<i32>) {
    let mut command = Command::new(hearth());
    command.args(["conformance", "--output", "json", "--kubeconfig"]).arg(kubeconfig).args(arguments);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("hearth is built");
    let said = String::from_utf8_lossy(&output.stderr);
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    (answer, output.status.code())
}

/// The attempts with this result, and why.
fn with(answer: &Value, result: &str) -> BTreeMap<String, String> {
    let attempts = answer["attempts"].as_array().expect("attempts").iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    attempts
        .filter(|attempt| attempt["outcome"]["result"] == result)
        .map(|attempt| {
            let outcome = &attempt["outcome"];
            (text(&attempt["name"]), format!("{} {}", text(&outcome["because"]), text(&outcome["message"])))
        })
        .collect()
}

pub(crate) async fn create(plane: &ControlPlane, plural: &str, namespace: Option<&str>, object: Value) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("/apiVersion").split_once('/').unwrap_or(("", text("/apiVersion")));
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, text("/kind")), plural);
    let client = plane.admin().await;
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let parsed = serde_json::from_value(object.clone()).expect("an object");
    api.create(&PostParams::default(), &parsed).await.unwrap_or_else(|error| panic!("{object}: {error}"));
}

/// Quota and limits, and what a controller would say of the quota.
async fn shares(plane: &ControlPlane, namespace: &str, hard: &Value, limits: &Value) {
    let metadata = json!({ "name": "shares" });
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": { "hard": hard },
    });
    create(plane, "resourcequotas", Some(namespace), quota).await;
    let limits =
        json!({ "apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": { "limits": limits } });
    create(plane, "limitranges", Some(namespace), limits).await;
    let used: serde_json::Map<_, _> =
        hard.as_object().unwrap().keys().map(|key| (key.clone(), Value::from("0"))).collect();
    let status = json!({ "status": { "hard": hard, "used": used } });
    patch(plane, &format!("/api/v1/namespaces/{namespace}/resourcequotas/shares/status"), &status).await;
}

async fn patch(plane: &ControlPlane, path: &str, change: &Value) {
    let request = http::Request::patch(path).header("content-type", "application/merge-patch+json");
    plane.admin().await.request_text(request.body(change.to_string().into_bytes()).unwrap()).await.unwrap();
}

/// The class of runtime that an attempt asks for.
async fn runtime_class(plane: &ControlPlane) {
    let metadata = json!({ "name": "hearth-conformance" });
    let class =
        json!({ "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": metadata, "handler": "runc" });
    create(plane, "runtimeclasses", None, class).await;
}

/// An account that the platform could have made for something of its own.
async fn builder(plane: &ControlPlane, namespace: &str) {
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "builder" } });
    create(plane, "serviceaccounts", Some(namespace), account).await;
}

fn role(name: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": { "name": name }, "rules": rules,
    })
}

fn binding(role: &str, user: &str) -> Value {
    let group = "rbac.authorization.k8s.io";
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": role.replace(':', "-") },
        "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": role },
        "subjects": [{ "apiGroup": group, "kind": "User", "name": user }],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_possible_for_a_tool_of_hearth_with_the_webhook_dead() {
    let plane = stage().await;
    let (tool, epoch): (ToolName, _) = ("conform".parse().unwrap(), Epoch::of([7; 16]));
    let identity = Identity { owner: tool.clone().into(), epoch: epoch.clone() };
    let namespace = tool.namespace();
    plane.namespace(&namespace, &[(annotation::UID, "50140")]).await.unwrap();
    let (quota, limits) = (objects::quota(&tool, &Quotas::default()), objects::limits(&tool, &Quotas::default()));
    let hard = serde_json::to_value(quota.spec.unwrap().hard).unwrap();
    shares(plane, &namespace, &hard, &serde_json::to_value(limits.spec.unwrap().limits).unwrap()).await;
    runtime_class(plane).await;
    builder(plane, &namespace).await;
    let text = include_str!("../../../deploy/base/tools-user.yaml");
    let first = text.split("\n---\n").next().unwrap();
    // Other tests of the control plane have it too.
    crate::control_rbac::apply(&plane.admin().await, &serde_saphyr::from_str(first).unwrap()).await;
    let binding = serde_json::to_value(objects::binding(&tool, &epoch)).unwrap();
    create(plane, "rolebindings", Some(&namespace), binding).await;
    // Nothing listens on a port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    register(plane, &namespace, json!({ "url": format!("https://127.0.0.1:{port}/review") })).await;

    let kubeconfig = plane.kubeconfig_of("tool:conform", &identity.group()).unwrap();
    let arguments = [
        ["--namespace", &namespace],
        ["--other-namespace", "tool-other"],
        ["--uid", "50140"],
        ["--allowed-image", "registry.hearth.internal/hearth/static:latest"],
        ["--host", "conform.hearth.localhost"],
        ["--node-path", "/data/project/conform"],
        ["--account", "builder"],
    ]
    .concat();
    let (answer, code) = conformance(&kubeconfig, &arguments).await;
    eprintln!("Hearth: {}", counts(&answer));
    for (name, why) in with(&answer, "inconclusive") {
        eprintln!("  inconclusive {name}: {why}");
    }
    let possible = with(&answer, "possible");
    assert!(possible.is_empty(), "possible: {:?}", possible.keys());
    assert_eq!(code, Some(0));
    assert_eq!(left(plane, &namespace).await, 0, "what was made is removed");
}

fn counts(answer: &Value) -> String {
    format!("{} possible, {} refused, {} inconclusive", answer["possible"], answer["refused"], answer["inconclusive"])
}

/// How many pods and Deployments are in a namespace.
async fn left(plane: &ControlPlane, namespace: &str) -> usize {
    let mut left = 0;
    for path in ["/api/v1", "/apis/apps/v1"].iter().zip(["pods", "deployments"]) {
        let path = format!("{}/namespaces/{namespace}/{}", path.0, path.1);
        let list: Value =
            plane.admin().await.request(http::Request::get(path).body(Vec::new()).unwrap()).await.unwrap();
        left += list["items"].as_array().unwrap().len();
    }
    left
}

/// A namespace on the bare control plane, its tenant's kubeconfig, and the arguments that tell of it.
async fn tenant(plane: &ControlPlane, name: &str, roles: &[&str]) -> (PathBuf, Vec<String>) {
    plane.namespace(name, &[]).await.unwrap();
    let other = format!("{name}-other");
    plane.namespace(&other, &[]).await.unwrap();
    builder(plane, name).await;
    for role in roles {
        create(plane, "rolebindings", Some(name), binding(role, name)).await;
    }
    let arguments = [
        ["--namespace", name],
        ["--other-namespace", &other],
        ["--uid", "50123"],
        ["--allowed-image", "registry.hearth.internal/hearth/static:latest"],
        ["--host", "wikibot.toolforge.org"],
        ["--node-path", "/data/project/wikibot"],
        ["--account", "builder"],
    ];
    let arguments = arguments.concat().into_iter().map(str::to_owned).collect();
    (plane.kubeconfig_of(name, "tenants").unwrap(), arguments)
}

async fn tried(kubeconfig: &Path, arguments: &[String]) -> (Value, Option<i32>) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    conformance(kubeconfig, &arguments).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_is_possible_where_nothing_forbids_it() {
    let plane = bare_plane().await;
    let (_, arguments) = tenant(plane, "open", &[]).await;
    let (answer, code) = tried(&plane.kubeconfig, &arguments).await;
    let mut others = with(&answer, "refused");
    others.extend(with(&answer, "inconclusive"));
    let expected: BTreeSet<&str> = NOT_POSSIBLE_ANYWHERE.iter().copied().collect();
    let found: BTreeSet<&str> = others.keys().map(String::as_str).collect();
    let told: Vec<_> = others.iter().filter(|(name, _)| !expected.contains(name.as_str())).collect();
    assert_eq!(found, expected, "{told:#?}");
    assert_eq!(code, Some(1));
    assert_eq!(left(plane, "open").await, 0, "what was made is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_legal_pod_nothing_is_said() {
    let plane = bare_plane().await;
    plane.namespace("closed", &[]).await.unwrap();
    let kubeconfig = plane.kubeconfig_of("nobody", "tenants").unwrap();
    let mut command = Command::new(hearth());
    command.args(["conformance", "--namespace", "closed", "--allowed-image", "a.example/b", "--kubeconfig"]);
    let output = command.arg(&kubeconfig).stdin(Stdio::null()).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("not even a legal pod is possible") && output.stdout.is_empty(), "{said}");
}

/// What is published: run with `--nocapture` to see all of it.
#[tokio::test(flavor = "multi_thread")]
async fn the_published_table_is_what_is_found() {
    let plane = bare_plane().await;
    let (kubeconfig, arguments) =
        tenant(plane, "restricted", &["system:aggregate-to-edit", "system:aggregate-to-view"]).await;
    let label = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
    patch(plane, "/api/v1/namespaces/restricted", &label).await;
    let text = include_str!("conformance/article.yaml");
    let article: Value = serde_saphyr::from_str(text).unwrap();
    let (quota, limits) = (&article["quota"], &article["limits"]);
    shares(plane, "restricted", quota, limits).await;
    let (restricted, _) = tried(&kubeconfig, &arguments).await;

    create(plane, "clusterroles", None, role("article", &article["rules"])).await;
    let (kubeconfig, arguments) = tenant(plane, "tool-article", &["article"]).await;
    for policy in article["policies"].as_array().unwrap() {
        enforce(plane, "tool-article", policy).await;
    }
    shares(plane, "tool-article", quota, limits).await;
    let (article, _) = tried(&kubeconfig, &arguments).await;

    eprintln!("The article's rules: {}", counts(&article));
    eprintln!("Pod Security restricted and RBAC: {}", counts(&restricted));
    for (whose, answer) in [("article", &article), ("restricted", &restricted)] {
        for (name, why) in with(answer, "inconclusive") {
            eprintln!("  {whose}: inconclusive {name}: {why}");
        }
    }
    let table = table(&restricted, &article);
    let document =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md")).unwrap();
    assert!(document.contains(&table), "docs/conformance.md is to have this:\n{table}");
}

/// Installs a restated rule for one namespace and waits until it acts.
async fn enforce(plane: &ControlPlane, namespace: &str, policy: &Value) {
    let name = policy["name"].as_str().unwrap();
    let validations = policy["expressions"].as_array().unwrap().iter().map(|text| json!({ "expression": text }));
    let variables = policy["variables"].as_object().into_iter().flatten();
    let variables = variables.map(|(name, text)| json!({ "name": name, "expression": text }));
    create(
        plane,
        "validatingadmissionpolicies",
        None,
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": { "name": name },
            "spec": {
                "matchConstraints": {
                    "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
                    "resourceRules": [{
                        "apiGroups": [policy["group"]], "apiVersions": ["v1"], "resources": [policy["resource"]],
                        "operations": ["CREATE", "UPDATE"],
                    }],
                },
                "variables": variables.collect::<Vec<_>>(),
                "validations": validations.collect::<Vec<_>>(),
            },
        }),
    )
    .await;
    create(
        plane,
        "validatingadmissionpolicybindings",
        None,
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": { "name": name }, "spec": { "policyName": name, "validationActions": ["Deny"] },
        }),
    )
    .await;
    acts(plane, namespace, policy).await;
}

/// Waits until a restated rule refuses what it must.
async fn acts(plane: &ControlPlane, namespace: &str, policy: &Value) {
    let name = policy["name"].as_str().unwrap();
    // Only the rule that is waited for is to refuse it.
    let image = if name == "article-registry" { "elsewhere.example/a" } else { "registry.hearth.internal/a" };
    let wrong = match policy["resource"].as_str().unwrap() {
        "pods" => json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" },
            "spec": { "hostPID": name == "article-psp", "containers": [{ "name": "a", "image": image }] },
        }),
        _ => json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": { "name": "a" },
            "spec": { "rules": [{ "host": "elsewhere.example", "http": { "paths": [
                { "path": "/", "pathType": "Prefix", "backend": { "service": { "name": "a", "port": { "number": 1 } } } },
            ] } }] },
        }),
    };
    let api = wrong["apiVersion"].as_str().unwrap();
    let api = if api == "v1" { "/api/v1".to_owned() } else { format!("/apis/{api}") };
    let path = format!("{api}/namespaces/{namespace}/{}?dryRun=All", policy["resource"].as_str().unwrap());
    let deadline = Instant::now() + EFFECT;
    loop {
        let request = http::Request::post(&path).header("content-type", "application/json");
        let request = request.body(wrong.to_string().into_bytes()).unwrap();
        match plane.admin().await.request_text(request).await {
            Err(Error::Api(status)) if status.message.contains(name) => return,
            answer => assert!(Instant::now() < deadline, "{name} does not act: {answer:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The table of `docs/conformance.md`: by chapter, how much was possible of how much.
fn table(restricted: &Value, article: &Value) -> String {
    let mut chapters: Vec<&str> = Vec::new();
    for attempt in restricted["attempts"].as_array().unwrap() {
        let chapter = attempt["chapter"].as_str().unwrap();
        if !chapters.contains(&chapter) {
            chapters.push(chapter);
        }
    }
    let of = |answer: &Value, chapter: &str, result: &str| {
        let attempts = answer["attempts"].as_array().unwrap().iter();
        attempts.filter(|a| a["chapter"] == chapter && (result.is_empty() || a["outcome"]["result"] == result)).count()
    };
    let mut text = "| chapter | attempts | Hearth | the article's rules | Pod Security `restricted` and RBAC |\n\
                    |---|---|---|---|---|\n"
        .to_owned();
    for chapter in &chapters {
        let (all, article, restricted) =
            (of(restricted, chapter, ""), of(article, chapter, "possible"), of(restricted, chapter, "possible"));
        text.push_str(&format!("| {chapter} | {all} | 0 | {article} | {restricted} |\n"));
    }
    let all = restricted["attempts"].as_array().unwrap().len();
    text.push_str(&format!("| all | {all} | 0 | {} | {} |\n", article["possible"], restricted["possible"]));
    for (title, answer) in [("By the article's rules", article), ("By Pod Security `restricted` and RBAC", restricted)]
    {
        text.push_str(&format!("\n{title}, these are possible:\n\n"));
        for chapter in &chapters {
            let attempts = answer["attempts"].as_array().unwrap().iter();
            let possible = attempts.filter(|a| a["chapter"] == *chapter && a["outcome"]["result"] == "possible");
            let names: Vec<&str> = possible.filter_map(|attempt| attempt["name"].as_str()).collect();
            if !names.is_empty() {
                text.push_str(&format!("- {chapter}: {}\n", names.join(", ")));
            }
        }
    }
    text
}
