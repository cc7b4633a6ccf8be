//! From changes of objects to tables.
//!
//! The index keeps the facts of every tool and one table. A change that alters a fact rebuilds the sub-table of that
//! tool only; one that alters nothing (a new resourceVersion, a status) is noticed and costs a comparison.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::facts::{
    Entry, Fact, GridFact, IngressFact, Kind, NamespaceFact, PathFact, PortFact, PortRef, Protocol, ServiceFact,
    SliceFact,
};
use super::path::{self, Matcher};
use super::table::{Backend, Route, Served, Table, ToolRoutes};
use crate::host::Place;
use crate::{Host, ToolName, names};

/// A change of what is known of the cluster.
#[derive(Clone, Debug)]
pub enum Change {
    /// An object is now so.
    Set(Entry),
    /// An object is gone, or does not concern the front door any more.
    Remove(Kind, ToolName, String),
    /// These are all the objects of a kind.
    Replace(Kind, Vec<Entry>),
}

/// Everything that is known, and the table that follows from it.
#[derive(Clone, Debug)]
pub struct Index {
    tools: HashMap<ToolName, Known>,
    table: Table,
}

/// What is known of a tool.
#[derive(Clone, Debug, Default)]
struct Known {
    namespace: Option<NamespaceFact>,
    ingresses: BTreeMap<String, IngressFact>,
    services: BTreeMap<String, ServiceFact>,
    slices: BTreeMap<String, SliceFact>,
    grid: Option<(String, GridFact)>,
}

impl Index {
    /// An index that knows nothing.
    pub fn new(served: impl Into<Served>) -> Self {
        Self { tools: HashMap::new(), table: Table::empty(served) }
    }

    /// Takes a change. Returns whether anything is different now.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Set(entry) => {
                let tool = entry.tool.clone();
                let changed = self.tools.entry(tool.clone()).or_default().set(entry);
                if changed {
                    self.rebuild(&tool);
                }
                changed
            }
            Change::Remove(kind, tool, name) => {
                let changed = self.tools.get_mut(&tool).is_some_and(|known| known.remove(kind, &name));
                if changed {
                    self.rebuild(&tool);
                }
                changed
            }
            Change::Replace(kind, entries) => self.replace(kind, entries),
        }
    }

    /// The table as it is now. It does not change any more.
    pub fn table(&self) -> Arc<Table> {
        Arc::new(self.table.clone())
    }

    /// Everything that is known, to be kept and given to another index by [`Change::Replace`].
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.tools.iter().flat_map(|(tool, known)| known.entries(tool))
    }

    fn replace(&mut self, kind: Kind, entries: Vec<Entry>) -> bool {
        let mut gone: BTreeSet<(ToolName, String)> = BTreeSet::new();
        for (tool, known) in &self.tools {
            gone.extend(known.names(kind, tool).into_iter().map(|name| (tool.clone(), name)));
        }
        let mut touched = BTreeSet::new();
        for entry in entries.into_iter().filter(|entry| entry.fact.kind() == kind) {
            let key = (entry.tool.clone(), entry.name.clone());
            gone.remove(&key);
            if self.tools.entry(key.0.clone()).or_default().set(entry) {
                touched.insert(key.0);
            }
        }
        for (tool, name) in gone {
            if self.tools.get_mut(&tool).is_some_and(|known| known.remove(kind, &name)) {
                touched.insert(tool);
            }
        }
        for tool in &touched {
            self.rebuild(tool);
        }
        !touched.is_empty()
    }

    fn rebuild(&mut self, tool: &ToolName) {
        let Some(known) = self.tools.get(tool) else { return };
        let mut backends = Backends { tool, known, made: HashMap::new() };
        let is_fallback = tool.as_str() == names::FOUROHFOUR && known.namespace.is_some();
        let fallback = is_fallback.then(|| backends.get(names::FOUROHFOUR, Some(&PortRef::Number(names::WEB_PORT))));
        let fallback = fallback.filter(|backend| !backend.addresses.is_empty());
        let routes = known.namespace.as_ref().map(|namespace| {
            let hosts = if namespace.disabled { Vec::new() } else { backends.hosts(self.table.served()) };
            ToolRoutes { name: tool.clone(), hosts }
        });
        self.table.put(tool, routes, fallback);
        if known.is_empty() {
            self.tools.remove(tool);
        }
    }
}

