//! Web services: what a maintainer asks for, the objects that it becomes, and what is to be said of them.
//!
//! The command `webservice` reads files and objects, and hands them to this module: which settings hold
//! ([`settings`]), in which units ([`quantity`]), with which image ([`types`]), as which objects ([`objects`]), and in
//! which state they are ([`state`]). The names, labels and formats are those of the original `webservice`, because
//! maintainers' scripts and files depend on them.
//!
//! Nothing here reads a file, the clock or the cluster.

pub mod manifest;
pub mod objects;
pub mod quantity;
pub mod settings;
pub mod state;
pub mod template;
pub mod types;
mod yaml;

pub use manifest::Manifest;
pub use objects::Objects;
pub use quantity::{Cpu, Memory};
pub use settings::{Backend, Settings, Wishes};
pub use state::State;
pub use template::Template;
pub use types::{Types, WebType};
pub use yaml::YamlError;

/// Who writes the objects of web services, for server-side apply and in the label `app.kubernetes.io/managed-by`.
pub const MANAGER: &str = "webservice";

/// The name of the container in a web service's pod.
pub const CONTAINER: &str = "webservice";

/// The program in every runtime image that starts the tool's own.
pub const RUNNER: &str = "/usr/bin/webservice-runner";

/// The annotation of a pod template that says when it was started, RFC 3339; another value starts new pods.
pub const STARTED_AT: &str = "toolforge.org/started-at";

/// The state file in a tool's home.
pub const MANIFEST_FILE: &str = "service.manifest";

/// The maintainer's own file of settings, looked for in [`TEMPLATE_FOLDERS`].
pub const TEMPLATE_FILE: &str = "service.template";

/// Folders below a tool's home in which a template may lie; in one of them only.
pub const TEMPLATE_FOLDERS: &[&str] = &["", "www/python/src", "www/js", "public_html"];
