//! How long requests take that come at a constant rate, half of what can be had, whatever became of those before.
//!
//! A request's time runs from the moment for which it is planned: one that has to wait because the one before it on its
//! connection is slow has waited. So does the load itself, whose own share is shown by the same load sent straight to
//! the backend. Who plans has a thread of its own, because the runtime's clock goes by milliseconds.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::figures::{ratios, summary};
use crate::load::{self, Client, Protocol, Target};
use crate::peers::Site;
use crate::{Extent, SIZE, all, target};

/// How many connections the requests come on, in turn.
const CONNECTIONS: usize = 64;

/// The parts of which the times are shown: of a thousand requests so many are quicker.
const PARTS: [(&str, usize); 3] = [("p50", 500), ("p99", 990), ("p99.9", 999)];

/// Measures everybody in turn at one rate, and prints what came of it.
pub(crate) async fn measure(site: &Site, extent: &Extent) -> anyhow::Result<()> {
    println!("\nrequests at half of saturation, HTTP/1.1 with TLS, 1 KiB, milliseconds from their planned beginning");
    let all = all(site).await?;
    let straight = Target { address: site.backend, roots: None, protocol: Protocol::Http1, size: SIZE };
    let mut targets: Vec<_> = all.iter().map(|peer| (peer.name, target(site, peer.address, Protocol::Http1))).collect();
    targets.push(("straight to the backend", straight));
    let mut least = f64::MAX;
    for (name, target) in &targets {
        load::run(target, extent.requests / 20).await?;
        let begun = Instant::now();
        load::run(target, extent.requests).await?;
        let rate = extent.requests as f64 / begun.elapsed().as_secs_f64();
        println!("  {name:<52} {rate:>8.0} requests a second at most");
        least = least.min(rate);
    }
    let rate = if extent.rate == 0 { least / 2.0 } else { extent.rate as f64 };
    println!("  {:<52} {rate:>8.0} requests a second", "everybody is asked at");
    let mut times: Vec<[Vec<f64>; PARTS.len()]> = vec![Default::default(); targets.len()];
    for _ in 0..extent.rounds {
        for ((_, target), times) in targets.iter().zip(&mut times) {
            let mut all = paced(target, rate, (rate * extent.seconds as f64) as usize).await?;
            all.sort_unstable();
            for ((_, part), times) in PARTS.iter().zip(times) {
                times.push(all[all.len() * part / 1000].as_secs_f64() * 1e3);
            }
        }
    }
    for (at, (part, _)) in PARTS.iter().enumerate() {
        for ((name, _), times) in targets.iter().zip(&times) {
            summary(&format!("{name}: {part}"), &times[at]);
        }
    }
    for ((name, _), others) in targets.iter().zip(&times).take(all.len()).skip(1) {
        summary(&format!("hearth / {name}: p99.9"), &ratios(&times[0][2], &others[2]));
    }
    Ok(())
}

/// The times of so many requests.
async fn paced(target: &Target, rate: f64, count: usize) -> anyhow::Result<Vec<Duration>> {
    ensure!(count >= 1000, "SECONDS is too small for {count} requests to show the slowest of a thousand");
    let (mut planned, mut tasks) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        let mut client = Client::connect(target).await?;
        client.get(SIZE).await?;
        let (sender, requests) = unbounded_channel();
        planned.push(sender);
        tasks.push(tokio::spawn(ask(client, requests)));
    }
    let planner = std::thread::spawn(move || {
        let begun = Instant::now();
        for number in 0..count {
            let due = begun + Duration::from_secs_f64(number as f64 / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // Whoever does not take it any more has failed, which is found below.
            let _ = planned[number % CONNECTIONS].send(due);
        }
    });
    let mut times = Vec::with_capacity(count);
    for task in tasks {
        times.extend(task.await??);
    }
    planner.join().expect("the thread that plans does not panic");
    Ok(times)
}

/// Asks as often as it is told, and says how long each took since it was due.
async fn ask(mut client: Client, mut requests: UnboundedReceiver<Instant>) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    while let Some(due) = requests.recv().await {
        client.get(SIZE).await?;
        times.push(due.elapsed());
    }
    Ok(times)
}
