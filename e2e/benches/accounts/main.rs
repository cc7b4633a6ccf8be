//! What keeping 4,000 accounts takes: all of them from nothing beside a bare client that writes the same objects, a new
//! one beside those that stand, a restart, rest, memory. Run by `bench/accounts` on an instance made for it.
#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement prints, and one that cannot go on has failed"
)]

mod bare;
mod directory;
mod instance;
#[expect(dead_code, reason = "a measurement needs a part of what there is")]
#[path = "../shared/process.rs"]
mod process;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use instance::{Calls, Instance};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(1800);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (tools, adds, rest) = (number("TOOLS", 4000)?, number("ADDS", 200)?, number("REST", 60)?);
    let instance = Instance::open().await?;
    let before = instance.tools()?;
    ensure!(before < 10, "this instance has {before} tools: the measurement needs one of its own, see bench/accounts");

    instance.scale(0).await?;
    let server = instance.process("kube-apiserver")?;
    let (calls, spent, began) = (instance.calls().await?, process::processor_time(server)?, Instant::now());
    bare::run(&instance.client, tools).await?;
    let bare = began.elapsed();
    let bare_spent = process::processor_time(server)? - spent;
    report("a bare client, all from nothing", bare, bare_spent, &instance.calls().await?.since(&calls), tools);

    let began = Instant::now();
    directory::load(&instance, tools).await?;
    println!(
        "{:<60} {:>9.1} s",
        format!("(writing {tools} entries into the directory)"),
        began.elapsed().as_secs_f64()
    );
    let (calls, spent) = (instance.calls().await?, process::processor_time(server)?);
    instance.scale(1).await?;
    let ours = instance.clean_after_start(before + tools, PATIENCE).await?;
    let ours_spent = process::processor_time(server)? - spent;
    report("accounts, all from nothing", ours, ours_spent, &instance.calls().await?.since(&calls), tools);
    let own = process::processor_time_of_all(instance.role()?)?.as_secs_f64() * 1e3 / tools as f64;
    println!("{:<60} {own:>9.2} ms", "  the processor time of accounts and its children, per tool");
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    println!("{:<60} {ratio:>9.2} times the bare client's time, at most 2", "accounts, all from nothing");

    let mut times = Vec::new();
    for index in 0..adds {
        times.push(directory::add(&instance, index).await?.as_secs_f64());
    }
    summary(
        &format!("`hearth tool create` to a kubeconfig that works, {tools} standing"),
        "s",
        "p99 at most 1",
        &mut times,
    );

    let all = before + tools + adds;
    instance.clean_after_start(all, PATIENCE).await?;
    restarts(&instance, all).await?;
    at_rest(&instance, all, rest).await
}

/// Ends the role as a crash would, and lets it find that all is as it should be.
async fn restarts(instance: &Instance, all: usize) -> anyhow::Result<()> {
    let mut restarts = Vec::new();
    for _ in 0..3 {
        let calls = instance.calls().await?;
        instance.kill_role().await?;
        restarts.push(instance.clean_after_start(all, PATIENCE).await?.as_secs_f64());
        let written = instance.calls().await?.since(&calls).writes();
        ensure!(written == 0, "a restart with everything in order wrote {written} times");
    }
    summary("a restart with everything in order, 0 writes", "s", "at most 5", &mut restarts);
    Ok(())
}

/// What the role does when nothing is to be done.
async fn at_rest(instance: &Instance, all: usize, rest: usize) -> anyhow::Result<()> {
    let role = instance.role()?;
    let (calls, spent) = (instance.calls().await?, process::processor_time_of_all(role)?);
    tokio::time::sleep(Duration::from_secs(rest as u64)).await;
    let quiet = instance.calls().await?.since(&calls);
    let used = (process::processor_time_of_all(role)? - spent).as_secs_f64() / rest as f64 * 100.0;
    println!(
        "{:<60} {:>9} writes but the Lease's, {} reads",
        format!("at rest for {rest} s"),
        quiet.writes(),
        quiet.reads()
    );
    println!("{:<60} {used:>9.2} % of a processor", "at rest");
    println!("{:<60} {:>9.1} MiB, at most 48", format!("memory with {all} tools (PSS)"), process::memory(role)?);
    Ok(())
}

fn report(what: &str, time: Duration, spent: u64, calls: &Calls, tools: usize) {
    println!("{what:<60} {:>9.1} s for {tools}", time.as_secs_f64());
    println!("{:<60} {:>9.2} ms", "  the API server's processor time, per tool", each(spent, tools));
    println!("{:<60} {:>9.2}", "  writing calls, per tool", calls.writes() as f64 / tools as f64);
}

/// Nanoseconds in all, as milliseconds for each.
fn each(nanoseconds: u64, tools: usize) -> f64 {
    nanoseconds as f64 / 1e6 / tools as f64
}

/// A number from the environment.
fn number(name: &str, default: usize) -> anyhow::Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is \"{text}\": it must be a number")),
        Err(_) => Ok(default),
    }
}

/// Prints the least, the middle, the 99th of a hundred and the greatest of some values.
fn summary(name: &str, unit: &str, limit: &str, values: &mut [f64]) {
    values.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() as f64 * share).ceil() as usize).clamp(1, values.len()) - 1];
    println!(
        "{name:<60} least {:.2}, middle {:.2}, p99 {:.2}, greatest {:.2} {unit}; {limit}, {} runs",
        at(0.0),
        at(0.5),
        at(0.99),
        at(1.0),
        values.len()
    );
}
