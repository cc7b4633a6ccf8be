//! Whole ways from browser to tool: ours of one hop and of three, and the article's.
//!
//! The article's front proxy asks Redis for the tool's grid webservice with every request, by Lua; a tool that has none
//! there goes on through `HAProxy`, which looks into nothing, to the ingress. In the place of NGINX-Ingress stands an
//! nginx without its Lua. All of them keep their connections, which the article's front proxy did not towards `HAProxy`:
//! the chain is measured as well as it can be made.
//!
//! Two figures are given: the processor time of a way's processes, and that together with the load's and the backend's,
//! less what these take by themselves, since on loopback a receiver's work is charged to who sends. What else runs on
//! the machine is in neither.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::figures::{ratios, summary};
use crate::listening::free_address;
use crate::load::{self, Protocol, Target};
use crate::peers::{self, Peer, Site};
use crate::{Extent, SIZE, process, target};

/// A way to the backend.
struct Chain {
    name: &'static str,
    /// Where the browser comes to.
    address: SocketAddr,
    parts: Vec<Peer>,
}

/// Measures the ways, all in turn, and prints what came of it.
pub(crate) async fn measure(site: &Site, extent: &Extent) -> anyhow::Result<()> {
    let &Extent { rounds, requests, .. } = extent;
    println!("\nwhole ways to a tool: HTTP/1.1 with TLS, 1 KiB, microseconds of processor time for a request");
    let load = || process::processor_time(std::process::id()).map(Duration::from_nanos);
    let mut chains = vec![Chain::of("hearth, one hop", vec![peers::hearth(site).await?])];
    chains.extend(three_hops(site).await?);
    chains.extend(article(site)?);
    for part in chains.iter().flat_map(|chain| &chain.parts) {
        println!("  {}: {}", part.name, part.version);
    }
    let mut own: Vec<Vec<f64>> = vec![Vec::new(); chains.len()];
    let mut whole = own.clone();
    let mut parts: Vec<Vec<Vec<f64>>> = chains.iter().map(|chain| vec![Vec::new(); chain.parts.len()]).collect();
    for _ in 0..rounds {
        let straight = Target { address: site.backend, roots: None, protocol: Protocol::Http1, size: SIZE };
        let before = load()?;
        load::run(&straight, requests).await?;
        let bare = load()?.saturating_sub(before);
        for (index, chain) in chains.iter().enumerate() {
            let target = target(site, chain.address, Protocol::Http1);
            // Connections are made and pools are filled.
            load::run(&target, requests / 20).await?;
            let (before, loaded) = (chain.processor_times()?, load()?);
            load::run(&target, requests).await?;
            let (after, loaded) = (chain.processor_times()?, load()?.saturating_sub(loaded));
            let each = |time: Duration| time.as_secs_f64() * 1e6 / requests as f64;
            let spent: Vec<Duration> = after.iter().zip(&before).map(|(to, from)| to.saturating_sub(*from)).collect();
            for (part, spent) in parts[index].iter_mut().zip(&spent) {
                part.push(each(*spent));
            }
            let spent: Duration = spent.iter().sum();
            own[index].push(each(spent));
            whole[index].push(each((spent + loaded).saturating_sub(bare)));
        }
    }
    for (index, chain) in chains.iter().enumerate() {
        summary(&format!("{}: its processes", chain.name), &own[index]);
        for (part, values) in chain.parts.iter().zip(&parts[index]).filter(|_| chain.parts.len() > 1) {
            summary(&format!("  of it {}", part.name), values);
        }
        summary(&format!("{}: and the load's, less its own", chain.name), &whole[index]);
    }
    let Some(last) = chains.iter().rposition(|chain| chain.name == ARTICLE) else { return Ok(()) };
    for (index, chain) in chains.iter().enumerate().take(last) {
        summary(&format!("{} / {ARTICLE}: processes", chain.name), &ratios(&own[index], &own[last]));
        summary(&format!("{} / {ARTICLE}: and the load's", chain.name), &ratios(&whole[index], &whole[last]));
    }
    Ok(())
}

const ARTICLE: &str = "the article's chain";

impl Chain {
    /// A way whose first part is the last of these.
    fn of(name: &'static str, parts: Vec<Peer>) -> Self {
        let address = parts.last().map(|part| part.address).expect("a way has a part");
        Self { name, address, parts }
    }

    /// The processor time of each part.
    fn processor_times(&self) -> anyhow::Result<Vec<Duration>> {
        self.parts.iter().map(Peer::processor_time).collect()
    }
}

/// Ours with everything in it that the article's has: front door, `HAProxy`, ingress.
async fn three_hops(site: &Site) -> anyhow::Result<Option<Chain>> {
    let ingress = peers::hearth_ingress(site).await?;
    let Some(balancer) = balancer(site, "haproxy before hearth's ingress", ingress.address)? else { return Ok(None) };
    let front = peers::hearth_through(site, balancer.address).await?;
    Ok(Some(Chain::of("hearth, three hops", vec![ingress, balancer, front])))
}

