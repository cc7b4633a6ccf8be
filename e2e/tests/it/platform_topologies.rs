//! The three topologies of the front door, on an instance of three nodes of its own: through HAProxy and the cluster's
//! ingress, straight to pods, and two front doors that share the load of either. And what cannot be reached.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::platform::{Answer, DOMAIN, Platform, SOON, eventually, said, url};

/// Where this instance lives: a network that none chooses by itself, and the addresses of its two front doors.
const HOME: &str = "/var/lib/hearth-topologies";
const OCTET: u8 = 76;
const DOORS: [&str; 2] = ["127.0.54.1", "127.0.54.2"];

/// The same front doors on the nodes' network, where they say what they did.
const INSIDE: [&str; 2] = ["10.76.0.1", "10.76.0.251"];

/// The nodes with an ingress.
const INGRESSES: [&str; 2] = ["10.76.0.3", "10.76.0.4"];

/// How long HAProxy may take to find out that a node is gone: 10 s to the next question, 2 for no answer, and 3 more for
/// the second.
const GONE: &str = "40";

/// How long the API server is away: well past the age at which no address of a pod is dialled any more. With
/// `SOAK_MINUTES`, whatever it says, ten minutes.
fn absence() -> Duration {
    Duration::from_secs(if std::env::var_os("SOAK_MINUTES").is_some() { 600 } else { 45 })
}

/// Writes what an operator would have: two front doors, three nodes, and the way from one to pods.
fn configure(platform: &Platform, path: &str) {
    std::fs::create_dir_all(&platform.home).unwrap();
    let size = format!("{{\"octet\":{OCTET},\"nodes\":3,\"proxies\":2}}");
    std::fs::write(platform.path("instance.json"), size).unwrap();
    let text = format!(
        "[domains]\npublic = [\"{DOMAIN}\"]\nlegacy = \"tools.{DOMAIN}\"\n\
         [api]\nserver = \"https://10.{OCTET}.0.2:6443\"\n\
         [directory]\nurl = \"ldaps://ldap.hearth.internal\"\nbase = \"dc=hearth,dc=internal\"\n\
         bind_dn = \"cn=reader,dc=hearth,dc=internal\"\n\
         [registry]\nhost = \"registry.hearth.internal\"\n\
         [front_door]\npath = \"{path}\"\nbalancers = [\"10.{OCTET}.0.1:30000\"]\n\
         unlimited_visitors = [\"127.0.0.0/8\"]\n"
    );
    std::fs::write(platform.path("platform.toml"), text).unwrap();
}

fn curl(arguments: &[&str]) -> crate::platform::Said {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--connect-timeout", "5"]).args(arguments);
    said(curl, "")
}

/// Asks for a tool at one of these front doors, or the next where one refuses: as a browser does with a name that has
/// several addresses.
fn ask(platform: &Platform, doors: &[&str], tool: &str) -> Result<Answer, String> {
    let resolve = format!("{tool}.{DOMAIN}:443:{}", doors.join(","));
    let ca = platform.path("ca.crt");
    let said = curl(&[
        "--cacert",
        &ca,
        "--resolve",
        &resolve,
        "--max-time",
        GONE,
        "--write-out",
        "\n%{http_code}",
        &url(tool),
    ]);
    let (body, status) = said.out.rsplit_once('\n').unwrap_or_default();
    match status.parse() {
        Ok(status) if said.code == Some(0) => Ok(Answer { status, location: String::new(), body: body.to_owned() }),
        _ => Err(format!("{said:?}")),
    }
}

