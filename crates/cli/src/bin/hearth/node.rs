//! A node of the cluster on this machine: a mount namespace, a subtree of the cgroups and the files that its
//! programs are configured with. Its network namespace is in [`crate::network`].
//!
//! Inside the node `/data` is the instance's own and `/etc/hosts` has the platform's internal names; the host's are
//! not touched.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::host_command::Run;
use crate::instance::{Instance, Network, Node, service, write};
use crate::pki;

/// How long processes that were killed may take to leave their cgroup.
const LEAVING: Duration = Duration::from_secs(10);

/// The user and group of the platform's own programs, as their images and manifests have it.
const UNPRIVILEGED: u32 = 65532;

/// A command line that runs `command` inside the node's network.
pub fn in_network(instance: &Instance, node: Node, command: Vec<String>) -> Vec<String> {
    let mut words = vec![
        "nsenter".to_owned(),
        format!("--net=/run/netns/{}", instance.network.namespace_of(node)),
        "--".to_owned(),
    ];
    words.extend(command);
    words
}

/// A command line that runs `command` inside the node: its network and its mounts.
pub fn inside(instance: &Instance, node: Node, command: Vec<String>) -> Vec<String> {
    let mut words = vec![
        "nsenter".to_owned(),
        format!("--net=/run/netns/{}", instance.network.namespace_of(node)),
        format!("--mount={}", mount_namespace(instance, node).display()),
        "--".to_owned(),
    ];
    words.extend(command);
    words
}

/// Makes the nodes' folders, mount namespaces and cgroups, and writes their configuration.
pub fn up(instance: &Instance) -> anyhow::Result<()> {
    let folders = ["data/project", "data/home", "log"].map(|folder| (folder, None));
    // The directory and the registry keep their data themselves, as a user without rights.
    let kept = ["data/platform/directory", "data/platform/registry"].map(|folder| (folder, Some(UNPRIVILEGED)));
    for (folder, owner) in folders.into_iter().chain(kept) {
        let path = instance.path(folder);
        std::fs::create_dir_all(&path).with_context(|| format!("failed to make {}", path.display()))?;
        std::os::unix::fs::chown(&path, owner, owner)
            .with_context(|| format!("failed to give {} to its user", path.display()))?;
    }
    write_hosts(instance)?;
    write_registries(instance)?;
    for node in instance.network.all_nodes() {
        let folder = instance.path(node.file("run/containerd"));
        std::fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
        write_containerd(instance, node)?;
        write_cni(instance, node)?;
        write_kubelet(instance, node)?;
        make_mount_namespace(instance, node)?;
        make_cgroups(&cgroup(instance, node))?;
    }
    Ok(())
}

/// Takes away the mount namespaces and the cgroups, and whatever is mounted below the instance's home.
pub fn down(instance: &Instance) -> anyhow::Result<()> {
    let inside_of_home = |mounts: &str| -> Vec<String> {
        let home = format!("{}/", instance.place.home.display());
        let mut points: Vec<String> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|point| point.starts_with(&home))
            .map(str::to_owned)
            .collect();
        points.sort_by_key(|point| std::cmp::Reverse(point.len()));
        points
    };
    for file in Network::possible_nodes().map(|node| mount_namespace(instance, node)).filter(|file| is_namespace(file))
    {
        // Mounts of pods live in the node's namespace and go with its last process; lazily, since a mount that hangs
        // must not keep the rest.
        Run::new("umount").args(["-l".as_ref(), file.as_os_str()]).run()?;
    }
    for point in inside_of_home(&std::fs::read_to_string("/proc/mounts")?) {
        Run::new("umount").args(["-l", &point]).run()?;
    }
    remove_cgroups(instance)
}

/// The name of a node's subtree of the cgroups. Those of further nodes lie below the first's, which is the instance's.
fn cgroup(instance: &Instance, node: Node) -> String {
    let whole = format!("/hearth{}", instance.network.octet);
    if node == Node::FIRST { whole } else { format!("{whole}/{}", node.name()) }
}

