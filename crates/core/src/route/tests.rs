//! The table, from objects as the API server sends them to decisions.

use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Value, json};

use super::*;
use crate::host::Domains;

mod grid;
mod ingress;
mod legacy;

/// A cluster that is put together a tool at a time.
struct Fixture {
    index: Index,
}

impl Fixture {
    fn new() -> Self {
        let domains = Domains {
            public: vec!["hearth.example".parse().unwrap(), "tools.example".parse().unwrap()],
            legacy: "old.example".parse().unwrap(),
        };
        Self { index: Index::new(domains) }
    }

    /// One in which these tools are served below the legacy host.
    fn with_legacy(tools: &[&str]) -> Self {
        let domains = Self::new().index.table().domains().clone();
        let legacy_tools = tools.iter().map(|tool| tool.parse().unwrap()).collect();
        Self { index: Index::new(Served { domains, legacy_tools }) }
    }

    fn object<K: Source + serde::de::DeserializeOwned>(mut self, object: Value) -> Self {
        let object: K = serde_json::from_value(object).unwrap();
        match object.entry() {
            Some(entry) => self.index.apply(Change::Set(entry)),
            None => false,
        };
        self
    }

    /// A tool with a web service at its address, as `webservice start` makes it.
    fn serving(self, tool: &str, addresses: &[&str]) -> Self {
        self.tool(tool, json!({}))
            .ingress(tool, tool, json!([rule(&format!("{tool}.hearth.example"), "/", "Prefix", tool, 8000)]))
            .service(tool, tool, json!([{"name": "http", "port": 8000, "targetPort": 8000}]))
            .slice(tool, tool, &format!("{tool}-1"), addresses, json!({"ready": true}))
    }

    fn tool(self, tool: &str, annotations: Value) -> Self {
        self.object::<Namespace>(json!({"metadata": {"name": format!("tool-{tool}"), "annotations": annotations}}))
    }

    fn ingress(self, tool: &str, name: &str, rules: Value) -> Self {
        self.ingress_with(tool, name, json!({"ingressClassName": "hearth", "rules": rules}), "2026-01-01T00:00:00Z")
    }

    fn ingress_with(self, tool: &str, name: &str, spec: Value, created: &str) -> Self {
        let metadata = json!({"name": name, "namespace": format!("tool-{tool}"), "creationTimestamp": created});
        self.object::<Ingress>(json!({"metadata": metadata, "spec": spec}))
    }

    fn service(self, tool: &str, name: &str, ports: Value) -> Self {
        let metadata = json!({"name": name, "namespace": format!("tool-{tool}")});
        self.object::<Service>(json!({"metadata": metadata, "spec": {"ports": ports}}))
    }

