//! What the front door costs for a request, beside nginx and `HAProxy` doing the same. Run by `bench/proxy`.
//!
//! Each does TLS towards the client, keeps connections to one backend, finds the host among three thousand, writes an
//! access log and counts the client's requests. They run in turn, several rounds, and ratios are taken within a round.
//! Two figures are given: the processor time that the kernel charges to the proxy's processes, and the whole machine's
//! less that of the same load sent straight to the backend: on loopback a receiver's work is charged to who sends.
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
#[path = "../shared/listening.rs"]
mod listening;
mod load;
mod peers;
#[expect(dead_code, reason = "a measurement needs a part of what there is")]
#[path = "../shared/process.rs"]
mod process;

use std::time::Duration;

use anyhow::Context;

use load::{Protocol, Target};
use peers::Peer;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (rounds, requests) = (number("ROUNDS", 5)?, number("REQUESTS", 40_000)?);
    let folder = tempfile::tempdir()?;
    let backend = load::backend().await?;
    let site = peers::Site::new(folder.path(), backend)?;
    let mut all = vec![peers::hearth(&site).await?];
    all.extend(peers::nginx(&site)?);
    all.extend(peers::haproxy(&site)?);
    for peer in &all {
        println!("{}: {}", peer.name, peer.version);
    }
    // A large answer takes as much as many small ones.
    for (size, requests) in [(1 << 10, requests), (30 << 10, requests), (1 << 20, requests / 20)] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            measure(&site, &all, protocol, size, rounds, requests).await?;
        }
    }
    Ok(())
}

/// Measures one kind of load, everybody in turn, and prints what came of it.
async fn measure(
    site: &peers::Site,
    all: &[Peer],
    protocol: Protocol,
    size: usize,
    rounds: usize,
    requests: usize,
) -> anyhow::Result<()> {
    println!("\n{protocol:?} with TLS, {} KiB, microseconds of processor time for a request", size >> 10);
    let mut own: Vec<Vec<f64>> = vec![Vec::new(); all.len()];
    let mut whole = own.clone();
    for _ in 0..rounds {
        let straight = Target { address: site.backend, roots: None, protocol: Protocol::Http1, size };
        let before = machine_time()?;
        load::run(&straight, requests).await?;
        let bare = machine_time()?.saturating_sub(before);
        for (index, peer) in all.iter().enumerate() {
            let target = Target { address: peer.address, roots: Some(site.roots.clone()), protocol, size };
            // Connections are made and pools are filled.
            load::run(&target, requests / 20).await?;
            let (charged, busy) = (peer.processor_time()?, machine_time()?);
            load::run(&target, requests).await?;
            let each = |time: Duration| time.as_secs_f64() * 1e6 / requests as f64;
            own[index].push(each(peer.processor_time()?.saturating_sub(charged)));
            whole[index].push(each(machine_time()?.saturating_sub(busy).saturating_sub(bare)));
        }
    }
    for (index, peer) in all.iter().enumerate() {
        summary(&format!("{}: its processes", peer.name), &own[index]);
        summary(&format!("{}: whole machine, less the load's own", peer.name), &whole[index]);
    }
    for (index, peer) in all.iter().enumerate().skip(1) {
        let ratios =
            |of: &[Vec<f64>]| of[0].iter().zip(&of[index]).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>();
        summary(&format!("hearth / {}: processes", peer.name), &ratios(&own));
        summary(&format!("hearth / {}: whole machine", peer.name), &ratios(&whole));
    }
    Ok(())
}

/// The processor time that was spent on the whole machine since it started, to 10 ms.
fn machine_time() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat").context("failed to read /proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
    // User, nice, system, and what interrupts took; not idle, not waiting for disks.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|&index| fields.get(index)).sum::<u64>();
    Ok(Duration::from_millis(busy * 1000 / rustix::param::clock_ticks_per_second()))
}

/// A number from the environment.
fn number(name: &str, default: usize) -> anyhow::Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is \"{text}\": it must be a number")),
        Err(_) => Ok(default),
    }
}

/// Prints the least, the middle and the greatest of some values.
fn summary(name: &str, values: &[f64]) {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (least, middle, greatest) = (sorted[0], sorted[(sorted.len() - 1) / 2], sorted[sorted.len() - 1]);
    println!("  {name:<52} {least:>8.2} {middle:>8.2} {greatest:>8.2}");
}