fn mount_namespace(instance: &Instance, node: Node) -> PathBuf {
    instance.path("run/namespace").join(node.own("mount"))
}

fn is_namespace(file: &Path) -> bool {
    Run::new("stat").args(["-f", "-c", "%T"]).args([file]).output().is_ok_and(|kind| kind.trim() == "nsfs")
}

/// A mount namespace is kept by a mount of it, which has to lie on a private mount.
fn make_mount_namespace(instance: &Instance, node: Node) -> anyhow::Result<()> {
    let file = mount_namespace(instance, node);
    if is_namespace(&file) {
        return Ok(());
    }
    let folder = instance.path("run/namespace");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(&file, "")?;
    let mounted = std::fs::read_to_string("/proc/mounts")?.contains(&format!(" {} ", folder.display()));
    if !mounted {
        Run::new("mount").args(["--bind"]).args([&folder, &folder]).run()?;
        Run::new("mount").args(["--make-private"]).args([&folder]).run()?;
        std::fs::write(&file, "")?;
    }
    Run::new("unshare").arg_mount(&file).run().context("failed to make the node's mount namespace")?;
    // The node gets its own /data and its own /run/netns, so that neither pods' homes nor their networks show outside.
    let home = instance.place.home.display();
    let script = format!(
        "set -eu\n\
         mount --make-rprivate /\n\
         mkdir -p /data /run/netns\n\
         mount -t tmpfs -o mode=755 hearth-data /data\n\
         mkdir -p /data/project /data/home /data/platform\n\
         mount --bind {home}/data/project /data/project\n\
         mount --bind {home}/data/home /data/home\n\
         mount --bind {home}/data/platform /data/platform\n\
         mount -t tmpfs -o mode=755 hearth-netns /run/netns\n\
         mount --bind {home}/config/hosts /etc/hosts\n\
         mount --make-rshared /\n"
    );
    std::fs::create_dir_all("/data").context("failed to make /data, where a node has its homes")?;
    let words = [format!("--mount={}", file.display()), "--".to_owned(), "sh".to_owned(), "-c".to_owned(), script];
    let made = Run::new("nsenter").args(words).run().context("failed to prepare the node's mounts");
    if made.is_err() {
        // Half a namespace must not be taken for a whole one by the next run.
        Run::new("umount").args([&file]).run()?;
    }
    made
}

fn cgroup_roots() -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    if base.join("cgroup.controllers").exists() {
        return vec![base.to_owned()];
    }
    [
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "devices",
        "freezer",
        "blkio",
        "pids",
        "systemd",
        "hugetlb",
        "net_cls",
        "perf_event",
    ]
    .iter()
    .map(|controller| base.join(controller))
    .filter(|path| path.join("cgroup.procs").exists())
    .collect()
}

fn make_cgroups(name: &str) -> anyhow::Result<()> {
    for root in cgroup_roots() {
        let group = root.join(name.trim_start_matches('/'));
        std::fs::create_dir_all(&group).with_context(|| format!("failed to make the cgroup {}", group.display()))?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let (true, Ok(value)) = (root.ends_with("cpuset"), std::fs::read_to_string(root.join(file))) {
                std::fs::write(group.join(file), value.trim())?;
            }
        }
        if let Ok(controllers) = std::fs::read_to_string(root.join("cgroup.controllers")) {
            let all: Vec<String> = controllers.split_whitespace().map(|c| format!("+{c}")).collect();
            // A controller that cannot be delegated is one that the kubelet does without.
            let _ = std::fs::write(root.join("cgroup.subtree_control"), all.join(" "));
        }
    }
    Ok(())
}

