//! Opening a connection: TLS with the platform's authority alone, then a bind.
//!
//! The name in the URL is what the certificate is verified against; where the connection goes to may be given
//! apart, because on one machine nothing outside the cluster resolves the directory's name.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hearth_core::Platform;
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, StdStream};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::timeout;

use crate::session::Directory;

/// How long connecting may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one answer may take.
pub(crate) const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);

const RESULT_INVALID_CREDENTIALS: u32 = 49;

/// Where the directory is and who asks.
#[derive(Clone, Debug)]
pub struct Connection {
    /// `ldaps://host[:port]`, or `ldap://host[:port]`, which is upgraded by `StartTLS` before anything is said.
    pub url: String,
    /// The authority, in PEM, that signed the directory's certificate; no other is trusted.
    pub ca_file: PathBuf,
    /// Who asks, as a distinguished name.
    pub bind_dn: String,
    /// A file with that name's password. It is read at each connect, so that a changed one is taken up.
    pub password_file: PathBuf,
    /// The installation: where entries are and which numbers and names are allowed.
    pub platform: Platform,
    /// Where to connect to; `None` resolves the name in the URL.
    pub connect_address: Option<SocketAddr>,
}

impl Connection {
    /// The role's connection to the directory that `platform` names, with a reader's password.
    pub fn of_role(platform: &Platform, ca_file: &Path, password_file: &Path) -> Self {
        Self {
            url: platform.directory.url.clone(),
            ca_file: ca_file.to_owned(),
            bind_dn: platform.directory.bind_dn.clone(),
            password_file: password_file.to_owned(),
            platform: platform.clone(),
            connect_address: None,
        }
    }

    /// Connects and binds.
    pub async fn connect(&self) -> Result<Directory> {
        let password = std::fs::read_to_string(&self.password_file)
            .with_context(|| format!("cannot read the directory's password from {}", self.password_file.display()))?;
        let password = password.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            // A bind without a password succeeds as nobody, and nobody sees an empty directory.
            bail!("the password file {} is empty", self.password_file.display());
        }
        let opened = timeout(CONNECT_TIMEOUT, self.open()).await;
        let mut ldap = opened
            .map_err(|_| anyhow::anyhow!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))
            .and_then(|opened| opened)
            .with_context(|| format!("cannot connect to the directory at {}", self.place()))?;
        let bound = ldap.with_timeout(OPERATION_TIMEOUT).simple_bind(&self.bind_dn, password).await;
        let bound = bound.with_context(|| format!("the directory at {} does not answer", self.place()))?;
        if bound.rc == RESULT_INVALID_CREDENTIALS {
            bail!(
                "the directory at {} refuses '{}' with the password in {}",
                self.place(),
                self.bind_dn,
                self.password_file.display()
            );
        }
        bound.success().with_context(|| format!("the directory at {} refuses '{}'", self.place(), self.bind_dn))?;
        Ok(Directory::new(ldap, self))
    }

    async fn open(&self) -> Result<Ldap> {
        let tls = tls_config(&self.ca_file)?;
        let starttls = self.url.starts_with("ldap://");
        if !starttls && !self.url.starts_with("ldaps://") {
            bail!("the URL starts with neither ldaps:// nor ldap://");
        }
        let mut settings = LdapConnSettings::new().set_config(tls).set_starttls(starttls);
        if let Some(address) = self.connect_address {
            let stream = tokio::net::TcpStream::connect(address).await?;
            settings = settings.set_std_stream(StdStream::Tcp(stream.into_std()?));
        }
        let (connection, ldap) = LdapConnAsync::with_settings(settings, &self.url).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.drive().await {
                tracing::debug!(error = %error, "the connection to the directory ended");
            }
        });
        Ok(ldap)
    }

    fn place(&self) -> String {
        match self.connect_address {
            Some(address) => format!("{} (at {address})", self.url),
            None => self.url.clone(),
        }
    }
}

fn tls_config(ca_file: &Path) -> Result<Arc<rustls::ClientConfig>> {
    let read = || format!("cannot read the certificate authority {}", ca_file.display());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).with_context(read)? {
        roots.add(certificate.with_context(read)?).with_context(read)?;
    }
    if roots.is_empty() {
        bail!("there is no certificate in {}", ca_file.display());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