/// The article's, if all of it is there.
fn article(site: &Site) -> anyhow::Result<Option<Chain>> {
    let root = std::env::var("NGINX_LUA_ROOT").unwrap_or_default();
    let modules = format!("{root}/usr/lib/nginx/modules");
    if !Path::new(&modules).join("ngx_http_lua_module.so").exists() {
        println!("  {ARTICLE} is left out: there is no ngx_http_lua_module.so in {modules}");
        return Ok(None);
    }
    let Some(redis) = redis(site)? else { return Ok(None) };
    let Some(ingress) = ingress(site)? else { return Ok(None) };
    let Some(balancer) = balancer(site, "haproxy before nginx", ingress.address)? else { return Ok(None) };
    let Some(front) = front(site, &root, redis.address, balancer.address)? else { return Ok(None) };
    Ok(Some(Chain::of(ARTICLE, vec![redis, ingress, balancer, front])))
}

/// Redis with the grid webservices of all tools but the one that is asked for.
fn redis(site: &Site) -> anyhow::Result<Option<Peer>> {
    let Some(program) = peers::program("REDIS_PROGRAM", "redis-server") else {
        println!("  {ARTICLE} is left out: there is no redis-server");
        return Ok(None);
    };
    let version = peers::version(Command::new(&program).arg("--version"))?;
    let address = free_address()?;
    let mut command = Command::new(program);
    command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.args(["--dir", &site.file("")]).stdout(Stdio::null()).stderr(Stdio::inherit());
    let peer = Peer::start("redis", version, address, command)?;
    let mut stream = TcpStream::connect(address)?;
    let hosts: Vec<String> = site.other_hosts().collect();
    let tools = hosts.iter().filter_map(|host| host.split('.').next());
    let words: String = tools.map(|tool| format!("HSET prefix:{tool} .* http://127.0.0.1:9\r\n")).collect();
    let mut answers = BufReader::new(stream.try_clone()?);
    stream.write_all(words.as_bytes())?;
    for _ in &hosts {
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        ensure!(answer == ":1\r\n", "redis answers {answer:?}");
    }
    Ok(Some(peer))
}

/// nginx in the place of NGINX-Ingress.
fn ingress(site: &Site) -> anyhow::Result<Option<Peer>> {
    let address = free_address()?;
    let http = format!(
        "{hosts} server {{ listen {address} backlog=4096; server_name _;\n\
         location / {{ proxy_pass http://$backend; {fields} }} }}\n",
        hosts = peers::nginx_hosts(site),
        fields = peers::NGINX_FIELDS,
    );
    peers::start_nginx(site, "nginx as ingress", address, "", &http)
}

/// `HAProxy` as it stands before the ingress: it passes bytes on.
fn balancer(site: &Site, name: &'static str, to: SocketAddr) -> anyhow::Result<Option<Peer>> {
    let address = free_address()?;
    let config = format!(
        "global\n nbthread 2\n maxconn 4096\n log stdout format raw local0\n\
         defaults\n mode tcp\n log global\n option tcplog\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n\
         frontend f\n bind {address}\n default_backend b\nbackend b\n server s {to} maxconn 4096\n"
    );
    peers::start_haproxy(site, name, address, &config)
}

/// nginx with Lua in front of all.
fn front(site: &Site, root: &str, redis: SocketAddr, balancer: SocketAddr) -> anyhow::Result<Option<Peer>> {
    let address = free_address()?;
    let modules = ["ndk_http_module", "ngx_http_lua_module"];
    let head: String =
        modules.iter().map(|module| format!("load_module {root}/usr/lib/nginx/modules/{module}.so;\n")).collect();
    let script = format!(
        "local redis = require \"nginx.redis\"\n\
         local connection = redis:new()\n\
         connection:set_timeout(1000)\n\
         if not connection:connect(\"{host}\", {port}) then return end\n\
         local routes = connection:hgetall(\"prefix:\" .. ngx.var.host:match(\"^[^.]*\"))\n\
         if type(routes) == \"table\" then\n\
         for index = 1, #routes, 2 do\n\
         if ngx.re.find(ngx.var.uri, routes[index]) then ngx.var.backend = routes[index + 1] break end\n\
         end\n\
         end\n\
         connection:set_keepalive(32000, 256)\n",
        host = redis.ip(),
        port = redis.port(),
    );
    let http = format!(
        "lua_package_path \"{root}/usr/share/lua/5.1/?.lua;;\";\n\
         upstream cluster {{ server {balancer}; keepalive 128; keepalive_requests 10000000; }}\n\
         server {{ {tls}\n\
         location / {{ set $backend http://cluster; access_by_lua_block {{\n{script}}}\n\
         proxy_pass $backend; {fields} }} }}\n",
        tls = peers::nginx_tls(site, address),
        fields = peers::NGINX_FIELDS,
    );
    let started = peers::start_nginx(site, "nginx with Lua", address, &head, &http);
    started.context("nginx does not start with Lua; LD_LIBRARY_PATH must lead to its libluajit")
}
