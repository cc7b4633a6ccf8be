//! A real control plane for the tests: etcd and kube-apiserver on loopback, no nodes.
//!
//! One for the whole suite, started by the first test that asks and gone with the process, however that ends. Tests
//! share it, so each works in namespaces of its own. It runs what is under `HEARTH_CACHE`, and never builds it.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hearth_core::account::subject::Subject;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;
use tokio::sync::OnceCell;

/// How long the control plane may take to become ready: it takes about 4 s on an idle machine.
const READY: Duration = Duration::from_secs(120);

/// A running control plane.
pub(crate) struct ControlPlane {
    /// Where the API server listens, as a URL.
    pub(crate) server: String,
    /// A kubeconfig of a member of `system:masters`, also for programs that are started.
    pub(crate) kubeconfig: PathBuf,
    /// The authority of clients' certificates.
    authority: Issuer<'static, KeyPair>,
    /// What keeps each program running: it ends, and its files go, when this process does.
    _keepers: Vec<Child>,
}

/// The control plane of this suite.
pub(crate) async fn control_plane() -> &'static ControlPlane {
    static PLANE: OnceCell<ControlPlane> = OnceCell::const_new();
    PLANE.get_or_init(|| async { start().await.expect("a control plane could not be started") }).await
}

impl ControlPlane {
    /// A client that may do everything. Each test makes its own: a client lives no longer than its test's runtime.
    pub(crate) async fn admin(&self) -> Client {
        self.client(None).await
    }

    /// A client that acts as `user`, a member of `groups` and of `system:authenticated`.
    pub(crate) async fn impersonating(&self, user: &str, groups: &[&str]) -> Client {
        let groups = groups.iter().chain(&["system:authenticated"]).map(|&group| group.to_owned()).collect();
        self.client(Some((user.to_owned(), groups))).await
    }

    /// A client that shows a certificate of its own, as a tool does.
    pub(crate) async fn certified(&self, subject: &Subject) -> Client {
        let mut params = named(&subject.common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        for (index, organization) in subject.organizations.iter().enumerate() {
            // The library keeps one name of a kind; by its number, the same kind counts as another.
            let kind = match index {
                0 => DnType::OrganizationName,
                1 => DnType::CustomDnType(vec![2, 5, 4, 10]),
                _ => panic!("a certificate of the tests has two organisations at most"),
            };
            params.distinguished_name.push(kind, organization.as_str());
        }
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.authority).expect("a certificate can be signed").pem();
        let mut kubeconfig = Kubeconfig::read_from(&self.kubeconfig).expect("the kubeconfig can be read");
        let info = kubeconfig.auth_infos[0].auth_info.get_or_insert_default();
        info.client_certificate_data = Some(STANDARD.encode(certificate));
        info.client_key_data = Some(STANDARD.encode(key.serialize_pem()).into());
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Client::try_from(config.expect("the kubeconfig is complete")).expect("a client can be made")
    }

    async fn client(&self, user: Option<(String, Vec<String>)>) -> Client {
        let mut kubeconfig = Kubeconfig::read_from(&self.kubeconfig).expect("the kubeconfig can be read");
        if let Some((user, groups)) = user {
            let info = kubeconfig.auth_infos[0].auth_info.get_or_insert_default();
            info.impersonate = Some(user);
            info.impersonate_groups = Some(groups);
        }
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Client::try_from(config.expect("the kubeconfig is complete")).expect("a client can be made")
    }

    /// Makes a namespace with these annotations and, as a controller would, its default service account. The name is
    /// the caller's alone; a namespace that is there already is an error.
    pub(crate) async fn namespace(&self, name: &str, annotations: &[(&str, &str)]) -> anyhow::Result<()> {
        let annotations: serde_json::Map<_, _> = annotations.iter().map(|&(k, v)| (k.to_owned(), v.into())).collect();
        let namespace: Namespace = serde_json::from_value(json!({
            "metadata": { "name": name, "annotations": annotations },
        }))?;
        let account: ServiceAccount = serde_json::from_value(json!({
            "metadata": { "name": "default" },
            "automountServiceAccountToken": false,
        }))?;
        let client = self.admin().await;
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        Api::namespaced(client, name).create(&PostParams::default(), &account).await?;
        Ok(())
    }
}

