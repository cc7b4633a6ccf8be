//! What is known of tools: from the metadata of their namespaces, followed by one watch.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt;
use hearth_core::ToolName;
use hearth_core::names::annotation;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};

/// Of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tool {
    /// The maintainers' account names, sorted.
    pub maintainers: Vec<String>,
    /// Whether the tool is disabled.
    pub disabled: bool,
}

/// All tools.
#[derive(Debug, Default)]
pub struct Tools(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    tools: BTreeMap<ToolName, Tool>,
    complete: bool,
}

/// Follows the namespaces for ever. What is known stays known while the API server is away.
pub async fn follow(client: kube::Client, tools: Arc<Tools>) {
    let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(client);
    let events = watcher(namespaces, Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut listed = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(namespace)) => listed.extend(read(&namespace.metadata)),
            Ok(Event::InitDone) => tools.replace(std::mem::take(&mut listed)),
            Ok(Event::Apply(namespace)) => {
                if let Some((name, tool)) = read(&namespace.metadata) {
                    tools.set(name, tool);
                }
            }
            Ok(Event::Delete(namespace)) => {
                if let Some((name, _)) = read(&namespace.metadata) {
                    tools.remove(&name);
                }
            }
            Err(error) => tracing::warn!(%error, "the namespaces are not heard of"),
        }
    }
}

/// A tool from its namespace's metadata.
fn read(metadata: &ObjectMeta) -> Option<(ToolName, Tool)> {
    let name = ToolName::of_namespace(metadata.name.as_deref()?)?;
    let annotation = |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key)).map(String::as_str);
    let maintainers = annotation(annotation::MAINTAINERS).unwrap_or_default();
    let maintainers = maintainers.split(',').map(str::trim).filter(|name| !name.is_empty());
    let tool = Tool {
        maintainers: maintainers.map(str::to_owned).collect(),
        disabled: annotation(annotation::STATE) == Some("disabled"),
    };
    Some((name, tool))
}

// === impl Tools ===

impl Tools {
    /// These are all tools.
    pub fn replace(&self, tools: BTreeMap<ToolName, Tool>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Known { tools, complete: true };
    }

    /// Whether all tools have been listed once.
    pub(super) fn is_complete(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).complete
    }

    pub(super) fn get(&self, name: &ToolName) -> Option<Tool> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).tools.get(name).cloned()
    }

    /// Calls `read` with the names of the tools that are not disabled.
    pub(super) fn with_active<T>(&self, read: impl FnOnce(&mut dyn Iterator<Item = &ToolName>) -> T) -> T {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        read(&mut known.tools.iter().filter(|(_, tool)| !tool.disabled).map(|(name, _)| name))
    }

    fn set(&self, name: ToolName, tool: Tool) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).tools.insert(name, tool);
    }

    fn remove(&self, name: &ToolName) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).tools.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_read_from_annotations() {
        let metadata = |value: serde_json::Value| serde_json::from_value::<ObjectMeta>(value).unwrap();
        let annotations = serde_json::json!({
            "hearth.internal/maintainers": "ada, grace,", "hearth.internal/state": "disabled",
        });
        let (name, tool) =
            read(&metadata(serde_json::json!({"name": "tool-wikibot", "annotations": annotations}))).unwrap();
        assert_eq!(name.as_str(), "wikibot");
        assert_eq!(tool, Tool { maintainers: vec!["ada".to_owned(), "grace".to_owned()], disabled: true });
        let bare = read(&metadata(serde_json::json!({"name": "tool-x"}))).unwrap();
        assert_eq!(bare.1, Tool::default());
        assert_eq!(read(&metadata(serde_json::json!({"name": "kube-system"}))), None);
    }
}
