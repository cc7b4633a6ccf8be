//! A tool's quota and limits in a real API server: old manifests, which ask for nothing, are still admitted.
//!
//! No controller runs here, so the test writes what one would have counted.

use std::time::{Duration, Instant};

use hearth_core::ToolName;
use hearth_core::account::objects;
use hearth_core::account::quotas::Quotas;
use hearth_core::names::annotation;
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::control_admission::{run, stage};

/// How long the API server may take to act on a quota and on limits.
const EFFECT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_asks_for_nothing_is_within_the_quota() {
    let plane = stage().await;
    let tool: ToolName = "bounded".parse().unwrap();
    plane.namespace(&tool.namespace(), &[(annotation::UID, "50145")]).await.unwrap();
    let admin = plane.admin().await;
    let limits: Api<LimitRange> = Api::namespaced(admin.clone(), &tool.namespace());
    limits.create(&PostParams::default(), &objects::limits(&tool, &Quotas::default())).await.unwrap();
    let quotas: Api<ResourceQuota> = Api::namespaced(admin, &tool.namespace());
    let quota = objects::quota(&tool, &Quotas::default());
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    let hard = serde_json::to_value(quota.spec.unwrap().hard).unwrap();
    let used: serde_json::Map<String, Value> =
        hard.as_object().unwrap().keys().map(|key| (key.clone(), "0".into())).collect();
    let status = json!({ "status": { "hard": hard, "used": used } });
    quotas.patch_status(&tool.namespace(), &PatchParams::default(), &Patch::Merge(status)).await.unwrap();

    let bare = json!({ "containers": [{ "name": "a", "image": "registry.hearth.internal/a" }] });
    let deadline = Instant::now() + EFFECT;
    let pod = loop {
        match run(plane, &tool.namespace(), bare.clone()).await {
            Ok(pod) if !pod["spec"]["containers"][0]["resources"]["limits"].is_null() => break pod,
            last => assert!(Instant::now() < deadline, "a pod that asks for nothing: {last:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let resources = &pod["spec"]["containers"][0]["resources"];
    assert_eq!(resources["limits"], json!({ "cpu": "500m", "ephemeral-storage": "1Gi", "memory": "512Mi" }));
    assert_eq!(resources["requests"], json!({ "cpu": "150m", "ephemeral-storage": "64Mi", "memory": "256Mi" }));

    let mut greedy = bare;
    greedy["containers"][0]["resources"] = json!({ "limits": { "ephemeral-storage": "9Gi" } });
    let refusal = run(plane, &tool.namespace(), greedy).await.unwrap_err().to_string();
    assert!(refusal.contains("maximum ephemeral-storage usage per Container is 8Gi"), "{refusal}");
}
