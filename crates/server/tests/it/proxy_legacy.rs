//! Tools below the legacy host: they share its origin, and what one could do to all of it is taken away.

use http::Response;

use crate::proxy_front::{Front, Pod, full};

async fn tool() -> Pod {
    Pod::start(|request| async move {
        Response::builder()
            .header("service-worker-allowed", "/")
            .header("clear-site-data", "\"*\"")
            .header("set-cookie", "wide=1; Path=/")
            .header("set-cookie", "own=1; Path=/old-a; Domain=old.example")
            .body(full(format!("it saw {}\n", request.uri())))
            .unwrap()
    })
    .await
}

#[tokio::test]
async fn a_tool_below_the_legacy_host_keeps_to_its_own_part() {
    let pod = tool().await;
    let front = Front::start(&[("old-a", &[pod.address]), ("b", &[pod.address])]).await;
    let shared = front.get("old.example", "/old-a/x?y").await.to_lowercase();
    assert!(shared.contains("it saw /old-a/x?y"), "the path is passed on whole: {shared}");
    assert!(shared.contains("set-cookie: own=1; path=/old-a\r\n"), "{shared}");
    for gone in ["service-worker-allowed", "clear-site-data", "wide=1", "domain="] {
        assert!(!shared.contains(gone), "{gone}: {shared}");
    }
    // On its own host, a tool is alone.
    let own = front.get("old-a.hearth.example", "/x").await.to_lowercase();
    for kept in ["service-worker-allowed: /", "clear-site-data", "wide=1"] {
        assert!(own.contains(kept), "{kept}: {own}");
    }
    // Nobody else is there.
    let other = front.get("old.example", "/b/x").await.to_lowercase();
    assert!(
        other.starts_with("http/1.1 308 ") && other.contains("location: https://b.hearth.example/x\r\n"),
        "{other}"
    );
    front.stop().await;
}

#[tokio::test]
async fn scripts_of_service_workers_are_refused_on_the_shared_host() {
    let pod = tool().await;
    let front = Front::start(&[("old-a", &[pod.address]), ("b", &[pod.address])]).await;
    let ask = async |host: &str, path: &str, field: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: t\r\n{field}\r\nConnection: close\r\n\r\n");
        front.raw(request).await
    };
    for field in ["Service-Worker: script", "Sec-Fetch-Dest: serviceworker"] {
        for path in ["/old-a/sw.js", "/b/sw.js"] {
            let answer = ask("old.example", path, field).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{path}: {answer}");
            assert!(answer.contains("Service workers are not available here"), "{path}: {answer}");
        }
    }
    assert_eq!(pod.count(), 0);
    let own = ask("old-a.hearth.example", "/sw.js", "Service-Worker: script").await;
    assert!(own.contains("it saw /sw.js"), "{own}");
    front.stop().await;
}