fn remove_cgroups(instance: &Instance) -> anyhow::Result<()> {
    fn remove(group: &Path) -> std::io::Result<()> {
        for entry in std::fs::read_dir(group)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                remove(&entry.path())?;
            }
        }
        std::fs::remove_dir(group)
    }
    // Where version 1 and 2 stand side by side, runc makes the same group in the hierarchy of version 2 as well.
    for root in cgroup_roots().into_iter().chain([PathBuf::from("/sys/fs/cgroup/unified")]) {
        let group = root.join(cgroup(instance, Node::FIRST).trim_start_matches('/'));
        let began = Instant::now();
        while group.exists() {
            match remove(&group) {
                // What was killed is in its group until the kernel has taken it apart.
                Err(error) if error.kind() == ErrorKind::ResourceBusy && began.elapsed() < LEAVING => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                result => result.with_context(|| format!("failed to remove the cgroup {}", group.display()))?,
            }
        }
    }
    Ok(())
}

/// The platform's internal names, for the node's programs, the platform's pods, and by `CoreDNS` for everybody's.
pub fn internal_hosts(instance: &Instance) -> Vec<(Ipv4Addr, &'static str)> {
    let network = instance.network;
    vec![
        (network.node(), "api.hearth.internal"),
        (network.service(service::REGISTRY), "registry.hearth.internal"),
        (network.service(service::REGISTRY_AUTH), "registry-auth.hearth.internal"),
        (network.service(service::LDAP), "ldap.hearth.internal"),
    ]
}

/// Names as the lines of a hosts file (hosts(5)).
pub fn hosts_lines(names: &[(Ipv4Addr, &str)]) -> String {
    names.iter().map(|(address, name)| format!("{address} {name}\n")).collect()
}

fn write_hosts(instance: &Instance) -> anyhow::Result<()> {
    let hosts = format!("127.0.0.1 localhost\n::1 localhost\n{}", hosts_lines(&internal_hosts(instance)));
    write(&instance.path("config/hosts"), hosts, 0o644).map(drop)
}

fn write_containerd(instance: &Instance, node: Node) -> anyhow::Result<()> {
    let config = format!(
        r#"version = 3
root = '{state}/containerd'
state = '{run}/containerd'
disabled_plugins = ['io.containerd.snapshotter.v1.blockfile', 'io.containerd.snapshotter.v1.btrfs', 'io.containerd.snapshotter.v1.devmapper', 'io.containerd.snapshotter.v1.zfs', 'io.containerd.snapshotter.v1.erofs', 'io.containerd.tracing.processor.v1.otlp', 'io.containerd.internal.v1.tracing']
[grpc]
  address = '{socket}'
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '{pause}'
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = '{registries}'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  # Every second, the default, costs a platform at rest as much as its API server does.
  stats_collect_period = '30s'
  stats_retention_period = '5m'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    runtime_path = '{shim}'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = 'runc'
      SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['{cni}']
    conf_dir = '{networks}'
"#,
        state = instance.text(node.file("state")),
        run = instance.text(node.file("run")),
        socket = containerd_socket(instance, node),
        pause = crate::images::PAUSE,
        registries = instance.text("config/registries"),
        networks = instance.text(node.file("config/cni")),
        shim = instance.built("containerd-shim-runc-v2"),
        cni = instance.built("cni"),
    );
    write(&instance.path(node.file("config/containerd.toml")), config, 0o644).map(drop)
}

fn write_registries(instance: &Instance) -> anyhow::Result<()> {
    // Whatever registry an image names, only the platform's own is asked for it.
    let ca = instance.text("ca.crt");
    let registry = format!(
        "server = \"https://registry.hearth.internal\"\n[host.\"https://registry.hearth.internal\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"{ca}\"\n"
    );
    write(&instance.path("config/registries/registry.hearth.internal/hosts.toml"), &registry, 0o644)?;
    write(&instance.path("config/registries/_default/hosts.toml"), &registry, 0o644)?;
    Ok(())
}

