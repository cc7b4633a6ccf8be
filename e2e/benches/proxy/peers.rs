//! The proxies that are measured, each set up for the same work.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, control_plane};
use crate::listening::{free_address, is_ready};
use crate::load::HOST;
use crate::process;

/// How many hosts there are to choose from.
const HOSTS: usize = 3_000;

/// The names in the certificates of the two that speak to each other inside.
const INGRESS: &str = "ingress.hearth.internal";
const FRONT_PROXY: &str = "front-proxy.hearth.internal";

/// How long a proxy may take to be ready.
const READY: Duration = Duration::from_secs(60);

/// What all of them are set up with.
pub(crate) struct Site {
    folder: PathBuf,
    pub(crate) backend: SocketAddr,
    pub(crate) roots: Arc<rustls::RootCertStore>,
}

/// A proxy that runs; it ends with this value.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    pub(crate) address: SocketAddr,
    process: Child,
}

impl Site {
    /// Writes what all need into a folder.
    pub(crate) fn new(folder: &Path, backend: SocketAddr) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "bench-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        std::fs::write(folder.join("ca.crt"), params.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(params, key);
        for (file, name) in [("tls", "*.hearth.localhost"), ("ingress", INGRESS), ("front", FRONT_PROXY)] {
            let (mut params, key) = (CertificateParams::new(vec![name.to_owned()])?, KeyPair::generate()?);
            params.distinguished_name.push(DnType::CommonName, name);
            let (certificate, key) = (params.signed_by(&key, &issuer)?.pem(), key.serialize_pem());
            std::fs::write(folder.join(format!("{file}.pem")), format!("{certificate}{key}"))?;
            std::fs::write(folder.join(format!("{file}.crt")), certificate)?;
            std::fs::write(folder.join(format!("{file}.key")), key)?;
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(folder.join("ca.crt"))?)?;
        Ok(Self { folder: folder.to_owned(), backend, roots: Arc::new(roots) })
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// The hosts that lead elsewhere than to the backend.
    pub(crate) fn other_hosts(&self) -> impl Iterator<Item = String> {
        (1..HOSTS).map(|index| format!("t{index}.hearth.localhost"))
    }
}

impl Peer {
    pub(crate) fn start(
        name: &'static str,
        version: String,
        address: SocketAddr,
        mut command: Command,
    ) -> anyhow::Result<Self> {
        let process = command.stdin(Stdio::null()).spawn().with_context(|| format!("failed to start {name}"))?;
        let mut peer = Self { name, version, address, process };
        let deadline = Instant::now() + READY;
        while std::net::TcpStream::connect(address).is_err() {
            ensure!(peer.process.try_wait()?.is_none(), "{name} has ended at once");
            ensure!(Instant::now() < deadline, "{name} is not ready");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(peer)
    }

    /// The processor time of its processes.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        Ok(Duration::from_nanos(self.processes()?.into_iter().map(process::processor_time).sum::<anyhow::Result<_>>()?))
    }

