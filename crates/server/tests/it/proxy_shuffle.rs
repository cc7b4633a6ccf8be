//! Never the wrong tool: addresses go from tool to tool while the front door looks away, and every answer has to be of
//! the tool that was asked for.
//!
//! Every tool answers with a nonce of its own. Tools move from address to address, watches are cut, the API server
//! is away or silent, front doors are killed and started again with what they kept, all at random and under load. What
//! the cluster promises is kept, on a shorter scale: an address is given out again no sooner than after twice the time
//! for which a table may be dialled from. `SOAK_SEED` replays the order of the faults; with `SOAK_MINUTES`, whatever
//! it says, there are a million requests.
//!
//! The same is run with the guard switched off and with an address swapped, and must find foreign answers
//! then: else it could not fail. And a run counts only when requests came while the table would have led astray.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up fails")]
#![expect(clippy::print_stdout, reason = "which seed it was, and what happened, is what a failed run leaves behind")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::proxy_api::{Api, slice, tool};
use crate::proxy_front::{certificates, soon};
use crate::proxy_live::{Live, Setting, addresses, ask, open};

/// For how long a table may be dialled from: 30 s in life.
const STALE_AFTER: Duration = Duration::from_millis(400);

/// For how long nobody gets an address that somebody had: 60 s in life.
const QUARANTINE: Duration = Duration::from_millis(800);

const TOOLS: usize = 40;
const PLACES: usize = 160;
const VISITORS: usize = 12;

/// Between two steps of what happens to the cluster.
const STEP: Duration = Duration::from_millis(10);

/// No run takes longer, in its short form.
const LONGEST: Duration = Duration::from_secs(180);

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// A table is dialled from whatever its age.
    Freshness,
    /// One tool is said to be where another one is.
    Identity,
}

/// Numbers that look random and are the same for the same seed (xorshift).
struct Random(u64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.number()).unwrap() % limit
    }
}

/// An address, and who is there.
struct Place {
    address: SocketAddr,
    pod: Option<JoinHandle<()>>,
    /// When the last one left.
    left: Instant,
}

/// All tools and where they are.
struct World {
    names: Vec<String>,
    nonces: Vec<String>,
    /// Which tool is at an address.
    owners: Mutex<HashMap<SocketAddr, usize>>,
    tally: Tally,
    over: AtomicBool,
}

/// What has happened.
#[derive(Default)]
struct Tally {
    answered: AtomicUsize,
    stale: AtomicUsize,
    /// Requests for a tool that the table places where another tool was in that moment.
    tempted: AtomicUsize,
    others: AtomicUsize,
    foreign: Mutex<Vec<String>>,
}

/// What is done to the cluster and the front door.
#[derive(Default, Debug)]
struct Deeds {
    moves: usize,
    cuts: usize,
    absences: usize,
    silences: usize,
    kills: usize,
}

impl World {
    fn new(random: &mut Random) -> Self {
        let names: Vec<String> = (0..TOOLS).map(|number| format!("t{number}")).collect();
        let nonces = names.iter().map(|name| format!("{name} {:x}", random.number())).collect();
        Self { names, nonces, owners: Mutex::default(), tally: Tally::default(), over: AtomicBool::new(false) }
    }

    /// Whether the table sends requests for a tool to where another one is.
    fn leads_astray(&self, found: &[SocketAddr], tool: usize) -> bool {
        let owners = self.owners.lock().unwrap();
        found.iter().any(|address| owners.get(address).is_some_and(|owner| *owner != tool))
    }

    fn judge(&self, tool: usize, response: &Response<()>, body: &[u8]) {
        let why = response.headers().get("proxy-status").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if response.status() == 200 && body == self.nonces[tool].as_bytes() {
            self.tally.answered.fetch_add(1, Ordering::Relaxed);
        } else if response.status() == 200 {
            let text = format!("'{}' for {}", String::from_utf8_lossy(body), self.nonces[tool]);
            self.tally.foreign.lock().unwrap().push(text);
        } else if why.contains("stale") {
            self.tally.stale.fetch_add(1, Ordering::Relaxed);
        } else {
            assert!(matches!(response.status().as_u16(), 502 | 503), "{response:?}");
            self.tally.others.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(of: &AtomicUsize) -> usize {
        of.load(Ordering::Relaxed)
    }
}

/// A pod that answers with a nonce. With its task, everything of it ends at once.
pub(crate) async fn pod(address: SocketAddr, nonce: String) -> JoinHandle<()> {
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let nonce = Bytes::from(nonce.clone());
            let service = service_fn(move |_: Request<Incoming>| {
                let response = Response::new(Full::new(nonce.clone()));
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            connections.spawn(connection.serve_connection(TokioIo::new(stream), service));
            while connections.try_join_next().is_some() {}
        }
    })
}

/// The cluster: whose pods are where, and what the API server says of it.
struct Cluster {
    api: Api,
    world: Arc<World>,
    places: Vec<Place>,
    /// The place of each tool.
    at: Vec<usize>,
    random: Random,
    deeds: Deeds,
}

impl Cluster {
    async fn start(world: Arc<World>, random: Random) -> Self {
        let api = Api::start().await;
        let left = Instant::now();
        let mut places = Vec::new();
        for number in 0..PLACES {
            // Addresses of its own for each run, so that nobody else gets a port while nobody is there.
            let address = format!("127.{}.{}.{}:0", 128 + std::process::id() % 100, world_number(&world), number + 1);
            let address = TcpListener::bind(address).await.unwrap().local_addr().unwrap();
            places.push(Place { address, pod: None, left });
        }
        let mut cluster = Self { api, world, places, at: Vec::new(), random, deeds: Deeds::default() };
        for number in 0..TOOLS {
            cluster.occupy(number, number).await;
            cluster.at.push(number);
            for (plural, object) in tool(&cluster.world.names[number], cluster.places[number].address) {
                cluster.api.put(plural, object).await;
            }
        }
        cluster
    }

