//! Autobahn's suite for the WebSocket protocol, held with its own echo server directly and through the front door: no
//! case may be worse through it.
//!
//! `run` beside this file, a part of `make soak`, brings the suite along and starts this program. It is no test program,
//! because the suite needs a Python that few machines have, and no test may depend on that. What goes through the front
//! door is compared byte for byte in every test run (`tests/it/proxy_websocket.rs`).

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a check that cannot go on has failed"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[path = "../../tests/it/proxy_front.rs"]
#[expect(dead_code, reason = "tests need more of it")]
mod proxy_front;

use proxy_front::{Front, listen, refusing, soon};

/// From best to worst, by Autobahn's words for what it saw of a case and of its end.
const JUDGED: [&str; 9] = [
    "OK",
    "INFORMATIONAL",
    "NON-STRICT",
    "UNIMPLEMENTED",
    "UNCLEAN",
    "WRONG CODE",
    "FAILED BY CLIENT",
    "UNKNOWN",
    "FAILED",
];

/// How often a case is tried at most.
const ROUNDS: usize = 5;

/// A process that ends with this one.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wstest(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var("AUTOBAHN_PYTHON").expect("`run` beside this program starts it"));
    command.args(["-c", "import sys; from autobahntestsuite.wstest import run; sys.exit(run())"]).args(arguments);
    command.stdout(Stdio::null());
    command
}

#[tokio::main]
async fn main() -> ExitCode {
    let server = refusing().await;
    let url = |address: SocketAddr| format!("ws://{address}");
    let echo = wstest(&["--mode", "echoserver", "--wsuri", &url(server)]).stderr(Stdio::null()).spawn().unwrap();
    let _echo = Running(echo);
    soon(async { while TcpStream::connect(server).await.is_err() {} }).await;

    let front = Arc::new(Front::start(&[("a", &[server])]).await);
    let through = listen().await;
    let address = through.local_addr().unwrap();
    tokio::spawn(carry(through, front, server.port()));

    let servers = json!([{"agent": "direct", "url": url(server)}, {"agent": "through", "url": url(address)}]);
    let chosen = std::env::var("AUTOBAHN_CASES").unwrap_or_else(|_| "*".to_owned());
    let mut cases: Vec<String> = chosen.split(',').map(str::to_owned).collect();
    let mut best = Found::new();
    // What an echo that meets the end of its connection is judged as is a matter of moments, on both ways. A case that is
    // worse is tried again, and each way counts as it was at its best.
    for _ in 0..ROUNDS {
        keep_best(&mut best, ask(&servers, &cases).await);
        cases = worse(&best);
        if cases.is_empty() {
            break;
        }
    }
    for (agent, found) in &best {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for judged in found.values() {
            *counts.entry(&judged[0]).or_default() += 1;
        }
        println!("Autobahn, {agent}: {} cases, {counts:?}", found.len());
    }
    for case in &cases {
        println!("{case}: {:?} directly, {:?} through", best["direct"][case], best["through"].get(case));
    }
    if cases.is_empty() && !best.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How a case and its end were judged, by the way and the case.
type Found = BTreeMap<String, BTreeMap<String, [String; 2]>>;

/// Has the suite try these cases on both ways.
async fn ask(servers: &Value, cases: &[String]) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let suite = json!({"outdir": folder.path(), "servers": servers, "cases": cases, "exclude-cases": [],
        "exclude-agent-cases": {}});
    let file = folder.path().join("suite.json");
    std::fs::write(&file, suite.to_string()).unwrap();
    let mut client = wstest(&["--mode", "fuzzingclient", "--spec", file.to_str().unwrap()]);
    let status = tokio::task::spawn_blocking(move || client.status()).await.unwrap().unwrap();
    assert!(status.success(), "the suite has not come to its end");
    let found = std::fs::read(folder.path().join("index.json")).expect("the suite has written what it found");
    let found: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_slice(&found).unwrap();
    let judged = |case: &Value| ["behavior", "behaviorClose"].map(|what| case[what].as_str().unwrap().to_owned());
    found
        .into_iter()
        .map(|(agent, cases)| (agent, cases.iter().map(|(name, case)| (name.clone(), judged(case))).collect()))
        .collect()
}

fn rank(word: &str) -> usize {
    JUDGED.iter().position(|judged| word == *judged).unwrap_or(JUDGED.len())
}

fn keep_best(best: &mut Found, found: Found) {
    for (agent, cases) in found {
        let kept = best.entry(agent).or_default();
        for (case, judged) in cases {
            match kept.get_mut(&case) {
                Some(before) => {
                    for (before, now) in before.iter_mut().zip(judged) {
                        if rank(&now) < rank(before) {
                            *before = now;
                        }
                    }
                }
                None => drop(kept.insert(case, judged)),
            }
        }
    }
}

/// The cases that are judged worse through the front door, or not at all.
fn worse(best: &Found) -> Vec<String> {
    let is_as_good = |case: &str, direct: &[String; 2]| {
        let through = best.get("through").and_then(|through| through.get(case));
        through.is_some_and(|through| direct.iter().zip(through).all(|(one, other)| rank(other) <= rank(one)))
    };
    let direct = best.get("direct").into_iter().flatten();
    direct.filter(|(case, judged)| !is_as_good(case, judged)).map(|(case, _)| case.clone()).collect()
}

/// Carries what the suite says by plain TCP to an address on to the front door by TLS, to the tool's own host. Autobahn's
/// server wants its own port there.
async fn carry(listener: TcpListener, front: Arc<Front>, port: u16) {
    while let Ok((mut client, _)) = listener.accept().await {
        let front = front.clone();
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = client.read_u8().await else { return };
                head.push(byte);
            }
            let head = String::from_utf8(head).unwrap();
            let host = format!("Host: a.hearth.example:{port}\r\n");
            let lines = head.split_inclusive("\r\n").map(|line| match line.to_lowercase().starts_with("host:") {
                true => host.as_str(),
                false => line,
            });
            let mut stream = front.connect(b"http/1.1").await;
            let sent = stream.write_all(lines.collect::<String>().as_bytes()).await;
            if sent.is_ok() && stream.flush().await.is_ok() {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut stream).await;
            }
        });
    }
}
