//! What is known of one tool: the facts of its objects, and the sub-table that follows from them.
//!
//! It is put together when one of them changes and taken apart again; between changes the facts rest as bytes (module
//! `record`).
//!
//! It never looks at another tool.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::facts::{
    Entry, Fact, GridFact, IngressFact, Kind, NamespaceFact, PortFact, PortRef, Protocol, ServiceFact, SliceFact,
};
use super::path::{self, Matcher};
use super::table::{Backend, Route, Served, ToolRoutes};
use crate::host::Place;
use crate::{Host, ToolName, names};

/// The facts of a tool's objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) namespace: Option<NamespaceFact>,
    pub(super) ingresses: BTreeMap<String, IngressFact>,
    pub(super) services: BTreeMap<String, ServiceFact>,
    pub(super) slices: BTreeMap<String, SliceFact>,
    pub(super) grid: Option<(String, GridFact)>,
    /// Objects that a list which has begun did not show yet. A namespace has no name here.
    pub(super) unseen: BTreeSet<(Kind, String)>,
}

impl Known {
    /// Takes an object. Returns whether it says something new.
    pub(super) fn set(&mut self, Entry { name, fact, .. }: Entry) -> bool {
        fn put<T: PartialEq>(map: &mut BTreeMap<String, T>, name: String, fact: T) -> bool {
            if map.get(&name) == Some(&fact) {
                return false;
            }
            map.insert(name, fact);
            true
        }
        self.see(fact.kind(), &name);
        match fact {
            Fact::Namespace(fact) => self.namespace.replace(fact) != self.namespace,
            Fact::Ingress(fact) => put(&mut self.ingresses, name, fact),
            Fact::Service(fact) => put(&mut self.services, name, fact),
            Fact::EndpointSlice(fact) => put(&mut self.slices, name, fact),
            Fact::Grid(fact) => self.grid.replace((name, fact)) != self.grid,
        }
    }

    /// Forgets an object. Returns whether it was known.
    pub(super) fn remove(&mut self, kind: Kind, name: &str) -> bool {
        self.see(kind, name);
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

    /// From now on, all objects of a kind have to be seen again.
    pub(super) fn doubt(&mut self, kind: Kind) {
        let names: Vec<String> = match kind {
            Kind::Namespace => self.namespace.iter().map(|_| String::new()).collect(),
            Kind::Ingress => self.ingresses.keys().cloned().collect(),
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::EndpointSlice => self.grid.iter().map(|(name, _)| name).chain(self.slices.keys()).cloned().collect(),
        };
        self.unseen.extend(names.into_iter().map(|name| (kind, name)));
    }

    /// Forgets the objects of a kind that have not been seen since. Returns whether there were any.
    pub(super) fn forget_unseen(&mut self, kind: Kind) -> bool {
        let gone: Vec<_> = self.unseen.iter().filter(|(of, _)| *of == kind).cloned().collect();
        gone.iter().fold(false, |changed, (_, name)| self.remove(kind, name) | changed)
    }

    fn see(&mut self, kind: Kind, name: &str) {
        if !self.unseen.is_empty() {
            let name = if kind == Kind::Namespace { "" } else { name };
            self.unseen.remove(&(kind, name.to_owned()));
        }
    }

    /// All of it, as entries.
    pub(super) fn into_entries(self, tool: ToolName) -> impl Iterator<Item = Entry> {
        let namespace = self.namespace.map(|fact| (tool.namespace(), Fact::Namespace(fact)));
        let ingresses = self.ingresses.into_iter().map(|(name, fact)| (name, Fact::Ingress(fact)));
        let services = self.services.into_iter().map(|(name, fact)| (name, Fact::Service(fact)));
        let slices = self.slices.into_iter().map(|(name, fact)| (name, Fact::EndpointSlice(fact)));
        let grid = self.grid.map(|(name, fact)| (name, Fact::Grid(fact)));
        let facts = namespace.into_iter().chain(ingresses).chain(services).chain(slices).chain(grid);
        facts.map(move |(name, fact)| Entry { tool: tool.clone(), name, fact })
    }

    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.namespace.is_none()
            && self.ingresses.is_empty()
            && self.services.is_empty()
            && self.slices.is_empty()
            && self.grid.is_none()
    }

    /// The tool's sub-table, if there is such a tool, and the backend of the platform's pages, if this is their tool.
    pub(super) fn routes(&self, tool: &ToolName, served: &Served) -> (Option<ToolRoutes>, Option<Arc<Backend>>) {
        let Some(namespace) = &self.namespace else { return (None, None) };
        let mut backends = Backends { tool, known: self, made: HashMap::new() };
        let pages = || backends.get(names::FOUROHFOUR, Some(&PortRef::Number(names::WEB_PORT)));
        let fallback = (tool.as_str() == names::FOUROHFOUR).then(pages);
        let routes = if namespace.disabled { Box::default() } else { backends.routes(served) };
        (Some(ToolRoutes { name: tool.clone(), routes }), fallback.filter(|backend| !backend.addresses.is_empty()))
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
            Arc::new(Backend { tool: tool.clone(), addresses: addresses.into(), protocol, on_grid: false })
        };
        self.made.entry((service.to_owned(), port.cloned())).or_insert_with(make).clone()
    }

    /// The routes of every host that is the tool's own: all to the grid where it has registered there, else those
    /// that its Ingresses name.
    fn routes(&mut self, served: &Served) -> Box<[Route]> {
        let on_legacy = served.legacy_tools.contains(self.tool);
        if let Some((_, GridFact { address, ready })) = &self.known.grid {
            let addresses = ready.then_some(*address).into_iter().collect();
            let backend =
                Arc::new(Backend { tool: self.tool.clone(), addresses, protocol: Protocol::Http1, on_grid: true });
            let own = served.domains.hosts_of(self.tool).into_iter().map(|host| (host, "/".to_owned()));
            let legacy = on_legacy.then(|| (served.domains.legacy.clone(), format!("/{}", self.tool)));
            let all = |(host, path): (Host, String)| {
                Some(Route { matcher: Matcher::new(served.site(&host)?, &path, false), backend: backend.clone() })
            };
            return own.chain(legacy).filter_map(all).collect();
        }
        let mut ingresses: Vec<_> = self.known.ingresses.iter().collect();
        // One without a time is not in the API yet, so it comes last.
        ingresses.sort_by_key(|(name, ingress)| (ingress.created.is_none(), ingress.created, *name));
        let mut routes: Vec<Route> = Vec::new();
        for path in ingresses.iter().flat_map(|(_, ingress)| &ingress.paths) {
            let is_own = match served.domains.place(&path.host) {
                Place::Tool(owner) => owner == *self.tool,
                Place::Legacy => on_legacy && path::split_first(&path.path).0 == self.tool.as_str(),
                Place::Apex | Place::Elsewhere => false,
            };
            let Some(site) = served.site(&path.host).filter(|_| is_own) else { continue };
            let matcher = Matcher::new(site, &path.path, path.exact);
            if routes.iter().all(|route| route.matcher != matcher) {
                routes.push(Route { matcher, backend: self.get(&path.service, path.port.as_ref()) });
            }
        }
        routes.sort_by_key(|route| route.matcher.precedence());
        routes.into_boxed_slice()
    }
}
