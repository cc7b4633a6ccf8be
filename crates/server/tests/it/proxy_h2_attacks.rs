//! Clients of HTTP/2 that mean harm: what the front door takes of memory for them, how they end, and that others are
//! served meanwhile.
//!
//! Each test has a process of its own, in which are the front door, the pods and the attacker, and states how much more
//! memory the process may take. The limits on requests of one visitor are off unless a test is about them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hearth_core::platform::FrontDoor;
use hearth_server::reverse_proxy::Limits;
use tokio::io::{AsyncWriteExt, sink};
use tokio::task::JoinHandle;

use crate::proxy_front::{Front, Pod, raw_pod, read_head, soon};
use crate::proxy_wire::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GO_AWAY, HEADERS, INITIAL_WINDOW, Memory, PING, PRIORITY, RESET,
    SETTINGS, WINDOW_UPDATE, Wire, alone, ask, block, frame, length, literal, settings, window_update,
};

/// How many requests a connection may have open.
const STREAMS: u32 = 128;

/// Codes of errors (RFC 9113 §7).
const CANCEL: u32 = 8;
const FLOW_CONTROL_ERROR: u32 = 3;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What a client may pause in these tests.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

pub(crate) fn impatient() -> Limits {
    Limits { client_pause: PAUSE, client_idle: PAUSE, ..Limits::default() }
}

/// A tool's pod that answers with far more than is read, and how many of its answers are open.
#[derive(Clone)]
pub(crate) struct Endless {
    pub(crate) address: SocketAddr,
    open: Arc<AtomicUsize>,
}

