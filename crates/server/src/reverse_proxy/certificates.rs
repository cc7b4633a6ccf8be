//! Where the front door's certificates come from: files and Secrets of the type `kubernetes.io/tls`, both followed.
//!
//! A replacement is used within seconds of its coming. One that cannot be used is told of and counted, and leaves the
//! last good one in use; so does a file or a Secret that is gone. Of a Secret a copy is kept on disk, for a proxy that
//! starts while the API server is away.

use std::fmt;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, watcher};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::Notify;

use super::tls::{Pair, Tls};
use crate::clock;

/// How often files are looked at.
pub const EVERY: Duration = Duration::from_secs(10);

/// The files of a certificate.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// A Secret with a certificate: `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretName {
    namespace: String,
    name: String,
}

/// A text names no Secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not NAMESPACE/NAME")]
pub struct SecretNameError(String);

/// Where certificates come from; the first that is there is shown to whoever says no name.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Files.
    pub files: Vec<Files>,
    /// How often these are looked at.
    pub every: Duration,
    /// Secrets.
    pub secrets: Vec<SecretName>,
    /// Where copies of these are kept.
    pub copies: PathBuf,
}

/// What is counted of certificates. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct CertificateMetrics {
    expiry: Family<CertificateLabel, Gauge>,
    failures: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabel {
    certificate: String,
}

/// The certificates of all sources, as they were last good.
struct Keeper {
    slots: Mutex<Vec<Slot>>,
    tls: Mutex<Option<Tls>>,
    filled: Notify,
    metrics: CertificateMetrics,
}

/// A certificate and its key, as they are in the files.
type Contents = (Vec<u8>, Vec<u8>);

struct Slot {
    source: String,
    pair: Option<Arc<Pair>>,
}

/// Reads all certificates and follows them for ever. Waits where there is none yet: for the first Secret.
///
/// # Errors
/// No source is named, or a file cannot be used.
pub async fn follow(sources: Sources, client: &kube::Client, metrics: CertificateMetrics) -> anyhow::Result<Tls> {
    let Sources { files, every, secrets, copies } = sources;
    ensure!(!files.is_empty() || !secrets.is_empty(), "no certificate is named: use --tls-cert or --tls-secret");
    let of_files = files.len();
    let sources = files.iter().map(|files| files.certificate.display().to_string());
    let sources = sources.chain(secrets.iter().map(SecretName::to_string));
    let keeper = Arc::new(Keeper {
        slots: Mutex::new(sources.map(|source| Slot { source, pair: None }).collect()),
        tls: Mutex::default(),
        filled: Notify::new(),
        metrics,
    });
    for (slot, files) in files.into_iter().enumerate() {
        let contents = files.contents().await?;
        let read = pair(&contents.0, &contents.1);
        keeper.fill(slot, read.with_context(|| format!("failed to use {}", files.certificate.display()))?);
        tokio::spawn(follow_files(keeper.clone(), slot, files, contents, every));
    }
    for (slot, secret) in (of_files..).zip(&secrets) {
        let copy = copies.join(secret.file());
        if let Ok(text) = std::fs::read(&copy) {
            keeper.offer(slot, pair(&text, &text), || ());
        }
        tokio::spawn(follow_secret(keeper.clone(), slot, client.clone(), secret.clone(), copy));
    }
    loop {
        let filled = keeper.filled.notified();
        if let Some(tls) = keeper.tls.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(tls);
        }
        tracing::info!("the front door waits for a certificate");
        filled.await;
    }
}

/// Reads files again whenever one of them holds something else. The certificate and the key of two different moments do
/// not fit, so what is not good is tried again.
async fn follow_files(keeper: Arc<Keeper>, slot: usize, files: Files, mut last: Contents, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        match files.contents().await {
            Ok(now) if now == last => (),
            Ok(now) => {
                let read = pair(&now.0, &now.1);
                keeper.offer(slot, read, || last = now);
            }
            Err(error) => keeper.offer(slot, Err(error), || ()),
        }
    }
}

/// Takes what the Secret holds, now and whenever it holds something else.
async fn follow_secret(keeper: Arc<Keeper>, slot: usize, client: kube::Client, secret: SecretName, copy: PathBuf) {
    // The rights are for this name alone; the API server grants them to a watch that asks for no other.
    let only = Config::default().fields(&format!("metadata.name={}", secret.name));
    let api: Api<Secret> = Api::namespaced(client, &secret.namespace);
    let mut found = std::pin::pin!(watcher(api, only).default_backoff().applied_objects());
    let mut last = None;
    while let Some(found) = found.next().await {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%secret, %error, "the certificate is not heard of");
                continue;
            }
        };
        let data = found.data.unwrap_or_default();
        let part = |key: &str| data.get(key).map(|value| value.0.as_slice());
        let (Some(certificate), Some(key)) = (part("tls.crt"), part("tls.key")) else {
            keeper.offer(slot, Err(anyhow::anyhow!("tls.crt or tls.key is missing")), || ());
            continue;
        };
        let now = Some((certificate.to_vec(), key.to_vec()));
        // Listed again, or changed in what is none of ours.
        if last == now {
            continue;
        }
        keeper.offer(slot, pair(certificate, key), || {
            last = now;
            if let Err(error) = keep(&copy, &[certificate, key]) {
                tracing::warn!(%secret, error = format!("{error:#}"), "no copy of the certificate is kept");
            }
        });
    }
}

