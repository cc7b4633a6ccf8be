//! Kubernetes Events on a tool's namespace: why the platform could not do something for the tool, where `kubectl get
//! events` shows it to maintainers and operators.

use hearth_core::{ToolName, names};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

/// The longest note that the API server takes, in bytes.
const LONGEST: usize = 1024;

/// What writes events.
#[derive(Clone)]
pub(super) struct Events(Recorder);

impl Events {
    pub(super) fn new(client: &Client) -> Self {
        Self(Recorder::new(client.clone(), Reporter::from(names::FIELD_MANAGER)))
    }

    /// Writes one, in the background. Whoever reads the log knows it too, so that one that is lost is no loss.
    pub(super) fn warn(&self, tool: &ToolName, uid: &str, reason: &str, action: &str, mut note: String) {
        note.truncate(note.floor_char_boundary(LONGEST));
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some(tool.namespace()),
            // The namespace that the event is written to: the tool's own.
            namespace: Some(tool.namespace()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let (recorder, tool) = (self.0.clone(), tool.clone());
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&event, &regarding).await {
                tracing::debug!(%tool, %error, "an event could not be written");
            }
        });
    }
}
