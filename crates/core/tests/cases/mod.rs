//! The cases of the rulebook: objects, and what must be said of them.
//!
//! They are data so that both layers are held against the same ones: the unit tests of `hearth-core` judge them with
//! `review`, and `e2e` sends them to a real API server with the policies. A file has one object that is allowed, and
//! cases that differ from it.

use serde_json::Value;

/// One object, or one change of an object.
pub(crate) struct Case {
    /// The file and the case's own name.
    pub(crate) name: String,
    /// The API version of the resource, as `apps/v1`.
    pub(crate) api_version: String,
    /// The resource in the plural, with its subresource.
    pub(crate) resource: String,
    /// The namespace, that of the tool `wikibot` unless the file or the case says otherwise.
    pub(crate) namespace: String,
    /// Who asks.
    pub(crate) user: String,
    /// The object.
    pub(crate) object: Value,
    /// The object as it was stored before the rules, when it is changed.
    pub(crate) old: Option<Value>,
    /// What the refusal says, in parts; allowed where this is empty.
    pub(crate) refused: Vec<String>,
    /// Whether the API server's own validation refuses the object before any rule is asked.
    pub(crate) invalid: bool,
}

/// Number of the tool `wikibot`.
pub(crate) const UID: u32 = 50123;

/// The configuration that the cases are about.
pub(crate) const PLATFORM: &str = r#"
    [domains]
    public = ["hearth.localhost", "tools.example"]
    legacy = "tools.hearth.localhost"
    [api]
    server = "https://127.0.0.1:6443"
    [directory]
    url = "ldaps://ldap.hearth.internal"
    base = "dc=hearth,dc=internal"
    bind_dn = "cn=reader,dc=hearth,dc=internal"
    [registry]
    host = "registry.hearth.internal"
    allowed = ["mirror.example:5000/shared", "docker.io/library/redis"]
    [tools]
    priority_classes = ["tools-first"]
    [namespaces]
    privileged = ["cni-system"]
    platform = ["metrics"]
    [[mounts]]
    path = "/public/dumps"
    read_only = true
    [[mounts]]
    path = "/data/scratch"
    read_only = false
"#;

/// The service account that the namespace of `wikibot` names.
pub(crate) const ACCOUNT: &str = "robot";

const FILES: &[(&str, &str)] = &[
    ("pods", include_str!("pods.yaml")),
    ("placing", include_str!("placing.yaml")),
    ("mounts", include_str!("mounts.yaml")),
    ("pod-metadata", include_str!("pod-metadata.yaml")),
    ("platform", include_str!("platform.yaml")),
    ("platform-templates", include_str!("platform-templates.yaml")),
    ("images", include_str!("images.yaml")),
    ("deployments", include_str!("deployments.yaml")),
    ("cronjobs", include_str!("cronjobs.yaml")),
    ("ingresses", include_str!("ingresses.yaml")),
    ("services", include_str!("services.yaml")),
    ("endpoints", include_str!("endpoints.yaml")),
    ("endpointslices", include_str!("endpointslices.yaml")),
    ("statefulsets", include_str!("statefulsets.yaml")),
    ("replicasets", include_str!("replicasets.yaml")),
    ("replicationcontrollers", include_str!("replicationcontrollers.yaml")),
    ("daemonsets", include_str!("daemonsets.yaml")),
    ("jobs", include_str!("jobs.yaml")),
    ("ingress_nginx_cves", include_str!("ingress_nginx_cves.yaml")),
    ("httproutes", include_str!("httproutes.yaml")),
    ("secrets", include_str!("secrets.yaml")),
    ("configmaps", include_str!("configmaps.yaml")),
    ("poddisruptionbudgets", include_str!("poddisruptionbudgets.yaml")),
    ("networkpolicies", include_str!("networkpolicies.yaml")),
];

/// Every case of every file.
pub(crate) fn all() -> Vec<Case> {
    FILES.iter().flat_map(|(name, text)| file(name, text)).collect()
}

fn file(name: &str, text: &str) -> Vec<Case> {
    let file: Value = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let base = &file["base"];
    let cases = file["cases"].as_array().unwrap_or_else(|| panic!("{name} has no cases"));
    let base_case = Value::Object(serde_json::Map::from_iter([("name".to_owned(), "the base".into())]));
    std::iter::once(&base_case).chain(cases).map(|case| read(name, &file, base, case)).collect()
}

fn read(file_name: &str, file: &Value, base: &Value, case: &Value) -> Case {
    let name = format!("{file_name}: {}", case["name"].as_str().expect("a case has a name"));
    let known = ["name", "set", "remove", "was", "refused", "invalid", "namespace", "user", "resource"];
    for key in case.as_object().expect("a case is a map").keys() {
        assert!(known.contains(&key.as_str()), "{name}: unknown key {key}");
    }
    let text = |key: &str, default: &str| case[key].as_str().unwrap_or(default).to_owned();
    let user = file["user"].as_str().unwrap_or("tool:wikibot");
    Case {
        api_version: base["apiVersion"].as_str().expect("apiVersion").to_owned(),
        resource: text("resource", file["resource"].as_str().expect("resource")),
        namespace: text("namespace", file["namespace"].as_str().unwrap_or("tool-wikibot")),
        user: text("user", user),
        object: edited(base, case, &name),
        old: case.get("was").map(|was| edited(base, was, &name)),
        refused: match &case["refused"] {
            Value::Array(parts) => parts.iter().map(|part| part.as_str().expect("text").to_owned()).collect(),
            Value::String(part) => vec![part.clone()],
            _ => Vec::new(),
        },
        invalid: case["invalid"].as_bool().unwrap_or(false),
        name,
    }
}

/// The base with the values of `set` put in, and those of `remove` taken out.
fn edited(base: &Value, case: &Value, name: &str) -> Value {
    let mut object = base.clone();
    for (path, value) in case["set"].as_object().into_iter().flatten() {
        put(&mut object, path, value.clone());
    }
    for path in case["remove"].as_array().into_iter().flatten() {
        let path = path.as_str().expect("a path");
        let (parent, last) = path.rsplit_once('/').expect("a path");
        let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("{name}: nothing at {path}"));
        match parent {
            Value::Object(map) => drop(map.remove(last)),
            Value::Array(list) => drop(list.remove(last.parse().expect("an index"))),
            _ => panic!("{name}: nothing at {path}"),
        }
    }
    object
}

/// Puts a value at a JSON pointer, making what leads to it; an index one past the end adds to a list.
fn put(object: &mut Value, path: &str, value: Value) {
    let mut place = object;
    for step in path.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        if place.is_null() {
            *place = if step == "0" { Value::Array(Vec::new()) } else { Value::Object(serde_json::Map::new()) };
        }
        place = match place {
            Value::Object(map) => map.entry(step).or_insert(Value::Null),
            Value::Array(list) => {
                let index: usize = step.parse().expect("an index");
                if index == list.len() {
                    list.push(Value::Null);
                }
                &mut list[index]
            }
            _ => panic!("nothing can be put at {path}"),
        };
    }
    *place = value;
}
