//! Clients of HTTP/1 that take their time: with a head, with a body, with an answer.

use std::sync::Arc;
use std::time::Duration;

use hearth_server::reverse_proxy::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::proxy_front::{Front, read_head, soon};
use crate::proxy_h2_attacks::{Endless, PAUSE, front, impatient, silent};
use crate::proxy_wire::alone;

const HEAD: &str = "GET / HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r\n";

/// How long a head may take in these tests.
const HEAD_TIME: Duration = Duration::from_secs(1);

#[test]
fn answers_that_are_not_read() {
    alone("proxy_slow::answers_that_are_not_read", || async {
        // Of each a buffer is filled, and after a pause it is given up, so that the tool is free again.
        let pod = Endless::start(1 << 30).await;
        let (front, others) = front(pod.address, impatient()).await;
        let mut clients = Vec::new();
        for _ in 0..64 {
            let mut client = front.connect(b"http/1.1").await;
            client.write_all(format!("{HEAD}\r\n").as_bytes()).await.unwrap();
            client.flush().await.unwrap();
            clients.push(client);
        }
        pod.has_open(|open| open > 0).await;
        pod.has_open(|open| open == 0).await;
        others.were_served(48).await;
    });
}

#[test]
fn bodies_that_do_not_come() {
    alone("proxy_slow::bodies_that_do_not_come", || async {
        let (a, _seen) = silent().await;
        let (front, others) = front(a, impatient()).await;
        for framing in ["Content-Length: 5\r\n\r\nab", "Transfer-Encoding: chunked\r\n\r\n5\r\nab"] {
            let answer = front.raw(format!("{HEAD}{framing}").replace("GET", "POST")).await;
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        }
        others.were_served(8).await;
    });
}

/// A client that begins a head and never ends it: with a line at once, or byte after byte.
async fn half_open(front: Arc<Front>, is_dripping: bool) -> Duration {
    let mut client = front.connect(b"http/1.1").await;
    client.write_all(HEAD.as_bytes()).await.unwrap();
    client.flush().await.unwrap();
    let begun = tokio::time::Instant::now();
    let mut byte = [0];
    while let Err(_quiet) = tokio::time::timeout(PAUSE / 10, client.read(&mut byte)).await {
        if is_dripping && (client.write_all(b"x").await.is_err() || client.flush().await.is_err()) {
            break;
        }
    }
    begun.elapsed()
}

#[test]
fn heads_that_do_not_end() {
    alone("proxy_slow::heads_that_do_not_end", || async {
        let (a, _seen) = silent().await;
        let limits = Limits { client_head: HEAD_TIME, ..Limits::default() };
        let (front, others) = front(a, limits).await;
        let clients = (0..200).map(|number| tokio::spawn(half_open(front.clone(), number % 2 == 0)));
        for client in clients.collect::<Vec<_>>() {
            let lasted = soon(client).await.unwrap();
            assert!(lasted < 10 * HEAD_TIME, "{lasted:?}");
        }
        // A connection on which nothing comes at all, and one that pauses between requests.
        let mut quiet = front.connect(b"http/1.1").await;
        let mut nothing = Vec::new();
        let _ = soon(quiet.read_to_end(&mut nothing)).await;
        assert!(nothing.is_empty());
        let mut pausing = front.connect(b"http/1.1").await;
        let request = HEAD.replace("a.hearth", "b.hearth");
        pausing.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
        pausing.flush().await.unwrap();
        assert!(soon(read_head(&mut pausing)).await.starts_with("HTTP/1.1 200 "));
        let _ = soon(pausing.read_to_end(&mut Vec::new())).await;
        // Client and server are both in this process: 100 KiB for such a pair.
        others.were_served(20).await;
    });
}
