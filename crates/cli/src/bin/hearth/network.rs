//! The nodes' network: a bridge on the host, a network namespace for each node, and one way between them.
//!
//! The host gets a bridge, routes (pods through their nodes, services through the first), one table of its own in
//! nftables, and forwarding between the two. By the table traffic leaves the machine, and nothing comes in from other
//! machines, which could otherwise reach the API and the nodes by way of this one. `down` takes all of it away again.

use anyhow::Context;

use crate::host_command::{Run, ip, ip_succeeds};
use crate::instance::{Instance, Network, Node};
use crate::sysctl;

/// Makes the bridge, the namespace and the routes, each where it is missing.
pub fn up(instance: &Instance) -> anyhow::Result<()> {
    let network = instance.network;
    let bridge = network.bridge();
    if !ip_succeeds(&format!("link show {bridge}")) {
        refuse_overlap(instance)?;
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {}/24 dev {bridge}", network.host()))?;
    }
    ip(&format!("link set {bridge} up"))?;
    // One that is no longer to be there would be answered for by routes that lead nowhere.
    for node in Network::possible_nodes().filter(|node| node.0 > network.nodes) {
        remove(instance, node)?;
    }
    for node in network.all_nodes() {
        join(instance, node)?;
    }
    for address in network.front_doors().skip(1) {
        ip(&format!("addr replace {address}/32 dev {bridge}"))?;
    }
    ip(&format!("route replace {} via {} dev {bridge}", network.pods(), network.node()))?;
    ip(&format!("route replace {} via {} dev {bridge}", network.services(), network.node()))?;
    sysctl::set(instance, "net.ipv4.ip_forward", "1")?;
    let table = format!(
        "table ip {bridge} {{}}\ndelete table ip {bridge}\n\
         table ip {bridge} {{\n\
         chain leaving {{\n\
         type nat hook postrouting priority srcnat; policy accept;\n\
         ip saddr {whole} ip daddr != {whole} masquerade\n\
         }}\n\
         chain entering {{\n\
         type filter hook forward priority filter; policy accept;\n\
         iifname != {{ \"{bridge}\", \"lo\" }} ip daddr {whole} ct state new drop\n\
         }}\n\
         chain reaching {{\n\
         type filter hook input priority filter; policy accept;\n\
         iifname != {{ \"{bridge}\", \"lo\" }} ip daddr {whole} ct state new drop\n\
         }}\n}}\n",
        whole = network.whole()
    );
    Run::new("nft").args(["-f", "-"]).input(table).run().context("failed to let pods reach other machines")
}

/// Makes a node's namespace and the ways to it, each where it is missing.
fn join(instance: &Instance, node: Node) -> anyhow::Result<()> {
    let network = instance.network;
    let (bridge, namespace, device) = (network.bridge(), network.namespace_of(node), network.device_of(node));
    if !std::path::Path::new("/run/netns").join(&namespace).exists() {
        ip(&format!("netns add {namespace}"))?;
    }
    if !ip_succeeds(&format!("link show {device}")) {
        ip(&format!("link add {device} type veth peer name eth0 netns {namespace}"))?;
        ip(&format!("link set {device} master {bridge} up"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        ip(&format!("-n {namespace} addr replace {}/24 dev eth0", network.address_of(node)))?;
        ip(&format!("-n {namespace} link set eth0 up"))?;
        ip(&format!("-n {namespace} route replace default via {}", network.host()))?;
    }
    Run::new("nsenter")
        .args([&format!("--net=/run/netns/{namespace}"), "sysctl", "-qw", "net.ipv4.ip_forward=1"])
        .run()?;
    for other in network.all_nodes().filter(|other| *other != node) {
        ip(&format!("-n {namespace} route replace {} via {}", network.pods_of(other), network.address_of(other)))?;
    }
    if node != Node::FIRST {
        ip(&format!("route replace {} via {} dev {bridge}", network.pods_of(node), network.address_of(node)))?;
    }
    Ok(())
}

/// Takes a node's namespace and the way to it away, where they are.
fn remove(instance: &Instance, node: Node) -> anyhow::Result<()> {
    // The kernel clears a deleted namespace away in its own time. A device that is still to go with it would look to
    // the next `up` as if it were there, so it goes first.
    let (device, namespace) = (instance.network.device_of(node), instance.network.namespace_of(node));
    if ip_succeeds(&format!("link show {device}")) {
        ip(&format!("link delete {device}"))?;
    }
    if std::path::Path::new("/run/netns").join(&namespace).exists() {
        ip(&format!("netns delete {namespace}"))?;
    }
    Ok(())
}

/// Takes the bridge, the namespaces, the routes and the table away.
pub fn down(instance: &Instance) -> anyhow::Result<()> {
    let network = instance.network;
    let bridge = network.bridge();
    for node in Network::possible_nodes() {
        remove(instance, node)?;
    }
    if ip_succeeds(&format!("link show {bridge}")) {
        ip(&format!("link delete {bridge}"))?;
    }
    if Run::new("nft").args(["list", "table", "ip", &bridge]).succeeds() {
        Run::new("nft").args(["delete", "table", "ip", &bridge]).run()?;
    }
    Ok(())
}

/// A further network in the same place would make both unreachable at random.
fn refuse_overlap(instance: &Instance) -> anyhow::Result<()> {
    let part = format!("10.{}.", instance.network.octet);
    let routes = Run::new("ip").args(["-4", "route", "show", "table", "all"]).output()?;
    if let Some(route) = routes.lines().find(|line| line.contains(&part)) {
        anyhow::bail!(
            "this instance's network {} is in use on this machine (`{}`); remove that route, or choose another number in {}",
            instance.network.whole(),
            route.trim(),
            instance.text("instance.json")
        );
    }
    Ok(())
}
