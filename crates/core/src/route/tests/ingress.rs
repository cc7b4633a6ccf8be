//! Ingress v1 as a table: a row for everything that the API's documentation says, and for what we decide where it leaves
//! a choice.
//!
//! Each row begins with the same tool `a`: the services `one`, `two` and `three`, each with a port 80 called `http` and
//! one pod (10.0.0.1, 10.0.0.2, 10.0.0.3). A row's own objects come on top, or in the place of those of the same name.
//! What is decided is said by the service that answers; `none` is no web service (so the page of fourohfour), `down` a
//! service without addresses.

use super::*;

const HOST: &str = "a.hearth.example";

/// What the API says; the objects; requests and their answers. A request is a path on the tool's host, or a URL.
type Row = (&'static str, Vec<Value>, &'static [(&'static str, &'static str)]);

fn check(rows: Vec<Row>) {
    for (says, objects, requests) in rows {
        let mut fixture = Fixture::new().tool("a", json!({}));
        let pods = [("one", "10.0.0.1"), ("two", "10.0.0.2"), ("three", "10.0.0.3")];
        for (name, address) in pods {
            fixture = fixture.put(service(name, json!({}))).put(pods_of(name, &[address]));
        }
        for object in objects {
            fixture = fixture.put(object);
        }
        for (request, expected) in requests {
            let url = if request.starts_with('/') { format!("{HOST}{request}") } else { (*request).to_owned() };
            let found = fixture.at(&url);
            let of_pod = pods.iter().find(|(_, address)| found == format!("a {address}:8000"));
            let found = match found.as_str() {
                "no web service: a" => "none",
                "unavailable: a" => "down",
                other => of_pod.map_or(other.strip_prefix("a ").unwrap_or(other), |(name, _)| name),
            };
            assert_eq!(found, *expected, "{says}: {request}");
        }
    }
}

impl Fixture {
    fn put(self, object: Value) -> Self {
        match object["kind"].as_str().unwrap() {
            "Ingress" => self.object::<Ingress>(object),
            "Service" => self.object::<Service>(object),
            _ => self.object::<EndpointSlice>(object),
        }
    }
}

