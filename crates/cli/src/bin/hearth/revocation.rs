//! `hearth tool revoke`: what a tool's credentials open is closed at once, and the tool gets others.
//!
//! A tool's certificate has rights by the epoch that stands in it and in the role binding, and its password by the hash
//! on the namespace. Both go first, so that nothing depends on `accounts` being up; that makes new ones and writes them
//! into the home.

use std::time::Duration;

use anyhow::{Context, bail};
use hearth_core::account::objects;
use hearth_core::account::state::Corner;
use hearth_core::names::annotation;
use hearth_core::{Platform, ToolName};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use serde_json::json;

/// Longest wait for the new credentials.
const PATIENCE: Duration = Duration::from_secs(60);

/// Takes the tool's credentials from it, and waits until it has others.
pub async fn revoke(client: kube::Client, platform: &Platform, tool: &ToolName) -> anyhow::Result<String> {
    let name = tool.namespace();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let found = namespaces.get_opt(&name).await.with_context(|| format!("failed to read the namespace {name}"))?;
    let Some(found) = found else {
        bail!(
            "the tool '{tool}' has no namespace yet, and so no credentials; 'hearth tool show {tool}' says what it has"
        )
    };
    let labels = found.metadata.labels.unwrap_or_default().into();
    if !(Corner { labels, ..Corner::default() }).is_ours() {
        bail!("the namespace {name} was made by somebody else: what opens it is theirs to revoke");
    }
    // The epoch first, so that nobody binds the old one again.
    let gone = json!({ "metadata": {
        "uid": found.metadata.uid,
        "annotations": { annotation::EPOCH: null, annotation::REGISTRY_CREDENTIAL: null },
    } });
    let patched = namespaces.patch(&name, &PatchParams::default(), &Patch::Merge(gone)).await;
    patched.with_context(|| format!("failed to change the namespace {name}; nothing is revoked"))?;
    let bindings: Api<RoleBinding> = Api::namespaced(client, &name);
    let binding = objects::binding_name(tool);
    match bindings.delete(&binding, &DeleteParams::default()).await {
        Ok(_) => (),
        Err(kube::Error::Api(status)) if status.code == 404 => (),
        Err(error) => {
            return Err(error).with_context(|| {
                format!("failed to delete the role binding {name}/{binding}; until it is gone the old key works")
            });
        }
    }
    // The password is the last that is made.
    let renewed = |namespace: Option<&Namespace>| {
        let annotations = namespace.and_then(|namespace| namespace.metadata.annotations.as_ref());
        annotations.is_some_and(|all| {
            [annotation::EPOCH, annotation::REGISTRY_CREDENTIAL].iter().all(|key| all.contains_key(*key))
        })
    };
    let home = platform.homes.of(tool);
    match tokio::time::timeout(PATIENCE, await_condition(namespaces, &name, renewed)).await {
        Ok(result) => {
            result.with_context(|| format!("failed to watch the namespace {name}"))?;
            Ok(format!(
                "The old key and password of '{tool}' open nothing any more; {home} has new ones.\n\
                 What runs goes on running. Whoever had the old ones may have read what the tool could read.\n"
            ))
        }
        Err(_) => bail!(
            "the old key and password of '{tool}' open nothing any more, but after {} s there are no new ones in {home}; \
             `kubectl -n hearth-system logs deployment/accounts` says why",
            PATIENCE.as_secs()
        ),
    }
}
