//! What the shared cases cannot say: subresources whose object is of another kind, and domains that lie below others.

use serde_json::json;

use super::*;

fn of(rules: &Rules, resource: &str, subresource: &str, group: &str, object: &Value, old: Option<&Value>) -> Verdict {
    let request = Request {
        operation: if old.is_some() { Operation::Update } else { Operation::Create },
        group,
        resource,
        subresource,
        namespace: "tool-wikibot",
        user: "tool:wikibot",
        object,
        old,
        annotations: &annotations("tool-wikibot"),
    };
    review(rules, &request)
}

#[test]
fn a_scale_is_bounded_like_the_workload() {
    let scale =
        |replicas: i64| json!({ "kind": "Scale", "metadata": { "name": "web" }, "spec": { "replicas": replicas } });
    let was = scale(1);
    for (group, resource) in
        [("apps", "deployments"), ("apps", "replicasets"), ("apps", "statefulsets"), ("", "replicationcontrollers")]
    {
        let judge = |replicas| of(&rules(), resource, "scale", group, &scale(replicas), Some(&was));
        assert_eq!(judge(100), Verdict::Allow, "{resource}");
        let refusal = judge(101).to_string();
        assert!(refusal.contains("spec.replicas is 101: it must be a number from 0 to 100 (rule limit)"), "{refusal}");
    }
    let many = scale(500);
    assert_eq!(of(&rules(), "deployments", "scale", "apps", &many, Some(&many)), Verdict::Allow);
}

#[test]
fn a_public_domain_below_another_is_nobodys_host() {
    let mut rules = rules();
    rules.domains.public = ["hearth.localhost", "wikibot.hearth.localhost"].map(|text| text.parse().unwrap()).to_vec();
    let ingress = |host: &str| {
        let backend = json!({ "service": { "name": "a", "port": { "number": 1 } } });
        let paths = json!([{ "path": "/", "pathType": "Prefix", "backend": backend }]);
        json!({ "spec": { "rules": [{ "host": host, "http": { "paths": paths } }] } })
    };
    let judge = |host: &str| of(&rules, "ingresses", "", "networking.k8s.io", &ingress(host), None);
    assert_ne!(judge("wikibot.hearth.localhost"), Verdict::Allow);
    assert_eq!(judge("wikibot.wikibot.hearth.localhost"), Verdict::Allow);
    let policies = cel::policies(&rules);
    let of_ingresses = policies.iter().filter(|object| object["metadata"]["name"] == "hearth-tool-ingresses");
    let variables = of_ingresses.filter_map(|object| object["spec"]["variables"].as_array()).next().unwrap();
    let hosts = variables.iter().find(|variable| variable["name"] == "hosts").unwrap();
    let expected = "[variables.tool + \".hearth.localhost\", variables.tool + \".wikibot.hearth.localhost\"].filter(h, \
                    !(h in [\"hearth.localhost\", \"wikibot.hearth.localhost\", \"tools.hearth.localhost\"]))";
    assert_eq!(hosts["expression"], expected);
}