    /// The memory of its processes (PSS), in KiB.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        Ok(self.processes()?.into_iter().map(process::memory).sum::<anyhow::Result<f64>>()? * 1024.0)
    }

    /// It and its children.
    fn processes(&self) -> anyhow::Result<Vec<u32>> {
        let parent = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        let mut processes = vec![parent];
        for child in children.split_whitespace() {
            processes.push(child.parse()?);
        }
        Ok(processes)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Told to end, one that has workers ends them too.
        let id = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw);
        let asked = id.is_some_and(|id| rustix::process::kill_process(id, rustix::process::Signal::TERM).is_ok());
        if !asked {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// The front door, which dials pods itself. It has its routes from a real API server, as [`routes`] has made them.
pub(crate) async fn hearth(site: &Site) -> anyhow::Result<Peer> {
    front_door(site, "hearth", "direct", "").await
}

/// The front door whose way begins at this balancer.
pub(crate) async fn hearth_through(site: &Site, balancer: SocketAddr) -> anyhow::Result<Peer> {
    let way = format!("path = \"ingress\"\nbalancers = [\"{balancer}\"]\n");
    front_door(site, "hearth's front door", "through", &way).await
}

/// The ingress, which serves nobody but the front door.
pub(crate) async fn hearth_ingress(site: &Site) -> anyhow::Result<Peer> {
    let (listen, probe, health) = (free_address()?, free_address()?, free_address()?);
    let (version, mut command) = hearthd(site, "ingress", "ingress", "ingress", "").await?;
    command.args([format!("--listen={listen}"), format!("--probe={probe}"), format!("--health={health}")]);
    command.args([format!("--client-ca={}", site.file("ca.crt")), format!("--client-name={FRONT_PROXY}")]);
    routed(Peer::start("hearth's ingress", version, listen, command)?, health).await
}

/// A front door with files of its own, by the name of these.
async fn front_door(site: &Site, name: &'static str, files: &str, way: &str) -> anyhow::Result<Peer> {
    let (https, http, health) = (free_address()?, free_address()?, free_address()?);
    let (version, mut command) = hearthd(site, "proxy", files, "tls", way).await?;
    command.args([format!("--https={https}"), format!("--http={http}"), format!("--health={health}")]);
    command.arg(format!("--state={}", site.file(&format!("{files}.state"))));
    for (flag, file) in [("ca", "ca.crt"), ("cert", "front.crt"), ("key", "front.key")] {
        command.arg(format!("--ingress-{flag}={}", site.file(file)));
    }
    routed(Peer::start(name, version, https, command)?, health).await
}

/// Our program in a role, with its version.
async fn hearthd(
    site: &Site,
    role: &str,
    files: &str,
    certificate: &str,
    way: &str,
) -> anyhow::Result<(String, Command)> {
    let platform = site.file(&format!("{files}.toml"));
    std::fs::write(
        &platform,
        format!(
            "domains = {{ public = [\"hearth.localhost\"], legacy = \"tools.hearth.localhost\" }}\n\
             api = {{ server = \"https://127.0.0.1:6443\" }}\n\
             directory = {{ url = \"ldaps://ldap\", base = \"dc=hearth\", bind_dn = \"cn=reader\" }}\n\
             registry = {{ host = \"registry.example\" }}\n\
             [front_door]\n{way}visitor_connections = 100000\n\
             visitor = {{ per_second = 10000000, burst = 10000000, at_once = 100000 }}\n\
             tool = {{ per_second = 10000000, burst = 10000000, at_once = 100000 }}\n"
        ),
    )?;
    let cache = std::env::var_os("HEARTH_CACHE").map_or_else(|| PathBuf::from("/var/cache/hearth"), PathBuf::from);
    let program = std::env::var_os("HEARTHD").map_or_else(|| cache.join("programs/hearthd"), PathBuf::from);
    let version = version(Command::new(&program).arg("--version"))?;
    let mut command = Command::new(program);
    command.arg(role).arg(format!("--platform={platform}"));
    command.arg(format!("--kubeconfig={}", control_plane().await.kubeconfig.display()));
    for (flag, end) in [("cert", "crt"), ("key", "key")] {
        command.arg(format!("--tls-{flag}={}", site.file(&format!("{certificate}.{end}"))));
    }
    command.stdout(std::fs::File::create(site.file(&format!("{files}.log")))?).stderr(Stdio::null());
    Ok((version, command))
}

/// Waits until a role of ours has its routes.
async fn routed(peer: Peer, health: SocketAddr) -> anyhow::Result<Peer> {
    let deadline = Instant::now() + READY;
    while !is_ready(health) {
        ensure!(Instant::now() < deadline, "the table of {} is not complete", peer.name);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(peer)
}

/// nginx, if it is there.
pub(crate) fn nginx(site: &Site) -> anyhow::Result<Option<Peer>> {
    let address = free_address()?;
    let http = format!(
        "limit_req_zone $binary_remote_addr zone=rate:10m rate=1000000r/s; limit_conn_zone $binary_remote_addr zone=open:10m;\n\
         {hosts}\
         server {{ {tls}\n\
         location / {{ limit_req zone=rate burst=100000 nodelay; limit_conn open 60000;\n\
         proxy_pass http://$backend; {fields} }} }}\n",
        hosts = nginx_hosts(site),
        tls = nginx_tls(site, address),
        fields = NGINX_FIELDS,
    );
    start_nginx(site, "nginx", address, "", &http)
}

/// How nginx passes a request on.
pub(crate) const NGINX_FIELDS: &str = "proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
     proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Forwarded-Proto https;";

/// nginx's hosts: a variable that says where the host that was asked for leads.
pub(crate) fn nginx_hosts(site: &Site) -> String {
    let hosts: String = site.other_hosts().map(|host| format!("{host} other;\n")).collect();
    format!(
        "map_hash_max_size 8192; map_hash_bucket_size 128; map $host $backend {{ default none;\n{hosts}{HOST} a; }}\n\
         upstream a {{ server {backend}; keepalive 128; keepalive_requests 10000000; }}\n\
         upstream other {{ server 127.0.0.1:9; }} upstream none {{ server 127.0.0.1:9; }}\n",
        backend = site.backend
    )
}

/// How a server of nginx listens for browsers.
pub(crate) fn nginx_tls(site: &Site, address: SocketAddr) -> String {
    let (certificate, key) = (site.file("tls.crt"), site.file("tls.key"));
    format!(
        "listen {address} ssl http2 backlog=4096; server_name _; ssl_certificate {certificate}; ssl_certificate_key {key};\n\
         ssl_protocols TLSv1.2 TLSv1.3;"
    )
}

/// Starts nginx, if it is there: `head` stands first in its file, and `http` in that section.
pub(crate) fn start_nginx(
    site: &Site,
    name: &'static str,
    address: SocketAddr,
    head: &str,
    http: &str,
) -> anyhow::Result<Option<Peer>> {
    let Some(program) = program("NGINX_PROGRAM", "nginx") else {
        println!("  {name} is left out: there is no nginx");
        return Ok(None);
    };
    let file = |end: &str| site.file(&format!("{}.{end}", name.replace(' ', "-")));
    let config = format!(
        "{head}daemon off; worker_processes 2; pid {pid}; error_log {errors} crit;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
         client_body_temp_path {tmp}; proxy_temp_path {tmp}; fastcgi_temp_path {tmp}; uwsgi_temp_path {tmp}; scgi_temp_path {tmp};\n\
         log_format json escape=json '{{\"host\":\"$host\",\"path\":\"$uri\",\"status\":$status,\"bytes\":$bytes_sent,\"time\":$request_time}}';\n\
         access_log {log} json buffer=64k flush=1s; keepalive_requests 10000000; http2_max_concurrent_streams 128;\n\
         {http} }}\n",
        pid = file("pid"),
        errors = file("errors"),
        tmp = file("tmp"),
        log = file("log"),
    );
    std::fs::write(file("conf"), config)?;
    let version = version(Command::new(&program).arg("-v"))?;
    let mut command = Command::new(program);
    command.args(["-c", &file("conf")]).stdout(Stdio::null()).stderr(Stdio::inherit());
    Peer::start(name, version, address, command).map(Some)
}

