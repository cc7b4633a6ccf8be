//! What HAProxy is told: from the cluster's nodes to its configuration, as a text.
//!
//! Two ways lead through it: to the ingress on the nodes that are labelled for it, and to the API servers on the nodes of
//! the control plane. Which nodes there are, the cluster says; which of them work, HAProxy finds out by asking them over
//! HTTP. A node whose kubelet is silent therefore stays: when the control plane loses sight of all nodes at once, they
//! serve on.
//!
//! It never runs anything and never reads the cluster.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;

/// The label of the nodes that run the ingress. Kubelets may not set it.
pub const INGRESS_NODE: &str = "node-role.kubernetes.io/ingress";

/// The label of the nodes that run API servers.
pub const CONTROL_PLANE_NODE: &str = "node-role.kubernetes.io/control-plane";

/// The node port of the ingress, and that on which it says whether it stands.
const INGRESS_PORT: u16 = 30000;
const PROBE_PORT: u16 = 30021;

/// The port of the API servers.
const API_PORT: u16 = 6443;

/// The most connections to the ingress of one node, which are the original's since its visitors became many.
const INGRESS_CONNECTIONS: usize = 1000;

/// A node, as far as HAProxy needs it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where it is reached.
    pub address: IpAddr,
}

/// The nodes behind each of the two ways, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Those that run the ingress.
    pub ingress: Vec<Member>,
    /// Those that run API servers.
    pub api: Vec<Member>,
}

/// What differs between installations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the front door comes to.
    pub ingress: Vec<SocketAddr>,
    /// Where clients of the API come to; never an address that visitors can reach.
    pub api: Vec<SocketAddr>,
    /// Where `/stats` and `/metrics` are.
    pub stats: SocketAddr,
    /// The folder of its sockets and of what it remembers of its servers.
    pub folder: String,
    /// The name in the API servers' certificate.
    pub api_name: String,
    /// The authority of that certificate, a file.
    pub api_ca: String,
    /// With what it asks them how they are, a file of certificate and key; nothing where they tell anybody.
    pub api_client: Option<String>,
    /// As whom it runs, where that is not whoever starts it.
    pub user: Option<String>,
    /// How often a server is asked.
    pub pace: Pace,
}

/// How often servers are asked, and how they come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two questions to one that works.
    pub up: Duration,
    /// Between two questions to one that does not.
    pub down: Duration,
    /// How long one that came back is spared its full share.
    pub slow_start: Duration,
}

impl Default for Pace {
    /// The original's.
    fn default() -> Self {
        Self { up: Duration::from_secs(10), down: Duration::from_secs(5), slow_start: Duration::from_secs(60) }
    }
}

impl Members {
    /// The members among these nodes.
    pub fn of<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Self {
        let mut members = Self::default();
        for node in nodes {
            let Some(member) = member(node) else { continue };
            let has = |label| node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(label));
            if has(INGRESS_NODE) {
                members.ingress.push(member.clone());
            }
            if has(CONTROL_PLANE_NODE) {
                members.api.push(member);
            }
        }
        members.ingress.sort();
        members.api.sort();
        members
    }

    /// Itself; but a way that would lead to no node any more leads where it did. A cluster without nodes is more likely a
    /// mistake than meant, and HAProxy finds out by itself when nobody is there.
    pub fn or_else(mut self, before: Self) -> Self {
        if self.ingress.is_empty() {
            self.ingress = before.ingress;
        }
        if self.api.is_empty() {
            self.api = before.api;
        }
        self
    }

    /// The configuration of HAProxy for these.
    pub fn configuration(&self, settings: &Settings) -> String {
        let mut text = head(settings);
        let own = INGRESS_CONNECTIONS * self.ingress.len().max(1);
        way(&mut text, "k8s-ingress", &settings.ingress, Some(own));
        text.push_str(
            "    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host probe hdr Connection close\n    http-check expect status 200\n",
        );
        for Member { name, address } in &self.ingress {
            let at = SocketAddr::new(*address, INGRESS_PORT);
            line(
                &mut text,
                format_args!("    server {name} {at} check port {PROBE_PORT} maxconn {INGRESS_CONNECTIONS}"),
            );
        }
        way(&mut text, "k8s-api", &settings.api, None);
        let name = &settings.api_name;
        line(
            &mut text,
            format_args!(
                "    http-check send meth GET uri /healthz ver HTTP/1.1 hdr Host {name} hdr Connection close\n    http-check expect status 200"
            ),
        );
        let client = settings.api_client.as_ref().map(|file| format!(" crt {file}")).unwrap_or_default();
        let ca = &settings.api_ca;
        for Member { name: node, address } in &self.api {
            let at = SocketAddr::new(*address, API_PORT);
            line(
                &mut text,
                format_args!(
                    "    server {node} {at} check check-ssl check-sni {name} verify required verifyhost {name} ca-file {ca}{client}"
                ),
            );
        }
        line(
            &mut text,
            format_args!(
                "\nfrontend stats\n    mode http\n    bind {}\n    timeout client 10s\n    stats enable\n    stats uri /stats\n    \
                 http-request use-service prometheus-exporter if {{ path /metrics }}",
                settings.stats
            ),
        );
        text
    }
}

