//! The rulebook in a real API server: the policies say of every shared case what `review` says.

#[path = "../../../crates/core/tests/cases/mod.rs"]
pub(crate) mod cases;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hearth_core::Platform;
use hearth_core::admission::{Operation, Request, Rules, Verdict, cel, review};
use hearth_core::names::annotation;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Error};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::control_gateway;
use crate::control_plane::{ControlPlane, control_plane};

/// The configuration that the cases are about.
pub(crate) const PLATFORM: &str = cases::PLATFORM;

/// Namespaces of the cases, and the number of the tool that each has.
const NAMESPACES: &[(&str, Option<&str>)] = &[
    ("tool-wikibot", Some("50123")),
    ("wikibot", Some("50123")),
    ("tool-other", Some("50124")),
    ("tool-tools", Some("50125")),
    ("tool-rooted", Some("0")),
    ("tool-unknown", None),
    ("hearth-system", None),
    ("metrics", None),
    ("cni-system", None),
];

/// How long the API server may take to act on new policies.
const EFFECT: Duration = Duration::from_secs(60);

/// Number of the tool of the cases.
pub(crate) const UID: u32 = cases::UID;

/// The configuration of the cases.
pub(crate) fn platform() -> Platform {
    Platform::from_toml(cases::PLATFORM).unwrap()
}

fn rules() -> Rules {
    Rules::of(&platform())
}

/// The control plane with the policies. What the cases change was stored before the policies came.
pub(crate) async fn stage() -> &'static ControlPlane {
    static STAGE: OnceCell<()> = OnceCell::const_new();
    let plane = control_plane().await;
    STAGE.get_or_init(|| async { set_up(plane).await.expect("the stage could not be set") }).await;
    plane
}

async fn set_up(plane: &ControlPlane) -> anyhow::Result<()> {
    control_gateway::install(plane).await?;
    for (name, uid) in NAMESPACES {
        let annotations = annotations(name, *uid);
        let annotations: Vec<(&str, &str)> = annotations.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        plane.namespace(name, &annotations).await?;
    }
    let client = plane.admin().await;
    let account: ServiceAccount = serde_json::from_value(json!({ "metadata": { "name": cases::ACCOUNT } }))?;
    Api::namespaced(client.clone(), "tool-wikibot").create(&PostParams::default(), &account).await?;
    for class in rules().priority_classes {
        let class: PriorityClass = serde_json::from_value(json!({ "metadata": { "name": class }, "value": 1 }))?;
        Api::all(client.clone()).create(&PostParams::default(), &class).await?;
    }
    for (index, case) in cases::all().iter().enumerate() {
        if let Some(old) = &case.old {
            let object = object(old, Some(&stored_name(index)))?;
            let stored = api(&plane.admin().await, case).create(&PostParams::default(), &object).await;
            stored.map_err(|error| anyhow::anyhow!("{}: {error}", case.name))?;
        }
    }
    install(plane).await
}

