//! A client of HTTP/2 and of HTTP/1.1 for the tests of the front door.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up fails")]

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, request};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::proxy_front::{Front, full, soon};

/// A body that a client sends.
pub(crate) type Sent = BoxBody<Bytes, Infallible>;

/// One connection, of either protocol.
pub(crate) enum Client {
    One(http1::SendRequest<Sent>),
    Two(http2::SendRequest<Sent>),
}

impl Client {
    pub(crate) async fn of_http2(front: &Front) -> Self {
        let io = TokioIo::new(front.connect(b"h2").await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        Self::Two(sender)
    }

    pub(crate) async fn of_http1(front: &Front) -> Self {
        let io = TokioIo::new(front.connect(b"http/1.1").await);
        let (sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        Self::One(sender)
    }

    /// Both kinds.
    pub(crate) async fn each(front: &Front) -> [Self; 2] {
        [Self::of_http1(front).await, Self::of_http2(front).await]
    }

    /// Sends a request to the tool `a`, and waits for the head of its answer.
    pub(crate) async fn send(&mut self, mut request: Request<Sent>) -> hyper::Result<Response<Incoming>> {
        request.headers_mut().entry("user-agent").or_insert(http::HeaderValue::from_static("t"));
        match self {
            Self::One(sender) => {
                request.headers_mut().insert("host", http::HeaderValue::from_static("a.hearth.example"));
                soon(sender.ready()).await?;
                soon(sender.send_request(request)).await
            }
            Self::Two(sender) => {
                let uri = format!("https://a.hearth.example{}", request.uri());
                *request.uri_mut() = uri.parse().unwrap();
                soon(sender.ready()).await?;
                soon(sender.send_request(request)).await
            }
        }
    }

    /// Sends a request without a body, and collects the answer.
    pub(crate) async fn ask(&mut self, request: request::Builder) -> Response<Bytes> {
        let answer = self.send(request.body(full("")).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = soon(body.collect()).await.unwrap().to_bytes();
        Response::from_parts(parts, body)
    }
}

/// The next piece of an answer's body.
pub(crate) async fn piece(answer: &mut Response<Incoming>) -> Option<Bytes> {
    loop {
        let frame = soon(answer.frame()).await?.unwrap();
        if let Ok(data) = frame.into_data() {
            return Some(data);
        }
    }
}
