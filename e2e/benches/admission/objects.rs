//! What is judged in the measurements: an Ingress and a pod of a web service, and reviews of them.

use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::{NAMESPACE, UID};

const HOME: &str = "/data/project/wikibot";

/// A review as the API server writes it: it says what is asked about before it shows the object.
pub(crate) fn review(group: &str, resource: &str, object: Value) -> Bytes {
    let (kind, name) = (object["kind"].clone(), object["metadata"]["name"].clone());
    let kind = json!({ "group": group, "version": "v1", "kind": kind });
    let resource = json!({ "group": group, "version": "v1", "resource": resource });
    let request: [(&str, Value); 13] = [
        ("uid", "705ab4f5-6393-11e8-b7cc-42010a800002".into()),
        ("kind", kind.clone()),
        ("resource", resource.clone()),
        ("requestKind", kind),
        ("requestResource", resource),
        ("name", name),
        ("namespace", NAMESPACE.into()),
        ("operation", "CREATE".into()),
        ("userInfo", json!({ "username": "tool:wikibot", "groups": ["tools", "system:authenticated"] })),
        ("object", object),
        ("oldObject", Value::Null),
        ("dryRun", false.into()),
        (
            "options",
            json!({ "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "kubectl-create" }),
        ),
    ];
    let fields: Vec<String> = request.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    let start = r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":"#;
    format!("{start}{{{}}}}}", fields.join(",")).into()
}

/// An Ingress as `webservice` makes it.
pub(crate) fn ingress() -> Value {
    json!({
        "kind": "Ingress", "apiVersion": "networking.k8s.io/v1",
        "metadata": { "name": "wikibot", "namespace": NAMESPACE, "creationTimestamp": null },
        "spec": { "ingressClassName": "hearth", "rules": [{ "host": "wikibot.hearth.localhost", "http": { "paths": [{
            "path": "/", "pathType": "Prefix",
            "backend": { "service": { "name": "wikibot", "port": { "number": 8000 } } },
        }] } }] },
        "status": { "loadBalancer": {} },
    })
}

/// A pod of a web service, complete, with what the API server adds by itself.
pub(crate) fn pod() -> Value {
    let uid: u32 = UID.parse().unwrap_or_default();
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "name": "wikibot-6f9d7b8c5d-x2x4z", "generateName": "wikibot-6f9d7b8c5d-", "namespace": NAMESPACE,
            "creationTimestamp": null,
            "labels": { "name": "wikibot", "toolforge": "tool", "webservice.toolforge.org": "true",
                "pod-template-hash": "6f9d7b8c5d" },
            "annotations": { "toolforge.org/started-at": "2026-11-22T12:00:00Z" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "wikibot-6f9d7b8c5d",
                "uid": "b1c5cfb6-4b68-4c8c-9f8c-0ad1f5a2a1c3", "controller": true, "blockOwnerDeletion": true }],
            "managedFields": managed(),
        },
        "spec": {
            "volumes": [
                { "name": "home", "hostPath": { "path": HOME, "type": "Directory" } },
                { "name": "token", "projected": { "defaultMode": 420, "sources": [
                    { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
                    { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                ] } },
                { "name": "scratch", "emptyDir": {} },
            ],
            "containers": [container(uid)],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default", "serviceAccount": "default",
            "securityContext": { "runAsUser": uid, "runAsGroup": uid, "fsGroup": uid, "runAsNonRoot": true, "supplementalGroupsPolicy": "Strict",
                "seccompProfile": { "type": "RuntimeDefault" } },
            "schedulerName": "default-scheduler",
            "tolerations": [
                { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": 300 },
                { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": 300 },
            ],
            "priority": 0, "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
        },
        "status": { "phase": "Pending", "qosClass": "Burstable" },
    })
}

/// Its container.
fn container(uid: u32) -> Value {
    let variables = ["HOME", "TOOL_DATA_DIR", "PYTHONPATH", "LANG", "LC_ALL", "WEB_ROOT", "UWSGI_PROCESSES"];
    let env: Vec<Value> = variables.iter().map(|name| json!({ "name": name, "value": HOME })).collect();
    json!({
        "name": "webservice", "image": "registry.hearth.internal/toolforge-python311-web:latest",
        "command": ["/usr/bin/webservice-runner", "--type", "uwsgi-python", "--port", "8000"],
        "workingDir": HOME, "ports": [{ "name": "http", "containerPort": 8000, "protocol": "TCP" }],
        "env": env,
        "resources": { "limits": { "cpu": "500m", "memory": "512Mi" },
            "requests": { "cpu": "125m", "memory": "256Mi" } },
        "volumeMounts": [
            { "name": "home", "mountPath": HOME },
            { "name": "scratch", "mountPath": "/tmp" },
            { "name": "token", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" },
        ],
        "startupProbe": { "tcpSocket": { "port": 8000 }, "timeoutSeconds": 1, "periodSeconds": 10,
            "successThreshold": 1, "failureThreshold": 3 },
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        "imagePullPolicy": "Always",
        "securityContext": { "capabilities": { "drop": ["ALL"] }, "allowPrivilegeEscalation": false,
            "privileged": false, "readOnlyRootFilesystem": true, "runAsUser": uid, "runAsGroup": uid,
            "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
    })
}

/// Who manages which of its fields, which every stored object carries.
fn managed() -> Value {
    let fields = |names: &[&str]| -> Value {
        names.iter().map(|name| (format!("f:{name}"), json!({}))).collect::<serde_json::Map<_, _>>().into()
    };
    let container =
        fields(&["command", "env", "image", "imagePullPolicy", "name", "ports", "resources", "volumeMounts"]);
    let spec = fields(&["dnsPolicy", "enableServiceLinks", "restartPolicy", "schedulerName", "securityContext"]);
    json!([{
        "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
        "time": "2026-11-22T12:00:00Z", "fieldsType": "FieldsV1",
        "fieldsV1": { "f:metadata": { "f:generateName": {}, "f:labels": fields(&["name", "toolforge", "tools.hearth"]),
            "f:ownerReferences": { "k:{\"uid\":\"b1c5cfb6-4b68-4c8c-9f8c-0ad1f5a2a1c3\"}": {} } },
            "f:spec": { "f:containers": { "k:{\"name\":\"webservice\"}": container }, "f:rest": spec } },
    }])
}
