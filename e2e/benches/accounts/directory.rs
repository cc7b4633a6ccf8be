//! Tools in the directory: very many at once, and one whose way into the cluster is timed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use hearth_core::ToolName;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, StdStream};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::instance::Instance;

/// How long a new tool may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes the entries that `hearth tool create` would write, without looking for a free number each time.
pub(crate) async fn load(instance: &Instance, tools: usize) -> anyhow::Result<()> {
    let mut ldap = raw(instance).await?;
    let platform = &instance.platform;
    let (accounts, groups) = (platform.directory.tool_accounts(), platform.directory.tool_groups());
    let person = format!("uid=member1,{}", platform.directory.people());
    for index in 0..tools {
        let name: ToolName = format!("loaded-{index:04}").parse()?;
        let account = name.account(&platform.directory.project);
        let (number, home) =
            ((u32::try_from(index)? + platform.tools.first_uid + 1000).to_string(), platform.homes.of(&name));
        let group = attributes(&[
            ("objectClass", &["groupOfNames", "posixGroup"]),
            ("cn", &[&account]),
            ("gidNumber", &[&number]),
            ("member", &[&person]),
        ]);
        ldap.add(&format!("cn={account},{groups}"), group).await?.success()?;
        let entry = attributes(&[
            ("objectClass", &["account", "posixAccount", "shadowAccount"]),
            ("cn", &[&account]),
            ("uid", &[&account]),
            ("uidNumber", &[&number]),
            ("gidNumber", &[&number]),
            ("homeDirectory", &[&home]),
            ("loginShell", &["/bin/bash"]),
        ]);
        ldap.add(&format!("uid={account},{accounts}"), entry).await?.success()?;
    }
    Ok(ldap.unbind().await?)
}

/// Makes a tool as an operator does, and returns how long that took until its kubeconfig opened the cluster.
pub(crate) async fn add(instance: &Instance, index: usize) -> anyhow::Result<Duration> {
    let name: ToolName = format!("added-{index:03}").parse()?;
    let began = Instant::now();
    instance.hearth(&["tool", "create", name.as_str(), "--maintainer", "member1"])?;
    let file = instance.home.join(format!("data/project/{name}/.kube/config"));
    while began.elapsed() < PATIENCE {
        if let Ok(kubeconfig) = Kubeconfig::read_from(&file) {
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            let pods: Api<Pod> = Api::namespaced(Client::try_from(config)?, &name.namespace());
            if pods.list(&ListParams::default()).await.is_ok() {
                return Ok(began.elapsed());
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    bail!("{name} is not usable after {PATIENCE:?}")
}

fn attributes<'a>(pairs: &[(&'a str, &[&'a str])]) -> Vec<(&'a str, std::collections::HashSet<&'a str>)> {
    pairs.iter().map(|(name, values)| (*name, values.iter().copied().collect())).collect()
}

/// A connection with the right to write, without the crate under measurement.
async fn raw(instance: &Instance) -> anyhow::Result<Ldap> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(instance.home.join("ca.crt"))?)?;
    let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(instance.ldap).await?.into_std()?;
    let settings = LdapConnSettings::new().set_config(Arc::new(tls)).set_std_stream(StdStream::Tcp(stream));
    let directory = &instance.platform.directory;
    let (connection, mut ldap) = LdapConnAsync::with_settings(settings, &directory.url).await?;
    tokio::spawn(connection.drive());
    let password = std::fs::read_to_string(instance.home.join("secrets/directory-admin/password"))?;
    ldap.simple_bind(&format!("cn=admin,{}", directory.base), password.trim_end()).await?.success()?;
    Ok(ldap)
}
