//! `hearth up`: from an empty machine, or a stopped, half-started or running instance, to a served tool.
//!
//! Every step looks at what is there, does what is missing and leaves alone what is right, so that an interrupted
//! run is resumed by the next and a run on a running instance changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use hearth_core::Platform;
use hearth_core::balancer::{CONTROL_PLANE_NODE, INGRESS_NODE};
use hearth_core::names::{FOUROHFOUR, PLATFORM_NAMESPACE, annotation};
use hearth_core::platform::FrontDoor;

use crate::host_command::Run;
use crate::images::{self, Image};
use crate::instance::{Instance, MOST_NODES, MOST_PROXIES, Node, service, write};
use crate::manifests::Manifests;
use crate::patience::until_ok;
use crate::process::Spec;
use crate::progress::Progress;
use crate::render::Overlay;
use crate::{components, down, first_tool, kubernetes, network, node, pki, preflight, secrets, supervisor, sysctl};

/// Longest wait for one part to become ready.
const PATIENCE: Duration = Duration::from_secs(120);

/// Longest wait for the rulebook to judge by what was just written on a namespace.
const RULEBOOK: Duration = Duration::from_secs(10);

/// Programs of the host that running (and not only building) an instance needs, with their Debian packages.
const HOST_PROGRAMS: &[(&str, &str)] = &[
    ("conntrack", "conntrack"),
    ("curl", "curl"),
    ("haproxy", "haproxy"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("runc", "runc"),
    ("socat", "socat"),
    ("ssh-keygen", "openssh-client"),
    ("sysctl", "procps"),
];

/// Options of `hearth up`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the programs `hearth` and `hearthd` were built; by default beside this program.
    #[arg(long, value_name = "DIR")]
    programs: Option<std::path::PathBuf>,
    /// How many nodes the instance has from now on; at first one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(MOST_NODES)))]
    nodes: Option<u8>,
    /// How many front doors share its visitors from now on, the second at the address after the first's; at first one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(MOST_PROXIES)))]
    proxies: Option<u8>,
}

