//! The policy that fills in what a tool's pod leaves out, so that manifests without a security context keep working.
//!
//! It only adds: what is present and wrong is refused afterwards, by the validating policies. It runs when a pod is
//! made and skips complete ones, because a mutating policy costs the API server far more than a validating one: each
//! addition says when it is missing, and the policy's condition is that one of them is.
//! The API server calls it before the webhook, which therefore sees pods as they will be stored.

use serde_json::{Value, json};

use super::expression::literal;
use super::{API_VERSION, Rules, metadata, tenant, tools, variable};
use crate::names::label;

/// The policy's name, and its binding's.
const NAME: &str = "hearth-tool-fill";

/// The volume with the home, in a pod that has none for it.
const VOLUME: &str = "home";

/// The same, where something else has that name.
const OTHER_VOLUME: &str = "tool-home";

/// The volumes of the pod.
const VOLUMES: &str = "object.spec.?volumes.orValue([])";

/// Something that the policy adds.
struct Addition {
    /// When: an expression that holds where it is missing.
    absent: String,
    /// Where: an expression of a JSON pointer.
    path: String,
    /// What: an expression.
    value: String,
}

/// How expressions call what they are about: by variables, or, in the policy's condition, which has none, in full.
struct Terms {
    /// The path of the tool's home.
    home: String,
    /// Whether the pod asks for mounts.
    asks: String,
}

/// The binding and its policy.
pub(super) fn policy(rules: &Rules) -> [Value; 2] {
    let asks = format!("object.metadata.?labels[?{}].orValue(\"\") == \"tool\"", literal(label::TOOLFORGE));
    let mut variables = tenant(rules);
    variables.push(variable("mounts", asks.clone()));
    variables.push(volume("volume", "variables.home", VOLUME, OTHER_VOLUME));
    for (index, mount) in rules.mounts.iter().enumerate() {
        let name = mount.volume(index);
        variables.push(volume(&format!("volume{index}"), &literal(&mount.path), &name, &name));
    }
    let patch = |expression: String| json!({ "patchType": "JSONPatch", "jsonPatch": { "expression": expression } });
    let terms = Terms { home: "variables.home".to_owned(), asks: "variables.mounts".to_owned() };
    let in_full = Terms {
        home: format!("({} + request.namespace.replace(\"tool-\", \"\", 1))", literal(&format!("{}/", rules.homes))),
        asks: format!("({asks})"),
    };
    let policy = json!({
        "apiVersion": API_VERSION,
        "kind": "MutatingAdmissionPolicy",
        "metadata": metadata(NAME),
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": {
                "matchPolicy": "Equivalent",
                "resourceRules": [{
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE"],
                    "resources": ["pods"],
                    "scope": "Namespaced",
                }],
            },
            "matchConditions": [{ "name": "something-is-missing", "expression": missing(rules, &in_full) }],
            "variables": variables,
            // A namespace without a tool's number gets nothing: the validating policies say what is wrong with it.
            "mutations": [patch(format!(
                "variables.known ? {} + {} + {} : []",
                add(&pod(rules, &terms)),
                add_to_each("containers", &containers(rules, &terms, "containers")),
                add_to_each("initContainers", &containers(rules, &terms, "initContainers")),
            ))],
        },
    });
    let binding = json!({
        "apiVersion": API_VERSION,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": metadata(NAME),
        "spec": { "policyName": NAME, "matchResources": { "namespaceSelector": tools(rules) } },
    });
    [binding, policy]
}

/// A variable with the name of the volume for a path: the one that the pod has for it, or else `name`, or, where
/// something else has that, `other`.
fn volume(variable_name: &str, path: &str, name: &str, other: &str) -> Value {
    let own = format!("{VOLUMES}.filter(v, v.?hostPath.?path.orValue(\"\") == {path})");
    let free = match name == other {
        true => literal(name),
        false => {
            let (name, other) = (literal(name), literal(other));
            format!("({VOLUMES}.exists(v, v.name == {name}) ? {other} : {name})")
        }
    };
    variable(variable_name, format!("{own}.size() > 0 ? string({own}[0].name) : {free}"))
}

/// Whether anything is missing.
fn missing(rules: &Rules, terms: &Terms) -> String {
    let any = |additions: &[Addition]| {
        additions.iter().map(|addition| format!("({})", addition.absent)).collect::<Vec<_>>().join(" || ")
    };
    let container = any(&containers(rules, terms, "containers"));
    format!(
        "{} || object.spec.containers.exists(c, {container}) || \
         object.spec.?initContainers.orValue([]).exists(c, {container})",
        any(&pod(rules, terms))
    )
}

