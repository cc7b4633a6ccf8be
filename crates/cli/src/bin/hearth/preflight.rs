//! What a machine needs before anything is started, each with a sentence that says what is missing and the way on.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context, bail};

use crate::host_command::{Run, ip, ip_succeeds};
use crate::instance::Instance;
use crate::supervisor;

/// Space that a first start needs for images, logs and the cluster's state.
const SPACE_MIB: u64 = 4096;

/// Kernel features, each with a file or a trial that shows it, and what it is for.
const FILES: &[(&str, &str)] = &[
    ("/proc/self/ns/net", "network namespaces (CONFIG_NET_NS)"),
    ("/proc/self/ns/mnt", "mount namespaces"),
    ("/proc/self/ns/pid", "process namespaces (CONFIG_PID_NS)"),
    ("/proc/self/cgroup", "control groups (CONFIG_CGROUPS)"),
    ("/proc/sys/net/ipv4/ip_forward", "IPv4 forwarding (CONFIG_INET)"),
];

/// Checks the machine. The ports are looked at only when nothing of the instance runs yet.
pub fn check(instance: &Instance) -> anyhow::Result<()> {
    let missing = missing_features()?;
    if !missing.is_empty() {
        bail!(
            "this kernel lacks what containers need:\n  {}\nBoot a kernel that has it; Debian's own does",
            missing.join("\n  ")
        );
    }
    check_space(&instance.place.home)?;
    if !supervisor::is_running(instance) && supervisor::specs(instance)?.iter().all(|s| s.running(instance).is_none()) {
        for port in [80, 443, 2222] {
            check_port(SocketAddr::from((instance.place.address, port)))?;
        }
    }
    Ok(())
}

/// Everything that the kernel lacks, a line each.
fn missing_features() -> anyhow::Result<Vec<String>> {
    let mut missing: Vec<String> =
        FILES.iter().filter(|(file, _)| !Path::new(file).exists()).map(|(_, feature)| (*feature).to_owned()).collect();
    let modprobe = |module: &str| Run::new("modprobe").args([module]).succeeds();
    let known = std::fs::read_to_string("/proc/filesystems")?;
    if !known.lines().any(|line| line.split_whitespace().last() == Some("overlay")) && !modprobe("overlay") {
        missing.push("the overlay file system (CONFIG_OVERLAY_FS, module overlay)".to_owned());
    }
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() && !Path::new("/sys/fs/cgroup/memory").exists() {
        missing.push("control groups mounted at /sys/fs/cgroup (mount cgroup2 there)".to_owned());
    }
    // Built in or loaded already makes this fail without harm; the trials that follow tell what is truly missing.
    for module in ["br_netfilter", "nf_tables", "veth", "bridge"] {
        modprobe(module);
    }
    if !Run::new("nft").args(["list", "tables"]).succeeds() {
        missing.push("nftables (CONFIG_NF_TABLES, module nf_tables)".to_owned());
    }
    let trial = format!("hearth-{}", std::process::id() % 10000);
    if ip_succeeds(&format!("link add {trial} type bridge")) {
        ip(&format!("link delete {trial}"))?;
    } else {
        missing.push("network bridges (CONFIG_BRIDGE, module bridge)".to_owned());
    }
    if ip_succeeds(&format!("link add {trial} type veth peer name {trial}p")) {
        ip(&format!("link delete {trial}"))?;
    } else {
        missing.push("pairs of virtual network devices (CONFIG_VETH, module veth)".to_owned());
    }
    Ok(missing)
}

fn check_space(home: &Path) -> anyhow::Result<()> {
    let stat =
        rustix::fs::statvfs(home).with_context(|| format!("failed to look at the disk of {}", home.display()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    if free < SPACE_MIB {
        bail!(
            "the disk of {} has {free} MiB free; Hearth needs {SPACE_MIB}. Free some, or set HEARTH_HOME to another disk",
            home.display()
        );
    }
    Ok(())
}

fn check_port(address: SocketAddr) -> anyhow::Result<()> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "{address} is in use by {}; stop that, or set HEARTH_ADDRESS to another address such as 127.0.0.2",
            holder(address).unwrap_or_else(|| "another program".to_owned())
        ),
        Err(error) => Err(error).with_context(|| format!("failed to listen on {address}")),
    }
}

/// The program that listens on an address, as `name (process N)`.
fn holder(address: SocketAddr) -> Option<String> {
    let filter = format!("sport = :{}", address.port());
    holder_in(&Run::new("ss").args(["-Hltnp", &filter]).output().ok()?, address)
}

/// The same, from what `ss -Hltnp` says: the same port of another address is no matter.
fn holder_in(listeners: &str, address: SocketAddr) -> Option<String> {
    let port = address.port();
    let places = [address.to_string(), format!("0.0.0.0:{port}"), format!("*:{port}"), format!("[::]:{port}")];
    let mut lines = listeners.lines();
    let line = lines.find(|line| line.split_whitespace().nth(3).is_some_and(|at| places.iter().any(|p| p == at)))?;
    let (name, rest) = line.split_once("users:((\"")?.1.split_once('"')?;
    let pid: String = rest.split_once("pid=")?.1.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("{name} (process {pid})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_that_of_its_address() {
        let listeners = "LISTEN 0 128  127.0.0.1:443 0.0.0.0:* users:((\"hearthd\",pid=7,fd=9))\n\
                         LISTEN 0 128 127.0.53.2:443 0.0.0.0:* users:((\"nginx\",pid=8,fd=9),(\"nginx\",pid=9,fd=9))\n\
                         LISTEN 0 128          *:444       *:* users:((\"caddy\",pid=10,fd=3))\n";
        let of = |address: &str| holder_in(listeners, address.parse().unwrap());
        assert_eq!(of("127.0.53.2:443").as_deref(), Some("nginx (process 8)"));
        assert_eq!(of("127.0.0.3:443"), None);
        assert_eq!(of("127.0.0.3:444").as_deref(), Some("caddy (process 10)"));
    }
}
