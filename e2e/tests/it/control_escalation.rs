//! What a tool's rights could be turned into: rights that make rights, ways into pods and nodes, controllers that would
//! do for the tool what it may not do itself. Each is tried with the tool's own certificate, and must be refused.

use hearth_core::names::annotation;
use kube::{Client, Error};
use serde_json::{Value, json};

use crate::control_rbac::{TOOL, identity, rights};

/// Something that a tool might try: why it would be a gain, and the request.
pub(crate) struct Attempt {
    pub(crate) why: &'static str,
    method: &'static str,
    path: String,
    body: Value,
    /// Who to be instead, as a header says.
    instead: Option<(&'static str, &'static str)>,
}

pub(crate) fn attempt(why: &'static str, method: &'static str, path: impl Into<String>, body: Value) -> Attempt {
    Attempt { why, method, path: path.into(), body, instead: None }
}

fn impersonation() -> impl Iterator<Item = Attempt> {
    let whom = [
        ("an administrator", ("impersonate-user", "admin:ada")),
        ("the signer", ("impersonate-user", "system:serviceaccount:hearth-system:signer")),
        ("the own service account", ("impersonate-user", "system:serviceaccount:tool-rights:default")),
        ("another tool", ("impersonate-user", "tool:beside")),
        ("the node", ("impersonate-user", "system:node:node")),
    ];
    whom.into_iter().map(|(why, header)| Attempt {
        instead: Some(header),
        ..attempt(why, "GET", "/api/v1/namespaces/tool-rights/pods", Value::Null)
    })
}

/// Rights that would make rights.
fn escalations() -> Vec<Attempt> {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let own = format!("{rbac}/namespaces/tool-rights");
    let role = json!({ "kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io" });
    let me = json!([{ "kind": "User", "name": "tool:rights", "apiGroup": "rbac.authorization.k8s.io" }]);
    let rules = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
    let binding = |kind: &str| {
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": { "name": "more" },
                "roleRef": role, "subjects": me })
    };
    let token = |account: &str| {
        json!({ "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
                "metadata": { "name": "token", "annotations": { "kubernetes.io/service-account.name": account } } })
    };
    let request = json!({ "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": { "name": "more" },
        "spec": { "request": "", "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"] } });
    let csr = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let ask = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "audiences": [] } });
    vec![
        attempt("a role", "POST", format!("{own}/roles"), json!({ "metadata": { "name": "more" }, "rules": rules })),
        attempt("a binding", "POST", format!("{own}/rolebindings"), binding("RoleBinding")),
        attempt(
            "another subject",
            "PATCH",
            format!("{own}/rolebindings/rights-tool-binding"),
            json!({ "subjects": me }),
        ),
        attempt("more for all tools", "PATCH", format!("{rbac}/clusterroles/tools-user"), json!({ "rules": rules })),
        attempt("all", "POST", format!("{rbac}/clusterrolebindings"), binding("ClusterRoleBinding")),
        attempt("a token that never ends", "POST", "/api/v1/namespaces/tool-rights/secrets", token("default")),
        attempt("the platform's token", "POST", "/api/v1/namespaces/hearth-system/secrets", token("signer")),
        attempt("a token", "POST", "/api/v1/namespaces/tool-rights/serviceaccounts/default/token", ask.clone()),
        attempt("a controller's token", "POST", "/api/v1/namespaces/kube-system/serviceaccounts/x/token", ask),
        attempt(
            "an account",
            "POST",
            "/api/v1/namespaces/tool-rights/serviceaccounts",
            json!({ "metadata": { "name": "more" } }),
        ),
        attempt("a certificate", "POST", csr, request.clone()),
        attempt("its approval", "PUT", format!("{csr}/more/approval"), request.clone()),
        attempt("its signature", "PUT", format!("{csr}/more/status"), request),
    ]
}

/// What bounds the tool, out of its way.
fn bounds() -> Vec<Attempt> {
    let patch = json!({ "metadata": { "annotations": { annotation::UID: "50141" } } });
    vec![
        attempt("another number", "PATCH", "/api/v1/namespaces/tool-rights", patch),
        attempt("a namespace", "POST", "/api/v1/namespaces", json!({ "metadata": { "name": "tool-more" } })),
        attempt("no namespace", "DELETE", "/api/v1/namespaces/tool-rights", Value::Null),
        attempt("no quota", "DELETE", "/api/v1/namespaces/tool-rights/resourcequotas/tool-rights", Value::Null),
        attempt("no limits", "DELETE", "/api/v1/namespaces/tool-rights/limitranges/tool-rights", Value::Null),
        attempt(
            "no policies",
            "DELETE",
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/hearth-tool-pods",
            Value::Null,
        ),
        attempt(
            "no bindings of policies",
            "DELETE",
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/hearth-tool-pods",
            Value::Null,
        ),
        attempt(
            "a webhook",
            "POST",
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
            json!({ "metadata": { "name": "more" } }),
        ),
        attempt(
            "an API",
            "POST",
            "/apis/apiregistration.k8s.io/v1/apiservices",
            json!({ "metadata": { "name": "v1.more" } }),
        ),
        attempt(
            "a kind",
            "POST",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            json!({ "metadata": { "name": "more" } }),
        ),
    ]
}

