//! `hearth down` and `hearth purge`: everything stops and the host is as before; data stays, or goes as well.

use anyhow::{Context, bail};

use crate::host_command::Run;
use crate::instance::{Instance, Network, Node};
use crate::{network, node, supervisor, sysctl, up};

/// Stops everything. What is kept below the instance's home stays.
pub fn run(instance: &Instance) -> anyhow::Result<()> {
    let _lock = up::lock(instance)?;
    let nodes: Vec<Node> = Network::possible_nodes().collect();
    supervisor::stop_kubelets(instance, &nodes)?;
    for node in &nodes {
        stop_containers(instance, *node)?;
    }
    supervisor::stop_all(instance)?;
    for node in nodes {
        stop_shims(instance, node)?;
    }
    node::down(instance)?;
    network::down(instance)?;
    sysctl::restore(instance)?;
    eprintln!("Hearth is down. Its data stays in {}; `make up` starts it again.", instance.place.home.display());
    Ok(())
}

/// Stops everything and removes the instance's home.
pub fn purge(instance: &Instance) -> anyhow::Result<()> {
    run(instance)?;
    let home = &instance.place.home;
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    if let Some(line) = mounts.lines().find(|line| line.contains(&format!(" {}/", home.display()))) {
        bail!("something is still mounted below {}: {line}. Unmount it; nothing was removed", home.display());
    }
    for name in ["hearth", "kubectl"] {
        let link = std::path::Path::new("/usr/local/bin").join(name);
        let ours = |target: &std::path::Path| target.starts_with(home) || target.starts_with(&instance.place.cache);
        if instance.is_default() && std::fs::read_link(&link).is_ok_and(|target| ours(&target)) {
            std::fs::remove_file(&link)?;
        }
    }
    std::fs::remove_dir_all(home).with_context(|| format!("failed to remove {}", home.display()))?;
    // An empty folder that nodes need on the host to mount their own on. The kernel lets it be removed while a node of
    // another instance has its homes there, and unmounts them.
    if !sysctl::an_instance_is_up()? {
        let _ = std::fs::remove_dir("/data");
    }
    eprintln!("Hearth is gone from {}. Builds stay in {}.", home.display(), instance.place.cache.display());
    Ok(())
}

/// Ends what runs on nodes that the instance has no more. Their other processes end when the supervisor is told which
/// there are.
pub fn end_surplus_nodes(instance: &Instance) -> anyhow::Result<()> {
    let specs = supervisor::specs(instance)?;
    let runs = |node: &Node| {
        let name = node.own("containerd");
        specs.iter().any(|spec| spec.name == name && spec.running(instance).is_some())
    };
    let surplus: Vec<Node> =
        Network::possible_nodes().filter(|node| node.0 > instance.network.nodes).filter(runs).collect();
    if surplus.is_empty() {
        return Ok(());
    }
    supervisor::stop_kubelets(instance, &surplus)?;
    for node in surplus {
        stop_containers(instance, node)?;
        stop_shims(instance, node)?;
    }
    Ok(())
}

/// Ends the containers: gently, all at once, then whatever is left.
fn stop_containers(instance: &Instance, node: Node) -> anyhow::Result<()> {
    let socket = node::containerd_socket(instance, node);
    let ctr = |words: &[&str]| {
        Run::new(instance.built("ctr")).args(["--address", &socket, "--namespace", "k8s.io"]).args(words)
    };
    if !std::path::Path::new(&socket).exists() || !ctr(&["version"]).succeeds() {
        return Ok(());
    }
    let tasks = || ctr(&["tasks", "list", "--quiet"]).output();
    for signal in ["SIGTERM", "SIGKILL"] {
        let listed = tasks()?;
        std::thread::scope(|scope| {
            for task in listed.lines() {
                // A task that ended in the meantime cannot be told to.
                scope.spawn(move || ctr(&["tasks", "kill", "--signal", signal, task]).succeeds());
            }
        });
        let running =
            || ctr(&["tasks", "list"]).output().is_ok_and(|all| all.lines().any(|line| line.ends_with("RUNNING")));
        for _ in 0..60 {
            if !running() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    Ok(())
}

/// Ends the shims of this instance, which outlive containerd by design. They are known by their command line, which
/// names this instance's socket.
fn stop_shims(instance: &Instance, node: Node) -> anyhow::Result<()> {
    let socket = node::containerd_socket(instance, node);
    let shim = instance.built("containerd-shim-runc-v2");
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
        let ours =
            words.first().is_some_and(|program| *program == shim.as_bytes()) && words.contains(&socket.as_bytes());
        if let (true, Some(pid)) = (ours, rustix::process::Pid::from_raw(pid)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    Ok(())
}