#[track_caller]
fn serves(platform: &Platform, doors: &[&str]) {
    let answer = ask(platform, doors, "hello").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// How many requests for the first tool were answered well, by metrics.
fn requests(metrics: &str, prefix: &str) -> u64 {
    let of = format!("{prefix}_requests_total{{tool=\"hello\",class=\"2xx\"}}");
    metrics.lines().find_map(|line| line.strip_prefix(&of)?.trim().parse().ok()).unwrap_or(0)
}

/// How many requests a front door answered.
fn of_door(door: &str) -> u64 {
    requests(&curl(&[&format!("http://{door}:9100/metrics")]).success("a front door's metrics").out, "hearth_proxy")
}

/// How many requests all copies of the ingress answered.
fn of_ingresses(platform: &Platform) -> u64 {
    let names = ["-n", "hearth-system", "get", "pods", "-l", "app.kubernetes.io/name=ingress", "-o", "name"];
    let pods = platform.admin(&names).success("the ingress's pods").out;
    let counted = pods.lines().filter_map(|line| line.strip_prefix("pod/")).map(|pod| {
        let at = format!("/api/v1/namespaces/hearth-system/pods/{pod}:9100/proxy/metrics");
        requests(&platform.admin(&["get", "--raw", &at]).out, "hearth_ingress")
    });
    counted.sum()
}

fn pid(platform: &Platform, component: &str) -> String {
    let file = std::fs::read_to_string(platform.path(&format!("run/{component}.pid"))).unwrap();
    file.split(' ').next().unwrap().to_owned()
}

fn signal(signal: &str, pid: &str) -> crate::platform::Said {
    let mut kill = Command::new("kill");
    kill.args([signal, pid]);
    said(kill, "")
}

/// Both front doors serve, and each counts what came to it.
fn doors_share(platform: &Platform) {
    let before = INSIDE.map(of_door);
    for _ in 0..4 {
        for door in DOORS {
            serves(platform, &[door]);
        }
    }
    for (door, before) in INSIDE.into_iter().zip(before) {
        assert!(of_door(door) >= before + 4, "{door} answered its share");
    }
    // One of the two ends, and is back in a moment: nobody who has both addresses notices.
    let pid = pid(platform, "proxy");
    signal("-KILL", &pid).success("a front door is killed");
    eventually(SOON, "it has ended", || match std::fs::exists(format!("/proc/{pid}")) {
        Ok(false) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    for _ in 0..9 {
        serves(platform, &DOORS);
    }
    eventually(SOON, "the first is back", || ask(platform, &DOORS[..1], "hello"));
}

/// Nobody but the front door is answered by the ingress, and no word of others is believed.
fn nobody_else_is_believed() {
    for node in INGRESSES {
        let at = format!("https://{node}:30000/");
        let host = format!("Host: hello.{DOMAIN}");
        let forged = curl(&["--insecure", "--header", &host, "--header", "X-Forwarded-Proto: https", &at]);
        assert!(forged.code != Some(0) && forged.out.is_empty(), "{forged:?}");
        let probe = format!("http://{node}:30021");
        assert_eq!(curl(&[&format!("{probe}/readyz")]).success("the probe").out, "ready\n");
        let more = curl(&["--write-out", "%{http_code}", &format!("{probe}/metrics")]);
        assert_eq!(more.out, "404", "the probe serves nothing else");
    }
}

/// A machine that has this one as its way to everywhere, as a neighbour in the network might.
struct Neighbour;

impl Neighbour {
    const NAME: &str = "hearth76out";

    fn new() -> Self {
        let neighbour = Self;
        for words in [
            "netns add hearth76out",
            "link add hearth76o type veth peer name eth0 netns hearth76out",
            "addr add 198.18.76.1/30 dev hearth76o",
            "link set hearth76o up",
            "-n hearth76out addr add 198.18.76.2/30 dev eth0",
            "-n hearth76out link set eth0 up",
            "-n hearth76out route add default via 198.18.76.1",
        ] {
            said(ip(words), "").success(words);
        }
        neighbour
    }

    fn reaches(&self, url: &str) -> bool {
        let mut curl = Command::new("ip");
        curl.args(["netns", "exec", Self::NAME, "curl", "--silent", "--insecure", "--max-time", "1", url]);
        // 7, 28 and the like: there was no connection. What answers, also with an error of TLS, is reached.
        !matches!(said(curl, "").code, Some(7 | 28))
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        said(ip("link delete hearth76o"), "");
        said(ip("netns delete hearth76out"), "");
    }
}

fn ip(words: &str) -> Command {
    let mut ip = Command::new("ip");
    ip.args(words.split(' '));
    ip
}

/// The API is where clients of the cluster come to it, through HAProxy too, and nowhere else.
fn the_api_is_not_reachable_from_outside(platform: &Platform) {
    let [inside, _] = INSIDE;
    let server = format!("https://{inside}:6443");
    let through = ["--server", &server, "--tls-server-name", "api.hearth.internal", "get", "--raw", "/readyz"];
    assert_eq!(platform.admin(&through).success("the API through HAProxy").out, "ok");
    // All addresses of this machine but the instance's own, those of the front doors among them.
    let addresses = said(
        {
            let mut hostname = Command::new("hostname");
            hostname.arg("-I");
            hostname
        },
        "",
    )
    .out;
    let own = format!("10.{OCTET}.");
    let outside = addresses.split_whitespace().filter(|address| !address.starts_with(&own) && !address.contains(':'));
    for address in outside.chain(DOORS) {
        let refused = curl(&["--insecure", &format!("https://{address}:6443/readyz")]);
        assert_eq!(refused.code, Some(7), "{address}: {refused:?}");
    }
    // Nor by way of this machine, which forwards for its pods.
    let neighbour = Neighbour::new();
    let own = std::net::TcpListener::bind("198.18.76.1:0").unwrap();
    let here = format!("http://{}/", own.local_addr().unwrap());
    let accepted = std::thread::spawn(move || own.accept().map(drop));
    assert!(neighbour.reaches(&here), "a neighbour reaches this machine itself");
    accepted.join().unwrap().unwrap();
    for (what, url) in [
        ("the API server", format!("https://10.{OCTET}.0.2:6443/readyz")),
        ("HAProxy's way to it", format!("https://{inside}:6443/readyz")),
        ("its service", format!("https://10.{OCTET}.128.1/readyz")),
        ("an ingress", format!("https://{}:30000/", INGRESSES[0])),
        ("a front door's metrics", format!("http://{inside}:9100/metrics")),
    ] {
        assert!(!neighbour.reaches(&url), "a neighbour reaches {what}");
    }
}

/// A node with an ingress is drained while people come, and then loses its power.
fn a_node_goes(platform: &Platform) {
    let drain = ["drain", "node3", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s"];
    let draining = {
        let mut kubectl = Command::new(platform.cache.join("bin/kubectl"));
        kubectl.args(["--kubeconfig", &platform.path("admin.kubeconfig")]).args(drain);
        std::thread::spawn(move || said(kubectl, ""))
    };
    while !draining.is_finished() {
        serves(platform, &DOORS);
    }
    draining.join().unwrap().success("kubectl drain");
    said(ip("link set hearthv76n3 down"), "").success("the node's cable is cut");
    // So many at once that some are on a connection to that node, or would be.
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| serves(platform, &DOORS));
        }
    });
    said(ip("link set hearthv76n3 up"), "").success("the node is back");
    platform.admin(&["uncordon", "node3"]).success("kubectl uncordon");
}

