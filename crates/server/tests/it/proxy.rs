//! The front proxy from the browser's side to the pod's, over real sockets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use hearth_server::reverse_proxy::{Limits, Patience};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

use crate::proxy_front::{Front, Pod, Tools, full, piped, raw_pod, read_head, refusing, soon};

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[track_caller]
fn has(answer: &str, line: &str) {
    assert!(answer.lines().any(|found| found.eq_ignore_ascii_case(line)), "no line '{line}' in:\n{answer}");
}

#[tokio::test]
async fn a_request_reaches_its_tool_and_no_other() {
    let (a, b) = (Pod::echo("a").await, Pod::echo("b").await);
    let front = Front::start(&[("a", &[a.address]), ("b", &[b.address]), ("empty", &[])]).await;
    let answer = front.get("a.hearth.example", "/x%20y?q=1&r=//").await;
    assert_eq!(status(&answer), "200");
    has(&answer, "a GET /x%20y?q=1&r=// 0");
    has(&answer, "host: a.hearth.example");
    has(&answer, "x-forwarded-host: a.hearth.example");
    has(&answer, &format!("x-forwarded-port: {}", front.https.port()));
    has(&answer, "x-forwarded-proto: https");
    has(&answer, "x-original-uri: /x%20y?q=1&r=//");
    has(&answer, "strict-transport-security: max-age=31622400");
    has(&answer, "permissions-policy: browsing-topics=()");
    has(&front.get("B.Hearth.Example.", "/").await, "b GET / 0");
    assert_eq!(status(&front.get("empty.hearth.example", "/").await), "503");
    assert_eq!((a.count(), b.count()), (1, 1));
    front.stop().await;
}

#[tokio::test]
async fn what_a_client_says_of_itself_is_not_believed() {
    let a = Pod::echo("a").await;
    let front = Front::start(&[("a", &[a.address])]).await;
    let answer = front
        .raw(
            "POST /cgi HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\
             X-Forwarded-For: 203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\nX-Forwarded-Proto: http\r\nProxy: evil\r\n\
             X-Hearth-Reason: apex\r\nTE: trailers\r\nExpect: 100-continue\r\nContent-Length: 5\r\nX-Own: kept\r\n\r\nhello",
        )
        .await;
    has(&answer, "a POST /cgi 5");
    has(&answer, "x-own: kept");
    has(&answer, "x-forwarded-proto: https");
    has(&answer, "te: trailers");
    for gone in ["203.0.113.9", "evil", "x-hop", "apex", "expect:"] {
        assert!(!answer.to_lowercase().contains(gone), "{gone} in:\n{answer}");
    }
}

#[tokio::test]
async fn unclear_requests_are_refused_before_a_byte_goes_on() {
    let a = Pod::echo("a").await;
    let front = Front::start(&[("a", &[a.address]), ("b", &[a.address])]).await;
    let host = "Host: a.hearth.example\r\nUser-Agent: t\r\n";
    let cases = [
        format!("GET / HTTP/1.1\r\n{host}Host: b.hearth.example\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}Host: a.hearth.example\r\n\r\n"),
        format!("GET http://b.hearth.example/ HTTP/1.1\r\n{host}\r\n"),
        format!("GET http://a.hearth.example@b.hearth.example/ HTTP/1.1\r\n{host}\r\n"),
        "GET / HTTP/1.1\r\nUser-Agent: t\r\n\r\n".to_owned(),
        "GET / HTTP/1.0\r\nUser-Agent: t\r\n\r\n".to_owned(),
        "GET http://a.hearth.example/ HTTP/1.1\r\nUser-Agent: t\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a.hearth.example, b.hearth.example\r\nUser-Agent: t\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a.hearth.example/b.hearth.example\r\nUser-Agent: t\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\n Host: b.hearth.example\r\n{host}\r\n"),
        format!("GET / HTTP/1.1\r\nHost : b.hearth.example\r\n{host}\r\n"),
        format!("OPTIONS * HTTP/1.1\r\n{host}\r\n"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}X: a\r\n b\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}X: a\rContent-Length: 3\r\n\r\n"),
        format!("GET / HTTP/1.1\n{host}\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: +3\r\n\r\nabc"),
        format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip\r\n\r\nabc"),
        format!("GET /\0 HTTP/1.1\r\n{host}\r\n"),
        format!("GET / HTTP/1.1\r\n{host}X: a\0b\r\n\r\n"),
    ];
    for case in &cases {
        let answer = front.raw(case).await;
        assert_eq!(status(&answer), "400", "{case:?} was answered with\n{answer}");
        has(&answer, "connection: close");
    }
    assert_eq!(a.count(), 0);
    let method = front.raw(format!("CONNECT a.hearth.example:443 HTTP/1.1\r\n{host}\r\n")).await;
    assert_eq!(status(&method), "405");
    assert_eq!(status(&front.raw(format!("TRACE / HTTP/1.1\r\n{host}\r\n")).await), "405");
    let nobody = front.raw("GET / HTTP/1.1\r\nHost: a.hearth.example\r\n\r\n").await;
    assert_eq!(status(&nobody), "403");
    has(&nobody, "Requests must have a user agent");
    assert_eq!(a.count(), 0);
}

