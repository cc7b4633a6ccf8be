//! An instance of Hearth on this machine: where it keeps things, and which addresses are its own.
//!
//! Everything an instance keeps is below its home (`HEARTH_HOME`); everything it shares with others is a cache
//! (`HEARTH_CACHE`). Two instances differ in home, address and network, so that they run side by side.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::host_command::Run;

/// Where the default instance lives; only it puts `hearth` and `kubectl` on the host's PATH.
pub const DEFAULT_HOME: &str = "/var/lib/hearth";

/// Where an instance is, from the command line or the environment.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// The folder that holds everything of this instance.
    #[arg(long, global = true, env = "HEARTH_HOME", value_name = "DIR", default_value = DEFAULT_HOME)]
    pub home: PathBuf,
    /// The address of the front door and the bastion, one of 127.0.0.0/8.
    #[arg(long, global = true, env = "HEARTH_ADDRESS", value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub address: Ipv4Addr,
    /// The folder of builds, shared by instances.
    #[arg(long, global = true, env = "HEARTH_CACHE", value_name = "DIR", default_value = "/var/cache/hearth")]
    pub cache: PathBuf,
}

/// An instance: its place, and what was chosen for it when it was first started.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Where it is.
    pub place: Place,
    /// Its network.
    pub network: Network,
}

/// The instance's own part of the private address space, `10.<octet>.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The second byte of all its addresses.
    pub octet: u8,
    /// How many nodes it has.
    #[serde(default = "one")]
    pub nodes: u8,
    /// How many front doors share its visitors.
    #[serde(default = "one")]
    pub proxies: u8,
}

/// The most nodes of an instance, and the most front doors.
pub const MOST_NODES: u8 = 9;
pub const MOST_PROXIES: u8 = 2;

/// A node by its number: the first has the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(pub u8);

impl Node {
    /// The node with the control plane.
    pub const FIRST: Self = Self(1);

    /// Its name in the cluster.
    pub fn name(self) -> String {
        format!("node{}", self.0)
    }

    /// A name of something that each node has: the first node's is the bare one.
    pub fn own(self, name: &str) -> String {
        if self == Self::FIRST { name.to_owned() } else { format!("{name}-{}", self.name()) }
    }

    /// Where a file of the node is, below the instance's home.
    pub fn file(self, relative: &str) -> String {
        if self == Self::FIRST { relative.to_owned() } else { format!("nodes/{}/{relative}", self.name()) }
    }
}

fn one() -> u8 {
    1
}

/// Addresses that other parts are configured with.
impl Network {
    /// All addresses of the instance.
    pub fn whole(self) -> String {
        format!("10.{}.0.0/16", self.octet)
    }

    /// All nodes, the first first.
    pub fn all_nodes(self) -> impl Iterator<Item = Node> {
        (1..=self.nodes).map(Node)
    }

    /// All nodes that an instance may have: also those of an earlier `up`.
    pub fn possible_nodes() -> impl Iterator<Item = Node> {
        (1..=MOST_NODES).map(Node)
    }

    /// The host's end of the bridge.
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.octet, 0, 1)
    }

    /// Where pods find the front doors: the first on the host's end of the bridge.
    pub fn front_doors(self) -> impl Iterator<Item = Ipv4Addr> {
        (0..self.proxies).map(move |copy| match copy {
            0 => self.host(),
            copy => Ipv4Addr::new(10, self.octet, 0, 250 + copy),
        })
    }

    /// The first node, and the Kubernetes API in it.
    pub fn node(self) -> Ipv4Addr {
        self.address_of(Node::FIRST)
    }

    /// A node.
    pub fn address_of(self, node: Node) -> Ipv4Addr {
        Ipv4Addr::new(10, self.octet, 0, 1 + node.0)
    }

    /// All pods, of all nodes.
    pub fn pods(self) -> String {
        format!("10.{}.64.0/18", self.octet)
    }

    /// The pods of a node.
    pub fn pods_of(self, node: Node) -> String {
        format!("10.{}.{}.0/24", self.octet, 63 + node.0)
    }

    /// All services.
    pub fn services(self) -> String {
        format!("10.{}.128.0/18", self.octet)
    }

    /// The service with this number.
    pub fn service(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.octet, 128, number)
    }

    /// The bridge on the host.
    pub fn bridge(self) -> String {
        format!("hearth{}", self.octet)
    }

    /// The network namespace of a node.
    pub fn namespace_of(self, node: Node) -> String {
        if node == Node::FIRST { self.bridge() } else { format!("hearth{}n{}", self.octet, node.0) }
    }

    /// The host's end of the way to a node.
    pub fn device_of(self, node: Node) -> String {
        if node == Node::FIRST { format!("hearthv{}", self.octet) } else { format!("hearthv{}n{}", self.octet, node.0) }
    }
}

