//! Objects that policies do not look at in full, because they are as most are: which those are, and that nothing
//! wrong is among them.
//!
//! The oracle has Hearth's policies, but for one thing: those that look only at what is not as usual refuse whatever
//! they look at. What it allows is therefore as usual, and of a tool.

use std::collections::BTreeMap;

use hearth_core::admission::{Rules, Verdict, cel};
use hearth_core::image::ImageRef;
use hearth_core::names::annotation;
use hearth_core::webservice::objects::Owner;
use hearth_core::webservice::{Objects, Settings};
use hearth_core::{Platform, ToolName};
use serde_json::{Value, json};

use crate::control_admission::cases;
use crate::control_plane::control_plane;
use crate::rules_generate::Generator;
use crate::rules_oracle::{Oracle, Question, UID, reviewed, rules};
use crate::rules_schema::Schemas;

/// How many generated objects are asked about.
const COUNT: u64 = 6_000;

/// An oracle that allows what is as usual alone.
fn oracle(rules: &Rules) -> Oracle {
    let mut policies = cel::policies(rules);
    for policy in &mut policies {
        let conditions = policy["spec"]["matchConditions"].as_array().into_iter().flatten();
        if conditions.into_iter().any(|condition| condition["name"] == "not-as-usual") {
            policy["spec"]["validations"] = json!([{ "expression": "false", "message": "not as usual" }]);
            policy["spec"]["variables"] = json!([]);
        }
    }
    Oracle::of(&policies, None)
}

/// The making of an object by the tool `wikibot`.
fn making(group: &str, resource: &str, object: Value) -> Question {
    Question {
        update: false,
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        user: "tool:wikibot".to_owned(),
        namespace: "tool-wikibot".to_owned(),
        annotations: BTreeMap::from([(annotation::UID.to_owned(), UID.to_string())]),
        object,
        old: None,
        raw: false,
    }
}

/// What `webservice` makes: a Deployment, and the pod of it.
fn of_webservice() -> [Question; 2] {
    let platform = Platform::from_toml(cases::PLATFORM).unwrap();
    let tool: ToolName = "wikibot".parse().unwrap();
    let image: ImageRef = format!("{}/a:1", rules().registries[0]).parse().unwrap();
    let settings = Settings { kind: "static".to_owned(), cpu: None, memory: None, replicas: 1, extra_args: Vec::new() };
    let owner = Owner { tool: &tool, uid: UID, platform: &platform };
    let made = Objects::new(owner, &settings, &image, "2026-11-22T18:00:00Z".parse().unwrap());
    let deployment = serde_json::to_value(made.deployment).unwrap();
    let template = &deployment["spec"]["template"];
    let mut pod =
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"] });
    pod["metadata"]["name"] = "wikibot-1".into();
    [making("", "pods", pod), making("apps", "deployments", deployment)]
}

#[test]
fn what_webservice_makes_is_as_usual() {
    let mut oracle = oracle(&rules());
    for question in of_webservice() {
        let answer = oracle.judge(&question).unwrap();
        assert!(answer.allowed, "{}: {}\n{:#}", question.resource, answer.message, answer.object);
    }
    let [mut pod, _] = of_webservice();
    pod.object["spec"]["affinity"] = json!({});
    assert!(oracle.judge(&pod).unwrap().message.contains("not as usual"));
}

/// What was there before may stay, but is not as usual.
#[test]
fn what_was_there_before_is_looked_at() {
    let mut oracle = oracle(&rules());
    let [mut pod, _] = of_webservice();
    pod.update = true;
    for (field, value) in [("annotations", json!({ "other.example/a": "b" })), ("finalizers", json!(["other/a"]))] {
        let mut question = pod.clone();
        question.object["metadata"][field] = value;
        question.old = Some(question.object.clone());
        let answer = oracle.judge(&question).unwrap();
        assert!(answer.message.contains("not as usual"), "{field}: {}", answer.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_as_usual_is_right() {
    let schemas = Schemas::of(control_plane().await).await;
    tokio::task::block_in_place(|| {
        let rules = rules();
        let (generator, mut oracle) = (Generator::new(rules.clone(), &schemas), oracle(&rules));
        let mut usual = 0;
        for seed in 0..COUNT {
            let question = generator.question(seed);
            let is_judged = ["pods", "deployments", "jobs", "cronjobs"].contains(&question.resource.as_str());
            let Some(answer) = is_judged.then(|| oracle.judge(&question).ok()).flatten() else { continue };
            if answer.allowed {
                usual += 1;
                let verdict = reviewed(&rules, &question, &answer.object, answer.old.as_ref());
                assert_eq!(verdict, Verdict::Allow, "seed {seed}: {verdict}\n{:#}", answer.object);
            }
        }
        assert!(usual > 50, "only {usual} of {COUNT} are as usual: too few to tell");
    });
}