/// `HAProxy`, if it is there.
pub(crate) fn haproxy(site: &Site) -> anyhow::Result<Option<Peer>> {
    let (address, backend) = (free_address()?, site.backend);
    let hosts: String = site.other_hosts().map(|host| format!("{host} other\n")).collect();
    std::fs::write(site.file("haproxy.map"), format!("{hosts}{HOST} a\n"))?;
    let (map, both) = (site.file("haproxy.map"), site.file("tls.pem"));
    let config = format!(
        "global\n nbthread 2\n maxconn 4096\n log stdout format raw local0\n ssl-default-bind-options ssl-min-ver TLSv1.2\n\
         defaults\n mode http\n log global\n option httplog\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
         frontend f\n bind {address} ssl crt {both} alpn h2,http/1.1\n\
         stick-table type ip size 100k expire 30s store http_req_rate(1s),conn_cur\n http-request track-sc0 src\n\
         http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 100000000 }}\n\
         http-request set-header X-Forwarded-Proto https\n\
         use_backend %[req.hdr(host),lower,map({map},none)]\n\
         backend a\n http-reuse always\n server s {backend} maxconn 4096\n\
         backend other\n server s 127.0.0.1:9\nbackend none\n server s 127.0.0.1:9\n"
    );
    start_haproxy(site, "haproxy", address, &config)
}