/// The services whose addresses are fixed, since something outside the cluster is configured with them.
pub mod service {
    /// Cluster DNS.
    pub const DNS: u8 = 10;
    /// The bastion's ssh.
    pub const BASTION: u8 = 22;
    /// The registry.
    pub const REGISTRY: u8 = 50;
    /// The registry's token service.
    pub const REGISTRY_AUTH: u8 = 51;
    /// The directory.
    pub const LDAP: u8 = 89;
}

impl Instance {
    /// The instance at a place; chooses its network if it is new.
    pub fn open(place: Place) -> anyhow::Result<Self> {
        if !place.address.is_loopback() {
            bail!(
                "HEARTH_ADDRESS is {}; it must be an address of this machine, 127.0.0.1 to 127.255.255.254",
                place.address
            );
        }
        let file = place.home.join("instance.json");
        let network = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!(
                    "{} is damaged; write {{\"octet\": N}} into it, N being the second byte of the addresses in {}",
                    file.display(),
                    place.home.join("platform.toml").display()
                )
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let network = choose_network(&place.home)?;
                std::fs::create_dir_all(&place.home)
                    .with_context(|| format!("failed to make {}", place.home.display()))?;
                write(&file, serde_json::to_string(&network)?, 0o644)?;
                network
            }
            Err(e) => return Err(e).with_context(|| format!("failed to read {}", file.display())),
        };
        Ok(Self { place, network })
    }

    /// The instance at a place, if there is one.
    pub fn existing(place: Place) -> anyhow::Result<Option<Self>> {
        if place.home.join("instance.json").exists() { Self::open(place).map(Some) } else { Ok(None) }
    }

    /// Changes how many nodes and front doors it has, and writes that down for every later `up`.
    pub fn resize(&mut self, nodes: Option<u8>, proxies: Option<u8>) -> anyhow::Result<()> {
        self.network.nodes = nodes.unwrap_or(self.network.nodes);
        self.network.proxies = proxies.unwrap_or(self.network.proxies);
        write(&self.path("instance.json"), serde_json::to_string(&self.network)?, 0o644).map(drop)
    }

    /// The addresses of the front doors on the host: the instance's own, and those after it.
    pub fn front_doors(&self) -> Vec<Ipv4Addr> {
        let first = u32::from(self.place.address);
        (0..self.network.proxies).map(|copy| Ipv4Addr::from(first.wrapping_add(u32::from(copy)))).collect()
    }

    /// A path below the instance's home.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.place.home.join(relative)
    }

    /// A path below the instance's home, as text.
    pub fn text(&self, relative: impl AsRef<Path>) -> String {
        self.path(relative).display().to_string()
    }

    /// A program that was built from Go modules, in the cache that instances share.
    pub fn built(&self, name: &str) -> String {
        self.place.cache.join("bin").join(name).display().to_string()
    }

    /// One of Hearth's own programs: each instance has its own copies, so that building anew changes nothing that runs.
    pub fn own_program(&self, name: &str) -> String {
        self.text(format!("bin/{name}"))
    }

    /// Whether this is the instance that may put commands on the host's PATH.
    pub fn is_default(&self) -> bool {
        self.place.home == Path::new(DEFAULT_HOME)
    }

    /// The domain of the tools.
    pub fn domain(&self) -> &'static str {
        "hearth.localhost"
    }
}

