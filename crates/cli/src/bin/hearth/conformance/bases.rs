//! Legal objects from which attempts start: what any tenant may want, written as strictly as Kubernetes knows.
//!
//! They satisfy Pod Security `restricted`, so that whatever refuses a changed one refuses the change.

use serde_json::{Value, json};

use super::attempt::Values;

/// The name of everything that is sent and not stored.
pub const NAME: &str = "hearth-conformance";

/// Every base.
pub const NAMES: &[&str] = &[
    "pod",
    "deployment",
    "replicaset",
    "statefulset",
    "daemonset",
    "replicationcontroller",
    "job",
    "cronjob",
    "service",
    "ingress",
    "configmap",
    "secret",
    "persistentvolumeclaim",
];

/// A legal object.
pub struct Base {
    /// Where it is created: the API's path before the namespace, and the plural.
    pub api: &'static str,
    /// The resource in the plural.
    pub plural: &'static str,
    /// The object.
    pub object: Value,
    /// Where in it the template of its pods is, for what makes pods.
    pub template: Option<&'static str>,
}

/// The labels of everything that is sent.
pub fn labels() -> Value {
    json!({ "app.kubernetes.io/managed-by": NAME })
}

/// A base by its name; nothing where the name is not known or what it needs was not given.
pub fn base(name: &str, values: &Values) -> Option<Base> {
    let given = |name: &str| values.0.get(name).cloned();
    let template = |restart: &str| json!({ "metadata": { "labels": labels() }, "spec": pod(values, restart) });
    let selector = json!({ "matchLabels": labels() });
    let of =
        |api_version: &str, kind: &str, spec: Value| json!({ "apiVersion": api_version, "kind": kind, "spec": spec });
    let running = json!({ "replicas": 1, "selector": selector, "template": template("Always") });
    let job = json!({ "template": template("Never") });
    let (plural, object, template) = match name {
        "pod" => ("pods", of("v1", "Pod", pod(values, "Always")), None),
        "deployment" => ("deployments", of("apps/v1", "Deployment", running), Some("/spec/template")),
        "replicaset" => ("replicasets", of("apps/v1", "ReplicaSet", running), Some("/spec/template")),
        "statefulset" => ("statefulsets", of("apps/v1", "StatefulSet", running), Some("/spec/template")),
        "daemonset" => {
            let spec = json!({ "selector": selector, "template": template("Always") });
            ("daemonsets", of("apps/v1", "DaemonSet", spec), Some("/spec/template"))
        }
        "replicationcontroller" => {
            let spec = json!({ "replicas": 1, "selector": labels(), "template": template("Always") });
            ("replicationcontrollers", of("v1", "ReplicationController", spec), Some("/spec/template"))
        }
        "job" => ("jobs", of("batch/v1", "Job", job), Some("/spec/template")),
        "cronjob" => {
            let spec = json!({ "schedule": "7 3 * * *", "jobTemplate": { "spec": job } });
            ("cronjobs", of("batch/v1", "CronJob", spec), Some("/spec/jobTemplate/spec/template"))
        }
        "service" => {
            let ports = json!([{ "name": "http", "port": 8000, "protocol": "TCP", "targetPort": 8000 }]);
            ("services", of("v1", "Service", json!({ "selector": labels(), "ports": ports })), None)
        }
        "ingress" => {
            let backend = json!({ "service": { "name": NAME, "port": { "number": 8000 } } });
            let paths = json!([{ "path": "/", "pathType": "Prefix", "backend": backend }]);
            let mut spec = json!({ "rules": [{ "host": given("host")?, "http": { "paths": paths } }] });
            if let Some(class) = given("ingress-class") {
                put_class(&mut spec, class);
            }
            ("ingresses", of("networking.k8s.io/v1", "Ingress", spec), None)
        }
        name => {
            let (plural, object) = data(name)?;
            (plural, object, None)
        }
    };
    let mut object = object;
    if let Some(map) = object.as_object_mut() {
        map.insert("metadata".to_owned(), json!({ "name": NAME, "labels": labels() }));
    }
    let api = match object.get("apiVersion").and_then(Value::as_str) {
        Some("apps/v1") => "/apis/apps/v1",
        Some("batch/v1") => "/apis/batch/v1",
        Some("networking.k8s.io/v1") => "/apis/networking.k8s.io/v1",
        _ => "/api/v1",
    };
    Some(Base { api, plural, object, template })
}

/// What only holds data.
fn data(name: &str) -> Option<(&'static str, Value)> {
    let object = |kind: &str, key: &str, content: Value| json!({ "apiVersion": "v1", "kind": kind, key: content });
    Some(match name {
        "configmap" => ("configmaps", object("ConfigMap", "data", json!({ "a": "b" }))),
        "secret" => ("secrets", object("Secret", "stringData", json!({ "a": "b" }))),
        "persistentvolumeclaim" => {
            let spec = json!({ "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } });
            ("persistentvolumeclaims", object("PersistentVolumeClaim", "spec", spec))
        }
        _ => return None,
    })
}

fn put_class(spec: &mut Value, class: String) {
    if let Some(spec) = spec.as_object_mut() {
        spec.insert("ingressClassName".to_owned(), class.into());
    }
}

/// A pod that sleeps, as restricted as pods can be.
fn pod(values: &Values, restart: &str) -> Value {
    let mut security = json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } });
    let uid = values.0.get("uid").and_then(|uid| uid.parse::<u32>().ok());
    if let (Some(uid), Some(security)) = (uid, security.as_object_mut()) {
        for field in ["runAsUser", "runAsGroup"] {
            security.insert(field.to_owned(), uid.into());
        }
    }
    json!({
        "automountServiceAccountToken": false,
        "restartPolicy": restart,
        "securityContext": security,
        "containers": [{
            "name": "main",
            "image": values.0.get("image"),
            "command": ["sleep", "3600"],
            "resources": {
                "requests": { "cpu": "50m", "memory": "100Mi" },
                "limits": { "cpu": "100m", "memory": "128Mi" },
            },
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": { "drop": ["ALL"] },
            },
        }],
    })
}
