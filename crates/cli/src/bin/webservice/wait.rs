//! Waiting for the cluster to have done what was asked, by watching: no request is repeated.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use hearth_core::ToolName;
use hearth_core::webservice::state::{Problem, Seen};
use hearth_core::webservice::{State, objects};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, ResourceExt};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::exit::{Failure, Outcome};
use crate::progress::Progress;

/// How long a problem that waiting does not mend is watched before it is reported: a quota may be freed a moment
/// later by a pod that is just ending.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a web service may take to be gone: its pods' grace, and room.
const GONE: Duration = Duration::from_secs(30);

/// What the watches have told.
#[derive(Default)]
struct View {
    deployments: Kind<Deployment>,
    pods: Kind<Pod>,
    slices: Kind<EndpointSlice>,
}

/// The objects of one kind; `complete` once the first list is through.
struct Kind<K> {
    objects: BTreeMap<String, K>,
    complete: bool,
}

/// What one watch told.
enum Change {
    Deployment(Event<Deployment>),
    Pod(Event<Pod>),
    Slice(Event<EndpointSlice>),
}

type Changes = BoxStream<'static, Result<Change, watcher::Error>>;

/// How waiting ended without the web service being up.
pub(crate) enum Short {
    /// A problem that waiting does not mend.
    Problem(Problem),
    /// The time was over.
    Timeout,
}

/// Waits until all pods of the Deployment's `generation` answer and visitors are led to them.
pub(crate) async fn until_ready(
    cluster: &Cluster,
    tool: &ToolName,
    generation: Option<i64>,
    deadline: Instant,
    progress: &mut Progress,
) -> Outcome<Result<(), Short>> {
    let own = watcher::Config::default().fields(&format!("metadata.name={tool}"));
    let pods = watcher::Config::default().labels(&objects::selector(tool));
    let slices = watcher::Config::default().labels(&format!("kubernetes.io/service-name={tool}"));
    let mut changes: Changes = stream::select(
        changes(cluster.deployments.clone(), own, Change::Deployment),
        stream::select(changes(cluster.pods.clone(), pods, Change::Pod), changes(cluster.api(), slices, Change::Slice)),
    )
    .boxed();
    let mut view = View::default();
    let mut problem: Option<(Problem, Instant)> = None;
    loop {
        let until = problem.as_ref().map_or(deadline, |(_, since)| deadline.min(*since + PATIENCE));
        match tokio::time::timeout_at(until, changes.next()).await {
            Ok(change) => view.take(cluster, change)?,
            Err(_) => return Ok(Err(problem.map_or(Short::Timeout, |(problem, _)| Short::Problem(problem)))),
        }
        if !view.complete() {
            continue;
        }
        let state = view.state();
        if let Some(text) = text(&state) {
            progress.show(&text);
        }
        match state {
            State::Running { .. } if view.generation() >= generation && view.reachable() => return Ok(Ok(())),
            State::Failing { problem: new, .. } if new.settled => {
                let since = problem.take().map_or_else(Instant::now, |(_, since)| since);
                problem = Some((new, since));
            }
            State::Stopped | State::Stopping => {
                return Err(Failure::failed("the web service was stopped while it was starting"));
            }
            _ => problem = None,
        }
    }
}

/// Waits until the Deployment is gone, which it is when all its pods are.
pub(crate) async fn until_gone(cluster: &Cluster, tool: &ToolName) -> Outcome<()> {
    let own = watcher::Config::default().fields(&format!("metadata.name={tool}"));
    let mut changes: Changes = changes(cluster.deployments.clone(), own, Change::Deployment).boxed();
    let deadline = Instant::now() + GONE;
    let mut view = View::default();
    loop {
        let change = tokio::time::timeout_at(deadline, changes.next()).await.map_err(|_| {
            Failure::failed(format!(
                "the web service was told to stop, but its pods are not gone after {} s; look at them with `kubectl get pods`",
                GONE.as_secs()
            ))
        })?;
        view.take(cluster, change)?;
        if view.deployments.complete && view.deployments.objects.is_empty() {
            return Ok(());
        }
    }
}

fn changes<K>(
    api: Api<K>,
    config: watcher::Config,
    change: fn(Event<K>) -> Change,
) -> impl stream::Stream<Item = Result<Change, watcher::Error>> + Send + 'static
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watch(api, config).default_backoff().map(move |event| event.map(change))
}

/// One line about a state that is not the end.
fn text(state: &State) -> Option<String> {
    match state {
        State::Starting { ready, wanted, detail, log: _ } => {
            let detail = detail.as_ref().map(|d| format!(": {d}")).unwrap_or_default();
            Some(format!("{} of {wanted} replicas answer{detail}", ready.min(wanted)))
        }
        State::Failing { problem, .. } => Some(problem.reason.clone()),
        State::Running { .. } | State::Stopped | State::Stopping => None,
    }
}

// === impl View ===

impl View {
    /// Takes in what a watch told. A broken watch is begun again by itself; a refused one is a failure.
    fn take(&mut self, cluster: &Cluster, change: Option<Result<Change, watcher::Error>>) -> Outcome<()> {
        match change {
            Some(Ok(Change::Deployment(event))) => self.deployments.take(event),
            Some(Ok(Change::Pod(event))) => self.pods.take(event),
            Some(Ok(Change::Slice(event))) => self.slices.take(event),
            Some(Err(watcher::Error::InitialListFailed(e) | watcher::Error::WatchStartFailed(e))) if matches!(&e, kube::Error::Api(status) if matches!(status.code, 401 | 403)) =>
            {
                return Err(cluster.failure(e));
            }
            Some(Err(_)) => (),
            None => return Err(Failure::cluster("the cluster ended the connection; run `webservice status`")),
        }
        Ok(())
    }

    fn complete(&self) -> bool {
        self.deployments.complete && self.pods.complete && self.slices.complete
    }

    fn state(&self) -> State {
        let pods: Vec<&Pod> = self.pods.objects.values().collect();
        State::of(Seen { deployment: self.deployments.objects.values().next(), pods: &pods, events: &[] })
    }

    fn generation(&self) -> Option<i64> {
        self.deployments.objects.values().next()?.metadata.generation
    }

    /// Whether visitors are led to at least one pod.
    fn reachable(&self) -> bool {
        let mut endpoints = self.slices.objects.values().flat_map(|slice| slice.endpoints.iter().flatten());
        endpoints.any(|endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready) != Some(false))
    }
}

impl<K> Default for Kind<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), complete: false }
    }
}

impl<K: kube::Resource> Kind<K> {
    fn take(&mut self, event: Event<K>) {
        match event {
            Event::Init => {
                self.objects.clear();
                self.complete = false;
            }
            Event::InitApply(object) | Event::Apply(object) => {
                self.objects.insert(object.name_any(), object);
            }
            Event::Delete(object) => {
                self.objects.remove(&object.name_any());
            }
            Event::InitDone => self.complete = true,
        }
    }
}
