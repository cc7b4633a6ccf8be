//! Nothing is dropped: a thousand tunnels stay open and every request is answered while routes, certificates and pods
//! change, through a hand-over to a successor, and while the API server is away.
//!
//! In its short form a thousand routes change; with `SOAK_MINUTES`, whatever it says, ten thousand.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up fails")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use hearth_server::proxy::handover::{Desk, Inheritance};
use hearth_server::reverse_proxy::{Course, Pair, Tls};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use crate::proxy_api::{Api, slice, tool};
use crate::proxy_front::{Pod, certificate, full, raw_pod, read_head, soon};
use crate::proxy_live::{Live, Setting, addresses, ask, open};
use crate::proxy_shuffle::pod;

const WEBSOCKETS: usize = 1000;
const VISITORS: usize = 6;

/// As long as a table may be dialled from in life.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// Two certificates that are shown in turn, and clients that trust both.
struct Certificates {
    pairs: [Arc<Pair>; 2],
    roots: Arc<rustls::RootCertStore>,
}

impl Certificates {
    fn new() -> Self {
        let mut roots = rustls::RootCertStore::empty();
        let pairs = [certificate(), certificate()].map(|(pair, certificate)| {
            roots.add(certificate).unwrap();
            pair
        });
        Self { pairs, roots: Arc::new(roots) }
    }

    fn tls(&self) -> Tls {
        Tls::new(self.pairs[0].clone(), &[])
    }

    fn replace(&self, tls: &Tls, turn: usize) {
        tls.replace(self.pairs[turn % 2].clone(), &[]);
    }
}

