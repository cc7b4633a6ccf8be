//! What the table of routes costs: memory with many hosts, a look-up, a change until a visitor sees it, and what is kept
//! on disk. Run by `bench/routes`.
//!
//! The front door is the real program. Its API server is a fake one: with a real one, making 400,000 objects would be
//! what is measured. A change is timed from the moment in which its event is written on the watch to the end of the
//! first request that it leads elsewhere, on a connection that is open, so a request of some hundred microseconds is
//! in it.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement prints, and one that cannot go on has failed"
)]

mod api;
mod door;
#[path = "../shared/listening.rs"]
mod listening;
#[expect(dead_code, reason = "a measurement needs a part of what there is")]
#[path = "../shared/process.rs"]
mod process;

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hearth_core::route::{Change, Index, Source};
use hearth_core::{Domains, Host};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use serde::de::DeserializeOwned;

use api::{Api, name, object};
use door::{Client, Door, Site};

/// How long the front door may take until its table is on disk, and has nothing more to write there.
const KEPT: Duration = Duration::from_secs(300);

/// How many clients make the load.
const CLIENTS: usize = 8;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let changes = number("CHANGES", 1000)?;
    look_ups()?;
    let backends = [door::backend("one").await?, door::backend("two").await?];
    for tools in [4_000, 100_000] {
        measure(tools, backends, changes).await?;
    }
    Ok(())
}