/// Installs the policies and waits until each of them acts.
async fn install(plane: &ControlPlane) -> anyhow::Result<()> {
    for policy in cel::policies(&rules()) {
        let kind = policy["kind"].as_str().unwrap_or_default().to_owned();
        let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", &kind);
        let plural = if kind.ends_with('y') {
            kind.to_lowercase().replace("policy", "policies")
        } else {
            format!("{}s", kind.to_lowercase())
        };
        let api: Api<DynamicObject> =
            Api::all_with(plane.admin().await, &ApiResource::from_gvk_with_plural(&gvk, &plural));
        let made = api.create(&PostParams::default(), &serde_json::from_value(policy.clone())?).await;
        made.map_err(|error| anyhow::anyhow!("{kind} {}: {error}", policy["metadata"]["name"]))?;
    }
    let cases = cases::all();
    let deadline = Instant::now() + EFFECT;
    let files: BTreeSet<&str> = cases.iter().filter_map(|case| case.name.split_once(": ")).map(|(f, _)| f).collect();
    for file in files {
        let refused = |case: &&cases::Case| {
            case.name.split_once(": ").is_some_and(|(name, _)| name == file)
                && case.old.is_none()
                && !case.invalid
                && !case.refused.is_empty()
        };
        let case = cases.iter().find(refused).expect("a case that is refused");
        while ask(plane, case, 0).await.is_ok() {
            anyhow::ensure!(Instant::now() < deadline, "{}: not refused after {EFFECT:?}", case.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    while bare_pod(plane).await?["spec"]["securityContext"]["runAsUser"].is_null() {
        anyhow::ensure!(Instant::now() < deadline, "no pod is filled in after {EFFECT:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// The annotations of a namespace of the cases.
fn annotations(namespace: &str, uid: Option<&str>) -> BTreeMap<String, String> {
    let account = (namespace == "tool-wikibot").then_some((annotation::SERVICE_ACCOUNT, cases::ACCOUNT));
    let all = uid.map(|uid| (annotation::UID, uid)).into_iter().chain(account);
    all.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn stored_name(index: usize) -> String {
    format!("stored-{index}")
}

fn object(value: &Value, name: Option<&str>) -> serde_json::Result<DynamicObject> {
    let mut value = value.clone();
    if let Some(name) = name {
        value["metadata"]["name"] = name.into();
    }
    serde_json::from_value(value)
}

/// The API of a case's objects, for the user who asks, who may do all that admission allows.
fn api(client: &Client, case: &cases::Case) -> Api<DynamicObject> {
    let (group, version) = case.api_version.split_once('/').unwrap_or(("", &case.api_version));
    let kind = case.object["kind"].as_str().unwrap_or_default();
    let plural = case.resource.split('/').next().unwrap_or_default();
    let gvk = GroupVersionKind::gvk(group, version, kind);
    Api::namespaced_with(client.clone(), &case.namespace, &ApiResource::from_gvk_with_plural(&gvk, plural))
}

/// Asks the API server, without storing anything.
async fn ask(plane: &ControlPlane, case: &cases::Case, index: usize) -> Result<DynamicObject, Error> {
    let client = plane.impersonating(&case.user, &["system:masters"]).await;
    let api = api(&client, case);
    let Some(old) = &case.old else {
        let create = PostParams { dry_run: true, ..PostParams::default() };
        return api.create(&create, &object(&case.object, None).map_err(Error::SerdeError)?).await;
    };
    let (mut before, mut after) = (old.clone(), case.object.clone());
    for object in [&mut before, &mut after] {
        object["metadata"]["name"] = stored_name(index).into();
    }
    let patch = Patch::Merge(difference(&before, &after));
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    match case.resource.split_once('/') {
        Some((_, subresource)) => api.patch_subresource(subresource, &stored_name(index), &params, &patch).await,
        None => api.patch(&stored_name(index), &params, &patch).await,
    }
}

/// The merge patch that turns one object into another.
fn difference(before: &Value, after: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, after) else { return after.clone() };
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
    let changed = changed.map(|(key, value)| (key.clone(), difference(before.get(key).unwrap_or(&Value::Null), value)));
    Value::Object(gone.chain(changed).collect())
}

/// What the webhook would say of a case.
fn judge(case: &cases::Case) -> Verdict {
    let uid = NAMESPACES.iter().find(|(name, _)| *name == case.namespace).and_then(|(_, uid)| *uid);
    let annotations = annotations(&case.namespace, uid);
    let (resource, subresource) = case.resource.split_once('/').unwrap_or((&case.resource, ""));
    review(
        &rules(),
        &Request {
            operation: if case.old.is_some() { Operation::Update } else { Operation::Create },
            group: case.api_version.split_once('/').map_or("", |(group, _)| group),
            resource,
            subresource,
            namespace: &case.namespace,
            user: &case.user,
            object: &case.object,
            old: case.old.as_ref(),
            annotations: &annotations,
        },
    )
}

/// A pod as `kubectl run` makes it, as the API server would store it.
async fn bare_pod(plane: &ControlPlane) -> anyhow::Result<Value> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "bare", "labels": { "toolforge": "tool" } },
        "spec": {
            "containers": [
                { "name": "a", "image": "registry.hearth.internal/a" },
                {
                    "name": "b", "image": "registry.hearth.internal/b", "env": [{ "name": "HOME", "value": "/tmp" }],
                    "securityContext": { "readOnlyRootFilesystem": true },
                },
            ],
            "initContainers": [{ "name": "i", "image": "registry.hearth.internal/i" }],
        },
    });
    match create_pod(plane, "tool-wikibot", &pod).await {
        Ok(stored) => Ok(stored),
        // Not filled in yet, so it lacks what is needed.
        Err(Error::Api(status)) if status.message.contains("hearth-tool-pods") => Ok(pod),
        Err(error) => Err(error.into()),
    }
}

/// A pod of this specification, as the API server would store it.
pub(crate) async fn run(plane: &ControlPlane, namespace: &str, spec: Value) -> Result<Value, Error> {
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "run" }, "spec": spec });
    create_pod(plane, namespace, &pod).await
}

