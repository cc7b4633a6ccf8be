//! The admission webhook over its router: what it answers, to whatever it is sent.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use hearth_core::Platform;
use hearth_core::admission::Rules;
use hearth_server::admission::{Ctx, Namespaces, health_router, router};
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tower::ServiceExt;

const PLATFORM: &str = r#"
    [domains]
    public = ["hearth.localhost"]
    legacy = "tools.hearth.localhost"
    [api]
    server = "https://127.0.0.1:6443"
    [directory]
    url = "ldaps://ldap.hearth.internal"
    base = "dc=hearth,dc=internal"
    bind_dn = "cn=reader,dc=hearth,dc=internal"
    [registry]
    host = "registry.hearth.internal"
"#;

fn namespace(name: &str, uid: Option<&str>) -> PartialObjectMeta<Namespace> {
    let annotations: serde_json::Map<_, _> =
        uid.iter().map(|uid| ("hearth.internal/uid".to_owned(), (*uid).into())).collect();
    serde_json::from_value(json!({ "metadata": { "name": name, "annotations": annotations } })).unwrap()
}

pub(crate) fn ctx(namespaces: &Namespaces) -> Arc<Ctx> {
    Arc::new(Ctx::new(Rules::of(&Platform::from_toml(PLATFORM).unwrap()), namespaces.clone()))
}

pub(crate) fn known() -> Namespaces {
    let namespaces = Namespaces::default();
    namespaces.apply(Event::Init);
    namespaces.apply(Event::InitApply(namespace("tool-wikibot", Some("50123"))));
    namespaces.apply(Event::InitApply(namespace("stray", None)));
    namespaces.apply(Event::InitDone);
    namespaces
}

/// A review of an Ingress for a host.
pub(crate) fn asking(namespace: &str, host: &str) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5",
            "kind": { "group": "networking.k8s.io", "version": "v1", "kind": "Ingress" },
            "resource": { "group": "networking.k8s.io", "version": "v1", "resource": "ingresses" },
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": { "username": "tool:wikibot", "groups": ["system:authenticated"] },
            "object": { "kind": "Ingress", "metadata": { "name": "web" }, "spec": { "rules": [{ "host": host, "http": {
                "paths": [{ "path": "/", "pathType": "Prefix", "backend": { "service": { "name": "a" } } }],
            } }] } },
            "oldObject": null,
            "dryRun": false,
        },
    })
}

pub(crate) async fn post(router: Router, body: impl Into<Body>) -> (StatusCode, String) {
    let response = router.oneshot(Request::post("/review").body(body.into()).unwrap()).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn answer(ctx: &Arc<Ctx>, review: &Value) -> Value {
    let (status, body) = post(router(ctx.clone()), review.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&answer["apiVersion"], &answer["kind"]), (&review["apiVersion"], &review["kind"]));
    assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
    answer["response"].clone()
}

