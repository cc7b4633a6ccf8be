//! Carries out stopping and starting what a tool runs ([`hearth_core::account::workload`]).

use anyhow::{Context, Result, bail};
use hearth_core::account::workload::{self, Change, Cron, Scalable, Scaled, Workloads};
use hearth_core::names;
use hearth_core::names::annotation::BEFORE_DISABLING;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

/// How often the namespace is looked at until nothing is left to do: something may have been made just before the
/// tool's rights ended.
const ROUNDS: usize = 5;

/// Stops everything in a namespace.
pub(super) async fn stop(client: &Client, namespace: &str) -> Result<()> {
    until_nothing_is_left(client, namespace, workload::stop).await
}

/// Starts everything in a namespace that was stopped.
pub(super) async fn start(client: &Client, namespace: &str) -> Result<()> {
    until_nothing_is_left(client, namespace, workload::start).await
}

async fn until_nothing_is_left(client: &Client, namespace: &str, plan: fn(&Workloads) -> Vec<Change>) -> Result<()> {
    for _ in 0..ROUNDS {
        let changes = plan(&observe(client, namespace).await?);
        if changes.is_empty() {
            return Ok(());
        }
        for change in &changes {
            carry_out(client, namespace, change).await?;
        }
    }
    bail!("the workloads in {namespace} keep changing: after {ROUNDS} rounds there is still something to do")
}

async fn observe(client: &Client, namespace: &str) -> Result<Workloads> {
    let mut scaled = Vec::new();
    for object in all::<Deployment>(client, namespace).await? {
        scaled.push(scaled_of(Scalable::Deployment, &object.metadata, object.spec.replicas));
    }
    for object in all::<StatefulSet>(client, namespace).await? {
        scaled.push(scaled_of(Scalable::StatefulSet, &object.metadata, object.spec.replicas));
    }
    for object in all::<ReplicaSet>(client, namespace).await? {
        scaled.push(scaled_of(Scalable::ReplicaSet, &object.metadata, object.spec.replicas));
    }
    let crons = all::<CronJob>(client, namespace).await?;
    let crons = crons.iter().map(|object| Cron {
        name: object.name_any(),
        suspended: object.spec.suspend.unwrap_or(false),
        before: object.annotations().get(BEFORE_DISABLING).cloned(),
    });
    Ok(Workloads {
        scaled,
        crons: crons.collect(),
        jobs: count::<Job>(client, namespace).await?,
        pods: count::<Pod>(client, namespace).await?,
    })
}

fn scaled_of(kind: Scalable, metadata: &ObjectMeta, replicas: Option<i32>) -> Scaled {
    let owners = metadata.owner_references.iter().flatten();
    Scaled {
        kind,
        name: metadata.name.clone().unwrap_or_default(),
        controlled: owners.into_iter().any(|owner| owner.controller == Some(true) && owner.kind == "Deployment"),
        // The API server sets it to 1 where it is left out.
        replicas: replicas.unwrap_or(1),
        before: metadata.annotations.as_ref().and_then(|a| a.get(BEFORE_DISABLING)).cloned(),
    }
}

async fn all<K>(client: &Client, namespace: &str) -> Result<Vec<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let list = api.list(&ListParams::default()).await;
    Ok(list.with_context(|| format!("failed to list {} in {namespace}", K::plural(&())))?.items)
}

/// How many objects there are that are not being deleted.
async fn count<K>(client: &Client, namespace: &str) -> Result<usize>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<PartialObjectMeta<K>> = Api::namespaced(client.clone(), namespace);
    let list = api.list(&ListParams::default()).await;
    let list = list.with_context(|| format!("failed to list {} in {namespace}", K::plural(&())))?;
    Ok(list.items.iter().filter(|object| object.metadata.deletion_timestamp.is_none()).count())
}

async fn carry_out(client: &Client, namespace: &str, change: &Change) -> Result<()> {
    let patch = change.patch().unwrap_or_default();
    match change {
        Change::Scale { kind: Scalable::Deployment, name, .. } => {
            merge::<Deployment>(client, namespace, name, &patch).await
        }
        Change::Scale { kind: Scalable::StatefulSet, name, .. } => {
            merge::<StatefulSet>(client, namespace, name, &patch).await
        }
        Change::Scale { kind: Scalable::ReplicaSet, name, .. } => {
            merge::<ReplicaSet>(client, namespace, name, &patch).await
        }
        Change::Suspend { name, .. } => merge::<CronJob>(client, namespace, name, &patch).await,
        Change::DeleteJobs => delete_all::<Job>(client, namespace).await,
        Change::DeletePods => delete_all::<Pod>(client, namespace).await,
    }
}

async fn merge<K>(client: &Client, namespace: &str, name: &str, patch: &serde_json::Value) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let parameters = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch(name, &parameters, &Patch::Merge(patch)).await {
        // It is gone: nothing is left of it to stop or to start.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => {
            result.with_context(|| format!("failed to change {} {namespace}/{name}", K::kind(&())))?;
            Ok(())
        }
    }
}

async fn delete_all<K>(client: &Client, namespace: &str) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let deleted = api.delete_collection(&DeleteParams::background(), &ListParams::default()).await;
    deleted.with_context(|| format!("failed to delete the {} in {namespace}", K::plural(&())))?;
    Ok(())
}
