//! Tools that an operator lets be served below the legacy host.

use super::*;

/// The tools `a` and `b` with the same rules: all of their own host, and `/<tool>/` of the legacy host.
fn two(served: &[&str]) -> Fixture {
    [("a", "10.0.0.1"), ("b", "10.0.0.2")].iter().fold(Fixture::with_legacy(served), |fixture, (tool, address)| {
        let own = rule("old.example", &format!("/{tool}/"), "Prefix", tool, 8000);
        fixture.serving(tool, &[address]).ingress(tool, "legacy", json!([own]))
    })
}

#[test]
fn only_tools_that_are_named_are_served_there() {
    two(&[]).check(&[("old.example/a/x", "308 a.hearth.example/x"), ("old.example/b/x", "308 b.hearth.example/x")]);
    two(&["a"]).check(&[
        ("old.example/a", "a 10.0.0.1:8000"),
        ("old.example/a/x", "a 10.0.0.1:8000"),
        ("old.example/b/x", "308 b.hearth.example/x"),
        ("old.example/", "apex"),
        ("old.example/ab", "unknown: ab"),
        ("a.hearth.example/x", "a 10.0.0.1:8000"),
    ]);
}

#[test]
fn one_without_a_rule_for_the_path_is_redirected() {
    let fixture = || Fixture::with_legacy(&["a"]).serving("a", &["10.0.0.1"]);
    fixture().check(&[("old.example/a/x", "308 a.hearth.example/x")]);
    let deep = json!([rule("old.example", "/a/deep", "Prefix", "a", 8000)]);
    let fixture = fixture().ingress("a", "legacy", deep);
    fixture.check(&[("old.example/a/deep/x", "a 10.0.0.1:8000"), ("old.example/a/x", "308 a.hearth.example/x")]);
}

#[test]
fn one_whose_service_is_down_says_so() {
    let own = json!([rule("old.example", "/a", "Prefix", "missing", 8000)]);
    let fixture = Fixture::with_legacy(&["a"]).serving("a", &["10.0.0.1"]).ingress("a", "legacy", own);
    fixture.check(&[("old.example/a/x", "unavailable: a")]);
}

/// Admission refuses such rules; here they route nothing once more.
#[test]
fn rules_for_others_paths_route_nothing() {
    let rules = json!([
        rule("old.example", "/", "Prefix", "a", 8000),
        rule("old.example", "/b", "Prefix", "a", 8000),
        rule("old.example", "/ab", "Prefix", "a", 8000),
        rule("old.example", "//a", "Prefix", "a", 8000),
    ]);
    let fixture = Fixture::with_legacy(&["a", "b"]).serving("a", &["10.0.0.1"]).serving("b", &["10.0.0.2"]);
    fixture.ingress("a", "legacy", rules).check(&[
        ("old.example/", "apex"),
        ("old.example/b/x", "308 b.hearth.example/x"),
        ("old.example/a/x", "308 a.hearth.example/x"),
    ]);
}

/// A path with a second reading that leads to another tool is nobody's.
#[test]
fn paths_between_tools_are_refused() {
    two(&["a", "b"]).check(&[
        ("old.example/a/../b/x", "ambiguous"),
        ("old.example/a/..%2fb/x", "ambiguous"),
        ("old.example/a/%2e%2e/b/x", "ambiguous"),
        ("old.example//b/x", "ambiguous"),
        ("old.example/a/x/../y", "a 10.0.0.1:8000"),
    ]);
    two(&["a"]).check(&[("old.example/a/..%2fb/x", "ambiguous"), ("old.example/b/..%2fa/x", "ambiguous")]);
}

#[test]
fn what_runs_on_the_grid_is_served_whole() {
    let slice = json!({
        "metadata": {"name": "a", "namespace": "hearth-grid",
            "labels": {"endpointslice.kubernetes.io/managed-by": "registrar.hearth.internal", "hearth.internal/tool": "a"},
            "annotations": {"hearth.internal/job": "1", "hearth.internal/registered-at": "2026-01-01T00:00:00Z"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.7"], "conditions": {"ready": true}}],
        "ports": [{"name": "http", "port": 34567}],
    });
    let on_grid =
        |named: &[&str]| Fixture::with_legacy(named).tool("a", json!({})).object::<EndpointSlice>(slice.clone());
    on_grid(&["a"]).check(&[
        ("old.example/a", "a 192.0.2.7:34567"),
        ("old.example/a/x", "a 192.0.2.7:34567"),
        ("a.hearth.example/x", "a 192.0.2.7:34567"),
    ]);
    on_grid(&[]).check(&[("old.example/a/x", "308 a.hearth.example/x")]);
}
