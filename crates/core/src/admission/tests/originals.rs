//! The holes of the original rules, each as an object that the original admits and the rulebook refuses.
//!
//! The originals are stated again here in a few lines each, as faithfully as their published code and settings allow:
//! their comparisons, what they look at and what they never look at. A webhook that crashed counts as one that admits,
//! since it was registered to be passed over when it does not answer. They decide nothing; they show that an object is
//! not merely refused here, but was let through there.

use serde_json::{Value, json};

use super::cases;
use super::*;

const DOMAINS: &[&str] = &["hearth.localhost", "tools.example"];
const REGISTRY: &str = "registry.hearth.internal";

/// Whether a text begins with `exact` and then something like `domain`, where a dot stands for any character and
/// nothing is said about the end: the expression `^exact(domain)` without escapes.
fn begins(text: &str, exact: &str, domain: &str) -> bool {
    let like = |rest: &str| {
        rest.len() >= domain.len() && rest.bytes().zip(domain.bytes()).all(|(byte, like)| like == b'.' || byte == like)
    };
    text.strip_prefix(exact).is_some_and(like)
}

/// The Ingress controller of 2020: hosts and paths of rules, and nothing else. The tool is what follows the first five
/// characters of the namespace.
fn original_ingress(namespace: &str, ingress: &Value) -> bool {
    let Some(tool) = namespace.get(5..) else { return true };
    for rule in ingress["spec"]["rules"].as_array().into_iter().flatten() {
        let host = rule["host"].as_str().unwrap_or_default();
        if host.is_empty() || DOMAINS.iter().any(|domain| begins(host, "tools.", domain)) {
            // Without `http` there is nothing to point to: it crashes.
            let Some(paths) = rule["http"]["paths"].as_array() else { return true };
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let ends = |rest: &str| !rest.starts_with(is_word);
            let below = |path: &str| path.strip_prefix(&format!("/{tool}")).is_some_and(ends);
            if !paths.iter().all(|path| below(path["path"].as_str().unwrap_or_default())) {
                return false;
            }
        } else if !DOMAINS.iter().any(|domain| begins(host, &format!("{tool}."), domain)) {
            return false;
        }
    }
    true
}

/// The registry webhook: the images of `containers`, in pods only, by the beginning of their names.
fn original_registry(resource: &str, object: &Value) -> bool {
    let ours = |image: &str| image.starts_with(&format!("{REGISTRY}/"));
    let containers = object["spec"]["containers"].as_array().into_iter().flatten();
    resource != "pods" || containers.into_iter().all(|container| container["image"].as_str().is_some_and(ours))
}

/// The security policy of each tool, in what it left open: paths of the node by segments below a few parents, of any
/// type; supplementary groups of any number but 0; any `SELinux` label; the hosts of probes not looked at.
fn original_security(pod: &Value) -> bool {
    let parents = ["/var/lib/sss/pipes", "/data/project", "/data/scratch", "/public/dumps", "/mnt/nfs"];
    let is_at =
        |path: &str, parent: &str| path.strip_prefix(parent).is_some_and(|r| r.is_empty() || r.starts_with('/'));
    let below = |path: &str| parents.iter().any(|parent| is_at(path, parent));
    let paths = pod["spec"]["volumes"].as_array().into_iter().flatten().filter_map(|v| v["hostPath"]["path"].as_str());
    let groups = pod["spec"]["securityContext"]["supplementalGroups"].as_array().into_iter().flatten();
    let context = &pod["spec"]["securityContext"];
    let own = |name: &str| context[name].as_i64().is_none_or(|number| number == i64::from(cases::UID));
    paths.into_iter().all(below)
        && groups.into_iter().all(|group| group.as_i64().is_some_and(|group| (1..=65_535).contains(&group)))
        && own("runAsUser")
        && own("runAsGroup")
        && own("fsGroup")
}

