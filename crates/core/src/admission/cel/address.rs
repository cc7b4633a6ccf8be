//! The policy that leaves the addresses of Services to the cluster.
//!
//! The API server gives a Service its address before the validating policies see it, so that they cannot tell a chosen
//! address from a given one. Mutating policies run earlier. This one changes nothing: where an address is chosen, its
//! only mutation is one that cannot be applied, and the request fails with its text. It is the counterpart of
//! [`Node::GivenAddress`](super::super::Node).

use serde_json::{Value, json};

use super::{API_VERSION, Rule, Rules, metadata, tools};

/// The policy's name, and its binding's.
const NAME: &str = "hearth-tool-addresses";

/// The binding and its policy.
pub(super) fn policy(rules: &Rules) -> [Value; 2] {
    let unchanged =
        |field: &str| format!("(request.operation == \"UPDATE\" && object.spec.?{field} == oldObject.spec.?{field})");
    let given = "[\"\", \"None\"]";
    let one = format!("{} || object.spec.?clusterIP.orValue(\"\") in {given}", unchanged("clusterIP"));
    let list = format!("{} || object.spec.?clusterIPs.orValue([]).all(a, a in {given})", unchanged("clusterIPs"));
    // A JSON pointer: it leads nowhere, and the API server's message repeats it.
    let nowhere = format!(
        "/spec/clusterIP: it must be left out or None, since the cluster gives addresses ({})",
        Rule::Service.page()
    );
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
                    "operations": ["CREATE", "UPDATE"],
                    "resources": ["services"],
                    "scope": "Namespaced",
                }],
            },
            "matchConditions": [{ "name": "an-address-is-chosen", "expression": format!("!(({one}) && ({list}))") }],
            "mutations": [{
                "patchType": "JSONPatch",
                "jsonPatch": {
                    "expression": format!("[JSONPatch{{op: \"remove\", path: {}}}]", Value::from(nowhere)),
                },
            }],
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
