//! Answers that are compressed on their way: which, how, and that nothing waits for it.

use std::io::{Read, Write};

use bytes::Bytes;
use futures::SinkExt;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use crate::proxy_client::{Client, piece};
use crate::proxy_front::{Front, Pod, full, piped};

/// A text of some length that is not the same all over.
fn text() -> String {
    (0..20_000).map(|line| format!("line {line} of a page that a tool wrote\n")).collect()
}

fn plain(coding: &str, coded: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let read = match coding {
        "gzip" => flate2::read::GzDecoder::new(coded).read_to_end(&mut plain),
        "br" => brotli::Decompressor::new(coded, 4096).read_to_end(&mut plain),
        "zstd" => zstd::stream::read::Decoder::new(coded).unwrap().read_to_end(&mut plain),
        _ => panic!("{coding}"),
    };
    read.unwrap();
    plain
}

/// A pod that answers with a long text, and with the fields that the request asks for as `x-send: name=value`.
async fn writer() -> Pod {
    Pod::start(|request| async move {
        let mut response = Response::new(full(text()));
        response.headers_mut().insert("content-type", HeaderValue::from_static("text/html"));
        response.headers_mut().insert("etag", HeaderValue::from_static("\"v1\""));
        for field in request.headers().get_all("x-send") {
            let (name, value) = field.to_str().unwrap().split_once('=').unwrap();
            if name == "status" {
                *response.status_mut() = value.parse().unwrap();
            } else {
                let name: http::HeaderName = name.parse().unwrap();
                response.headers_mut().insert(name, value.parse().unwrap());
            }
        }
        response
    })
    .await
}

#[tokio::test]
async fn a_text_is_compressed_as_the_client_likes() {
    let a = writer().await;
    let front = Front::start(&[("a", &[a.address])]).await;
    for mut client in Client::each(&front).await {
        for (accepted, coding) in [
            ("gzip, deflate, br, zstd", "zstd"),
            ("gzip, deflate, br", "br"),
            ("gzip", "gzip"),
            ("br;q=0.5, gzip;q=0.8, zstd;q=0", "gzip"),
        ] {
            let answer = client.ask(Request::get("/").header("accept-encoding", accepted)).await;
            assert_eq!(answer.headers()["content-encoding"], coding, "{accepted}");
            assert_eq!(answer.headers()["vary"], "accept-encoding");
            assert_eq!(answer.headers()["etag"], "W/\"v1\"");
            assert!(!answer.headers().contains_key("content-length"));
            assert!(answer.body().len() < text().len() / 4, "{coding}: {} bytes", answer.body().len());
            assert_eq!(plain(coding, answer.body()), text().as_bytes(), "{coding}");

            let head = client.ask(Request::head("/").header("accept-encoding", accepted)).await;
            assert_eq!(head.headers()["content-encoding"], coding);
            assert!(head.body().is_empty());
            assert_eq!(head.headers()["etag"], "W/\"v1\"");
        }
    }
}

#[tokio::test]
async fn what_must_stay_as_it_is_does() {
    let a = writer().await;
    let front = Front::start(&[("a", &[a.address])]).await;
    let browser = [("accept-encoding", "gzip, br, zstd")];
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[], "status=200"),
        (&[("accept-encoding", "identity")], "status=200"),
        (&[browser[0], ("cookie", "session=1"), ("sec-fetch-site", "cross-site")], "status=200"),
        (&browser, "content-type=image/png"),
        (&browser, "content-type=text/event-stream"),
        (&browser, "content-encoding=x-own"),
        (&browser, "cache-control=no-transform"),
        (&browser, "status=206"),
        (&[browser[0], ("cache-control", "no-transform")], "status=200"),
    ];
    for mut client in Client::each(&front).await {
        for (fields, sent) in cases {
            let request = Request::get("/").header("x-send", sent);
            let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            let answer = client.ask(request).await;
            assert_eq!(answer.body(), text().as_bytes(), "{fields:?} {sent}");
            assert_eq!(answer.headers()["etag"], "\"v1\"", "{fields:?} {sent}");
            assert_eq!(answer.headers()["content-length"], text().len().to_string(), "{fields:?} {sent}");
        }
    }
}

