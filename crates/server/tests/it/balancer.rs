//! The balancer with a real HAProxy: nodes come and go under load, and no connection is dropped.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails where its set-up fails")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hearth_core::balancer::{Pace, Settings};
use hearth_server::balancer::{Haproxy, Metrics, keep};
use hearth_server::http_service::{Tls, TlsFiles, serve};
use hearth_server::kubernetes::install_crypto;
use http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::admission_tls::Authority;
use crate::proxy_api::Api;
use crate::proxy_front::soon;

const PROGRAM: &str = "/usr/sbin/haproxy";
const API_NAME: &str = "api.hearth.internal";
const CLIENT: &str = "hearth:balancer";

/// HAProxy binds ports of the configuration, so each test has addresses of its own: the loopback has enough.
#[derive(Clone, Copy)]
struct Net([u8; 2]);

impl Net {
    fn new(test: u8) -> Self {
        let [.., high, low] = std::process::id().to_be_bytes();
        Self([high.wrapping_add(test.wrapping_mul(64)), low])
    }

    fn at(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 100 + self.0[0] % 100, self.0[1], last)
    }

    fn port(self, last: u8, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.at(last)), port)
    }
}

/// An HAProxy that runs in a folder of its own; ended when it is dropped.
struct Running {
    _folder: tempfile::TempDir,
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its workers end with it. How it ended is of no interest.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn start(folder: tempfile::TempDir) -> Running {
    let path = |name: &str| folder.path().join(name);
    let log = std::fs::File::create(path("haproxy.log")).unwrap();
    let mut command = Command::new(PROGRAM);
    command.arg("-W").arg("-S").arg(format!("{},mode,600", path("master.sock").display()));
    command.arg("-f").arg(path("haproxy.cfg"));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let child = command.spawn().expect("Debian's haproxy is installed by `make test`");
    Running { _folder: folder, child }
}

/// The node's ingress: says its name to whoever connects and then echoes; and a probe that says whether it stands.
struct Ingress {
    served: Arc<AtomicUsize>,
    stands: Arc<AtomicBool>,
}

impl Ingress {
    async fn start(net: Net, number: u8) -> Self {
        let (served, stands) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
        let counter = served.clone();
        let listener = TcpListener::bind(net.port(number, 30000)).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let _ = stream.write_all(&[number]).await;
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let asked = stands.clone();
        let probe = async move || match asked.load(Ordering::SeqCst) {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        let listener = TcpListener::bind(net.port(number, 30021)).await.unwrap();
        tokio::spawn(serve(listener, None, Router::new().route("/readyz", get(probe)), std::future::pending()));
        Self { served, stands }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

fn node(net: Net, number: u8, role: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("node{number}"), "labels": {(format!("node-role.kubernetes.io/{role}")): ""}},
        "status": {"addresses": [{"type": "InternalIP", "address": net.at(number)}]}})
}

fn settings(net: Net, folder: &Path, ca: &Path, client: PathBuf) -> Settings {
    let quick = Duration::from_millis(100);
    Settings {
        ingress: vec![net.port(200, 30000)],
        api: vec![net.port(200, 6443)],
        stats: net.port(200, 8404),
        folder: folder.display().to_string(),
        api_name: API_NAME.to_owned(),
        api_ca: ca.display().to_string(),
        api_client: Some(client.display().to_string()),
        user: None,
        pace: Pace { up: quick, down: quick, slow_start: quick },
    }
}

/// A connection: which node took it, and whether it echoes.
async fn connect(at: SocketAddr) -> std::io::Result<(u8, TcpStream)> {
    let mut stream = TcpStream::connect(at).await?;
    let number = stream.read_u8().await?;
    Ok((number, stream))
}

async fn echoes(stream: &mut TcpStream) -> bool {
    let mut back = [0; 4];
    soon(async { stream.write_all(b"echo").await.is_ok() && stream.read_exact(&mut back).await.is_ok() }).await
        && &back == b"echo"
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

/// People who come all the time, until they are told that it is done; and how many came.
fn visit(front: SocketAddr) -> (Arc<AtomicBool>, Arc<AtomicUsize>, Vec<JoinHandle<()>>) {
    let (done, came) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let visitors = (0..4)
        .map(|_| {
            let (done, came) = (done.clone(), came.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let (_, mut stream) = soon(connect(front)).await.expect("a connection was refused");
                    assert!(echoes(&mut stream).await, "a connection was dropped");
                    came.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    (done, came, visitors)
}

/// A cluster's API, a balancer that follows it, and an HAProxy.
struct Balanced {
    api: Api,
    metrics: Arc<Metrics>,
    haproxy: Running,
    net: Net,
}

impl Balanced {
    async fn start(test: u8, nodes: &[(u8, &str)]) -> Self {
        install_crypto();
        let (net, folder, authority) = (Net::new(test), tempfile::tempdir().unwrap(), Authority::new("cluster"));
        let put = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        let (server, client) = (authority.issue(&[API_NAME]), authority.issue(&[CLIENT]));
        let ca = put("ca.crt", &authority.pem);
        let haproxy = Haproxy::new(PROGRAM.into(), folder.path().to_owned());
        let (cert, key) = (put("client.crt", &client.cert), put("client.key", &client.key));
        let client = haproxy.client_certificate(&cert, &key).unwrap();
        let settings = settings(net, folder.path(), &ca, client);
        // An API server that says how it is to clients of the cluster alone.
        let files = TlsFiles {
            tls_cert: put("api.crt", &server.cert),
            tls_key: put("api.key", &server.key),
            client_ca: Some(ca),
            client_name: Some(CLIENT.to_owned()),
        };
        let listener = TcpListener::bind(net.port(1, 6443)).await.unwrap();
        let healthz = Router::new().route("/healthz", get(async || "ok"));
        tokio::spawn(serve(listener, Some(Tls::from(files)), healthz, std::future::pending()));

        let api = Api::start().await;
        for (number, role) in nodes {
            api.put("nodes", node(net, *number, role)).await;
        }
        let metrics = Metrics::new();
        tokio::spawn(keep(api.client(), haproxy.clone(), settings, metrics.clone()));
        let file = haproxy.file();
        until("a first configuration is there", async || file.exists()).await;
        Self { api, metrics, haproxy: start(folder), net }
    }

    fn front(&self) -> SocketAddr {
        self.net.port(200, 30000)
    }

    /// What HAProxy says of a server: `UP`, `DOWN` and the like.
    async fn status(&self, backend: &str, node: &str) -> String {
        let said = async {
            let mut stream = TcpStream::connect(self.net.port(200, 8404)).await?;
            stream.write_all(b"GET /stats;csv HTTP/1.0\r\n\r\n").await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            std::io::Result::Ok(text)
        };
        let text = soon(said).await.unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(&format!("{backend},{node},")));
        line.and_then(|line| line.split(',').nth(17)).unwrap_or_default().to_owned()
    }

    /// The third node takes the place of the second, and the second that of the third.
    async fn changes(&self, three: &Ingress) {
        let before = three.served();
        self.api.put("nodes", node(self.net, 13, "ingress")).await;
        until("a new node is asked", async || three.served() > before).await;
        self.api.delete("nodes", "node12").await;
        until("a node that went is not asked", async || self.status("k8s-ingress", "node12").await.is_empty()).await;
        assert_eq!(self.status("k8s-ingress", "node13").await.split(' ').next(), Some("UP"));
        self.api.put("nodes", node(self.net, 12, "ingress")).await;
        self.api.delete("nodes", "node13").await;
        until("the first two again", async || {
            !self.status("k8s-ingress", "node12").await.is_empty()
                && self.status("k8s-ingress", "node13").await.is_empty()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_come_and_go_and_no_connection_is_dropped() {
    let net = Net::new(0);
    let (one, two) = (Ingress::start(net, 11).await, Ingress::start(net, 12).await);
    let three = Ingress::start(net, 13).await;
    let balanced = Balanced::start(0, &[(11, "ingress"), (12, "ingress"), (1, "control-plane")]).await;
    let front = balanced.front();
    until("both nodes are asked", async || connect(front).await.is_ok() && one.served() > 0 && two.served() > 0).await;
    assert_eq!(three.served(), 0);

    // One that lasts on each node, and people who come all the time.
    let mut lasting = Vec::new();
    for number in [11, 12] {
        let found = async {
            loop {
                let (at, stream) = connect(front).await.unwrap();
                if at == number {
                    return stream;
                }
            }
        };
        lasting.push(soon(found).await);
    }
    let (done, came, visitors) = visit(front);

    for _ in 0..3 {
        balanced.changes(&three).await;
        for stream in &mut lasting {
            assert!(echoes(stream).await, "what was open lives on, also on a node that went");
        }
    }
    done.store(true, Ordering::Relaxed);
    for visitor in visitors {
        soon(visitor).await.unwrap();
    }
    assert!(came.load(Ordering::Relaxed) > 100, "{came:?} connections");
    assert!(balanced.metrics.applied.get() >= 4 && balanced.metrics.failed.get() == 0);

    // All nodes gone at once is a mistake of somebody's: the ways lead where they did.
    let applied = balanced.metrics.applied.get();
    balanced.api.put("nodes", node(balanced.net, 11, "worker")).await;
    balanced.api.delete("nodes", "node12").await;
    balanced.api.delete("nodes", "node1").await;
    balanced.api.put("nodes", node(balanced.net, 13, "ingress")).await;
    until("a later change is in use", async || balanced.metrics.applied.get() > applied).await;
    until("the ingress of the new node is asked", async || {
        balanced.status("k8s-ingress", "node13").await.starts_with("UP")
    })
    .await;
    assert!(balanced.status("k8s-api", "node1").await.starts_with("UP"));
    drop(balanced.haproxy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_accepts_and_does_not_work_is_not_asked() {
    let net = Net::new(1);
    let (one, two) = (Ingress::start(net, 11).await, Ingress::start(net, 12).await);
    // Somebody accepts connections at this node's port 6443 and is no API server.
    let nobody = TcpListener::bind(net.port(2, 6443)).await.unwrap();
    tokio::spawn(async move { while nobody.accept().await.is_ok() {} });
    let nodes = [(11, "ingress"), (12, "ingress"), (1, "control-plane"), (2, "control-plane")];
    let balanced = Balanced::start(1, &nodes).await;
    let is = async |backend: &str, node: &str, status: &str| {
        until(&format!("{node} of {backend} is {status}"), async || {
            balanced.status(backend, node).await.starts_with(status)
        })
        .await;
    };
    is("k8s-api", "node2", "DOWN").await;
    is("k8s-api", "node1", "UP").await;
    is("k8s-ingress", "node12", "UP").await;
    two.stands.store(false, Ordering::SeqCst);
    is("k8s-ingress", "node12", "DOWN").await;
    let before = two.served();
    for _ in 0..10 {
        assert_eq!(soon(connect(balanced.front())).await.unwrap().0, 11);
    }
    assert_eq!(two.served(), before);
    // A new configuration knows which are down.
    balanced.api.put("nodes", node(balanced.net, 13, "ingress")).await;
    until("the third is there", async || !balanced.status("k8s-ingress", "node13").await.is_empty()).await;
    assert!(balanced.status("k8s-ingress", "node12").await.starts_with("DOWN"));
    two.stands.store(true, Ordering::SeqCst);
    is("k8s-ingress", "node12", "UP").await;
    assert!(one.served() > 0);
}

#[tokio::test]
async fn a_configuration_with_a_fault_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let haproxy = Haproxy::new(PROGRAM.into(), folder.path().to_owned());
    haproxy.begin("# the first\n").unwrap();
    haproxy.begin("# another\n").unwrap();
    let error = haproxy.apply("frontend without an end\n").await.unwrap_err().to_string();
    assert!(error.contains("HAProxy finds fault with"), "{error}");
    assert_eq!(std::fs::read_to_string(haproxy.file()).unwrap(), "# the first\n");
}