    async fn occupy(&mut self, place: usize, tool: usize) {
        let address = self.places[place].address;
        self.places[place].pod = Some(pod(address, self.world.nonces[tool].clone()).await);
        self.world.owners.lock().unwrap().insert(address, tool);
    }

    async fn vacate(&mut self, place: usize) {
        self.world.owners.lock().unwrap().remove(&self.places[place].address);
        let pod = self.places[place].pod.take().unwrap();
        pod.abort();
        let _ = pod.await;
        self.places[place].left = Instant::now();
    }

    /// The place that has been empty for longest, if that was long enough.
    fn free(&self) -> Option<usize> {
        let empty = self.places.iter().enumerate().filter(|(_, place)| place.pod.is_none());
        let (number, place) = empty.min_by_key(|(_, place)| place.left)?;
        (place.left.elapsed() >= QUARANTINE).then_some(number)
    }

    /// Moves a tool: by a new pod before the old one goes, or by one that dies first.
    async fn move_one(&mut self) {
        let tool = self.random.below(TOOLS);
        let Some(to) = self.free() else { return };
        let from = std::mem::replace(&mut self.at[tool], to);
        let name = self.world.names[tool].clone();
        let crash = self.random.below(2) == 0;
        if crash {
            self.vacate(from).await;
        }
        self.occupy(to, tool).await;
        self.api.put("endpointslices", slice(&name, self.places[to].address)).await;
        if !crash {
            self.vacate(from).await;
        }
        self.deeds.moves += 1;
    }

