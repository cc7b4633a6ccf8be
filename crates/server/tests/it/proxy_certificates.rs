//! Which certificate the front door shows, for which hosts it is then asked, and how certificates are replaced.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use hearth_server::reverse_proxy::certificates::{CertificateMetrics, Files, Sources, follow};
use hearth_server::reverse_proxy::{Freshness, Metrics, Pair, Tls, observation};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tower::ServiceExt;

use crate::proxy_api::Api;
use crate::proxy_front::{Front, Pod, read_head, soon};

/// A certificate for these names, and its key.
struct Made(rcgen::CertifiedKey<rcgen::KeyPair>);

impl Made {
    fn of(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Self(rcgen::generate_simple_self_signed(names).unwrap())
    }

    fn pair(&self) -> Arc<Pair> {
        let key = PrivateKeyDer::try_from(self.0.signing_key.serialize_der()).unwrap();
        Arc::new(Pair::new(vec![self.0.cert.der().clone()], key).unwrap())
    }

    fn write(&self, files: &Files) {
        std::fs::write(&files.key, self.0.signing_key.serialize_pem()).unwrap();
        std::fs::write(&files.certificate, self.0.cert.pem()).unwrap();
    }

    fn secret(&self, name: &str) -> serde_json::Value {
        let base64 = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
        let data = json!({"tls.crt": base64(self.0.cert.pem()), "tls.key": base64(self.0.signing_key.serialize_pem())});
        json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": name, "namespace": "hearth-system"}, "data": data})
    }
}

fn trusting(made: &[&Made]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for made in made {
        roots.add(made.0.cert.der().clone()).unwrap();
    }
    roots
}

