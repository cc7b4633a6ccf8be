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
#[path = "../shared/figures.rs"]
mod figures;
#[path = "../shared/listening.rs"]
mod listening;
mod load;
#[expect(dead_code, reason = "bench/front needs more of it")]
mod peers;
#[expect(dead_code, reason = "a measurement needs a part of what there is")]
#[path = "../shared/process.rs"]
mod process;

use std::time::Duration;

use figures::{machine_time, number, ratios, summary};
use load::{Protocol, Target};
use peers::Peer;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (rounds, requests) = (number("ROUNDS", 5)?, number("REQUESTS", 40_000)?);
    let folder = tempfile::tempdir()?;
    let backend = load::backend().await?;
    let site = peers::Site::new(folder.path(), backend)?;
    peers::routes(&site).await?;
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
        summary(&format!("hearth / {}: processes", peer.name), &ratios(&own[0], &own[index]));
        summary(&format!("hearth / {}: whole machine", peer.name), &ratios(&whole[0], &whole[index]));
    }
    Ok(())
}
