//! What the watches and our own writes tell of the cluster, kept as [`ClusterState`].
//!
//! Namespaces are watched whole (only their metadata), so that a foreign one with a tool's name is seen; the objects
//! in them by our label. What we write is put in here at once, with its version: a watch that lags cannot make us
//! plan the same again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use hearth_core::account::objects;
use hearth_core::account::state::{Binding, ClusterState, Corner};
use hearth_core::{ToolName, names};
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeSpec, Namespace, ResourceQuota, ResourceQuotaSpec};
use k8s_openapi::api::rbac::v1::RoleBinding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Config, Event};
use kube::{Api, Client};

/// How many objects a listing asks for at a time: what is read at once is held at once.
const PAGE: u32 = 100;

/// How many different quotas, and limits, are shared by the tools that have them. There are few: most tools have what
/// all have.
const MOST_SHARED: usize = 64;

/// How long one watch lasts; one that is silent for longer is taken for dead.
const WATCH_SECONDS: u32 = 60;

/// What a watch says.
#[derive(Debug)]
pub(super) enum Seen {
    /// Of namespaces.
    Namespace(Event<PartialObjectMeta<Namespace>>),
    /// Of quotas.
    Quota(Event<ResourceQuota>),
    /// Of limits.
    Limits(Event<LimitRange>),
    /// Of role bindings.
    Binding(Event<RoleBinding>),
    /// A watch failed and is begun again.
    Failed(watcher::Error),
}

/// What a write returned.
#[derive(Debug)]
pub(super) enum Written {
    Namespace(ObjectMeta),
    Quota(ResourceQuota),
    Limits(LimitRange),
    Binding(RoleBinding),
    NoBinding,
    /// The namespace is being deleted.
    NamespaceDeleted,
}

/// Watches everything that plans depend on.
pub(super) fn watch(client: &Client) -> BoxStream<'static, Seen> {
    let all = Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
    let ours = all.clone().labels(&format!("{}={}", names::label::MANAGED_BY, names::FIELD_MANAGER));
    let namespaces = kube::runtime::watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), all);
    let quotas = kube::runtime::watcher(Api::<ResourceQuota>::all(client.clone()), ours.clone());
    let limits = kube::runtime::watcher(Api::<LimitRange>::all(client.clone()), ours.clone());
    let bindings = kube::runtime::watcher(Api::<RoleBinding>::all(client.clone()), ours);
    stream::select_all([
        namespaces.backoff(Steps::default()).map(|e| e.map_or_else(Seen::Failed, Seen::Namespace)).boxed(),
        quotas.backoff(Steps::default()).map(|e| e.map_or_else(Seen::Failed, Seen::Quota)).boxed(),
        limits.backoff(Steps::default()).map(|e| e.map_or_else(Seen::Failed, Seen::Limits)).boxed(),
        bindings.backoff(Steps::default()).map(|e| e.map_or_else(Seen::Failed, Seen::Binding)).boxed(),
    ])
    .boxed()
}

/// Pauses between attempts to watch: from 100 ms, doubling, to 5 s.
#[derive(Debug, Default)]
pub(super) struct Steps(u32);

impl Iterator for Steps {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = Duration::from_millis(100).saturating_mul(1 << self.0.min(6)).min(Duration::from_secs(5));
        self.0 = self.0.saturating_add(1);
        Some(pause)
    }
}

impl Backoff for Steps {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Objects of one kind, one for each tool.
#[derive(Debug)]
struct Shelf<T> {
    items: BTreeMap<ToolName, (u64, T)>,
    /// The tools of a listing that is under way.
    listing: BTreeSet<ToolName>,
    /// Whether a listing was complete since the start.
    complete: bool,
}

/// All that was observed.
#[derive(Debug, Default)]
pub(super) struct Observed {
    namespaces: Shelf<NamespaceSeen>,
    quotas: Shelf<Option<Arc<ResourceQuotaSpec>>>,
    limits: Shelf<Option<Arc<LimitRangeSpec>>>,
    bindings: Shelf<Arc<Binding>>,
    shared_quotas: Shared<ResourceQuotaSpec>,
    shared_limits: Shared<LimitRangeSpec>,
    /// All of it together, kept up with each change, and the homes that were looked at.
    pub(super) state: ClusterState,
}

/// What a change concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Concerns {
    /// Nothing that plans depend on.
    Nothing,
    /// One tool.
    Tool(ToolName),
    /// Possibly every tool.
    All,
}