/// Keeps a certificate and its key in one file, which only we can read.
fn keep(copy: &Path, parts: &[&[u8]]) -> anyhow::Result<()> {
    let folder = copy.parent().context("no folder is named")?;
    std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let new = copy.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&new).with_context(|| format!("failed to write {}", new.display()))?;
    file.write_all(&parts.join(&b'\n')).with_context(|| format!("failed to write {}", new.display()))?;
    std::fs::rename(&new, copy).with_context(|| format!("failed to write {}", copy.display()))
}

fn pair(certificate: &[u8], key: &[u8]) -> anyhow::Result<Pair> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.context("the certificate is not PEM")?;
    ensure!(!chain.is_empty(), "there is no certificate in PEM");
    let key = PrivateKeyDer::from_pem_slice(key).context("the key is not PEM")?;
    Ok(Pair::new(chain, key)?)
}

// === impl Keeper ===

impl Keeper {
    /// Uses what a source has now, if it is any good; calls `taken` then.
    fn offer(&self, slot: usize, read: anyhow::Result<Pair>, taken: impl FnOnce()) {
        let (source, expires) = self.at(slot);
        let now = clock::now().as_second();
        let read = read.and_then(|pair| {
            let is_worse = pair.expires() <= now && expires.is_some_and(|expires| expires > now);
            ensure!(!is_worse, "it has expired, and the one in use has not");
            Ok(pair)
        });
        match read {
            Ok(pair) => {
                self.fill(slot, pair);
                tracing::info!(source, "a new certificate is in use");
                taken();
            }
            Err(error) => {
                self.metrics.failures.inc();
                tracing::warn!(source, error = format!("{error:#}"), "the new certificate is not usable");
            }
        }
    }

    fn at(&self, slot: usize) -> (String, Option<i64>) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.get(slot);
        let expires = slot.and_then(|slot| slot.pair.as_ref()).map(|pair| pair.expires());
        (slot.map(|slot| slot.source.clone()).unwrap_or_default(), expires)
    }

    fn fill(&self, slot: usize, pair: Pair) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get_mut(slot) {
            let label = CertificateLabel { certificate: slot.source.clone() };
            self.metrics.expiry.get_or_create(&label).set(pair.expires());
            slot.pair = Some(Arc::new(pair));
        }
        let pairs: Vec<Arc<Pair>> = slots.iter().filter_map(|slot| slot.pair.clone()).collect();
        let Some((first, others)) = pairs.split_first() else { return };
        let mut tls = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        match tls.as_ref() {
            Some(tls) => tls.replace(first.clone(), others),
            None => {
                *tls = Some(Tls::new(first.clone(), others));
                self.filled.notify_waiters();
            }
        }
    }
}

// === impl Files ===

impl Files {
    async fn contents(&self) -> anyhow::Result<Contents> {
        let read = async |file: &Path| {
            tokio::fs::read(file).await.with_context(|| format!("failed to read {}", file.display()))
        };
        Ok((read(&self.certificate).await?, read(&self.key).await?))
    }
}

// === impl SecretName ===

impl SecretName {
    /// The file of its copy: neither name has a dot or a slash that could lead elsewhere.
    fn file(&self) -> String {
        format!("{}_{}.pem", self.namespace, self.name)
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for SecretName {
    type Err = SecretNameError;

    fn from_str(text: &str) -> Result<Self, SecretNameError> {
        let is_name = |name: &str| {
            let is_known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
            !name.is_empty() && !name.starts_with('.') && name.len() <= 253 && name.bytes().all(is_known)
        };
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(SecretNameError(text.to_owned())),
        }
    }
}

// === impl CertificateMetrics ===

impl CertificateMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "The last moment for which a certificate in use is good, since 1970",
            Unit::Seconds,
            self.expiry.clone(),
        );
        let text = "Certificates that were to be used and could not be";
        registry.register("certificate_failures", text, self.failures.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_named_with_their_namespace() {
        let name: SecretName = "hearth-system/front-door.tls".parse().unwrap();
        assert_eq!(name.to_string(), "hearth-system/front-door.tls");
        for bad in ["", "a", "a/", "/a", "a/b/c", "../a", "a/..", "A/b", "a/b_c"] {
            assert!(bad.parse::<SecretName>().is_err(), "{bad}");
        }
    }
}
