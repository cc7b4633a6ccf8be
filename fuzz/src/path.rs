//! Paths: whoever reads one in another way ends at no other service, and no path leads out of its host.

use std::sync::{Arc, LazyLock};

use hearth_core::route::{Change, Decision, Entry, Index, Table, path};
use hearth_core::{Host, ToolName};
use serde_json::json;

use crate::domains;

/// The paths of the tool `a`, each with a service of its own, so that it shows where a path leads.
const PATHS: [(&str, bool); 6] =
    [("/", false), ("/a", false), ("/a/b", false), ("/c/", false), ("/d", true), ("/.e", false)];

static TABLE: LazyLock<Arc<Table>> = LazyLock::new(table);

pub(crate) fn target(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // The guard and the parser let nothing else through.
    if !text.starts_with('/') || text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return;
    }
    let path = text.split(['?', '#']).next().unwrap();
    let (table, a) = (&*TABLE, "a".parse::<ToolName>().unwrap());
    for host in ["a.hearth.example", "a.inner.hearth.example", "b.hearth.example"] {
        let host: Host = host.parse().unwrap();
        let decision = table.route(&host, path);
        if let Decision::Endpoints(backend) = &decision {
            assert!(backend.tool == a && host.as_str().starts_with("a."));
            assert_eq!(&table.route(&host, &settled(path)), &decision, "{path} and {} part", settled(path));
        }
        if path::is_plain(path) {
            assert_ne!(decision, Decision::Ambiguous, "{path}");
            assert_eq!(settled(path), path);
        }
        assert!(!matches!(decision, Decision::Redirect { .. } | Decision::Apex));
    }
    let legacy = domains().legacy;
    match table.route(&legacy, path) {
        Decision::Redirect { host, path: rest, tool } => {
            assert_eq!((tool.as_str(), host.as_str()), ("a", "a.hearth.example"));
            assert!(
                rest.starts_with('/') && (format!("/a{rest}") == path || format!("/a{rest}") == format!("{path}/"))
            );
            assert!(!settled(path).strip_prefix("/a").unwrap().starts_with(|first| first != '/'), "{path}");
        }
        Decision::Endpoints(_) | Decision::NoWebService(_) | Decision::Unavailable(_) => {
            panic!("the legacy host serves")
        }
        _ => (),
    }
    if path::is_plainly_below(path, "a") {
        assert!(matches!(table.route(&legacy, path), Decision::Redirect { tool, .. } if tool == a));
    }
}

/// A path as a program reads it that decodes dots and slashes, joins slashes and resolves dot segments: another way to
/// write what the table does.
fn settled(path: &str) -> String {
    let mut decoded = path.to_owned();
    for (escape, character) in [("%2e", "."), ("%2E", "."), ("%2f", "/"), ("%2F", "/"), ("%5c", "/"), ("%5C", "/")] {
        decoded = decoded.replace(escape, character);
    }
    let ends = [("/", true), ("/.", true), ("/..", true)].iter().any(|(end, _)| decoded.ends_with(end));
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            ".." => drop(segments.pop()),
            "" | "." => (),
            segment => segments.push(segment),
        }
    }
    let end = if ends && !segments.is_empty() { "/" } else { "" };
    format!("/{}{end}", segments.join("/"))
}

fn table() -> Arc<Table> {
    let mut index = Index::new(domains());
    let mut set = |name: &str, fact: serde_json::Value| {
        let entry: Entry = serde_json::from_value(json!({"tool": "a", "name": name, "fact": fact})).unwrap();
        index.apply(Change::Set(entry));
    };
    set("namespace", json!({"Namespace": {"disabled": false}}));
    let mut paths = Vec::new();
    for (number, (path, exact)) in PATHS.iter().enumerate() {
        let service = format!("s{number}");
        set(&service, json!({"Service": {"ports": [{"name": "http", "number": 8000}]}}));
        let (ports, ready) = (json!([{"name": "http", "number": 9000 + number}]), json!(["10.0.0.1"]));
        set(&service, json!({"EndpointSlice": {"service": service, "ports": ports, "ready": ready, "draining": []}}));
        for host in ["a.hearth.example", "a.inner.hearth.example", "b.hearth.example"] {
            paths.push(
                json!({"host": host, "path": path, "exact": exact, "service": service, "port": {"Number": 8000}}),
            );
        }
    }
    set("ingress", json!({"Ingress": {"created": null, "paths": paths}}));
    index.table()
}