/// The front door with so many tools.
async fn measure(tools: usize, backends: [SocketAddr; 2], changes: usize) -> anyhow::Result<()> {
    println!("\n{tools} tools, each with a host");
    let folder = tempfile::tempdir()?;
    let site = Site::new(folder.path())?;
    let api = Api::start(tools, backends[0]).await?;
    let begun = Instant::now();
    let door = Door::start(&site, &api)?;
    door.ready().await?;
    println!("  {:<58} {:>9.2} s", "from the start to a complete table", begun.elapsed().as_secs_f64());
    let kept = folder.path().join("state/routes");
    let size = || std::fs::metadata(&kept).map(|file| file.len());
    while size().is_err() {
        ensure!(begun.elapsed() < KEPT, "the front door keeps no table on disk");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("  {:<58} {:>9.2} s", "from the start to a table on disk", begun.elapsed().as_secs_f64());
    println!("  {:<58} {:>9.1} MiB", "the table on disk", size()? as f64 / f64::from(1 << 20));
    memory("memory of the process (PSS)", &door)?;

    let mut client = Client::connect(&site, &door).await?;
    let quiet = visible(&api, &mut client, backends, tools, changes).await?;
    summary("a change until it is seen, ms", quiet);
    let load = Load::start(&site, &door, tools).await?;
    let busy = visible(&api, &mut client, backends, tools, changes).await?;
    let served = load.stop().await?;
    println!("  {:<58} {:>9.0} /s", "requests of the load", served as f64 / busy.1.as_secs_f64());
    summary("the same under it, ms", busy);
    memory("memory after that", &door)?;
    let before = settled(size).await?;
    for tool in 0..10 {
        api.move_pod(tool, "10.0.0.9:8000".parse()?);
    }
    println!("  {:<58} {:>9} bytes", "ten changes on disk", settled(size).await?.saturating_sub(before));

    door.kill();
    api.set_away(true);
    let begun = Instant::now();
    let door = Door::start(&site, &api)?;
    let mut client = Client::connect(&site, &door).await?;
    let answer = client.get(&name(tools - 1)).await?;
    ensure!(answer == "one" || answer == "two", "a proxy that starts while the API server is away says {answer}");
    println!(
        "  {:<58} {:>9.2} s",
        "a start while the API server is away, to the first answer",
        begun.elapsed().as_secs_f64()
    );
    memory("memory after that", &door)?;
    Ok(())
}

/// How long each of some changes takes until a request sees it, in milliseconds, and how long all of it took.
async fn visible(
    api: &Api,
    client: &mut Client,
    backends: [SocketAddr; 2],
    tools: usize,
    changes: usize,
) -> anyhow::Result<Timed> {
    let begun = Instant::now();
    let mut times = Vec::with_capacity(changes);
    for change in 0..changes {
        let tool = (change * 7919) % tools;
        let host = name(tool);
        let (now, word) = if client.get(&host).await? == "one" { (backends[1], "two") } else { (backends[0], "one") };
        let event = Instant::now();
        api.move_pod(tool, now);
        while client.get(&host).await? != word {}
        times.push(event.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Timed(times, begun.elapsed()))
}

/// The length of a file to which nothing has been written for longer than between two writes.
async fn settled(size: impl Fn() -> std::io::Result<u64>) -> anyhow::Result<u64> {
    let begun = Instant::now();
    let mut last = (size()?, begun);
    while last.1.elapsed() < Duration::from_secs(3) {
        ensure!(begun.elapsed() < KEPT, "the front door writes its table to disk without a pause of three seconds");
        tokio::time::sleep(Duration::from_millis(50)).await;
        if size()? != last.0 {
            last = (size()?, Instant::now());
        }
    }
    Ok(last.0)
}

/// The times of some changes, and of all of them together.
struct Timed(Vec<f64>, Duration);

/// Clients that ask without a pause.
struct Load {
    ends: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<anyhow::Result<()>>>,
}

impl Load {
    async fn start(site: &Site, door: &Door, tools: usize) -> anyhow::Result<Self> {
        let (ends, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for number in 0..CLIENTS {
            let mut client = Client::connect(site, door).await?;
            let (ends, served) = (ends.clone(), served.clone());
            tasks.push(tokio::spawn(async move {
                let mut tool = number;
                while !ends.load(Ordering::Relaxed) {
                    tool = (tool + 104_729) % tools;
                    client.get(&name(tool)).await?;
                    served.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
        Ok(Self { ends, served, tasks })
    }

    async fn stop(self) -> anyhow::Result<usize> {
        self.ends.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await??;
        }
        Ok(self.served.load(Ordering::Relaxed))
    }
}

/// A look-up, and a change in the index, with more and more tools; in this process.
fn look_ups() -> anyhow::Result<()> {
    println!("a look-up and a change in the index, in this process");
    let backend: SocketAddr = "10.0.0.1:8000".parse()?;
    for tools in [10, 100, 1_000, 10_000, 100_000] {
        let domains = Domains { public: vec!["hearth.localhost".parse()?], legacy: "tools.hearth.localhost".parse()? };
        let mut index = Index::new(domains);
        for tool in (0..tools).map(name) {
            set::<Namespace>(&mut index, "namespaces", &tool, backend)?;
            set::<Service>(&mut index, "services", &tool, backend)?;
            set::<Ingress>(&mut index, "ingresses", &tool, backend)?;
            set::<EndpointSlice>(&mut index, "endpointslices", &tool, backend)?;
        }
        let table = index.table();
        let hosts: Vec<Host> = (0..tools.min(1000))
            .map(|at| format!("{}.hearth.localhost", name((at * 7919) % tools)).parse())
            .collect::<Result<_, _>>()?;
        let look_up = |at: usize| drop(black_box(table.route(&hosts[at % hosts.len()], black_box("/wiki/Main_Page"))));
        let each = least(200, 1000, look_up) * 1e9;
        let mut held = table.clone();
        let change = least(20, 100, |at| {
            let to = SocketAddr::new(backend.ip(), 9000 + (at % 1000) as u16);
            set::<EndpointSlice>(&mut index, "endpointslices", &name((at * 7919) % tools), to).expect("it is a slice");
            held = index.table();
        });
        let change = change * 1e6;
        println!("  {tools:>7} tools {each:>36.0} ns {change:>9.1} us");
    }
    Ok(())
}

/// The time of one call in seconds: of some rounds of calls the one that was disturbed least.
fn least(rounds: usize, calls: usize, mut call: impl FnMut(usize)) -> f64 {
    let mut least = f64::MAX;
    for round in 0..rounds {
        let begun = Instant::now();
        for at in 0..calls {
            call(round * calls + at);
        }
        least = least.min(begun.elapsed().as_secs_f64() / calls as f64);
    }
    least
}

fn set<K: Source + DeserializeOwned>(index: &mut Index, kind: &str, tool: &str, at: SocketAddr) -> anyhow::Result<()> {
    let object: K = serde_json::from_value(object(kind, tool, at))?;
    index.apply(Change::Set(object.entry().context("the object says nothing")?));
    Ok(())
}

fn memory(what: &str, door: &Door) -> anyhow::Result<()> {
    println!("  {what:<58} {:>9.1} MiB, at most {:.1}", process::memory(door.id())?, door.peak()?);
    Ok(())
}

/// Prints the middle, the 99th part of a hundred, and the greatest of some times.
fn summary(what: &str, times: impl Into<Vec<f64>>) {
    let mut sorted: Vec<f64> = times.into();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| sorted[((sorted.len() - 1) as f64 * part) as usize];
    println!("  {what:<58} {:>9.2} middle {:>7.2} p99 {:>7.2} greatest", at(0.5), at(0.99), at(1.0));
}

impl From<Timed> for Vec<f64> {
    fn from(Timed(times, _): Timed) -> Self {
        times
    }
}

/// A number from the environment.
fn number(name: &str, default: usize) -> anyhow::Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is \"{text}\": it must be a number")),
        Err(_) => Ok(default),
    }
}