impl Endless {
    pub(crate) async fn start(length: usize) -> Self {
        let open = Arc::new(AtomicUsize::new(0));
        let counter = open.clone();
        let address = raw_pod(move |mut stream| {
            let counter = counter.clone();
            async move {
                static PIECE: [u8; 16 * 1024] = [b'x'; 16 * 1024];
                while !read_head(&mut stream).await.is_empty() {
                    counter.fetch_add(1, Ordering::SeqCst);
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                    let mut written = stream.write_all(head.as_bytes()).await;
                    let mut left = length;
                    while left > 0 && written.is_ok() {
                        let piece = left.min(PIECE.len());
                        written = stream.write_all(&PIECE[..piece]).await;
                        left -= piece;
                    }
                    counter.fetch_sub(1, Ordering::SeqCst);
                    if written.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        Self { address, open }
    }

    pub(crate) async fn has_open(&self, is_enough: impl Fn(usize) -> bool) {
        soon(async {
            while !is_enough(self.open.load(Ordering::SeqCst)) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// A pod that never answers, and how many requests it has seen.
pub(crate) async fn silent() -> (SocketAddr, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    let address = raw_pod(move |mut stream| {
        let counter = counter.clone();
        async move {
            read_head(&mut stream).await;
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = tokio::io::copy(&mut stream, &mut sink()).await;
        }
    })
    .await;
    (address, seen)
}

/// Other visitors, who are served until they are asked whether they were.
pub(crate) struct Others {
    is_over: Arc<AtomicBool>,
    asking: JoinHandle<usize>,
    memory: Memory,
}

impl Others {
    async fn of(front: &Arc<Front>) -> Self {
        // What is made once is there when measuring begins.
        assert!(front.get("b.hearth.example", "/").await.starts_with("HTTP/1.1 200 "));
        let mut wire = Wire::open(front, &[]).await;
        wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &ask("GET", "b"))).await;
        assert_eq!(wire.next_of(|frame| frame.kind == HEADERS).await.unwrap().status(), 200);
        let (is_over, front) = (Arc::new(AtomicBool::new(false)), front.clone());
        let over = is_over.clone();
        let asking = tokio::spawn(async move {
            let mut served = 0;
            while !over.load(Ordering::SeqCst) {
                let mut stream = front.connect_from("127.0.0.2", b"http/1.1").await;
                let request = b"GET / HTTP/1.1\r\nHost: b.hearth.example\r\nUser-Agent: t\r\nConnection: close\r\n\r\n";
                soon(stream.write_all(request)).await.unwrap();
                soon(stream.flush()).await.unwrap();
                assert!(soon(read_head(&mut stream)).await.starts_with("HTTP/1.1 200 "));
                served += 1;
            }
            served
        });
        Self { is_over, asking, memory: Memory::watch() }
    }

    /// They were, and the process took less than so many MiB more.
    pub(crate) async fn were_served(self, mebibytes: u64) {
        self.is_over.store(true, Ordering::SeqCst);
        assert!(soon(self.asking).await.unwrap() > 0);
        self.memory.stayed_below(mebibytes);
    }
}

pub(crate) async fn front(a: SocketAddr, limits: Limits) -> (Arc<Front>, Others) {
    let b = Pod::echo("b").await;
    let front = Arc::new(Front::with(&[("a", &[a]), ("b", &[b.address])], limits).await);
    let others = Others::of(&front).await;
    (front, others)
}

/// The head of a request without a body.
fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &ask("GET", "a"))
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RESET, 0, stream, &CANCEL.to_be_bytes())
}

/// The numbers of so many streams.
fn streams(count: u32) -> impl Iterator<Item = u32> + Clone {
    (0..count).map(|number| 2 * number + 1)
}

/// Has the front door answer a ping, when it has read all that was sent before.
async fn caught_up(wire: &mut Wire) -> bool {
    wire.send(frame(PING, 0, 0, b"caughtup")).await
        && wire.next_of(|frame| frame.kind == PING && frame.flags & ACK != 0).await.is_some()
}

#[test]
fn rapid_reset() {
    alone("proxy_h2_attacks::rapid_reset", || async {
        // CVE-2023-44487, all at once: after a few the client is sent away.
        let (a, seen) = silent().await;
        let (front, others) = front(a, Limits::default()).await;
        let mut wire = Wire::open(&front, &[]).await;
        let pairs: Vec<u8> = streams(20_000).flat_map(|stream| [get(stream), reset(stream)].concat()).collect();
        wire.send(pairs).await;
        assert!([None, Some(ENHANCE_YOUR_CALM)].contains(&wire.ended().await));
        assert!(seen.load(Ordering::SeqCst) < 1000, "{seen:?} of 20,000 requests came to the tool");
        others.were_served(8).await;
    });
}

#[test]
fn rapid_reset_in_step() {
    alone("proxy_h2_attacks::rapid_reset_in_step", || async {
        // Each request is begun before it is reset, which looks like a visitor who is in a hurry: what one visitor may
        // ask for in a second bounds what comes to the tool.
        let (a, seen) = silent().await;
        let b = Pod::echo("b").await;
        let allowed = FrontDoor::default();
        let front = Arc::new(Front::allowing(&[("a", &[a]), ("b", &[b.address])], allowed.clone()).await);
        let begun = tokio::time::Instant::now();
        let memory = Memory::watch();
        let mut wire = Wire::open_from(&front, "127.0.0.3", &[]).await;
        for stream in streams(2000) {
            assert!(wire.send(get(stream)).await && caught_up(&mut wire).await && wire.send(reset(stream)).await);
        }
        let most = allowed.visitor.burst as f64 + allowed.visitor.per_second as f64 * begun.elapsed().as_secs_f64();
        assert!((seen.load(Ordering::SeqCst) as f64) < most + 2.0, "{seen:?} of {most}");
        assert!(front.get("b.hearth.example", "/").await.starts_with("HTTP/1.1 200 "));
        memory.stayed_below(8);
    });
}

#[test]
fn made_you_reset() {
    alone("proxy_h2_attacks::made_you_reset", || async {
        // CVE-2025-8671: whole requests, each with a fault after it that has the front door reset it.
        let faults: [fn(u32) -> Vec<u8>; 3] = [
            |stream| window_update(stream, 0),
            |stream| [window_update(stream, 0x7fff_ffff), window_update(stream, 0x7fff_ffff)].concat(),
            |stream| frame(PRIORITY, 0, stream, &[stream.to_be_bytes().as_slice(), &[0]].concat()),
        ];
        let (a, seen) = silent().await;
        let (front, others) = front(a, Limits::default()).await;
        for fault in faults {
            let before = seen.load(Ordering::SeqCst);
            let mut wire = Wire::open(&front, &[]).await;
            for stream in streams(10_000) {
                if !wire.send([get(stream), fault(stream)].concat()).await || !caught_up(&mut wire).await {
                    break;
                }
            }
            wire.ended().await;
            let came = seen.load(Ordering::SeqCst) - before;
            assert!(came <= 2 * STREAMS as usize, "{came} of 10,000 requests came to the tool");
        }
        others.were_served(8).await;
    });
}

#[test]
fn heads_that_do_not_end() {
    alone("proxy_h2_attacks::heads_that_do_not_end", || async {
        // CVE-2024-27316, and its kin: no frame with the end of the fields, ever.
        let (a, seen) = silent().await;
        let (front, others) = front(a, Limits::default()).await;
        let field = literal(0, b"x", &[b'y'; 16_000]);
        let endless = [vec![0], length(1), b"x".to_vec(), length(1 << 30)].concat();
        // With fields, with nothing, with one text that goes on, and with one field of the table over and over.
        let beginnings = [ask("GET", "a"), ask("GET", "a"), endless, literal(0x40, b"x", &[b'y'; 4000])];
        let rest = [field, Vec::new(), vec![b'z'; 16_000], vec![0xbe; 16_000]];
        for (beginning, rest) in beginnings.iter().zip(&rest) {
            let mut wire = Wire::open(&front, &[]).await;
            wire.send(frame(HEADERS, END_STREAM, 1, beginning)).await;
            let sent = wire.flood(&frame(CONTINUATION, 0, 1, rest), 64 << 20).await;
            assert!(sent < 64 << 20, "the front door has read {sent} bytes of a head");
        }
        assert_eq!(seen.load(Ordering::SeqCst), 0);
        others.were_served(8).await;
    });
}

#[test]
fn long_heads_of_many_requests() {
    alone("proxy_h2_attacks::long_heads_of_many_requests", || async {
        // As many as may be open, each with a head as long as it may be, held by a tool that does not answer: twice 8 MiB
        // as they came and as they are sent on.
        let (a, _seen) = silent().await;
        let (front, others) = front(a, Limits::default()).await;
        let mut wire = Wire::open(&front, &[]).await;
        let value = "v".repeat(15_000);
        for stream in streams(STREAMS) {
            let head = [ask("GET", "a"), block(&[("x", &value)])].concat();
            let more = block(&[("x", &value)]);
            let frames = [
                frame(HEADERS, END_STREAM, stream, &head),
                frame(CONTINUATION, 0, stream, &more),
                frame(CONTINUATION, END_HEADERS, stream, &more),
            ];
            assert!(wire.send(frames.concat()).await);
        }
        assert!(caught_up(&mut wire).await);
        // One that is too long is refused by itself.
        let mut wire = Wire::open(&front, &[]).await;
        let more =
            (0..5).map(|number| frame(CONTINUATION, u8::from(number == 4) * END_HEADERS, 1, &block(&[("x", &value)])));
        wire.send([frame(HEADERS, END_STREAM, 1, &ask("GET", "a")), more.collect::<Vec<_>>().concat()].concat()).await;
        assert_eq!(wire.next_of(|frame| frame.kind == HEADERS).await.unwrap().status(), 431);
        // A hundred requests, each of which names a long field of the table as often as a head has room for bytes.
        let mut wire = Wire::open(&front, &[]).await;
        wire.send(frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &[ask("GET", "a"), literal(0x40, b"x", &[b'y'; 4000])].concat(),
        ))
        .await;
        for stream in streams(100).skip(1) {
            let bomb = [ask("GET", "a"), vec![0xbe; 16_000]].concat();
            if !wire.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &bomb)).await {
                break;
            }
        }
        assert_eq!(wire.ended().await, Some(ENHANCE_YOUR_CALM));
        others.were_served(32).await;
    });
}

