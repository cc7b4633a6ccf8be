//! What an operator switches while the front door runs: the page for technical problems, and the block list.

use std::path::Path;
use std::time::Duration;

use hearth_core::platform::FrontDoor;
use hearth_server::reverse_proxy::switches::SwitchFiles;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::proxy_front::{Front, Pod, read_head, soon};

fn follow(front: &Front, folder: &Path) {
    let files = SwitchFiles { maintenance: folder.join("maintenance"), blocked: Some(folder.join("blocked.toml")) };
    tokio::spawn(front.switches.clone().follow(files, Duration::from_millis(10)));
}

/// Asks with these fields until the answer begins so, and returns it.
async fn until(front: &Front, fields: &str, status: &str) -> String {
    soon(async {
        loop {
            let answer = ask(front, "a.hearth.example", "/", fields).await;
            if answer.starts_with(&format!("HTTP/1.1 {status} ")) {
                return answer;
            }
        }
    })
    .await
}

async fn ask(front: &Front, host: &str, path: &str, fields: &str) -> String {
    front.raw(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n")).await
}

const BROWSER: &str = "User-Agent: Mozilla/5.0\r\nAccept: text/html,*/*\r\n";

#[tokio::test]
async fn everybody_is_told_of_a_technical_problem() {
    let a = Pod::echo("a").await;
    let front = Front::start(&[("a", &[a.address])]).await;
    let folder = tempfile::tempdir().unwrap();
    follow(&front, folder.path());
    until(&front, BROWSER, "200").await;
    std::fs::write(folder.path().join("maintenance"), "Back at noon <UTC>.\n").unwrap();
    let page = until(&front, BROWSER, "503").await;
    let count = a.count();
    for part in [
        "<h1>Technical problem</h1>",
        "Back at noon &lt;UTC&gt;.",
        "retry-after: 60",
        "not at fault",
        "details=\"maintenance\"",
        "strict-transport-security: ",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    let text = ask(&front, "a.hearth.example", "/", "User-Agent: curl\r\n").await;
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("Back at noon <UTC>."), "{text}");
    // Every host, every path, also without TLS; load balancers still find it well.
    for host in ["nobody.hearth.example", "old.example", "hearth.example"] {
        assert!(ask(&front, host, "/robots.txt", BROWSER).await.starts_with("HTTP/1.1 503 "), "{host}");
    }
    let plain = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a.hearth.example\r\nConnection: close\r\n\r\n");
    assert!(front.raw_plain(plain("/")).await.starts_with("HTTP/1.1 503 "));
    assert!(front.raw_plain(plain("/.well-known/healthz")).await.contains("proxy ok!"));
    assert!(ask(&front, "a.hearth.example", "/.well-known/healthz", "").await.contains("proxy ok!"));
    assert_eq!(a.count(), count);
    std::fs::remove_file(folder.path().join("maintenance")).unwrap();
    until(&front, BROWSER, "200").await;
}

#[tokio::test]
async fn who_is_listed_is_refused() {
    let a = Pod::echo("a").await;
    let front = Front::start(&[("a", &[a.address])]).await;
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("blocked.toml");
    std::fs::write(&list, "user_agents = ['BadBot/']\nreferers = ['https://spam.example/']\n").unwrap();
    follow(&front, folder.path());
    let agent = until(&front, "User-Agent: x badbot/1.0\r\nAccept: text/html\r\n", "403").await;
    assert!(agent.contains("Blocked user agent") && agent.contains("details=\"blocked-user-agent\""), "{agent}");
    let referer = ask(&front, "a.hearth.example", "/", "User-Agent: t\r\nReferer: https://spam.example/x\r\n").await;
    assert!(referer.starts_with("HTTP/1.1 403 ") && referer.contains("Blocked referer"), "{referer}");
    // So it is without TLS: nobody is led on to be refused there.
    let plain = "GET / HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: badbot/1.0\r\nConnection: close\r\n\r\n";
    assert!(front.raw_plain(plain).await.starts_with("HTTP/1.1 403 "));
    until(&front, BROWSER, "200").await;
    let page = "addresses = ['127.0.0.0/8']\nexplanation = 'https://wiki.example/Banned'\n";
    std::fs::write(&list, page).unwrap();
    let banned = until(&front, BROWSER, "403").await;
    let link = "<a href=\"https://wiki.example/Banned\">";
    assert!(banned.contains("Your address is blocked") && banned.contains(link), "{banned}");
    assert!(ask(&front, "a.hearth.example", "/.well-known/healthz", "").await.contains("proxy ok!"));
    // One that cannot be used changes nothing; without the file nobody is blocked.
    std::fs::write(&list, "addresses = ['everybody']\n").unwrap();
    soon(async {
        while !front.metrics().await.contains("hearth_proxy_block_list_failures_total 1") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(ask(&front, "a.hearth.example", "/", BROWSER).await.starts_with("HTTP/1.1 403 "));
    assert!(front.metrics().await.contains("hearth_proxy_blocked_total{kind=\"blocked-referer\"} 1"));
    std::fs::remove_file(&list).unwrap();
    until(&front, BROWSER, "200").await;
}

#[tokio::test]
async fn a_visitor_has_so_many_connections() {
    let a = Pod::echo("a").await;
    let front_door = FrontDoor { visitor_connections: 2, ..FrontDoor::default() };
    let front = Front::allowing(&[("a", &[a.address])], front_door).await;
    let mut held = [front.connect(b"http/1.1").await, front.connect(b"h2").await];
    // The third is closed without a word.
    let mut third = TcpStream::connect(front.https).await.unwrap();
    assert_eq!(soon(third.read(&mut [0; 1])).await.unwrap_or(0), 0);
    let request = "HEAD / HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r\n\r\n";
    held[0].write_all(request.as_bytes()).await.unwrap();
    assert!(read_head(&mut held[0]).await.starts_with("HTTP/1.1 200 "));
    assert!(front.metrics().await.contains("hearth_proxy_limited_total{kind=\"connections\"} 1"));
    drop(held);
    soon(async {
        loop {
            let mut stream = TcpStream::connect(front.http).await.unwrap();
            let _ = stream.write_all(b"GET /.well-known/healthz HTTP/1.0\r\n\r\n").await;
            let mut answer = String::new();
            if stream.read_to_string(&mut answer).await.is_ok() && answer.contains("proxy ok!") {
                return;
            }
        }
    })
    .await;
}
