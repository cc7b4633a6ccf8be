//! Requests of HTTP/2 that could be read in two ways once they are HTTP/1: nothing of them reaches a tool.
//!
//! What breaks a rule of RFC 9113 is reset by the parser as a fault of the client; what could be read and names two
//! hosts, or none, is answered with 400.

use std::sync::{Arc, Mutex};

use tokio::io::AsyncReadExt;

use crate::proxy_front::{Front, Pod, raw_pod, soon};
use crate::proxy_wire::{DATA, END_HEADERS, END_STREAM, GO_AWAY, HEADERS, RESET, Wire, block, frame};

/// The code of a request that breaks the rules (RFC 9113 §7).
const PROTOCOL_ERROR: u32 = 1;

/// What a client was told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Status(u16),
    Reset(u32),
    Farewell(u32),
    Nothing,
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "https");
const AUTHORITY: (&str, &str) = (":authority", "a.hearth.example");
const PATH: (&str, &str) = (":path", "/");
const AGENT: (&str, &str) = ("user-agent", "t");
const USUAL: [(&str, &str); 5] = [METHOD, SCHEME, AUTHORITY, PATH, AGENT];

/// The usual fields, of which one is another.
fn with(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    USUAL.iter().map(|field| if field.0 == name { (name, value) } else { *field }).collect()
}

/// The usual fields and more.
fn and(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [&USUAL, more].concat()
}

async fn told(front: &Front, fields: &[(&str, &str)], body: Option<&str>) -> Told {
    let mut wire = Wire::open(front, &[]).await;
    let end = if body.is_none() { END_STREAM } else { 0 };
    wire.send(frame(HEADERS, END_HEADERS | end, 1, &block(fields))).await;
    if let Some(body) = body {
        wire.send(frame(DATA, END_STREAM, 1, body.as_bytes())).await;
    }
    match wire.next_of(|frame| [HEADERS, RESET, GO_AWAY].contains(&frame.kind)).await {
        Some(frame) if frame.kind == HEADERS => Told::Status(frame.status()),
        Some(frame) if frame.kind == RESET => Told::Reset(frame.code()),
        Some(frame) => Told::Farewell(frame.code()),
        None => Told::Nothing,
    }
}

#[tokio::test]
async fn what_breaks_the_rules_is_reset_and_reaches_no_tool() {
    let (a, b) = (Pod::echo("a").await, Pod::echo("b").await);
    let front = Front::start(&[("a", &[a.address]), ("b", &[b.address])]).await;
    let other = (":authority", "b.hearth.example");
    let cases = [
        // Pseudo-fields: twice, missing, unknown, of an answer, after others.
        vec![METHOD, SCHEME, AUTHORITY, other, PATH, AGENT],
        vec![METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH, AGENT],
        vec![METHOD, METHOD, SCHEME, AUTHORITY, PATH, AGENT],
        vec![METHOD, SCHEME, AUTHORITY, PATH, (":path", "/b"), AGENT],
        vec![METHOD, SCHEME, (":scheme", "http"), AUTHORITY, PATH, AGENT],
        vec![SCHEME, AUTHORITY, PATH, AGENT],
        vec![METHOD, AUTHORITY, PATH, AGENT],
        vec![METHOD, SCHEME, AUTHORITY, AGENT],
        vec![METHOD, SCHEME, AUTHORITY, PATH, (":unknown", "x"), AGENT],
        vec![METHOD, SCHEME, AUTHORITY, PATH, (":status", "200"), AGENT],
        vec![METHOD, SCHEME, PATH, AGENT, AUTHORITY],
        vec![METHOD, SCHEME, AUTHORITY, PATH, (":protocol", "websocket"), AGENT],
        vec![(":method", "CONNECT"), SCHEME, AUTHORITY, PATH, (":protocol", "websocket"), AGENT],
        // A request of HTTP/1 in one of them.
        with(":method", "GET / HTTP/1.1\r\nHost: b.hearth.example\r\nX:"),
        with(":method", "GE T"),
        with(":method", ""),
        with(":path", "/ HTTP/1.1\r\nHost: b.hearth.example\r\nX:"),
        with(":path", "/a b"),
        with(":path", "/\0"),
        with(":path", "/\t"),
        with(":path", ""),
        with(":scheme", "https://b.hearth.example/?"),
        with(":authority", "a.hearth.example\r\nHost: b.hearth.example"),
        with(":authority", "a.hearth.example/b"),
        // Fields that speak of one connection.
        and(&[("connection", "close")]),
        and(&[("connection", "x-own"), ("x-own", "1")]),
        and(&[("keep-alive", "timeout=5")]),
        and(&[("proxy-connection", "keep-alive")]),
        and(&[("transfer-encoding", "chunked")]),
        and(&[("upgrade", "h2c")]),
        and(&[("te", "gzip")]),
        and(&[("te", "trailers, chunked")]),
        // Names and values that are none, or are more than one.
        and(&[("X-Upper", "1")]),
        and(&[("Host", "b.hearth.example")]),
        and(&[("x y", "1")]),
        and(&[("x:", "1")]),
        and(&[("", "1")]),
        and(&[("x\r\nhost", "b.hearth.example")]),
        and(&[("x", "a\r\nHost: b.hearth.example")]),
        and(&[("x", "a\nHost: b.hearth.example")]),
        and(&[("x", "a\rb")]),
        and(&[("x", "a\0b")]),
        // A length that is none, or two.
        and(&[("content-length", "+1")]),
        and(&[("content-length", "x")]),
        and(&[("content-length", "1"), ("content-length", "2")]),
        // One of a body that is not there.
        and(&[("content-length", "1")]),
    ];
    for fields in &cases {
        // An unknown pseudo-field ends the connection.
        let told = told(&front, fields, None).await;
        assert!([Told::Reset(PROTOCOL_ERROR), Told::Farewell(PROTOCOL_ERROR)].contains(&told), "{fields:?}: {told:?}");
    }
    assert_eq!((a.count(), b.count()), (0, 0));
}