#[test]
fn floods_whose_answers_are_not_read() {
    alone("proxy_h2_attacks::floods_whose_answers_are_not_read", || async {
        // Everything that asks for an answer, and everything that asks for none. The client reads nothing of it.
        let (a, _seen) = silent().await;
        let (front, others) = front(a, impatient()).await;
        let opened = frame(HEADERS, END_HEADERS, 1, &ask("POST", "a"));
        let floods = [
            (Vec::new(), frame(PING, 0, 0, b"flooding")),
            (Vec::new(), settings(&[(INITIAL_WINDOW, 1), (INITIAL_WINDOW, 2)])),
            (Vec::new(), frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 0])),
            (opened.clone(), window_update(1, 1)),
            (opened.clone(), frame(DATA, 0, 1, b"")),
            (opened.clone(), frame(DATA, 0, 1, b"x")),
            (Vec::new(), frame(0xfe, 0, 0, b"unknown")),
        ];
        for (before, flooded) in floods {
            let mut wire = Wire::open(&front, &[]).await;
            wire.send(before).await;
            let pieces = flooded.repeat(16_000 / flooded.len());
            wire.flood(&pieces, 16 << 20).await;
        }
        others.were_served(8).await;
    });
}

#[test]
fn closed_windows() {
    alone("proxy_h2_attacks::closed_windows", || async {
        // Long answers are asked for and never taken: nothing of them is buffered but a piece for each, and after a pause
        // they are given up, so that tools are free again.
        let pod = Endless::start(1 << 30).await;
        let (front, others) = front(pod.address, impatient()).await;
        for window in [0, 1, 65_535] {
            let mut wire = Wire::open(&front, &[(INITIAL_WINDOW, window)]).await;
            for stream in streams(STREAMS) {
                wire.send(get(stream)).await;
            }
            pod.has_open(|open| open > 0).await;
            let reset = wire.next_of(|frame| frame.kind == RESET).await.unwrap();
            assert_eq!(reset.code(), CANCEL);
            pod.has_open(|open| open == 0).await;
        }
        others.were_served(32).await;
    });
}

