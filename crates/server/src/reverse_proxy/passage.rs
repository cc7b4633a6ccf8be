//! The way through the cluster's own ingress, for a front door that cannot dial pods, or must not for a while.
//!
//! Requests go to the balancers of the configuration, each in its turn, over TLS with the front door's certificate, by
//! which the ingress knows whom to believe. Connections are HTTP/1.1 and kept, by each thread that serves for itself, so
//! that a request and its answer stay on one. Certificates are read from files that are
//! looked at again and again; connections with an older one live on until they are idle. Whatever fails here is the
//! platform's fault and no tool's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use hearth_core::names::path;
use hearth_core::platform::{FrontDoor, Path};
use hearth_core::route::Reason;
use http::uri::{Authority, Scheme};
use http::{Request, Uri};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::bodies::{ToolBody, UploadBody};
use super::upstream::{self, Answer, Failure, Lost, Outgoing, Patience};

/// How often the files are looked at.
const RELOAD: Duration = Duration::from_secs(30);

/// How long an unused connection to a balancer is kept, and how many of them a thread keeps.
const IDLE: Duration = Duration::from_secs(55);
const IDLE_CONNECTIONS: usize = 128;

/// How long a connection is silent before the kernel asks whether the other end is there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long a balancer may leave unconfirmed what was sent to it.
const SILENCE: Duration = Duration::from_secs(20);

/// The most that is buffered of a head or body on one connection.
const BUFFER: usize = 256 * 1024;

/// How often one request is tried.
const ATTEMPTS: usize = 3;

/// With what the front door shows itself to the ingress, and by what it knows it. Read where the configuration names
/// balancers.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct PassageFiles {
    /// The authority of the ingress's certificate, PEM.
    #[arg(long = "ingress-ca", value_name = "FILE", default_value = path::CA)]
    pub ca: PathBuf,
    /// The certificate that is shown to the ingress, PEM.
    #[arg(long = "ingress-cert", value_name = "FILE", default_value = "/etc/hearth/secrets/ingress/tls.crt")]
    pub certificate: PathBuf,
    /// Its private key, PEM.
    #[arg(long = "ingress-key", value_name = "FILE", default_value = "/etc/hearth/secrets/ingress/tls.key")]
    pub key: PathBuf,
    /// The name in the ingress's certificate.
    #[arg(long = "ingress-name", value_name = "NAME", default_value = "ingress.hearth.internal")]
    pub name: String,
}

/// The connections to balancers, of one thread.
pub struct Passage {
    shown: Arc<Shown>,
    /// With what they began, and they.
    made: Mutex<(Arc<ClientConfig>, Arc<Connections>)>,
    turn: AtomicUsize,
}

/// What the threads share.
struct Shown {
    /// With what a connection begins at the moment.
    config: ArcSwap<ClientConfig>,
    name: ServerName<'static>,
    balancers: Vec<SocketAddr>,
    path: Path,
    patience: Patience,
}

type Connections = Client<HttpsConnector<HttpConnector>, UploadBody>;

