//! What flows through the front door: events, uploads and answers at the same time, trailers, bodies of all lengths.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hearth_server::reverse_proxy::{Limits, Patience};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::proxy_client::{Client, Sent, piece};
use crate::proxy_front::{Front, Pod, full, piped, raw_pod, read_head, soon};

const HEAD: &str = "Host: a.hearth.example\r\nUser-Agent: t\r\n";

/// A body of pieces, and of trailers where there are any.
fn pieces(pieces: impl Iterator<Item = Bytes> + Send + Sync + 'static, trailers: Option<HeaderMap>) -> Sent {
    let frames = pieces.map(Frame::data).chain(trailers.map(Frame::trailers)).map(Ok::<_, Infallible>);
    BodyExt::boxed(StreamBody::new(futures::stream::iter(frames)))
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), HeaderValue::from_static("42"))])
}

#[tokio::test]
async fn each_event_arrives_at_once() {
    // The pod sends an event for each word that it is told.
    let (words, said) = futures::channel::mpsc::channel::<&'static str>(1);
    let said = Arc::new(tokio::sync::Mutex::new(said));
    let pod = Pod::start(move |_| {
        let said = said.clone();
        async move {
            let (mut sender, body) = piped();
            tokio::spawn(async move {
                while let Some(word) = said.lock().await.next().await {
                    if sender.send(Bytes::from(format!("data: {word}\n\n"))).await.is_err() {
                        return;
                    }
                }
            });
            Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
        }
    })
    .await;
    let front = Front::start(&[("a", &[pod.address])]).await;
    let mut words = words;
    let mut client = Client::of_http2(&front).await;
    let request =
        Request::get("/events").header("accept-encoding", "gzip, br, zstd").header("accept", "text/event-stream");
    let mut answer = client.send(request.body(full("")).unwrap()).await.unwrap();
    assert!(!answer.headers().contains_key("content-encoding"));
    for word in ["one", "two", "three"] {
        words.send(word).await.unwrap();
        assert_eq!(piece(&mut answer).await.unwrap(), format!("data: {word}\n\n"));
    }
}