async fn get(router: Router, path: &str) -> (StatusCode, String) {
    let response = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_own_host_is_allowed_and_anothers_refused() {
    let ctx = ctx(&known());
    let allowed = answer(&ctx, &asking("tool-wikibot", "wikibot.hearth.localhost")).await;
    assert_eq!(allowed, json!({ "uid": "705ab4f5", "allowed": true }));
    let refused = answer(&ctx, &asking("tool-wikibot", "other.hearth.localhost")).await;
    assert_eq!(refused["allowed"], json!(false));
    assert_eq!((&refused["status"]["code"], &refused["status"]["reason"]), (&json!(403), &json!("Forbidden")));
    assert_eq!(
        refused["status"]["message"],
        "Ingress \"web\" is not allowed for a tool: spec.rules[other.hearth.localhost].host is \
         \"other.hearth.localhost\": it must be wikibot.hearth.localhost, or tools.hearth.localhost with paths at or \
         below /wikibot (rule host)"
    );
    let stray = answer(&ctx, &asking("stray", "wikibot.hearth.localhost")).await;
    assert!(stray["status"]["message"].as_str().unwrap().contains("the namespace stray is not that of a tool"));

    let (status, metrics) = get(health_router(ctx), "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for line in [
        "hearth_admission_reviews_total{kind=\"ingresses\",rule=\"\",verdict=\"allowed\"} 1",
        "hearth_admission_reviews_total{kind=\"ingresses\",rule=\"host\",verdict=\"refused\"} 1",
        "hearth_admission_reviews_total{kind=\"ingresses\",rule=\"tenant\",verdict=\"refused\"} 1",
        "hearth_admission_clients_turned_away_total 0",
        "hearth_admission_certificate_reload_failures_total 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_chapter_on_trial_warns() {
    let platform = format!("{PLATFORM}\n[admission]\ntrial = [\"ingresses\"]");
    let ctx = Arc::new(Ctx::new(Rules::of(&Platform::from_toml(&platform).unwrap()), known()));
    let warned = answer(&ctx, &asking("tool-wikibot", "other.hearth.localhost")).await;
    assert_eq!(warned["allowed"], json!(true));
    let warnings = warned["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{warned}");
    assert!(warnings[0].as_str().unwrap().contains("it must be wikibot.hearth.localhost"), "{warned}");
    let fine = answer(&ctx, &asking("tool-wikibot", "wikibot.hearth.localhost")).await;
    assert_eq!(fine["warnings"], Value::Null);
    // The other chapters refuse as before.
    let mut service = asking("tool-wikibot", "a.b");
    service["request"]["resource"] = json!({ "group": "", "version": "v1", "resource": "services" });
    service["request"]["object"] = json!({ "kind": "Service", "spec": { "type": "NodePort" } });
    assert_eq!(answer(&ctx, &service).await["allowed"], json!(false));
    let (_, metrics) = get(health_router(ctx), "/metrics").await;
    let line = "reviews_total{kind=\"ingresses\",rule=\"host\",verdict=\"warned\"} 1";
    assert!(metrics.contains(line), "{line} is not in\n{metrics}");
}

#[tokio::test]
async fn what_it_does_not_judge_is_allowed() {
    let ctx = ctx(&known());
    let mut review = asking("tool-wikibot", "other.hearth.localhost");
    review["request"]["operation"] = "DELETE".into();
    assert_eq!(answer(&ctx, &review).await["allowed"], json!(true));
    let mut review = asking("tool-wikibot", "other.hearth.localhost");
    review["request"]["subResource"] = "status".into();
    assert_eq!(answer(&ctx, &review).await["allowed"], json!(true));
    let mut review = asking("tool-wikibot", "other.hearth.localhost");
    review["request"]["resource"] = json!({ "group": "", "version": "v1", "resource": "configmaps" });
    assert_eq!(answer(&ctx, &review).await["allowed"], json!(true));
    assert_eq!(answer(&ctx, &asking("kube-system", "other.hearth.localhost")).await["allowed"], json!(true));
}

#[tokio::test]
async fn a_namespace_that_is_not_known_yet_is_left_to_the_policies() {
    let namespaces = known();
    let ctx = ctx(&namespaces);
    let new = asking("tool-new", "new.hearth.localhost");
    let unknown = answer(&ctx, &new).await;
    assert_eq!(unknown["allowed"], json!(true));
    assert!(unknown["warnings"][0].as_str().unwrap().contains("the namespace tool-new is new here"));

    namespaces.apply(Event::Apply(namespace("tool-new", Some("50200"))));
    assert_eq!(answer(&ctx, &new).await, json!({ "uid": "705ab4f5", "allowed": true }));
    assert_eq!(answer(&ctx, &asking("tool-new", "x.hearth.localhost")).await["allowed"], json!(false));

    namespaces.apply(Event::Delete(namespace("tool-new", None)));
    assert_eq!(answer(&ctx, &asking("tool-new", "x.hearth.localhost")).await["allowed"], json!(true));
    // A new listing replaces all that was known, when it is complete.
    namespaces.apply(Event::Init);
    assert_eq!(answer(&ctx, &asking("stray", "x.hearth.localhost")).await["allowed"], json!(false));
    namespaces.apply(Event::InitDone);
    assert_eq!(answer(&ctx, &asking("stray", "x.hearth.localhost")).await["allowed"], json!(true));
}

#[tokio::test]
async fn whatever_is_sent_gets_an_answer() {
    let ctx = ctx(&known());
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let old = asking("tool-wikibot", "a.b").to_string().replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    let odd = json!({ "request": { "uid": "705ab4f5", "object": 1 } }).to_string();
    for (body, uid) in
        [("", ""), ("{", ""), ("null", ""), ("\u{0}", ""), (&deep, ""), (&old, "705ab4f5"), (&odd, "705ab4f5")]
    {
        let (status, text) = post(router(ctx.clone()), body.to_owned()).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        let response = &answer["response"];
        assert_eq!(
            (status, &response["allowed"], &response["status"]["code"]),
            (StatusCode::OK, &json!(false), &json!(400))
        );
        assert_eq!(response["uid"], uid, "{text}");
        assert!(
            response["status"]["message"].as_str().unwrap().contains("AdmissionReview of admission.k8s.io/v1"),
            "{text}"
        );
    }
    let (status, _) = post(router(ctx.clone()), vec![b' '; 4 << 20]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (_, metrics) = get(health_router(ctx), "/metrics").await;
    for line in ["verdict=\"malformed\"} 7", "verdict=\"too_large\"} 1"] {
        assert!(metrics.contains(&format!("{{kind=\"other\",rule=\"\",{line}")), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn it_is_ready_when_all_namespaces_are_listed() {
    let namespaces = Namespaces::default();
    let ctx = ctx(&namespaces);
    assert_eq!(get(health_router(ctx.clone()), "/healthz").await.0, StatusCode::OK);
    assert_eq!(get(health_router(ctx.clone()), "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    namespaces.apply(Event::Init);
    namespaces.apply(Event::InitDone);
    assert_eq!(get(health_router(ctx), "/readyz").await.0, StatusCode::OK);
}
