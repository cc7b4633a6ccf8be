//! What `up` asks of the cluster: to tell when something is as it should be.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{Condition, await_condition};
use serde::de::DeserializeOwned;

use crate::instance::Instance;

/// A client with the rights of an administrator.
pub async fn client(instance: &Instance) -> anyhow::Result<kube::Client> {
    let file = instance.path("admin.kubeconfig");
    let kubeconfig = Kubeconfig::read_from(&file).with_context(|| format!("failed to read {}", file.display()))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

/// Waits until the API server says that it is ready.
pub async fn api_ready(instance: &Instance, limit: Duration) -> anyhow::Result<()> {
    let client = client(instance).await?;
    let ask = async {
        loop {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            if client.request_text(request).await.is_ok_and(|text| text == "ok") {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(limit, ask).await {
        Ok(ready) => ready,
        Err(_) => bail!(
            "the API server was not ready within {} s; see {}",
            limit.as_secs(),
            instance.text("log/kube-apiserver.log")
        ),
    }
}

/// Waits until the node takes pods.
pub async fn node_ready(client: &kube::Client, name: &str, limit: Duration) -> anyhow::Result<()> {
    let ready = |node: Option<&Node>| {
        let conditions = node.and_then(|n| n.status.as_ref()).and_then(|s| s.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
    };
    wait(Api::all(client.clone()), name, ready, limit)
        .await
        .with_context(|| format!("the node {name} did not become ready"))
}

/// Gives a node the labels that say what it is for. Those that others gave it stay.
pub async fn label_node(client: &kube::Client, name: &str, labels: &[&str]) -> anyhow::Result<()> {
    let labels: serde_json::Map<String, serde_json::Value> =
        labels.iter().map(|label| ((*label).to_owned(), "".into())).collect();
    let node = serde_json::json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
    let parameters = PatchParams::apply("hearth-up").force();
    let applied = Api::<Node>::all(client.clone()).patch(name, &parameters, &Patch::Apply(node)).await;
    applied.map(drop).with_context(|| format!("failed to label the node {name}"))
}

/// Takes nodes out of the cluster that the instance no longer has.
pub async fn forget_nodes(client: &kube::Client, kept: &[String]) -> anyhow::Result<()> {
    let api = Api::<Node>::all(client.clone());
    let nodes = api.list(&ListParams::default()).await.context("failed to list the nodes")?;
    for name in nodes.items.into_iter().filter_map(|node| node.metadata.name).filter(|name| !kept.contains(name)) {
        api.delete(&name, &DeleteParams::default())
            .await
            .with_context(|| format!("failed to delete the node {name}"))?;
    }
    Ok(())
}

/// Waits until each node that it is for has a ready pod of a `DaemonSet` as it was last described.
pub async fn daemon_set_ready(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    limit: Duration,
) -> anyhow::Result<()> {
    let ready = |set: Option<&DaemonSet>| {
        let Some((meta, status)) = set.and_then(|set| Some((&set.metadata, set.status.as_ref()?))) else {
            return false;
        };
        status.observed_generation >= meta.generation
            && status.desired_number_scheduled > 0
            && status.updated_number_scheduled.unwrap_or(0) >= status.desired_number_scheduled
            && status.number_available.unwrap_or(0) >= status.desired_number_scheduled
    };
    wait(Api::namespaced(client.clone(), namespace), name, ready, limit)
        .await
        .with_context(|| format!("{name} did not become ready; see `kubectl -n {namespace} describe pods` and `kubectl -n {namespace} logs daemonset/{name}`"))
}

/// Waits until a Deployment runs as it was last described, on the pods of that description.
pub async fn deployment_ready(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    limit: Duration,
) -> anyhow::Result<()> {
    let ready = |deployment: Option<&Deployment>| {
        let Some((meta, status)) = deployment.and_then(|d| Some((&d.metadata, d.status.as_ref()?))) else {
            return false;
        };
        let wanted = deployment.and_then(|d| d.spec.replicas).unwrap_or(1);
        status.observed_generation >= meta.generation
            && status.updated_replicas.unwrap_or(0) >= wanted
            && status.available_replicas.unwrap_or(0) >= wanted
            && status.replicas.unwrap_or(0) == wanted
    };
    wait(Api::namespaced(client.clone(), namespace), name, ready, limit)
        .await
        .with_context(|| format!("{name} did not become ready; see `kubectl -n {namespace} describe pods` and `kubectl -n {namespace} logs deployment/{name}`"))
}

/// Waits until a namespace is there and carries an annotation.
pub async fn namespace_annotated(
    client: &kube::Client,
    name: &str,
    annotation: &str,
    limit: Duration,
) -> anyhow::Result<()> {
    let ready = |namespace: Option<&Namespace>| {
        namespace.and_then(|n| n.metadata.annotations.as_ref()).is_some_and(|a| a.contains_key(annotation))
    };
    wait(Api::all(client.clone()), name, ready, limit).await.with_context(|| format!("`accounts` did not make {name}"))
}

/// Waits until a `StatefulSet` runs as it was last described.
pub async fn stateful_set_ready(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    limit: Duration,
) -> anyhow::Result<()> {
    let ready = |set: Option<&StatefulSet>| {
        let Some((set, status)) = set.and_then(|s| Some((s, s.status.as_ref()?))) else { return false };
        let wanted = set.spec.replicas.unwrap_or(1);
        status.observed_generation >= set.metadata.generation
            && status.current_revision == status.update_revision
            && status.available_replicas.unwrap_or(0) >= wanted
    };
    wait(Api::namespaced(client.clone(), namespace), name, ready, limit)
        .await
        .with_context(|| format!("{name} did not become ready; see `kubectl -n {namespace} describe pods` and `kubectl -n {namespace} logs {name}-0`"))
}

async fn wait<K>(api: Api<K>, name: &str, condition: impl Condition<K>, limit: Duration) -> anyhow::Result<()>
where
    K: kube::Resource + Clone + Debug + Send + DeserializeOwned + 'static,
{
    match tokio::time::timeout(limit, await_condition(api, name, condition)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => bail!("it took longer than {} s", limit.as_secs()),
    }
}
