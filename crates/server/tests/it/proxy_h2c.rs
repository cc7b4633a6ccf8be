//! Tools that speak HTTP/2 without TLS: gRPC's way with streams and trailers, through the front door and back.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;

use crate::proxy_front::{Front, Pod, listen, refusing, soon};

/// A pod that speaks HTTP/2 only. It answers each piece of the body with its echo, and ends with trailers that say what
/// it saw, as gRPC servers do.
struct Grpc {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Grpc {
    async fn start() -> Self {
        let listener = listen().await;
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = connections.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                open.spawn(async move {
                    let _ = server.serve_connection(TokioIo::new(stream), service_fn(echo)).await;
                });
            }
        });
        Self { address, connections, tasks }
    }
}

async fn echo(
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = hyper::Error>>, Infallible> {
    let (parts, body) = request.into_parts();
    let mut end = HeaderMap::new();
    end.insert("grpc-status", HeaderValue::from_static("0"));
    let field = |name: &str| parts.headers.get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
    let saw = format!(
        "{:?} {} te={} host={} connection={}",
        parts.version,
        parts.uri,
        field("te"),
        field("host"),
        field("connection")
    );
    end.insert("x-saw", HeaderValue::try_from(saw).unwrap());
    let answer = body.into_data_stream().map(|piece| piece.map(Frame::data));
    let answer = answer.chain(futures::stream::once(async move { Ok(Frame::trailers(end)) }));
    Ok(Response::builder().header("content-type", "application/grpc").body(StreamBody::new(answer)).unwrap())
}

type Pieces = futures::channel::mpsc::Receiver<Result<Frame<Bytes>, Infallible>>;

#[tokio::test]
async fn grpc_goes_through_both_ways_with_its_trailers() {
    let pod = Grpc::start().await;
    let front = Front::start(&[("h2c-a", &[pod.address])]).await;
    let connection =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(front.connect(b"h2").await));
    let (mut client, connection) = soon(connection).await.unwrap();
    let driver = tokio::spawn(connection);
    for round in 0..2 {
        let (mut pieces, body): (_, Pieces) = futures::channel::mpsc::channel(1);
        let request = Request::builder()
            .method(Method::POST)
            .uri("https://h2c-a.hearth.example/pkg.Service/Method?q")
            .header("user-agent", "grpc-test")
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(StreamBody::new(body))
            .unwrap();
        let sent = client.send_request(request);
        pieces.send(Ok(Frame::data(Bytes::from_static(b"one")))).await.unwrap();
        let response = soon(sent).await.unwrap();
        assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));
        let mut answer = response.into_body();
        // The answer begins while the request has not ended: it streams both ways.
        assert_eq!(soon(answer.frame()).await.unwrap().unwrap().into_data().unwrap(), "one", "round {round}");
        pieces.send(Ok(Frame::data(Bytes::from_static(b"two")))).await.unwrap();
        assert_eq!(soon(answer.frame()).await.unwrap().unwrap().into_data().unwrap(), "two");
        drop(pieces);
        let trailers = soon(answer.frame()).await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        let saw = trailers["x-saw"].to_str().unwrap();
        assert_eq!(saw, "HTTP/2.0 http://h2c-a.hearth.example/pkg.Service/Method?q te=trailers host=- connection=-");
    }
    assert_eq!(pod.connections.load(Ordering::SeqCst), 1, "requests share a connection");
    drop(client);
    driver.abort();
    front.stop().await;
}

#[tokio::test]
async fn a_browser_of_http_1_is_served_too() {
    let pod = Grpc::start().await;
    let (dead, lives) = (refusing().await, pod.address);
    let front = Front::start(&[("h2c-a", &[dead, lives])]).await;
    for _ in 0..4 {
        let answer = front.get("h2c-a.hearth.example", "/x").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "an address that refuses is passed over: {answer}");
    }
    front.stop().await;
}

#[tokio::test]
async fn a_connection_that_ended_is_made_again() {
    let mut pod = Grpc::start().await;
    let front = Front::start(&[("h2c-a", &[pod.address])]).await;
    assert!(front.get("h2c-a.hearth.example", "/").await.starts_with("HTTP/1.1 200 "));
    pod.tasks.shutdown().await;
    let answer = front.get("h2c-a.hearth.example", "/").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    let again = Grpc::start().await;
    front.swap(&[("h2c-a", &[again.address])]);
    assert!(front.get("h2c-a.hearth.example", "/").await.starts_with("HTTP/1.1 200 "));
    front.stop().await;
}

#[tokio::test]
async fn whoever_speaks_no_http_2_gives_no_answer() {
    let pod = Pod::echo("a").await;
    let front = Front::start(&[("h2c-a", &[pod.address])]).await;
    let answer = front.get("h2c-a.hearth.example", "/").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    // And the other way round: without the word for it, HTTP/1.1 is spoken.
    let grpc = Grpc::start().await;
    front.swap(&[("a", &[grpc.address])]);
    let connection =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(front.connect(b"h2").await));
    let (mut client, connection) = soon(connection).await.unwrap();
    let driver = tokio::spawn(connection);
    let request =
        Request::get("https://a.hearth.example/").header("user-agent", "t").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(soon(client.send_request(request)).await.unwrap().status(), StatusCode::BAD_GATEWAY);
    driver.abort();
    front.stop().await;
}
