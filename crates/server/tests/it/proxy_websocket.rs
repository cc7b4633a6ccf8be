//! The WebSocket protocol, byte for byte: each talk is held with a server directly and through the front door, and what
//! either side gets must be the same.
//!
//! Frames are written by the test (RFC 6455 §5.2). The front door carries bytes and knows nothing of frames, so it must
//! change nothing about talks that break the rules either.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::proxy_front::{Front, Pod, raw_pod, read_head, soon};
use crate::proxy_h2_attacks::{front, impatient};
use crate::proxy_wire::alone;

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Kinds of frames, and the bit of the last one of a message.
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const CONNECTION_PING: u8 = 9;
const PONG: u8 = 10;
const LAST: u8 = 0x80;

/// What a client does.
enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these bytes one by one.
    Drip(Vec<u8>),
    /// Reads so many bytes.
    Read(usize),
    /// Ends its half.
    End,
    /// Reads until the server has ended.
    Rest,
}

use Step::{Drip, End, Read, Rest, Send};

/// A frame as a client sends it, masked, or as a server does.
fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let (length, masked) = (payload.len(), if mask.is_some() { 0x80 } else { 0 });
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(masked | u8::try_from(length).unwrap()),
        126..=65_535 => {
            bytes.push(masked | 126);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            bytes.push(masked | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mask = mask.inspect(|mask| bytes.extend(mask)).unwrap_or_default();
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, payload, Some([0x37, 0xfa, 0x21, 0x3d]))
}

/// Sends a frame and reads its echo.
fn echoed(first: u8, payload: &[u8]) -> [Step; 2] {
    [Send(masked(first, payload)), Read(frame(first, payload, None).len())]
}

/// Every talk by its name.
fn talks() -> Vec<(&'static str, Vec<Step>)> {
    let bytes: Vec<u8> = (0..70_000_u32).map(|number| (number % 251) as u8).collect();
    let close = || [Send(masked(LAST | CLOSE, &[&1000_u16.to_be_bytes(), &b"bye"[..]].concat())), Rest];
    let faulty = |bytes: Vec<u8>| vec![Send(bytes), Rest];
    let lengths = [0, 1, 125, 126, 65_535, 65_536, 70_000];
    let fragments: Vec<u8> = (0..10_000).flat_map(|number| masked(u8::from(number == 0) * BINARY, b"x")).collect();
    vec![
        ("text", echoed(LAST | TEXT, "grüße".as_bytes()).into_iter().chain(close()).collect()),
        ("binary", lengths.iter().flat_map(|length| echoed(LAST | BINARY, &bytes[..*length])).chain(close()).collect()),
        (
            "fragments with a ping between",
            echoed(TEXT, b"hel")
                .into_iter()
                .chain([Send(masked(LAST | CONNECTION_PING, b"between")), Read(9)])
                .chain(echoed(LAST, b"lo"))
                .chain(close())
                .collect(),
        ),
        (
            "many fragments",
            [Send(fragments), Read(30_000)].into_iter().chain(echoed(LAST, b"")).chain(close()).collect(),
        ),
        (
            "pings and pongs",
            vec![
                Send(masked(LAST | CONNECTION_PING, b"")),
                Read(2),
                Send(masked(LAST | PONG, b"nobody asked")),
                Send(masked(LAST | CONNECTION_PING, &bytes[..125])),
                Read(127),
                End,
                Rest,
            ],
        ),
        ("a close without a reason", vec![Send(masked(LAST | CLOSE, b"")), Rest]),
        (
            "one byte at a time",
            vec![Drip(masked(LAST | TEXT, b"slowly")), Read(8), Drip(masked(LAST | CLOSE, b"")), Rest],
        ),
        ("sixteen mebibytes", echoed(LAST | BINARY, &vec![0xa5; 16 << 20]).into_iter().chain(close()).collect()),
        ("a mask of noughts", vec![Send(frame(LAST | TEXT, b"plain", Some([0; 4]))), Read(7), End, Rest]),
        ("no mask", faulty(frame(LAST | TEXT, b"unmasked", None))),
        ("reserved bits", faulty(masked(LAST | 0x40 | TEXT, b"compressed?"))),
        ("a reserved kind", faulty(masked(LAST | 3, b"?"))),
        ("a long ping", faulty(masked(LAST | CONNECTION_PING, &bytes[..126]))),
        ("a ping in pieces", faulty(masked(CONNECTION_PING, b"?"))),
        ("a close of one byte", faulty(masked(LAST | CLOSE, b"?"))),
        ("no text", echoed(LAST | TEXT, b"\xff\xfe\0\r\n").into_iter().chain(close()).collect()),
        ("a request for somebody else", faulty(b"GET / HTTP/1.1\r\nHost: b.hearth.example\r\n\r\n".to_vec())),
        ("a half that ends first", vec![Send(masked(LAST | TEXT, b"more")), End, Rest]),
        ("an end in a frame", vec![Send(masked(LAST | BINARY, &bytes)[..5000].to_vec()), End, Rest]),
        ("nothing at all", vec![End, Rest]),
    ]
}

