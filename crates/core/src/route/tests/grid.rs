//! Routes to the grid in the table.

use super::*;
use crate::route::grid::GridRoute;

fn route(tool: &str, address: &str) -> GridRoute {
    GridRoute {
        tool: tool.parse().unwrap(),
        address: address.parse().unwrap(),
        ready: true,
        job: 1,
        registered: "2026-01-01T00:00:00Z".parse().unwrap(),
    }
}

impl Fixture {
    fn grid(self, route: &GridRoute) -> Self {
        self.object::<EndpointSlice>(serde_json::to_value(route.to_slice()).unwrap())
    }

    fn without(mut self, slice: &EndpointSlice) -> Self {
        let gone = Change::Remove(Kind::EndpointSlice, slice.tool().unwrap(), slice.name().into_owned());
        assert!(self.index.apply(gone));
        self
    }
}

#[test]
fn what_has_registered_goes_first() {
    let on_grid = route("a", "192.0.2.7:34567");
    let fixture = Fixture::new().serving("a", &["10.0.0.1"]).grid(&on_grid).check(&[
        ("a.hearth.example/", "a 192.0.2.7:34567"),
        ("a.hearth.example/deep/path", "a 192.0.2.7:34567"),
        ("a.tools.example/", "a 192.0.2.7:34567"),
        ("old.example/a/x", "308 a.hearth.example/x"),
    ]);
    match fixture.index.table().route(&"a.hearth.example".parse().unwrap(), "/") {
        Decision::Endpoints(backend) => assert!(backend.on_grid),
        other => panic!("{other:?}"),
    }
    // What is queued is still the tool's web service.
    let fixture = fixture.grid(&GridRoute { ready: false, ..on_grid.clone() });
    let fixture = fixture.check(&[("a.hearth.example/", "unavailable: a")]);
    // Without a registration the Ingresses count again.
    let fixture = fixture.without(&on_grid.to_slice()).check(&[("a.hearth.example/", "a 10.0.0.1:8000")]);
    match fixture.index.table().route(&"a.hearth.example".parse().unwrap(), "/") {
        Decision::Endpoints(backend) => assert!(!backend.on_grid),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_registration_makes_no_tool_and_enables_none() {
    let on_grid = route("a", "192.0.2.7:34567");
    let fixture = Fixture::new().grid(&on_grid).check(&[("a.hearth.example/", "unknown: a")]);
    let fixture = fixture.tool("a", json!({"hearth.internal/state": "disabled"}));
    let fixture = fixture.check(&[("a.hearth.example/", "no web service: a")]);
    let fixture = fixture.tool("a", json!({"hearth.internal/state": "active"}));
    fixture.check(&[("a.hearth.example/", "a 192.0.2.7:34567")]);
}

/// A tool's own slice may be called like its route to the grid, and the other way round.
#[test]
fn slices_of_one_name_are_told_apart() {
    let on_grid = route("a", "192.0.2.7:34567");
    let fixture = Fixture::new().serving("a", &[]).slice("a", "a", "a", &["10.0.0.1"], json!({})).grid(&on_grid);
    let own: EndpointSlice =
        serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "tool-a"}, "addressType": "IPv4"}))
            .unwrap();
    let fixture = fixture.without(&own).check(&[("a.hearth.example/", "a 192.0.2.7:34567")]);
    fixture.without(&on_grid.to_slice()).check(&[("a.hearth.example/", "unavailable: a")]);
}

#[test]
fn nobody_elses_slice_is_a_route_to_the_grid() {
    let forged = |change: fn(&mut EndpointSlice)| {
        let mut slice = route("a", "192.0.2.66:34567").to_slice();
        change(&mut slice);
        Fixture::new().serving("a", &["10.0.0.1"]).object::<EndpointSlice>(serde_json::to_value(slice).unwrap())
    };
    let cases: [fn(&mut EndpointSlice); 4] = [
        |slice| slice.metadata.namespace = Some("tool-a".to_owned()),
        |slice| slice.metadata.namespace = Some("hearth-public".to_owned()),
        |slice| slice.metadata.labels = None,
        |slice| slice.metadata.name = Some("b".to_owned()),
    ];
    for change in cases {
        forged(change).check(&[("a.hearth.example/", "a 10.0.0.1:8000"), ("b.hearth.example/", "unknown: b")]);
    }
}

#[test]
fn a_snapshot_keeps_what_has_registered() {
    let fixture = Fixture::new().serving("a", &["10.0.0.1"]).grid(&route("a", "192.0.2.7:34567"));
    let text = serde_json::to_string(&fixture.index.entries().collect::<Vec<_>>()).unwrap();
    let entries: Vec<Entry> = serde_json::from_str(&text).unwrap();
    let mut copy = Fixture::new();
    for entry in entries {
        copy.index.apply(Change::Set(entry));
    }
    let copy = copy.check(&[("a.hearth.example/", "a 192.0.2.7:34567")]);
    // A list without the slice takes it away.
    let mut rest = copy;
    let slices: Vec<Entry> =
        rest.index.entries().filter(|entry| matches!(entry.fact, facts::Fact::EndpointSlice(_))).collect();
    assert!(rest.index.apply(Change::Replace(Kind::EndpointSlice, slices)));
    rest.check(&[("a.hearth.example/", "a 10.0.0.1:8000")]);
}
