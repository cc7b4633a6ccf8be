//! Pods in a real API server: what `webservice` makes is complete, so that the filling policy has nothing to do, and the
//! largest pods are within the API server's limits on what policies may cost.

use hearth_core::ToolName;
use hearth_core::webservice::objects::Owner;
use hearth_core::webservice::{Objects, Settings};
use serde_json::{Value, json};

use crate::control_admission::{UID, create_pod, platform, stage};

/// A namespace in which nothing is judged or filled in.
const UNTOUCHED: &str = "cni-system";

/// A pod of the Deployment that `webservice` makes.
fn web_pod() -> Value {
    let platform = platform();
    let tool: ToolName = "wikibot".parse().unwrap();
    let owner = Owner { tool: &tool, uid: UID, platform: &platform };
    let settings = Settings { kind: "static".to_owned(), cpu: None, memory: None, replicas: 1, extra_args: vec![] };
    let image = "registry.hearth.internal/hearth/static".parse().unwrap();
    let made = Objects::new(owner, &settings, &image, "2026-11-22T18:00:00Z".parse().unwrap());
    let template = serde_json::to_value(made.deployment).unwrap()["spec"]["template"].take();
    let mut metadata = template["metadata"].clone();
    metadata["name"] = "web".into();
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] })
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_filled_into_what_webservice_makes() {
    let plane = stage().await;
    let pod = web_pod();
    let judged = create_pod(plane, "tool-wikibot", &pod).await.unwrap();
    let untouched = create_pod(plane, UNTOUCHED, &pod).await.unwrap();
    assert_eq!(judged["spec"], untouched["spec"]);

    // The comparison sees what is filled in: without any one part the two differ.
    let spec = json!({ "/spec/securityContext": "fsGroup", "/spec/containers/0/securityContext": "capabilities" });
    for (parent, name) in spec.as_object().unwrap() {
        let mut pod = pod.clone();
        pod.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name.as_str().unwrap()).unwrap();
        let judged = create_pod(plane, "tool-wikibot", &pod).await.unwrap();
        let untouched = create_pod(plane, UNTOUCHED, &pod).await.unwrap();
        assert_ne!(judged["spec"], untouched["spec"], "{name}");
    }
}

/// A pod that asks for mounts and leaves all else out: many containers, each with many mounts of many volumes.
fn large_pod(containers: usize, volumes: usize) -> Value {
    let volume = |n: usize| match n {
        0 => json!({ "name": "v0", "hostPath": { "path": "/public/dumps" } }),
        _ => json!({ "name": format!("v{n}"), "emptyDir": {} }),
    };
    let mount = |n: usize| json!({ "name": format!("v{n}"), "mountPath": format!("/v/{n}"), "readOnly": n == 0 });
    let mounts: Vec<Value> = (0..volumes).map(mount).collect();
    let container = |n: usize| {
        json!({
            "name": format!("c{n}"), "image": format!("registry.hearth.internal/{}:1", ["a"; 50].join("/")),
            "volumeMounts": mounts,
            "resources": { "limits": { "cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi" } },
        })
    };
    let annotations: serde_json::Map<String, Value> =
        (0..50).map(|n| (format!("toolforge.org/{n}"), "x".repeat(100).into())).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "large", "labels": { "toolforge": "tool" }, "annotations": annotations },
        "spec": {
            "containers": (0..containers).map(container).collect::<Vec<_>>(),
            "initContainers": (containers..2 * containers).map(container).collect::<Vec<_>>(),
            "volumes": (0..volumes).map(volume).collect::<Vec<_>>(),
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn large_pods_are_filled_in_and_judged() {
    let plane = stage().await;
    let stored = create_pod(plane, "tool-wikibot", &large_pod(20, 30)).await.unwrap();
    let first = &stored["spec"]["containers"][0]["volumeMounts"];
    assert_eq!(first.as_array().unwrap().len(), 33, "{first}");
    let mut written = large_pod(20, 30);
    written["spec"]["initContainers"][19]["volumeMounts"][0]["readOnly"] = false.into();
    let refusal = create_pod(plane, "tool-wikibot", &written).await.unwrap_err().to_string();
    assert!(refusal.contains("c39") && refusal.contains("readOnly: true"), "{refusal}");
}
