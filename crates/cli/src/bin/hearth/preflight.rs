//! What a machine needs before anything is started, each with a sentence that says what is missing and the way on.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context, bail};

use crate::host_command::Run;
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
    for (file, feature) in FILES {
        if !Path::new(file).exists() {
            bail!("this kernel has no {feature}; Hearth needs it to run containers");
        }
    }
    check_file_systems()?;
    check_space(&instance.place.home)?;
    if !supervisor::is_running(instance) && supervisor::specs(instance)?.iter().all(|s| s.running(instance).is_none()) {
        for port in [80, 443, 2222] {
            check_port(SocketAddr::from((instance.place.address, port)))?;
        }
    }
    Ok(())
}

fn check_file_systems() -> anyhow::Result<()> {
    let known = std::fs::read_to_string("/proc/filesystems")?;
    let has = |name: &str| known.lines().any(|line| line.split_whitespace().last() == Some(name));
    if !has("overlay") && !Run::new("modprobe").args(["overlay"]).succeeds() {
        bail!("this kernel has no overlay file system (CONFIG_OVERLAY_FS, module `overlay`); containers need it");
    }
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() && !Path::new("/sys/fs/cgroup/memory").exists() {
        bail!("no control groups are mounted at /sys/fs/cgroup; mount cgroup2 there and try again");
    }
    for module in ["br_netfilter", "nf_tables", "veth"] {
        // Built in or loaded already makes this fail without harm; what is truly missing shows when it is used.
        let _ = Run::new("modprobe").args([module]).succeeds();
    }
    Ok(())
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
    let text = Run::new("ss").args(["-Hltnp", &filter]).output().ok()?;
    let (_, users) = text.lines().find_map(|line| line.split_once("users:((\""))?;
    let (name, rest) = users.split_once('"')?;
    let pid: String = rest.split_once("pid=")?.1.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("{name} (process {pid})"))
}