/// The volume webhook of 2026: no path of the node, except in a volume that is called `home`, for all homes together.
fn original_volumes(pod: &Value) -> bool {
    let mut volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.all(|volume| {
        volume.get("hostPath").is_none() || (volume["name"] == "home" && volume["hostPath"]["path"] == "/data/project")
    })
}

/// The base of a file of cases with some values set.
fn object(file: &str, set: &[(&str, Value)]) -> Value {
    let name = format!("{file}: the base");
    let mut object = cases::all().into_iter().find(|case| case.name == name).expect("a file of cases").object;
    for (pointer, value) in set {
        let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
        object.pointer_mut(parent).expect("what holds it")[last] = value.clone();
    }
    object
}

/// What the rulebook says of an object of `wikibot`'s, or of another namespace with the same number.
fn told(group: &str, resource: &str, namespace: &str, object: &Value) -> String {
    let annotations = BTreeMap::from([(names::annotation::UID.to_owned(), cases::UID.to_string())]);
    let request = Request {
        operation: Operation::Create,
        group,
        resource,
        subresource: "",
        namespace,
        user: "tool:wikibot",
        object,
        old: None,
        annotations: &annotations,
    };
    match review(&rules(), &request) {
        Verdict::Allow => String::new(),
        refusal => refusal.to_string(),
    }
}

/// An Ingress that the original admits and the rulebook refuses, saying `why`.
fn assert_ingress(namespace: &str, set: &[(&str, Value)], why: &str) {
    let ingress = object("ingresses", set);
    assert!(original_ingress(namespace, &ingress), "the original refuses {set:?}");
    let told = told("networking.k8s.io", "ingresses", namespace, &ingress);
    assert!(told.contains(why), "{set:?}: {told}");
}

/// A pod of which the same holds, for one of the originals that looked at pods.
fn assert_pod(original: impl Fn(&Value) -> bool, set: &[(&str, Value)], why: &str) {
    let pod = object("pods", set);
    assert!(original(&pod), "the original refuses {set:?}");
    let told = told("", "pods", "tool-wikibot", &pod);
    assert!(told.contains(why), "{set:?}: {told}");
}

const HOST: &str = "/spec/rules/0/host";
const PATH: &str = "/spec/rules/0/http/paths/0/path";

#[test]
fn the_originals_admit_what_is_right_and_refuse_what_is_plainly_wrong() {
    assert!(original_ingress("tool-wikibot", &object("ingresses", &[])));
    assert!(!original_ingress("tool-wikibot", &object("ingresses", &[(HOST, json!("other.hearth.localhost"))])));
    let legacy = |path: &str| object("ingresses", &[(HOST, json!("tools.hearth.localhost")), (PATH, json!(path))]);
    assert!(
        original_ingress("tool-wikibot", &legacy("/wikibot/a")) && !original_ingress("tool-wikibot", &legacy("/other"))
    );
    assert!(original_registry("pods", &object("pods", &[])));
    assert!(!original_registry("pods", &object("pods", &[("/spec/containers/0/image", json!("nginx"))])));
    assert!(original_security(&object("pods", &[])));
    assert!(!original_security(&object("pods", &[("/spec/securityContext/runAsUser", json!(0))])));
    assert!(!original_security(&object("pods", &[("/spec/volumes/0/hostPath/path", json!("/etc"))])));
    assert!(!original_volumes(&object("pods", &[("/spec/volumes/0/hostPath/path", json!("/etc"))])));
    for (file, group) in [("ingresses", "networking.k8s.io"), ("pods", "")] {
        assert_eq!(told(group, file, "tool-wikibot", &object(file, &[])), "");
    }
}

#[test]
fn hosts_have_an_end() {
    assert_ingress("tool-wikibot", &[(HOST, json!("wikibot.hearth.localhost.evil.example"))], "evil.example");
    let legacy = [(HOST, json!("tools.hearth.localhost.evil.example")), (PATH, json!("/wikibot"))];
    assert_ingress("tool-wikibot", &legacy, "tools.hearth.localhost.evil.example");
    assert_ingress("tool-wikibot", &[(HOST, json!("wikibot.hearth.localhosts"))], "localhosts");
}

