//! The tools and the digests of their passwords, kept current by a watch on their namespaces.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt;
use hearth_core::ToolName;
use hearth_core::names::label;
use hearth_core::registry::Account;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, ResourceExt};

use super::Shared;

/// The tools that may log in; unknown until the first list is complete.
#[derive(Debug, Default)]
pub struct Accounts(RwLock<Table>);

#[derive(Debug, Default)]
struct Table {
    current: Option<HashMap<ToolName, Account>>,
    /// What a list that is under way has brought.
    next: HashMap<ToolName, Account>,
}

impl Accounts {
    /// Whether the tools are known.
    pub fn known(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).current.is_some()
    }

    /// A tool's account, where it has one.
    pub fn of(&self, tool: &ToolName) -> Option<Account> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).current.as_ref()?.get(tool).cloned()
    }

    /// Takes in what the watch told. A list replaces everything at its end, and what was known serves until then.
    pub fn take(&self, event: Event<PartialObjectMeta<Namespace>>) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => table.next.clear(),
            Event::InitApply(namespace) => put(&mut table.next, &namespace),
            Event::InitDone => table.current = Some(std::mem::take(&mut table.next)),
            Event::Apply(namespace) => put(table.current.get_or_insert_default(), &namespace),
            Event::Delete(namespace) => {
                if let (Some(tool), Some(current)) = (tool_of(&namespace), table.current.as_mut()) {
                    current.remove(&tool);
                }
            }
        }
    }
}

/// Keeps the accounts current for as long as it runs. A watch that breaks is begun again.
pub(super) async fn follow(client: Client, shared: Arc<Shared>) {
    let tools = watcher::Config::default().labels(&format!("{}=tool", label::TENANCY));
    let mut events = watch(Api::<PartialObjectMeta<Namespace>>::all(client), tools).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => shared.accounts.take(event),
            Err(error) => tracing::warn!(%error, "the watch on namespaces broke; it is begun again"),
        }
    }
}

fn put(table: &mut HashMap<ToolName, Account>, namespace: &PartialObjectMeta<Namespace>) {
    let Some(tool) = tool_of(namespace) else { return };
    match Account::of_annotations(namespace.annotations()) {
        Some(account) => table.insert(tool, account),
        None => table.remove(&tool),
    };
}

fn tool_of(namespace: &PartialObjectMeta<Namespace>) -> Option<ToolName> {
    ToolName::of_namespace(namespace.metadata.name.as_deref()?)
}
