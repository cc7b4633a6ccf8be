//! What the front door may read of Secrets, at a real API server: the one that holds its certificate, by name, and
//! nothing else. Its own half, following a Secret, is tested in process (`crates/server/tests/it/proxy_certificates.rs`).

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ListParams, WatchParams};
use serde_json::json;

use crate::control_plane::control_plane;
use crate::control_rbac::apply;

const ROLES: &str = include_str!("../../../deploy/base/proxy.yaml");

#[tokio::test]
async fn the_front_door_reads_the_secret_of_its_certificate_and_no_other() {
    let plane = control_plane().await;
    let admin = plane.admin().await;
    apply(&admin, &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "hearth-system" } })).await;
    for document in ROLES.split("\n---\n") {
        apply(&admin, &serde_saphyr::from_str(document).unwrap()).await;
    }
    for name in ["front-door", "front-door-2"] {
        let metadata = json!({ "name": name, "namespace": "hearth-system" });
        let data = json!({ "tls.crt": "x", "tls.key": "y" });
        apply(&admin, &json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data })).await;
    }
    let proxy = plane.impersonating("hearth:proxy", &[]).await;
    let secrets: Api<Secret> = Api::namespaced(proxy.clone(), "hearth-system");
    let named = |name: &str| format!("metadata.name={name}");
    let found = secrets.list(&ListParams::default().fields(&named("front-door"))).await.unwrap();
    assert_eq!(found.items.len(), 1);
    let version = found.metadata.resource_version.unwrap();
    let watched = secrets.watch(&WatchParams::default().fields(&named("front-door")).timeout(1), &version).await;
    assert!(watched.is_ok());
    let is_refused = |error: kube::Error| matches!(error, kube::Error::Api(status) if status.code == 403);
    assert!(is_refused(secrets.list(&ListParams::default()).await.unwrap_err()));
    assert!(is_refused(secrets.list(&ListParams::default().fields(&named("front-door-2"))).await.unwrap_err()));
    assert!(is_refused(secrets.get("front-door-2").await.unwrap_err()));
    let everywhere: Api<Secret> = Api::all(proxy);
    assert!(is_refused(everywhere.list(&ListParams::default().fields(&named("front-door"))).await.unwrap_err()));
}
