//! The table of routes: whatever changes in whatever order, it is the table of what is known in the end, and no route
//! leads to an address that is not its own tool's.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use hearth_core::route::{Change, Decision, Entry, Index, Kind};
use hearth_core::{Host, Place, ToolName};
use serde_json::json;

use crate::domains;

const TOOLS: [&str; 4] = ["a", "b", "inner", "fourohfour"];

const HOSTS: [&str; 7] = [
    "a.hearth.example",
    "b.hearth.example",
    "inner.hearth.example",
    "a.inner.hearth.example",
    "old.inner.hearth.example",
    "hearth.example",
    "elsewhere.example",
];

const PATHS: [&str; 6] = ["/", "/a", "/a/", "/a/b", "/b", "/b//c"];

/// Each change is read from a few bytes; what is left over is nothing.
pub(crate) fn target(input: &[u8]) {
    let mut bytes = input.iter().copied();
    let mut index = Index::new(domains());
    // More of them lead nowhere new, and take time.
    let mut changes: Vec<Change> = std::iter::from_fn(|| change(&mut bytes)).take(64).collect();
    let Some(last) = changes.pop() else { return };
    for change in changes {
        index.apply(change);
    }
    let before = decisions(&index);
    let has_changed = index.apply(last);
    let found = decisions(&index);
    assert!(has_changed || found == before, "nothing has changed, it said");
    // The same, learnt kind by kind and at once.
    let mut other = Index::new(domains());
    for kind in [Kind::EndpointSlice, Kind::Ingress, Kind::Service, Kind::Namespace] {
        other.apply(Change::Replace(kind, index.entries().filter(|entry| entry.fact.kind() == kind).collect()));
    }
    assert_eq!(found, decisions(&other));
    for ((host, _), decision) in &found {
        let Decision::Endpoints(backend) = decision else { continue };
        assert_eq!(domains().place(host), Place::Tool(backend.tool.clone()));
        let own = addresses(&index, &backend.tool);
        assert!(!backend.addresses.is_empty());
        assert!(backend.addresses.iter().all(|address| own.contains(address)), "{backend:?}");
    }
}

fn decisions(index: &Index) -> Vec<((Host, &'static str), Decision)> {
    let table = index.table();
    let hosts = HOSTS.iter().map(|host| host.parse::<Host>().unwrap());
    let places = hosts.flat_map(|host| PATHS.map(|path| (host.clone(), path)));
    places.map(|(host, path)| ((host.clone(), path), table.route(&host, path))).collect()
}

/// Every address that is in a slice of the tool.
fn addresses(index: &Index, tool: &ToolName) -> BTreeSet<SocketAddr> {
    let mut addresses = BTreeSet::new();
    for entry in index.entries().filter(|entry| entry.tool == *tool) {
        let fact = serde_json::to_value(&entry.fact).unwrap();
        let Some(slice) = fact.get("EndpointSlice") else { continue };
        for address in ["ready", "draining"].iter().flat_map(|state| slice[*state].as_array().unwrap()) {
            for port in slice["ports"].as_array().unwrap() {
                let port = u16::try_from(port["number"].as_u64().unwrap()).unwrap();
                addresses.insert(SocketAddr::new(address.as_str().unwrap().parse().unwrap(), port));
            }
        }
    }
    addresses
}

fn change(bytes: &mut impl Iterator<Item = u8>) -> Option<Change> {
    let what = bytes.next()?;
    let kind = [Kind::Namespace, Kind::Ingress, Kind::Service, Kind::EndpointSlice][usize::from(what & 3)];
    Some(match what >> 2 & 3 {
        0 => {
            let (tool, name) = named(bytes.next()?);
            Change::Remove(kind, tool.parse().unwrap(), name)
        }
        1 => {
            let count = bytes.next()? & 3;
            Change::Replace(kind, (0..count).map(|_| entry(kind, bytes)).collect::<Option<Vec<Entry>>>()?)
        }
        _ => Change::Set(entry(kind, bytes)?),
    })
}

fn named(byte: u8) -> (&'static str, String) {
    (TOOLS[usize::from(byte & 3)], format!("n{}", byte >> 2 & 3))
}

fn entry(kind: Kind, bytes: &mut impl Iterator<Item = u8>) -> Option<Entry> {
    let (first, second, third) = (bytes.next()?, bytes.next()?, bytes.next()?);
    let (tool, name) = named(first);
    let service = format!("n{}", second & 3);
    let port_name = ["http", "other"][usize::from(third & 1)];
    let port = json!({"name": port_name, "number": 8000 + u16::from(third >> 1 & 1)});
    let address = |byte: u8| format!("10.0.{}.{}", first & 3, byte & 7);
    let fact = match kind {
        Kind::Namespace => json!({"Namespace": {"disabled": second & 1 == 1}}),
        Kind::Ingress => {
            let host = HOSTS[usize::from(third >> 4) % HOSTS.len()];
            let port = if third & 8 == 0 { json!({"Number": port["number"]}) } else { json!({"Name": port["name"]}) };
            let path = PATHS[usize::from(second >> 2) % PATHS.len()];
            let path = json!({"host": host, "path": path, "exact": third & 4 == 4, "service": service, "port": port});
            json!({"Ingress": {"created": null, "paths": [path]}})
        }
        Kind::Service => json!({"Service": {"ports": [port]}}),
        Kind::EndpointSlice => {
            let ready: Vec<String> = (0..second >> 2 & 3).map(|number| address(second ^ number)).collect();
            let draining: Vec<String> = (0..second >> 4 & 1).map(|_| address(third)).collect();
            json!({"EndpointSlice": {"service": service, "ports": [port], "ready": ready, "draining": draining}})
        }
    };
    serde_json::from_value(json!({"tool": tool, "name": name, "fact": fact})).ok()
}
