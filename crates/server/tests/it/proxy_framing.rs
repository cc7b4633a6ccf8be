//! What the guard passes on, the parser behind it reads as the same requests.
//!
//! Requests are generated, some of them are damaged, and what [`Framing`] passes of them is given to hyper, set up as
//! the front door has it, and to a reader that knows nothing but the rules. Both must see the same methods, targets and
//! bodies, however the bytes come. `FRAMING_SEED` and `FRAMING_COUNT` replay and extend it.

#![expect(clippy::print_stderr, reason = "the seed of a failure is to be read in the test's output")]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hearth_core::framing::{Framing, LONGEST_HEAD, Then};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

/// How many streams of requests are tried.
const COUNT: u64 = 20_000;

/// A request as it was read: method, target and body.
type Seen = (String, String, Vec<u8>);

/// A small generator of numbers that are random enough (`SplitMix64`).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// A target as it is compared: hyper tells a scheme in lower case, and a path where an absolute target has none.
fn told(target: &str) -> String {
    target.to_lowercase().trim_end_matches('/').to_owned()
}

/// A request that is right.
fn request(random: &mut Random) -> Vec<u8> {
    let method = random.pick(&["GET", "POST", "PUT", "DELETE", "OPTIONS"]);
    let target = random.pick(&["/", "/a?b", "/%2e/x", "*", "http://a.example/x"]);
    let version = random.pick(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]);
    let mut text = format!("{method} {target} {version}\r\nHost: a.example\r\n").into_bytes();
    for _ in 0..random.below(3) {
        let field = random.pick(&[
            "X: y",
            "Accept:*/*",
            "Empty:",
            "Cookie: a=b; c=\"d\"",
            "Connection: keep-alive",
            "Expect: 100-continue",
        ]);
        text.extend(field.bytes().chain(*b"\r\n"));
    }
    let body: Vec<u8> =
        (0..random.below(40)).map(|_| random.pick(&[&b'a', &b'\r', &b'\n', &b'0', &b' ']).to_owned()).collect();
    match random.below(3) {
        0 => text.extend(b"\r\n"),
        1 => {
            text.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
            text.extend(&body);
        }
        _ if version == "HTTP/1.0" => text.extend(b"\r\n"),
        _ => {
            text.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(random.below(20) + 1) {
                let extension = random.pick(&["", "", ";a=b"]);
                text.extend(format!("{:x}{extension}\r\n", chunk.len()).bytes());
                text.extend(chunk.iter().chain(b"\r\n"));
            }
            text.extend(random.pick(&["0\r\n\r\n", "000\r\nA: b\r\n\r\n"]).bytes());
        }
    }
    text
}

/// Does to the bytes what programs and people do.
fn damage(random: &mut Random, text: &mut Vec<u8>) {
    let pieces: [&[u8]; 14] = [
        b"\r",
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b"\0",
        b":",
        b",",
        b";",
        b"0",
        b"Content-Length: 1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: b\r\n",
        b"\xff",
    ];
    let at = random.below(text.len());
    match random.below(4) {
        0 => drop(text.remove(at)),
        1 => text[at] = random.pick(&pieces)[0],
        2 => drop(text.splice(at..at, random.pick(&pieces).iter().copied())),
        _ => {
            // At a line's end, where fields and chunks begin.
            let line = text[at..].iter().position(|byte| *byte == b'\n').map_or(at, |end| at + end + 1);
            drop(text.splice(line..line, random.pick(&pieces).iter().copied()));
        }
    }
}

/// What is passed on of bytes that come in pieces, and whether it ends between two requests.
fn passed(random: &mut Random, text: &[u8]) -> (Vec<u8>, bool) {
    let (mut framing, mut held, mut out, mut at) = (Framing::new(), Vec::new(), Vec::new(), 0);
    while at < text.len() {
        let piece = (random.below(60) + 1).min(text.len() - at);
        held.extend(&text[at..at + piece]);
        at += piece;
        let step = framing.advance(&held);
        out.extend(held.drain(..step.passed));
        match step.then {
            Then::More => (),
            // Nothing more comes; what was passed of a broken body stays without an end.
            Then::Refused(_) => return (out, true),
            Then::Broken(_) | Then::Undecided => return (out, false),
        }
    }
    (out, framing.may_end())
}

