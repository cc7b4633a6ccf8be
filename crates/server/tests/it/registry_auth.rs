//! `registry-auth`: what is answered to the registry's clients, and what the token says.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hearth_core::names::annotation;
use hearth_server::kubernetes::install_crypto;
use hearth_server::registry_auth::{Accounts, Metrics, Shared, Signer, health_router, router};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::{ObjectMeta, PartialObjectMeta, PartialObjectMetaExt};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tower::ServiceExt;

const SERVICE: &str = "registry.example";

/// The role with a tool `wikibot` (password `secret`), a disabled tool `former` (likewise), and a platform password.
struct Role {
    shared: Arc<Shared>,
    certificate: rcgen::CertifiedKey<rcgen::KeyPair>,
}

fn sha256(text: &str) -> [u8; 32] {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref().try_into().unwrap()
}

fn namespace(tool: &str, password: &str, state: &str) -> PartialObjectMeta<Namespace> {
    let digest: String = sha256(password).iter().map(|byte| format!("{byte:02x}")).collect();
    let annotations = [(annotation::REGISTRY_CREDENTIAL, digest.as_str()), (annotation::STATE, state)];
    let annotations: BTreeMap<_, _> = annotations.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let name = Some(format!("tool-{tool}"));
    ObjectMeta { name, annotations: Some(annotations), ..ObjectMeta::default() }.into_request_partial()
}

impl Role {
    /// A role that does not know the tools yet.
    fn starting() -> Self {
        install_crypto();
        let certificate = rcgen::generate_simple_self_signed(["tokens".to_owned()]).unwrap();
        let signer = Signer::new(&certificate.cert.pem(), &certificate.signing_key.serialize_pem()).unwrap();
        let shared = Arc::new(Shared {
            service: SERVICE.to_owned(),
            signer,
            platform_credential: sha256("platform's"),
            accounts: Accounts::default(),
            metrics: Metrics::default(),
        });
        Self { shared, certificate }
    }

    fn new() -> Self {
        let role = Self::starting();
        role.shared.accounts.take(Event::Init);
        role.shared.accounts.take(Event::InitApply(namespace("wikibot", "secret", "active")));
        role.shared.accounts.take(Event::InitApply(namespace("former", "secret", "disabled")));
        role.shared.accounts.take(Event::InitDone);
        role
    }

