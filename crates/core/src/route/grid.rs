//! Routes to grid webservices: `EndpointSlice`s in a namespace of the platform that only the registrar writes.
//!
//! A web service that runs on the grid registers with the registrar, which keeps one object for it:
//!
//! - namespace `hearth-grid`, name and label `hearth.internal/tool`: the tool's name;
//! - label `endpointslice.kubernetes.io/managed-by: registrar.hearth.internal`, so that the cluster's own controllers
//!   leave it alone. There is no Service beside it, and no label that names one;
//! - annotations `hearth.internal/job`, the grid's number of the job, and `hearth.internal/registered-at`;
//! - one endpoint with one address, the host on which the job runs, and one TCP port called `http`; it is ready while
//!   the job runs, and not while the grid has it queued or held.
//!
//! What differs from this in any part is no route: the front door would rather have none than another tool's. Who may
//! write there is in `deploy/base/grid.yaml`.
//!
//! It never believes a slice that is elsewhere, and never says that an address still belongs to a tool: a table that
//! is stale does not lead to the grid ([`Backend::on_grid`](super::Backend)).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::ToolName;
use crate::names::{GRID_NAMESPACE, REGISTRAR, annotation, label};

/// The label by which the API says who keeps a slice.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// What the one port is called.
const PORT: &str = "http";

/// Ports below are the host's own services.
const LOWEST_PORT: u16 = 1024;

/// A grid webservice that has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GridRoute {
    /// Whose it is.
    pub tool: ToolName,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether its job runs. One that does not is still the tool's: visitors are told that it is not available.
    pub ready: bool,
    /// The grid's number of the job.
    pub job: u64,
    /// When it registered.
    pub registered: Timestamp,
}

/// Why a slice is not a route to the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GridError {
    /// It is in another namespace, or somebody else's.
    #[error("it is not the registrar's")]
    Foreign,
    /// Name and label are not those of one tool.
    #[error("its name and its label hearth.internal/tool are not one tool's")]
    Tool,
    /// There is not one job with a time.
    #[error("its annotations do not say which job registered when")]
    Job,
    /// There is not one address that a host can have.
    #[error("it has not one address of a host")]
    Address,
    /// There is not one TCP port that a tool can have.
    #[error("it has not one TCP port from 1024, called http")]
    Port,
}

impl GridRoute {
    /// Reads a route from its object.
    pub fn of_slice(slice: &EndpointSlice) -> Result<Self, GridError> {
        let ObjectMeta { name, namespace, labels, annotations, .. } = &slice.metadata;
        let in_map =
            |map: &Option<BTreeMap<String, String>>, key: &str| map.as_ref().and_then(|map| map.get(key).cloned());
        if namespace.as_deref() != Some(GRID_NAMESPACE) || in_map(labels, MANAGED_BY).as_deref() != Some(REGISTRAR) {
            return Err(GridError::Foreign);
        }
        let tool = name.as_deref().filter(|name| in_map(labels, label::TOOL).as_deref() == Some(name));
        let tool = tool.and_then(|name| name.parse().ok()).ok_or(GridError::Tool)?;
        let job = in_map(annotations, annotation::JOB).and_then(|job| job.parse().ok()).ok_or(GridError::Job)?;
        let registered = in_map(annotations, annotation::REGISTERED_AT).and_then(|time| time.parse().ok());
        let registered = registered.ok_or(GridError::Job)?;
        let [endpoint] = slice.endpoints.as_deref().unwrap_or_default() else { return Err(GridError::Address) };
        let address = address(endpoint, &slice.address_type).ok_or(GridError::Address)?;
        let [port] = slice.ports.as_deref().unwrap_or_default() else { return Err(GridError::Port) };
        let port = number(port).ok_or(GridError::Port)?;
        // An absent condition means ready elsewhere; the registrar always says which.
        let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(false);
        Ok(Self { tool, address: SocketAddr::new(address, port), ready, job, registered })
    }

    /// The object that says so.
    pub fn to_slice(&self) -> EndpointSlice {
        let map = |pairs: [(&str, String); 2]| Some(pairs.map(|(key, value)| (key.to_owned(), value)).into());
        EndpointSlice {
            metadata: ObjectMeta {
                name: Some(self.tool.to_string()),
                namespace: Some(GRID_NAMESPACE.to_owned()),
                labels: map([(MANAGED_BY, REGISTRAR.to_owned()), (label::TOOL, self.tool.to_string())]),
                annotations: map([
                    (annotation::JOB, self.job.to_string()),
                    (annotation::REGISTERED_AT, self.registered.to_string()),
                ]),
                ..ObjectMeta::default()
            },
            address_type: family(self.address.ip()).to_owned(),
            endpoints: Some(vec![Endpoint {
                addresses: vec![self.address.ip().to_string()],
                conditions: Some(EndpointConditions {
                    ready: Some(self.ready),
                    serving: Some(self.ready),
                    terminating: Some(false),
                }),
                ..Endpoint::default()
            }]),
            ports: Some(vec![EndpointPort {
                name: Some(PORT.to_owned()),
                port: Some(i32::from(self.address.port())),
                protocol: Some("TCP".to_owned()),
                app_protocol: None,
            }]),
        }
    }
}

