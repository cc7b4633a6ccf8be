//! The admission webhook over TLS: whom it answers, and that its files are replaced without a dropped request.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hearth_server::admission::router;
use hearth_server::http_service::{Tls, TlsFiles, serve};
use hearth_server::kubernetes::install_crypto;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::admission::{asking, ctx, known};

const SERVER: &str = "admission.hearth-system.svc";
const API_SERVER: &str = "kube-apiserver";

/// How often the files are looked at here.
const RELOAD: Duration = Duration::from_millis(20);

/// How long anything may take to show.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// A webhook that listens, with its files in a folder of its own.
struct Webhook {
    folder: tempfile::TempDir,
    address: SocketAddr,
    tls: Tls,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn issue(&self, common_names: &[&str]) -> Identity {
        let mut params = CertificateParams::new([common_names[0].to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        // A name by its number is another to the one that makes certificates, so that there can be two.
        let types = [DnType::CommonName, DnType::CustomDnType(vec![2, 5, 4, 3])];
        for (name, of_type) in common_names.iter().zip(types) {
            params.distinguished_name.push(of_type, *name);
        }
        let key = KeyPair::generate().unwrap();
        Identity { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }
}

impl Webhook {
    async fn start(authority: &Authority) -> Self {
        install_crypto();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let files = TlsFiles {
            tls_cert: path("tls.crt"),
            tls_key: path("tls.key"),
            client_ca: Some(path("ca.crt")),
            client_name: Some(API_SERVER.to_owned()),
        };
        let tls = Tls { reload: RELOAD, ..Tls::from(files) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let webhook = Self { address: listener.local_addr().unwrap(), folder, tls };
        let identity = authority.issue(&[SERVER]);
        webhook.write("tls.crt", &identity.cert);
        webhook.write("tls.key", &identity.key);
        webhook.write("ca.crt", &authority.pem);
        tokio::spawn(serve(listener, Some(webhook.tls.clone()), router(ctx(&known())), std::future::pending()));
        webhook
    }

    fn write(&self, name: &str, text: &str) {
        replace(&self.folder.path().join(name), text);
    }

    /// A connection as the API server's: HTTP/2, over TLS, with a certificate or without. Who is at the other end.
    async fn connect(
        &self,
        trusted: &[&Authority],
        identity: Option<&Identity>,
    ) -> anyhow::Result<(SendRequest<Full<Bytes>>, CertificateDer<'static>)> {
        let mut roots = rustls::RootCertStore::empty();
        for authority in trusted {
            roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes())?)?;
        }
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut config = match identity {
            Some(Identity { cert, key }) => config.with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(cert.as_bytes())?],
                PrivateKeyDer::from_pem_slice(key.as_bytes())?,
            )?,
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(SERVER)?, stream).await?;
        let certificates = stream.get_ref().1.peer_certificates().context("no certificate")?;
        let certificate = certificates[0].clone().into_owned();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok((sender, certificate))
    }