#[derive(Debug)]
struct NamespaceSeen {
    uid: String,
    terminating: bool,
    labels: Arc<BTreeMap<String, String>>,
    annotations: Arc<BTreeMap<String, String>>,
}

/// Values that many have: each is kept once.
#[derive(Debug)]
struct Shared<T>(Vec<Arc<T>>);

impl Observed {
    /// Whether every kind was listed once: before that, nothing can be said to be missing.
    pub(super) fn is_complete(&self) -> bool {
        self.namespaces.complete && self.quotas.complete && self.limits.complete && self.bindings.complete
    }

    /// Takes in what a watch says. Returns what it may change the plan for.
    pub(super) fn take(&mut self, seen: Seen) -> Concerns {
        let concerns = match seen {
            Seen::Namespace(event) => self.namespaces.take(event, |o| namespace(o.metadata)),
            Seen::Quota(event) => self.quotas.take(event, |o| quota(o, &mut self.shared_quotas)),
            Seen::Limits(event) => self.limits.take(event, |o| limits(o, &mut self.shared_limits)),
            Seen::Binding(event) => self.bindings.take(event, binding),
            Seen::Failed(error) => {
                tracing::warn!(%error, "a watch of the cluster failed and is begun again");
                Concerns::Nothing
            }
        };
        match &concerns {
            Concerns::Nothing => (),
            Concerns::Tool(tool) => self.refresh(tool),
            Concerns::All => {
                let namespaces = self.namespaces.items.keys();
                self.state.namespaces =
                    namespaces.filter_map(|tool| Some((tool.clone(), self.corner(tool)?))).collect();
            }
        }
        concerns
    }

    /// Takes in what a write returned.
    pub(super) fn wrote(&mut self, tool: &ToolName, written: Written) {
        match written {
            Written::Namespace(metadata) => drop(self.namespaces.put(namespace(metadata))),
            Written::Quota(object) => drop(self.quotas.put(quota(object, &mut self.shared_quotas))),
            Written::Limits(object) => drop(self.limits.put(limits(object, &mut self.shared_limits))),
            Written::Binding(object) => drop(self.bindings.put(binding(object))),
            Written::NoBinding => drop(self.bindings.items.remove(tool)),
            Written::NamespaceDeleted => {
                if let Some((_, seen)) = self.namespaces.items.get_mut(tool) {
                    seen.terminating = true;
                }
            }
        }
        self.refresh(tool);
    }

    /// `metadata.uid` of a tool's namespace, if that is the platform's and stays.
    pub(super) fn uid_of_ours(&self, tool: &ToolName) -> Option<&str> {
        let corner = self.state.namespaces.get(tool).filter(|corner| corner.is_ours() && !corner.terminating)?;
        Some(&corner.uid)
    }

    fn refresh(&mut self, tool: &ToolName) {
        match self.corner(tool) {
            Some(corner) => drop(self.state.namespaces.insert(tool.clone(), corner)),
            None => drop(self.state.namespaces.remove(tool)),
        }
    }

    fn corner(&self, tool: &ToolName) -> Option<Corner> {
        let (_, seen) = self.namespaces.items.get(tool)?;
        Some(Corner {
            uid: seen.uid.clone(),
            terminating: seen.terminating,
            labels: seen.labels.clone(),
            annotations: seen.annotations.clone(),
            quota: self.quotas.items.get(tool).and_then(|(_, spec)| spec.clone()),
            limits: self.limits.items.get(tool).and_then(|(_, spec)| spec.clone()),
            binding: self.bindings.items.get(tool).map(|(_, binding)| binding.clone()),
        })
    }
}

/// A tool, an object's version, and what matters of the object.
type Read<T> = Option<(ToolName, u64, T)>;

