//! The shared cases, judged by `review`; and what every table must keep to.

#[path = "../../tests/cases/mod.rs"]
mod cases;
mod kinds;
mod originals;
mod own_objects;
mod platform_objects;

use super::*;
use crate::names;

fn rules() -> Rules {
    Rules::of(&Platform::from_toml(cases::PLATFORM).unwrap())
}

/// The configuration of the cases without the namespaces that it adds.
fn without_namespaces() -> String {
    let added = |line: &&str| {
        !["[namespaces]", "privileged =", "platform ="].iter().any(|start| line.trim().starts_with(start))
    };
    cases::PLATFORM.lines().filter(added).collect::<Vec<_>>().join("\n")
}

fn annotations(namespace: &str) -> BTreeMap<String, String> {
    let uid = match namespace {
        "tool-wikibot" | "wikibot" => cases::UID.to_string(),
        "tool-other" => "50124".to_owned(),
        "tool-tools" => "50125".to_owned(),
        "tool-rooted" => "0".to_owned(),
        _ => return BTreeMap::new(),
    };
    let mut annotations = BTreeMap::from([(names::annotation::UID.to_owned(), uid)]);
    if namespace == "tool-wikibot" {
        annotations.insert(names::annotation::SERVICE_ACCOUNT.to_owned(), cases::ACCOUNT.to_owned());
    }
    annotations
}

fn judge(case: &cases::Case) -> Verdict {
    let group = case.api_version.split_once('/').map_or("", |(group, _)| group);
    let (resource, subresource) = case.resource.split_once('/').unwrap_or((&case.resource, ""));
    review(
        &rules(),
        &Request {
            operation: if case.old.is_some() { Operation::Update } else { Operation::Create },
            group,
            resource,
            subresource,
            namespace: &case.namespace,
            user: &case.user,
            object: &case.object,
            old: case.old.as_ref(),
            annotations: &annotations(&case.namespace),
        },
    )
}