async fn start() -> anyhow::Result<ControlPlane> {
    // The only error is that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cache = std::env::var_os("HEARTH_CACHE").map_or_else(|| PathBuf::from("/var/cache/hearth"), PathBuf::from);
    let program = cache.join("bin/kubernetes");
    ensure!(program.exists(), "{} is not there: `make test` builds it", program.display());
    let root = tempfile::Builder::new().prefix("hearth-control-plane-").tempdir()?.keep();
    let (etcd, api) = (root.join("etcd"), root.join("api"));
    std::fs::create_dir(&etcd)?;
    std::fs::create_dir(&api)?;
    let [client, peer, secure] = free_ports()?;
    let server = format!("https://127.0.0.1:{secure}");
    let (kubeconfig, authority) = write_pki(&api, &server)?;
    let keepers = vec![
        keep(&program, &etcd, "etcd", &etcd_arguments(&etcd, client, peer))?,
        keep(&program, &api, "kube-apiserver", &api_arguments(&api, client, secure))?,
    ];
    let plane = ControlPlane { server, kubeconfig, authority, _keepers: keepers };
    ready(&plane, &api.join("log")).await?;
    Ok(plane)
}

/// Ports that were free a moment ago.
fn free_ports() -> anyhow::Result<[u16; 3]> {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.as_ref().map_err(|error| anyhow::anyhow!("no free port: {error}"))?.local_addr()?.port();
    }
    Ok(ports)
}

fn etcd_arguments(dir: &Path, client: u16, peer: u16) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    vec![
        "--name=tests".to_owned(),
        format!("--data-dir={}", dir.join("data").display()),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=tests={peer}"),
    ]
}

fn api_arguments(dir: &Path, etcd: u16, secure: u16) -> Vec<String> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", dir.join(name).display());
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        format!("--secure-port={secure}"),
        "--bind-address=127.0.0.1".to_owned(),
        // No endpoint of the API server is published, so the address is never used.
        "--advertise-address=192.0.2.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        "--allow-privileged".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        "--profiling=false".to_owned(),
        file("client-ca-file", "ca.crt"),
        file("tls-cert-file", "server.crt"),
        file("tls-private-key-file", "server.key"),
        file("service-account-key-file", "accounts.pub"),
        file("service-account-signing-key-file", "accounts.key"),
    ]
}

/// Starts a program under a shell that waits for this process to end, by a pipe that closes with it, and then kills
/// the program and removes its folder: that happens after a panic too, and after a kill.
fn keep(program: &Path, dir: &Path, name: &str, arguments: &[String]) -> anyhow::Result<Child> {
    use std::os::unix::process::CommandExt;
    let link = dir.join(name);
    std::os::unix::fs::symlink(program, &link)?;
    let log = File::create(dir.join("log"))?;
    let script = "dir=$1; shift; \"$@\" </dev/null & child=$!; cat >/dev/null; kill -KILL $child; wait; \
                  rm -rf \"$dir\"; rmdir \"$(dirname \"$dir\")\" 2>/dev/null";
    Command::new("/bin/sh")
        .args(["-c", script, "keep"])
        .arg(dir)
        .arg(&link)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("failed to start {name}"))
}

/// Waits until the API server says that it is ready.
async fn ready(plane: &ControlPlane, log: &Path) -> anyhow::Result<()> {
    let (client, deadline) = (plane.admin().await, Instant::now() + READY);
    loop {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        match client.request_text(request).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                let text = std::fs::read_to_string(log).unwrap_or_default();
                let last: Vec<&str> = text.lines().rev().take(10).collect();
                bail!("{} is not ready: {error}\n{}", plane.server, last.join("\n"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Writes the authority, the server's certificate, the key of service accounts and an administrator's kubeconfig.
fn write_pki(dir: &Path, server: &str) -> anyhow::Result<(PathBuf, Issuer<'static, KeyPair>)> {
    let mut params = named("kubernetes-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let authority = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);

    let names = ["localhost", "api.hearth.internal", "127.0.0.1"].map(str::to_owned);
    let mut params = CertificateParams::new(names)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    std::fs::write(dir.join("server.crt"), params.signed_by(&key, &issuer)?.pem())?;
    std::fs::write(dir.join("server.key"), key.serialize_pem())?;

    let accounts = KeyPair::generate()?;
    std::fs::write(dir.join("accounts.key"), accounts.serialize_pem())?;
    std::fs::write(dir.join("accounts.pub"), accounts.public_key_pem())?;
    std::fs::write(dir.join("ca.crt"), &authority)?;

    let mut params = named("admin");
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "tests", "cluster": {
            "server": server, "certificate-authority-data": STANDARD.encode(authority),
        }}],
        "users": [{ "name": "admin", "user": {
            "client-certificate-data": STANDARD.encode(certificate),
            "client-key-data": STANDARD.encode(key.serialize_pem()),
        }}],
        "contexts": [{ "name": "tests", "context": { "cluster": "tests", "user": "admin" } }],
        "current-context": "tests",
    });
    let file = dir.join("admin.kubeconfig");
    std::fs::write(&file, serde_json::to_vec_pretty(&kubeconfig)?)?;
    Ok((file, issuer))
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}