/// Ways into what others run and keep.
fn ways_in() -> Vec<Attempt> {
    let get = |why, path: &str| attempt(why, "GET", path, Value::Null);
    vec![
        get("a shell of the platform's", "/api/v1/namespaces/hearth-system/pods/signer/exec?command=sh&stdout=true"),
        get("a shell of another tool's", "/api/v1/namespaces/tool-beside/pods/web/exec?command=sh&stdout=true"),
        get("a program of another tool's", "/api/v1/namespaces/tool-beside/pods/web/attach?stdout=true"),
        get("a port of another tool's", "/api/v1/namespaces/tool-beside/pods/web/portforward?ports=8000"),
        get("what another tool writes", "/api/v1/namespaces/tool-beside/pods/web/log"),
        get("the kubelet", "/api/v1/nodes/node/proxy/pods"),
        get("the node's files", "/api/v1/nodes/node/proxy/logs/"),
        get("the own pod through the API server", "/api/v1/namespaces/tool-rights/pods/web/proxy/"),
        get("a service of the platform's", "/api/v1/namespaces/hearth-system/services/https:registry:443/proxy/"),
        get("another tool's secrets", "/api/v1/namespaces/tool-beside/secrets"),
        get("the platform's secrets", "/api/v1/namespaces/hearth-system/secrets"),
        get("everybody's secrets", "/api/v1/secrets"),
        get("everybody's pods", "/api/v1/pods"),
        get("the nodes", "/api/v1/nodes"),
        get("the API server's figures", "/metrics"),
        attempt(
            "a container in another's pod",
            "PATCH",
            "/api/v1/namespaces/tool-beside/pods/web/ephemeralcontainers",
            json!({ "spec": {} }),
        ),
        attempt("another's pod away", "DELETE", "/api/v1/namespaces/tool-beside/pods/web", Value::Null),
        attempt(
            "a place on a node",
            "POST",
            "/api/v1/namespaces/tool-rights/pods/web/binding",
            json!({ "metadata": { "name": "web" }, "target": { "name": "node" } }),
        ),
        attempt(
            "a status",
            "PATCH",
            "/api/v1/namespaces/tool-rights/pods/web/status",
            json!({ "status": { "phase": "Running" } }),
        ),
        attempt(
            "another's list of types",
            "PATCH",
            "/api/v1/namespaces/hearth-public/configmaps/image-config",
            json!({ "data": {} }),
        ),
        attempt(
            "a leader's place",
            "POST",
            "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases",
            json!({ "metadata": { "name": "more" } }),
        ),
    ]
}

