//! The annotations of all namespaces, kept current by a watch.
//!
//! A review does not carry its namespace's annotations, and a call to the API server for each review would make
//! admission depend on the server that is waiting for it. Only what the rules read is kept.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt;
use hearth_core::names::annotation;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

/// The annotations that the rules read.
const KEPT: &[&str] = &[annotation::SERVICE_ACCOUNT, annotation::UID];

/// What is known of all namespaces. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Namespaces(Arc<RwLock<State>>);

type ByName = HashMap<String, Arc<BTreeMap<String, String>>>;

#[derive(Debug, Default)]
struct State {
    known: ByName,
    /// Namespaces of a listing that is not complete.
    listing: ByName,
    /// Whether a listing has been completed.
    complete: bool,
}

impl Namespaces {
    /// Keeps them current by a watch until the process ends. Starts empty.
    pub fn watch(client: Client) -> Self {
        let namespaces = Self::default();
        let kept = namespaces.clone();
        tokio::spawn(async move {
            let api: Api<PartialObjectMeta<Namespace>> = Api::all(client);
            let mut events = std::pin::pin!(watcher(api, Config::default()).default_backoff());
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => kept.apply(event),
                    Err(error) => tracing::warn!(%error, "the watch of namespaces failed; trying again"),
                }
            }
        });
        namespaces
    }

    /// Takes in an event of the watch.
    pub fn apply(&self, event: Event<PartialObjectMeta<Namespace>>) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Apply(namespace) => state.known.extend([entry(namespace)]),
            Event::Delete(namespace) => drop(state.known.remove(&entry(namespace).0)),
            Event::Init => state.listing.clear(),
            Event::InitApply(namespace) => state.listing.extend([entry(namespace)]),
            Event::InitDone => {
                state.known = std::mem::take(&mut state.listing);
                state.complete = true;
            }
        }
    }

    /// The annotations of a namespace that the rules read; nothing where it is not known.
    pub fn annotations(&self, name: &str) -> Option<Arc<BTreeMap<String, String>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).known.get(name).cloned()
    }

    /// Whether all namespaces have been listed once.
    pub fn is_complete(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).complete
    }
}

fn entry(namespace: PartialObjectMeta<Namespace>) -> (String, Arc<BTreeMap<String, String>>) {
    let mut annotations = namespace.metadata.annotations.unwrap_or_default();
    annotations.retain(|key, _| KEPT.contains(&key.as_str()));
    (namespace.metadata.name.unwrap_or_default(), Arc::new(annotations))
}
