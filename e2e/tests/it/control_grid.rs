//! Who may write routes to the grid: the registrar, and nobody else, whatever other rights they have.

use hearth_core::names::{GRID_NAMESPACE, REGISTRAR_USER};
use hearth_core::route::grid::GridRoute;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, control_plane};

fn route(tool: &str) -> EndpointSlice {
    let route = GridRoute {
        tool: tool.parse().unwrap(),
        address: "192.0.2.7:34567".parse().unwrap(),
        ready: true,
        job: 1,
        registered: "2026-01-01T00:00:00Z".parse().unwrap(),
    };
    route.to_slice()
}

/// Applies `deploy/base/grid.yaml`, and waits until the policy acts.
async fn set_up(plane: &ControlPlane) {
    let admin = plane.admin().await;
    for document in include_str!("../../../deploy/base/grid.yaml").split("\n---\n") {
        let object: Value = serde_saphyr::from_str(document).unwrap();
        let text = |key: &str| object[key].as_str().unwrap().to_owned();
        let (group, version) = match text("apiVersion").split_once('/') {
            Some((group, version)) => (group.to_owned(), version.to_owned()),
            None => (String::new(), text("apiVersion")),
        };
        let mut resource = ApiResource::from_gvk(&GroupVersionKind { group, version, kind: text("kind") });
        if text("kind") == "ValidatingAdmissionPolicy" {
            resource.plural = "validatingadmissionpolicies".to_owned();
        }
        let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(admin.clone(), namespace, &resource),
            None => Api::all_with(admin.clone(), &resource),
        };
        let name = object["metadata"]["name"].as_str().unwrap();
        api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await.unwrap();
    }
    let slices: Api<EndpointSlice> = Api::namespaced(admin, GRID_NAMESPACE);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    while slices.create(&params, &route("waiting")).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "the policy does not act");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_registrar_writes_routes_to_the_grid() {
    let plane = control_plane().await;
    set_up(plane).await;
    let registrar: Api<EndpointSlice> = Api::namespaced(plane.impersonating(REGISTRAR_USER, &[]).await, GRID_NAMESPACE);
    let written = registrar.create(&PostParams::default(), &route("a")).await.unwrap();
    assert!(GridRoute::of_slice(&written).is_ok(), "the API server keeps it as it was written");

    // Not by a right that they lack, and not by one that they have.
    let others: [(&str, &[&str]); 4] = [
        ("tool:a", &["toolforge"]),
        ("hearth:proxy", &[]),
        ("system:serviceaccount:kube-system:endpointslice-controller", &[]),
        ("admin:root", &["system:masters"]),
    ];
    let port = json!({"ports": [{"name": "http", "port": 40000, "protocol": "TCP"}]});
    for (user, groups) in others {
        let slices: Api<EndpointSlice> = Api::namespaced(plane.impersonating(user, groups).await, GRID_NAMESPACE);
        let made = slices.create(&PostParams::default(), &route("b")).await;
        assert!(matches!(&made, Err(kube::Error::Api(status)) if status.code == 403), "{user}: {made:?}");
        let changed = slices.patch("a", &PatchParams::default(), &Patch::Merge(&port)).await;
        assert!(matches!(&changed, Err(kube::Error::Api(status)) if status.code == 403), "{user}: {changed:?}");
    }
    // The registrar writes nowhere else.
    let elsewhere = Api::<EndpointSlice>::namespaced(plane.impersonating(REGISTRAR_USER, &[]).await, "default");
    let mut slice = route("a");
    slice.metadata.namespace = Some("default".to_owned());
    assert!(
        matches!(elsewhere.create(&PostParams::default(), &slice).await, Err(kube::Error::Api(s)) if s.code == 403)
    );

    registrar.patch("a", &PatchParams::default(), &Patch::Merge(&port)).await.unwrap();
    registrar.delete("a", &DeleteParams::default()).await.unwrap();
}
