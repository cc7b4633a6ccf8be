//! The pages, from the cluster's namespaces to what a visitor sees through the front door.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up fails")]

use std::sync::Arc;

use hearth_server::fourohfour::{self, Pages, Tools};
use hearth_server::http_service;
use serde_json::json;

use crate::proxy_api::{Api, tool};
use crate::proxy_front::{Front, listen, refusing, soon};

async fn ask(front: &Front, method: &str, host: &str, accept: &str) -> String {
    let head = format!("{method} / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: t\r\nAccept: {accept}\r\n");
    front.raw(format!("{head}Connection: close\r\n\r\n")).await
}

#[track_caller]
fn holds(answer: &str, parts: &[&str]) {
    for part in parts {
        assert!(answer.contains(part), "no '{part}' in:\n{answer}");
    }
}

#[tokio::test]
async fn visitors_are_told_what_is_wrong_and_who_can_mend_it() {
    let api = Api::start().await;
    for (plural, object) in tool("wikibot", refusing().await) {
        api.put(plural, object).await;
    }
    let annotations = json!({"hearth.internal/state": "disabled", "hearth.internal/maintainers": "ada"});
    let metadata = json!({"name": "tool-gone", "annotations": annotations});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
    api.put("namespaces", namespace).await;

    let tools = Arc::new(Tools::default());
    let pages = Pages::new(tools.clone());
    tokio::spawn(fourohfour::follow(api.client(), tools));
    let (listener, observed) = (listen().await, listen().await);
    let address = listener.local_addr().unwrap();
    let health = observed.local_addr().unwrap();
    tokio::spawn(http_service::serve(listener, None, fourohfour::router(pages.clone()), std::future::pending()));
    tokio::spawn(http_service::serve(observed, None, fourohfour::observation(pages), std::future::pending()));

    let gone = refusing().await;
    let front = Front::start(&[("wikibot", &[]), ("down", &[gone]), ("gone", &[]), ("fourohfour", &[address])]).await;
    // Until the namespaces are listed nothing is called unknown.
    soon(async {
        while !ask(&front, "GET", "nobody.hearth.example", "*/*").await.starts_with("HTTP/1.1 404 ") {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let unknown = ask(&front, "GET", "wikibto.hearth.example", "text/html,*/*;q=0.8").await;
    holds(&unknown, &["HTTP/1.1 404 ", "The URL you have requested", "//wikibot.hearth.example/", "text/html"]);
    holds(&unknown, &["hearth tool create wikibto", "content-security-policy: default-src 'none'"]);
    let stopped = ask(&front, "GET", "wikibot.hearth.example", "text/plain").await;
    holds(&stopped, &["HTTP/1.1 503 ", "text/plain", "Its maintainers: ada, grace", "retry-after: 60"]);
    let disabled = ask(&front, "GET", "gone.hearth.example", "application/json").await;
    holds(&disabled, &["HTTP/1.1 503 ", "application/json", "\"title\":\"This tool is disabled\"", "[\"ada\"]"]);
    let unreachable = ask(&front, "GET", "down.hearth.example", "text/html").await;
    holds(&unreachable, &["HTTP/1.1 502 ", "This tool is not answering", "webservice status"]);
    let apex = ask(&front, "GET", "hearth.example", "text/html").await;
    holds(&apex, &["HTTP/1.1 200 ", "<h1>Hearth</h1>"]);
    let head = ask(&front, "HEAD", "nobody.hearth.example", "text/html").await;
    holds(&head, &["HTTP/1.1 404 ", "content-length: "]);
    assert!(head.ends_with("\r\n\r\n"), "{head}");

    // A new tool is known without a request asking for it.
    for (plural, object) in tool("nobody", gone) {
        api.put(plural, object).await;
    }
    soon(async {
        while !ask(&front, "GET", "nobody.hearth.example", "*/*").await.starts_with("HTTP/1.1 503 ") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let metrics = metrics_of(health).await;
    holds(&metrics, &["hearth_fourohfour_pages_total{reason=\"apex\"} 1"]);
}

async fn metrics_of(address: std::net::SocketAddr) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}