#[test]
fn dots_are_dots() {
    assert_ingress("tool-wikibot", &[(HOST, json!("wikibot.hearthXlocalhost"))], "hearthXlocalhost");
    assert_ingress("tool-wikibot", &[(HOST, json!("wikibot.hearth-localhost"))], "hearth-localhost");
    let legacy = [(HOST, json!("tools.hearth-localhost")), (PATH, json!("/wikibot"))];
    assert_ingress("tool-wikibot", &legacy, "tools.hearth-localhost");
}

#[test]
fn paths_are_compared_by_segments() {
    let legacy = |path: &str| [(HOST, json!("tools.hearth.localhost")), (PATH, json!(path))];
    for path in ["/wikibot-evil", "/wikibot.evil", "/wikibot/../other", "/wikibot%2f..%2fother", "/wikibot~/x"] {
        assert_ingress("tool-wikibot", &legacy(path), "every path must be /wikibot or plainly below it");
    }
}

#[test]
fn every_rule_has_a_host_and_paths() {
    assert_ingress("tool-wikibot", &[(HOST, json!("")), (PATH, json!("/wikibot"))], "host is \"\"");
    assert_ingress("tool-wikibot", &[(HOST, Value::Null), (PATH, json!("/wikibot"))], "host is missing");
    let legacy = [(HOST, json!("tools.hearth.localhost")), ("/spec/rules/0/http", Value::Null)];
    assert_ingress("tool-wikibot", &legacy, "every path must be /wikibot");
    // Only the legacy host's paths were looked at, so a host of the tool's own without any passed too.
    assert_ingress("tool-wikibot", &[("/spec/rules/0/http", Value::Null)], "http is missing");
}

#[test]
fn an_ingress_without_rules_claims_everything() {
    let backend = json!({ "service": { "name": "wikibot", "port": { "number": 8000 } } });
    assert_ingress(
        "tool-wikibot",
        &[("/spec", json!({ "defaultBackend": backend }))],
        "spec.defaultBackend is not a field",
    );
    assert_ingress("tool-wikibot", &[("/spec/defaultBackend", backend)], "spec.defaultBackend is not a field");
    assert_ingress("tool-wikibot", &[("/spec/rules", json!([])), ("/spec/ingressClassName", json!("nginx"))], "nginx");
}

#[test]
fn everything_of_an_ingress_is_looked_at() {
    let tls = json!([{ "hosts": ["other.hearth.localhost"], "secretName": "mine" }]);
    assert_ingress("tool-wikibot", &[("/spec/tls", tls)], "spec.tls[0].hosts[0] is \"other.hearth.localhost\"");
    assert_ingress("tool-wikibot", &[("/spec/ingressClassName", json!("nginx"))], "spec.ingressClassName is \"nginx\"");
    for key in ["configuration-snippet", "server-snippet", "auth-url", "rewrite-target", "permanent-redirect"] {
        let annotations = json!({ format!("nginx.ingress.kubernetes.io/{key}"): "x" });
        assert_ingress("tool-wikibot", &[("/metadata/annotations", annotations)], key);
    }
}

#[test]
fn a_namespace_is_a_tools_by_its_name_and_number() {
    // Shorter than what is cut off: a crash. And any five characters were taken for the start of a tool's namespace.
    for namespace in ["dev", "evil-wikibot", "wiki-wikibot"] {
        assert_ingress(namespace, &[], &format!("the namespace {namespace} is not that of a tool"));
    }
}