/// Reads requests by the rules alone, as far as they are whole.
fn by_the_rules(mut text: &[u8]) -> Vec<Seen> {
    let mut seen = Vec::new();
    loop {
        while let Some(rest) = text.strip_prefix(b"\r\n") {
            text = rest;
        }
        let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") else { return seen };
        let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
        let first: Vec<String> =
            String::from_utf8_lossy(&text[..end]).lines().next().unwrap().split(' ').map(str::to_owned).collect();
        text = &text[end + 4..];
        let field = |name: &str| {
            let lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
            lines.filter(|(found, _)| *found == name).map(|(_, value)| value.trim().to_owned()).next()
        };
        let mut body = Vec::new();
        if field("transfer-encoding").is_some() {
            loop {
                let Some(line) = text.windows(2).position(|two| two == b"\r\n") else { return seen };
                let digits = String::from_utf8_lossy(&text[..line]).split(';').next().unwrap().to_owned();
                let size = usize::from_str_radix(&digits, 16).unwrap();
                text = &text[line + 2..];
                if size == 0 {
                    let trailer = if text.starts_with(b"\r\n") {
                        Some(2)
                    } else {
                        text.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
                    };
                    let Some(trailer) = trailer else { return seen };
                    text = &text[trailer..];
                    break;
                }
                let Some(chunk) = text.get(..size + 2) else { return seen };
                body.extend(&chunk[..size]);
                text = &text[size + 2..];
            }
        } else if let Some(length) = field("content-length") {
            let length: usize = length.parse().unwrap();
            let Some(all) = text.get(..length) else { return seen };
            body.extend(all);
            text = &text[length..];
        }
        seen.push((first[0].clone(), told(&first[1]), body));
    }
}

/// Reads requests with hyper, as far as they are whole. `ends` says that the last one is.
async fn by_hyper(text: &[u8], ends: bool) -> Vec<Seen> {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let kept = seen.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let seen = kept.clone();
        async move {
            let (method, target) = (request.method().to_string(), told(&request.uri().to_string()));
            if let Ok(body) = request.into_body().collect().await {
                seen.lock().unwrap().push((method, target, body.to_bytes().to_vec()));
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let connection = http1::Builder::new().max_buf_size(LONGEST_HEAD).serve_connection(TokioIo::new(server), service);
    client.write_all(text).await.unwrap();
    if ends {
        client.write_all(b"GET /end HTTP/1.1\r\nHost: end\r\nConnection: close\r\n\r\n").await.unwrap();
    }
    client.shutdown().await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), connection).await;
    assert!(ended.is_ok(), "hyper does not end");
    let mut seen = seen.lock().unwrap().clone();
    if ends && seen.last().is_some_and(|(_, target, _)| target == "/end") {
        seen.pop();
    }
    seen
}

#[tokio::test]
async fn the_parser_reads_what_is_passed_on_as_the_guard_does() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let clock = || u64::try_from(hearth_server::clock::now().as_nanosecond()).unwrap_or(1);
    let seed = number("FRAMING_SEED").unwrap_or_else(clock);
    eprintln!("FRAMING_SEED={seed}");
    let (mut whole, mut cut) = (0, 0);
    for index in 0..number("FRAMING_COUNT").unwrap_or(COUNT) {
        let mut random = Random(seed.wrapping_add(index));
        let mut text: Vec<u8> = (0..random.below(4) + 1).flat_map(|_| request(&mut random)).collect();
        let intact = text.clone();
        for _ in 0..random.below(3) {
            damage(&mut random, &mut text);
        }
        let (out, ends) = passed(&mut random, &text);
        if text == intact {
            assert_eq!(out, text, "FRAMING_SEED={seed}, {index}: a right request is refused");
        }
        let expected = by_the_rules(&out);
        let found = by_hyper(&out, ends).await;
        // The parser may refuse more, such as a target that is no URL, and HTTP/1.0 ends the connection after an answer;
        // but what it reads is what was passed on.
        let compared = expected.len().min(found.len());
        let shown = || String::from_utf8_lossy(&out).into_owned();
        assert_eq!(found, expected[..compared], "FRAMING_SEED={seed}, {index}: {}", shown());
        let closes = text != intact || shown().contains("HTTP/1.0");
        assert!(closes || found.len() == expected.len(), "FRAMING_SEED={seed}, {index}: {}", shown());
        *(if out.len() == text.len() { &mut whole } else { &mut cut }) += 1;
    }
    assert!(whole > 100 && cut > 100, "{whole} passed whole, {cut} not");
}
