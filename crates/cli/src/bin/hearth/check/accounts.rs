//! `hearth check accounts`: what the role `accounts` would do now. It is asked where it runs, since only there the
//! directory, the cluster and the homes are all in reach.

use anyhow::{Context, bail, ensure};
use hearth_core::names::PLATFORM_NAMESPACE;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, ListParams};
use tokio::io::AsyncReadExt;

use super::Cluster;
use crate::instance::Place;

/// The role's answer, and whether there is nothing to do and nothing left alone.
pub(super) async fn run(cluster: Cluster, place: &Place) -> anyhow::Result<(String, bool)> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(place).await?, PLATFORM_NAMESPACE);
    let those = ListParams::default().labels("app.kubernetes.io/name=accounts");
    let listed = pods.list(&those).await.with_context(|| format!("failed to list pods in {PLATFORM_NAMESPACE}"))?;
    let runs = |pod: &&Pod| {
        let status = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        pod.metadata.deletion_timestamp.is_none() && status == Some("Running")
    };
    let Some(name) = listed.items.iter().find(runs).and_then(|pod| pod.metadata.name.as_deref()) else {
        bail!("no pod of accounts runs in {PLATFORM_NAMESPACE}; `kubectl -n {PLATFORM_NAMESPACE} get pods` says why")
    };
    let streams = AttachParams::default().stdout(true).stderr(true);
    let command = ["/hearthd", "accounts", "--dry-run"];
    let mut process = pods
        .exec(name, command, &streams)
        .await
        .with_context(|| format!("failed to ask accounts in the pod {name}"))?;
    let (mut text, mut log) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (process.stdout().context("no answer")?, process.stderr().context("no answer")?);
    let status = process.take_status().context("no answer")?;
    tokio::try_join!(stdout.read_to_string(&mut text), stderr.read_to_string(&mut log))?;
    let status = status.await.context("the pod's answer was cut off")?;
    ensure!(
        status.status.as_deref() == Some("Success"),
        "accounts could not tell: {}",
        log.lines().last().unwrap_or("it said nothing")
    );
    let is_right = text.lines().count() == 1;
    Ok((text, is_right))
}
