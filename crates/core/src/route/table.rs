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
    /// The lists are sorted by name: a look-up costs the same whatever names a client thinks up.
    shards: Vec<Arc<Vec<Arc<ToolRoutes>>>>,
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
    pub addresses: Box<[SocketAddr]>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Whether it runs on the grid, where nobody but the registrar knows whose an address is. From a stale table it is
    /// never dialled, by whomsoever: the answer is 503.
    pub on_grid: bool,
}

/// The sub-table of a tool.
#[derive(Debug)]
pub(super) struct ToolRoutes {
    pub(super) name: ToolName,
    /// A disabled tool has no hosts here.
    pub(super) hosts: Box<[HostRoutes]>,
}

/// The routes of one host of a tool, in the order in which they are tried. Which host it is is said by its domain
/// ([`Served::site`]), since the rest of it is the tool's name.
#[derive(Debug)]
pub(super) struct HostRoutes {
    pub(super) site: u16,
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
        let shard = self.shards.get(shard_of(name))?;
        let at = shard.binary_search_by(|routes| routes.name.cmp(name)).ok()?;
        shard.get(at).map(Arc::as_ref)
    }

    /// Replaces the sub-table of a tool, or removes it.
    pub(super) fn put(&mut self, name: &ToolName, routes: Option<ToolRoutes>, fallback: Option<Arc<Backend>>) {
        if name.as_str() == names::FOUROHFOUR {
            self.fallback = fallback;
        }
        let Some(shard) = self.shards.get_mut(shard_of(name)).map(Arc::make_mut) else { return };
        match (shard.binary_search_by(|routes| routes.name.cmp(name)), routes) {
            (Ok(at), Some(routes)) => {
                if let Some(place) = shard.get_mut(at) {
                    *place = Arc::new(routes);
                }
            }
            (Ok(at), None) => {
                shard.remove(at);
                self.tools -= 1;
            }
            (Err(at), Some(routes)) => {
                shard.insert(at, Arc::new(routes));
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
        let host = self.hosts.iter().find(|host| Some(host.site) == site)?;
        host.routes.iter().find(|route| route.matcher.matches(path))
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

/// FNV-1a. Nobody gains from collisions: the lists hold existing tools only and are searched in halves.
fn shard_of(name: &ToolName) -> usize {
    let hash = name
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    usize::try_from((hash ^ (hash >> 32)) % SHARDS as u64).unwrap_or_default()
}