/// Whether a slice is in the namespace of grid routes.
pub(super) fn is_on_grid(slice: &EndpointSlice) -> bool {
    slice.metadata.namespace.as_deref() == Some(GRID_NAMESPACE)
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "IPv6" } else { "IPv4" }
}

fn address(endpoint: &Endpoint, kind: &str) -> Option<IpAddr> {
    let [text] = endpoint.addresses.as_slice() else { return None };
    let address: IpAddr = text.parse().ok()?;
    let link_local = match address {
        IpAddr::V4(four) => four.is_link_local() || four.is_broadcast(),
        IpAddr::V6(six) => six.is_unicast_link_local() || six.to_ipv4_mapped().is_some(),
    };
    let of_a_host = !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local);
    (of_a_host && family(address) == kind).then_some(address)
}

fn number(port: &EndpointPort) -> Option<u16> {
    let plain = port.name.as_deref() == Some(PORT) && port.protocol.as_deref().unwrap_or("TCP") == "TCP";
    u16::try_from(port.port?).ok().filter(|number| plain && *number >= LOWEST_PORT)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn route() -> GridRoute {
        GridRoute {
            tool: "a".parse().unwrap(),
            address: "192.0.2.7:34567".parse().unwrap(),
            ready: true,
            job: 4711,
            registered: "2026-01-02T03:04:05Z".parse().unwrap(),
        }
    }

    /// The format as it stands in objects: what the registrar writes and others may read.
    #[test]
    fn the_object_of_a_route() {
        let expected = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "a",
                "namespace": "hearth-grid",
                "labels": {
                    "endpointslice.kubernetes.io/managed-by": "registrar.hearth.internal",
                    "hearth.internal/tool": "a",
                },
                "annotations": {
                    "hearth.internal/job": "4711",
                    "hearth.internal/registered-at": "2026-01-02T03:04:05Z",
                },
            },
            "addressType": "IPv4",
            "endpoints": [{
                "addresses": ["192.0.2.7"],
                "conditions": {"ready": true, "serving": true, "terminating": false},
            }],
            "ports": [{"name": "http", "port": 34567, "protocol": "TCP"}],
        });
        assert_eq!(serde_json::to_value(route().to_slice()).unwrap(), expected);
    }

    #[test]
    fn what_is_written_is_read() {
        let queued = GridRoute { ready: false, ..route() };
        let six = GridRoute { address: "[2001:db8::7]:1024".parse().unwrap(), ..route() };
        for route in [route(), queued, six] {
            assert_eq!(GridRoute::of_slice(&route.to_slice()), Ok(route));
        }
    }

    #[test]
    fn whatever_differs_is_no_route() {
        let cases: &[(&str, Value, GridError)] = &[
            ("/metadata/namespace", json!("tool-a"), GridError::Foreign),
            ("/metadata/namespace", json!("hearth-system"), GridError::Foreign),
            ("/metadata/labels", json!({}), GridError::Foreign),
            (
                "/metadata/labels/endpointslice.kubernetes.io~1managed-by",
                json!("endpointslice-controller.k8s.io"),
                GridError::Foreign,
            ),
            ("/metadata/name", json!("b"), GridError::Tool),
            ("/metadata/labels/hearth.internal~1tool", json!("b"), GridError::Tool),
            ("/metadata/annotations", json!({}), GridError::Job),
            ("/metadata/annotations/hearth.internal~1job", json!("-1"), GridError::Job),
            ("/metadata/annotations/hearth.internal~1registered-at", json!("yesterday"), GridError::Job),
            ("/endpoints", json!([]), GridError::Address),
            ("/endpoints", json!([{"addresses": ["192.0.2.7"]}, {"addresses": ["192.0.2.8"]}]), GridError::Address),
            ("/endpoints/0/addresses", json!(["192.0.2.7", "192.0.2.8"]), GridError::Address),
            ("/endpoints/0/addresses", json!(["127.0.0.1"]), GridError::Address),
            ("/endpoints/0/addresses", json!(["169.254.169.254"]), GridError::Address),
            ("/endpoints/0/addresses", json!(["0.0.0.0"]), GridError::Address),
            ("/endpoints/0/addresses", json!(["2001:db8::7"]), GridError::Address),
            ("/endpoints/0/addresses", json!(["host.example"]), GridError::Address),
            ("/addressType", json!("FQDN"), GridError::Address),
            ("/ports", json!([]), GridError::Port),
            ("/ports/0/port", json!(22), GridError::Port),
            ("/ports/0/port", json!(70000), GridError::Port),
            ("/ports/0/name", json!("ssh"), GridError::Port),
            ("/ports/0/protocol", json!("UDP"), GridError::Port),
        ];
        for (at, value, expected) in cases {
            let mut object = serde_json::to_value(route().to_slice()).unwrap();
            *object.pointer_mut(at).unwrap() = value.clone();
            let slice: EndpointSlice = serde_json::from_value(object).unwrap();
            assert_eq!(GridRoute::of_slice(&slice), Err(*expected), "{at}: {value}");
        }
    }

    #[test]
    fn a_route_that_does_not_say_so_is_not_ready() {
        let mut slice = route().to_slice();
        for endpoint in slice.endpoints.iter_mut().flatten() {
            endpoint.conditions = None;
        }
        assert_eq!(GridRoute::of_slice(&slice), Ok(GridRoute { ready: false, ..route() }));
    }
}