#[tokio::test]
async fn old_addresses_and_plain_http_lead_to_the_tools_own_host() {
    let front = Front::start(&[("a", &[])]).await;
    let answer = front.get("old.example", "/a/x%2Fy?q=/").await;
    assert_eq!(status(&answer), "308");
    has(&answer, "location: https://a.hearth.example/x%2Fy?q=/");
    has(&front.get("old.example:8443", "/a").await, "location: https://a.hearth.example:8443/");

    let plain = |method: &str, path: &str, host: &str| {
        front.raw_plain(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    let port = front.https.port();
    let answer = plain("GET", "/p?q", "a.hearth.example").await;
    assert_eq!(status(&answer), "301");
    has(&answer, &format!("location: https://a.hearth.example:{port}/p?q"));
    assert_eq!(status(&plain("POST", "/p?q", "a.hearth.example").await), "308");
    assert_eq!(status(&plain("GET", "/", "evil.example").await), "404");
    assert_eq!(status(&plain("GET", "/", "a, b").await), "400");
    let answer = plain("GET", "/.well-known/healthz", "127.0.0.1").await;
    assert_eq!(status(&answer), "200");
    has(&answer, "proxy ok!");
    assert_eq!(status(&front.get("127.0.0.1", "/.well-known/healthz").await), "200");
}

#[tokio::test]
async fn websockets_live_through_a_change_of_routes() {
    let pod = raw_pod(|mut stream| async move {
        let head = read_head(&mut stream).await.to_lowercase();
        assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: x\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await;
    let front = Front::start(&[("a", &[pod])]).await;
    let mut stream = front.connect(b"http/1.1").await;
    let request = "GET /ws HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r\nConnection: keep-alive, Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await.to_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("sec-websocket-accept: x"), "{head}");
    for round in 0..3 {
        let message = format!("message {round}");
        stream.write_all(message.as_bytes()).await.unwrap();
        let mut echoed = vec![0; message.len()];
        soon(stream.read_exact(&mut echoed)).await.unwrap();
        assert_eq!(echoed, message.as_bytes());
        front.swap(&[]);
    }
    assert_eq!(status(&front.get("a.hearth.example", "/").await), "404");
}

#[tokio::test]
async fn only_an_upgrade_that_was_asked_for_is_passed_on() {
    let pod = raw_pod(|mut stream| async move {
        let head = read_head(&mut stream).await.to_lowercase();
        assert!(!head.contains("upgrade"), "{head}");
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n").await;
    })
    .await;
    let front = Front::start(&[("a", &[pod])]).await;
    let answer = front
        .raw(
            "GET / HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r\nConnection: Upgrade, HTTP2-Settings, close\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        )
        .await;
    assert_eq!(status(&answer), "502");
}

#[tokio::test]
async fn http2_becomes_http1() {
    let a = Pod::echo("a").await;
    let b = Pod::echo("b").await;
    let front = Front::start(&[("a", &[a.address]), ("b", &[b.address])]).await;
    let stream = front.connect(b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut ask = async |host: &str, fields: &[(&'static str, &'static str)]| {
        let mut request = Request::get(format!("https://{host}/p?q")).header("user-agent", "t");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = soon(sender.send_request(request.body(Empty::<Bytes>::new()).unwrap())).await.unwrap();
        let status = response.status();
        (status, String::from_utf8(soon(response.collect()).await.unwrap().to_bytes().to_vec()).unwrap())
    };
    let (status, body) = ask("a.hearth.example", &[("cookie", "a=1"), ("cookie", "b=2")]).await;
    assert_eq!(status, StatusCode::OK);
    has(&body, "a GET /p?q 0");
    has(&body, "cookie: a=1; b=2");
    has(&body, "host: a.hearth.example");
    // One connection serves several hosts, each request goes where its own authority says.
    has(&ask("b.hearth.example", &[]).await.1, "b GET /p?q 0");
    assert_eq!(ask("a.hearth.example", &[("host", "b.hearth.example")]).await.0, StatusCode::BAD_REQUEST);
    assert_eq!((a.count(), b.count()), (1, 1));
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    // The pod sends back each piece as it comes; neither side waits for the end of the other.
    let pod = Pod::start(|request: Request<hyper::body::Incoming>| async move {
        let (mut sender, body) = piped();
        tokio::spawn(async move {
            let mut incoming = request.into_body();
            while let Some(Ok(frame)) = incoming.frame().await {
                let Ok(data) = frame.into_data() else { continue };
                if sender.send(data).await.is_err() {
                    break;
                }
            }
        });
        Response::new(body)
    })
    .await;
    let front = Front::start(&[("a", &[pod.address])]).await;
    let stream = front.connect(b"h2").await;
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (mut upload, body) = piped();
    let request = Request::post("https://a.hearth.example/").header("user-agent", "t").body(body).unwrap();
    let mut response = soon(client.send_request(request)).await.unwrap();
    for piece in ["one", "two", "three"] {
        upload.send(Bytes::from(piece)).await.unwrap();
        let frame = soon(response.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
    }
    drop(upload);
    assert!(soon(response.frame()).await.is_none_or(|frame| frame.is_ok()));
}

#[tokio::test]
async fn an_address_that_refuses_is_passed_over() {
    let live = Pod::echo("a").await;
    let front = Front::start(&[("a", &[refusing().await, live.address]), ("gone", &[refusing().await])]).await;
    for _ in 0..4 {
        let answer = front
            .raw(
                "POST / HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r\nConnection: close\r\n\
                 Content-Length: 5\r\n\r\nhello",
            )
            .await;
        has(&answer, "a POST / 5");
    }
    assert_eq!(live.count(), 4);
    let answer = front.get("gone.hearth.example", "/").await;
    assert_eq!(status(&answer), "502");
    has(&answer, "The tool 'gone' does not accept connections. The platform itself is well.");
}

#[tokio::test]
async fn a_pod_that_stalls_or_cuts_is_told_apart() {
    let stalls = raw_pod(|stream| async move {
        let stream = stream;
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let cuts = raw_pod(|mut stream| async move { drop(read_head(&mut stream).await) }).await;
    let garbage = raw_pod(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"SSH-2.0-OpenSSH\r\n\r\n").await;
    })
    .await;
    let patience = Patience { read: Duration::from_millis(300), ..Patience::default() };
    let limits = Limits { patience, ..Limits::default() };
    let front = Front::with(&[("stalls", &[stalls]), ("cuts", &[cuts]), ("garbage", &[garbage])], limits).await;
    assert_eq!(status(&front.get("stalls.hearth.example", "/").await), "504");
    assert_eq!(status(&front.get("cuts.hearth.example", "/").await), "502");
    assert_eq!(status(&front.get("garbage.hearth.example", "/").await), "502");
}

#[tokio::test]
async fn long_bodies_are_refused() {
    let a = Pod::echo("a").await;
    let front = Front::with(&[("a", &[a.address])], Limits { body: 8, ..Limits::default() }).await;
    let post = |rest: &str| {
        front.raw(format!("POST / HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r\nConnection: close\r\n{rest}"))
    };
    has(&post("Content-Length: 8\r\n\r\n12345678").await, "a POST / 8");
    assert_eq!(status(&post("Content-Length: 9\r\n\r\n123456789").await), "413");
    assert_eq!(a.count(), 1);
    let chunked = post("Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n5\r\n12345\r\n0\r\n\r\n").await;
    assert_eq!(status(&chunked), "413");
}

#[tokio::test]
async fn pages_come_from_their_role_or_are_plain() {
    let pages = Pod::start(|request: Request<hyper::body::Incoming>| async move {
        let field = |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
        let fields = ["x-hearth-reason", "x-hearth-tool", "x-original-uri", "host", "accept"].map(field);
        let text = format!("page {} {}\n", request.method(), fields.join(" "));
        Response::builder().status(404).header("connection", "x").header("x", "1").body(full(text)).unwrap()
    })
    .await;
    let a = Pod::echo("a").await;
    let tools: [(&str, &[std::net::SocketAddr]); 4] =
        [("a", &[]), ("b", &[refusing().await]), ("c", &[a.address]), ("fourohfour", &[pages.address])];
    let front = Front::start(&tools).await;
    let page = |host: &str, path: &str| {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: t\r\nAccept: text/html\r\nConnection: close\r\n\
             Content-Length: 2\r\n\r\nhi"
        );
        let front = &front;
        async move { front.raw(&request).await }
    };
    let answer = page("nobody.hearth.example", "/x?y").await;
    assert_eq!(status(&answer), "404");
    has(&answer, "page GET unknown-tool nobody /x?y nobody.hearth.example text/html");
    has(&answer, "strict-transport-security: max-age=31622400");
    has(&answer, "proxy-status: hearth; error=destination_not_found; details=\"unknown-tool\"");
    assert!(!answer.contains("x: 1"), "{answer}");
    let a_page = page("a.hearth.example", "/").await;
    has(&a_page, "page GET unavailable a / a.hearth.example text/html");
    has(&page("b.hearth.example", "/").await, "page GET unreachable b / b.hearth.example text/html");
    has(&page("x.y.hearth.example", "/").await, "page GET unknown-host - / x.y.hearth.example text/html");
    let apex = page("hearth.example", "/").await;
    has(&apex, "page GET apex - / hearth.example text/html");
    assert!(!apex.contains("proxy-status"), "{apex}");
    assert!(!page("c.hearth.example", "/").await.contains("proxy-status"));
    let legacy = page("old.example", "/nobody/x").await;
    has(&legacy, "page GET unknown-tool nobody /nobody/x old.example text/html");

    front.swap(&[("a", &[]), ("fourohfour", &[refusing().await])]);
    let answer = page("nobody.hearth.example", "/").await;
    assert_eq!(status(&answer), "404");
    assert!(answer.contains("The URL you have requested"), "{answer}");
    let answer = page("a.hearth.example", "/").await;
    assert_eq!(status(&answer), "503");
    has(&answer, "retry-after: 30");
    has(&answer, "proxy-status: hearth; error=destination_unavailable; details=\"unavailable\"");
}

#[tokio::test]
async fn a_stale_table_is_not_dialled_from() {
    let a = Pod::echo("a").await;
    let tools: Tools<'_> = &[("a", &[a.address]), ("grid", &[a.address]), ("fourohfour", &[a.address])];
    has(&Front::start(tools).await.get("grid.hearth.example", "/").await, "a GET / 0");
    let stale = Front::stale(tools).await;
    let answer = stale.get("a.hearth.example", "/").await;
    assert_eq!(status(&answer), "503");
    assert!(answer.contains("lost contact with its cluster"), "{answer}");
    // Not from the grid either, whatever else a stale table may be good for.
    let answer = stale.get("grid.hearth.example", "/").await;
    assert_eq!(status(&answer), "503");
    assert_eq!(status(&stale.get("nobody.hearth.example", "/").await), "503");
    assert_eq!(status(&stale.get("old.example", "/a/").await), "308");
    assert_eq!(a.count(), 1, "only while the table was fresh");
}

#[tokio::test]
async fn robots_and_icons_stand_in_for_those_that_a_tool_lacks() {
    let lacks = Pod::start(|_| async { Response::builder().status(404).body(full("no")).unwrap() }).await;
    let has_own = Pod::start(|_| async { Response::new(full("mine\n")) }).await;
    let front = Front::start(&[("a", &[lacks.address]), ("b", &[has_own.address])]).await;
    let robots = front.get("a.hearth.example", "/robots.txt").await;
    assert_eq!(status(&robots), "200");
    has(&robots, "Disallow: /");
    has(&front.get("a.hearth.example", "/favicon.ico").await, "content-type: image/svg+xml");
    assert_eq!(status(&front.get("a.hearth.example", "/other.txt").await), "404");
    has(&front.get("b.hearth.example", "/robots.txt").await, "mine");
}

#[tokio::test]
async fn a_stopping_door_answers_what_has_begun() {
    let (begun, release) = (mpsc::channel::<()>(1), Arc::new(Notify::new()));
    let (sender, mut began) = begun;
    let pod = Pod::hanging(sender, release.clone()).await;
    let front = Front::start(&[("a", &[pod.address])]).await;
    let mut stream = front.connect(b"http/1.1").await;
    let address = front.https;
    let request = "GET / HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    soon(began.recv()).await.unwrap();
    front.begin_to_stop();
    // The socket is closed first; new connections are refused.
    soon(async { while tokio::net::TcpStream::connect(address).await.is_ok() {} }).await;
    release.notify_one();
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    has(&String::from_utf8_lossy(&answer), "late");
    front.stop().await;
}