pub(crate) async fn create_pod(plane: &ControlPlane, namespace: &str, pod: &Value) -> Result<Value, Error> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Pod"), "pods");
    let api: Api<DynamicObject> = Api::namespaced_with(plane.admin().await, namespace, &resource);
    let create = PostParams { dry_run: true, ..PostParams::default() };
    let stored = api.create(&create, &object(pod, None).map_err(Error::SerdeError)?).await?;
    serde_json::to_value(stored).map_err(Error::SerdeError)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_layers_say_the_same() {
    let plane = stage().await;
    let mut wrong = Vec::new();
    for (index, case) in cases::all().iter().enumerate() {
        let (answer, verdict) = (ask(plane, case, index).await, judge(case));
        let agreed = match &answer {
            Ok(_) => verdict == Verdict::Allow,
            Err(Error::Api(status)) => {
                // The policy of addresses fails by its mutation, and is named by it alone.
                let by_policy = ["AdmissionPolicy 'hearth-", "hearth-tool-addresses"]
                    .iter()
                    .any(|part| status.message.contains(part));
                verdict != Verdict::Allow && (by_policy || case.invalid)
            }
            Err(_) => false,
        };
        if !agreed || case.refused.is_empty() != (verdict == Verdict::Allow) {
            let answer = answer.map(|_| "allowed").map_err(|error| error.to_string());
            wrong.push(format!("{}\n  rules:  {verdict}\n  server: {answer:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_leaves_out_is_filled_in() {
    let plane = stage().await;
    let pod = bare_pod(plane).await.unwrap();
    let spec = &pod["spec"];
    let context = &spec["securityContext"];
    assert_eq!((&context["runAsUser"], &context["runAsGroup"]), (&json!(cases::UID), &json!(cases::UID)));
    assert_eq!((&context["fsGroup"], &context["supplementalGroupsPolicy"]), (&json!(cases::UID), &json!("Strict")));
    assert_eq!(
        (&context["runAsNonRoot"], &context["seccompProfile"]["type"]),
        (&json!(true), &json!("RuntimeDefault"))
    );
    let home = json!("/data/project/wikibot");
    assert_eq!(
        spec["volumes"],
        json!([
            { "name": "home", "hostPath": { "path": home, "type": "Directory" } },
            { "name": "mount-0-public-dumps", "hostPath": { "path": "/public/dumps", "type": "" } },
            { "name": "mount-1-data-scratch", "hostPath": { "path": "/data/scratch", "type": "" } },
        ])
    );
    let mounts = json!([
        { "name": "home", "mountPath": home },
        { "name": "mount-0-public-dumps", "mountPath": "/public/dumps", "readOnly": true },
        { "name": "mount-1-data-scratch", "mountPath": "/data/scratch" },
    ]);
    for container in [&spec["containers"][0], &spec["containers"][1], &spec["initContainers"][0]] {
        assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], json!(false), "{container}");
        assert_eq!(container["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }), "{container}");
        assert_eq!(container["volumeMounts"], mounts, "{container}");
        let own = |name: &str| container["env"].as_array().unwrap().iter().filter(|v| v["name"] == name).count();
        assert_eq!((own("HOME"), own("TOOL_DATA_DIR")), (1, 1), "{container}");
    }
    // What is there stays.
    assert_eq!(spec["containers"][1]["env"][0], json!({ "name": "HOME", "value": "/tmp" }));
    assert_eq!(spec["containers"][1]["securityContext"]["readOnlyRootFilesystem"], json!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_label_no_home_is_mounted() {
    let plane = stage().await;
    let pod =
        run(plane, "tool-wikibot", json!({ "containers": [{ "name": "a", "image": "registry.hearth.internal/a" }] }));
    let spec = &pod.await.unwrap()["spec"];
    assert_eq!(spec["securityContext"]["runAsUser"], json!(cases::UID));
    assert_eq!((&spec["volumes"], &spec["containers"][0]["env"]), (&Value::Null, &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_objects_are_within_the_cost_limits() {
    let plane = stage().await;
    let env: Vec<Value> = (0..50).map(|n| json!({ "name": format!("V{n}"), "value": "x" })).collect();
    let containers: Vec<Value> = (0..30)
        .map(|n| {
            let ports: Vec<Value> = (0..20).map(|p| json!({ "containerPort": 1000 + n * 20 + p })).collect();
            let mounts: Vec<Value> =
                (0..30).map(|v| json!({ "name": format!("v{v}"), "mountPath": format!("/v{v}") })).collect();
            json!({
                "name": format!("c{n}"), "image": format!("registry.hearth.internal/{}:1", ["a"; 50].join("/")), "env": env,
                "ports": ports, "volumeMounts": mounts,
            })
        })
        .collect();
    let volumes: Vec<Value> = (0..30).map(|n| json!({ "name": format!("v{n}"), "emptyDir": {} })).collect();
    run(plane, "tool-wikibot", json!({ "containers": containers, "volumes": volumes })).await.unwrap();

    let mut ingress = cases::all().into_iter().find(|case| case.name == "ingresses: the base").unwrap();
    let path = |n: usize| {
        json!({
            "path": format!("/wikibot/{n}/{}", ["a"; 50].join("/")), "pathType": "Prefix",
            "backend": { "service": { "name": "a", "port": { "number": 1 } } },
        })
    };
    let rule = json!({ "host": "tools.hearth.localhost", "http": { "paths": (0..50).map(path).collect::<Vec<_>>() } });
    ingress.object["spec"]["rules"] = Value::Array(vec![rule.clone(); 20]);
    ask(plane, &ingress, 0).await.unwrap();
    ingress.object["spec"]["rules"] = Value::Array(vec![rule; 21]);
    let refusal = ask(plane, &ingress, 0).await.unwrap_err().to_string();
    assert!(refusal.contains("it must be a list of 20 at most"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_the_policies_say_what_is_wrong() {
    let plane = stage().await;
    let says = async |name: &str, parts: &[&str]| {
        let cases = cases::all();
        let (index, case) = cases.iter().enumerate().find(|(_, case)| case.name == name).expect("the case");
        let refusal = ask(plane, case, index).await.unwrap_err().to_string();
        assert!(parts.iter().all(|part| refusal.contains(part)), "{name}: {refusal}");
    };
    says(
        "images: all offenders at once",
        &["a (nginx), b (quay.io/b), i (alpine)", "images come from registry.hearth.internal"],
    )
    .await;
    says("pods: the node's processes", &["spec.hostPID: it must be false"]).await;
    says("pods: sysctls", &["spec.securityContext: "]).await;
    says("ingresses: a default backend", &["spec: defaultBackend: not a field that tools may set"]).await;
    says("ingresses: another tool's host", &["<tool>.hearth.localhost"]).await;
    says("services: another address", &["spec: externalIPs: not a field that tools may set"]).await;
    says(
        "pods: a namespace that is not a tool's",
        &["the namespace wikibot is not that of a tool", "hearth-system, hearth-public"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_webhook_dead_the_policies_still_refuse() {
    let plane = stage().await;
    plane.namespace("tool-dead", &[(annotation::UID, "50130")]).await.unwrap();
    // Nothing listens on a port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let client = json!({ "url": format!("https://127.0.0.1:{port}/review") });
    register(plane, "tool-dead", client).await;

    // Legal objects pass, also once the API server has tried to ask and failed.
    let legal = json!({ "containers": [{ "name": "a", "image": "registry.hearth.internal/a" }] });
    let deadline = Instant::now() + EFFECT;
    while !has_failed_open(plane).await {
        run(plane, "tool-dead", legal.clone()).await.unwrap();
        assert!(Instant::now() < deadline, "the API server does not ask the webhook");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let illegal = json!({ "containers": [{ "name": "a", "image": "elsewhere.example/a" }] });
    let refusal = run(plane, "tool-dead", illegal).await.unwrap_err().to_string();
    assert!(refusal.contains("hearth-tool-pods") && refusal.contains("elsewhere.example/a"), "{refusal}");
    let foreign = json!({
        "hostPID": true, "containers": [{ "name": "a", "image": "registry.hearth.internal/a" }],
    });
    assert!(run(plane, "tool-dead", foreign).await.unwrap_err().to_string().contains("spec.hostPID"));
}

/// Whether a webhook did not answer and was passed over.
async fn has_failed_open(plane: &ControlPlane) -> bool {
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let metrics = plane.admin().await.request_text(request).await.unwrap();
    let count = "apiserver_admission_webhook_fail_open_count{name=\"admission.hearth.internal\"";
    metrics.lines().any(|line| line.starts_with(count))
}

/// Registers a webhook as the platform's is, but for one namespace and where it is. It takes the API
/// server a moment to ask it.
pub(crate) async fn register(plane: &ControlPlane, namespace: &str, client: Value) {
    let text = include_str!("../../../deploy/base/admission.yaml");
    let documents = text.split("\n---\n").map(|document| serde_saphyr::from_str::<Value>(document).unwrap());
    let mut webhooks = documents.filter(|document| document["kind"] == "MutatingWebhookConfiguration");
    let mut webhook = webhooks.next().expect("the webhook's registration");
    webhook["metadata"]["name"] = namespace.into();
    let hook = &mut webhook["webhooks"][0];
    hook["clientConfig"] = client;
    hook["namespaceSelector"] = json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace } });
    let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "mutatingwebhookconfigurations");
    let api: Api<DynamicObject> = Api::all_with(plane.admin().await, &resource);
    api.create(&PostParams::default(), &object(&webhook, None).unwrap()).await.unwrap();
}