    async fn get(&self, query: &str, login: Option<(&str, &str)>) -> (StatusCode, Value) {
        let mut request = Request::get(format!("/token?{query}"));
        if let Some((user, password)) = login {
            let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
            request = request.header("authorization", format!("Basic {encoded}"));
        }
        let answer = router(self.shared.clone()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status();
        assert_eq!(answer.headers().contains_key("www-authenticate"), status == StatusCode::UNAUTHORIZED);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// Header and claims of the token, whose signature and times are checked as the registry would.
    async fn token(&self, query: &str, login: Option<(&str, &str)>) -> (jsonwebtoken::Header, Value) {
        let (status, body) = self.get(query, login).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let token = body["token"].as_str().unwrap();
        assert_eq!((&body["access_token"], &body["expires_in"]), (&body["token"], &json!(300)));
        use rcgen::PublicKeyData;
        let key = jsonwebtoken::DecodingKey::from_ec_der(self.certificate.signing_key.der_bytes());
        let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
        rules.set_audience(&[SERVICE]);
        rules.set_issuer(&["hearth"]);
        rules.validate_nbf = true;
        let token = jsonwebtoken::decode::<Value>(token, &key, &rules).unwrap();
        (token.header, token.claims)
    }

    async fn access(&self, query: &str, login: Option<(&str, &str)>) -> Value {
        self.token(query, login).await.1["access"].clone()
    }

    async fn refused(&self, query: &str, login: Option<(&str, &str)>) -> (u16, String) {
        let (status, body) = self.get(query, login).await;
        (status.as_u16(), body["errors"][0]["message"].as_str().unwrap().to_owned())
    }
}

#[tokio::test]
async fn a_tools_token_says_what_was_granted() {
    let role = Role::new();
    let query = "service=registry.example&scope=repository:tool-wikibot/app:pull,push&client_id=x";
    let (header, claims) = role.token(query, Some(("tool-wikibot", "secret"))).await;
    assert_eq!(header.alg, jsonwebtoken::Algorithm::ES256);
    assert_eq!(header.x5c.unwrap(), [BASE64_STANDARD.encode(role.certificate.cert.der())]);
    assert_eq!(claims["iss"], "hearth");
    assert_eq!(claims["sub"], "tool-wikibot");
    assert_eq!(claims["aud"], SERVICE, "the registry wants one text, not a list");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 300);
    let access = json!([{"type": "repository", "name": "tool-wikibot/app", "actions": ["pull", "push"]}]);
    assert_eq!(claims["access"], access);
}

#[tokio::test]
async fn everyone_pulls_and_owners_push() {
    let role = Role::new();
    let grant = |name: &str, actions: &[&str]| json!({"type": "repository", "name": name, "actions": actions});
    let (tool, former) = (Some(("tool-wikibot", "secret")), Some(("tool-former", "secret")));
    let platform = Some(("platform", "platform's"));
    assert_eq!(role.access("", None).await, json!([]));
    let query = "scope=repository:hearth/static:pull&scope=repository:tool-other/app:push,pull";
    assert_eq!(
        role.access(query, None).await,
        json!([grant("hearth/static", &["pull"]), grant("tool-other/app", &["pull"])])
    );
    let query = "scope=repository:tool-wikibot/a:push%20repository:tool-other/b:pull,push";
    assert_eq!(
        role.access(query, tool).await,
        json!([grant("tool-wikibot/a", &["push"]), grant("tool-other/b", &["pull"])])
    );
    assert_eq!(
        role.access("scope=repository:tool-former/a:push,pull", former).await,
        json!([grant("tool-former/a", &["pull"])])
    );
    assert_eq!(role.access("scope=repository:hearth/a:push", platform).await, json!([grant("hearth/a", &["push"])]));
    assert_eq!(role.access("scope=registry:catalog:*", platform).await, json!([]));
}

#[tokio::test]
async fn refusals() {
    let role = Role::new();
    let query = "scope=repository:hearth/static:pull";
    let wrong =
        |user: &str| (401, format!("the password of {user} is wrong; it stands in the tool's ~/.docker/config.json"));
    assert_eq!(role.refused(query, Some(("tool-wikibot", "other"))).await, wrong("tool-wikibot"));
    assert_eq!(role.refused(query, Some(("tool-unknown", "secret"))).await, wrong("tool-unknown"));
    assert_eq!(role.refused(query, Some(("platform", "secret"))).await, wrong("platform"));
    let (code, message) = role.refused(query, Some(("wikibot", "secret"))).await;
    assert_eq!(code, 401);
    assert!(message.starts_with("'wikibot' is not a user of the registry: users are tool-NAME"), "{message}");
    let elsewhere = "tokens are made for the service registry.example, not for other.example";
    assert_eq!(role.refused("service=other.example", None).await, (400, elsewhere.to_owned()));
    let scope = "'nonsense' is not a scope: write repository:NAME:pull,push";
    assert_eq!(role.refused("scope=nonsense", None).await, (400, scope.to_owned()));
}

#[tokio::test]
async fn the_watch_keeps_accounts_current() {
    let role = Role::starting();
    let (query, login) = ("scope=repository:tool-wikibot/a:push", Some(("tool-wikibot", "secret")));
    let health = || async {
        let request = Request::get("/healthz").body(Body::empty()).unwrap();
        health_router(role.shared.clone()).oneshot(request).await.unwrap().status()
    };
    let unknown = "the tools are not known yet; try again in a moment";
    assert_eq!(role.refused(query, login).await, (503, unknown.to_owned()));
    assert_eq!(role.access("scope=repository:hearth/a:pull", None).await.as_array().unwrap().len(), 1);
    assert_eq!(health().await, StatusCode::SERVICE_UNAVAILABLE);
    role.shared.accounts.take(Event::Init);
    role.shared.accounts.take(Event::InitDone);
    assert_eq!(health().await, StatusCode::OK);
    assert_eq!(role.refused(query, login).await.0, 401);
    role.shared.accounts.take(Event::Apply(namespace("wikibot", "secret", "active")));
    assert_eq!(role.access(query, login).await[0]["actions"], json!(["push"]));
    // A new list under way: what was known serves until it is complete.
    role.shared.accounts.take(Event::Init);
    assert_eq!(role.access(query, login).await[0]["actions"], json!(["push"]));
    role.shared.accounts.take(Event::InitApply(namespace("wikibot", "replaced", "active")));
    role.shared.accounts.take(Event::InitDone);
    assert_eq!(role.refused(query, login).await.0, 401);
    role.shared.accounts.take(Event::Delete(namespace("wikibot", "replaced", "active")));
    assert_eq!(role.refused(query, Some(("tool-wikibot", "replaced"))).await.0, 401);
}

#[tokio::test]
async fn answers_are_counted() {
    let role = Role::new();
    role.access("scope=repository:hearth/a:pull", None).await;
    role.access("scope=repository:hearth/a:push", None).await;
    role.refused("", Some(("platform", "wrong"))).await;
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let answer = health_router(role.shared.clone()).oneshot(request).await.unwrap();
    let text = String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    for outcome in ["Granted", "Reduced", "Unauthorized"] {
        let line = format!("hearth_registry_auth_requests_total{{outcome=\"{outcome}\"}} 1\n");
        assert!(text.contains(&line), "{line}{text}");
    }
}