/// Does what a WebSocket server does, and returns all that it got after the head.
async fn serve(stream: &mut TcpStream) -> Vec<u8> {
    // The greeting comes with the head.
    let greeting = frame(LAST | TEXT, b"welcome", None);
    stream.write_all(&[SWITCH, &greeting].concat()).await.unwrap();
    let mut all = Vec::new();
    let answered = answer(stream, &mut all).await;
    if answered.is_none() {
        // Whoever has ended its half is still sent what there is.
        let _ = stream.write_all(&vec![b'!'; 1 << 20]).await;
    }
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut all).await;
    all
}

/// Echoes messages; none when the client has ended without a close.
async fn answer(stream: &mut TcpStream, all: &mut Vec<u8>) -> Option<()> {
    loop {
        let [first, second] = read(stream, all, 2).await?.try_into().unwrap();
        let length = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes(read(stream, all, 2).await?.try_into().unwrap())),
            127 => u64::from_be_bytes(read(stream, all, 8).await?.try_into().unwrap()),
            short => u64::from(short),
        };
        let is_control = first & 8 != 0;
        let is_fault = second & 0x80 == 0
            || first & 0x70 != 0
            || ![0, TEXT, BINARY, CLOSE, CONNECTION_PING, PONG].contains(&(first & 15))
            || (is_control && (length > 125 || first & LAST == 0))
            || (first & 15 == CLOSE && length == 1);
        if is_fault {
            stream.write_all(&frame(LAST | CLOSE, &1002_u16.to_be_bytes(), None)).await.ok()?;
            return Some(());
        }
        let mask = read(stream, all, 4).await?;
        let payload = read(stream, all, usize::try_from(length).unwrap()).await?;
        let payload: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        let reply = match first & 15 {
            PONG => continue,
            CONNECTION_PING => LAST | PONG,
            _ => first,
        };
        stream.write_all(&frame(reply, &payload, None)).await.ok()?;
        if first & 15 == CLOSE {
            return Some(());
        }
    }
}

async fn read(stream: &mut TcpStream, all: &mut Vec<u8>, length: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let _ = stream.take(length as u64).read_to_end(&mut bytes).await;
    all.extend(&bytes);
    (bytes.len() == length).then_some(bytes)
}

/// A server, and what each of its connections got.
async fn server() -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let got: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let kept = got.clone();
    let address = raw_pod(move |mut stream| {
        let kept = kept.clone();
        async move {
            assert!(read_head(&mut stream).await.to_lowercase().contains("upgrade: websocket"));
            let all = serve(&mut stream).await;
            kept.lock().unwrap().push(all);
        }
    })
    .await;
    (address, got)
}