/// Writes a file beside its place and renames it, so that nobody ever sees half of it. Leaves it alone if it already
/// holds just that.
pub fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) -> anyhow::Result<bool> {
    use std::io::Write;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let content = content.as_ref();
    if std::fs::read(path).is_ok_and(|old| old == content) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        return Ok(false);
    }
    let beside = path.with_extension("new");
    let put = || -> std::io::Result<()> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let _ = std::fs::remove_file(&beside);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    put().with_context(|| format!("failed to write {}", path.display()))?;
    Ok(true)
}

/// The default instance gets 10.80, any other a number of its home's name; then the first that no route uses.
fn choose_network(home: &Path) -> anyhow::Result<Network> {
    let routes = Run::new("ip").args(["-4", "route", "show", "table", "all"]).output()?;
    let first = if home == Path::new(DEFAULT_HOME) {
        80
    } else {
        let sum = home
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .fold(7u32, |sum, b| sum.wrapping_mul(31).wrapping_add(u32::from(*b)));
        81 + sum % 120
    };
    let free = |octet: &u32| !routes.contains(&format!("10.{octet}."));
    let octet = (first..201).chain(81..first).find(free);
    let octet = octet.context(
        "all of 10.80.0.0 to 10.200.255.255 is routed already; the instance needs one 10.x.0.0/16 for itself",
    )?;
    Ok(Network { octet: u8::try_from(octet)?, nodes: 1, proxies: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(home: &Path) -> Place {
        Place { home: home.to_owned(), address: Ipv4Addr::new(127, 0, 0, 9), cache: home.join("cache") }
    }

    #[test]
    fn an_instance_keeps_its_network() {
        let home = tempfile::tempdir().unwrap();
        let first = Instance::open(place(home.path())).unwrap();
        let again = Instance::existing(place(home.path())).unwrap().unwrap();
        assert_eq!(first.network, again.network);
        assert!(!first.is_default());
        assert_eq!(first.network.service(service::DNS).octets()[..2], first.network.node().octets()[..2]);
    }

    #[test]
    fn an_instance_keeps_its_size() {
        let home = tempfile::tempdir().unwrap();
        let mut first = Instance::open(place(home.path())).unwrap();
        assert_eq!((first.network.nodes, first.front_doors().len()), (1, 1));
        first.resize(Some(3), Some(2)).unwrap();
        first.resize(None, None).unwrap();
        let again = Instance::open(place(home.path())).unwrap();
        assert_eq!(again.network.all_nodes().map(Node::name).collect::<Vec<_>>(), ["node1", "node2", "node3"]);
        assert_eq!(again.front_doors(), [Ipv4Addr::new(127, 0, 0, 9), Ipv4Addr::new(127, 0, 0, 10)]);
        assert_eq!(Node(2).file("run/a"), "nodes/node2/run/a");
        // An instance of an earlier version has said nothing of either.
        std::fs::write(home.path().join("instance.json"), "{\"octet\":90}").unwrap();
        assert_eq!(Instance::open(place(home.path())).unwrap().network.nodes, 1);
    }

    #[test]
    fn what_cannot_be_an_instance_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let outside = Place { address: Ipv4Addr::new(10, 0, 0, 1), ..place(home.path()) };
        assert!(Instance::open(outside).unwrap_err().to_string().contains("must be an address of this machine"));
        std::fs::write(home.path().join("instance.json"), "{\"octet\":").unwrap();
        let damaged = Instance::open(place(home.path())).unwrap_err();
        assert!(damaged.to_string().contains("instance.json is damaged; write {\"octet\": N} into it"), "{damaged}");
    }

    #[test]
    fn a_file_that_is_right_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/file");
        assert!(write(&file, "one", 0o600).unwrap());
        assert!(!write(&file, "one", 0o600).unwrap());
        assert!(write(&file, "two", 0o644).unwrap());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(std::fs::read_dir(folder.path().join("deep")).unwrap().count(), 1, "nothing is left beside");
    }
}
