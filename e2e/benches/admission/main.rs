//! What admission costs: the webhook's processor time for a review, its memory and start, and what policies and webhook
//! add to the creation of a pod. Run by `bench/admission`.
//!
//! The control plane and the webhook are processes of their own; what is counted is the processor time that the kernel
//! charges to one of them, so that neither this program's own work nor the machine's other work is in the figures.
//! What is compared runs in turn, several rounds, and ratios are taken within a round.
#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement prints, and one that cannot go on has failed"
)]

#[expect(dead_code, reason = "a measurement needs a part of what the tests need")]
#[path = "../../tests/it/control_plane.rs"]
mod control_plane;
#[path = "../../tests/it/control_role.rs"]
mod control_role;
mod creations;
mod load;
mod objects;
#[expect(dead_code, reason = "a measurement needs a part of what there is")]
#[path = "../shared/process.rs"]
mod process;
mod reviews;

use std::time::Duration;

use anyhow::Context;
use hearth_core::names::annotation;

use control_plane::control_plane;
use control_role::Role;

/// The tool whose objects are judged.
const NAMESPACE: &str = "tool-wikibot";
const UID: &str = "50123";

/// The configuration that the objects are about.
const PLATFORM: &str = r#"
    [domains]
    public = ["hearth.localhost"]
    legacy = "tools.hearth.localhost"
    [api]
    server = "https://127.0.0.1:6443"
    [directory]
    url = "ldaps://ldap.hearth.internal"
    base = "dc=hearth,dc=internal"
    bind_dn = "cn=reader,dc=hearth,dc=internal"
    [registry]
    host = "registry.hearth.internal"
"#;

/// How long a process is left alone before its memory at rest is read.
const REST: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let rounds = number("ROUNDS", 5)?;
    let plane = control_plane().await;
    plane.namespace(NAMESPACE, &[(annotation::UID, UID)]).await?;
    let mut role = Role::start(plane, PLATFORM, true)?;
    let mut starts = Vec::new();
    for _ in 0..10 {
        starts.push(role.start_again()?.as_secs_f64() * 1e3);
    }
    summary("webhook: start to ready", "ms", "at most 100", &starts);
    tokio::time::sleep(REST).await;
    let at_rest = process::memory(role.child.id())?;
    summary("webhook: memory at rest (PSS)", "MiB", "at most 16", &[at_rest]);
    reviews::run(&role, rounds, number("REVIEWS", 20_000)?).await?;
    summary("webhook: memory after all reviews (PSS)", "MiB", "at most 16", &[process::memory(role.child.id())?]);
    drop(role);

    match number("CREATIONS", 500)? {
        0 => Ok(()),
        count => creations::run(plane, &Role::start(plane, PLATFORM, false)?, rounds, count).await,
    }
}

/// A number from the environment.
fn number(name: &str, default: usize) -> anyhow::Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is \"{text}\": it must be a number")),
        Err(_) => Ok(default),
    }
}

/// Prints the least, the middle and the greatest of some values.
fn summary(name: &str, unit: &str, limit: &str, values: &[f64]) {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (least, middle, greatest) = (sorted[0], sorted[(sorted.len() - 1) / 2], sorted[sorted.len() - 1]);
    let note = if limit.is_empty() { String::new() } else { format!("{limit}, ") };
    println!("{name:<64} {least:>9.1} {middle:>9.1} {greatest:>9.1} {unit:<5} {note}{} runs", values.len());
}
