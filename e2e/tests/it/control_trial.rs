//! Rules before they bite: a chapter on trial warns in a real API server, and `hearth check rules` finds what is
//! stored already that the rules would refuse.

use std::process::Stdio;
use std::time::{Duration, Instant};

use hearth_core::Platform;
use hearth_core::admission::{Rules, cel};
use hearth_core::names::annotation;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::control_conformance::{bare_plane, create, hearth};
use crate::control_plane::ControlPlane;

/// How long the API server may take to act on new rules.
const EFFECT: Duration = Duration::from_secs(60);

const PLATFORM: &str = r#"
    [domains]
    public = ["hearth.localhost"]
    legacy = "tools.hearth.localhost"
    [api]
    server = "https://127.0.0.1:6443"
    [directory]
    url = "ldaps://ldap.hearth.internal"
    base = "dc=hearth,dc=internal"
    bind_dn = "cn=reader,dc=hearth,dc=internal"
    [registry]
    host = "registry.hearth.internal"
"#;

fn service(name: &str, kind: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "type": kind, "selector": { "a": "b" }, "ports": [{ "port": 8000 }] },
    })
}

/// The answer to a dry run: its status, and the warnings that came with it.
async fn ask(plane: &ControlPlane, namespace: &str, object: &Value) -> (u16, Vec<String>) {
    let path = format!("/api/v1/namespaces/{namespace}/services?dryRun=All");
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request.body(kube::client::Body::from(object.to_string().into_bytes())).unwrap();
    let answer = plane.admin().await.send(request).await.unwrap();
    let warnings = answer.headers().get_all("warning").iter();
    let warnings = warnings.map(|warning| String::from_utf8_lossy(warning.as_bytes()).into_owned()).collect();
    (answer.status().as_u16(), warnings)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chapter_on_trial_warns_and_lets_through() {
    let plane = bare_plane().await;
    plane.namespace("tool-trial", &[(annotation::UID, "50150")]).await.unwrap();
    let rules = |trial: &str| {
        let text = format!("{PLATFORM}\n[admission]\ntrial = [{trial}]");
        Rules::of(&Platform::from_toml(&text).unwrap())
    };
    // The same policy twice in one namespace of this control plane: it is nobody else's rule here.
    for mut object in cel::policies(&rules("\"services\"")) {
        if object["metadata"]["name"] != "hearth-tool-services" {
            continue;
        }
        object["metadata"]["name"] = "trial-services".into();
        if object["kind"] == "ValidatingAdmissionPolicy" {
            create(plane, "validatingadmissionpolicies", None, object).await;
        } else {
            assert_eq!(object["spec"]["validationActions"], json!(["Warn", "Audit"]));
            let own = json!({ "matchLabels": { "kubernetes.io/metadata.name": "tool-trial" } });
            object["spec"]["matchResources"]["namespaceSelector"] = own;
            object["spec"]["policyName"] = "trial-services".into();
            create(plane, "validatingadmissionpolicybindings", None, object).await;
        }
    }
    let deadline = Instant::now() + EFFECT;
    loop {
        let (status, warnings) = ask(plane, "tool-trial", &service("web", "NodePort")).await;
        assert_eq!(status, 201, "what is on trial goes through");
        if warnings.iter().any(|warning| warning.contains("spec.type: it must be \\\"ClusterIP\\\"")) {
            break;
        }
        assert!(Instant::now() < deadline, "no warning: {warnings:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(ask(plane, "tool-trial", &service("web", "ClusterIP")).await, (201, Vec::new()));

    let bindings = |trial: &str| {
        let policies = cel::policies(&rules(trial)).into_iter();
        let actions = policies.filter(|object| object["kind"] == "ValidatingAdmissionPolicyBinding");
        actions.map(|object| object["spec"]["validationActions"].clone()).collect::<Vec<_>>()
    };
    assert!(bindings("").iter().all(|actions| *actions == json!(["Deny"])), "everything is enforced by default");
    let trial = bindings("\"services\"");
    assert_eq!(trial.iter().filter(|actions| **actions != json!(["Deny"])).count(), 1, "{trial:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_judged_again() {
    let plane = bare_plane().await;
    plane.namespace("tool-stored", &[(annotation::UID, "50151")]).await.unwrap();
    create(plane, "services", Some("tool-stored"), service("fine", "ClusterIP")).await;
    create(plane, "services", Some("tool-stored"), service("open", "NodePort")).await;
    let pod = json!({ "hostPID": true, "containers": [{ "name": "a", "image": "elsewhere.example/a" }] });
    let labels = json!({ "matchLabels": { "a": "b" } });
    let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": pod });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": { "selector": labels, "template": template },
    });
    create(plane, "deployments", Some("tool-stored"), deployment).await;
    let owner = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "controller": true,
        "uid": "3f2c7a1e-0000-4000-8000-000000000000",
    }]);
    for name in ["web-1-a", "web-1-b"] {
        let mut spec = pod.clone();
        spec["nodeName"] = "node".into();
        let metadata = json!({ "name": name, "ownerReferences": owner });
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec });
        create(plane, "pods", Some("tool-stored"), pod).await;
    }
    let platform = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(platform.path(), PLATFORM).unwrap();
    let check = async |form: &str| {
        let mut command = Command::new(hearth());
        command.args(["check", "rules", "--output", form, "--kubeconfig"]).arg(&plane.kubeconfig);
        command.arg("--platform").arg(platform.path());
        let output = command.stdin(Stdio::null()).output().await.expect("hearth is built");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        String::from_utf8(output.stdout).unwrap()
    };
    let answer: Value = serde_json::from_str(&check("json").await).unwrap();
    let found: Vec<&Value> =
        answer["found"].as_array().unwrap().iter().filter(|found| found["namespace"] == "tool-stored").collect();
    let names: Vec<&str> = found.iter().filter_map(|found| found["object"].as_str()).collect();
    assert_eq!(names, ["Deployment web", "Pod of ReplicaSet web-1", "Service open"], "{found:?}");
    assert_eq!(found[1]["count"], 2);
    let reasons = found[1]["reasons"].to_string();
    assert!(reasons.contains("spec.hostPID is true") && reasons.contains("elsewhere.example/a"), "{reasons}");
    assert!(!reasons.contains("nodeName"), "{reasons}");
    assert!(answer["judged"].as_u64().unwrap() >= 5, "{answer}");
    assert!(check("table").await.contains("tool-stored  Pod of ReplicaSet web-1 (2 of them)\n"));
}
