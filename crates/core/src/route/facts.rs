//! What routing keeps of the cluster's objects, read once when an object arrives.
//!
//! These types are also the format of the proxy's snapshot, so a field is only ever added with a default.
//! Whatever cannot be read is left out: it routes nothing.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::grid::{self, GridRoute, MANAGED_BY};
use crate::names::{GRID_NAMESPACE, INGRESS_CLASS, annotation};
use crate::{Host, ToolName};

/// Who writes the `EndpointSlice`s that are believed. Tools may only read them; this says so a second time.
const ENDPOINT_CONTROLLERS: &[&str] = &["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];

/// How an Ingress named its class before there was a field for it.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// The kinds of objects that shape the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A tool's namespace.
    Namespace,
    /// Which hosts and paths belong to which service.
    Ingress,
    /// Which ports a service has.
    Service,
    /// Which addresses are behind a service.
    EndpointSlice,
}

/// An object of a tool, as far as routing needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose namespace the object is in.
    pub tool: ToolName,
    /// The object's name.
    pub name: String,
    /// What it says.
    pub fact: Fact,
}

/// What an object says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// A tool exists.
    Namespace(NamespaceFact),
    /// Paths and the services that they lead to.
    Ingress(IngressFact),
    /// The ports of a service.
    Service(ServiceFact),
    /// Addresses of a service.
    EndpointSlice(SliceFact),
    /// A web service on the grid.
    Grid(GridFact),
}

/// Of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceFact {
    /// Whether the tool is disabled, as `accounts` annotated it. A disabled tool is not served.
    pub disabled: bool,
}

/// Of an Ingress of our class or of none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressFact {
    /// When it was created: the elder of two Ingresses wins.
    pub created: Option<Timestamp>,
    /// Its paths in the order written.
    pub paths: Vec<PathFact>,
}

/// One path of an Ingress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathFact {
    /// The host of its rule, as written.
    pub host: Host,
    /// The path, starting with a slash.
    pub path: String,
    /// Whether the path must be equal; else it is a prefix by segments.
    pub exact: bool,
    /// The name of the service; empty where it leads to something else (a `resource`).
    pub service: String,
    /// The port of the service. Without one the path has no answer, but a shorter path does not get its requests.
    pub port: Option<PortRef>,
}

/// A port of a service, by name or number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PortRef {
    /// `port.name`.
    Name(String),
    /// `port.number`.
    Number(u16),
}

/// Of a Service that has endpoints; one of type `ExternalName` has no ports here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceFact {
    /// Its TCP ports.
    pub ports: Vec<PortFact>,
    /// Whether the first of its address families is IPv6. Of a pod with two addresses, that family's is dialled.
    #[serde(default)]
    pub prefers_ipv6: bool,
}

/// A TCP port with its name; the only port of a service may have the empty name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortFact {
    /// The name, by which an `EndpointSlice` says what the port is on its addresses.
    pub name: String,
    /// The number: of a Service what clients name, of an `EndpointSlice` what is dialled.
    pub number: u16,
    /// What is spoken there, as a Service says.
    #[serde(default, skip_serializing_if = "Protocol::is_http1")]
    pub protocol: Protocol,
}

/// What a web service speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.1, as nearly all do.
    #[default]
    Http1,
    /// HTTP/2 without TLS, from the first byte on.
    H2c,
}

/// Of an `EndpointSlice`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceFact {
    /// The service whose addresses these are.
    pub service: String,
    /// The TCP ports of every address.
    pub ports: Vec<PortFact>,
    /// Addresses that may be given requests now.
    pub ready: Vec<IpAddr>,
    /// Addresses of pods that are ending but still serve: taken when no other address is ready, as kube-proxy does.
    pub draining: Vec<IpAddr>,
}

/// Of a route to the grid, which is an `EndpointSlice` too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridFact {
    /// Where the web service listens.
    pub address: SocketAddr,
    /// Whether its job runs.
    pub ready: bool,
}

