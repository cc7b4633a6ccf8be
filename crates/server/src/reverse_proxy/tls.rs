//! The front door's certificates: which one a browser is shown, and for which hosts it may then be asked.
//!
//! The certificate is chosen by the name that the browser says in its greeting: one of that very name, else one with a
//! wildcard for it, else the first. A connection holds on to what it was shown. A browser may send requests for several
//! hosts over one connection, and is meant to keep to those of the certificate; what is asked beyond them is answered
//! with 421 ([`Pair::is_for`]), so that no page comes over a connection that does not vouch for it.
//!
//! All certificates are replaced at once, with everything that sessions hang on: no session goes on under another
//! certificate. Where they come from is told by the module `certificates`.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What new connections are greeted with. Clones share it.
#[derive(Clone, Debug)]
pub struct Tls(Source);

#[derive(Clone, Debug)]
enum Source {
    /// Our own certificates.
    Shown(Arc<ArcSwap<Greeting>>),
    /// Whatever somebody else keeps there.
    Given(Arc<ArcSwap<ServerConfig>>),
}

/// What a connection is greeted with.
#[derive(Debug)]
pub(super) struct Greeting {
    config: Arc<ServerConfig>,
    /// None where nobody is held to the hosts of a certificate.
    keyring: Option<Arc<Keyring>>,
}

/// A certificate with its chain and key.
#[derive(Debug)]
pub struct Pair {
    certified: Arc<CertifiedKey>,
    /// The hosts that it names, in lower case.
    hosts: Vec<String>,
    /// Of its wildcards what follows the asterisk and the dot.
    parents: Vec<String>,
    /// The last moment for which it is good, in seconds since 1970.
    expires: i64,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// It does not go with its key, or one of them is of a kind that is not known.
    #[error("the certificate and the key do not belong together")]
    Together(#[from] rustls::Error),
    /// It is not X.509.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// No browser would accept it: the names of hosts have to be among its alternative names.
    #[error("the certificate names no host")]
    Nameless,
}

/// The certificates by the names that browsers say.
#[derive(Debug)]
struct Keyring {
    first: Arc<Pair>,
    hosts: HashMap<String, Arc<Pair>>,
    parents: HashMap<String, Arc<Pair>>,
}

impl Tls {
    /// Greets with these certificates; with `first` whoever says no name, or one that none is for.
    pub fn new(first: Arc<Pair>, others: &[Arc<Pair>]) -> Self {
        Self(Source::Shown(Arc::new(ArcSwap::from_pointee(Greeting::new(first, others)))))
    }

    /// Greets with other certificates from now on. What is connected stays so.
    pub fn replace(&self, first: Arc<Pair>, others: &[Arc<Pair>]) {
        if let Source::Shown(current) = &self.0 {
            current.store(Arc::new(Greeting::new(first, others)));
        }
    }

    /// Greets by what `config` holds at the moment, and holds nobody to the hosts of its certificate: for a door that
    /// only another program comes to, which knows it by a name of its own.
    pub fn given(config: Arc<ArcSwap<ServerConfig>>) -> Self {
        Self(Source::Given(config))
    }

    pub(super) fn greeting(&self) -> Arc<Greeting> {
        match &self.0 {
            Source::Shown(current) => current.load_full(),
            Source::Given(config) => Arc::new(Greeting { config: config.load_full(), keyring: None }),
        }
    }
}

impl Pair {
    /// A certificate, with its chain, and its key.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, PairError> {
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?;
        let der = certified.end_entity_cert()?;
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| PairError::Unreadable)?;
        let expires = certificate.validity().not_after.timestamp();
        let names = certificate.subject_alternative_name().map_err(|_| PairError::Unreadable)?;
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        let (mut hosts, mut parents) = (Vec::new(), Vec::new());
        for name in names {
            match name.strip_prefix("*.") {
                Some(parent) => parents.push(parent.to_owned()),
                None => hosts.push(name),
            }
        }
        if hosts.is_empty() && parents.is_empty() {
            return Err(PairError::Nameless);
        }
        Ok(Self { certified: Arc::new(certified), hosts, parents, expires })
    }

    /// Whether it is for this host, which is in lower case. A wildcard stands for one label.
    pub(super) fn is_for(&self, host: &str) -> bool {
        let parent = || host.split_once('.').map(|(_, parent)| parent);
        self.hosts.iter().any(|name| name == host) || self.parents.iter().any(|name| parent() == Some(name))
    }

    /// The last moment for which it is good, in seconds since 1970.
    pub(super) fn expires(&self) -> i64 {
        self.expires
    }
}