    /// Goes wrong in one of the ways. Returns until when.
    fn begin_outage(&mut self) -> Outage {
        let until = Instant::now() + STALE_AFTER.mul_f64(0.25 * (1 + self.random.below(14)) as f64);
        match self.random.below(4) {
            0 => {
                self.deeds.cuts += 1;
                self.api.cut(self.random.below(2) == 0);
                Outage { until: Instant::now(), kind: Kind::Cut }
            }
            1 => {
                self.deeds.absences += 1;
                self.api.set_away(true);
                Outage { until, kind: Kind::Away }
            }
            2 => {
                self.deeds.silences += 1;
                self.api.set_silent(true);
                Outage { until, kind: Kind::Silent }
            }
            _ => {
                // It stays dead for a while, and finds no API server when it is started.
                self.deeds.kills += 1;
                self.api.set_away(true);
                Outage { until, kind: Kind::Killed }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cut,
    Away,
    Silent,
    Killed,
}

#[derive(Clone, Copy)]
struct Outage {
    until: Instant,
    kind: Kind,
}

/// Tells runs of one process apart.
fn world_number(world: &Arc<World>) -> usize {
    (Arc::as_ptr(world) as usize >> 4) % 250
}

/// Where a front door is, and its table.
type Doorway = (SocketAddr, watch::Receiver<Arc<hearth_core::route::Table>>);

/// Where visitors find the front door; nothing while it is dead.
type Found = watch::Receiver<Option<Doorway>>;

/// Tells visitors where the front door is now.
fn announce(tell: &watch::Sender<Option<Doorway>>, live: Option<&Live>) {
    tell.send_if_modified(|place| {
        let now = live.map(|live| (live.https, live.tables.clone()));
        let changed = place.as_ref().map(|(https, _)| *https) != now.as_ref().map(|(https, _)| *https);
        if changed {
            *place = now;
        }
        changed
    });
}

/// Asks for tools at random until it is over.
async fn visit(world: Arc<World>, mut found: Found, roots: Arc<rustls::RootCertStore>, mut random: Random) {
    while !world.over.load(Ordering::Relaxed) {
        let Some((https, tables)) = found.borrow_and_update().clone() else {
            let _ = tokio::time::timeout(STALE_AFTER, found.changed()).await;
            continue;
        };
        let Some(mut sender) = open(https, &roots).await else {
            tokio::task::yield_now().await;
            continue;
        };
        while !world.over.load(Ordering::Relaxed) {
            let tool = random.below(TOOLS);
            let placed = addresses(&tables.borrow(), &world.names[tool]);
            if world.leads_astray(&placed, tool) {
                world.tally.tempted.fetch_add(1, Ordering::Relaxed);
            }
            match ask(&mut sender, "GET", &world.names[tool], "").await {
                Ok((response, body)) => world.judge(tool, &response, &body),
                Err(_) => break,
            }
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// A seed that differs from run to run. It is printed, and may be given.
fn seed() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "it differs from run to run")]
    let seed = number("SOAK_SEED").unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    println!("SOAK_SEED={seed}");
    seed
}

/// Runs until `enough`, or until an answer was foreign.
async fn shuffle(broken: Broken, state: &Path, enough: impl Fn(&Tally, &Deeds) -> bool) -> (Arc<World>, Deeds) {
    let mut random = Random(seed() | 1 << 40);
    let world = Arc::new(World::new(&mut random));
    let mut cluster = Cluster::start(world.clone(), Random(random.number() | 1)).await;
    if broken == Broken::Identity {
        cluster.api.put("endpointslices", slice("t0", cluster.places[1].address)).await;
    }
    let (tls, roots) = certificates();
    let api = cluster.api.clone();
    let stale_after = if broken == Broken::Freshness { Duration::from_secs(3600) } else { STALE_AFTER };
    let setting = Setting { api: &api, state: Some(state), stale_after, tls };
    let mut live = Some(Live::start(&setting));
    let (tell, found) = watch::channel(None);
    let mut visitors = JoinSet::new();
    for _ in 0..VISITORS {
        visitors.spawn(visit(world.clone(), found.clone(), roots.clone(), Random(random.number() | 1)));
    }
    let mut outage: Option<Outage> = None;
    let mut steps = tokio::time::interval(STEP);
    while !enough(&world.tally, &cluster.deeds) && world.tally.foreign.lock().unwrap().is_empty() {
        steps.tick().await;
        announce(&tell, live.as_ref());
        cluster.move_one().await;
        match outage {
            Some(now) if Instant::now() >= now.until => {
                if now.kind == Kind::Killed {
                    live = Some(Live::start(&setting));
                    // What it does with what it kept shows while it hears nothing.
                    outage = Some(Outage { until: Instant::now() + STALE_AFTER, kind: Kind::Away });
                    continue;
                }
                cluster.api.set_silent(false);
                cluster.api.set_away(false);
                outage = None;
            }
            Some(_) => (),
            None if live.as_ref().is_some_and(|live| live.freshness.is_ready()) && cluster.random.below(100) < 3 => {
                let begun = cluster.begin_outage();
                if begun.kind == Kind::Killed {
                    live.take().unwrap().kill().await;
                }
                outage = Some(begun);
            }
            None => (),
        }
        for plural in ["namespaces", "services", "ingresses", "endpointslices"] {
            if outage.is_none() {
                api.bookmark(plural).await;
            }
        }
    }
    world.over.store(true, Ordering::Relaxed);
    while let Some(ended) = soon(visitors.join_next()).await {
        ended.unwrap();
    }
    if let Some(live) = live {
        live.kill().await;
    }
    (world, cluster.deeds)
}

fn told(world: &World, deeds: &Deeds) -> String {
    let Tally { answered, stale, tempted, others, foreign } = &world.tally;
    let foreign = foreign.lock().unwrap();
    format!(
        "{answered:?} answered, {stale:?} stale, {others:?} other, {tempted:?} tempted, {deeds:?}, foreign: {foreign:?}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tool_answers_for_another_whatever_happens() {
    let goal = if number("SOAK_MINUTES").is_some() { 1_000_000 } else { 10_000 };
    let state = tempfile::tempdir().unwrap();
    let enough = |tally: &Tally, deeds: &Deeds| {
        let Deeds { moves, cuts, absences, silences, kills } = deeds;
        World::count(&tally.answered) >= goal
            && World::count(&tally.stale) >= 100
            && World::count(&tally.tempted) >= 100
            && *moves >= 4 * PLACES
            && [cuts, absences, silences, kills].iter().all(|count| **count >= 2)
    };
    let longest = LONGEST * if goal > 10_000 { 60 } else { 1 };
    let (world, deeds) = tokio::time::timeout(longest, shuffle(Broken::Nothing, state.path(), enough)).await.unwrap();
    println!("{}", told(&world, &deeds));
    assert!(world.tally.foreign.lock().unwrap().is_empty(), "{}", told(&world, &deeds));
}

/// Runs with something broken until that is found.
async fn is_found(broken: Broken) {
    let state = tempfile::tempdir().unwrap();
    let ran = tokio::time::timeout(LONGEST, shuffle(broken, state.path(), |_, _| false)).await;
    let (world, deeds) = ran.unwrap_or_else(|_| panic!("{broken:?}: no foreign answer was found"));
    println!("{}", told(&world, &deeds));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_trusts_an_old_table_is_found_out() {
    is_found(Broken::Freshness).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_in_the_place_of_another_is_found_out() {
    is_found(Broken::Identity).await;
}
