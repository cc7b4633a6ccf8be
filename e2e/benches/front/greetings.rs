//! What a new TLS connection costs: a full handshake of TLS 1.3, a P-256 certificate, one request, and its end.

use anyhow::ensure;

use crate::figures::{ratios, summary};
use crate::load::{Client, Protocol, Target};
use crate::peers::Site;
use crate::{Extent, SIZE, all, target};

/// How many are made at a time.
const AT_ONCE: usize = 16;

/// Measures everybody in turn, and prints what came of it.
pub(crate) async fn measure(site: &Site, extent: &Extent) -> anyhow::Result<()> {
    let &Extent { rounds, connections, .. } = extent;
    println!("\nnew connections, TLS 1.3 with one request of HTTP/1.1, microseconds of its processes' time for each");
    let all = all(site).await?;
    let mut own: Vec<Vec<f64>> = vec![Vec::new(); all.len()];
    for _ in 0..rounds {
        for (index, peer) in all.iter().enumerate() {
            let target = target(site, peer.address, Protocol::Http1);
            make(&target, connections / 10).await?;
            let charged = peer.processor_time()?;
            make(&target, connections).await?;
            let time = peer.processor_time()?.saturating_sub(charged);
            own[index].push(time.as_secs_f64() * 1e6 / connections as f64);
        }
    }
    for (index, peer) in all.iter().enumerate() {
        summary(peer.name, &own[index]);
        let each_second: Vec<f64> = own[index].iter().map(|each| 1e6 / each).collect();
        summary(&format!("{}: in a second of one processor", peer.name), &each_second);
    }
    for (index, peer) in all.iter().enumerate().skip(1) {
        summary(&format!("hearth / {}", peer.name), &ratios(&own[0], &own[index]));
    }
    Ok(())
}

async fn make(target: &Target, count: usize) -> anyhow::Result<()> {
    ensure!(count >= AT_ONCE, "CONNECTIONS must be at least {}", 10 * AT_ONCE);
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let target = target.clone();
            tokio::spawn(async move {
                for _ in 0..count / AT_ONCE {
                    Client::connect(&target).await?.get(SIZE).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}