impl Passage {
    /// The way that the configuration names, where it names one.
    pub fn open(files: PassageFiles, front_door: &FrontDoor, patience: Patience) -> anyhow::Result<Option<Self>> {
        if front_door.balancers.is_empty() {
            return Ok(None);
        }
        let mut last = contents(&files);
        let name = ServerName::try_from(files.name.clone())
            .with_context(|| format!("'{}' is not a name that a certificate can have", files.name))?;
        let (config, balancers) = (ArcSwap::from_pointee(client_config(&files)?), front_door.balancers.clone());
        let shown = Arc::new(Shown { config, name, balancers, path: front_door.path, patience });
        let passage = Self::of(shown.clone());
        let shown = Arc::downgrade(&shown);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(RELOAD).await;
                let Some(shown) = shown.upgrade() else { return };
                let now = contents(&files);
                if now == last {
                    continue;
                }
                match client_config(&files) {
                    Ok(config) => {
                        shown.config.store(Arc::new(config));
                        last = now;
                        tracing::info!("a new certificate is shown to the ingress");
                    }
                    Err(error) => tracing::warn!(error = format!("{error:#}"), "the new certificate is not usable"),
                }
            }
        });
        Ok(Some(passage))
    }

    fn of(shown: Arc<Shown>) -> Self {
        let config = shown.config.load_full();
        let made = Mutex::new((config.clone(), Arc::new(shown.connections(config))));
        Self { shown, made, turn: AtomicUsize::new(0) }
    }

    /// The same way with connections of its own, for another thread.
    pub(super) fn beside(&self) -> Self {
        Self::of(self.shown.clone())
    }

    /// The thread's connections; new ones where another certificate is to be shown.
    fn connections(&self) -> Arc<Connections> {
        let now = self.shown.config.load();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&made.0, &now) {
            *made = (now.clone(), Arc::new(self.shown.connections(now.clone())));
        }
        made.1.clone()
    }

    /// Whether requests go this way also while the front door knows where pods are.
    pub(super) fn is_the_only_way(&self) -> bool {
        self.shown.path == Path::Ingress
    }

    /// Sends `outgoing` to a balancer. What cannot have reached one is sent again, and once more what may be repeated.
    pub(super) async fn send(&self, outgoing: &Outgoing) -> Result<Answer, Failure> {
        let (client, Shown { balancers, patience, .. }) = (self.connections(), &*self.shown);
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut may_repeat = outgoing.may_be_repeated();
        for attempt in 0..ATTEMPTS {
            let at = first.wrapping_add(attempt) % balancers.len().max(1);
            let Some(address) = balancers.get(at) else { break };
            let request = to(*address, outgoing).ok_or(Failure::Page(Reason::NoPassage))?;
            let lost = match tokio::time::timeout(patience.read, client.request(request)).await {
                Ok(Ok(response)) => {
                    let response = response.map(|body| ToolBody::new(body, None));
                    return Ok(Answer { response, retries: attempt as u64 });
                }
                Ok(Err(error)) => lost(&error),
                Err(_) => return Err(Failure::Page(Reason::NoAnswer)),
            };
            if let Some(failure) = outgoing.failed() {
                return Err(failure);
            }
            tracing::warn!(%address, error = lost.text(), "the ingress did not answer");
            let unsent = matches!(lost, Lost::Connect(_)) && outgoing.upload.is_untouched();
            if !unsent && !std::mem::take(&mut may_repeat) {
                break;
            }
        }
        Err(Failure::Page(Reason::NoPassage))
    }
}

impl Shown {
    /// No connections yet, which will begin with `config`.
    fn connections(&self, config: Arc<ClientConfig>) -> Connections {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(self.patience.connect));
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEPALIVE));
        // A balancer that lost its power says nothing.
        connector.set_tcp_user_timeout(Some(SILENCE));
        connector.enforce_http(false);
        let name = Arc::new(FixedServerNameResolver::new(self.name.clone()));
        let connector = HttpsConnector::new(connector, config, true, name);
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(IDLE_CONNECTIONS);
        client.http1_max_buf_size(BUFFER).set_host(false).build(connector)
    }
}

/// How connections begin, by the files.
fn client_config(files: &PassageFiles) -> anyhow::Result<ClientConfig> {
    crate::kubernetes::install_crypto();
    let read = |file: &PathBuf| {
        CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("failed to read the certificate {}", file.display()))
    };
    let mut roots = rustls::RootCertStore::empty();
    for authority in read(&files.ca)? {
        roots.add(authority).with_context(|| format!("{} holds no authority", files.ca.display()))?;
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("failed to read the key {}", files.key.display()))?;
    ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(read(&files.certificate)?, key)
        .with_context(|| format!("{} and its key do not belong together", files.certificate.display()))
}

/// A request to the balancer with this address. The host that it is for stands in its field.
fn to(address: SocketAddr, outgoing: &Outgoing) -> Option<Request<UploadBody>> {
    let mut request = outgoing.request();
    let authority = Authority::try_from(address.to_string()).ok()?;
    let uri = Uri::builder().scheme(Scheme::HTTPS).authority(authority).path_and_query(outgoing.path.clone());
    *request.uri_mut() = uri.build().ok()?;
    Some(request)
}

fn lost(error: &Error) -> Lost {
    if error.is_connect() {
        return Lost::unconnected(error);
    }
    Lost::Sent(upstream::chain(error))
}

fn contents(files: &PassageFiles) -> [Option<Vec<u8>>; 3] {
    [&files.ca, &files.certificate, &files.key].map(|file| std::fs::read(file).ok())
}
