//! The front door that is measured, a visitor, and the pods behind it.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::api::Api;
use crate::listening::{free_address, is_ready};

/// How long the front door may take to be ready.
const READY: Duration = Duration::from_secs(300);

/// What the front door is given.
pub(crate) struct Site {
    folder: PathBuf,
    roots: Arc<rustls::RootCertStore>,
}

/// The front door; it ends with this value.
pub(crate) struct Door {
    https: SocketAddr,
    health: SocketAddr,
    process: Child,
}

/// A visitor with a connection.
pub(crate) struct Client(SendRequest<Empty<Bytes>>);

/// A pod that answers with a word.
pub(crate) async fn backend(word: &'static str) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let service = service_fn(move |_: Request<Incoming>| async move {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(word.as_bytes()))))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(address)
}

impl Site {
    /// Writes certificate and configuration into a folder.
    pub(crate) fn new(folder: &Path) -> anyhow::Result<Self> {
        let pair = rcgen::generate_simple_self_signed(vec!["*.hearth.localhost".to_owned()])?;
        std::fs::write(folder.join("tls.crt"), pair.cert.pem())?;
        std::fs::write(folder.join("tls.key"), pair.signing_key.serialize_pem())?;
        std::fs::write(
            folder.join("platform.toml"),
            "domains = { public = [\"hearth.localhost\"], legacy = \"tools.hearth.localhost\" }\n\
             api = { server = \"https://127.0.0.1:6443\" }\n\
             directory = { url = \"ldaps://ldap\", base = \"dc=hearth\", bind_dn = \"cn=reader\" }\n\
             registry = { host = \"registry.example\" }\n\
             [front_door]\n\
             unlimited_visitors = [\"127.0.0.0/8\"]\n",
        )?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(pair.cert.der().clone())?;
        Ok(Self { folder: folder.to_owned(), roots: Arc::new(roots) })
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

impl Door {
    pub(crate) fn start(site: &Site, api: &Api) -> anyhow::Result<Self> {
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{ "name": "u", "user": {} }],
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://{}", api.address) } }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        });
        std::fs::write(site.file("kubeconfig"), kubeconfig.to_string())?;
        let [https, http, health] = [free_address()?, free_address()?, free_address()?];
        let cache = std::env::var_os("HEARTH_CACHE").map_or_else(|| PathBuf::from("/var/cache/hearth"), PathBuf::from);
        let program = std::env::var_os("HEARTHD").map_or_else(|| cache.join("programs/hearthd"), PathBuf::from);
        let mut command = Command::new(program);
        command.arg("proxy").args([format!("--https={https}"), format!("--http={http}"), format!("--health={health}")]);
        for (flag, name) in [
            ("kubeconfig", "kubeconfig"),
            ("tls-cert", "tls.crt"),
            ("tls-key", "tls.key"),
            ("platform", "platform.toml"),
            ("state", "state"),
        ] {
            command.arg(format!("--{flag}={}", site.file(name)));
        }
        let log = std::fs::File::create(site.file("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self { https, health, process: command.spawn().context("failed to start hearthd")? })
    }

    /// Waits until its table is complete.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        while !is_ready(self.health) {
            ensure!(Instant::now() < deadline, "the front door's table is not complete");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The most memory that it ever had, with what it shares, in MiB.
    pub(crate) fn peak(&self) -> anyhow::Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("there is no VmHWM")?;
        let kib = line.split_whitespace().next().context("VmHWM is empty")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    }

    /// As a crash would.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Client {
    pub(crate) async fn connect(site: &Site, door: &Door) -> anyhow::Result<Self> {
        let deadline = Instant::now() + READY;
        let stream = loop {
            match TcpStream::connect(door.https).await {
                Ok(stream) => break stream,
                Err(error) => ensure!(Instant::now() < deadline, "the front door does not listen: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        stream.set_nodelay(true)?;
        let config = rustls::ClientConfig::builder().with_root_certificates(site.roots.clone()).with_no_client_auth();
        let name = ServerName::try_from("a.hearth.localhost")?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// What a tool answers.
    pub(crate) async fn get(&mut self, tool: &str) -> anyhow::Result<String> {
        self.0.ready().await?;
        let request =
            Request::get("/").header("host", format!("{tool}.hearth.localhost")).header("user-agent", "bench");
        let response = self.0.send_request(request.body(Empty::new())?).await?;
        let body = response.into_body().collect().await?.to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}
