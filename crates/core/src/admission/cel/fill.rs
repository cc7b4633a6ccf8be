//! The policy that fills in what a tool's pod leaves out, so that manifests without a security context keep working.
//!
//! It only adds: what is present and wrong is refused afterwards, by the validating policies. It runs when a pod is
//! made and skips complete ones, because a mutating policy costs the API server far more than a validating one.
//! The API server calls it before the webhook, which therefore sees pods as they will be stored.

use serde_json::{Value, json};

use super::expression::literal;
use super::{API_VERSION, Rules, metadata, namespaces, tenant, variable};
use crate::names::label;

/// The policy's name, and its binding's.
const NAME: &str = "hearth-tool-fill";

/// The volume with the home, in a pod that has none for it.
const VOLUME: &str = "home";

/// The same, where something else has that name.
const OTHER_VOLUME: &str = "tool-home";

/// The policy and its binding.
pub(super) fn policy(rules: &Rules) -> [Value; 2] {
    let mut variables = tenant(rules);
    variables.extend(pod_variables());
    let patch = |expression: String| json!({ "patchType": "JSONPatch", "jsonPatch": { "expression": expression } });
    let policy = json!({
        "apiVersion": API_VERSION,
        "kind": "MutatingAdmissionPolicy",
        "metadata": metadata(NAME),
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": {
                "matchPolicy": "Equivalent",
                "namespaceSelector": namespaces(rules),
                "resourceRules": [{
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE"],
                    "resources": ["pods"],
                    "scope": "Namespaced",
                }],
            },
            "matchConditions": [{ "name": "something-is-missing", "expression": format!("!({})", complete()) }],
            "variables": variables,
            // A namespace without a tool's number gets nothing: the validating policies say what is wrong with it.
            "mutations": [patch(format!(
                "variables.known ? {} + {} + {} : []",
                pod(), containers("containers"), containers("initContainers")
            ))],
        },
    });
    let binding = json!({
        "apiVersion": API_VERSION,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": metadata(NAME),
        "spec": { "policyName": NAME },
    });
    [policy, binding]
}

/// Whether nothing needs to be added, as far as it can be seen without the namespace.
fn complete() -> String {
    let container = "has(c.securityContext) && has(c.securityContext.allowPrivilegeEscalation) && \
                     has(c.securityContext.capabilities) && has(c.securityContext.capabilities.drop)";
    let home = "has(c.env) && [\"HOME\", \"TOOL_DATA_DIR\"].all(n, c.env.exists(v, v.name == n))";
    let all = |test: &str| {
        format!("object.spec.containers.all(c, {test}) && object.spec.?initContainers.orValue([]).all(c, {test})")
    };
    format!(
        "has(object.spec.securityContext) && \
         [\"runAsUser\", \"runAsGroup\", \"runAsNonRoot\", \"seccompProfile\"].all(f, f in dyn(object.spec.securityContext)) && \
         {} && (object.metadata.?labels[?{label}].orValue(\"\") != \"tool\" || \
         (object.spec.?volumes.orValue([]).exists(v, has(v.hostPath)) && {}))",
        all(container),
        all(home),
        label = literal(label::TOOLFORGE),
    )
}

fn pod_variables() -> Vec<Value> {
    let volumes = "object.spec.?volumes.orValue([])";
    let own = format!("{volumes}.filter(v, v.?hostPath.?path.orValue(\"\") == variables.home)");
    vec![
        variable(
            "mounts",
            format!("object.metadata.?labels[?{}].orValue(\"\") == \"tool\"", literal(label::TOOLFORGE)),
        ),
        variable("own", own),
        variable(
            "volume",
            format!(
                "variables.own.size() > 0 ? string(variables.own[0].name) : {volumes}.exists(v, v.name == {home}) ? {other} : {home}",
                home = literal(VOLUME),
                other = literal(OTHER_VOLUME)
            ),
        ),
    ]
}

/// What is added to the pod itself.
fn pod() -> String {
    let context = "/spec/securityContext";
    let field = |name: &str, value: &str| {
        let absent = format!("!has(object.spec.securityContext) || !has(object.spec.securityContext.{name})");
        add(&absent, &literal(&format!("{context}/{name}")), value)
    };
    [
        add("!has(object.spec.securityContext)", &literal(context), "{}"),
        field("runAsUser", "variables.uid"),
        field("runAsGroup", "variables.uid"),
        field("runAsNonRoot", "true"),
        field("seccompProfile", "{\"type\": \"RuntimeDefault\"}"),
        add("variables.mounts && variables.own.size() == 0 && !has(object.spec.volumes)", "\"/spec/volumes\"", "[]"),
        add(
            "variables.mounts && variables.own.size() == 0",
            "\"/spec/volumes/-\"",
            "{\"name\": dyn(variables.volume), \"hostPath\": dyn({\"path\": variables.home, \"type\": \"Directory\"})}",
        ),
    ]
    .join(" + ")
}

/// What is added to each container of a list.
fn containers(list: &str) -> String {
    let at = |rest: &str| format!("\"/spec/{list}/\" + string(i) + {}", literal(rest));
    let environment = |name: &str| {
        let absent = format!("variables.mounts && !c.?env.orValue([]).exists(v, v.name == {})", literal(name));
        add(&absent, &at("/env/-"), &format!("{{\"name\": {}, \"value\": variables.home}}", literal(name)))
    };
    let additions = [
        add("!has(c.securityContext)", &at("/securityContext"), "{}"),
        add(
            "!has(c.securityContext) || !has(c.securityContext.allowPrivilegeEscalation)",
            &at("/securityContext/allowPrivilegeEscalation"),
            "false",
        ),
        add(
            "!has(c.securityContext) || !has(c.securityContext.capabilities)",
            &at("/securityContext/capabilities"),
            "{}",
        ),
        add(
            "!c.?securityContext.?capabilities.?drop.hasValue()",
            &at("/securityContext/capabilities/drop"),
            "[\"ALL\"]",
        ),
        add("variables.mounts && !has(c.env)", &at("/env"), "[]"),
        environment("HOME"),
        environment("TOOL_DATA_DIR"),
        add("variables.mounts && !has(c.volumeMounts)", &at("/volumeMounts"), "[]"),
        add(
            "variables.mounts && !c.?volumeMounts.orValue([]).exists(m, m.mountPath == variables.home)",
            &at("/volumeMounts/-"),
            "{\"name\": variables.volume, \"mountPath\": variables.home}",
        ),
    ];
    format!("object.spec.?{list}.orValue([]).transformList(i, c, {}).flatten()", additions.join(" + "))
}

/// One addition, where `absent` holds.
fn add(absent: &str, path: &str, value: &str) -> String {
    format!("(({absent}) ? [JSONPatch{{op: \"add\", path: {path}, value: {value}}}] : [])")
}
