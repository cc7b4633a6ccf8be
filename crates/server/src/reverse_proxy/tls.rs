//! The front door's certificate, read from its files and read again when they change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How often the files are looked at.
const RELOAD: Duration = Duration::from_secs(10);

/// What new connections are greeted with.
pub type Tls = Arc<ArcSwap<ServerConfig>>;

/// The files of the certificate.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Reads the files.
pub fn read(files: &Files) -> anyhow::Result<Tls> {
    Ok(Arc::new(ArcSwap::from_pointee(load(files)?)))
}

/// Reads the files again whenever one of them holds something else, for ever. Files that cannot be used leave the last
/// good certificate in use; the certificate and the key of two different moments do not fit, so that is tried again.
pub async fn keep_current(files: Files, tls: Tls) {
    let mut last = contents(&files).await;
    loop {
        tokio::time::sleep(RELOAD).await;
        let now = contents(&files).await;
        if now == last {
            continue;
        }
        match load(&files) {
            Ok(config) => {
                tls.store(Arc::new(config));
                tracing::info!(file = %files.certificate.display(), "a new certificate is in use");
                last = now;
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the new certificate is not usable"),
        }
    }
}

/// A configuration for HTTP/2 and HTTP/1.1, TLS 1.2 and 1.3.
pub fn configuration(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    crate::kubernetes::install_crypto();
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

async fn contents(files: &Files) -> Option<(Vec<u8>, Vec<u8>)> {
    Some((tokio::fs::read(&files.certificate).await.ok()?, tokio::fs::read(&files.key).await.ok()?))
}

fn load(files: &Files) -> anyhow::Result<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("failed to read the certificate {}", files.certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("failed to read the key {}", files.key.display()))?;
    configuration(chain, key)
        .with_context(|| format!("{} and {} do not belong together", files.certificate.display(), files.key.display()))
}