// === impl Known ===

impl Known {
    fn set(&mut self, entry: Entry) -> bool {
        fn put<T: PartialEq>(map: &mut BTreeMap<String, T>, name: String, fact: T) -> bool {
            if map.get(&name) == Some(&fact) {
                return false;
            }
            map.insert(name, fact);
            true
        }
        match entry.fact {
            Fact::Namespace(fact) => {
                let changed = self.namespace.as_ref() != Some(&fact);
                self.namespace = Some(fact);
                changed
            }
            Fact::Ingress(fact) => put(&mut self.ingresses, entry.name, fact),
            Fact::Service(fact) => put(&mut self.services, entry.name, fact),
            Fact::EndpointSlice(fact) => put(&mut self.slices, entry.name, fact),
            Fact::Grid(fact) => {
                let new = Some((entry.name, fact));
                let changed = self.grid != new;
                self.grid = new;
                changed
            }
        }
    }

    fn remove(&mut self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Namespace => self.namespace.take().is_some(),
            Kind::Ingress => self.ingresses.remove(name).is_some(),
            Kind::Service => self.services.remove(name).is_some(),
            Kind::EndpointSlice => {
                let on_grid = self.grid.take_if(|(own, _)| own == name).is_some();
                on_grid || self.slices.remove(name).is_some()
            }
        }
    }

    fn names(&self, kind: Kind, tool: &ToolName) -> Vec<String> {
        match kind {
            Kind::Namespace => self.namespace.iter().map(|_| tool.namespace()).collect(),
            Kind::Ingress => self.ingresses.keys().cloned().collect(),
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::EndpointSlice => self.grid.iter().map(|(name, _)| name).chain(self.slices.keys()).cloned().collect(),
        }
    }

    fn entries(&self, tool: &ToolName) -> impl Iterator<Item = Entry> {
        let namespace = self.namespace.iter().map(|fact| (tool.namespace(), Fact::Namespace(fact.clone())));
        let ingresses = self.ingresses.iter().map(|(name, fact)| (name.clone(), Fact::Ingress(fact.clone())));
        let services = self.services.iter().map(|(name, fact)| (name.clone(), Fact::Service(fact.clone())));
        let slices = self.slices.iter().map(|(name, fact)| (name.clone(), Fact::EndpointSlice(fact.clone())));
        let grid = self.grid.iter().map(|(name, fact)| (name.clone(), Fact::Grid(fact.clone())));
        let facts = namespace.chain(ingresses).chain(services).chain(slices).chain(grid);
        facts.map(|(name, fact)| Entry { tool: tool.clone(), name, fact })
    }

    fn is_empty(&self) -> bool {
        self.namespace.is_none()
            && self.ingresses.is_empty()
            && self.services.is_empty()
            && self.slices.is_empty()
            && self.grid.is_none()
    }

    /// The addresses of a port of a service: those that are ready or, without one, those that end but still serve.
    ///
    /// Of two families the service's first is taken, so that a pod with an address of each is in the list once and a
    /// second attempt goes to another pod. Hints for zones and nodes are for those that are in one: the front door is
    /// in none, and the API has whoever is in none take every address. Traffic policies and affinity are orders to
    /// the service's own address, which is not dialled.
    fn addresses(&self, service: &str, port: &PortRef) -> Option<(Vec<SocketAddr>, Protocol)> {
        let is_meant = |known: &&PortFact| match port {
            PortRef::Name(name) => known.name == *name,
            PortRef::Number(number) => known.number == *number,
        };
        let known = self.services.get(service)?;
        let port = known.ports.iter().find(is_meant)?;
        let slices = || self.slices.values().filter(|slice| slice.service == service);
        let pick = |of: fn(&SliceFact) -> &Vec<IpAddr>| {
            let mut found: Vec<SocketAddr> = Vec::new();
            for slice in slices() {
                if let Some(target) = slice.ports.iter().find(|target| target.name == port.name) {
                    found.extend(of(slice).iter().map(|address| SocketAddr::new(*address, target.number)));
                }
            }
            // While slices are rewritten, an address may be in two of them.
            found.sort_unstable();
            found.dedup();
            if found.iter().any(|address| address.is_ipv6() == known.prefers_ipv6) {
                found.retain(|address| address.is_ipv6() == known.prefers_ipv6);
            }
            found
        };
        let ready = pick(|slice| &slice.ready);
        Some((if ready.is_empty() { pick(|slice| &slice.draining) } else { ready }, port.protocol))
    }
}

