//! What one visitor and one tool may use of the front door.

use std::sync::Arc;

use hearth_core::limit::Allowance;
use hearth_core::platform::FrontDoor;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc};

use crate::proxy_front::{Front, Pod, read_head, soon};

const HEAD: &str = "GET / HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r\n";

/// Enough for any test.
const PLENTY: Allowance = Allowance { per_second: 10_000, burst: 10_000, at_once: 10_000 };

/// So little over time that a test sees none of it.
fn at_once(burst: u32, at_once: u32) -> Allowance {
    Allowance { per_second: 1, burst, at_once }
}

#[tokio::test]
async fn a_visitor_who_asks_for_too_much_is_told_to_slow_down() {
    let a = Pod::echo("a").await;
    let allowed = FrontDoor { visitor: at_once(3, 10), tool: PLENTY, ..FrontDoor::default() };
    let front = Front::allowing(&[("a", &[a.address])], allowed.clone()).await;
    // On one connection, which stays open for who slows down.
    let mut stream = front.connect(b"http/1.1").await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        soon(stream.write_all(format!("{}\r\n", HEAD.replace("GET", "HEAD")).as_bytes())).await.unwrap();
        answers.push(soon(read_head(&mut stream)).await);
    }
    let statuses: Vec<&str> = answers.iter().map(|answer| &answer[9..12]).collect();
    assert_eq!(statuses, ["200", "200", "200", "429"]);
    assert!(answers[3].contains("retry-after: 1") && !answers[3].contains("connection: close"), "{}", answers[3]);
    assert_eq!(a.count(), 3);
    let answer = front.get("a.hearth.example", "/").await;
    assert!(answer.contains("429") && answer.contains("please slow down"), "{answer}");
    // Load balancers ask on.
    assert!(front.get("a.hearth.example", "/.well-known/healthz").await.contains("proxy ok!"));

    let listed = FrontDoor { unlimited_visitors: vec!["127.0.0.1/32".parse().unwrap()], ..allowed };
    let front = Front::allowing(&[("a", &[a.address])], listed).await;
    for _ in 0..6 {
        assert!(front.get("a.hearth.example", "/").await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn a_tool_that_hangs_holds_up_itself_alone() {
    let (release, (sender, mut began)) = (Arc::new(Notify::new()), mpsc::channel::<()>(8));
    let hangs = Pod::hanging(sender, release.clone()).await;
    let b = Pod::echo("b").await;
    let allowed = FrontDoor { visitor: PLENTY, tool: at_once(100, 2), ..FrontDoor::default() };
    let front = Front::allowing(&[("a", &[hangs.address]), ("b", &[b.address])], allowed.clone()).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = front.connect(b"http/1.1").await;
        soon(stream.write_all(format!("{HEAD}\r\n").as_bytes())).await.unwrap();
        soon(began.recv()).await.unwrap();
        streams.push(stream);
    }
    let over = front.get("a.hearth.example", "/").await;
    assert!(over.contains("429") && over.contains("too many requests open at a time"), "{over}");
    assert!(front.get("b.hearth.example", "/").await.contains("b GET /"));
    for stream in &mut streams {
        release.notify_one();
        assert!(soon(read_head(stream)).await.starts_with("HTTP/1.1 200 "));
    }
    // What has ended counts no more, and neither does what its visitor gave up.
    for _ in 0..3 {
        let mut stream = front.connect(b"http/1.1").await;
        soon(stream.write_all(format!("{HEAD}\r\n").as_bytes())).await.unwrap();
        soon(began.recv()).await.unwrap();
        drop(stream);
    }
    let unlimited = FrontDoor { unlimited_tools: vec!["a".parse().unwrap()], tool: at_once(1, 1), ..allowed };
    let front = Front::allowing(&[("a", &[b.address])], unlimited).await;
    for _ in 0..3 {
        assert!(front.get("a.hearth.example", "/").await.starts_with("HTTP/1.1 200 "));
    }
}