/// Workloads for which a controller with more rights would do something.
fn workloads() -> Vec<Attempt> {
    let apps = "/apis/apps/v1/namespaces/tool-rights";
    let labels = json!({ "name": "a" });
    let workload = |kind: &str, spec: Value| {
        let containers = json!([{ "name": "a", "image": "registry.hearth.internal/a" }]);
        let mut object = json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": "deputy" }, "spec": {
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": containers } },
        }});
        object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        object
    };
    let claim = json!({ "metadata": { "name": "d" }, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
    let set = workload("StatefulSet", json!({ "serviceName": "a", "volumeClaimTemplates": [claim.clone()] }));
    let mut account = workload("Deployment", json!({}));
    account["spec"]["template"]["spec"]["serviceAccountName"] = "deployer".into();
    let many = json!({ "spec": { "replicas": 101 } });
    let claims = "/api/v1/namespaces/tool-rights/persistentvolumeclaims";
    vec![
        attempt("the controller of StatefulSets", "POST", format!("{apps}/statefulsets"), set),
        attempt("a provisioner", "POST", claims, claim),
        attempt("the controller of Deployments", "POST", format!("{apps}/deployments"), account),
        attempt("the controller of DaemonSets", "POST", format!("{apps}/daemonsets"), workload("DaemonSet", json!({}))),
        attempt("pods beside the workload", "PATCH", format!("{apps}/deployments/scaled/scale"), many),
    ]
}

/// What other controllers with more rights would do for the tool.
fn deputies() -> Vec<Attempt> {
    let addresses = json!({ "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": "a" },
        "subsets": [{ "addresses": [{ "ip": "10.244.0.9" }], "ports": [{ "port": 8000 }] }] });
    let slice = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": { "name": "a" },
        "addressType": "IPv4", "endpoints": [{ "addresses": ["10.244.0.9"] }] });
    let stay = json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "stay", "finalizers": ["example.org/stay"] } });
    let network = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "open" }, "spec": { "podSelector": {}, "ingress": [{}] } });
    let budget = json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "hold" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "name": "a" } } } });
    let scaler = json!({ "metadata": { "name": "a" } });
    let address = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "address" },
        "spec": { "clusterIP": "10.96.66.66", "ports": [{ "port": 80 }] } });
    let core = |name: &str| format!("/api/v1/namespaces/tool-rights/{name}");
    let of = |group: &str, name: &str| format!("/apis/{group}/namespaces/tool-rights/{name}");
    vec![
        attempt("the mirroring controller", "POST", core("endpoints"), addresses),
        attempt("kube-proxy and the front door", "POST", of("discovery.k8s.io/v1", "endpointslices"), slice),
        attempt("the controller of namespaces", "POST", core("configmaps"), stay),
        attempt("the network", "POST", of("networking.k8s.io/v1", "networkpolicies"), network),
        attempt("whoever empties a node", "POST", of("policy/v1", "poddisruptionbudgets"), budget),
        attempt("the autoscaler", "POST", of("autoscaling/v2", "horizontalpodautoscalers"), scaler),
        attempt("kube-proxy, for an address that others had", "POST", core("services"), address),
    ]
}

/// The status that an attempt meets, and what it says.
pub(crate) async fn tried(client: &Client, attempt: &Attempt) -> (u16, String) {
    let mut request = http::Request::builder().method(attempt.method).uri(&attempt.path);
    let kind = if attempt.method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    request = request.header("content-type", kind);
    if let Some((header, value)) = attempt.instead {
        request = request.header(header, value);
    }
    let body = if attempt.body.is_null() { Vec::new() } else { serde_json::to_vec(&attempt.body).unwrap() };
    match client.request_text(request.body(body).unwrap()).await {
        Ok(text) => (200, text),
        Err(Error::Api(status)) => (status.code, status.message.clone()),
        Err(error) => (0, error.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tools_rights_cannot_be_turned_into_others() {
    let plane = rights().await;
    let client = plane.certified(&identity(TOOL).subject()).await;
    // It is the tool that tries: what it may do, it can.
    let own = "/api/v1/namespaces/tool-rights";
    let deployment = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "scaled" }, "spec": {
        "replicas": 0, "selector": { "matchLabels": { "name": "a" } },
        "template": { "metadata": { "labels": { "name": "a" } },
                      "spec": { "containers": [{ "name": "a", "image": "registry.hearth.internal/a" }] } },
    }});
    let deployments = "/apis/apps/v1/namespaces/tool-rights/deployments";
    let allowed = [
        attempt("to look", "GET", format!("{own}/pods"), Value::Null),
        attempt(
            "to keep",
            "POST",
            format!("{own}/configmaps"),
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "mine" } }),
        ),
        attempt(
            "to keep secret",
            "POST",
            format!("{own}/secrets"),
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "mine" } }),
        ),
        attempt("to run", "POST", deployments, deployment),
        attempt("to run more", "PATCH", format!("{deployments}/scaled/scale"), json!({ "spec": { "replicas": 3 } })),
    ];
    for attempt in &allowed {
        let (code, text) = tried(&client, attempt).await;
        assert_eq!(code, 200, "{}: {} {}: {text}", attempt.why, attempt.method, attempt.path);
    }
    let mut got = Vec::new();
    let attempts = escalations().into_iter().chain(bounds()).chain(ways_in()).chain(workloads()).chain(deputies());
    let attempts = attempts.chain(impersonation());
    for attempt in attempts {
        let (code, text) = tried(&client, &attempt).await;
        // An address is refused by a policy that fails, which is another answer than a refusal.
        if code != 403 && !text.contains("the cluster gives addresses") {
            got.push(format!("{}: {} {}: {code} {text}", attempt.why, attempt.method, attempt.path));
        }
    }
    assert!(got.is_empty(), "not refused:\n{}", got.join("\n"));
}