/// An Ingress of our class with this spec.
fn ingress(name: &str, mut spec: Value) -> Value {
    if spec.get("ingressClassName").is_none() {
        spec["ingressClassName"] = json!("hearth");
    }
    json!({"kind": "Ingress", "metadata": {"name": name, "namespace": "tool-a",
        "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec})
}

/// An Ingress for the tool's host: each path with its type and its service, by port 80.
fn paths(paths: &[(&str, &str, &str)]) -> Value {
    let paths: Vec<Value> = paths.iter().map(|(kind, path, service)| path_to(kind, path, &backend(service))).collect();
    ingress("a", json!({"rules": [{"host": HOST, "http": {"paths": paths}}]}))
}

/// An Ingress with one prefix `/` for the tool's host.
fn all_to(name: &str, service: &str) -> Value {
    ingress(name, json!({"rules": [{"host": HOST, "http": {"paths": [path_to("Prefix", "/", &backend(service))]}}]}))
}

fn path_to(kind: &str, path: &str, backend: &Value) -> Value {
    json!({"path": path, "pathType": kind, "backend": backend})
}

fn backend(service: &str) -> Value {
    json!({"service": {"name": service, "port": {"number": 80}}})
}

/// The service `one` is asked for by this port.
fn by_port(port: &Value) -> Value {
    let backend = json!({"service": {"name": "one", "port": port}});
    ingress("a", json!({"rules": [{"host": HOST, "http": {"paths": [path_to("Prefix", "/", &backend)]}}]}))
}

fn service(name: &str, spec: Value) -> Value {
    let mut whole = json!({"ports": [{"name": "http", "port": 80, "targetPort": 8000}]});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"kind": "Service", "metadata": {"name": name, "namespace": "tool-a"}, "spec": whole})
}

/// A slice of a service: what is behind its port `http`.
fn slice(name: &str, service: &str, endpoints: Value) -> Value {
    json!({"kind": "EndpointSlice", "addressType": "IPv4", "endpoints": endpoints,
        "metadata": {"name": name, "namespace": "tool-a", "labels": {
            "kubernetes.io/service-name": service,
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
        "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}]})
}

fn pods_of(service: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<Value> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    slice(service, service, json!(endpoints))
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let at = pointer.rfind('/').unwrap();
    object.pointer_mut(&pointer[..at]).unwrap()[&pointer[at + 1..]] = value;
    object
}

/// The documentation's own table, "Examples" below "Path types", in its order.
#[test]
fn the_documentations_examples() {
    let p = "Prefix";
    check(vec![
        ("all paths", vec![paths(&[(p, "/", "one")])], &[("/", "one"), ("/any/path", "one"), ("/x?y", "one")]),
        ("exact", vec![paths(&[("Exact", "/foo", "one")])], &[("/foo", "one"), ("/bar", "none"), ("/foo/", "none")]),
        ("exact with a slash", vec![paths(&[("Exact", "/foo/", "one")])], &[("/foo", "none"), ("/foo/", "one")]),
        ("prefix", vec![paths(&[(p, "/foo", "one")])], &[("/foo", "one"), ("/foo/", "one")]),
        ("prefix with a slash", vec![paths(&[(p, "/foo/", "one")])], &[("/foo", "one"), ("/foo/", "one")]),
        ("part of an element", vec![paths(&[(p, "/aaa/bb", "one")])], &[("/aaa/bbb", "none")]),
        (
            "elements",
            vec![paths(&[(p, "/aaa/bbb", "one")])],
            &[("/aaa/bbb", "one"), ("/aaa/bbb/", "one"), ("/aaa/bbb/ccc", "one"), ("/aaa/bbbxyz", "none")],
        ),
        ("ignores a slash at the end", vec![paths(&[(p, "/aaa/bbb/", "one")])], &[("/aaa/bbb", "one")]),
        ("two prefixes", vec![paths(&[(p, "/", "one"), (p, "/aaa", "two")])], &[("/aaa/ccc", "two")]),
        (
            "three prefixes",
            vec![paths(&[(p, "/", "one"), (p, "/aaa", "two"), (p, "/aaa/bbb", "three")])],
            &[("/aaa/bbb", "three"), ("/ccc", "one")],
        ),
        ("no match: the default backend", vec![paths(&[(p, "/aaa", "one")])], &[("/ccc", "none")]),
        ("mixed", vec![paths(&[(p, "/foo", "one"), ("Exact", "/foo", "two")])], &[("/foo", "two"), ("/foo/", "one")]),
    ]);
}

#[test]
fn paths_and_their_order() {
    let (p, e, i) = ("Prefix", "Exact", "ImplementationSpecific");
    let two =
        |first: &str, second: &str| vec![all_to("x", first), with(all_to("y", second), "/metadata/name", json!("y"))];
    let elder = |object: Value| with(object, "/metadata/creationTimestamp", json!("2025-01-01T00:00:00Z"));
    let unborn = |mut object: Value| {
        object["metadata"].as_object_mut().unwrap().remove("creationTimestamp");
        object
    };
    check(vec![
        ("case counts", vec![paths(&[(p, "/Foo", "one")])], &[("/Foo/x", "one"), ("/foo/x", "none")]),
        ("nothing is decoded", vec![paths(&[(p, "/foo", "one")])], &[("/%66oo", "none"), ("/foo%20x", "none")]),
        (
            "ImplementationSpecific is ours to say: a prefix; without a path, of everything",
            vec![paths(&[(i, "/foo", "one"), (i, "", "two")])],
            &[("/foo/x", "one"), ("/foox", "two"), ("/", "two")],
        ),
        (
            "the longest path first, in whatever order they are written",
            vec![paths(&[(p, "/", "one"), (p, "/a/b", "three"), (p, "/a", "two")])],
            &[("/a/b/c", "three"), ("/a/bc", "two"), ("/b", "one")],
        ),
        (
            "a longer prefix before a shorter exact path",
            vec![paths(&[(e, "/a", "one"), (p, "/a/b", "two")])],
            &[("/a", "one"), ("/a/b", "two"), ("/a/c", "none")],
        ),
        (
            "exact before prefix, also one that is written with a slash at its end",
            vec![paths(&[(p, "/a/", "one"), (e, "/a", "two"), (e, "/a/", "three")])],
            &[("/a", "two"), ("/a/", "three"), ("/a/b", "one")],
        ),
        ("the first of two equal paths", vec![paths(&[(p, "/a", "one"), (p, "/a/", "two")])], &[("/a/x", "one")]),
        (
            "rules of one host are one list",
            vec![ingress(
                "a",
                json!({"rules": [
                {"host": HOST, "http": {"paths": [path_to(p, "/", &backend("one"))]}},
                {"host": HOST, "http": {"paths": [path_to(p, "/deep", &backend("two"))]}}]}),
            )],
            &[("/", "one"), ("/deep/x", "two")],
        ),
        (
            "so are Ingresses: the longest path wins, whosever it is",
            vec![all_to("x", "one"), with(paths(&[(p, "/deep", "two")]), "/metadata/name", json!("y"))],
            &[("/", "one"), ("/deep", "two")],
        ),
        ("of equal paths the elder Ingress's", vec![all_to("x", "one"), elder(all_to("y", "two"))], &[("/", "two")]),
        ("born in one second: the name decides", two("one", "two"), &[("/", "one")]),
        ("one without a time is the youngest", vec![unborn(all_to("x", "one")), all_to("y", "two")], &[("/", "two")]),
    ]);
}

#[test]
fn hosts() {
    let p = "Prefix";
    let rule = |host: Value, service: &str| {
        let mut rule = json!({"http": {"paths": [path_to(p, "/", &backend(service))]}});
        rule.as_object_mut().unwrap().extend(host.as_object().unwrap().clone());
        rule
    };
    let of = |rules: Value| vec![ingress("a", json!({"rules": rules}))];
    check(vec![
        (
            "a precise host; another of the tool's is another",
            of(json!([rule(json!({"host": HOST}), "one"), rule(json!({"host": "a.tools.example"}), "two")])),
            &[("/", "one"), ("a.tools.example/", "two"), ("x.a.hearth.example/", "elsewhere")],
        ),
        (
            "a wildcard covers hosts of other tools, so it routes nothing, not even its own",
            of(json!([
                rule(json!({"host": "*.hearth.example"}), "one"),
                rule(json!({"host": "*.a.hearth.example"}), "one")
            ])),
            &[("/", "none"), ("x.a.hearth.example/", "elsewhere"), ("b.hearth.example/", "unknown: b")],
        ),
        (
            "a rule without a host is for all traffic, so it routes nothing",
            of(json!([rule(json!({}), "one"), rule(json!({"host": ""}), "one")])),
            &[("/", "none"), ("b.hearth.example/", "unknown: b"), ("hearth.example/", "apex")],
        ),
        (
            "hosts that are not the tool's route nothing",
            of(json!([rule(json!({"host": "b.hearth.example"}), "one"), rule(json!({"host": "evil.example"}), "one")])),
            &[("b.hearth.example/", "unknown: b"), ("evil.example/", "elsewhere"), ("/", "none")],
        ),
        (
            "a rule without paths sends its host to the default backend, which tools have not",
            vec![ingress("a", json!({"rules": [{"host": HOST}], "defaultBackend": backend("one")}))],
            &[("/", "none")],
        ),
        (
            "a default backend alone would answer for every host",
            vec![ingress("a", json!({"defaultBackend": backend("one")}))],
            &[("/", "none"), ("b.hearth.example/", "unknown: b")],
        ),
        (
            "tls says how hosts are secured, not where they lead: all are, by the platform's certificate",
            vec![with(all_to("a", "one"), "/spec/tls", json!([{"hosts": ["b.hearth.example"], "secretName": "x"}]))],
            &[("/", "one"), ("b.hearth.example/", "unknown: b")],
        ),
    ]);
}

#[test]
fn classes() {
    let annotated = |class: &str, object: Value| {
        with(object, "/metadata/annotations", json!({"kubernetes.io/ingress.class": class}))
    };
    let classless = || {
        let mut object = all_to("a", "one");
        object["spec"].as_object_mut().unwrap().remove("ingressClassName");
        object
    };
    let named = |class: &str| with(all_to("a", "one"), "/spec/ingressClassName", json!(class));
    check(vec![
        ("ours by the field", vec![named("hearth")], &[("/", "one")]),
        ("another's by the field", vec![named("nginx")], &[("/", "none")]),
        ("ours by the old annotation", vec![annotated("hearth", classless())], &[("/", "one")]),
        ("another's by the old annotation", vec![annotated("nginx", classless())], &[("/", "none")]),
        ("the annotation goes before the field", vec![annotated("nginx", named("hearth"))], &[("/", "none")]),
        ("in both directions", vec![annotated("hearth", named("nginx"))], &[("/", "one")]),
        ("an empty annotation names none", vec![annotated("", named("nginx"))], &[("/", "none")]),
        ("none is ours: our class is the default", vec![classless()], &[("/", "one")]),
    ]);
}

#[test]
fn ports_of_services() {
    check(vec![
        ("a port by number", vec![by_port(&json!({"number": 80}))], &[("/", "one")]),
        ("a port by name", vec![by_port(&json!({"name": "http"}))], &[("/", "one")]),
        (
            "no such number; the pod's own is not the service's",
            vec![by_port(&json!({"number": 8000}))],
            &[("/", "down")],
        ),
        ("no such name", vec![by_port(&json!({"name": "web"}))], &[("/", "down")]),
        ("no port", vec![by_port(&json!({}))], &[("/", "down")]),
        ("a number that is none", vec![by_port(&json!({"number": 70000}))], &[("/", "down")]),
    ]);
}

#[test]
fn resources() {
    let p = "Prefix";
    let resource = json!({"resource": {"apiGroup": "k8s.example.com", "kind": "StorageBucket", "name": "icons"}});
    let to = |backend: &Value| {
        ingress(
            "a",
            json!({"rules": [{"host": HOST, "http": {"paths": [
            path_to(p, "/", &backend.clone()), path_to(p, "/two", &json!({"service": {"name": "two", "port": {"number": 80}}}))]}}]}),
        )
    };
    check(vec![
        (
            "a resource is no service of ours; its paths fall to no other",
            vec![ingress(
                "a",
                json!({"rules": [{"host": HOST, "http": {"paths": [
                path_to(p, "/", &backend("one")), path_to(p, "/icons", &resource)]}}]}),
            )],
            &[("/", "one"), ("/icons/x", "down"), ("/iconsx", "one")],
        ),
        ("a resource for all", vec![to(&resource)], &[("/", "down"), ("/two", "two")]),
    ]);
}

#[test]
fn services() {
    check(vec![
        ("no such service", vec![all_to("a", "missing")], &[("/", "down")]),
        (
            "a name outside the cluster is never dialled",
            vec![all_to("a", "one"), service("one", json!({"type": "ExternalName", "externalName": "evil.example"}))],
            &[("/", "down")],
        ),
        (
            "a headless service has the same slices",
            vec![all_to("a", "one"), service("one", json!({"clusterIP": "None"}))],
            &[("/", "one")],
        ),
        (
            "other protocols than TCP are other ports",
            vec![
                all_to("a", "one"),
                service("one", json!({"ports": [{"name": "http", "port": 80, "protocol": "UDP"}]})),
            ],
            &[("/", "down")],
        ),
        (
            "the only port need not have a name",
            vec![
                all_to("a", "one"),
                service("one", json!({"ports": [{"port": 80}]})),
                with(pods_of("one", &["10.0.0.1"]), "/ports", json!([{"port": 8000}])),
            ],
            &[("/", "one")],
        ),
        (
            "a named target port may differ from pod to pod, so that each has its slice",
            vec![
                all_to("a", "one"),
                with(
                    with(pods_of("one", &["10.0.0.9"]), "/ports", json!([{"name": "http", "port": 9000}])),
                    "/metadata/name",
                    json!("other"),
                ),
            ],
            &[("/", "10.0.0.1:8000 10.0.0.9:9000")],
        ),
    ]);
}

#[test]
fn protocols() {
    let spoken = |app_protocol: Value| {
        let port = json!({"name": "http", "port": 80, "appProtocol": app_protocol});
        let fixture = Fixture::new().tool("a", json!({})).put(all_to("a", "one")).put(pods_of("one", &["10.0.0.1"]));
        let fixture = fixture.put(service("one", json!({"ports": [port]})));
        match fixture.index.table().route(&HOST.parse().unwrap(), "/") {
            Decision::Endpoints(backend) => backend.protocol,
            other => panic!("{other:?}"),
        }
    };
    for other in [json!(null), json!("kubernetes.io/ws"), json!("http"), json!("grpc"), json!("example.org/h2c")] {
        assert_eq!(spoken(other.clone()), Protocol::Http1, "{other}");
    }
    assert_eq!(spoken(json!("kubernetes.io/h2c")), Protocol::H2c);
}

#[test]
fn conditions() {
    let only = |endpoint: Value| vec![all_to("a", "one"), slice("one", "one", json!([endpoint]))];
    let state = |conditions: Value| only(json!({"addresses": ["10.0.0.1"], "conditions": conditions}));
    let beside = |conditions: Value| {
        let ending = json!({"addresses": ["10.0.0.8"], "conditions": conditions});
        vec![all_to("a", "one"), slice("more", "one", json!([ending]))]
    };
    check(vec![
        ("no conditions: ready", state(json!(null)), &[("/", "one")]),
        ("unknown is ready", state(json!({"ready": null})), &[("/", "one")]),
        ("ready", state(json!({"ready": true, "serving": true, "terminating": false})), &[("/", "one")]),
        ("not ready", state(json!({"ready": false})), &[("/", "down")]),
        (
            "serving without terminating says no more than ready",
            state(json!({"ready": false, "serving": true})),
            &[("/", "down")],
        ),
        (
            "ending, and serving to the end",
            state(json!({"ready": false, "serving": true, "terminating": true})),
            &[("/", "one")],
        ),
        (
            "ending, no longer serving",
            state(json!({"ready": false, "serving": false, "terminating": true})),
            &[("/", "down")],
        ),
        ("serving unknown is what ready is", state(json!({"ready": false, "terminating": true})), &[("/", "down")]),
        (
            "publishNotReadyAddresses: ready while ending",
            state(json!({"ready": true, "terminating": true})),
            &[("/", "one")],
        ),
        (
            "who ends is asked only where nobody is ready",
            beside(json!({"ready": false, "serving": true, "terminating": true})),
            &[("/", "one")],
        ),
    ]);
}

#[test]
fn endpoints() {
    let only = |endpoint: Value| vec![all_to("a", "one"), slice("one", "one", json!([endpoint]))];
    let beside = |conditions: Value| {
        let ending = json!({"addresses": ["10.0.0.8"], "conditions": conditions});
        vec![all_to("a", "one"), slice("more", "one", json!([ending]))]
    };
    let hinted = |zone: &str, address: &str| json!({"addresses": [address], "zone": zone, "hints": {"forZones": [{"name": zone}]}});
    check(vec![
        ("several slices are one list", beside(json!({})), &[("/", "10.0.0.1:8000 10.0.0.8:8000")]),
        (
            "an address in two slices is there once",
            vec![all_to("a", "one"), slice("more", "one", json!([{"addresses": ["10.0.0.1"]}]))],
            &[("/", "one")],
        ),
        (
            "addresses of an endpoint are one pod's: the first",
            only(json!({"addresses": ["10.0.0.1", "10.0.0.9"]})),
            &[("/", "one")],
        ),
        ("an address that is none", only(json!({"addresses": ["pod.example"]})), &[("/", "down")]),
        (
            "hints are for those who are in a zone; the front door is in none, and whoever is in none takes all",
            vec![all_to("a", "one"), slice("one", "one", json!([hinted("x", "10.0.0.1"), hinted("y", "10.0.0.2")]))],
            &[("/", "10.0.0.1:8000 10.0.0.2:8000")],
        ),
        (
            "traffic policies are orders to the service's address, which is not dialled",
            vec![
                all_to("a", "one"),
                service("one", json!({"internalTrafficPolicy": "Local", "trafficDistribution": "PreferClose"})),
            ],
            &[("/", "one")],
        ),
        (
            "a slice that no controller wrote is nobody's",
            vec![
                all_to("a", "one"),
                with(
                    slice("one", "one", json!([{"addresses": ["10.0.0.66"]}])),
                    "/metadata/labels",
                    json!({"kubernetes.io/service-name": "one"}),
                ),
            ],
            &[("/", "one")],
        ),
    ]);
}

#[test]
fn two_families() {
    let six = |conditions: Value| {
        let endpoints = json!([{"addresses": ["fd00::1"], "conditions": conditions}]);
        with(slice("one-six", "one", endpoints), "/addressType", json!("IPv6"))
    };
    let families = |list: Value| service("one", json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": list}));
    let gone = || slice("one", "one", json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}]));
    check(vec![
        (
            "a pod is there once: the first family",
            vec![all_to("a", "one"), six(json!({})), families(json!(["IPv4", "IPv6"]))],
            &[("/", "one")],
        ),
        (
            "whichever that is",
            vec![all_to("a", "one"), six(json!({})), families(json!(["IPv6", "IPv4"]))],
            &[("/", "[fd00::1]:8000")],
        ),
        (
            "the other where the first has nothing ready",
            vec![all_to("a", "one"), gone(), six(json!({})), families(json!(["IPv4", "IPv6"]))],
            &[("/", "[fd00::1]:8000")],
        ),
        (
            "one family",
            vec![all_to("a", "one"), gone(), six(json!({})), families(json!(["IPv6"]))],
            &[("/", "[fd00::1]:8000")],
        ),
    ]);
}
