//! What the role accounts may do: it gives rights, so that a policy of its own bounds whom it gives which.

use std::time::{Duration, Instant};

use kube::Client;
use serde_json::{Value, json};

use crate::control_escalation::{Attempt, attempt, tried};
use crate::control_rbac::{apply, rights};

/// The role's rights and its policy.
const MANIFESTS: &str = include_str!("../../../deploy/base/accounts.yaml");

/// How long the API server may take to act on a new policy.
const EFFECT: Duration = Duration::from_secs(60);

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// A request that changes nothing even where it is allowed.
fn dry(why: &'static str, method: &'static str, path: &str, body: Value) -> Attempt {
    attempt(why, method, format!("{path}?dryRun=All"), body)
}

/// A cluster role binding that is made: its name, the role, and the kind and name of who gets it.
fn given(why: &'static str, name: &str, role: &str, (kind, subject): (&str, &str)) -> Attempt {
    let group = "rbac.authorization.k8s.io";
    let body = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": name },
        "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": role },
        "subjects": [{ "apiGroup": group, "kind": kind, "name": subject }],
    });
    dry(why, "POST", &format!("{RBAC}/clusterrolebindings"), body)
}

fn refused() -> Vec<Attempt> {
    let bob = ("Group", "hearth:admin:bob:aaaaaaaaaaaaaaaaaaaaaaaaaa");
    let cluster = |name: &str| format!("{RBAC}/clusterrolebindings/{name}");
    let own = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "more" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tools-user" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "hearth:tool:beside:x" }],
    });
    vec![
        given("a role that is not an administrator's", "bob-binding", "cluster-admin", bob),
        given("the power to act, to everyone", "bob-binding", "k8s-admin", ("Group", "system:authenticated")),
        given("the power to act, to a user", "bob-binding", "k8s-admin", ("User", "admin:bob")),
        given("the power to act, to another", "eve-binding", "k8s-admin", bob),
        given("the power to act, under the other name", "bob-view-binding", "k8s-admin", bob),
        given("the right to look, under the other name", "bob-binding", "view", bob),
        given("the power to act, under no name", "-binding", "k8s-admin", bob),
        dry("the signer's rights", "DELETE", &cluster("hearth-signer"), Value::Null),
        dry("the signer's rights", "PATCH", &cluster("hearth-signer"), json!({ "subjects": [] })),
        dry(
            "a label that makes it ours",
            "PATCH",
            &cluster("hearth-signer"),
            json!({ "metadata": { "labels": {
            "app.kubernetes.io/managed-by": "hearth-accounts" } } }),
        ),
        dry("more than its own role has", "PATCH", &format!("{RBAC}/clusterroles/tools-user"), json!({ "rules": [] })),
        dry(
            "a tool's rights, to another tool",
            "POST",
            &format!("{RBAC}/namespaces/tool-rights/rolebindings"),
            own.clone(),
        ),
        dry("a tool's rights, in the platform", "POST", &format!("{RBAC}/namespaces/hearth-system/rolebindings"), own),
        dry("the platform", "DELETE", "/api/v1/namespaces/hearth-system", Value::Null),
        dry("a secret", "GET", "/api/v1/namespaces/tool-rights/secrets", Value::Null),
        dry("to be somebody else", "POST", "/api/v1/namespaces/kube-system/serviceaccounts/default/token", json!({})),
    ]
}

fn allowed() -> Vec<Attempt> {
    let bob = ("Group", "hearth:admin:bob:aaaaaaaaaaaaaaaaaaaaaaaaaa");
    // A name that ends as its own bindings do.
    let odd = ("Group", "hearth:admin:a-binding:aaaaaaaaaaaaaaaaaaaaaaaaaa");
    vec![
        given("the power to act", "bob-binding", "k8s-admin", bob),
        given("the right to look", "bob-view-binding", "view", bob),
        given("the power to act", "a-binding-binding", "k8s-admin", odd),
        dry("rights are taken", "DELETE", &format!("{RBAC}/clusterrolebindings/ada-binding"), Value::Null),
        dry(
            "a tool's namespace",
            "PATCH",
            "/api/v1/namespaces/tool-rights",
            json!({ "metadata": { "labels": { "a": "b" } } }),
        ),
    ]
}

/// The role, in a cluster that has its policy.
async fn accounts() -> Client {
    let plane = rights().await;
    let admin = plane.admin().await;
    for document in MANIFESTS.split("\n---\n") {
        let object: Value = serde_saphyr::from_str(document).unwrap();
        if object["apiVersion"] == "admissionregistration.k8s.io/v1" {
            apply(&admin, &object).await;
        }
    }
    let groups = ["system:serviceaccounts", "system:serviceaccounts:hearth-system"];
    plane.impersonating("system:serviceaccount:hearth-system:accounts", &groups).await
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_gives_rights_to_whom_they_belong_only() {
    let client = accounts().await;
    let until = Instant::now() + EFFECT;
    let everyone = given("", "bob-binding", "k8s-admin", ("Group", "system:authenticated"));
    while tried(&client, &everyone).await.0 < 300 {
        assert!(Instant::now() < until, "the policy does not act");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut wrong = Vec::new();
    for (attempts, is_allowed) in [(refused(), false), (allowed(), true)] {
        for attempt in attempts {
            let (code, text) = tried(&client, &attempt).await;
            let is_right = if is_allowed { (200..300).contains(&code) } else { [403, 422].contains(&code) };
            if !is_right {
                wrong.push(format!("{}: {code} {text}", attempt.why));
            }
        }
    }
    assert!(wrong.is_empty(), "not as it should be:\n{}", wrong.join("\n"));
}