fn write_cni(instance: &Instance, node: Node) -> anyhow::Result<()> {
    let config = serde_json::json!({
        "cniVersion": "1.0.0", "name": "hearth", "plugins": [
            {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
             "ipam": {"type": "host-local", "dataDir": instance.text(node.file("state/cni")),
                      "ranges": [[{"subnet": instance.network.pods_of(node)}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
            {"type": "loopback"}]
    });
    let file = instance.path(node.file("config/cni/10-bridge.conflist"));
    write(&file, serde_json::to_string_pretty(&config)?, 0o644).map(drop)
}

/// Processes and threads that one pod may have. A quota counts none, and without a bound one pod could use up the
/// machine's. Bastions are pods too, with the sessions of many people.
const PROCESSES: u32 = 4096;

fn write_kubelet(instance: &Instance, node: Node) -> anyhow::Result<()> {
    let serving = pki::pair(instance, &node.own("kubelet-serving"));
    let config = serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "failCgroupV1": false, "cgroupDriver": "cgroupfs", "cgroupRoot": cgroup(instance, node),
        "oomScoreAdj": 0, "failSwapOn": false,
        "containerRuntimeEndpoint": format!("unix://{}", containerd_socket(instance, node)),
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true},
                           "x509": {"clientCAFile": pki::Authority::Kubernetes.pair(instance).cert}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": serving.cert, "tlsPrivateKeyFile": serving.key,
        "clusterDomain": "cluster.local", "clusterDNS": [instance.network.service(service::DNS)],
        "resolvConf": resolver(instance)?, "maxPods": 110, "podPidsLimit": PROCESSES,
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "3%", "imagefs.available": "3%"},
        "imageGCHighThresholdPercent": 95, "imageGCLowThresholdPercent": 90,
        "kubeAPIQPS": 200, "kubeAPIBurst": 400, "serializeImagePulls": false,
        "syncFrequency": "30s", "fileCheckFrequency": "20s",
        "volumePluginDir": instance.text(node.file("state/kubelet-plugins")),
        "podLogsDir": instance.text(node.file("log/pods")),
        "containerLogMaxSize": "10Mi", "containerLogMaxFiles": 3,
        "registryPullQPS": 50, "registryBurst": 100
    });
    write(&instance.path(node.file("config/kubelet.json")), serde_json::to_string_pretty(&config)?, 0o644).map(drop)
}

/// The file that says whom the cluster's DNS asks about names that it does not know. systemd's stub resolver listens on
/// the host's loopback, which pods cannot reach; what the stub itself asks, they can. Without anybody to ask the DNS
/// would not start, so on a machine without a resolver it is told to ask where nobody listens.
fn resolver(instance: &Instance) -> anyhow::Result<PathBuf> {
    let known = ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"];
    let is_usable = |file: &&str| std::fs::read_to_string(file).is_ok_and(|text| names_a_resolver(&text));
    if let Some(file) = known.into_iter().find(is_usable) {
        return Ok(PathBuf::from(file));
    }
    let own = instance.path("config/resolv.conf");
    write(&own, "# This machine has no resolver that its pods could reach.\nnameserver 127.0.0.1\n", 0o644)?;
    Ok(own)
}

/// Whether a resolver's configuration (resolv.conf(5)) names a server that is not on the machine's own loopback.
fn names_a_resolver(text: &str) -> bool {
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver"));
    servers.filter_map(|server| server.trim().parse::<IpAddr>().ok()).any(|server| !server.is_loopback())
}

/// Where a node's containerd listens.
pub fn containerd_socket(instance: &Instance, node: Node) -> String {
    instance.text(node.file("run/containerd/containerd.sock"))
}

trait MountNamespace {
    fn arg_mount(self, file: &Path) -> Self;
}

impl MountNamespace for Run {
    fn arg_mount(self, file: &Path) -> Self {
        self.args([format!("--mount={}", file.display()), "--propagation".into(), "private".into(), "true".into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_on_the_loopback_is_none_for_pods() {
        assert!(names_a_resolver("search example\nnameserver 127.0.0.53\nnameserver 192.0.2.1\n"));
        for none in
            ["", "search .\n", "nameserver 127.0.0.53\noptions edns0\n", "nameserver ::1\n", "# nameserver 192.0.2.1\n"]
        {
            assert!(!names_a_resolver(none), "{none:?}");
        }
    }
}