/// Starts `HAProxy`, if it is there, with this configuration.
pub(crate) fn start_haproxy(
    site: &Site,
    name: &'static str,
    address: SocketAddr,
    config: &str,
) -> anyhow::Result<Option<Peer>> {
    let Some(program) = program("HAPROXY_PROGRAM", "haproxy") else {
        println!("  {name} is left out: there is no haproxy");
        return Ok(None);
    };
    let file = |end: &str| site.file(&format!("{}.{end}", name.replace(' ', "-")));
    std::fs::write(file("cfg"), config)?;
    let version = version(Command::new(&program).arg("-v"))?;
    let mut command = Command::new(program);
    command.args(["-db", "-f", &file("cfg")]).stdout(std::fs::File::create(file("log"))?).stderr(Stdio::inherit());
    Peer::start(name, version, address, command).map(Some)
}

/// Makes the tools' routes: one to the backend, and as many others as there are hosts.
pub(crate) async fn routes(site: &Site) -> anyhow::Result<()> {
    let plane = control_plane().await;
    let others = (1..HOSTS).map(|index| format!("t{index}"));
    // Namespaces are dear; the hosts of a tool are as many routes as those of many tools would be.
    plane.namespace("tool-a", &[]).await?;
    create(
        plane,
        "v1",
        "Service",
        json!({ "metadata": { "name": "a" }, "spec": { "ports": [{ "name": "http", "port": 8000 }] } }),
    )
    .await?;
    let slice = json!({
        "metadata": { "name": "a-1", "labels": {
            "kubernetes.io/service-name": "a",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        }},
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": site.backend.port(), "protocol": "TCP" }],
        "endpoints": [{ "addresses": [site.backend.ip()], "conditions": { "ready": true } }],
    });
    create(plane, "discovery.k8s.io/v1", "EndpointSlice", slice).await?;
    let path = json!({ "path": "/", "pathType": "Prefix", "backend": { "service": { "name": "a", "port": { "number": 8000 } } } });
    let ingress = json!({
        "metadata": { "name": "a" },
        "spec": { "ingressClassName": "hearth", "rules": [{ "host": HOST, "http": { "paths": [path] } }] },
    });
    create(plane, "networking.k8s.io/v1", "Ingress", ingress).await?;
    // What the others are matters to the table's size alone: a namespace makes a tool known.
    let mut names = others.collect::<Vec<_>>();
    let client = plane.admin().await;
    while !names.is_empty() {
        let some: Vec<String> = names.drain(..names.len().min(16)).collect();
        let made = some.into_iter().map(|name| {
            let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
            async move {
                let object = serde_json::from_value(json!({ "metadata": { "name": format!("tool-{name}") } }))?;
                anyhow::Ok(api.create(&PostParams::default(), &object).await?)
            }
        });
        futures::future::try_join_all(made).await?;
    }
    Ok(())
}

async fn create(plane: &ControlPlane, version: &str, kind: &str, object: Value) -> anyhow::Result<()> {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = Api::namespaced_with(plane.admin().await, "tool-a", &resource);
    let made = api.create(&PostParams::default(), &serde_json::from_value(object)?).await;
    made.map(drop).with_context(|| format!("failed to make the {kind}"))
}

/// A program by a variable's word, or on the PATH.
pub(crate) fn program(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(program) = std::env::var_os(variable) {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.exists())
}

pub(crate) fn version(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("failed to run {command:?}"))?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}