#[test]
fn windows_that_open_by_a_byte() {
    alone("proxy_h2_attacks::windows_that_open_by_a_byte", || async {
        let pod = Endless::start(1 << 30).await;
        let (front, others) = front(pod.address, impatient()).await;
        let mut wire = Wire::open(&front, &[(INITIAL_WINDOW, 1)]).await;
        for stream in streams(STREAMS) {
            wire.send(get(stream)).await;
        }
        // A byte at a time is less than a client has to take in a pause.
        let mut resets = 0;
        for stream in streams(STREAMS).cycle() {
            if !wire.send(window_update(stream, 1)).await || resets > 0 {
                break;
            }
            while let Ok(Some(frame)) = tokio::time::timeout(Duration::from_millis(1), wire.next()).await {
                resets += usize::from(frame.kind == RESET);
            }
        }
        drop(wire);
        pod.has_open(|open| open == 0).await;
        others.were_served(32).await;
    });
}

#[test]
fn windows_that_overflow() {
    alone("proxy_h2_attacks::windows_that_overflow", || async {
        let pod = Endless::start(1 << 30).await;
        let (front, others) = front(pod.address, Limits::default()).await;
        let mut wire = Wire::open(&front, &[]).await;
        wire.send(window_update(0, 0x7fff_ffff)).await;
        assert_eq!(wire.ended().await, Some(FLOW_CONTROL_ERROR));
        // The window of a stream may become negative and must be filled again; beyond its limit it is a fault.
        let mut wire = Wire::open(&front, &[(INITIAL_WINDOW, 100_000)]).await;
        wire.send([get(1), settings(&[(INITIAL_WINDOW, 0)]), window_update(1, 0x7fff_ffff)].concat()).await;
        wire.send(settings(&[(INITIAL_WINDOW, 0x7fff_ffff)])).await;
        let end = wire.next_of(|frame| [RESET, GO_AWAY].contains(&frame.kind)).await.unwrap();
        assert_eq!(end.code(), FLOW_CONTROL_ERROR);
        // More than the front door's own window is a fault of the client.
        let mut wire = Wire::open(&front, &[]).await;
        wire.send(frame(HEADERS, END_HEADERS, 1, &ask("POST", "a"))).await;
        let sent = wire.flood(&frame(DATA, 0, 1, &[0; 16_384]), 8 << 20).await;
        assert!(sent < 8 << 20);
        others.were_served(16).await;
    });
}

#[test]
fn settings_that_swing() {
    alone("proxy_h2_attacks::settings_that_swing", || async {
        // Each change of the initial window is work for every stream that is open.
        let pod = Endless::start(1 << 30).await;
        let (front, others) = front(pod.address, Limits::default()).await;
        let mut wire = Wire::open(&front, &[(INITIAL_WINDOW, 0)]).await;
        for stream in streams(STREAMS) {
            wire.send(get(stream)).await;
        }
        for _ in 0..2000 {
            let swing = [settings(&[(INITIAL_WINDOW, 1)]), settings(&[(INITIAL_WINDOW, 0)])].concat();
            if !wire.send(swing).await {
                break;
            }
            if wire.next_of(|frame| frame.kind == SETTINGS && frame.flags & ACK != 0).await.is_none() {
                break;
            }
        }
        others.were_served(32).await;
    });
}