    /// Whether a new connection is answered.
    async fn answers(&self, trusted: &[&Authority], identity: Option<&Identity>) -> bool {
        match self.connect(trusted, identity).await {
            Ok((mut sender, _)) => ask(&mut sender).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Waits until new connections are answered, or not.
    async fn comes_to(&self, answered: bool, trusted: &[&Authority], identity: &Identity) {
        let deadline = Instant::now() + PATIENCE;
        while self.answers(trusted, Some(identity)).await != answered {
            assert!(Instant::now() < deadline, "the new files are not in use");
            tokio::time::sleep(RELOAD).await;
        }
    }

    /// Waits until it has looked at files that are not usable.
    async fn passes_over_its_files(&self) {
        let failed_reloads = &self.tls.counters.failed_reloads;
        let (before, deadline) = (failed_reloads.get(), Instant::now() + PATIENCE);
        while failed_reloads.get() == before {
            assert!(Instant::now() < deadline, "the files are not looked at");
            tokio::time::sleep(RELOAD).await;
        }
    }
}

/// Puts a file in the place of another, as a whole.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

async fn ask(sender: &mut SendRequest<Full<Bytes>>) -> anyhow::Result<()> {
    let review = asking("tool-wikibot", "wikibot.hearth.localhost").to_string();
    let request = hyper::Request::post(format!("https://{SERVER}/review")).body(Full::new(Bytes::from(review)))?;
    let response = sender.send_request(request).await?;
    let text = response.into_body().collect().await?.to_bytes();
    ensure!(text.ends_with(b"\"allowed\":true}}"), "{}", String::from_utf8_lossy(&text));
    Ok(())
}

#[tokio::test]
async fn only_the_api_server_is_answered() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let webhook = Webhook::start(&ours).await;
    assert!(webhook.answers(&[&ours], Some(&ours.issue(&[API_SERVER]))).await);
    let turned_away = [
        None,
        Some(ours.issue(&["registry.hearth.internal"])),
        Some(ours.issue(&["kube-apiserver.example"])),
        Some(ours.issue(&["Kube-apiserver"])),
        Some(ours.issue(&["registry.hearth.internal", API_SERVER])),
        Some(other.issue(&[API_SERVER])),
    ];
    for identity in &turned_away {
        assert!(!webhook.answers(&[&ours], identity.as_ref()).await);
    }
    // A client hears of it a moment before it is counted.
    let deadline = Instant::now() + PATIENCE;
    while webhook.tls.counters.turned_away.get() < turned_away.len() as u64 {
        assert!(Instant::now() < deadline, "{} were counted", webhook.tls.counters.turned_away.get());
        tokio::time::sleep(RELOAD).await;
    }
    assert_eq!(webhook.tls.counters.turned_away.get(), turned_away.len() as u64);
}

/// Waits until each sender was answered so many times more.
async fn go_on(answered: &[AtomicU64; 2], times: u64) {
    let seen = [0, 1].map(|index: usize| answered[index].load(Ordering::Relaxed));
    let deadline = Instant::now() + PATIENCE;
    while (0..2).any(|index| answered[index].load(Ordering::Relaxed) < seen[index] + times) {
        assert!(Instant::now() < deadline, "the senders do not go on");
        tokio::time::sleep(RELOAD).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_replaced_without_a_dropped_request() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let webhook = Arc::new(Webhook::start(&old).await);
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let (old, new) = (Arc::new(old), Arc::new(new));
    let identity = Arc::new(std::sync::Mutex::new(old.issue(&[API_SERVER])));
    let former = identity.lock().unwrap().clone();
    // One that keeps its connection throughout, and one that makes a new one for every request.
    let senders = [0, 1].map(|index| {
        let (webhook, stop, answered) = (webhook.clone(), stop.clone(), answered.clone());
        let (old, new, identity) = (old.clone(), new.clone(), identity.clone());
        tokio::spawn(async move {
            let mut kept = None;
            while !stop.load(Ordering::Relaxed) {
                let mut sender = match kept.take() {
                    Some(sender) => sender,
                    None => {
                        let identity = identity.lock().unwrap().clone();
                        webhook.connect(&[&old, &new], Some(&identity)).await?.0
                    }
                };
                ask(&mut sender).await?;
                answered[index].fetch_add(1, Ordering::Relaxed);
                kept = (index == 0).then_some(sender);
            }
            anyhow::Ok(())
        })
    });

    // The files that it starts with are read before they are replaced.
    go_on(&answered, 1).await;

    // Three certificates in turn, each without its key for a while; then a faulty file.
    for _ in 0..3 {
        let next = old.issue(&[SERVER]);
        webhook.write("tls.crt", &next.cert);
        webhook.passes_over_its_files().await;
        webhook.write("tls.key", &next.key);
        let wanted = CertificateDer::from_pem_slice(next.cert.as_bytes()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while webhook.connect(&[&old], Some(&former)).await.unwrap().1 != wanted {
            assert!(Instant::now() < deadline, "the new certificate is not in use");
            tokio::time::sleep(RELOAD).await;
        }
    }
    webhook.write("ca.crt", "none");
    webhook.passes_over_its_files().await;

    // The clients' authority: both for a while, then the new one alone. The certificate file stays as it is.
    let successor = new.issue(&[API_SERVER]);
    assert!(!webhook.answers(&[&old], Some(&successor)).await);
    webhook.write("ca.crt", &format!("{}{}", old.pem, new.pem));
    webhook.comes_to(true, &[&old], &successor).await;
    *identity.lock().unwrap() = successor;
    // Each sender has begun another request since, so the second connects as the successor.
    go_on(&answered, 2).await;
    webhook.write("ca.crt", &new.pem);
    webhook.comes_to(false, &[&old], &former).await;

    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.unwrap().expect("a request was dropped");
    }
}