/// An object of the Kubernetes API from which an [`Entry`] is read.
pub trait Source {
    /// Its kind.
    const KIND: Kind;

    /// The object's name and place.
    fn meta(&self) -> &ObjectMeta;

    /// Whose object this is, where it is a tool's.
    fn tool(&self) -> Option<ToolName>;

    /// What it says; nothing where it does not concern the front door.
    fn fact(&self) -> Option<Fact>;

    /// What tells the object from others of its kind and tool; empty for one without a name.
    fn name(&self) -> Cow<'_, str> {
        self.meta().name.as_deref().unwrap_or_default().into()
    }

    /// The object as the index takes it, where it is a tool's and concerns the front door.
    fn entry(&self) -> Option<Entry> {
        Some(Entry { tool: self.tool()?, name: self.name().into_owned(), fact: self.fact()? })
    }
}

impl Protocol {
    /// What the `appProtocol` of a port means. `kubernetes.io/ws` is HTTP/1.1 to begin with; so are names that somebody
    /// else gave a meaning.
    pub fn of_port(app_protocol: Option<&str>) -> Self {
        if app_protocol == Some("kubernetes.io/h2c") { Self::H2c } else { Self::Http1 }
    }

    fn is_http1(&self) -> bool {
        *self == Self::Http1
    }
}

impl Fact {
    /// The kind of object it was read from.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespace,
            Self::Ingress(_) => Kind::Ingress,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) | Self::Grid(_) => Kind::EndpointSlice,
        }
    }
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Namespace, Self::Ingress, Self::Service, Self::EndpointSlice];

    /// Its name, for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Ingress => "Ingress",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
        }
    }
}

// === impl Source ===

impl Source for core::Namespace {
    const KIND: Kind = Kind::Namespace;

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn tool(&self) -> Option<ToolName> {
        ToolName::of_namespace(self.metadata.name.as_deref()?)
    }

    fn fact(&self) -> Option<Fact> {
        let annotations = self.metadata.annotations.as_ref();
        let state = annotations.and_then(|a| a.get(annotation::STATE));
        Some(Fact::Namespace(NamespaceFact { disabled: state.is_some_and(|state| state == "disabled") }))
    }
}

impl Source for networking::Ingress {
    const KIND: Kind = Kind::Ingress;

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn tool(&self) -> Option<ToolName> {
        ToolName::of_namespace(self.metadata.namespace.as_deref()?)
    }

    fn fact(&self) -> Option<Fact> {
        let spec = self.spec.as_ref()?;
        // The API asks that the annotation be honoured wherever it is present, though it is long deprecated. One
        // without any class is from before there was a default, which is ours.
        let annotations = self.metadata.annotations.as_ref();
        let annotation = annotations.and_then(|a| a.get(CLASS_ANNOTATION)).filter(|class| !class.is_empty());
        if annotation.or(spec.ingress_class_name.as_ref()).is_some_and(|class| class != INGRESS_CLASS) {
            return None;
        }
        let mut paths = Vec::new();
        for rule in spec.rules.iter().flatten() {
            let Some(host) = rule.host.as_deref().and_then(|host| host.parse::<Host>().ok()) else { continue };
            let http = rule.http.iter().flat_map(|http| &http.paths);
            paths.extend(http.filter_map(|path| path_fact(&host, path)));
        }
        let created = self.metadata.creation_timestamp.as_ref().map(|time| time.0);
        Some(Fact::Ingress(IngressFact { created, paths }))
    }
}

impl Source for core::Service {
    const KIND: Kind = Kind::Service;

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn tool(&self) -> Option<ToolName> {
        ToolName::of_namespace(self.metadata.namespace.as_deref()?)
    }

