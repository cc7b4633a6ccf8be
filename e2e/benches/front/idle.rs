//! How much memory an idle TLS connection takes: one that has had its answer and waits for the next request.
//!
//! Each is measured in a process that has just begun, since one that has worked has memory to spare. What the kernel
//! keeps for the socket is not in it, and is the same for all.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::StreamExt;

use crate::figures::summary;
use crate::load::{Client, Protocol, Target};
use crate::peers::{self, Peer, Site};
use crate::{Extent, SIZE, target};

/// How many connections are made before anything is measured, and at a time.
const FIRST: usize = 64;
const AT_ONCE: usize = 16;

/// Memory has settled when it is the same for so long; it has so long to settle.
const STILL: Duration = Duration::from_millis(500);
const SETTLED: Duration = Duration::from_secs(20);

/// Measures everybody in turn, and prints what came of it.
pub(crate) async fn measure(site: &Site, extent: &Extent) -> anyhow::Result<()> {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        println!("\nidle connections of {protocol:?} with TLS, KiB for each of {}", extent.connections);
        let mut figures: [(&str, Vec<f64>); 3] = ["hearth", "nginx", "haproxy"].map(|name| (name, Vec::new()));
        for _ in 0..extent.rounds {
            for (name, values) in &mut figures {
                let peer = match *name {
                    "hearth" => Some(peers::hearth(site).await?),
                    "nginx" => peers::nginx(site)?,
                    _ => peers::haproxy(site)?,
                };
                let Some(peer) = peer else { continue };
                values.push(each(&peer, &target(site, peer.address, protocol), extent.connections).await?);
            }
        }
        for (name, values) in figures.iter().filter(|(_, values)| !values.is_empty()) {
            summary(name, values);
        }
    }
    Ok(())
}

/// What one of `count` takes, in KiB.
async fn each(peer: &Peer, target: &Target, count: usize) -> anyhow::Result<f64> {
    let mut first = open(target, FIRST).await?;
    let before = settled(peer).await?;
    let mut idle = open(target, count).await?;
    let after = settled(peer).await?;
    // All of them were there to the end.
    for client in first.iter_mut().chain(&mut idle) {
        client.get(SIZE).await?;
    }
    Ok((after - before) / count as f64)
}

async fn open(target: &Target, count: usize) -> anyhow::Result<Vec<Client>> {
    let made = futures::stream::iter(0..count).map(async |_| {
        let mut client = Client::connect(target).await?;
        client.get(SIZE).await?;
        anyhow::Ok(client)
    });
    made.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await.into_iter().collect()
}

/// The memory of a peer that has nothing left to do, in KiB.
async fn settled(peer: &Peer) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut last = peer.memory()?;
    loop {
        tokio::time::sleep(STILL).await;
        let now = peer.memory()?;
        if (now - last).abs() < 64.0 {
            return Ok(now);
        }
        ensure!(begun.elapsed() < SETTLED, "the memory of {} does not settle", peer.name);
        last = now;
    }
}
