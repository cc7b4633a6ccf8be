//! TLS of the roles' services: from files that are read again when they change, and for which clients.
//!
//! A client is judged while it connects, and by the files that are good at that moment: whoever is connected stays so
//! until one of the two ends the connection. A faulty file never takes a good certificate out of use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How often the files of a certificate are looked at.
const RELOAD: Duration = Duration::from_secs(30);

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The files of a server's certificate, and which clients it serves.
#[derive(Clone, Debug, clap::Args)]
pub struct TlsFiles {
    /// The server's certificate and its chain, PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_cert: PathBuf,
    /// The server's private key, PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_key: PathBuf,
    /// Serve only clients with a certificate of this authority, PEM.
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// Of those, serve only the client whose certificate has this common name.
    #[arg(long, value_name = "NAME", requires = "client_ca")]
    pub client_name: Option<String>,
}

/// How a service speaks TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Its files.
    pub files: TlsFiles,
    /// How often they are looked at.
    pub reload: Duration,
    /// What it counts.
    pub counters: TlsCounters,
}

/// What a service that speaks TLS counts. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct TlsCounters {
    /// Clients that were turned away: without a certificate, or with one that is not good here.
    pub turned_away: Counter,
    /// Looks at the files that found them unreadable, or changed and not usable.
    pub failed_reloads: Counter,
}

/// What takes connections in.
pub(super) struct Acceptor {
    current: Arc<ArcSwap<ServerConfig>>,
    counters: TlsCounters,
}

/// What the files held when they were last good.
#[derive(PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Holds a client to its authority, and to one name.
#[derive(Debug)]
struct Named {
    authority: Arc<dyn ClientCertVerifier>,
    name: String,
}

// === impl Tls ===

impl Tls {
    /// What new connections are greeted with: by what the files hold, now and whenever they hold something else, for as
    /// long as somebody keeps it. Fails if they are not good now.
    pub fn current(self) -> anyhow::Result<Arc<ArcSwap<ServerConfig>>> {
        crate::kubernetes::install_crypto();
        let Self { files, reload, counters } = self;
        let mut last = Contents::read(&files)?;
        let current = Arc::new(ArcSwap::from_pointee(config(&files, &last)?));
        let swap = Arc::downgrade(&current);
        let failed_reloads = counters.failed_reloads;
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(reload).await;
                let Some(swap) = swap.upgrade() else { return };
                match renewed(&files, &last) {
                    Ok(Some((contents, config))) => {
                        swap.store(Arc::new(config));
                        last = contents;
                        tracing::info!(file = %files.tls_cert.display(), "new certificates are in use");
                    }
                    Ok(None) => (),
                    Err(error) => {
                        failed_reloads.inc();
                        tracing::warn!(error = format!("{error:#}"), "the new certificates are not usable yet");
                    }
                }
            }
        });
        Ok(current)
    }
}

impl From<TlsFiles> for Tls {
    fn from(files: TlsFiles) -> Self {
        Self { files, reload: RELOAD, counters: TlsCounters::default() }
    }
}

// === impl Acceptor ===

impl Acceptor {
    /// One that uses what the files hold, now and whenever they hold something else. Fails if they are not good now.
    pub(super) fn start(tls: Tls) -> anyhow::Result<Self> {
        let counters = tls.counters.clone();
        Ok(Self { current: tls.current()?, counters })
    }

    /// The connection, once its client has shown what it must. Nothing where it has not, or took too long.
    pub(super) async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.current.load_full());
        match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) if is_for_its_certificate(&error) => {
                // A line for the first, and ever fewer: whoever may connect could fill the log otherwise.
                let before = self.counters.turned_away.inc();
                if (before + 1).is_power_of_two() {
                    tracing::warn!(%error, clients = before + 1, "a client was turned away for its certificate");
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        }
        None
    }
}

/// Whether a handshake failed because of what the client showed or did not show.
fn is_for_its_certificate(error: &std::io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)))
}

/// The files' contents and what they make, if they are not the same as `last`. A certificate whose key has not been
/// replaced yet is an error, and is tried again the next time.
fn renewed(files: &TlsFiles, last: &Contents) -> anyhow::Result<Option<(Contents, ServerConfig)>> {
    let contents = Contents::read(files)?;
    if contents == *last {
        return Ok(None);
    }
    let config = config(files, &contents)?;
    Ok(Some((contents, config)))
}

fn config(files: &TlsFiles, contents: &Contents) -> anyhow::Result<ServerConfig> {
    let chain = certificates(&contents.cert, &files.tls_cert)?;
    let key = PrivateKeyDer::from_pem_slice(&contents.key)
        .with_context(|| format!("failed to read the key {}", files.tls_key.display()))?;
    let builder = ServerConfig::builder();
    let builder = match (&files.client_ca, &contents.client_ca) {
        (Some(file), Some(bytes)) => {
            let mut roots = rustls::RootCertStore::empty();
            for authority in certificates(bytes, file)? {
                roots.add(authority).with_context(|| format!("{} holds no authority", file.display()))?;
            }
            let authority = WebPkiClientVerifier::builder(Arc::new(roots))
                .build()
                .with_context(|| format!("failed to use the clients' authority {}", file.display()))?;
            builder.with_client_cert_verifier(match files.client_name.clone() {
                Some(name) => Arc::new(Named { authority, name }),
                None => authority,
            })
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .with_context(|| format!("{} and its key do not belong together", files.tls_cert.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(pem: &[u8], file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .with_context(|| format!("failed to read the certificate {}", file.display()))
}

// === impl Contents ===

impl Contents {
    fn read(files: &TlsFiles) -> anyhow::Result<Self> {
        let read = |file: &PathBuf| std::fs::read(file).with_context(|| format!("failed to read {}", file.display()));
        Ok(Self {
            cert: read(&files.tls_cert)?,
            key: read(&files.tls_key)?,
            client_ca: files.client_ca.as_ref().map(read).transpose()?,
        })
    }
}

// === impl Named ===

impl ClientCertVerifier for Named {
    fn offer_client_auth(&self) -> bool {
        self.authority.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.authority.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authority.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.authority.verify_client_cert(end_entity, intermediates, now)?;
        match has_common_name(end_entity, &self.name) {
            true => Ok(verified),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authority.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authority.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authority.supported_verify_schemes()
    }
}

/// Whether a certificate has one common name, which is this.
fn has_common_name(certificate: &CertificateDer<'_>, name: &str) -> bool {
    x509_parser::parse_x509_certificate(certificate).is_ok_and(|(_, certificate)| {
        let mut names = certificate.subject().iter_common_name();
        names.next().is_some_and(|first| first.as_str() == Ok(name)) && names.next().is_none()
    })
}
