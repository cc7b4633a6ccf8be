//! The role signer against a fake API: what it approves, what it denies, and what it leaves to others.

use hearth_core::account::approval::SIGNER;
use hearth_core::account::subject::{Epoch, Identity};
use hearth_server::signer::{Rule, follow, metrics::Metrics, requests};
use k8s_openapi::ByteString;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

use crate::accounts_api::{ACCOUNTS, Api};

const CSRS: &str = "certificatesigningrequests";

fn epoch() -> Epoch {
    Epoch::of([7; 16])
}

fn request(common_name: &str, organizations: &[&str]) -> ByteString {
    let mut name = DistinguishedName::new();
    // The library keeps one value of a kind; other kinds with the same number are written the same.
    let kinds = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    for (kind, organization) in kinds.into_iter().zip(organizations) {
        name.push(kind, *organization);
    }
    name.push(DnType::CommonName, common_name);
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = name;
    let key = KeyPair::generate().unwrap();
    ByteString(parameters.serialize_request(&key).unwrap().pem().unwrap().into_bytes())
}

fn csr(name: &str, username: &str, request: &ByteString) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": { "name": name },
        "spec": {
            "request": request,
            "signerName": SIGNER,
            "usages": ["client auth", "digital signature"],
            "expirationSeconds": 3600,
            "username": username,
        },
    })
}

fn namespace(api: &Api, tool: &str, state: &str) {
    let annotations = json!({ "hearth.internal/state": state, "hearth.internal/epoch": epoch().as_str() });
    let labels = json!({ "app.kubernetes.io/managed-by": "hearth-accounts" });
    let name = format!("tool-{tool}");
    api.put("namespaces", "", json!({ "metadata": { "name": name, "labels": labels, "annotations": annotations } }));
}

/// The type and message of the first condition.
fn decision(api: &Api, name: &str) -> Option<(String, String)> {
    let request = api.get(CSRS, "", name)?;
    let condition = request["status"]["conditions"].get(0)?;
    Some((condition["type"].as_str()?.to_owned(), condition["message"].as_str()?.to_owned()))
}

fn start(api: &Api) -> tokio::task::JoinHandle<()> {
    let rule = Rule { requestor: ACCOUNTS.to_owned(), longest_seconds: 7200 };
    let client = api.client();
    let requests = requests(&client);
    tokio::spawn(follow(client, requests, rule, Metrics::new(), std::future::pending()))
}

async fn until_decided(api: &Api, name: &str) -> (String, String) {
    api.until(&format!("{name} is decided"), |api| decision(api, name).is_some()).await;
    decision(api, name).unwrap()
}

#[tokio::test]
async fn requests_are_approved_or_denied_by_what_is_signed() {
    let api = Api::new();
    namespace(&api, "wikibot", "active");
    namespace(&api, "idle", "disabled");
    let group = |tool: &str| format!("hearth:tool:{tool}:{}", epoch());
    let admins = |person: &str| format!("hearth:admin:{person}:{}", epoch());
    let later = format!("hearth:admin:jane:{}", Epoch::of([8; 16]));
    let jane = Identity { owner: "admin:jane".parse().unwrap(), epoch: epoch() };
    for binding in hearth_core::account::admins::bindings(&jane) {
        api.put("clusterrolebindings", "", serde_json::to_value(binding).unwrap());
    }
    let old = format!("hearth:tool:wikibot:{}", Epoch::of([8; 16]));
    let task = start(&api);
    let cases = [
        ("good", request("tool:wikibot", &["toolforge", &group("wikibot")]), "Approved", "it is for the tool wikibot"),
        ("nobody", request("admin:root", &["admins", &admins("root")]), "Denied", "its common name 'admin:root' is"),
        ("all", request("admin:jane", &["admins"]), "Denied", "its organisations [admins] are not exactly"),
        ("admin", request("admin:jane", &["admins", &admins("jane")]), "Approved", "the administrator jane"),
        ("former", request("admin:joe", &["admins", &admins("joe")]), "Denied", "no cluster role binding joe-binding"),
        ("later", request("admin:jane", &["admins", &later]), "Denied", "no cluster role binding jane-binding"),
        ("masters", request("tool:wikibot", &["toolforge", "system:masters"]), "Denied", "its organisations"),
        ("other", request("tool:wikibot", &["toolforge", &group("other")]), "Denied", "its organisations"),
        ("old", request("tool:wikibot", &["toolforge", &old]), "Denied", "its epoch is not the current one"),
        ("gone", request("tool:gone", &["toolforge", &group("gone")]), "Denied", "the namespace tool-gone does not"),
        ("idle", request("tool:idle", &["toolforge", &group("idle")]), "Denied", "the tool idle is not active"),
        ("noise", ByteString(b"hello".to_vec()), "Denied", "it is not one PEM block"),
    ];
    for (name, request, kind, message) in &cases {
        api.put(CSRS, "", csr(name, ACCOUNTS, request));
        let (found, text) = until_decided(&api, name).await;
        assert_eq!(found, *kind, "{name}: {text}");
        assert!(text.contains(message), "{name}: {text}");
    }
    task.abort();
}

#[tokio::test]
async fn requests_of_others_are_left_to_others() {
    let api = Api::new();
    namespace(&api, "wikibot", "active");
    let group = format!("hearth:tool:wikibot:{}", epoch());
    let good = request("tool:wikibot", &["toolforge", &group]);
    api.put(CSRS, "", csr("foreign", "tool:wikibot", &good));
    let mut judged = csr("judged", ACCOUNTS, &good);
    judged["status"] = json!({ "conditions": [{ "type": "Denied", "status": "True", "message": "by an admin" }] });
    api.put(CSRS, "", judged);
    let task = start(&api);
    api.put(CSRS, "", csr("good", ACCOUNTS, &good));
    assert_eq!(until_decided(&api, "good").await.0, "Approved");
    assert_eq!(decision(&api, "foreign"), None);
    assert_eq!(decision(&api, "judged").unwrap().1, "by an admin");
    task.abort();
}

#[tokio::test]
async fn an_api_that_fails_for_a_while_is_asked_again() {
    let api = Api::new();
    namespace(&api, "wikibot", "active");
    let left = std::sync::atomic::AtomicU32::new(3);
    api.fail(move |_, path| {
        let is_it = path.ends_with("/namespaces/tool-wikibot") || path.ends_with("/approval");
        let count = |n: u32| n.checked_sub(u32::from(is_it));
        let before = left.fetch_update(std::sync::atomic::Ordering::SeqCst, std::sync::atomic::Ordering::SeqCst, count);
        (is_it && before.is_ok()).then_some(500)
    });
    let task = start(&api);
    let group = format!("hearth:tool:wikibot:{}", epoch());
    api.put(CSRS, "", csr("good", ACCOUNTS, &request("tool:wikibot", &["toolforge", &group])));
    assert_eq!(until_decided(&api, "good").await.0, "Approved");
    task.abort();
}