/// The backends of a tool while its sub-table is made: paths that lead to the same port share one.
struct Backends<'a> {
    tool: &'a ToolName,
    known: &'a Known,
    made: HashMap<(String, Option<PortRef>), Arc<Backend>>,
}

impl Backends<'_> {
    fn get(&mut self, service: &str, port: Option<&PortRef>) -> Arc<Backend> {
        let (tool, known) = (self.tool, self.known);
        let make = || {
            let found = port.and_then(|port| known.addresses(service, port));
            let (addresses, protocol) = found.unwrap_or_default();
            Arc::new(Backend { tool: tool.clone(), addresses, protocol, on_grid: false })
        };
        self.made.entry((service.to_owned(), port.cloned())).or_insert_with(make).clone()
    }

    /// The routes of every host that is the tool's own: all to the grid where it has registered there, else those
    /// that its Ingresses name.
    fn hosts(&mut self, served: &Served) -> Vec<(Host, Vec<Route>)> {
        let Served { domains, legacy_tools } = served;
        let on_legacy = legacy_tools.contains(self.tool);
        if let Some((_, GridFact { address, ready })) = &self.known.grid {
            let addresses = ready.then_some(*address).into_iter().collect();
            let backend =
                Arc::new(Backend { tool: self.tool.clone(), addresses, protocol: Protocol::Http1, on_grid: true });
            let all = |path: &str| vec![Route { matcher: Matcher::new(path, false), backend: backend.clone() }];
            let legacy = on_legacy.then(|| (domains.legacy.clone(), all(&format!("/{}", self.tool))));
            return domains.hosts_of(self.tool).into_iter().map(|host| (host, all("/"))).chain(legacy).collect();
        }
        let mut ingresses: Vec<_> = self.known.ingresses.iter().collect();
        // One without a time is not in the API yet, so it comes last.
        ingresses.sort_by_key(|(name, ingress)| (ingress.created.is_none(), ingress.created, *name));
        let mut hosts: BTreeMap<&Host, Vec<&PathFact>> = BTreeMap::new();
        for path in ingresses.iter().flat_map(|(_, ingress)| &ingress.paths) {
            let is_own = match domains.place(&path.host) {
                Place::Tool(owner) => owner == *self.tool,
                Place::Legacy => on_legacy && path::split_first(&path.path).0 == self.tool.as_str(),
                Place::Apex | Place::Elsewhere => false,
            };
            if is_own {
                hosts.entry(&path.host).or_default().push(path);
            }
        }
        let mut made = Vec::new();
        for (host, paths) in hosts {
            let mut routes: Vec<Route> = Vec::new();
            for path in paths {
                let matcher = Matcher::new(&path.path, path.exact);
                if routes.iter().all(|route| route.matcher != matcher) {
                    routes.push(Route { matcher, backend: self.get(&path.service, path.port.as_ref()) });
                }
            }
            routes.sort_by_key(|route| route.matcher.precedence());
            made.push((host.clone(), routes));
        }
        made
    }
}