/// Brings the instance up.
pub async fn run(args: Args, mut instance: Instance) -> anyhow::Result<()> {
    let Args { programs, nodes, proxies } = args;
    let progress = Progress::start();
    let _lock = lock(&instance)?;
    instance.resize(nodes, proxies)?;
    let instance = &instance;
    progress.step("packages of this machine", async { host_packages() }).await?;
    progress.step("this machine has what is needed", async { preflight::check(instance) }).await?;
    let images = images::built(instance)?;
    progress
        .step("certificates and configuration", async {
            let made = configure(instance)?;
            install_programs(instance, programs)?;
            Ok(if made == 0 { String::new() } else { format!("{made} certificates made") })
        })
        .await?;
    progress
        .step("network and node", async {
            down::end_surplus_nodes(instance)?;
            network::up(instance)?;
            node::up(instance)
        })
        .await?;
    let file = instance.path("platform.toml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
    let front_door = Platform::from_toml(&text)?.front_door;
    let processes = components::processes(instance, &front_door, &text);
    start_cluster(instance, &processes, &progress, &images).await?;
    let client = kubernetes::client(instance).await?;
    progress
        .step("manifests", async {
            overlay(instance, &images)?.write(&instance.path("render"))?;
            Manifests::build(instance, "render", "hearth-up")?.apply(&client).await
        })
        .await?;
    progress.step("platform", platform_ready(&client, &front_door)).await?;
    progress.step("directory", first_tool::people_and_tools(instance, PATIENCE)).await?;
    progress.step("images in the registry, logins", registry_and_logins(instance, images)).await?;
    progress
        .step("page for names that serve nothing", async {
            let namespace = format!("tool-{FOUROHFOUR}");
            kubernetes::namespace_annotated(&client, &namespace, annotation::UID, PATIENCE).await?;
            let manifests = Manifests::build(instance, "render/fourohfour", "hearth-up-fourohfour")?;
            // Its namespace names the account that its pods may use, and both layers of the rulebook learn of that a
            // moment after it is written.
            until_ok(RULEBOOK, || manifests.apply(&client)).await?;
            kubernetes::deployment_ready(&client, &namespace, FOUROHFOUR, PATIENCE).await
        })
        .await?;
    progress.step("first tool", first_tool::serve(instance, PATIENCE)).await?;
    put_on_path(instance)?;
    report(instance, &progress);
    Ok(())
}

/// Writes the manifests of the instance into its folder `render`.
pub fn render(instance: &Instance) -> anyhow::Result<()> {
    let folder = instance.path("render");
    overlay(instance, &images::built(instance)?)?.write(&folder)?;
    println!("{}", folder.display());
    Ok(())
}

/// One `up` or `down` at a time.
pub fn lock(instance: &Instance) -> anyhow::Result<std::fs::File> {
    let path = instance.path("lock");
    let file = std::fs::File::create(&path).with_context(|| format!("failed to open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            anyhow::bail!("another `hearth up` or `down` is at work on {}; wait for it", instance.place.home.display())
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error).context("failed to take the instance's lock"),
    }
}

async fn start_cluster(
    instance: &Instance,
    processes: &[Spec],
    progress: &Progress,
    images: &BTreeMap<&'static str, Image>,
) -> anyhow::Result<()> {
    let running = processes.iter().all(|p| p.running(instance).is_some());
    progress
        .step("etcd, Kubernetes' API and containerd", async {
            sysctl::remember_kubelets(instance)?;
            sysctl::raise(instance, "fs.inotify.max_user_instances", 8192)?;
            // On a fresh start the others would only fail until the API answers, and then wait before they try again.
            if !running {
                let first: Vec<_> =
                    processes.iter().filter(|p| components::waits_for_nothing(&p.name)).cloned().collect();
                supervisor::ensure(instance, &first)?;
            }
            let up = || {
                instance.network.all_nodes().all(|node| {
                    let socket = node::containerd_socket(instance, node);
                    Run::new(instance.built("ctr")).args(["--address", &socket, "version"]).succeeds()
                })
            };
            let deadline = tokio::time::timeout(PATIENCE, async {
                while !up() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
            deadline
                .await
                .ok()
                .with_context(|| format!("containerd did not start; see {}", instance.text("log/containerd.log")))?;
            let imported = images::import(instance, images)?;
            kubernetes::api_ready(instance, PATIENCE).await?;
            Ok(imported)
        })
        .await?;
    progress
        .step("node", async {
            supervisor::ensure(instance, processes)?;
            nodes_ready(instance).await
        })
        .await
}

/// Waits until all nodes take pods, and says what they are for: where there are several, the first has the control plane
/// and the others the ingress.
async fn nodes_ready(instance: &Instance) -> anyhow::Result<()> {
    let client = kubernetes::client(instance).await?;
    let nodes: Vec<Node> = instance.network.all_nodes().collect();
    let names: Vec<String> = nodes.iter().map(|node| node.name()).collect();
    futures::future::try_join_all(names.iter().map(|name| kubernetes::node_ready(&client, name, PATIENCE))).await?;
    for (node, name) in nodes.iter().zip(&names) {
        let labels: &[&str] = match (*node == Node::FIRST, nodes.len()) {
            (true, 1) => &[CONTROL_PLANE_NODE, INGRESS_NODE],
            (true, _) => &[CONTROL_PLANE_NODE],
            (false, _) => &[INGRESS_NODE],
        };
        kubernetes::label_node(&client, name, labels).await?;
    }
    kubernetes::forget_nodes(&client, &names).await
}

/// Fills the registry while the bastion, which waits for the directory too, comes to let people in.
async fn registry_and_logins(instance: &Instance, images: BTreeMap<&'static str, Image>) -> anyhow::Result<()> {
    let registry = instance.clone();
    let pushed = tokio::spawn(async move {
        until_ok(PATIENCE, || async { tokio::task::block_in_place(|| images::push(&registry, &images)) }).await
    });
    first_tool::bastion(instance, PATIENCE).await?;
    pushed.await.context("pushing the images stopped unexpectedly")?
}

async fn platform_ready(client: &kube::Client, front_door: &FrontDoor) -> anyhow::Result<()> {
    if front_door.uses_ingress() {
        kubernetes::daemon_set_ready(client, PLATFORM_NAMESPACE, "ingress", PATIENCE).await?;
    }
    let parts = [
        ("kube-system", "coredns"),
        (PLATFORM_NAMESPACE, "accounts"),
        (PLATFORM_NAMESPACE, "admission"),
        (PLATFORM_NAMESPACE, "bastion"),
        (PLATFORM_NAMESPACE, "registry-auth"),
        (PLATFORM_NAMESPACE, "signer"),
    ];
    let waits = parts.map(|(namespace, name)| kubernetes::deployment_ready(client, namespace, name, PATIENCE));
    let stateful = ["directory", "registry"];
    let stateful = stateful.map(|name| kubernetes::stateful_set_ready(client, PLATFORM_NAMESPACE, name, PATIENCE));
    futures::future::try_join(futures::future::try_join_all(waits), futures::future::try_join_all(stateful))
        .await
        .map(drop)
}

/// The file of the tools' own quotas, when there are none yet.
const QUOTAS: &str = r#"# What single tools may use beyond what all may. Change it and run `make up`.
#
# [wikibot]
# why = "reads whole dumps, agreed on 2026-11-23"
# quota = { "requests.memory" = "12Gi", "limits.memory" = "16Gi" }
# container = { memory = "8Gi" }
"#;

/// Writes everything that the instance's programs read, returning how many certificates were made.
fn configure(instance: &Instance) -> anyhow::Result<usize> {
    let made = pki::ensure(instance, crate::clock::now())?;
    secrets::ensure(instance)?;
    components::configure(instance, secrets::random)?;
    let platform = instance.path("platform.toml");
    if !platform.exists() {
        let (domain, node) = (instance.domain(), instance.network.node());
        let text = format!(
            "# What this installation is. Change it and run `make up`.\n\n\
             [domains]\npublic = [\"{domain}\"]\nlegacy = \"tools.{domain}\"\n\n\
             [api]\nserver = \"https://{node}:6443\"\n\n\
             [directory]\nurl = \"ldaps://ldap.hearth.internal\"\nbase = \"dc=hearth,dc=internal\"\nbind_dn = \"cn=reader,dc=hearth,dc=internal\"\n\n\
             [registry]\nhost = \"registry.hearth.internal\"\n\n\
             # All who visit from this machine have addresses of its loopback.\n\
             [front_door]\nunlimited_visitors = [\"127.0.0.0/8\"]\n"
        );
        write(&platform, text, 0o644)?;
    }
    let quotas = instance.path("quotas.toml");
    if !quotas.exists() {
        write(&quotas, QUOTAS, 0o644)?;
    }
    Ok(made)
}

/// Gives the instance its own copies of Hearth's programs; what runs goes on with the old ones until it is restarted.
fn install_programs(instance: &Instance, programs: Option<std::path::PathBuf>) -> anyhow::Result<()> {
    let folder = match programs {
        Some(folder) => folder,
        None => {
            let own = std::env::current_exe().context("failed to find this program")?;
            own.parent().map(std::path::Path::to_owned).context("this program lies in no folder")?
        }
    };
    for name in ["hearth", "hearthd"] {
        let source = folder.join(name);
        let bytes = std::fs::read(&source).with_context(|| format!("failed to read {}", source.display()))?;
        write(&instance.path(format!("bin/{name}")), bytes, 0o755)?;
    }
    Ok(())
}

fn overlay(instance: &Instance, images: &BTreeMap<&'static str, Image>) -> anyhow::Result<Overlay> {
    let tls = |name: &str| {
        let pair = pki::pair(instance, name);
        BTreeMap::from([("tls.crt".to_owned(), pair.cert), ("tls.key".to_owned(), pair.key)])
    };
    let one = |key: &str, file: &str| BTreeMap::from([(key.to_owned(), instance.path(file))]);
    let secrets = BTreeMap::from([
        ("admission-tls".to_owned(), tls("admission")),
        ("directory-tls".to_owned(), tls("directory")),
        ("ingress-tls".to_owned(), tls("ingress")),
        ("registry-tls".to_owned(), tls("registry")),
        ("registry-auth-tls".to_owned(), tls("registry-auth")),
        ("registry-token".to_owned(), tls("registry-token")),
        ("directory-admin".to_owned(), one("password", "secrets/directory-admin/password")),
        ("directory-reader".to_owned(), one("password", "secrets/directory-reader/password")),
        ("registry-platform".to_owned(), one("sha256", "secrets/registry-platform/sha256")),
        ("bastion-host-keys".to_owned(), one("ssh_host_ed25519_key", "secrets/bastion-host-keys/ssh_host_ed25519_key")),
    ]);
    let read = |file: &str| {
        let path = instance.path(file);
        std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
    };
    let address = |namespace, name, number| (namespace, name, instance.network.service(number).to_string());
    Ok(Overlay {
        platform_toml: read("platform.toml")?,
        quotas_toml: read("quotas.toml")?,
        images: images.iter().map(|(name, image)| ((*name).to_owned(), image.digest.clone())).collect(),
        ca: read("ca.crt")?,
        secrets,
        addresses: vec![
            address("kube-system", "kube-dns", service::DNS),
            address(PLATFORM_NAMESPACE, "bastion", service::BASTION),
            address(PLATFORM_NAMESPACE, "registry", service::REGISTRY),
            address(PLATFORM_NAMESPACE, "registry-auth", service::REGISTRY_AUTH),
            address(PLATFORM_NAMESPACE, "ldap", service::LDAP),
        ],
        internal_hosts: node::internal_hosts(instance),
        front_doors: instance.network.front_doors().collect(),
    })
}

fn host_packages() -> anyhow::Result<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let has = |program: &str| {
        let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
        folders.into_iter().any(|folder| std::path::Path::new(folder).join(program).exists())
    };
    let missing: Vec<&str> =
        HOST_PROGRAMS.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(String::new());
    }
    let install = || {
        Run::new("apt-get")
            .args(["install", "-qq", "-y", "--no-install-recommends"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .run()
    };
    if install().is_err() {
        Run::new("apt-get").args(["update", "-qq"]).run()?;
        install().with_context(|| format!("these packages are needed: {}", missing.join(" ")))?;
    }
    Ok(format!("installed {}", missing.join(" ")))
}

/// Puts `hearth` and `kubectl` where a shell finds them. Another program of that name is left alone.
fn put_on_path(instance: &Instance) -> anyhow::Result<()> {
    if !instance.is_default() {
        return Ok(());
    }
    for (name, target) in [("hearth", instance.own_program("hearth")), ("kubectl", instance.built("kubectl"))] {
        let link = std::path::Path::new("/usr/local/bin").join(name);
        match std::fs::read_link(&link) {
            Ok(old) if old.as_os_str() == target.as_str() => continue,
            Ok(old) if old.starts_with(&instance.place.home) || old.starts_with(&instance.place.cache) => {
                std::fs::remove_file(&link)?
            }
            Ok(_) => continue,
            Err(_) if link.exists() => continue,
            Err(_) => (),
        }
        std::os::unix::fs::symlink(&target, &link).with_context(|| format!("failed to link {}", link.display()))?;
    }
    Ok(())
}

fn report(instance: &Instance, progress: &Progress) {
    let (address, domain) = (instance.place.address, instance.domain());
    eprintln!("Hearth is up ({:.1} s).", progress.seconds());
    println!("  first tool   https://hello.{domain}/");
    println!("  bastion      ssh -p 2222 -i {} member1@{address}", instance.text("keys/member1"));
    println!("  kubectl      export KUBECONFIG={}", instance.text("admin.kubeconfig"));
    println!("  certificate  {}", instance.text("ca.crt"));
}