#[test]
fn images_are_looked_at_wherever_they_are() {
    let pods = |pod: &Value| original_registry("pods", pod);
    let container = json!({
        "name": "i", "image": "nginx", "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
    });
    for list in ["initContainers", "ephemeralContainers"] {
        let why = format!("spec.{list}[i].image is \"nginx\"");
        assert_pod(pods, &[(&format!("/spec/{list}"), json!([container]))], &why);
    }
    let volume = json!([{ "name": "v", "image": { "reference": "nginx" } }]);
    assert_pod(pods, &[("/spec/volumes", volume)], "spec.volumes[v].image.reference is \"nginx\"");
    // A reference that no runtime can read, or reads in another way.
    for image in [
        "registry.hearth.internal/../a",
        "registry.hearth.internal/A",
        "registry.hearth.internal/",
        "registry.hearth.internal/a@b",
    ] {
        assert_pod(pods, &[("/spec/containers/0/image", json!(image))], image);
    }
}

#[test]
fn images_are_looked_at_in_whatever_makes_pods() {
    let spec = json!({ "containers": [{ "name": "a", "image": "nginx" }] });
    let template = json!({ "spec": { "template": { "spec": spec } } });
    for (group, resource) in [
        ("apps", "deployments"),
        ("apps", "replicasets"),
        ("apps", "statefulsets"),
        ("apps", "daemonsets"),
        ("batch", "jobs"),
        ("", "replicationcontrollers"),
    ] {
        assert!(original_registry(resource, &template));
        let told = told(group, resource, "tool-wikibot", &template);
        assert!(told.contains("spec.template.spec.containers[a].image is \"nginx\""), "{resource}: {told}");
    }
    let cron = json!({ "spec": { "jobTemplate": template } });
    assert!(original_registry("cronjobs", &cron));
    let told = told("batch", "cronjobs", "tool-wikibot", &cron);
    assert!(told.contains("spec.jobTemplate.spec.template.spec.containers[a].image is \"nginx\""), "{told}");
}

#[test]
fn all_offenders_are_told_at_once() {
    let pod = object(
        "pods",
        &[("/spec/containers/0/image", json!("a.example/a")), ("/spec/initContainers/0/image", json!("b.example/b"))],
    );
    // The original stopped at the first.
    assert!(!original_registry("pods", &pod));
    let told = told("", "pods", "tool-wikibot", &pod);
    assert!(told.contains("a.example/a") && told.contains("b.example/b"), "{told}");
}

#[test]
fn of_the_node_a_pod_mounts_its_own_home() {
    let path = "/spec/volumes/0/hostPath/path";
    for foreign in [
        "/data/project",
        "/data/project/other",
        "/data/project/wikibot/link",
        "/data/scratch/other",
        "/var/lib/sss/pipes",
    ] {
        assert_pod(original_security, &[(path, json!(foreign))], &format!("hostPath.path is \"{foreign}\""));
    }
    for made in ["DirectoryOrCreate", "FileOrCreate", "Socket", "BlockDevice"] {
        assert_pod(
            original_security,
            &[("/spec/volumes/0/hostPath/type", json!(made))],
            &format!("type is \"{made}\""),
        );
    }
    assert_pod(original_volumes, &[(path, json!("/data/project"))], "hostPath.path is \"/data/project\"");
}

#[test]
fn no_other_group_can_be_joined() {
    // A tool's group has its number, so another tool's files were a supplementary group away.
    let groups = "/spec/securityContext/supplementalGroups";
    assert_pod(original_security, &[(groups, json!([cases::UID + 1]))], "supplementalGroups[0] is 50124");
}

#[test]
fn labels_and_probes_are_looked_at() {
    let options = json!({ "type": "spc_t" });
    assert_pod(
        original_security,
        &[("/spec/securityContext/seLinuxOptions", options)],
        "seLinuxOptions is not a field",
    );
    let probe = json!({ "httpGet": { "host": "169.254.169.254", "port": 80 } });
    assert_pod(
        original_security,
        &[("/spec/containers/0/livenessProbe", probe)],
        "httpGet.host is \"169.254.169.254\"",
    );
}
