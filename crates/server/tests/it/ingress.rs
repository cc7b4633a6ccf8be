//! The ingress: whom it answers, what it tells tools, and that it serves its table whatever its age.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hearth_core::route::Kind;
use hearth_server::http_service::{Tls, TlsFiles};
use hearth_server::kubernetes::install_crypto;
use hearth_server::reverse_proxy::{self, Course, Door, Followed, Freshness, Limits, Listeners, Metrics, serve};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use crate::admission_tls::{Authority, Identity};
use crate::proxy_front::{Pod, Tools, exchange, listen, soon, table};

/// The names in the certificates of the two.
pub(crate) const INGRESS: &str = "ingress.hearth.internal";
pub(crate) const FRONT_PROXY: &str = "front-proxy.hearth.internal";

/// An ingress that serves, with its files in a folder of its own.
pub(crate) struct Inside {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) authority: Authority,
    course: watch::Sender<Course>,
}

/// What is known of the cluster, as an ingress keeps it.
fn heard() -> Freshness {
    let freshness = Freshness::new(Duration::MAX);
    for kind in Kind::ALL {
        freshness.heard(kind, tokio::time::Instant::now());
    }
    freshness
}

impl Inside {
    pub(crate) async fn start(tools: Tools<'_>) -> Self {
        Self::with(tools, heard()).await
    }

    pub(crate) async fn with(tools: Tools<'_>, freshness: Freshness) -> Self {
        install_crypto();
        let authority = Authority::new("ours");
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let own = authority.issue(&[INGRESS]);
        let files = TlsFiles {
            tls_cert: put("tls.crt", &own.cert),
            tls_key: put("tls.key", &own.key),
            client_ca: Some(put("ca.crt", &authority.pem)),
            client_name: Some(FRONT_PROXY.to_owned()),
        };
        let tls = reverse_proxy::Tls::given(Tls::from(files).current().unwrap());
        let listener = listen().await;
        let address = listener.local_addr().unwrap();
        let (course, steered) = watch::channel(Course::Serves);
        let followed = Followed { table: watch::channel(table(tools)).1, freshness: Arc::new(freshness) };
        let door = Door::inside(followed, Metrics::named("hearth_ingress"), Limits::default());
        let listeners = Listeners { https: vec![listener], http: Vec::new() };
        tokio::spawn(async move { drop(serve(listeners, tls, door, steered).await) });
        Self { folder, address, authority, course }
    }

    /// A request from whoever has this certificate; nothing where the connection is refused.
    pub(crate) async fn ask(&self, identity: Option<&Identity>, request: &str) -> Option<String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem.as_bytes()).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        let config = match identity {
            Some(Identity { cert, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
                config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        let stream = soon(TcpStream::connect(self.address)).await.unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(INGRESS).unwrap(), stream);
        let mut stream = soon(connecting).await.ok()?;
        let answer = exchange(&mut stream, request).await;
        (!answer.is_empty()).then_some(answer)
    }

    /// A request from the front door.
    async fn get(&self, host: &str) -> String {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: t\r\nConnection: close\r\n\r\n");
        self.ask(Some(&self.authority.issue(&[FRONT_PROXY])), &request).await.unwrap()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.course.send_replace(Course::Stops);
    }
}

#[tokio::test]
async fn only_the_front_door_is_answered() {
    let a = Pod::echo("a").await;
    let inside = Inside::start(&[("a", &[a.address])]).await;
    let forged = "GET / HTTP/1.1\r\nHost: a.hearth.example\r\nUser-Agent: t\r\nX-Forwarded-Proto: https\r\n\
                  X-Forwarded-Host: b.hearth.example\r\nConnection: close\r\n\r\n";
    let other = Authority::new("other");
    let nobody = [
        None,
        Some(inside.authority.issue(&["registry.hearth.internal"])),
        Some(inside.authority.issue(&[INGRESS])),
        Some(inside.authority.issue(&["registry.hearth.internal", FRONT_PROXY])),
        Some(other.issue(&[FRONT_PROXY])),
    ];
    for identity in &nobody {
        assert_eq!(inside.ask(identity.as_ref(), forged).await, None);
    }
    // Nor without TLS.
    let mut plain = soon(TcpStream::connect(inside.address)).await.unwrap();
    assert!(!exchange(&mut plain, forged).await.contains("HTTP/1.1 2"));
    assert_eq!(a.count(), 0);
    assert!(inside.get("a.hearth.example").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn what_the_front_door_says_is_passed_on() {
    let a = Pod::echo("a").await;
    let inside = Inside::start(&[("a", &[a.address])]).await;
    let request = "POST /p?q HTTP/1.1\r\nHost: a.hearth.example:8443\r\nUser-Agent: t\r\nConnection: close\r\n\
                   X-Forwarded-Host: a.hearth.example:8443\r\nX-Forwarded-Port: 8443\r\nX-Forwarded-Proto: https\r\n\
                   X-Original-URI: /p?q\r\nX-Forwarded-For: 203.0.113.9\r\nX-Hearth-Reason: apex\r\n\
                   Content-Length: 5\r\n\r\nhello";
    let front = inside.authority.issue(&[FRONT_PROXY]);
    let answer = inside.ask(Some(&front), request).await.unwrap();
    for line in [
        "a POST /p?q 5",
        "host: a.hearth.example:8443",
        "x-forwarded-host: a.hearth.example:8443",
        "x-forwarded-port: 8443",
        "x-forwarded-proto: https",
        "x-original-uri: /p?q",
    ] {
        assert!(answer.lines().any(|found| found == line), "no line '{line}' in:\n{answer}");
    }
    assert!(!answer.contains("203.0.113.9") && !answer.contains("apex"), "{answer}");
}

#[tokio::test]
async fn a_table_is_served_whatever_its_age_once_there_is_one() {
    let a = Pod::echo("a").await;
    let old = Freshness::new(Duration::MAX);
    let inside = Inside::with(&[("a", &[a.address])], old).await;
    let answer = inside.get("a.hearth.example").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("lost contact with its cluster"), "{answer}");
    // However long ago: what was heard once is not forgotten.
    let inside = Inside::start(&[("a", &[a.address])]).await;
    assert!(inside.get("a.hearth.example").await.starts_with("HTTP/1.1 200 "));
    assert!(inside.get("b.hearth.example").await.starts_with("HTTP/1.1 404 "));
}
