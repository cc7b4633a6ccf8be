//! The Gateway API's routes in the tests' control plane: the kind by its names, without the checks that the real
//! definition makes, so that what is refused is refused by the rules.

use std::time::{Duration, Instant};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use crate::control_plane::ControlPlane;

/// How long the API server may take to serve a new kind.
const EFFECT: Duration = Duration::from_secs(60);

/// Makes the API server know `HTTPRoute`s, and waits until it serves them.
pub(crate) async fn install(plane: &ControlPlane) -> anyhow::Result<()> {
    let definition: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": {
            "name": "httproutes.gateway.networking.k8s.io",
            // The API server asks this of who defines a kind below its own domains.
            "annotations": { "api-approved.kubernetes.io": "unapproved, for tests" },
        },
        "spec": {
            "group": "gateway.networking.k8s.io",
            "names": { "kind": "HTTPRoute", "listKind": "HTTPRouteList", "plural": "httproutes", "singular": "httproute" },
            "scope": "Namespaced",
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object",
                "properties": { "spec": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            }}}],
        },
    }))?;
    let admin = plane.admin().await;
    Api::all(admin.clone()).create(&PostParams::default(), &definition).await?;
    let deadline = Instant::now() + EFFECT;
    while admin.list_api_group_resources("gateway.networking.k8s.io/v1").await.is_err() {
        anyhow::ensure!(Instant::now() < deadline, "HTTPRoutes are not served after {EFFECT:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
