//! The guard on requests' framing, from outside: what is answered, in which order, and what a pod sees of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::proxy_front::{Front, Pod, raw_pod, read_head, soon};

const HEAD: &str = "GET / HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r\n";

/// The statuses of all answers in a text.
fn statuses(text: &str) -> Vec<&str> {
    text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
}

#[tokio::test]
async fn requests_before_a_refused_one_are_answered_and_none_after_it() {
    let a = Pod::echo("a").await;
    let front = Front::start(&[("a", &[a.address])]).await;
    let good = format!("{HEAD}\r\n");
    let bad = format!("{HEAD}Content-Length: 0\r\nContent-Length: 0\r\n\r\n");
    let answers = front.raw(format!("{good}{good}{bad}{good}")).await;
    assert_eq!(statuses(&answers), ["200", "200", "400"], "{answers}");
    assert!(answers.ends_with("is not a number of digits alone.\n"), "{answers}");
    assert_eq!(a.count(), 2);
    // Also where browsers are sent to TLS from, and in a head that comes in two pieces.
    let plain = front.raw_plain("GET / HTTP/1.1\r\nHost: a.hearth.example\r\nHost: b.hearth.example\r\n\r\n").await;
    assert_eq!(statuses(&plain), ["400"], "{plain}");
    let mut stream = front.connect(b"http/1.1").await;
    for piece in ["GET / HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r", "\nX: a\0b\r\n\r\n"] {
        soon(stream.write_all(piece.as_bytes())).await.unwrap();
        soon(stream.flush()).await.unwrap();
    }
    assert!(soon(read_head(&mut stream)).await.starts_with("HTTP/1.1 400 "));
    let long = front.raw(format!("{HEAD}X: {}\r\n\r\n", "x".repeat(70_000))).await;
    assert_eq!(statuses(&long), ["431"], "{long}");
    assert_eq!(a.count(), 2);
}

#[tokio::test]
async fn nobody_else_is_taken_for_a_refused_request() {
    let a = Pod::echo("a").await;
    let front = Front::start(&[("a", &[a.address])]).await;
    let answer = front.raw(format!("{HEAD}X-Hearth-Refused: 1\r\nConnection: close\r\n\r\n")).await;
    assert_eq!(statuses(&answer), ["200"], "{answer}");
}

#[tokio::test]
async fn a_body_that_breaks_ends_the_request_and_the_connection() {
    let whole = Arc::new(AtomicBool::new(false));
    let seen = whole.clone();
    let pod = raw_pod(move |mut stream| {
        let seen = seen.clone();
        async move {
            read_head(&mut stream).await;
            let mut body = Vec::new();
            let _ = stream.read_to_end(&mut body).await;
            // The last chunk says that all of it came.
            seen.store(body.ends_with(b"0\r\n\r\n"), Ordering::SeqCst);
        }
    })
    .await;
    let front = Front::start(&[("a", &[pod])]).await;
    let mut stream = front.connect(b"http/1.1").await;
    let head = HEAD.replace("GET", "POST");
    for piece in [
        &format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        "3 \r\nabc\r\n0\r\n\r\n",
        &format!("{HEAD}\r\n"),
    ] {
        soon(stream.write_all(piece.as_bytes())).await.unwrap();
        soon(stream.flush()).await.unwrap();
    }
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(statuses(&answer).iter().all(|status| *status == "400") && statuses(&answer).len() <= 1, "{answer}");
    assert!(!whole.load(Ordering::SeqCst), "the pod was told that the body is whole");
}

#[tokio::test]
async fn what_is_sent_before_a_protocol_is_switched_reaches_nobody_unless_it_is() {
    // A pod that does not switch: what follows is a request like any other, and is looked at.
    let a = Pod::echo("a").await;
    let front = Front::start(&[("a", &[a.address])]).await;
    let ask = format!("{HEAD}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let smuggled = format!("{HEAD}Host: b.hearth.example\r\n\r\n");
    let answers = front.raw(format!("{ask}{smuggled}")).await;
    assert_eq!(statuses(&answers), ["200", "400"], "{answers}");
    let answers = front.raw(format!("{ask}{HEAD}Connection: close\r\n\r\n")).await;
    assert_eq!(statuses(&answers), ["200", "200"], "{answers}");
    assert_eq!(a.count(), 3);

    // One that does: it gets the bytes as they are.
    let pod = raw_pod(|mut stream| async move {
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let mut bytes = [0; 9];
        soon(stream.read_exact(&mut bytes)).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    })
    .await;
    let front = Front::start(&[("a", &[pod])]).await;
    let mut stream = front.connect(b"http/1.1").await;
    soon(stream.write_all(format!("{ask}\0\n\r not").as_bytes())).await.unwrap();
    let head = soon(read_head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    soon(stream.write_all(b" h1")).await.unwrap();
    let mut echoed = [0; 9];
    soon(stream.read_exact(&mut echoed)).await.unwrap();
    assert_eq!(&echoed, b"\0\n\r not h");
}

#[tokio::test]
async fn targets_that_are_no_path_of_a_host_are_refused() {
    let a = Pod::echo("a").await;
    let front = Front::start(&[("a", &[a.address])]).await;
    for target in [
        "a.hearth.example:443",
        "a.hearth.example",
        "?x",
        "http://a.hearth.example?x",
        "/#b",
        "http://a.hearth.example/#b",
        "\\",
        "*",
        "http://",
        "http:///",
        "http://a.hearth.example:99999/",
        "http://a.hearth.example\\@b.hearth.example/",
        "http://b.hearth.example#@a.hearth.example/",
    ] {
        let request = format!("{HEAD}Connection: close\r\n\r\n").replacen("GET / ", &format!("GET {target} "), 1);
        for answer in [front.raw(&request).await, front.raw_plain(&request).await] {
            assert_eq!(statuses(&answer), ["400"], "{target}: {answer}");
        }
    }
    let empty = HEAD.replace("Host: a.hearth.example", "Host:");
    assert_eq!(statuses(&front.raw(format!("{empty}\r\n")).await), ["400"]);
    assert_eq!(a.count(), 0);
}
