//! Logging: one JSON object a line on standard error. `HEARTH_LOG` sets the level (default `info`).
//!
//! Never logged: passwords, keys, tokens, request bodies, cookies.

use tracing_subscriber::EnvFilter;

/// Starts logging. Call once, first.
pub fn init() {
    let filter = EnvFilter::try_from_env("HEARTH_LOG").unwrap_or_else(|_| EnvFilter::new("info,kube=warn"));
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).with_writer(std::io::stderr).init();
}
