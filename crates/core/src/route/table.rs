//! The immutable table, and the decision where a request goes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::host::{Domains, Host, Place};
use crate::route::facts::Protocol;
use crate::route::path::{self, Matcher};
use crate::{ToolName, names};

/// Into how many lists the tools are divided. A change copies one list and the pointers to all of them, so that with
/// 100,000 tools it copies some 650 pointers instead of 100,000.
const SHARDS: usize = 256;

/// The site of the legacy host.
const LEGACY: u16 = u16::MAX;

/// What a table serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The domains.
    pub domains: Domains,
    /// Tools that are served below `/<tool>/` of the legacy host, as far as their Ingresses name it.
    pub legacy_tools: BTreeSet<ToolName>,
}

/// Where requests go, for every tool of the platform. Cloning it copies pointers only.
#[derive(Clone, Debug)]
pub struct Table {
    served: Arc<Served>,
    shards: Vec<Arc<Shard>>,
    fallback: Option<Arc<Backend>>,
    tools: usize,
}

/// What a table says about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// An address of the legacy host whose page is on the tool's own host now: 308.
    Redirect {
        /// Whose page.
        tool: ToolName,
        /// The tool's own host.
        host: Host,
        /// The path there; the query is kept.
        path: String,
    },
    /// A web service with at least one address.
    Endpoints(Arc<Backend>),
    /// The tool exists, and nothing is served at this host and path, or the tool is disabled.
    NoWebService(ToolName),
    /// The tool has a web service that has no ready endpoint.
    Unavailable(ToolName),
    /// No tool has this name.
    UnknownTool(ToolName),
    /// The platform's own domain, or the legacy host without a tool.
    Apex,
    /// Nothing of the platform can have this address.
    Elsewhere,
    /// The path can be read in two ways that lead to different places: 400.
    Ambiguous,
}

/// The addresses of one port of one service.
#[derive(Debug, PartialEq, Eq)]
pub struct Backend {
    /// Whose service it is.
    pub tool: ToolName,
    /// What may be dialled; sorted, each once.
    pub addresses: Addresses,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Whether it runs on the grid, where nobody but the registrar knows whose an address is. From a stale table it is
    /// never dialled, by whomsoever: the answer is 503.
    pub on_grid: bool,
}

/// The addresses of a backend. Most have one, which then needs no list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(List);

#[derive(Clone, Debug, PartialEq, Eq)]
enum List {
    One(SocketAddr),
    Many(Box<[SocketAddr]>),
}

/// Tools whose names' hashes begin alike, sorted by the rest of the hashes. These stand together, apart from what they
/// lead to, so that a look-up in a large table touches as little memory as in a small one.
#[derive(Clone, Debug, Default)]
struct Shard {
    hashes: Vec<u32>,
    tools: Vec<Arc<ToolRoutes>>,
}

/// The sub-table of a tool.
#[derive(Debug)]
pub(super) struct ToolRoutes {
    pub(super) name: ToolName,
    /// A disabled tool has no hosts here.
    /// The routes of all its hosts; those of one stand in the order in which they are tried.
    pub(super) routes: Box<[Route]>,
}

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) matcher: Matcher,
    pub(super) backend: Arc<Backend>,
}

impl Table {
    /// A table without tools.
    pub fn empty(served: impl Into<Served>) -> Self {
        Self { served: Arc::new(served.into()), shards: vec![Arc::default(); SHARDS], fallback: None, tools: 0 }
    }

    /// Where a request for `path` (as sent, without the query) on `host` goes.
    pub fn route(&self, host: &Host, path: &str) -> Decision {
        let decision = self.read(host, path);
        match path::second_reading(path) {
            Some(other) if !decision.leads_where(&self.read(host, &other)) => Decision::Ambiguous,
            _ => decision,
        }
    }

    /// The service of the pages for whatever has no web service: port 8000 of the Service `fourohfour`.
    pub fn fallback(&self) -> Option<&Arc<Backend>> {
        self.fallback.as_ref()
    }

    /// The domains that the table serves.
    pub fn domains(&self) -> &Domains {
        &self.served.domains
    }

    /// What the table serves.
    pub(super) fn served(&self) -> &Arc<Served> {
        &self.served
    }

    /// How many tools there are.
    pub fn tools(&self) -> usize {
        self.tools
    }

    /// Whether a tool of this name exists.
    pub fn knows(&self, tool: &ToolName) -> bool {
        self.tool(tool).is_some()
    }

    fn read(&self, host: &Host, path: &str) -> Decision {
        match self.domains().place(host) {
            Place::Apex => Decision::Apex,
            Place::Elsewhere => Decision::Elsewhere,
            Place::Legacy => self.legacy(host, path),
            Place::Tool(tool) => match self.tool(&tool) {
                Some(routes) => routes.route(self.served.site(host), path),
                None => Decision::UnknownTool(tool),
            },
        }
    }

    fn legacy(&self, host: &Host, path: &str) -> Decision {
        let (first, rest) = path::split_first(path);
        if first.is_empty() {
            return Decision::Apex;
        }
        let Ok(tool) = first.parse::<ToolName>() else { return Decision::Elsewhere };
        let Some(routes) = self.tool(&tool) else { return Decision::UnknownTool(tool) };
        let moved = || Decision::Redirect { host: self.domains().host_of(&tool), path: rest.to_owned(), tool };
        routes.find(self.served.site(host), path).map_or_else(moved, |route| routes.decide(route))
    }

    fn tool(&self, name: &ToolName) -> Option<&ToolRoutes> {
        let (shard, hash) = hash(name);
        let shard = self.shards.get(shard)?;
        let at = shard.find(hash, name).ok()?;
        shard.tools.get(at).map(Arc::as_ref)
    }

