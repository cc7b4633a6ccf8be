//! The annotations of all namespaces, kept current by a watch.
//!
//! A review does not carry its namespace's annotations, and a call to the API server for each review would make
//! admission depend on the server that is waiting for it. Only what the rules read is kept.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use futures::{StreamExt, TryStreamExt};
use hearth_core::names::annotation;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, metadata_watcher};
use kube::{Api, Client};

/// The annotations that the rules read.
const KEPT: &[&str] = &[annotation::UID];

/// What is known of all namespaces. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Namespaces(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    known: RwLock<HashMap<String, BTreeMap<String, String>>>,
    /// Namespaces of a listing that is not complete.
    listing: RwLock<HashMap<String, BTreeMap<String, String>>>,
    complete: AtomicBool,
}

impl Namespaces {
    /// Keeps them current by a watch until the process ends. Starts empty.
    pub fn watch(client: Client) -> Self {
        let namespaces = Self::default();
        let kept = namespaces.clone();
        tokio::spawn(async move {
            let api: Api<Namespace> = Api::all(client);
            let events = metadata_watcher(api, watcher::Config::default()).default_backoff();
            let mut events = std::pin::pin!(events.into_stream());
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
        let lock = |of: &RwLock<HashMap<_, _>>, change: &mut dyn FnMut(&mut HashMap<_, _>)| {
            change(&mut of.write().unwrap_or_else(PoisonError::into_inner));
        };
        match event {
            Event::Apply(namespace) => {
                let (name, annotations) = entry(namespace);
                lock(&self.0.known, &mut |known| drop(known.insert(name.clone(), annotations.clone())));
            }
            Event::Delete(namespace) => {
                let (name, _) = entry(namespace);
                lock(&self.0.known, &mut |known| drop(known.remove(&name)));
            }
            Event::Init => lock(&self.0.listing, &mut HashMap::clear),
            Event::InitApply(namespace) => {
                let (name, annotations) = entry(namespace);
                lock(&self.0.listing, &mut |listing| drop(listing.insert(name.clone(), annotations.clone())));
            }
            Event::InitDone => {
                let mut listed = HashMap::new();
                lock(&self.0.listing, &mut |listing| listed = std::mem::take(listing));
                lock(&self.0.known, &mut |known| *known = std::mem::take(&mut listed));
                self.0.complete.store(true, Ordering::Release);
            }
        }
    }

    /// The annotations of a namespace that the rules read; nothing where it is not known.
    pub fn annotations(&self, name: &str) -> Option<BTreeMap<String, String>> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Whether all namespaces have been listed once.
    pub fn is_complete(&self) -> bool {
        self.0.complete.load(Ordering::Acquire)
    }
}

fn entry(namespace: PartialObjectMeta<Namespace>) -> (String, BTreeMap<String, String>) {
    let mut annotations = namespace.metadata.annotations.unwrap_or_default();
    annotations.retain(|key, _| KEPT.contains(&key.as_str()));
    (namespace.metadata.name.unwrap_or_default(), annotations)
}
