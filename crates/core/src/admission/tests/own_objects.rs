//! What Hearth itself puts into a tool's namespace is admitted by Hearth's own rules: the objects of `webservice`, for
//! every type that is offered, and the manifest of fourohfour.

use serde_json::{Value, json};

use super::cases::UID;
use super::*;
use crate::webservice::objects::Owner;
use crate::webservice::{Objects, Settings, Types, types};
use crate::{ToolName, names};

/// The documents of a manifest.
fn documents(text: &str) -> Vec<Value> {
    text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

/// Annotations of a tool's namespace.
type Annotations = BTreeMap<String, String>;

/// Those that every tool's has, as far as the rules ask for them.
fn usual_annotations() -> Annotations {
    BTreeMap::from([(names::annotation::UID.to_owned(), UID.to_string())])
}

/// Has an object judged as the tool's own would be.
fn assert_admitted(
    platform: &Platform,
    (tool, annotations): (&ToolName, &Annotations),
    group: &str,
    resource: &str,
    object: &Value,
) {
    let request = Request {
        operation: Operation::Create,
        group,
        resource,
        subresource: "",
        namespace: &tool.namespace(),
        user: &format!("tool:{tool}"),
        object,
        old: None,
        annotations,
    };
    let verdict = review(&Rules::of(platform), &request);
    assert_eq!(verdict, Verdict::Allow, "{resource} of {tool}: {verdict}\n{object:#}");
}

/// The pod that a Deployment makes, which is judged apart.
fn pod_of(deployment: &Value) -> Value {
    let template = &deployment["spec"]["template"];
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"] })
}

#[test]
fn what_webservice_makes_is_admitted_for_every_type() {
    let platform = Platform::from_toml(cases::PLATFORM).unwrap();
    let tool: ToolName = "wikibot".parse().unwrap();
    let tenant = (&tool, &usual_annotations());
    let list = documents(include_str!("../../../../../deploy/base/image-config.yaml"));
    let list = list.iter().find_map(|document| document["data"][types::KEY].as_str()).unwrap();
    let types = Types::parse(list).unwrap();
    assert!(types.names().count() > 0, "the list of types is empty");
    for name in types.names() {
        let (_, image) = types.find(name).unwrap();
        for (cpu, memory) in [(None, None), (Some("1".parse().unwrap()), Some("4Gi".parse().unwrap()))] {
            let extra_args = vec!["--index".to_owned()];
            let settings = Settings { kind: name.to_owned(), cpu, memory, replicas: 2, extra_args };
            let owner = Owner { tool: &tool, uid: UID, platform: &platform };
            let made = Objects::new(owner, &settings, &image, "2026-11-22T18:00:00Z".parse().unwrap());
            let deployment = serde_json::to_value(made.deployment).unwrap();
            assert_admitted(&platform, tenant, "", "pods", &pod_of(&deployment));
            assert_admitted(&platform, tenant, "apps", "deployments", &deployment);
            let service = serde_json::to_value(made.service).unwrap();
            assert_admitted(&platform, tenant, "", "services", &service);
            let ingress = serde_json::to_value(made.ingress).unwrap();
            assert_admitted(&platform, tenant, "networking.k8s.io", "ingresses", &ingress);
        }
    }
}

#[test]
fn fourohfour_is_admitted_as_a_tool() {
    let platform = Platform::from_toml(cases::PLATFORM).unwrap();
    let tool: ToolName = "fourohfour".parse().unwrap();
    let manifest = documents(include_str!("../../../../../deploy/fourohfour/fourohfour.yaml"));
    let namespace = manifest.iter().find(|object| object["kind"] == "Namespace").unwrap();
    assert_eq!(namespace["metadata"]["name"], tool.namespace().as_str());
    let mut annotations = usual_annotations();
    annotations.extend(serde_json::from_value::<Annotations>(namespace["metadata"]["annotations"].clone()).unwrap());
    let tenant = (&tool, &annotations);
    let mut found = Vec::new();
    for mut object in manifest {
        if object["metadata"]["namespace"] != tool.namespace().as_str() {
            continue;
        }
        match object["kind"].as_str().unwrap() {
            "Deployment" => {
                // The overlay names the image in full.
                let image = &mut object["spec"]["template"]["spec"]["containers"][0]["image"];
                *image = format!("registry.hearth.internal/{}", image.as_str().unwrap()).into();
                assert_admitted(&platform, tenant, "apps", "deployments", &object);
                let mut pod = pod_of(&object);
                // What the policy for it adds to a pod that leaves it out.
                pod["spec"]["securityContext"] = json!({
                    "runAsUser": UID, "runAsGroup": UID, "fsGroup": UID, "runAsNonRoot": true,
                    "supplementalGroupsPolicy": "Strict", "seccompProfile": {"type": "RuntimeDefault"},
                });
                assert_admitted(&platform, tenant, "", "pods", &pod);
                found.push("Deployment");
            }
            "Service" => {
                assert_admitted(&platform, tenant, "", "services", &object);
                found.push("Service");
            }
            // An operator's to write: a tool may make none.
            "ServiceAccount" => (),
            kind => panic!("no rule is asked about a {kind}"),
        }
    }
    found.sort_unstable();
    assert_eq!(found, ["Deployment", "Service"]);
}