    fn fact(&self) -> Option<Fact> {
        let spec = self.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            // Its name would be resolved to whatever its writer pleases.
            return Some(Fact::Service(ServiceFact { ports: Vec::new(), prefers_ipv6: false }));
        }
        let ports = spec.ports.iter().flatten().filter(|port| is_tcp(port.protocol.as_deref()));
        let ports = ports.filter_map(|port| {
            let fact = port_fact(port.name.as_deref(), Some(port.port))?;
            Some(PortFact { protocol: Protocol::of_port(port.app_protocol.as_deref()), ..fact })
        });
        let ports = ports.collect();
        let prefers_ipv6 = spec.ip_families.iter().flatten().next().is_some_and(|family| family == "IPv6");
        Some(Fact::Service(ServiceFact { ports, prefers_ipv6 }))
    }
}

impl Source for discovery::EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn tool(&self) -> Option<ToolName> {
        if grid::is_on_grid(self) {
            return self.metadata.name.as_deref()?.parse().ok();
        }
        ToolName::of_namespace(self.metadata.namespace.as_deref()?)
    }

    /// A slice of the tool's own may have the name of its route to the grid; no name has a slash in it.
    fn name(&self) -> Cow<'_, str> {
        match self.metadata.name.as_deref().unwrap_or_default() {
            name if grid::is_on_grid(self) => format!("{GRID_NAMESPACE}/{name}").into(),
            name => name.into(),
        }
    }

    fn fact(&self) -> Option<Fact> {
        if grid::is_on_grid(self) {
            let GridRoute { address, ready, .. } = GridRoute::of_slice(self).ok()?;
            return Some(Fact::Grid(GridFact { address, ready }));
        }
        let label = |name: &str| self.metadata.labels.as_ref().and_then(|labels| labels.get(name));
        if !label(MANAGED_BY).is_some_and(|by| ENDPOINT_CONTROLLERS.contains(&by.as_str())) {
            return None;
        }
        let service = label("kubernetes.io/service-name")?.clone();
        let ports = self.ports.iter().flatten().filter(|port| is_tcp(port.protocol.as_deref()));
        let ports = ports.filter_map(|port| port_fact(port.name.as_deref(), port.port)).collect();
        let (mut ready, mut draining) = (Vec::new(), Vec::new());
        for endpoint in self.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            // Absent means ready, as the API says; what is ready also serves, and nothing ends unless it says so.
            let is_ready = conditions.ready.unwrap_or(true);
            let list = if is_ready {
                &mut ready
            } else if conditions.serving.unwrap_or(is_ready) && conditions.terminating.unwrap_or(false) {
                &mut draining
            } else {
                continue;
            };
            // The addresses of one endpoint are interchangeable, and the API recommends taking the first.
            list.extend(endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok()));
        }
        Some(Fact::EndpointSlice(SliceFact { service, ports, ready, draining }))
    }
}

fn path_fact(host: &Host, path: &networking::HTTPIngressPath) -> Option<PathFact> {
    let text = path.path.as_deref().filter(|text| !text.is_empty()).unwrap_or("/");
    let service = path.backend.service.as_ref();
    text.starts_with('/').then(|| PathFact {
        host: host.clone(),
        path: text.to_owned(),
        exact: path.path_type == "Exact",
        service: service.map(|service| service.name.clone()).unwrap_or_default(),
        port: service.and_then(|service| service.port.as_ref()).and_then(port_ref),
    })
}

fn port_ref(port: &networking::ServiceBackendPort) -> Option<PortRef> {
    match (&port.name, port.number) {
        (Some(name), _) => Some(PortRef::Name(name.clone())),
        (None, Some(number)) => Some(PortRef::Number(u16::try_from(number).ok()?)),
        (None, None) => None,
    }
}

fn port_fact(name: Option<&str>, number: Option<i32>) -> Option<PortFact> {
    let number = u16::try_from(number?).ok().filter(|number| *number != 0)?;
    Some(PortFact { name: name.unwrap_or_default().to_owned(), number, protocol: Protocol::Http1 })
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.unwrap_or("TCP") == "TCP"
}