    fn slice(self, tool: &str, service: &str, name: &str, addresses: &[&str], conditions: Value) -> Self {
        let endpoints: Vec<Value> =
            addresses.iter().map(|a| json!({"addresses": [a], "conditions": conditions})).collect();
        self.object::<EndpointSlice>(json!({
            "metadata": {
                "name": name,
                "namespace": format!("tool-{tool}"),
                "labels": {
                    "kubernetes.io/service-name": service,
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                },
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
        }))
    }

    /// What the table says of a URL without scheme, in short.
    fn at(&self, url: &str) -> String {
        short(&self.index.table(), url)
    }

    fn check(self, cases: &[(&str, &str)]) -> Self {
        for (url, expected) in cases {
            assert_eq!(self.at(url), *expected, "{url}");
        }
        self
    }
}

fn rule(host: &str, path: &str, kind: &str, service: &str, port: u16) -> Value {
    let backend = json!({"service": {"name": service, "port": {"number": port}}});
    json!({"host": host, "http": {"paths": [{"path": path, "pathType": kind, "backend": backend}]}})
}

fn short(table: &Table, url: &str) -> String {
    let at = url.find('/').unwrap();
    match table.route(&url[..at].parse().unwrap(), &url[at..]) {
        Decision::Redirect { host, path, .. } => format!("308 {host}{path}"),
        Decision::Endpoints(backend) => {
            let addresses: Vec<String> = backend.addresses.iter().map(SocketAddr::to_string).collect();
            format!("{} {}", backend.tool, addresses.join(" "))
        }
        Decision::NoWebService(tool) => format!("no web service: {tool}"),
        Decision::Unavailable(tool) => format!("unavailable: {tool}"),
        Decision::UnknownTool(tool) => format!("unknown: {tool}"),
        Decision::Apex => "apex".to_owned(),
        Decision::Elsewhere => "elsewhere".to_owned(),
        Decision::Ambiguous => "ambiguous".to_owned(),
    }
}

#[test]
fn a_tool_is_found_by_its_own_host() {
    Fixture::new().serving("a", &["10.0.0.1"]).serving("b", &["10.0.0.3", "10.0.0.2"]).tool("empty", json!({})).check(
        &[
            ("a.hearth.example/", "a 10.0.0.1:8000"),
            ("a.hearth.example/any/path", "a 10.0.0.1:8000"),
            ("b.hearth.example/", "b 10.0.0.2:8000 10.0.0.3:8000"),
            ("a.tools.example/", "no web service: a"),
            ("empty.hearth.example/", "no web service: empty"),
            ("nobody.hearth.example/", "unknown: nobody"),
            ("hearth.example/a/", "apex"),
            ("x.a.hearth.example/", "elsewhere"),
            ("evil.example/", "elsewhere"),
        ],
    );
}

#[test]
fn the_legacy_host_redirects() {
    Fixture::new().serving("a", &["10.0.0.1"]).tool("empty", json!({})).check(&[
        ("old.example/", "apex"),
        ("old.example/a", "308 a.hearth.example/"),
        ("old.example/a/x%20y//z", "308 a.hearth.example/x%20y//z"),
        ("old.example/empty/x", "308 empty.hearth.example/x"),
        ("old.example/nobody/x", "unknown: nobody"),
        ("old.example/A/x", "elsewhere"),
        ("old.example/%61/x", "elsewhere"),
        ("old.example/a/../empty/", "ambiguous"),
        ("old.example//a/", "ambiguous"),
    ]);
}

#[test]
fn an_ingress_routes_only_its_own_tools_hosts() {
    let rules = || {
        json!([
            rule("victim.hearth.example", "/", "Prefix", "thief", 8000),
            rule("old.example", "/victim", "Prefix", "thief", 8000),
            rule("hearth.example", "/", "Prefix", "thief", 8000),
            rule("*.hearth.example", "/", "Prefix", "thief", 8000),
            rule("", "/", "Prefix", "thief", 8000),
            rule("thief.tools.example", "/", "Prefix", "thief", 8000),
        ])
    };
    let spec = json!({"rules": rules(), "defaultBackend": {"service": {"name": "thief", "port": {"number": 8000}}}});
    Fixture::new()
        .serving("thief", &["10.0.0.66"])
        .tool("victim", json!({}))
        .ingress_with("thief", "more", spec, "2020-01-01T00:00:00Z")
        .check(&[
            ("victim.hearth.example/", "no web service: victim"),
            ("old.example/victim/", "308 victim.hearth.example/"),
            ("hearth.example/", "apex"),
            ("nobody.hearth.example/", "unknown: nobody"),
            ("victim.tools.example/", "no web service: victim"),
            ("thief.tools.example/", "thief 10.0.0.66:8000"),
        ]);
}

#[test]
fn paths_have_an_order() {
    let tool = |name: &str, number: u16| json!({"name": name, "port": number, "targetPort": 8000});
    let fixture = ["root", "foo", "exact", "deep"].iter().enumerate().fold(
        Fixture::new().tool("a", json!({})),
        |fixture, (at, service)| {
            let address = format!("10.0.0.{}", at + 1);
            let ports = json!([tool("http", 80), tool("other", 81)]);
            fixture.service("a", service, ports).slice("a", service, service, &[&address], json!({}))
        },
    );
    let host = "a.hearth.example";
    fixture
        .ingress(
            "a",
            "z-one",
            json!([
                rule(host, "/", "Prefix", "root", 80),
                rule(host, "/foo", "ImplementationSpecific", "foo", 80),
                rule(host, "/foo", "Exact", "exact", 80),
                rule(host, "/foo/bar/", "Prefix", "deep", 80),
                rule(host, "/nowhere", "Prefix", "missing", 80),
                rule(host, "/otherport", "Prefix", "root", 81),
                rule(host, "/noport", "Prefix", "root", 82),
            ]),
        )
        .check(&[
            ("a.hearth.example/", "a 10.0.0.1:8000"),
            ("a.hearth.example/fooo", "a 10.0.0.1:8000"),
            ("a.hearth.example/foo", "a 10.0.0.3:8000"),
            ("a.hearth.example/foo/", "a 10.0.0.2:8000"),
            ("a.hearth.example/foo/bar", "a 10.0.0.4:8000"),
            ("a.hearth.example/nowhere", "unavailable: a"),
            ("a.hearth.example/otherport", "unavailable: a"),
            ("a.hearth.example/noport", "unavailable: a"),
            ("a.hearth.example/foo/..%2f", "ambiguous"),
            ("a.hearth.example/x/../foo", "ambiguous"),
            ("a.hearth.example/foo//bar", "ambiguous"),
            ("a.hearth.example/foo/bar/%2e%2e/bar", "a 10.0.0.4:8000"),
            ("a.hearth.example/x/..%2fy", "a 10.0.0.1:8000"),
        ]);
}

#[test]
fn the_elder_ingress_wins_then_the_name() {
    let spec = |service: &str| json!({"rules": [rule("a.hearth.example", "/", "Prefix", service, 8000)]});
    let two = |first: (&str, &str), second: (&str, &str)| {
        Fixture::new()
            .serving("a", &["10.0.0.1"])
            .object::<Service>(json!({"metadata": {"name": "two", "namespace": "tool-a"}, "spec": {"ports": [
                {"name": "http", "port": 8000}]}}))
            .slice("a", "two", "two", &["10.0.0.2"], json!({}))
            .ingress_with("a", first.0, spec("two"), first.1)
            .ingress_with("a", "a", spec("a"), second.1)
            .at("a.hearth.example/")
    };
    assert_eq!(two(("z", "2025-01-01T00:00:00Z"), ("a", "2026-01-01T00:00:00Z")), "a 10.0.0.2:8000");
    assert_eq!(two(("z", "2026-01-01T00:00:00Z"), ("a", "2026-01-01T00:00:00Z")), "a 10.0.0.1:8000");
    assert_eq!(two(("b", "2027-01-01T00:00:00Z"), ("a", "2026-01-01T00:00:00Z")), "a 10.0.0.1:8000");
}

#[test]
fn ports_by_name_and_class() {
    let by_name = json!([{"host": "a.hearth.example", "http": {"paths": [
        {"pathType": "Prefix", "backend": {"service": {"name": "a", "port": {"name": "web"}}}}]}}]);
    let base = || {
        Fixture::new()
            .tool("a", json!({}))
            .service("a", "a", json!([{"name": "metrics", "port": 9}, {"name": "web", "port": 80}]))
            .object::<EndpointSlice>(json!({
                "metadata": {"name": "a", "namespace": "tool-a", "labels": {
                    "kubernetes.io/service-name": "a",
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
                "addressType": "IPv6",
                "endpoints": [{"addresses": ["fd00::1", "fd00::2"]}, {"addresses": ["fd00::3"]}],
                "ports": [{"name": "metrics", "port": 9000}, {"name": "web", "port": 8001}],
            }))
    };
    base().ingress("a", "a", by_name.clone()).check(&[("a.hearth.example/", "a [fd00::1]:8001 [fd00::3]:8001")]);
    let time = "2026-01-01T00:00:00Z";
    base()
        .ingress_with("a", "a", json!({"rules": by_name}), time)
        .check(&[("a.hearth.example/", "a [fd00::1]:8001 [fd00::3]:8001")]);
    base()
        .ingress_with("a", "a", json!({"rules": by_name, "ingressClassName": "nginx"}), time)
        .check(&[("a.hearth.example/", "no web service: a")]);
}

#[test]
fn conditions_are_read_as_kube_proxy_does() {
    let with = |first: Value, second: Value| {
        Fixture::new()
            .serving("a", &[])
            .slice("a", "a", "s1", &["10.0.0.1"], first)
            .slice("a", "a", "s2", &["10.0.0.2"], second)
            .at("a.hearth.example/")
    };
    let draining = || json!({"ready": false, "serving": true, "terminating": true});
    let gone = || json!({"ready": false, "serving": false, "terminating": true});
    let starting = || json!({"ready": false, "serving": false, "terminating": false});
    let odd = || json!({"ready": false, "serving": true});
    assert_eq!(with(json!({}), json!({"ready": true})), "a 10.0.0.1:8000 10.0.0.2:8000");
    assert_eq!(with(json!({"ready": true}), draining()), "a 10.0.0.1:8000");
    assert_eq!(with(starting(), draining()), "a 10.0.0.2:8000");
    assert_eq!(with(starting(), gone()), "unavailable: a");
    assert_eq!(with(odd(), gone()), "unavailable: a");
}

#[test]
fn only_the_controllers_slices_are_believed() {
    let forged = json!({
        "metadata": {"name": "forged", "namespace": "tool-a", "labels": {"kubernetes.io/service-name": "a"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.99"]}],
        "ports": [{"name": "http", "port": 8000}],
    });
    Fixture::new()
        .serving("a", &["10.0.0.1"])
        .object::<EndpointSlice>(forged)
        .check(&[("a.hearth.example/", "a 10.0.0.1:8000")]);
}

#[test]
fn a_disabled_tool_is_not_served() {
    let fixture = Fixture::new().serving("a", &["10.0.0.1"]);
    let fixture = fixture.tool("a", json!({"hearth.internal/state": "disabled"}));
    let fixture = fixture.check(&[("a.hearth.example/", "no web service: a")]);
    fixture.tool("a", json!({"hearth.internal/state": "active"})).check(&[("a.hearth.example/", "a 10.0.0.1:8000")]);
}

#[test]
fn platform_namespaces_are_nobodys() {
    let object = json!({"metadata": {"name": "kube-system"}});
    let fixture = Fixture::new().object::<Namespace>(object);
    assert_eq!(fixture.index.table().tools(), 0);
}

#[test]
fn tables_do_not_change_and_changes_touch_one_tool() {
    let mut fixture = Fixture::new().serving("a", &["10.0.0.1"]).serving("b", &["10.0.0.2"]);
    let old = fixture.index.table();
    assert_eq!(old.tools(), 2);
    let before = match old.route(&"b.hearth.example".parse().unwrap(), "/") {
        Decision::Endpoints(backend) => backend,
        other => panic!("{other:?}"),
    };
    assert!(fixture.index.apply(Change::Remove(Kind::EndpointSlice, "a".parse().unwrap(), "a-1".to_owned())));
    let new = fixture.index.table();
    assert_eq!(short(&old, "a.hearth.example/"), "a 10.0.0.1:8000");
    assert_eq!(short(&new, "a.hearth.example/"), "unavailable: a");
    match new.route(&"b.hearth.example".parse().unwrap(), "/") {
        Decision::Endpoints(backend) => assert!(Arc::ptr_eq(&backend, &before)),
        other => panic!("{other:?}"),
    }
    assert!(fixture.index.apply(Change::Remove(Kind::Namespace, "a".parse().unwrap(), "tool-a".to_owned())));
    assert_eq!(fixture.index.table().tools(), 1);
    assert!(!fixture.index.apply(Change::Remove(Kind::Namespace, "a".parse().unwrap(), "tool-a".to_owned())));
}

#[test]
fn replacing_all_of_a_kind_is_the_difference() {
    let mut fixture = Fixture::new().serving("a", &["10.0.0.1"]).serving("b", &["10.0.0.2"]);
    let all: Vec<Entry> = fixture.index.entries().collect();
    for kind in [Kind::Namespace, Kind::Ingress, Kind::Service, Kind::EndpointSlice] {
        let of_kind: Vec<Entry> = all.iter().filter(|entry| entry.fact.kind() == kind).cloned().collect();
        assert_eq!(of_kind.len(), 2);
        assert!(!fixture.index.apply(Change::Replace(kind, of_kind)), "{kind:?}: nothing is different");
    }
    let only_b: Vec<Entry> =
        all.iter().filter(|e| e.fact.kind() == Kind::Ingress && e.tool.as_str() == "b").cloned().collect();
    assert!(fixture.index.apply(Change::Replace(Kind::Ingress, only_b)));
    fixture.check(&[("a.hearth.example/", "no web service: a"), ("b.hearth.example/", "b 10.0.0.2:8000")]);
}

#[test]
fn a_snapshot_gives_the_same_table() {
    let fixture = Fixture::new().serving("a", &["10.0.0.1"]).serving("fourohfour", &["10.0.0.4"]);
    let text = serde_json::to_string(&fixture.index.entries().collect::<Vec<_>>()).unwrap();
    let entries: Vec<Entry> = serde_json::from_str(&text).unwrap();
    let mut copy = Fixture::new();
    for kind in Kind::ALL {
        let of_kind = entries.iter().filter(|entry| entry.fact.kind() == kind).cloned().collect();
        copy.index.apply(Change::Replace(kind, of_kind));
    }
    let (old, new) = (fixture.index.table(), copy.index.table());
    assert_eq!(short(&old, "a.hearth.example/"), short(&new, "a.hearth.example/"));
    assert_eq!(new.fallback().map(|backend| backend.addresses.len()), Some(1));
    assert_eq!(old.fallback(), new.fallback());
}

#[test]
fn a_list_takes_away_what_it_does_not_show_when_it_is_complete() {
    let mut fixture = Fixture::new().serving("a", &["10.0.0.1"]).serving("b", &["10.0.0.2"]);
    let slice = |fixture: &Fixture, tool: &str| {
        let is_one = |entry: &Entry| entry.fact.kind() == Kind::EndpointSlice && entry.tool.as_str() == tool;
        Change::Set(fixture.index.entries().find(is_one).unwrap())
    };
    let (a, b) = (slice(&fixture, "a"), slice(&fixture, "b"));
    // One that breaks off takes nothing away, whatever it showed, and what it showed does not count for the next.
    assert!(!fixture.index.apply(Change::ListBegins(Kind::EndpointSlice)));
    assert!(!fixture.index.apply(a.clone()) && !fixture.index.apply(b.clone()));
    assert!(!fixture.index.apply(Change::ListBegins(Kind::EndpointSlice)));
    assert!(!fixture.index.apply(b));
    let mut fixture =
        fixture.check(&[("a.hearth.example/", "a 10.0.0.1:8000"), ("b.hearth.example/", "b 10.0.0.2:8000")]);
    assert!(fixture.index.apply(Change::ListEnds(Kind::EndpointSlice)));
    let mut fixture =
        fixture.check(&[("a.hearth.example/", "unavailable: a"), ("b.hearth.example/", "b 10.0.0.2:8000")]);
    assert!(!fixture.index.apply(Change::ListEnds(Kind::EndpointSlice)));
    assert!(fixture.index.apply(a));
    fixture.check(&[("a.hearth.example/", "a 10.0.0.1:8000")]);
}

#[test]
fn each_of_many_tools_is_found_until_it_is_gone() {
    let names: Vec<String> = (0..3000).map(|number| format!("t{number}")).collect();
    let mut fixture = names.iter().fold(Fixture::new(), |fixture, name| fixture.tool(name, json!({})));
    for (number, name) in names.iter().enumerate() {
        if number % 3 == 0 {
            let gone = Change::Remove(Kind::Namespace, name.parse().unwrap(), format!("tool-{name}"));
            assert!(fixture.index.apply(gone));
        }
    }
    let table = fixture.index.table();
    assert_eq!(table.tools(), 2000);
    for (number, name) in names.iter().enumerate() {
        assert_eq!(table.knows(&name.parse().unwrap()), number % 3 != 0, "{name}");
    }
    assert!(!table.knows(&"other".parse().unwrap()));
}