// === impl Greeting ===

impl Greeting {
    fn new(first: Arc<Pair>, others: &[Arc<Pair>]) -> Self {
        crate::kubernetes::install_crypto();
        let keyring = Arc::new(Keyring::new(first, others));
        let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(keyring.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self { config: Arc::new(config), keyring: Some(keyring) }
    }

    /// For the handshake: HTTP/2 and HTTP/1.1, TLS 1.2 and 1.3.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.clone())
    }

    /// The certificate that a browser was shown who said this name, if it is held to it.
    pub(super) fn shown(&self, name: Option<&str>) -> Option<Arc<Pair>> {
        self.keyring.as_ref().map(|keyring| keyring.choose(name).clone())
    }
}

// === impl Keyring ===

impl Keyring {
    fn new(first: Arc<Pair>, others: &[Arc<Pair>]) -> Self {
        let (mut hosts, mut parents) = (HashMap::new(), HashMap::new());
        for pair in std::iter::once(&first).chain(others) {
            // Of two for the same name the earlier one is shown.
            for host in &pair.hosts {
                hosts.entry(host.clone()).or_insert_with(|| pair.clone());
            }
            for parent in &pair.parents {
                parents.entry(parent.clone()).or_insert_with(|| pair.clone());
            }
        }
        Self { first, hosts, parents }
    }

    fn choose(&self, name: Option<&str>) -> &Arc<Pair> {
        let Some(name) = name else { return &self.first };
        let wildcard = || self.parents.get(name.split_once('.')?.1);
        self.hosts.get(name).or_else(wildcard).unwrap_or(&self.first)
    }
}

impl ResolvesServerCert for Keyring {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.choose(hello.server_name()).certified.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(names: &[&str]) -> Arc<Pair> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        Arc::new(Pair::new(vec![made.cert.der().clone()], key).unwrap())
    }

    #[test]
    fn a_certificate_is_for_its_names() {
        let pair = pair(&["A.example", "*.b.example"]);
        for (host, expected) in [
            ("a.example", true),
            ("b.example", false),
            ("x.b.example", true),
            ("x.y.b.example", false),
            ("x.a.example", false),
            ("example", false),
            ("xb.example", false),
        ] {
            assert_eq!(pair.is_for(host), expected, "{host}");
        }
    }

    #[test]
    fn the_nearest_certificate_is_shown() {
        let [first, wildcard, exact] = [pair(&["first.example"]), pair(&["*.a.example"]), pair(&["x.a.example"])];
        let keyring = Keyring::new(first.clone(), &[wildcard.clone(), exact.clone(), pair(&["x.a.example"])]);
        for (name, expected) in [
            (None, &first),
            (Some("first.example"), &first),
            (Some("other.example"), &first),
            (Some("y.a.example"), &wildcard),
            (Some("x.a.example"), &exact),
            (Some("z.y.a.example"), &first),
        ] {
            assert!(Arc::ptr_eq(keyring.choose(name), expected), "{name:?}");
        }
    }

    #[test]
    fn what_no_browser_accepts_is_refused() {
        let [one, other] = ["a.example", "b.example"].map(|name| {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            (made.cert.der().clone(), key)
        });
        assert!(matches!(Pair::new(vec![one.0], other.1), Err(PairError::Together(_))));
        let made = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        assert!(matches!(Pair::new(vec![made.cert.der().clone()], key), Err(PairError::Nameless)));
        assert!(matches!(Pair::new(Vec::new(), one.1), Err(PairError::Together(_))));
    }
}
