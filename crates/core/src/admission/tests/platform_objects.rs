//! What Hearth's own manifests run is admitted by the rules for the platform's namespaces, and needs all that its roles
//! are listed for: whoever adds a privilege to a manifest has to add it to the list, and whoever ends one, too.

use serde_json::{Value, json};

use super::super::fields::ROLES;
use super::*;

/// Every document of every manifest of the platform's own namespaces.
fn documents() -> Vec<Value> {
    let folders = ["base", "ingress"].map(|name| format!("{}/../../deploy/{name}", env!("CARGO_MANIFEST_DIR")));
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let files = files.map(|entry| entry.unwrap().path());
    let texts = files.filter(|path| path.extension().is_some_and(|end| end == "yaml"));
    let texts: Vec<String> = texts.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let documents = texts.iter().flat_map(|text| text.split("\n---\n"));
    documents.map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

/// The resource of a workload, with its group.
fn workload(object: &Value) -> Option<(&'static str, &'static str)> {
    match object["kind"].as_str().unwrap_or_default() {
        "DaemonSet" => Some(("apps", "daemonsets")),
        "Deployment" => Some(("apps", "deployments")),
        "Job" => Some(("batch", "jobs")),
        "StatefulSet" => Some(("apps", "statefulsets")),
        _ => None,
    }
}

fn verdict(group: &str, resource: &str, namespace: &str, object: &Value) -> Verdict {
    let request = Request {
        operation: Operation::Create,
        group,
        resource,
        subresource: "",
        namespace,
        user: "system:admin",
        object,
        old: None,
        annotations: &BTreeMap::new(),
    };
    review(&rules(), &request)
}

/// The pod of a workload, with what the API server sets by itself.
fn pod_of(object: &Value) -> Value {
    let template = &object["spec"]["template"];
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"] })
}

#[test]
fn every_pod_of_the_manifests_is_admitted() {
    let mut seen = Vec::new();
    for object in documents() {
        let Some((group, resource)) = workload(&object) else { continue };
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let namespace = object["metadata"]["namespace"].as_str().unwrap();
        for verdict in [verdict(group, resource, namespace, &object), verdict("", "pods", namespace, &pod_of(&object))]
        {
            assert_eq!(verdict, Verdict::Allow, "{name}: {verdict}");
        }
        // The same without a role's name has none of its privileges.
        if namespace == names::PLATFORM_NAMESPACE {
            let mut pod = pod_of(&object);
            pod["metadata"] = json!({});
            let listed = ROLES.iter().any(|role| role.name == name);
            assert_eq!(verdict("", "pods", namespace, &pod) != Verdict::Allow, listed, "{name}");
        }
        seen.push(name);
    }
    seen.sort();
    assert_eq!(
        seen,
        ["accounts", "admission", "bastion", "coredns", "directory", "ingress", "registry", "registry-auth", "signer"]
    );
}

#[test]
fn no_role_is_listed_for_what_it_does_not_use() {
    let workloads: Vec<Value> = documents().into_iter().filter(|object| workload(object).is_some()).collect();
    for role in ROLES {
        let object = workloads.iter().find(|object| object["metadata"]["name"] == role.name).unwrap();
        let spec = &object["spec"]["template"]["spec"];
        let list = |name: &str| spec[name].as_array().cloned().unwrap_or_default();
        let containers: Vec<Value> = [list("initContainers"), list("containers")].concat();
        let mut added: Vec<String> = containers
            .iter()
            .flat_map(|container| {
                container["securityContext"]["capabilities"]["add"].as_array().cloned().unwrap_or_default()
            })
            .map(|capability| capability.as_str().unwrap().to_owned())
            .collect();
        added.sort();
        added.dedup();
        assert_eq!(added, role.capabilities, "{}", role.name);
        let paths: Vec<String> =
            list("volumes").iter().filter_map(|v| Some(v["hostPath"]["path"].as_str()?.to_owned())).collect();
        assert_eq!(paths, role.paths, "{}", role.name);
        let escalates = containers.iter().any(|c| c["securityContext"]["allowPrivilegeEscalation"] == json!(true));
        assert_eq!(escalates, role.escalates, "{}", role.name);
    }
}