#[tokio::test]
async fn connections_to_pods_are_kept_and_requests_are_counted() {
    let (connections, counts) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counter = connections.clone();
    let pod = raw_pod(move |mut stream| {
        counter.fetch_add(1, Ordering::SeqCst);
        let counts = counts.clone();
        async move {
            while read_head(&mut stream).await.starts_with("POST ") {
                stream.read_exact(&mut [0; 5]).await.unwrap();
                counts.fetch_add(1, Ordering::SeqCst);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes").await.unwrap();
            }
        }
    })
    .await;
    let front = Front::start(&[("a", &[pod])]).await;
    for mut client in Client::each(&front).await {
        for _ in 0..5 {
            let request = Request::post("/").body(full("hello")).unwrap();
            let answer = client.send(request).await.unwrap();
            assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "yes");
        }
    }
    assert!(connections.load(Ordering::SeqCst) <= 2, "{connections:?} connections for ten requests, one after another");
    let expected = [
        "hearth_proxy_requests_total{tool=\"a\",class=\"2xx\"} 10",
        "hearth_proxy_request_bytes_total{tool=\"a\"} 50",
        "hearth_proxy_response_bytes_total{tool=\"a\"} 30",
        "hearth_proxy_open{tool=\"a\"} 0",
        "hearth_proxy_tool_request_duration_seconds_count{tool=\"a\"} 10",
    ];
    // The last is counted when its answer is dropped.
    soon(async {
        loop {
            let text = front.metrics().await;
            if expected.iter().all(|line| text.lines().any(|found| found == *line)) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let pod = Pod::start(|request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.unwrap();
        let came = body.trailers().and_then(|trailers| trailers.get("x-sum")).cloned();
        let text = format!("{} {:?}", body.to_bytes().len(), came);
        let body = pieces(std::iter::once(Bytes::from(text)), Some(trailers()));
        Response::builder().header("trailer", "x-sum").body(body).unwrap()
    })
    .await;
    let front = Front::start(&[("a", &[pod.address])]).await;
    for mut client in Client::each(&front).await {
        let body = pieces(["one", "two"].map(Bytes::from).into_iter(), Some(trailers()));
        let request = Request::post("/").header("te", "trailers").header("trailer", "x-sum").body(body).unwrap();
        let answer = client.send(request).await.unwrap();
        let whole = soon(answer.into_body().collect()).await.unwrap();
        assert_eq!(whole.trailers().and_then(|trailers| trailers.get("x-sum")).unwrap(), "42");
        assert_eq!(whole.to_bytes(), "6 Some(\"42\")");
    }
}

#[tokio::test]
async fn a_call_of_many_messages_both_ways() {
    // As gRPC does, with what HTTP/1.1 has for it: a pod that answers each message while more are to come, and a status
    // after the last.
    let pod = Pod::start(|request: Request<Incoming>| async move {
        let (mut sender, body) = futures::channel::mpsc::channel(1);
        tokio::spawn(async move {
            let mut incoming = request.into_body();
            while let Some(Ok(frame)) = incoming.frame().await {
                let Ok(data) = frame.into_data() else { continue };
                if sender.send(Ok::<_, Infallible>(Frame::data(data))).await.is_err() {
                    return;
                }
            }
            let _ = sender.send(Ok(Frame::trailers(trailers()))).await;
        });
        let body = BodyExt::boxed(StreamBody::new(body));
        Response::builder().header("content-type", "application/grpc").header("trailer", "x-sum").body(body).unwrap()
    })
    .await;
    let front = Front::start(&[("a", &[pod.address])]).await;
    let (mut upload, body) = piped();
    let request = Request::post("/x.Y/Z").header("content-type", "application/grpc").header("te", "trailers");
    let request = request.header("accept-encoding", "gzip").body(body).unwrap();
    let mut answer = Client::of_http2(&front).await.send(request).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    for round in 0..3u8 {
        let message = Bytes::from(vec![0, 0, 0, 0, 1, round]);
        upload.send(message.clone()).await.unwrap();
        assert_eq!(piece(&mut answer).await.unwrap(), message);
    }
    drop(upload);
    let last = soon(answer.frame()).await.unwrap().unwrap();
    assert_eq!(last.trailers_ref().and_then(|trailers| trailers.get("x-sum")).unwrap(), "42");
}

#[tokio::test]
async fn a_client_that_waits_is_told_to_go_on_or_not_to() {
    let a = Pod::echo("a").await;
    let front = Front::start(&[("a", &[a.address])]).await;
    let mut stream = front.connect(b"http/1.1").await;
    let head =
        format!("POST / HTTP/1.1\r\n{HEAD}Expect: 100-continue\r\nConnection: close\r\nContent-Length: 5\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // Not a byte of the body is sent before the word.
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 100 "));
    stream.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    let _ = soon(stream.read_to_string(&mut answer)).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("a POST / 5"), "{answer}");

    // Who is refused hears that instead.
    let mut stream = front.connect(b"http/1.1").await;
    let head = head.replace("Content-Length: 5", "Content-Length: 999999999");
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 413 "));
    assert_eq!(a.count(), 1);
}

#[tokio::test]
async fn a_tool_may_answer_before_it_has_read_everything() {
    // It refuses by the head alone, and reads no byte of the body.
    let pod = raw_pod(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").await;
        // It stays until the front door has understood.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let front = Front::start(&[("a", &[pod])]).await;
    for mut client in Client::each(&front).await {
        let (mut upload, body) = piped();
        upload.send(Bytes::from("beginning")).await.unwrap();
        let answer = client.send(Request::post("/").body(body).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "no");
    }
}

#[tokio::test]
async fn a_body_may_have_128_mebibytes_and_not_one_byte_more() {
    const MOST: usize = 128 * 1024 * 1024;
    let pod = Pod::start(|request: Request<Incoming>| async move {
        let mut body = request.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => length += frame.data_ref().map_or(0, Bytes::len),
                Err(_) => return Response::builder().status(500).body(full("cut off")).unwrap(),
            }
        }
        Response::new(full(length.to_string()))
    })
    .await;
    let front = Front::start(&[("a", &[pod.address])]).await;
    let zeros = Bytes::from_static(&[0; 1024 * 1024]);
    for extra in [0, 1] {
        for mut client in Client::each(&front).await {
            let last = Bytes::from(vec![0; extra]);
            let all = std::iter::repeat_n(zeros.clone(), MOST / zeros.len()).chain((extra > 0).then_some(last));
            // Its length is not told: the front door has to count.
            let request = Request::post("/").body(pieces(all, None)).unwrap();
            let answer = client.send(request).await.unwrap();
            let expected = if extra == 0 { StatusCode::OK } else { StatusCode::PAYLOAD_TOO_LARGE };
            assert_eq!(answer.status(), expected);
            if extra == 0 {
                assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), MOST.to_string());
            }
        }
    }
    // Where its length is told, nothing of it needs to come.
    let (_upload, body) = piped();
    let told = Request::post("/").header("content-length", MOST + 1).body(body).unwrap();
    let answer = Client::of_http2(&front).await.send(told).await.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let pod = raw_pod(|mut stream| async move {
        loop {
            let head = read_head(&mut stream).await;
            let answer = match head.split(' ').collect::<Vec<_>>().as_slice() {
                ["HEAD", ..] => "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nContent-Type: text/html\r\n\r\n",
                ["GET", "/204", ..] => "HTTP/1.1 204 No Content\r\n\r\n",
                ["GET", "/304", ..] => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 12345\r\n\r\n",
                _ => return,
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await;
    let front = Front::start(&[("a", &[pod])]).await;
    for mut client in Client::each(&front).await {
        // On one connection: the next answer is where it belongs only if the one before had no body.
        for _ in 0..2 {
            let head = client.ask(Request::head("/")).await;
            assert_eq!((head.status(), head.headers()["content-length"].as_bytes()), (StatusCode::OK, &b"12345"[..]));
            let none = client.ask(Request::get("/204").header("accept-encoding", "gzip")).await;
            assert_eq!((none.status(), none.body().len()), (StatusCode::NO_CONTENT, 0));
            let same = client.ask(Request::get("/304").header("if-none-match", "W/\"x\"")).await;
            assert_eq!((same.status(), same.headers()["etag"].as_bytes()), (StatusCode::NOT_MODIFIED, &b"\"x\""[..]));
        }
    }
}

#[tokio::test]
async fn a_tool_that_says_nothing_for_too_long_is_given_up() {
    // It answers the one path not at all, and the other without an end.
    let pod = raw_pod(|mut stream| async move {
        let head = read_head(&mut stream).await;
        if head.starts_with("GET /half") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        }
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let patience = Patience { read: Duration::from_millis(200), ..Patience::default() };
    let front = Front::with(&[("a", &[pod])], Limits { patience, ..Limits::default() }).await;
    for mut client in Client::each(&front).await {
        let answer = client.ask(Request::get("/never")).await;
        assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        assert!(text.contains("The tool 'a' did not answer in time. The platform itself is well."), "{text}");
    }
    for mut client in Client::each(&front).await {
        let answer = client.send(Request::get("/half").body(full("")).unwrap()).await.unwrap();
        assert!(soon(answer.into_body().collect()).await.is_err(), "an answer that is cut off is known to be so");
    }
}

#[tokio::test]
async fn a_visitor_who_leaves_is_noticed_by_the_tool() {
    let left = Arc::new(Notify::new());
    let notices = left.clone();
    let pod = Pod::start(move |_| {
        let notices = notices.clone();
        async move {
            let (mut sender, body) = piped();
            tokio::spawn(async move {
                // The channel closes when nobody reads any more.
                while sender.send(Bytes::from_static(&[b'x'; 16 * 1024])).await.is_ok() {}
                notices.notify_one();
            });
            Response::new(body)
        }
    })
    .await;
    let front = Front::start(&[("a", &[pod.address])]).await;
    for mut client in Client::each(&front).await {
        let mut answer = client.send(Request::get("/").body(full("")).unwrap()).await.unwrap();
        assert!(!answer.body().is_end_stream());
        piece(&mut answer).await.unwrap();
        drop((answer, client));
        soon(left.notified()).await;
    }
}