/// Holds a talk; all that the client got after the head.
async fn hold(mut stream: impl AsyncRead + AsyncWrite + Unpin, talk: &[Step]) -> Vec<u8> {
    stream.write_all(format!("{ASK}\r\n").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    let mut got = vec![0; 9];
    soon(stream.read_exact(&mut got)).await.unwrap();
    for step in talk {
        match step {
            Send(bytes) => send(&mut stream, bytes).await,
            Drip(bytes) => {
                for byte in bytes {
                    send(&mut stream, &[*byte]).await;
                }
            }
            Read(length) => {
                let mut bytes = vec![0; *length];
                soon(stream.read_exact(&mut bytes)).await.unwrap();
                got.extend(bytes);
            }
            End => soon(stream.shutdown()).await.unwrap(),
            Rest => drop(soon(stream.read_to_end(&mut got)).await),
        }
    }
    got
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    soon(async {
        // A server that has closed takes no more; what it got is compared.
        let _ = stream.write_all(bytes).await;
        let _ = stream.flush().await;
    })
    .await;
}

#[tokio::test]
async fn every_talk_is_the_same_as_without_the_front_door() {
    let (address, got) = server().await;
    let front = Front::start(&[("a", &[address])]).await;
    for (name, talk) in talks() {
        let direct = hold(TcpStream::connect(address).await.unwrap(), &talk).await;
        let through = hold(front.connect(b"http/1.1").await, &talk).await;
        assert!(direct == through, "{name}: {} bytes came directly, {} through", direct.len(), through.len());
        let [one, other] = soon(async {
            loop {
                let done = std::mem::take(&mut *got.lock().unwrap());
                match <[Vec<u8>; 2]>::try_from(done) {
                    Ok(both) => break both,
                    Err(done) => got.lock().unwrap().splice(0..0, done).for_each(drop),
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(one == other, "{name}: the server got {} and {} bytes", one.len(), other.len());
    }
}

#[test]
fn a_side_that_does_not_read_holds_the_other_up_and_is_not_cut_off() {
    alone("proxy_websocket::a_side_that_does_not_read_holds_the_other_up_and_is_not_cut_off", || async {
        const MUCH: usize = 64 << 20;
        // A server that sends much and then reads much, to a client that does neither for long.
        let pod = raw_pod(|mut stream| async move {
            static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];
            read_head(&mut stream).await;
            stream.write_all(SWITCH).await.unwrap();
            for _ in 0..MUCH / PIECE.len() {
                stream.write_all(&PIECE).await.unwrap();
            }
            let got = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap();
            assert_eq!(got, MUCH as u64);
        })
        .await;
        let (front, others) = front(pod, impatient()).await;
        let mut stream = front.connect(b"http/1.1").await;
        stream.write_all(format!("{ASK}\r\n").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
        // Three times as long as a client of HTTP may pause: others have paused and were given up meanwhile.
        for _ in 0..3 {
            let paused = "POST / HTTP/1.1\r\nHost: b.hearth.example\r\nUser-Agent: t\r\nContent-Length: 2\r\n\r\na";
            assert!(front.raw(paused).await.starts_with("HTTP/1.1 408 "));
        }
        let mut left = MUCH;
        let mut piece = vec![0; 64 * 1024];
        while left > 0 {
            let length = soon(stream.read(&mut piece)).await.unwrap();
            assert!(length > 0, "cut off with {left} bytes to come");
            left -= length;
        }
        for _ in 0..MUCH / piece.len() {
            soon(stream.write_all(&piece)).await.unwrap();
        }
        soon(stream.shutdown()).await.unwrap();
        assert_eq!(soon(stream.read(&mut piece)).await.unwrap_or(0), 0);
        others.were_served(8).await;
    });
}

#[tokio::test]
async fn the_last_words_of_a_tool_arrive_though_it_listens_no_more() {
    let pod = raw_pod(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(SWITCH).await.unwrap();
        // It closes with something unread, so that whatever is sent to it afterwards meets a reset.
        soon(stream.peek(&mut [0])).await.unwrap();
        stream.write_all(b"last words").await.unwrap();
    })
    .await;
    let front = Front::start(&[("a", &[pod])]).await;
    for round in 0..50 {
        let stream = front.connect(b"http/1.1").await;
        let (mut from, mut to) = tokio::io::split(stream);
        to.write_all(format!("{ASK}\r\n").as_bytes()).await.unwrap();
        to.flush().await.unwrap();
        assert!(read_head(&mut from).await.starts_with("HTTP/1.1 101 "));
        let talking =
            tokio::spawn(async move { while to.write_all(&[b'x'; 1024]).await.is_ok() && to.flush().await.is_ok() {} });
        let mut got = Vec::new();
        let _ = soon(from.read_to_end(&mut got)).await;
        talking.abort();
        assert!(got == b"last words", "round {round}: {}", String::from_utf8_lossy(&got));
    }
}

#[tokio::test]
async fn what_asks_for_a_websocket_in_another_way_gets_none() {
    let a = Pod::echo("a").await;
    let front = Front::start(&[("a", &[a.address])]).await;
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r\n{fields}");
    let cases = [
        get("Connection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n"),
        get("Connection: close, Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n"),
        get("Connection: close, Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n"),
        get("Connection: close, Upgrade\r\nUpgrade: websocket/13\r\n\r\n"),
        get("Connection: close\r\nUpgrade: websocket\r\n\r\n"),
        get("Connection: close, Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nhi"),
        get("Connection: close, Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        get("Connection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n").replace("GET", "POST"),
        get("Connection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0"),
    ];
    for case in &cases {
        let answer = front.raw(case).await.to_lowercase();
        assert!(answer.starts_with("http/1.") && answer.contains(" 200 ok\r\n"), "{case}\n{answer}");
        let (_, seen) = answer.split_once("\r\n\r\n").unwrap();
        assert!(!seen.contains("upgrade"), "{case}\n{answer}");
    }
    assert_eq!(a.count(), cases.len());
}