/// What visitors were answered.
#[derive(Default)]
struct Answers {
    good: AtomicUsize,
    failed: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Answers {
    /// Waits for so many more, none of them a failure.
    async fn more(&self, count: usize) {
        let goal = self.good.load(Ordering::Relaxed) + count;
        soon(async {
            while self.good.load(Ordering::Relaxed) < goal {
                assert_eq!(*self.failed.lock().unwrap(), Vec::<String>::new());
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// Asks for pages and sends bodies until it is over; goes on elsewhere only when told that the connection closes.
async fn visit(at: SocketAddr, roots: Arc<rustls::RootCertStore>, answers: Arc<Answers>, number: usize) {
    let mut turn = number;
    while !answers.over.load(Ordering::Relaxed) {
        let Some(mut sender) = open(at, &roots).await else {
            answers.failed.lock().unwrap().push("no connection".to_owned());
            return;
        };
        while !answers.over.load(Ordering::Relaxed) {
            turn += 1;
            let (method, tool, body) = [("GET", "restarted", ""), ("POST", "a", "body"), ("GET", "a", "")][turn % 3];
            match ask(&mut sender, method, tool, body).await {
                Ok((response, _)) if response.status() == 200 => {
                    answers.good.fetch_add(1, Ordering::Relaxed);
                    if response.headers().get("connection").is_some_and(|value| value == "close") {
                        break;
                    }
                }
                other => {
                    answers.failed.lock().unwrap().push(format!("{method} {tool}: {other:?}"));
                    return;
                }
            }
        }
    }
}

/// Opens a WebSocket.
async fn websocket(live: &Live, roots: &Arc<rustls::RootCertStore>) -> TlsStream<TcpStream> {
    let mut stream = soon(crate::proxy_live::connect(live.https, roots)).await.unwrap();
    let ask = "GET / HTTP/1.1\r\nHost: sockets.hearth.example\r\nUser-Agent: t\r\nConnection: upgrade\r\n\
               Upgrade: websocket\r\n\r\n";
    soon(stream.write_all(ask.as_bytes())).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

/// Sends something on each, and waits for it to come back.
async fn all_echo(sockets: &mut [TlsStream<TcpStream>], text: &[u8; 8]) {
    for group in sockets.chunks_mut(100) {
        let echoes = group.iter_mut().map(|stream| async move {
            let mut back = [0; 8];
            soon(stream.write_all(text)).await.unwrap();
            soon(stream.flush()).await.unwrap();
            soon(stream.read_exact(&mut back)).await.unwrap();
            assert_eq!(&back, text);
        });
        join_all(echoes).await;
    }
}

async fn put_all(api: &Api, name: &str, address: SocketAddr) {
    for (plural, object) in tool(name, address) {
        api.put(plural, object).await;
    }
}

/// The tool whose pods are restarted: by a new one beside the old one, which ends when nobody is sent to it any more.
struct Restarted {
    address: SocketAddr,
    pod: tokio::task::JoinHandle<()>,
    slice: String,
}

impl Restarted {
    async fn start(api: &Api) -> Self {
        let address = crate::proxy_front::refusing().await;
        let pod = pod(address, "restarted".to_owned()).await;
        put_all(api, "restarted", address).await;
        Self { address, pod, slice: "restarted-slice".to_owned() }
    }

    async fn again(&mut self, api: &Api, live: &Live, answers: &Answers, turn: usize) {
        let address = crate::proxy_front::refusing().await;
        let new = pod(address, "restarted".to_owned()).await;
        let mut object = slice("restarted", address);
        let name = format!("restarted-{turn}");
        object["metadata"]["name"] = json!(name);
        api.put("endpointslices", object).await;
        let mut tables = live.tables.clone();
        soon(tables.wait_for(|table| addresses(table, "restarted").contains(&address))).await.unwrap();
        api.delete("endpointslices", &std::mem::replace(&mut self.slice, name)).await;
        self.address = address;
        soon(tables.wait_for(|table| addresses(table, "restarted") == [address])).await.unwrap();
        // What was sent to it before has been answered, as in a pod's time of grace.
        answers.more(2 * VISITORS).await;
        std::mem::replace(&mut self.pod, new).abort();
    }
}

/// Changes so many routes, and meanwhile certificates and pods.
async fn change(
    count: usize,
    api: &Api,
    live: &Live,
    (restarted, answers): (&mut Restarted, &Answers),
    renew: impl Fn(usize),
) {
    for turn in 0..count {
        let name = format!("x{}", turn % 50);
        let address = format!("10.9.{}.{}:8000", turn / 250 % 250, turn % 250 + 1).parse().unwrap();
        match turn % 4 {
            3 if turn >= 50 => api.delete("endpointslices", &format!("{name}-slice")).await,
            _ => put_all(api, &name, address).await,
        }
        if turn % 4 == 3 {
            put_all(api, &name, address).await;
        }
        if turn % 20 == 0 {
            renew(turn / 20);
        }
        if turn % 50 == 0 {
            restarted.again(api, live, answers, turn + live.https.port() as usize * 1_000_000 + count).await;
        }
    }
    let last = format!("x{}", (count - 1) % 50);
    let mut tables = live.tables.clone();
    soon(tables.wait_for(|table| !addresses(table, &last).is_empty())).await.unwrap();
}

/// A successor takes the sockets over.
async fn hand_over(first: &Live, state: &Path, setting: &Setting<'_>) -> Live {
    let place = state.join("handover.sock");
    let desk = Desk::open(&place).unwrap();
    let relieved = async {
        let sockets = std::mem::take(&mut *first.sockets.lock().unwrap());
        desk.relieved(&sockets).await;
        drop(sockets);
        first.course.send_replace(Course::Relieved);
    };
    let taken = async {
        let mut inherited = Inheritance::ask(&place).await.unwrap();
        let (https, http) = (inherited.socket(first.https).await.unwrap(), inherited.socket(first.http).await.unwrap());
        let second = Live::at([https.into_std().unwrap(), http.into_std().unwrap()], setting);
        second.freshness.completed().await;
        inherited.predecessor().unwrap().relieve().await;
        second
    };
    soon(async { tokio::join!(relieved, taken) }).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_dropped_while_everything_changes() {
    let changes = if std::env::var_os("SOAK_MINUTES").is_some() { 10_000 } else { 1000 };
    let state = tempfile::tempdir().unwrap();
    let (api, certificates) = (Api::start().await, Certificates::new());
    let steady = Pod::start(|_| async { http::Response::new(full("steady")) }).await;
    let echo = raw_pod(|mut stream| async move {
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    put_all(&api, "a", steady.address).await;
    put_all(&api, "sockets", echo.await).await;
    let mut restarted = Restarted::start(&api).await;
    let tls = certificates.tls();
    let setting = Setting { api: &api, state: Some(state.path()), stale_after: STALE_AFTER, tls: tls.clone() };
    let first = Live::start(&setting);
    soon(first.freshness.completed()).await;

    let mut sockets = Vec::new();
    for _ in 0..WEBSOCKETS {
        sockets.push(websocket(&first, &certificates.roots).await);
    }
    let (answers, mut visitors) = (Arc::new(Answers::default()), JoinSet::new());
    for number in 0..VISITORS {
        visitors.spawn(visit(first.https, certificates.roots.clone(), answers.clone(), number));
    }
    answers.more(100).await;
    let renew = |turn| certificates.replace(&tls, turn);
    change(changes, &api, &first, (&mut restarted, &answers), renew).await;
    all_echo(&mut sockets, b"changed ").await;

    let second = hand_over(&first, state.path(), &setting).await;
    change(100, &api, &second, (&mut restarted, &answers), renew).await;
    all_echo(&mut sockets, b"upgraded").await;
    answers.more(200).await;

    // What is known is served while the API server is away, and by one that is started then as well.
    api.set_away(true);
    answers.more(1000).await;
    answers.over.store(true, Ordering::Relaxed);
    while let Some(ended) = soon(visitors.join_next()).await {
        ended.unwrap();
    }
    assert_eq!(*answers.failed.lock().unwrap(), Vec::<String>::new());
    second.kill().await;
    let third = Live::start(&setting);
    let mut sender = soon(open(third.https, &certificates.roots)).await.unwrap();
    let (response, body) = soon(ask(&mut sender, "GET", "a", "")).await.unwrap();
    assert_eq!((response.status().as_u16(), &body[..]), (200, &b"steady"[..]));
    all_echo(&mut sockets, b"restart ").await;
    assert!(!first.served.is_finished(), "the first ends with its last WebSocket");
    drop(sockets);
    soon(async {
        while !first.served.is_finished() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    first.kill().await;
    third.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_without_news_serves_until_its_table_is_too_old_and_again_after() {
    let (api, certificates) = (Api::start().await, Certificates::new());
    let steady = Pod::start(|_| async { http::Response::new(full("steady")) }).await;
    put_all(&api, "a", steady.address).await;
    let stale_after = Duration::from_secs(1);
    let live = Live::start(&Setting { api: &api, state: None, stale_after, tls: certificates.tls() });
    soon(live.freshness.completed()).await;
    let mut sender = soon(open(live.https, &certificates.roots)).await.unwrap();
    api.set_away(true);
    let last = live.freshness.oldest().unwrap();
    // Not one request fails while the table may be dialled from, and not one reaches the tool after.
    let (mut served, mut refused) = (0, 0);
    while refused < 100 {
        let before = steady.count();
        let (response, _) = soon(ask(&mut sender, "GET", "a", "")).await.unwrap();
        if response.status() == 200 {
            assert_eq!(refused, 0);
            served += 1;
        } else {
            assert!(last.elapsed() > stale_after, "{response:?}");
            assert!(response.headers()["proxy-status"].to_str().unwrap().contains("stale"), "{response:?}");
            assert_eq!((response.status().as_u16(), steady.count()), (503, before));
            refused += 1;
        }
    }
    assert!(served > 0);
    // It lists anew, which is news.
    api.cut(true);
    api.set_away(false);
    soon(async { while ask(&mut sender, "GET", "a", "").await.unwrap().0.status() != 200 {} }).await;
    live.kill().await;
}
