//! The platform's own webhook, as a process of its own beside the control plane: `hearthd admission`, for a test or a
//! measurement. It runs what is under `HEARTH_CACHE`, or what `HEARTHD` names, and never builds it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;

/// How long the role may take to be ready.
const READY: Duration = Duration::from_secs(60);

/// The common name of the only client that a guarded webhook answers.
const CLIENT: &str = "kube-apiserver";

/// A webhook that runs. It ends with this value.
pub(crate) struct Role {
    command: Command,
    /// The process.
    pub(crate) child: Child,
    health: SocketAddr,
    /// Where it takes reviews.
    pub(crate) address: SocketAddr,
    /// The folder of its files: `ca.crt`, and the client's `client.crt` and `client.key`.
    pub(crate) folder: tempfile::TempDir,
}

impl Role {
    /// Starts one for the control plane's namespaces and waits until it is ready. A guarded one answers only who shows
    /// the client's certificate, which the control plane's API server does not.
    pub(crate) fn start(plane: &ControlPlane, platform: &str, guarded: bool) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        write_pki(folder.path())?;
        std::fs::write(folder.path().join("platform.toml"), platform)?;
        let [address, health] = free_addresses()?;
        let mut command = Command::new(program()?);
        let file = |flag: &str, name: &str| format!("--{flag}={}", folder.path().join(name).display());
        command
            .arg("admission")
            .arg(format!("--kubeconfig={}", plane.kubeconfig.display()))
            .arg(format!("--listen={address}"))
            .arg(format!("--health={health}"))
            .args([file("platform", "platform.toml"), file("tls-cert", "server.crt"), file("tls-key", "server.key")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if guarded {
            command.arg(file("client-ca", "ca.crt")).arg(format!("--client-name={CLIENT}"));
        }
        let child = command.spawn().context("failed to start hearthd")?;
        let mut role = Self { command, child, health, address, folder };
        role.wait()?;
        Ok(role)
    }

    /// How the API server finds it.
    pub(crate) fn client_config(&self) -> anyhow::Result<Value> {
        let authority = std::fs::read(self.folder.path().join("ca.crt"))?;
        Ok(json!({ "url": format!("https://{}/review", self.address), "caBundle": STANDARD.encode(authority) }))
    }

    /// Ends it as a lost node would: at once.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again at the same place, and returns how long it took until it was ready.
    pub(crate) fn start_again(&mut self) -> anyhow::Result<Duration> {
        self.kill();
        let began = Instant::now();
        self.child = self.command.spawn().context("failed to start hearthd")?;
        self.wait()?;
        Ok(began.elapsed())
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        while !is_ready(self.health) {
            ensure!(self.child.try_wait()?.is_none(), "hearthd has ended; its arguments: {:?}", self.command);
            ensure!(Instant::now() < deadline, "hearthd is not ready");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program() -> anyhow::Result<PathBuf> {
    let cache = std::env::var_os("HEARTH_CACHE").map_or_else(|| PathBuf::from("/var/cache/hearth"), PathBuf::from);
    let program = std::env::var_os("HEARTHD").map_or_else(|| cache.join("programs/hearthd"), PathBuf::from);
    ensure!(program.exists(), "{} is not there: `make test` builds it", program.display());
    Ok(program)
}

/// Addresses that were free a moment ago.
fn free_addresses() -> anyhow::Result<[SocketAddr; 2]> {
    let (one, other) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok([one.local_addr()?, other.local_addr()?])
}

fn is_ready(health: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(health)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: hearthd\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    ask().is_ok_and(|text| text.starts_with("HTTP/1.1 200 "))
}

fn write_pki(folder: &std::path::Path) -> anyhow::Result<()> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "webhook-ca");
    params.is_ca = rcgen::IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    std::fs::write(folder.join("ca.crt"), params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    for (name, common_name) in [("server", "admission"), ("client", CLIENT)] {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate()?;
        std::fs::write(folder.join(format!("{name}.crt")), params.signed_by(&key, &issuer)?.pem())?;
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}
