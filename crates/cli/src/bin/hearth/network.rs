//! The node's network: a bridge on the host, a network namespace for the node, and one way between them.
//!
//! The host gets a bridge, two routes (pods and services, through the node), one table of its own in nftables for
//! traffic that leaves the machine, and forwarding between the two. `down` takes all of it away again.

use anyhow::Context;

use crate::host_command::{Run, ip, ip_succeeds};
use crate::instance::Instance;
use crate::sysctl;

/// Makes the bridge, the namespace and the routes, each where it is missing.
pub fn up(instance: &Instance) -> anyhow::Result<()> {
    let network = instance.network;
    let (bridge, namespace, octet) = (network.bridge(), network.namespace(), network.octet);
    if !ip_succeeds(&format!("link show {bridge}")) {
        refuse_overlap(instance)?;
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {}/24 dev {bridge}", network.host()))?;
    }
    ip(&format!("link set {bridge} up"))?;
    if !std::path::Path::new("/run/netns").join(&namespace).exists() {
        ip(&format!("netns add {namespace}"))?;
    }
    if !ip_succeeds(&format!("link show hearthv{octet}")) {
        ip(&format!("link add hearthv{octet} type veth peer name eth0 netns {namespace}"))?;
        ip(&format!("link set hearthv{octet} master {bridge} up"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        ip(&format!("-n {namespace} addr replace {}/24 dev eth0", network.node()))?;
        ip(&format!("-n {namespace} link set eth0 up"))?;
        ip(&format!("-n {namespace} route replace default via {}", network.host()))?;
    }
    Run::new("nsenter")
        .args([&format!("--net=/run/netns/{namespace}"), "sysctl", "-qw", "net.ipv4.ip_forward=1"])
        .run()?;
    ip(&format!("route replace {} via {} dev {bridge}", network.pods(), network.node()))?;
    ip(&format!("route replace {} via {} dev {bridge}", network.services(), network.node()))?;
    sysctl::set(instance, "net.ipv4.ip_forward", "1")?;
    let table = format!(
        "table ip {bridge} {{}}\ndelete table ip {bridge}\n\
         table ip {bridge} {{\n\
         chain leaving {{\n\
         type nat hook postrouting priority srcnat; policy accept;\n\
         ip saddr {whole} ip daddr != {whole} masquerade\n\
         }}\n}}\n",
        whole = network.whole()
    );
    Run::new("nft").args(["-f", "-"]).input(table).run().context("failed to let pods reach other machines")
}

/// Takes the bridge, the namespace, the routes and the table away.
pub fn down(instance: &Instance) -> anyhow::Result<()> {
    let network = instance.network;
    let (bridge, namespace) = (network.bridge(), network.namespace());
    // The kernel clears a deleted namespace away in its own time. A device that is still to go with it would look to
    // the next `up` as if it were there, so it goes first.
    let device = format!("hearthv{}", network.octet);
    if ip_succeeds(&format!("link show {device}")) {
        ip(&format!("link delete {device}"))?;
    }
    if std::path::Path::new("/run/netns").join(&namespace).exists() {
        ip(&format!("netns delete {namespace}"))?;
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
