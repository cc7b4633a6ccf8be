//! What the front door costs beyond the requests of one kept connection: whole ways to a tool, new connections, idle
//! ones, and how long the slowest requests take. Beside nginx, `HAProxy` and the article's chain of them. Run by
//! `bench/front`.
//!
//! Everybody does TLS towards the client, finds the host among three thousand and writes an access log. They run in turn,
//! several rounds, and ratios are taken within a round.
#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement prints, and one that cannot go on has failed"
)]

mod chains;
#[expect(dead_code, reason = "a measurement needs a part of what the tests need")]
#[path = "../../tests/it/control_plane.rs"]
mod control_plane;
#[expect(dead_code, reason = "a measurement needs a part of what there is")]
#[path = "../shared/figures.rs"]
mod figures;
mod greetings;
mod idle;
#[path = "../shared/listening.rs"]
mod listening;
#[path = "../proxy/load.rs"]
mod load;
mod paced;
#[path = "../proxy/peers.rs"]
mod peers;
#[expect(dead_code, reason = "a measurement needs a part of what there is")]
#[path = "../shared/process.rs"]
mod process;

use figures::number;
use load::{Protocol, Target};
use peers::{Peer, Site};

/// The bytes of an answer.
const SIZE: usize = 1 << 10;

/// How much is measured.
struct Extent {
    rounds: usize,
    /// How many requests go each way in a round.
    requests: usize,
    /// How many connections are made, and how many are left idle.
    connections: usize,
    /// For how many seconds requests come at a constant rate.
    seconds: usize,
    /// Which rate; nothing for half of what the slowest reaches.
    rate: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let extent = Extent {
        rounds: number("ROUNDS", 3)?,
        requests: number("REQUESTS", 20_000)?,
        connections: number("CONNECTIONS", 2_000)?,
        seconds: number("SECONDS", 8)?,
        rate: number("RATE", 0)?,
    };
    let parts = std::env::var("PARTS").unwrap_or_else(|_| "chains greetings idle paced".to_owned());
    let is_wanted = |part: &str| parts.split_whitespace().any(|wanted| wanted == part);
    let folder = tempfile::tempdir()?;
    let site = Site::new(folder.path(), load::backend().await?)?;
    peers::routes(&site).await?;
    if is_wanted("chains") {
        chains::measure(&site, &extent).await?;
    }
    if is_wanted("greetings") {
        greetings::measure(&site, &extent).await?;
    }
    if is_wanted("idle") {
        idle::measure(&site, &extent).await?;
    }
    if is_wanted("paced") {
        paced::measure(&site, &extent).await?;
    }
    Ok(())
}

/// A page of one of these, as a browser asks for it.
fn target(site: &Site, address: std::net::SocketAddr, protocol: Protocol) -> Target {
    Target { address, roots: Some(site.roots.clone()), protocol, size: SIZE }
}

/// Our front door first, and those of the others that are there.
async fn all(site: &Site) -> anyhow::Result<Vec<Peer>> {
    let mut all = vec![peers::hearth(site).await?];
    all.extend(peers::nginx(site)?);
    all.extend(peers::haproxy(site)?);
    for peer in &all {
        println!("  {}: {}", peer.name, peer.version);
    }
    Ok(all)
}