fn member(node: &Node) -> Option<Member> {
    let name = node.metadata.name.clone()?;
    // A node's name is a DNS name, so it holds nothing that HAProxy would read as something else.
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || !name.chars().all(plain) || node.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let mut addresses = node.status.as_ref()?.addresses.iter().flatten();
    let address = addresses.find(|address| address.type_ == "InternalIP")?.address.parse().ok()?;
    Some(Member { name, address })
}

fn head(settings: &Settings) -> String {
    let Settings { folder, user, pace, .. } = settings;
    let user = user.as_ref().map(|user| format!("    user {user}\n    group {user}\n")).unwrap_or_default();
    let [up, down, slow] = [pace.up, pace.down, pace.slow_start].map(|time| time.as_millis());
    // Whether one that failed once works is asked sooner.
    let fast = up.min(1000);
    format!(
        "# Written by `hearthd balancer` from the cluster's nodes; what is changed here is overwritten.\n\
         global\n    \
         log stdout format raw local0 notice\n    \
         stats socket {folder}/haproxy.sock mode 600 level admin expose-fd listeners\n    \
         server-state-file {folder}/servers\n    \
         hard-stop-after 1h\n\
         {user}\n\
         defaults\n    \
         log global\n    \
         mode tcp\n    \
         balance roundrobin\n    \
         option redispatch 1\n    \
         retries 3\n    \
         timeout connect 5s\n    \
         timeout check 2s\n    \
         timeout queue 50s\n    \
         timeout client 1h\n    \
         timeout server 1h\n    \
         load-server-state-from-file global\n    \
         default-server inter {up}ms fastinter {fast}ms downinter {down}ms rise 2 fall 2 slowstart {slow}ms maxconn 250 maxqueue 256 weight 100 on-marked-down shutdown-sessions\n"
    )
}

fn way(text: &mut String, name: &str, addresses: &[SocketAddr], connections: Option<usize>) {
    line(text, format_args!("\nfrontend {name}"));
    for address in addresses {
        line(text, format_args!("    bind {address}"));
    }
    if let Some(most) = connections {
        line(text, format_args!("    maxconn {most}"));
    }
    line(text, format_args!("    default_backend {name}\n\nbackend {name}\n    option httpchk"));
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, address: &str, roles: &[&str]) -> Node {
        let labels: serde_json::Map<String, Value> =
            roles.iter().map(|role| (format!("node-role.kubernetes.io/{role}"), json!(""))).collect();
        let addresses = json!([{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]);
        let object = json!({"metadata": {"name": name, "labels": labels}, "status": {"addresses": addresses}});
        serde_json::from_value(object).unwrap()
    }

    fn settings() -> Settings {
        Settings {
            ingress: vec!["10.0.0.1:30000".parse().unwrap()],
            api: vec!["10.0.0.1:6443".parse().unwrap()],
            stats: "127.0.0.1:8404".parse().unwrap(),
            folder: "/var/lib/hearth/balancer".to_owned(),
            api_name: "api.hearth.internal".to_owned(),
            api_ca: "/etc/hearth/ca.crt".to_owned(),
            api_client: Some("/var/lib/hearth/balancer/client.pem".to_owned()),
            user: Some("haproxy".to_owned()),
            pace: Pace::default(),
        }
    }

    #[test]
    fn the_configuration_is_the_nodes() {
        let nodes = [
            node("node3", "10.0.0.13", &["ingress"]),
            node("node1", "10.0.0.11", &["control-plane"]),
            node("node2", "10.0.0.12", &["ingress", "control-plane"]),
            node("node4", "10.0.0.14", &["worker"]),
        ];
        let text = Members::of(&nodes).configuration(&settings());
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/haproxy.cfg");
        if std::env::var_os("ACCEPT").is_some() {
            std::fs::write(golden, &text).unwrap();
        }
        let expected = std::fs::read_to_string(golden).unwrap_or_default();
        assert!(text == expected, "{golden} differs; with ACCEPT=1 the test writes it anew:\n{text}");
    }

    #[test]
    fn a_node_that_is_not_one_is_no_member() {
        let mut ends = node("ends", "10.0.0.1", &["ingress"]);
        ends.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-11-25T00:00:00Z")).unwrap());
        let nodes = [
            ends,
            node("Bad name", "10.0.0.2", &["ingress"]),
            node("nowhere", "elsewhere", &["ingress"]),
            node("good.example", "fd00::1", &["ingress"]),
        ];
        let members = Members::of(&nodes);
        assert_eq!(members.ingress.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(), ["good.example"]);
        assert!(members.configuration(&settings()).contains("server good.example [fd00::1]:30000 check port 30021"));
    }

    #[test]
    fn the_last_node_of_a_way_is_not_taken_away() {
        let before = Members::of(&[node("a", "10.0.0.1", &["ingress", "control-plane"])]);
        let after = Members::of(&[node("b", "10.0.0.2", &["control-plane"])]);
        let kept = after.clone().or_else(before.clone());
        assert_eq!((kept.ingress, kept.api), (before.ingress, after.api));
    }
}