#[test]
fn every_case() {
    let mut wrong = Vec::new();
    for case in cases::all() {
        let verdict = judge(&case);
        let text = verdict.to_string();
        assert!(!case.invalid || !case.refused.is_empty(), "{}: invalid, so it is refused too", case.name);
        let as_expected = match &verdict {
            Verdict::Allow => case.refused.is_empty(),
            Verdict::Refuse { violations, .. } => {
                violations.len() >= case.refused.len().max(1)
                    && !case.refused.is_empty()
                    && case.refused.iter().all(|part| text.contains(part))
            }
        };
        if !as_expected {
            wrong.push(format!("{}: expected {:?}, got: {text}", case.name, case.refused));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// Of a review no more is kept than is looked at; that changes nothing of what is said.
#[test]
fn every_case_is_judged_alike_when_it_is_read_from_a_review() {
    for case in cases::all() {
        let group = case.api_version.split_once('/').map_or("", |(group, _)| group);
        let (resource, subresource) = case.resource.split_once('/').unwrap_or((&case.resource, ""));
        let operation = if case.old.is_some() { "UPDATE" } else { "CREATE" };
        let fields = [
            ("uid", "a".into()),
            ("resource", serde_json::json!({ "group": group, "resource": resource })),
            ("subResource", subresource.into()),
            ("namespace", case.namespace.as_str().into()),
            ("operation", operation.into()),
            ("userInfo", serde_json::json!({ "username": case.user })),
            ("object", case.object.clone()),
            ("oldObject", case.old.clone().unwrap_or_default()),
        ];
        let text = |fields: &mut dyn Iterator<Item = &(&str, Value)>| {
            let fields: Vec<String> = fields.map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let start = format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\"", wire::KIND, wire::API_VERSION);
            format!("{start},\"request\":{{{}}}}}", fields.join(","))
        };
        // In the API server's order, and with the object before what is said of it.
        for text in [text(&mut fields.iter()), text(&mut fields.iter().rev())] {
            let asked = wire::read(&rules(), text.as_bytes()).unwrap();
            let verdict = review_read(&rules(), &asked.request(&annotations(&case.namespace)));
            assert_eq!(verdict, judge(&case), "{}", case.name);
        }
    }
}

#[test]
fn every_rule_has_a_case() {
    let mut seen: Vec<Rule> = Vec::new();
    for case in cases::all() {
        if let Verdict::Refuse { violations, .. } = judge(&case) {
            seen.extend(violations.iter().map(|violation| violation.rule));
        }
    }
    for rule in Rule::ALL {
        assert!(seen.contains(rule), "no case is refused by the rule {}", rule.name());
    }
}

#[test]
fn the_platform_and_other_operations_are_left_alone() {
    let nothing = BTreeMap::new();
    let object = serde_json::json!({"spec": {"hostNetwork": true}});
    let request = |operation, namespace, resource| Request {
        operation,
        group: "",
        resource,
        subresource: "",
        namespace,
        user: "anyone",
        object: &object,
        old: None,
        annotations: &nothing,
    };
    for namespace in names::PRIVILEGED_NAMESPACES {
        assert_eq!(review(&rules(), &request(Operation::Create, namespace, "pods")), Verdict::Allow, "{namespace}");
    }
    for namespace in names::PLATFORM_NAMESPACES {
        assert_ne!(review(&rules(), &request(Operation::Create, namespace, "pods")), Verdict::Allow, "{namespace}");
        assert_eq!(review(&rules(), &request(Operation::Create, namespace, "services")), Verdict::Allow, "{namespace}");
    }
    assert_eq!(review(&rules(), &request(Operation::Other, "tool-a", "pods")), Verdict::Allow);
    assert_eq!(review(&rules(), &request(Operation::Create, "tool-a", "configmaps")), Verdict::Allow);
    assert_ne!(review(&rules(), &request(Operation::Create, "tool-a", "pods")), Verdict::Allow);
}

#[test]
fn objects_of_any_shape_are_answered() {
    let annotations = annotations("tool-wikibot");
    let odd = ["null", "1", "[]", "\"x\"", "{}", "{\"a\":[{}]}", "[[1]]", "true", "-1", "1e300"];
    for chapter in fields::CHAPTERS {
        let Book::Fields { sections, .. } = &chapter.book else { continue };
        for (section, field) in sections.iter().flat_map(|s| s.fields.iter().map(move |f| (s, f))) {
            for text in odd {
                let value: Value = serde_json::from_str(text).unwrap();
                let inner = serde_json::json!({ field.name: value });
                let object = section.at.iter().rev().fold(inner, |inner, name| serde_json::json!({ *name: inner }));
                let resource = &chapter.resources[0];
                let request = Request {
                    operation: Operation::Create,
                    group: resource.group,
                    resource: resource.name,
                    subresource: "",
                    namespace: "tool-wikibot",
                    user: "",
                    object: &object,
                    old: None,
                    annotations: &annotations,
                };
                let _ = review(&rules(), &request).to_string();
            }
        }
    }
}

#[test]
fn no_table_lists_a_field_twice() {
    fn look(node: &Node) {
        match node {
            Node::Object(fields) | Node::Open(fields) => {
                for (index, field) in fields.iter().enumerate() {
                    assert!(!fields[..index].iter().any(|other| other.name == field.name), "{}", field.name);
                    look(&field.node);
                }
            }
            Node::Each { node, .. } => look(node),
            Node::All(nodes) => nodes.iter().for_each(look),
            _ => (),
        }
    }
    for chapter in fields::CHAPTERS.iter().chain(fields::PLATFORM_CHAPTERS) {
        if let Book::Fields { sections, .. } = &chapter.book {
            sections.iter().flat_map(|section| section.fields).for_each(|field| look(&field.node));
        }
    }
}

#[test]
fn policies_are_two_objects_each() {
    let policies = cel::policies(&rules());
    // A policy for each chapter, one for the identity of each kind that makes pods, one that fills in pods, one for the
    // addresses of Services.
    assert_eq!(policies.len(), 2 * (fields::CHAPTERS.len() + 8 + fields::PLATFORM_CHAPTERS.len() + 2));
    for pair in policies.chunks(2) {
        let [binding, policy] = pair else { panic!("{pair:?}") };
        assert_eq!(policy["spec"]["failurePolicy"], "Fail");
        assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
        assert!(policy["spec"]["matchConstraints"]["namespaceSelector"].is_null());
        let selector = &binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"][0];
        assert_eq!(selector["key"], "kubernetes.io/metadata.name");
        let namespaces = &rules().namespaces;
        match policy["metadata"]["name"].as_str().unwrap().starts_with("hearth-platform-") {
            true => assert_eq!(
                (&selector["operator"], &selector["values"]),
                (&"In".into(), &serde_json::json!(namespaces.platform))
            ),
            false => assert_eq!(
                (&selector["operator"], &selector["values"]),
                (&"NotIn".into(), &serde_json::json!(namespaces.all().collect::<Vec<_>>()))
            ),
        }
    }
}

#[test]
fn conditions_use_only_what_conditions_see() {
    for policy in cel::policies(&rules()) {
        for condition in policy["spec"]["matchConditions"].as_array().into_iter().flatten() {
            let text = condition["expression"].as_str().unwrap();
            assert!(!text.contains("variables.") && !text.contains("namespaceObject"), "{text}");
            // What was there before may stay, which is for the validations to say.
            assert!(condition["name"] != "not-as-usual" || !text.contains("oldObject"), "{text}");
        }
    }
}

#[test]
fn the_webhook_is_asked_about_what_the_policies_judge() {
    let text = include_str!("../../../../deploy/base/admission.yaml");
    let mut documents = text.split("\n---\n").map(|document| serde_saphyr::from_str::<Value>(document).unwrap());
    let webhook = documents.find(|document| document["kind"] == "MutatingWebhookConfiguration").unwrap();
    let hook = &webhook["webhooks"][0];
    // The namespaces that the configuration adds are put in by `hearth render`.
    let built_in = Rules { namespaces: Platform::from_toml(&without_namespaces()).unwrap().namespaces, ..rules() };
    let policies = cel::policies(&built_in);
    let of_tools = |pair: &&[Value]| {
        pair[1]["kind"] == "ValidatingAdmissionPolicy"
            && pair[1]["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("hearth-tool-"))
    };
    for pair in policies.chunks(2).filter(of_tools) {
        let constraints = &pair[1]["spec"]["matchConstraints"];
        let sorted = |selector: &Value| {
            let mut values: Vec<String> =
                serde_json::from_value(selector["matchExpressions"][0]["values"].clone()).unwrap();
            values.sort();
            values
        };
        let bound = &pair[0]["spec"]["matchResources"]["namespaceSelector"];
        assert_eq!(sorted(&hook["namespaceSelector"]), sorted(bound));
        for rule in constraints["resourceRules"].as_array().unwrap() {
            let covers = |asked: &&Value| {
                asked["apiGroups"] == rule["apiGroups"]
                    && asked["apiVersions"] == rule["apiVersions"]
                    && asked["operations"] == rule["operations"]
                    && asked["resources"].as_array().unwrap().contains(&rule["resources"][0])
            };
            // What is in a Secret is not sent to anyone, and of ConfigMaps there is little to say.
            let unasked = ["secrets", "configmaps"].contains(&rule["resources"][0].as_str().unwrap());
            assert_eq!(hook["rules"].as_array().unwrap().iter().any(|asked| covers(&asked)), !unasked, "{rule}");
        }
    }
}

#[test]
fn what_stood_before_is_looked_up_for_fields_of_sections_only() {
    fn look(node: &Node) {
        match node {
            Node::Object(fields) | Node::Open(fields) => fields.iter().for_each(|field| within(&field.node)),
            Node::Each { node, .. } => within(node),
            Node::All(nodes) => nodes.iter().for_each(look),
            _ => (),
        }
    }
    fn within(node: &Node) {
        assert!(!matches!(node, Node::Annotations { .. } | Node::Added(_)), "{node:?}");
        look(node);
    }
    for chapter in fields::CHAPTERS.iter().chain(fields::PLATFORM_CHAPTERS) {
        if let Book::Fields { sections, .. } = &chapter.book {
            sections.iter().flat_map(|section| section.fields).for_each(|field| look(&field.node));
        }
    }
}

#[test]
fn messages_repeat_little_of_what_was_sent_and_nothing_invisible() {
    let long = "x\n\u{202e}]\" is allowed; ".repeat(100);
    let object = serde_json::json!({
        "kind": "Pod",
        "metadata": {"name": long, "annotations": {format!("a/{long}"): long}},
        "spec": {long.clone(): 1, "containers": [{"name": long, "image": long, long.clone(): 1}]},
    });
    let annotations = annotations("tool-wikibot");
    let request = Request {
        operation: Operation::Create,
        group: "",
        resource: "pods",
        subresource: "",
        namespace: "tool-wikibot",
        user: "",
        object: &object,
        old: None,
        annotations: &annotations,
    };
    let text = review(&rules(), &request).to_string();
    assert!(!text.contains(['\n', '\u{202e}']), "{text}");
    assert!(text.len() < 8000, "{} bytes: {text}", text.len());
}

#[test]
fn every_rule_has_its_place_in_the_document() {
    let document = include_str!("../../../../docs/rules.md");
    let places: Vec<&str> = document.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(places, Rule::ALL.iter().map(|rule| rule.name()).collect::<Vec<_>>());
}
