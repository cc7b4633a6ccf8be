//! A front door that is handed to another while people come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hearth_server::proxy::handover::{Desk, Inheritance};
use hearth_server::reverse_proxy::Course;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::proxy_front::{Front, Pod, Tools, raw_pod, read_head, soon};

const HEAD: &str = "GET / HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r\n";

/// Lets a front door be taken over at `place`; completes when it was.
async fn relieve(desk: Desk, front: &Front) {
    let sockets = std::mem::take(&mut *front.sockets.lock().unwrap());
    desk.relieved(&sockets).await;
    front.course.send_replace(Course::Relieved);
}

/// Takes the door over for these tools, up to the word that relieves the first.
async fn take_over(place: &std::path::Path, front: &Front, tools: Tools<'_>) -> Front {
    let mut inherited = Inheritance::ask(place).await.unwrap();
    let (https, http) = (inherited.socket(front.https).await.unwrap(), inherited.socket(front.http).await.unwrap());
    let successor = front.successor(https, http, tools);
    inherited.predecessor().unwrap().relieve().await;
    successor
}

/// A pod that echoes what comes after a switch of protocols.
async fn echo_of_bytes() -> std::net::SocketAddr {
    raw_pod(|mut stream| async move {
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await
}

async fn echoes(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), text: &[u8]) -> bool {
    soon(stream.write_all(text)).await.unwrap();
    let mut back = vec![0; text.len()];
    soon(stream.read_exact(&mut back)).await.is_ok_and(|_| back == text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_takes_over_and_nobody_notices() {
    let state = tempfile::tempdir().unwrap();
    let place = state.path().join("handover.sock");
    let (old, new, tunnel) = (Pod::echo("old").await, Pod::echo("new").await, echo_of_bytes().await);
    let first = Front::start(&[("a", &[old.address]), ("w", &[tunnel])]).await;
    let first = Arc::new(first);

    // One connection that waits for its next request, and one that speaks another protocol.
    let mut idle = first.connect(b"http/1.1").await;
    soon(idle.write_all(format!("{HEAD}\r\n").as_bytes())).await.unwrap();
    let mut head = soon(read_head(&mut idle)).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && !head.to_lowercase().contains("connection: close"), "{head}");
    let length =
        head.to_lowercase().split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
    soon(idle.read_exact(&mut vec![0; length])).await.unwrap();
    let mut socket = first.connect(b"http/1.1").await;
    let ask = HEAD.replace("a.hearth", "w.hearth");
    soon(socket.write_all(format!("{ask}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n").as_bytes())).await.unwrap();
    assert!(soon(read_head(&mut socket)).await.starts_with("HTTP/1.1 101 "));
    assert!(echoes(&mut socket, b"before").await);

    // People come all the time.
    let (done, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let visitors: Vec<_> = (0..4)
        .map(|_| {
            let (front, done, served) = (first.clone(), done.clone(), served.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let answer = front.get("a.hearth.example", "/").await;
                    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let until = async |more: usize| {
        let goal = served.load(Ordering::Relaxed) + more;
        while served.load(Ordering::Relaxed) < goal {
            tokio::task::yield_now().await;
        }
    };
    soon(until(50)).await;
    let desk = Desk::open(&place).unwrap();
    let addresses = [new.address];
    let tools: Tools<'_> = &[("a", &addresses)];
    let ((), second) = soon(async { tokio::join!(relieve(desk, &first), take_over(&place, &first, tools)) }).await;
    soon(until(50)).await;
    let before = old.count();
    soon(until(200)).await;
    assert_eq!(old.count(), before, "the first accepts still");
    done.store(true, Ordering::Relaxed);
    for visitor in visitors {
        soon(visitor).await.unwrap();
    }

    // What was open lives on in the first: a request that was on its way is answered and told to come anew.
    soon(idle.write_all(format!("{HEAD}\r\n").as_bytes())).await.unwrap();
    head = soon(read_head(&mut idle)).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.to_lowercase().contains("connection: close"), "{head}");
    assert_eq!(old.count(), before + 1);
    assert!(echoes(&mut socket, b"after").await);
    assert!(!first.served.is_finished());
    drop((idle, socket));
    let Ok(first) = Arc::try_unwrap(first) else { panic!("the visitors have gone") };
    soon(first.served).await.unwrap();
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_ends_before_its_word_changes_nothing() {
    let state = tempfile::tempdir().unwrap();
    let place = state.path().join("handover.sock");
    assert!(Inheritance::ask(&place).await.unwrap().predecessor().is_none(), "nobody is there");
    let (old, new) = (Pod::echo("old").await, Pod::echo("new").await);
    let front = Front::start(&[("a", &[old.address])]).await;
    let relieved = relieve(Desk::open(&place).unwrap(), &front);
    let visits = async {
        for _ in 0..3 {
            drop(Inheritance::ask(&place).await.unwrap());
            assert!(front.get("a.hearth.example", "/").await.contains("old GET /"));
        }
        // Another one takes over after all, and a stale socket of one that ended is nobody's.
        let second = take_over(&place, &front, &[("a", &[new.address])]).await;
        assert!(second.get("a.hearth.example", "/").await.starts_with("HTTP/1.1 200 "));
        second
    };
    let ((), second) = soon(async { tokio::join!(relieved, visits) }).await;
    soon(front.served).await.unwrap();
    assert!(second.get("a.hearth.example", "/").await.contains("new GET /"));
    assert!(Inheritance::ask(&place).await.unwrap().predecessor().is_none(), "nobody accepts there any more");
    second.stop().await;
}