    /// Replaces the sub-table of a tool, or removes it.
    pub(super) fn put(&mut self, name: &ToolName, routes: Option<ToolRoutes>, fallback: Option<Arc<Backend>>) {
        if name.as_str() == names::FOUROHFOUR {
            self.fallback = fallback;
        }
        let (shard, hash) = hash(name);
        let Some(shard) = self.shards.get_mut(shard) else { return };
        match (shard.find(hash, name), routes) {
            (Ok(at), Some(routes)) => {
                if let Some(place) = Arc::make_mut(shard).tools.get_mut(at) {
                    *place = Arc::new(routes);
                }
            }
            (Ok(at), None) => {
                let shard = Arc::make_mut(shard);
                shard.hashes.remove(at);
                shard.tools.remove(at);
                self.tools -= 1;
            }
            (Err(at), Some(routes)) => {
                let shard = Arc::make_mut(shard);
                shard.hashes.insert(at, hash);
                shard.tools.insert(at, Arc::new(routes));
                self.tools += 1;
            }
            (Err(_), None) => (),
        }
    }
}

impl Decision {
    /// The tool that the request is about, where it is about one.
    pub fn tool(&self) -> Option<&ToolName> {
        match self {
            Self::Endpoints(backend) => Some(&backend.tool),
            Self::Redirect { tool, .. }
            | Self::NoWebService(tool)
            | Self::Unavailable(tool)
            | Self::UnknownTool(tool) => Some(tool),
            Self::Apex | Self::Elsewhere | Self::Ambiguous => None,
        }
    }

    /// Whether it leads to the grid, to which only the front door itself knows a way.
    pub fn is_on_grid(&self) -> bool {
        matches!(self, Self::Endpoints(backend) if backend.on_grid)
    }

    /// Whether two readings of a path lead to the same place. Redirects do when they lead to the same tool: which
    /// path is meant is then for that tool to say.
    fn leads_where(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Endpoints(one), Self::Endpoints(two)) => Arc::ptr_eq(one, two),
            (Self::Redirect { tool: one, .. }, Self::Redirect { tool: two, .. }) => one == two,
            _ => self == other,
        }
    }
}

// === impl ToolRoutes ===

impl ToolRoutes {
    fn route(&self, site: Option<u16>, path: &str) -> Decision {
        let route = self.find(site, path);
        route.map_or_else(|| Decision::NoWebService(self.name.clone()), |route| self.decide(route))
    }

    fn find(&self, site: Option<u16>, path: &str) -> Option<&Route> {
        let site = site?;
        self.routes.iter().find(|route| route.matcher.site == site && route.matcher.matches(path))
    }

    fn decide(&self, route: &Route) -> Decision {
        if route.backend.addresses.is_empty() {
            return Decision::Unavailable(self.name.clone());
        }
        Decision::Endpoints(route.backend.clone())
    }
}

// === impl Served ===

impl Served {
    /// What tells the hosts of one tool apart: the number of the domain that the host is below, or that it is the legacy
    /// host.
    pub(super) fn site(&self, host: &Host) -> Option<u16> {
        if *host == self.domains.legacy {
            return Some(LEGACY);
        }
        let is_below = |domain: &Host| {
            let label = host.as_str().strip_suffix(domain.as_str()).and_then(|rest| rest.strip_suffix('.'));
            label.is_some_and(|label| !label.contains('.'))
        };
        self.domains.public.iter().position(is_below).and_then(|at| u16::try_from(at).ok())
    }
}

impl From<Domains> for Served {
    /// The legacy host redirects, for all tools.
    fn from(domains: Domains) -> Self {
        Self { domains, legacy_tools: BTreeSet::new() }
    }
}

// === impl Shard ===

impl Shard {
    /// Where a tool is, or where it would be. Nobody gains from names of one hash: only tools that exist are here.
    fn find(&self, hash: u32, name: &ToolName) -> Result<usize, usize> {
        let mut at = self.hashes.partition_point(|known| *known < hash);
        while self.hashes.get(at) == Some(&hash) {
            if self.tools.get(at).is_some_and(|routes| routes.name == *name) {
                return Ok(at);
            }
            at += 1;
        }
        Err(at)
    }
}

// === impl Addresses ===

impl std::ops::Deref for Addresses {
    type Target = [SocketAddr];

    fn deref(&self) -> &[SocketAddr] {
        match &self.0 {
            List::One(address) => std::slice::from_ref(address),
            List::Many(addresses) => addresses,
        }
    }
}

impl From<Vec<SocketAddr>> for Addresses {
    fn from(addresses: Vec<SocketAddr>) -> Self {
        match addresses.as_slice() {
            [address] => Self(List::One(*address)),
            _ => Self(List::Many(addresses.into_boxed_slice())),
        }
    }
}

impl FromIterator<SocketAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = SocketAddr>>(addresses: I) -> Self {
        addresses.into_iter().collect::<Vec<_>>().into()
    }
}

impl<'a> IntoIterator for &'a Addresses {
    type Item = &'a SocketAddr;
    type IntoIter = std::slice::Iter<'a, SocketAddr>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The shard of a tool, and the rest of its hash: FNV-1a, stirred so that all bits of it depend on all of the name.
fn hash(name: &ToolName) -> (usize, u32) {
    let sum = name
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let sum = (sum ^ (sum >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let sum = (sum ^ (sum >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (usize::try_from(sum % SHARDS as u64).unwrap_or_default(), (sum >> 32) as u32)
}
