//! The front door's way through the ingress: both in process, with their certificates.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up fails")]

use std::net::SocketAddr;

use hearth_core::platform::{FrontDoor, Path};
use hearth_server::reverse_proxy::{Passage, PassageFiles, Patience};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::ingress::{FRONT_PROXY, INGRESS, Inside};
use crate::proxy_front::{Front, Pod, full, raw_pod, read_head, refusing, soon};

/// The way to these balancers, for the front door that `inside` knows.
fn passage(inside: &Inside, path: Path, balancers: &[SocketAddr]) -> Option<Passage> {
    let own = inside.authority.issue(&[FRONT_PROXY]);
    let put = |name: &str, text: &str| {
        let file = inside.folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let files = PassageFiles {
        ca: put("passage-ca.crt", &inside.authority.pem),
        certificate: put("passage.crt", &own.cert),
        key: put("passage.key", &own.key),
        name: INGRESS.to_owned(),
    };
    let front_door = FrontDoor { path, balancers: balancers.to_vec(), ..FrontDoor::default() };
    Passage::open(files, &front_door, Patience::default()).unwrap()
}

#[track_caller]
fn has(answer: &str, line: &str) {
    assert!(answer.lines().any(|found| found.eq_ignore_ascii_case(line)), "no line '{line}' in:\n{answer}");
}

#[tokio::test]
async fn requests_go_through_the_ingress() {
    let a = Pod::echo("a").await;
    let inside = Inside::start(&[("a", &[a.address])]).await;
    // The front door itself knows of an address that it could not dial.
    let way = passage(&inside, Path::Ingress, &[inside.address]);
    let front = Front::through(&[("a", &[refusing().await]), ("gone", &[])], way, true).await;
    let port = front.https.port();
    for _ in 0..3 {
        let answer = front
            .raw(
                "POST /p?q HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r\nConnection: close\r\n\
                 X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: b.hearth.example\r\n\
                 X-Hearth-Reason: apex\r\nContent-Length: 5\r\n\r\nhello",
            )
            .await;
        has(&answer, "a POST /p?q 5");
        has(&answer, "host: a.hearth.example");
        has(&answer, "x-forwarded-host: a.hearth.example");
        has(&answer, &format!("x-forwarded-port: {port}"));
        has(&answer, "x-forwarded-proto: https");
        has(&answer, "x-original-uri: /p?q");
        assert!(!answer.contains("203.0.113.9") && !answer.contains("apex"), "{answer}");
        for once in ["strict-transport-security: max-age=31622400", "permissions-policy: browsing-topics=()"] {
            assert_eq!(answer.lines().filter(|line| line.eq_ignore_ascii_case(once)).count(), 1, "{answer}");
        }
    }
    assert_eq!(a.count(), 3);
    // Pages that say why there is no answer come through it too, and what it does not know is not there.
    assert!(front.get("gone.hearth.example", "/robots.txt").await.starts_with("HTTP/1.1 404 "));
    assert!(front.get("x.y.hearth.example", "/").await.starts_with("HTTP/1.1 404 "));
    has(&front.get("old.example", "/a/x?q").await, "location: https://a.hearth.example/x?q");
}

#[tokio::test]
async fn a_file_that_a_tool_lacks_is_put_in_its_place_once() {
    let none = Pod::start(|_| async {
        let mut answer = http::Response::new(full("none\n"));
        *answer.status_mut() = http::StatusCode::NOT_FOUND;
        answer
    })
    .await;
    let inside = Inside::start(&[("a", &[none.address])]).await;
    let way = passage(&inside, Path::Ingress, &[inside.address]);
    let front = Front::through(&[("a", &[])], way, true).await;
    let robots = front.get("a.hearth.example", "/robots.txt").await;
    assert!(robots.starts_with("HTTP/1.1 200 ") && robots.ends_with("User-agent: *\nDisallow: /\n"), "{robots}");
    assert!(front.get("a.hearth.example", "/else").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn a_stale_table_is_not_dialled_where_there_is_an_ingress() {
    let (former, now) = (Pod::echo("former").await, Pod::echo("now").await);
    let inside = Inside::start(&[("a", &[now.address])]).await;
    // The address that the front door knows belongs to somebody else by now.
    let tools: [SocketAddr; 1] = [former.address];
    let way = passage(&inside, Path::Direct, &[inside.address]);
    let stale = Front::through(&[("a", &tools)], way, false).await;
    has(&stale.get("a.hearth.example", "/").await, "now GET / 0");
    assert_eq!((former.count(), now.count()), (0, 1));
    // As long as it knows, it dials by itself.
    let way = passage(&inside, Path::Direct, &[inside.address]);
    let fresh = Front::through(&[("a", &tools)], way, true).await;
    has(&fresh.get("a.hearth.example", "/").await, "former GET / 0");
    assert_eq!((former.count(), now.count()), (1, 1));
}

#[tokio::test]
async fn a_balancer_that_is_away_is_passed_over() {
    let a = Pod::echo("a").await;
    let inside = Inside::start(&[("a", &[a.address])]).await;
    let away = refusing().await;
    let way = passage(&inside, Path::Ingress, &[away, inside.address]);
    let front = Front::through(&[("a", &[])], way, true).await;
    let post = "POST / HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r\nConnection: close\r\n\
                Content-Length: 5\r\n\r\nhello";
    for _ in 0..4 {
        has(&front.raw(post).await, "a POST / 5");
    }
    let way = passage(&inside, Path::Ingress, &[away]);
    let cut_off = Front::through(&[("a", &[a.address])], way, true).await;
    let answer = cut_off.get("a.hearth.example", "/").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    has(
        &answer,
        "The platform's front door does not reach its cluster. The tools are not at fault. Please try again in a minute.",
    );
    has(&answer, "proxy-status: hearth; error=proxy_internal_error; details=\"no-passage\"");
    // One that has another certificate than the ingress's is not told anything.
    let other = Inside::start(&[("a", &[a.address])]).await;
    let way = passage(&inside, Path::Ingress, &[other.address]);
    let deceived = Front::through(&[("a", &[])], way, true).await;
    assert!(deceived.get("a.hearth.example", "/").await.starts_with("HTTP/1.1 503 "));
    assert_eq!(a.count(), 4);
}

#[tokio::test]
async fn websockets_go_through_it() {
    let pod = raw_pod(|mut stream| async move {
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await;
    let inside = Inside::start(&[("a", &[pod])]).await;
    let way = passage(&inside, Path::Ingress, &[inside.address]);
    let front = Front::through(&[("a", &[])], way, true).await;
    let mut stream = front.connect(b"http/1.1").await;
    let request = "GET /ws HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
    soon(stream.write_all(request.as_bytes())).await.unwrap();
    assert!(soon(read_head(&mut stream)).await.starts_with("HTTP/1.1 101 "));
    for message in [&b"one"[..], b"two"] {
        soon(stream.write_all(message)).await.unwrap();
        let mut echoed = vec![0; message.len()];
        soon(stream.read_exact(&mut echoed)).await.unwrap();
        assert_eq!(echoed, message);
    }
}