#[test]
fn a_client_that_reads_nothing() {
    alone("proxy_h2_attacks::a_client_that_reads_nothing", || async {
        // All windows are open as far as they go, and nothing is read: each answer has a buffer of 64 KiB, and what is
        // read of a tool at a time, 256 KiB at most.
        let pod = Endless::start(1 << 30).await;
        let (front, others) = front(pod.address, impatient()).await;
        let mut wire = Wire::open(&front, &[(INITIAL_WINDOW, 0x7fff_ffff)]).await;
        wire.send(window_update(0, 0x7fff_ffff - 65_535)).await;
        for stream in streams(STREAMS) {
            wire.send(get(stream)).await;
        }
        pod.has_open(|open| open > 0).await;
        pod.has_open(|open| open == 0).await;
        drop(wire);
        others.were_served(64).await;
    });
}

#[test]
fn answers_of_which_the_end_is_not_taken() {
    alone("proxy_h2_attacks::answers_of_which_the_end_is_not_taken", || async {
        // A window of one byte has a short answer leave the tool, so that nothing but the connection holds it. Such
        // connections are closed when they have no request. An end of 16 KiB may hold the piece of 64 KiB in which it was
        // read from the tool.
        let pod = Endless::start(16 * 1024).await;
        let (front, others) = front(pod.address, impatient()).await;
        let mut wires = Vec::new();
        for _ in 0..8 {
            let mut wire = Wire::open(&front, &[(INITIAL_WINDOW, 1)]).await;
            for stream in streams(STREAMS) {
                wire.send(get(stream)).await;
            }
            wires.push(wire);
        }
        for wire in &mut wires {
            wire.ended().await;
        }
        others.were_served(96).await;
    });
}

#[test]
fn bodies_that_do_not_come() {
    alone("proxy_h2_attacks::bodies_that_do_not_come", || async {
        // Slow writers: each is told so when it has paused for too long.
        let (a, seen) = silent().await;
        let (front, others) = front(a, impatient()).await;
        let mut wire = Wire::open(&front, &[]).await;
        for stream in streams(STREAMS) {
            let begun = [frame(HEADERS, END_HEADERS, stream, &ask("POST", "a")), frame(DATA, 0, stream, b"x")];
            wire.send(begun.concat()).await;
        }
        assert_eq!(wire.next_of(|frame| frame.kind == HEADERS).await.unwrap().status(), 408);
        for _ in 1..STREAMS {
            assert!(wire.next_of(|frame| frame.kind == HEADERS).await.is_some());
        }
        assert!(seen.load(Ordering::SeqCst) <= STREAMS as usize);
        others.were_served(16).await;
    });
}

#[test]
fn bodies_for_a_tool_that_reads_nothing() {
    alone("proxy_h2_attacks::bodies_for_a_tool_that_reads_nothing", || async {
        // Writers as fast as their windows let them be: no more is taken than a window has, and a connection to a tool
        // buffers 256 KiB.
        const WRITERS: u32 = 32;
        let a = raw_pod(|stream| async move {
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await;
        let (front, others) = front(a, impatient()).await;
        let mut wire = Wire::open(&front, &[]).await;
        let mut sent = 0;
        for stream in streams(WRITERS) {
            wire.send(frame(HEADERS, END_HEADERS, stream, &ask("POST", "a"))).await;
        }
        let mut window: i64 = 65_535;
        while let Ok(Some(frame)) = tokio::time::timeout(PAUSE, wire.next()).await {
            if frame.kind == WINDOW_UPDATE && frame.stream == 0 {
                window += i64::from(u32::from_be_bytes(frame.payload[..4].try_into().unwrap()));
            }
            while window >= 16_384 {
                let stream = streams(WRITERS).nth(sent / 16_384 % WRITERS as usize).unwrap();
                if !wire.send(crate::proxy_wire::frame(DATA, 0, stream, &[0; 16_384])).await {
                    break;
                }
                (window, sent) = (window - 16_384, sent + 16_384);
            }
        }
        others.were_served(32).await;
    });
}

#[test]
fn idle_connections() {
    alone("proxy_h2_attacks::idle_connections", || async {
        // One that answers every ping and asks for nothing is closed all the same.
        let (a, _seen) = silent().await;
        let (front, others) = front(a, impatient()).await;
        let mut wire = Wire::open(&front, &[]).await;
        assert!(wire.next_of(|frame| frame.kind == GO_AWAY).await.is_some());
        wire.ended().await;
        others.were_served(8).await;
    });
}
