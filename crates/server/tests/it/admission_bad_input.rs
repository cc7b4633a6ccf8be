//! The admission webhook under whatever can be sent to it: it answers, and its log stays readable.

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use hearth_server::admission::router;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::admission::{asking, ctx, known, post};

/// What a caller gets for these bytes: always a review with an answer, unless they are too many.
fn answered(bytes: Vec<u8>) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (status, text) = runtime.block_on(post(router(ctx(&known())), bytes));
    assert_eq!(status, StatusCode::OK, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&answer["apiVersion"], &answer["kind"]), (&json!("admission.k8s.io/v1"), &json!("AdmissionReview")));
    assert!(answer["response"]["uid"].is_string() && answer["response"]["allowed"].is_boolean(), "{text}");
    answer
}

fn pod() -> Value {
    let mut review = asking("tool-wikibot", "");
    review["request"]["resource"] = json!({ "group": "", "version": "v1", "resource": "pods" });
    let volumes = json!([{ "name": "home", "hostPath": { "path": "/data/project/wikibot" } }]);
    let container = json!({ "name": "a", "image": "registry.hearth.internal/a", "securityContext": {} });
    review["request"]["object"] = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web", "annotations": { "a": "b" } },
        "spec": { "containers": [container], "volumes": volumes, "securityContext": { "runAsUser": 50123 } },
    });
    review
}

/// Any JSON, small.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((any::<String>(), inner), 0..4).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// Every value within a value.
fn within(value: &mut Value, path: &mut Vec<usize>, found: &mut Vec<Vec<usize>>) {
    found.push(path.clone());
    let children: Vec<&mut Value> = match value {
        Value::Array(list) => list.iter_mut().collect(),
        Value::Object(map) => map.values_mut().collect(),
        _ => return,
    };
    for (index, child) in children.into_iter().enumerate() {
        path.push(index);
        within(child, path, found);
        path.pop();
    }
}

fn at<'a>(value: &'a mut Value, path: &[usize]) -> &'a mut Value {
    path.iter().fold(value, |value, &index| match value {
        Value::Array(list) => &mut list[index],
        Value::Object(map) => map.values_mut().nth(index).unwrap(),
        _ => panic!("nothing is within a leaf"),
    })
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..2000)) {
        prop_assert_eq!(&answered(bytes)["response"]["allowed"], &json!(false));
    }

    #[test]
    fn a_review_with_faults_in_its_text_is_answered(
        of_pod in any::<bool>(),
        faults in vec((any::<Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let review = if of_pod { pod() } else { asking("tool-wikibot", "wikibot.hearth.localhost") };
        let mut bytes = review.to_string().into_bytes();
        for (index, byte, way) in faults {
            let at = index.index(bytes.len());
            match way {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, byte),
            }
        }
        answered(bytes);
    }

    #[test]
    fn a_review_with_another_value_somewhere_is_answered(
        of_pod in any::<bool>(),
        changes in vec((any::<Index>(), any_json()), 1..4),
    ) {
        let mut review = if of_pod { pod() } else { asking("tool-wikibot", "wikibot.hearth.localhost") };
        for (index, value) in changes {
            let mut found = Vec::new();
            within(&mut review, &mut Vec::new(), &mut found);
            let path = &found[index.index(found.len())];
            *at(&mut review, path) = value;
        }
        answered(review.to_string().into_bytes());
    }
}

#[test]
fn two_objects_of_the_largest_size_are_read() {
    let mut review = pod();
    review["request"]["operation"] = "UPDATE".into();
    let env: Vec<Value> = (0..40_000).map(|n| json!({ "name": format!("N{n}"), "value": "1234567" })).collect();
    review["request"]["object"]["spec"]["containers"][0]["env"] = env.into();
    review["request"]["oldObject"] = review["request"]["object"].clone();
    let bytes = review.to_string().into_bytes();
    assert!((2 << 20..3 << 20).contains(&bytes.len()), "{}", bytes.len());
    assert_eq!(answered(bytes)["response"]["allowed"], json!(true));

    let mut padded = pod();
    padded["request"]["object"]["metadata"]["annotations"]["a"] = "a".repeat(3 << 20).into();
    assert!(answered(padded.to_string().into_bytes())["response"]["allowed"].is_boolean());
}

#[tokio::test]
async fn what_would_take_too_much_memory_is_not_read() {
    let mut intricate = pod();
    intricate["request"]["object"]["spec"]["securityContext"]["supplementalGroups"] = vec![0; 1 << 20].into();
    let (status, text) = post(router(ctx(&known())), intricate.to_string()).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(text.contains("300000 values"), "{text}");
    // As many faults as values: the message and the memory stay small.
    intricate["request"]["object"]["spec"]["securityContext"]["supplementalGroups"] = vec![0; 290_000].into();
    let (status, text) = post(router(ctx(&known())), intricate.to_string()).await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains("is not allowed for a tool") && text.len() < 10_000, "{}", text.len());
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[test]
fn a_refusal_is_one_line_that_says_who_and_what() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(lines.clone()).finish();
    let mut review = pod();
    review["request"]["userInfo"]["username"] = "tool:\u{1b}[31m\u{2028}wikibot".into();
    review["request"]["object"]["metadata"]["name"] = format!("we\nb{}", "x".repeat(100_000)).into();
    review["request"]["object"]["spec"]["containers"][0]["image"] = "secret.example/a".into();
    // For the whole program, whose other tests are heard as well: one for a thread misses lines whose place in the code
    // another thread came to first.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    answered(review.to_string().into_bytes());

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let own: Vec<&str> = text.lines().filter(|line| line.contains("[31m")).collect();
    assert_eq!(own.len(), 1, "{text}");
    let text = own[0];
    assert_eq!(text.matches("\"message\":").count(), 1, "{text}");
    assert!(text.len() < 1000 && text.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{text}");
    assert!(!text.contains("secret.example"), "{text}");
    let line: Value = serde_json::from_str(text).unwrap();
    assert_eq!((&line["message"], &line["kind"]), (&json!("refused"), &json!("pods")));
    assert_eq!((&line["user"], &line["namespace"]), (&json!("tool:?[31m?wikibot"), &json!("tool-wikibot")));
    assert!(line["name"].as_str().unwrap().starts_with("we?bxxx"), "{text}");
    assert!(line["rules"].as_str().unwrap().split(',').any(|rule| rule == "image"), "{text}");
}