impl<T> Shelf<T> {
    fn take<K>(&mut self, event: Event<K>, mut read: impl FnMut(K) -> Read<T>) -> Concerns {
        match event {
            Event::Init => {
                self.listing.clear();
                Concerns::Nothing
            }
            Event::InitApply(object) => {
                let read = read(object);
                if let Some((tool, ..)) = &read {
                    self.listing.insert(tool.clone());
                }
                let concerns = self.put(read);
                // A first listing is told of at its end.
                if self.complete { concerns } else { Concerns::Nothing }
            }
            Event::InitDone => {
                let listing = std::mem::take(&mut self.listing);
                self.items.retain(|tool, _| listing.contains(tool));
                self.complete = true;
                Concerns::All
            }
            Event::Apply(object) => self.put(read(object)),
            Event::Delete(object) => match read(object) {
                Some((tool, version, _)) if self.items.get(&tool).is_some_and(|(known, _)| *known <= version) => {
                    self.items.remove(&tool);
                    Concerns::Tool(tool)
                }
                _ => Concerns::Nothing,
            },
        }
    }

    /// Keeps an object unless a later version of it is known.
    fn put(&mut self, read: Read<T>) -> Concerns {
        match read {
            Some((tool, version, item)) if self.items.get(&tool).is_none_or(|(known, _)| *known <= version) => {
                self.items.insert(tool.clone(), (version, item));
                Concerns::Tool(tool)
            }
            _ => Concerns::Nothing,
        }
    }
}

impl<T: PartialEq> Shared<T> {
    /// The one that is kept of this value.
    fn one(&mut self, value: T) -> Arc<T> {
        if let Some(known) = self.0.iter().find(|known| ***known == value) {
            return known.clone();
        }
        if self.0.len() >= MOST_SHARED {
            // Nobody has some of them any more.
            self.0.retain(|known| Arc::strong_count(known) > 1);
            self.0.truncate(MOST_SHARED / 2);
        }
        let value = Arc::new(value);
        self.0.push(value.clone());
        value
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), listing: BTreeSet::new(), complete: false }
    }
}

fn namespace(metadata: ObjectMeta) -> Read<NamespaceSeen> {
    let tool = ToolName::of_namespace(metadata.name.as_deref()?)?;
    let seen = NamespaceSeen {
        uid: metadata.uid.unwrap_or_default(),
        terminating: metadata.deletion_timestamp.is_some(),
        labels: Arc::new(metadata.labels.unwrap_or_default()),
        annotations: Arc::new(metadata.annotations.unwrap_or_default()),
    };
    Some((tool, version(metadata.resource_version.as_deref()), seen))
}

fn quota(object: ResourceQuota, shared: &mut Shared<ResourceQuotaSpec>) -> Read<Option<Arc<ResourceQuotaSpec>>> {
    let (tool, version) = owned(&object.metadata, ToolName::namespace)?;
    Some((tool, version, object.spec.map(|spec| shared.one(spec))))
}

fn limits(object: LimitRange, shared: &mut Shared<LimitRangeSpec>) -> Read<Option<Arc<LimitRangeSpec>>> {
    let (tool, version) = owned(&object.metadata, ToolName::namespace)?;
    Some((tool, version, object.spec.map(|spec| shared.one(spec))))
}

fn binding(object: RoleBinding) -> Read<Arc<Binding>> {
    let (tool, version) = owned(&object.metadata, objects::binding_name)?;
    let binding = Binding { role: object.role_ref, subjects: object.subjects.unwrap_or_default() };
    Some((tool, version, Arc::new(binding)))
}

/// The tool of an object in a tool's namespace, if it has the name that ours has there.
fn owned(metadata: &ObjectMeta, name: impl Fn(&ToolName) -> String) -> Option<(ToolName, u64)> {
    let tool = ToolName::of_namespace(metadata.namespace.as_deref()?)?;
    let is_ours = metadata.name.as_deref() == Some(name(&tool).as_str());
    is_ours.then(|| (tool, version(metadata.resource_version.as_deref())))
}

/// Versions of one kind of object grow (Kubernetes says so since 1.35); one that cannot be read counts as the newest.
fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}