#[tokio::test]
async fn every_piece_goes_on_at_once() {
    let pod = Pod::start(|request| async move {
        // The pod sends each piece when the client has read the one before.
        let (mut sender, body) = piped();
        tokio::spawn(async move {
            let mut asked = request.into_body();
            while let Some(Ok(frame)) = asked.frame().await {
                let Ok(data) = frame.into_data() else { continue };
                if sender.send(data).await.is_err() {
                    break;
                }
            }
        });
        Response::builder().header("content-type", "text/plain").body(body).unwrap()
    })
    .await;
    let front = Front::start(&[("a", &[pod.address])]).await;
    for coding in ["gzip", "br", "zstd"] {
        let (mut upload, body) = piped();
        let mut client = Client::of_http2(&front).await;
        let request = Request::post("/").header("accept-encoding", coding).body(body).unwrap();
        let mut answer = client.send(request).await.unwrap();
        assert_eq!(answer.headers()["content-encoding"], coding);
        let mut decoder: Box<dyn Decoder> = match coding {
            "gzip" => Box::new(flate2::write::GzDecoder::new(Vec::new())),
            "br" => Box::new(brotli::DecompressorWriter::new(Vec::new(), 4096)),
            _ => Box::new(zstd::stream::write::Decoder::new(Vec::new()).unwrap()),
        };
        let mut expected = Vec::new();
        for round in 0..5 {
            let text = format!("piece {round} ");
            expected.extend_from_slice(text.as_bytes());
            upload.send(Bytes::from(text)).await.unwrap();
            while decoder.decoded() != expected {
                decoder.write_all(&piece(&mut answer).await.unwrap()).unwrap();
                decoder.flush().unwrap();
            }
        }
        drop(upload);
        while let Some(last) = piece(&mut answer).await {
            decoder.write_all(&last).unwrap();
        }
        assert_eq!(decoder.decoded(), expected);
    }
}

trait Decoder: Write {
    fn decoded(&self) -> &[u8];
}

impl Decoder for flate2::write::GzDecoder<Vec<u8>> {
    fn decoded(&self) -> &[u8] {
        self.get_ref()
    }
}

impl Decoder for brotli::DecompressorWriter<Vec<u8>> {
    fn decoded(&self) -> &[u8] {
        self.get_ref()
    }
}

impl Decoder for zstd::stream::write::Decoder<'_, Vec<u8>> {
    fn decoded(&self) -> &[u8] {
        self.get_ref()
    }
}

#[tokio::test]
async fn trailers_follow_a_compressed_body() {
    let pod = Pod::start(|_| async {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("42"));
        let frames = [Frame::data(Bytes::from(text())), Frame::trailers(trailers)].map(Ok);
        let body = BodyExt::boxed(StreamBody::new(futures::stream::iter(frames)));
        Response::builder().header("content-type", "text/plain").header("trailer", "x-sum").body(body).unwrap()
    })
    .await;
    let front = Front::start(&[("a", &[pod.address])]).await;
    let mut client = Client::of_http2(&front).await;
    // Trailers go to a pod's client only where it says that it takes them.
    let request = Request::get("/").header("accept-encoding", "gzip").header("te", "trailers");
    let answer = client.send(request.body(full("")).unwrap()).await.unwrap();
    assert_eq!((answer.status(), answer.headers()["content-encoding"].as_bytes()), (StatusCode::OK, &b"gzip"[..]));
    let whole = answer.into_body().collect().await.unwrap();
    let sum = whole.trailers().and_then(|trailers| trailers.get("x-sum")).cloned();
    assert_eq!(plain("gzip", &whole.to_bytes()), text().as_bytes());
    assert_eq!(sum.unwrap(), "42");
}