/// What is added to the pod itself.
fn pod(rules: &Rules, terms: &Terms) -> Vec<Addition> {
    let context = "/spec/securityContext";
    let field = |name: &str, value: &str| Addition {
        absent: format!("!has(object.spec.securityContext) || !has(object.spec.securityContext.{name})"),
        path: literal(&format!("{context}/{name}")),
        value: value.to_owned(),
    };
    let mut additions = vec![
        Addition {
            absent: "!has(object.spec.securityContext)".to_owned(),
            path: literal(context),
            value: "{}".to_owned(),
        },
        field("runAsUser", "variables.uid"),
        field("runAsGroup", "variables.uid"),
        field("fsGroup", "variables.uid"),
        field("runAsNonRoot", "true"),
        field("supplementalGroupsPolicy", "\"Strict\""),
        field("seccompProfile", "{\"type\": \"RuntimeDefault\"}"),
        Addition {
            absent: format!("{} && !has(object.spec.volumes)", terms.asks),
            path: "\"/spec/volumes\"".to_owned(),
            value: "[]".to_owned(),
        },
    ];
    let mut volume = |variable: &str, path: &str, source: String| {
        additions.push(Addition {
            absent: format!("{} && !{VOLUMES}.exists(v, v.?hostPath.?path.orValue(\"\") == {path})", terms.asks),
            path: "\"/spec/volumes/-\"".to_owned(),
            value: format!("{{\"name\": dyn({variable}), \"hostPath\": dyn({source})}}"),
        });
    };
    volume("variables.volume", &terms.home, "{\"path\": variables.home, \"type\": \"Directory\"}".to_owned());
    for (index, mount) in rules.mounts.iter().enumerate() {
        let path = literal(&mount.path);
        // It may be a file as well as a folder.
        volume(&format!("variables.volume{index}"), &path, format!("{{\"path\": {path}}}"));
    }
    additions
}

/// What is added to each container `c`, number `i`, of a list.
fn containers(rules: &Rules, terms: &Terms, list: &str) -> Vec<Addition> {
    let asks = &terms.asks;
    let addition = |absent: &str, rest: &str, value: &str| Addition {
        absent: absent.to_owned(),
        path: format!("\"/spec/{list}/\" + string(i) + {}", literal(rest)),
        value: value.to_owned(),
    };
    let mut additions = vec![
        addition("!has(c.securityContext)", "/securityContext", "{}"),
        addition(
            "!has(c.securityContext) || !has(c.securityContext.allowPrivilegeEscalation)",
            "/securityContext/allowPrivilegeEscalation",
            "false",
        ),
        addition(
            "!has(c.securityContext) || !has(c.securityContext.capabilities)",
            "/securityContext/capabilities",
            "{}",
        ),
        addition(
            "!c.?securityContext.?capabilities.?drop.hasValue()",
            "/securityContext/capabilities/drop",
            "[\"ALL\"]",
        ),
        addition(&format!("{asks} && !has(c.env)"), "/env", "[]"),
        addition(&format!("{asks} && !has(c.volumeMounts)"), "/volumeMounts", "[]"),
    ];
    for name in ["HOME", "TOOL_DATA_DIR"] {
        let absent = format!("{asks} && !c.?env.orValue([]).exists(v, v.name == {})", literal(name));
        additions.push(addition(
            &absent,
            "/env/-",
            &format!("{{\"name\": {}, \"value\": variables.home}}", literal(name)),
        ));
    }
    let mut mount = |variable: &str, path: &str, read_only: &str| {
        let absent = format!("{asks} && !c.?volumeMounts.orValue([]).exists(m, m.mountPath == {path})");
        let value = format!("{{\"name\": dyn({variable}), \"mountPath\": dyn({path}){read_only}}}");
        additions.push(addition(&absent, "/volumeMounts/-", &value));
    };
    mount("variables.volume", &terms.home, "");
    for (index, listed) in rules.mounts.iter().enumerate() {
        let read_only = if listed.read_only { ", \"readOnly\": dyn(true)" } else { "" };
        mount(&format!("variables.volume{index}"), &literal(&listed.path), read_only);
    }
    additions
}

/// The operations of a patch.
fn add(additions: &[Addition]) -> String {
    let operations = additions.iter().map(|Addition { absent, path, value }| {
        format!("(({absent}) ? [JSONPatch{{op: \"add\", path: {path}, value: {value}}}] : [])")
    });
    operations.collect::<Vec<_>>().join(" + ")
}

/// The same for each container of a list.
fn add_to_each(list: &str, additions: &[Addition]) -> String {
    format!("object.spec.?{list}.orValue([]).transformList(i, c, {}).flatten()", add(additions))
}