/// A process that stands still, until this is dropped.
struct Still(String);

impl Still {
    fn new(platform: &Platform, component: &str) -> Self {
        let pid = pid(platform, component);
        signal("-STOP", &pid).success("it stands still");
        Self(pid)
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}

/// The API server says nothing for long. What goes straight to pods goes through the ingress once the table is too old,
/// and back when there is news; nobody notices.
fn the_api_is_away(platform: &Platform) {
    let before = of_ingresses(platform);
    let api = Still::new(platform, "kube-apiserver");
    let (begun, mut answered) = (Instant::now(), 0);
    while begun.elapsed() < absence() {
        for door in DOORS {
            serves(platform, &[door]);
            answered += 1;
        }
    }
    drop(api);
    eventually(SOON, "the API server is back", || match platform.admin(&["get", "--raw", "/readyz"]).out.as_str() {
        "ok" => Ok(()),
        other => Err(other.to_owned()),
    });
    let through = of_ingresses(platform) - before;
    assert!(through > 0 && through < answered, "{through} of {answered} came through the ingress");
    eventually(SOON, "they go straight again", || {
        let before = of_ingresses(platform);
        DOORS.iter().for_each(|door| serves(platform, &[door]));
        let through = of_ingresses(platform) - before;
        if through == 0 { Ok(()) } else { Err(format!("{through} came through the ingress")) }
    });
}

#[test]
fn three_topologies_serve_on_three_nodes() {
    let platform = Platform::at(HOME, DOORS[0]);
    platform.purge();
    let _keeper = platform.keep();
    configure(&platform, "ingress");
    platform.up();
    let nodes = platform.admin(&["get", "nodes", "--no-headers"]).success("the nodes").out;
    assert_eq!(nodes.lines().filter(|line| line.contains(" Ready ")).count(), 3, "{nodes}");
    // One pod of the first tool on each node, so that its pages cross the nodes' network.
    platform.kubectl("hello", &["scale", "deployment", "hello", "--replicas=3"], "").success("three pods");
    let ready = ["-n", "tool-hello", "rollout", "status", "deployment/hello", "--timeout=60s"];
    platform.admin(&ready).success("three pods are ready");

    // Proxy, HAProxy, node port, ingress.
    let before = of_ingresses(&platform);
    doors_share(&platform);
    assert!(of_ingresses(&platform) >= before + 17, "all of it came through the ingress");
    nobody_else_is_believed();
    the_api_is_not_reachable_from_outside(&platform);
    a_node_goes(&platform);

    // Straight to pods.
    configure(&platform, "direct");
    platform.up();
    let before = of_ingresses(&platform);
    doors_share(&platform);
    assert_eq!(of_ingresses(&platform), before, "nothing of it came through the ingress");
    the_api_is_away(&platform);

    // `down` leaves nothing of any node behind.
    platform.hearth(&["down"]).says(0, &["Hearth is down"]);
    let left = said(ip("-o link show"), "").out + &said(ip("netns list"), "").out;
    assert!(!left.contains("hearth76") && !left.contains("hearthv76"), "{left}");
    platform.purge();
}