async fn shown(front: &Front, name: &'static str) -> CertificateDer<'static> {
    let stream = front.connect_to(name, b"http/1.1").await;
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Waits until this certificate is shown to who says this name.
async fn until_shown(front: &Front, name: &'static str, made: &Made) {
    soon(async {
        while shown(front, name).await != *made.0.cert.der() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn sources(folder: &Path, secrets: &[&str]) -> Sources {
    let files = Files { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
    Sources {
        files: if secrets.is_empty() { vec![files] } else { Vec::new() },
        every: Duration::from_millis(20),
        secrets: secrets.iter().map(|name| name.parse().unwrap()).collect(),
        copies: folder.join("certificates"),
    }
}

/// What a metric says, where it is there.
async fn metric(metrics: &Arc<Metrics>, name: &str) -> Option<i64> {
    let router = observation(metrics.clone(), Arc::new(Freshness::new(Duration::from_secs(1))));
    let answer = router.oneshot(Request::get("/metrics").body(axum::body::Body::empty()).unwrap()).await.unwrap();
    let text = String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

const FAILURES: &str = "hearth_proxy_certificate_failures_total";

/// Waits until so many replacements could not be used.
async fn until_failed(metrics: &Arc<Metrics>, times: i64) {
    soon(async {
        while metric(metrics, FAILURES).await.unwrap() < times {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_is_asked_for_the_hosts_of_its_certificate_only() {
    let a = Pod::echo("a").await;
    let [wide, narrow] =
        [Made::of(&["127.0.0.1", "hearth.example", "*.hearth.example"]), Made::of(&["b.hearth.example"])];
    let tls = Tls::new(wide.pair(), &[narrow.pair()]);
    let tools: crate::proxy_front::Tools<'_> = &[("a", &[a.address]), ("b", &[a.address])];
    let front = Front::showing(tools, tls, trusting(&[&wide, &narrow])).await;
    // Who says no name is shown the first certificate, and held to it.
    for (name, host, expected) in [
        ("a.hearth.example", "a.hearth.example", 200),
        ("a.hearth.example", "b.hearth.example", 200),
        ("a.hearth.example", "old.example", 421),
        ("a.hearth.example", "evil.example", 421),
        ("b.hearth.example", "b.hearth.example", 200),
        ("b.hearth.example", "a.hearth.example", 421),
        ("127.0.0.1", "a.hearth.example", 200),
        ("127.0.0.1", "old.example", 421),
    ] {
        let stream = front.connect_to(name, b"h2").await;
        let io = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let mut ask = async |host: &str| {
            let request = Request::get(format!("https://{host}:8443/")).header("user-agent", "t");
            let response = soon(sender.send_request(request.body(Empty::<Bytes>::new()).unwrap())).await.unwrap();
            response.status()
        };
        assert_eq!(ask(host).await, expected, "{host} by {name}");
        // What was refused does not harm the others of the connection.
        if expected == 421 {
            let own = if name == "127.0.0.1" { "a.hearth.example" } else { name };
            assert_eq!(ask(own).await, StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn tls_has_the_versions_that_are_good() {
    let a = Pod::echo("a").await;
    let made = Made::of(&["a.hearth.example"]);
    let front = Front::showing(&[("a", &[a.address])], Tls::new(made.pair(), &[]), trusting(&[&made])).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for protocol in ["http/1.1", "h2"] {
            let mut config = rustls::ClientConfig::builder_with_protocol_versions(&[version])
                .with_root_certificates(trusting(&[&made]))
                .with_no_client_auth();
            config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
            let stream = tokio::net::TcpStream::connect(front.https).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let stream = soon(connector.connect("a.hearth.example".try_into().unwrap(), stream)).await.unwrap();
            let agreed = stream.get_ref().1;
            assert_eq!(agreed.protocol_version(), Some(version.version));
            assert_eq!(agreed.alpn_protocol(), Some(protocol.as_bytes()));
        }
    }
}

#[tokio::test]
async fn a_kept_connection_is_held_to_its_certificate() {
    let a = Pod::echo("a").await;
    let narrow = Made::of(&["a.hearth.example"]);
    let tls = Tls::new(narrow.pair(), &[]);
    let front = Front::showing(&[("a", &[a.address]), ("b", &[a.address])], tls, trusting(&[&narrow])).await;
    let mut stream = front.connect(b"http/1.1").await;
    for (host, expected) in [("a", "HTTP/1.1 200 "), ("a", "HTTP/1.1 200 "), ("b", "HTTP/1.1 421 ")] {
        let request = format!("HEAD / HTTP/1.1\r\nHost: {host}.hearth.example\r\nUser-Agent: t\r\n\r\n");
        soon(stream.write_all(request.as_bytes())).await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.starts_with(expected), "{head}");
    }
    assert_eq!(a.count(), 2);
}

#[tokio::test]
async fn files_are_replaced_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path(), &[]);
    let files = sources.files[0].clone();
    let names = ["a.hearth.example"];
    let [first, second, third] = [Made::of(&names), Made::of(&names), Made::of(&names)];
    let client = Api::start().await.client();
    let counted = Metrics::new();
    let missing = follow(sources.clone(), &client, counted.certificates.clone()).await;
    assert!(missing.is_err(), "a file that is missing at the start");
    first.write(&files);
    let tls = follow(sources, &client, counted.certificates.clone()).await.unwrap();
    let front = Front::showing(&[], tls, trusting(&[&first, &second, &third])).await;
    assert_eq!(shown(&front, names[0]).await, *first.0.cert.der());
    let label = format!("{{certificate=\"{}\"}}", files.certificate.display());
    let expiry = metric(&counted, &format!("hearth_proxy_certificate_expiry_timestamp_seconds{label}")).await;
    assert!(expiry > Some(0), "{expiry:?}");
    second.write(&files);
    until_shown(&front, names[0], &second).await;
    // Each is bad in its own way; the last good one goes on, and it is counted.
    let expired = {
        let mut params = rcgen::CertificateParams::new(vec![names[0].to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    for (case, (certificate, key)) in [
        ("nonsense".to_owned(), third.0.signing_key.serialize_pem()),
        (first.0.cert.pem(), third.0.signing_key.serialize_pem()),
        (Made::of(&[]).0.cert.pem(), third.0.signing_key.serialize_pem()),
        expired,
    ]
    .into_iter()
    .enumerate()
    {
        let before = metric(&counted, FAILURES).await.unwrap();
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        // One look may have been at the certificate of one moment and the key of another.
        until_failed(&counted, before + 2).await;
        assert_eq!(shown(&front, names[0]).await, *second.0.cert.der(), "case {case}");
    }
    std::fs::remove_file(&files.key).unwrap();
    third.write(&files);
    until_shown(&front, names[0], &third).await;
}

#[tokio::test]
async fn secrets_are_followed_and_kept_for_when_the_api_server_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path(), &["hearth-system/front-door"]);
    let [first, second] = [Made::of(&["a.hearth.example"]), Made::of(&["a.hearth.example"])];
    let api = Api::start().await;
    let counted = Metrics::new();
    let (client, follows) = (api.client(), sources.clone());
    let begun = tokio::spawn({
        let counted = counted.certificates.clone();
        async move { follow(follows, &client, counted).await }
    });
    // Nothing to show yet: it waits.
    api.seen("secrets", 1, 1).await;
    assert!(!begun.is_finished());
    api.put("secrets", first.secret("front-door")).await;
    let tls = soon(begun).await.unwrap().unwrap();
    let front = Front::showing(&[], tls, trusting(&[&first, &second])).await;
    assert_eq!(shown(&front, "a.hearth.example").await, *first.0.cert.der());
    let mut broken = first.secret("front-door");
    broken["data"]["tls.crt"] = json!("bm9uc2Vuc2U=");
    api.put("secrets", broken).await;
    until_failed(&counted, 1).await;
    assert_eq!(shown(&front, "a.hearth.example").await, *first.0.cert.der());
    api.put("secrets", second.secret("front-door")).await;
    until_shown(&front, "a.hearth.example", &second).await;
    api.delete("secrets", "front-door").await;
    assert_eq!(shown(&front, "a.hearth.example").await, *second.0.cert.der());

    api.set_away(true);
    let tls = soon(follow(sources, &api.client(), CertificateMetrics::default())).await.unwrap();
    let front = Front::showing(&[], tls, trusting(&[&second])).await;
    assert_eq!(shown(&front, "a.hearth.example").await, *second.0.cert.der());
    let copy = folder.path().join("certificates/hearth-system_front-door.pem");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(copy).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}