#[tokio::test]
async fn what_names_no_one_place_is_refused() {
    let (a, b) = (Pod::echo("a").await, Pod::echo("b").await);
    let front = Front::start(&[("a", &[a.address]), ("b", &[b.address])]).await;
    let cases = [
        and(&[("host", "b.hearth.example")]),
        and(&[("host", "a.hearth.example:81")]),
        and(&[("host", "")]),
        and(&[("host", "a.hearth.example"), ("host", "a.hearth.example")]),
        vec![METHOD, SCHEME, PATH, AGENT],
        vec![METHOD, SCHEME, PATH, AGENT, ("host", "a.hearth.example, b.hearth.example")],
        with(":authority", ""),
        with(":authority", "127.0.0.1"),
        with(":authority", "b@a.hearth.example"),
        with(":authority", "a.hearth.example:99999"),
        with(":path", "*"),
        with(":path", "b.hearth.example"),
        with(":path", "http://b.hearth.example/"),
        with(":path", "?x"),
    ];
    for fields in &cases {
        let told = told(&front, fields, None).await;
        assert!([Told::Status(400), Told::Reset(PROTOCOL_ERROR)].contains(&told), "{fields:?}: {told:?}");
    }
    // No tunnel, whatever is asked for.
    let connect = [(":method", "CONNECT"), (":authority", "b.hearth.example:443"), AGENT];
    assert_eq!(told(&front, &connect, None).await, Told::Status(405));
    assert_eq!(told(&front, &with(":method", "TRACE"), None).await, Told::Status(405));
    assert_eq!((a.count(), b.count()), (0, 0));
    // What has one reading goes on, and the tool reads what was routed.
    for fields in [
        and(&[("host", "a.hearth.example")]),
        vec![METHOD, SCHEME, PATH, AGENT, ("host", "a.hearth.example")],
        and(&[("te", "trailers")]),
        with(":path", "/a?b"),
        // A fragment is dropped before anything reads the path.
        with(":path", "/a#b"),
        // A scheme leads nowhere.
        with(":scheme", "http"),
        with(":scheme", ""),
    ] {
        assert_eq!(told(&front, &fields, None).await, Told::Status(200), "{fields:?}");
    }
    assert_eq!((a.count(), b.count()), (7, 0));
}

/// A tool's pod that keeps everything that was sent to it, a text for each connection.
async fn recorder() -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let all: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = all.clone();
    let address = raw_pod(move |mut stream| {
        let kept = kept.clone();
        async move {
            let mut text = Vec::new();
            let _ = soon(stream.read_to_end(&mut text)).await;
            kept.lock().unwrap().push(String::from_utf8_lossy(&text).into_owned());
        }
    })
    .await;
    (address, all)
}

#[tokio::test]
async fn a_length_that_is_not_the_bodys_never_becomes_a_whole_request() {
    let (address, kept) = recorder().await;
    let front = Front::start(&[("a", &[address])]).await;
    let post = |length: &'static str| [with(":method", "POST"), vec![("content-length", length)]].concat();
    let smuggled = "GET / HTTP/1.1\r\nHost: b.hearth.example\r\n\r\n";
    for (length, body) in [("5", "abc"), ("3", "abcde"), ("0", smuggled), ("1000", smuggled)] {
        let told = told(&front, &post(length), Some(body)).await;
        assert!(matches!(told, Told::Reset(_) | Told::Status(400)), "{length} {body}: {told:?}");
    }
    // The connection to the tool ends without the rest, so that the tool knows.
    soon(async {
        while Arc::strong_count(&kept) > 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for text in kept.lock().unwrap().iter() {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("1");
        assert!(body.len() < length.parse().unwrap(), "{text}");
    }
}

#[tokio::test]
async fn fields_after_a_body_say_nothing_anew() {
    let pod = raw_pod(|mut stream| async move {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") || !text.windows(3).any(|three| three == b"\n0\r") {
            text.push(soon(stream.read_u8()).await.unwrap());
        }
        let body = String::from_utf8(text).unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await.unwrap();
    })
    .await;
    let front = Front::start(&[("a", &[pod])]).await;
    let mut wire = Wire::open(&front, &[]).await;
    let fields =
        [with(":method", "POST"), vec![("trailer", "x-sum, host, content-length, transfer-encoding")]].concat();
    wire.send(frame(HEADERS, END_HEADERS, 1, &block(&fields))).await;
    wire.send(frame(DATA, 0, 1, b"abc")).await;
    let trailer = [("x-sum", "1"), ("host", "b.hearth.example"), ("content-length", "7")];
    wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&trailer))).await;
    let data = wire.next_of(|frame| frame.kind == DATA).await.unwrap();
    let seen = String::from_utf8(data.payload).unwrap().to_lowercase();
    let (_, body) = seen.split_once("\r\n\r\n").unwrap();
    assert!(
        body.starts_with("3\r\nabc\r\n0\r\n") && !body.contains("host:") && !body.contains("content-length"),
        "{seen}"
    );
}
