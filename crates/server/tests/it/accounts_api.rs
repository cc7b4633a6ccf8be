//! A small Kubernetes API in memory, under a real client: objects, lists, watches, applying, and faults on demand.
//!
//! Approved certificate requests are signed at once by an authority of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use k8s_openapi::ByteString;
use kube::client::Body;
use rcgen::{CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

/// How long a test waits for something to become true.
const DEADLINE: Duration = Duration::from_secs(20);

/// Who every request is from, as far as certificate requests record it.
pub(crate) const ACCOUNTS: &str = "system:serviceaccount:hearth-system:accounts";

/// A write at which the role is killed: the answer never comes.
struct Death {
    /// How many writes go before.
    writes: usize,
    /// Whether this one is still done.
    is_done: bool,
    told: oneshot::Sender<()>,
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;
type Fault = Box<dyn Fn(&Method, &str) -> Option<u16> + Send>;

/// What an object is called: its plural, its namespace (or none) and its name.
type Key = (String, String, String);

/// The API; clones are the same one.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// The version, and how often watches were cut.
    changed: watch::Sender<(u64, u64)>,
    fault: Mutex<Fault>,
    death: Mutex<Option<Death>>,
    issuer: Issuer<'static, KeyPair>,
}

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<Key, Value>,
    /// The annotations that applying owns.
    applied: BTreeMap<Key, BTreeSet<String>>,
    history: Vec<(u64, Key, &'static str, Value)>,
    /// Method and path of every change that was asked for.
    writes: Vec<String>,
}

/// A request's path, taken apart.
struct Target {
    plural: String,
    namespace: String,
    name: Option<String>,
    subresource: Option<String>,
}

impl Api {
    pub(crate) fn new() -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = Issuer::new(authority, KeyPair::generate().unwrap());
        let changed = watch::Sender::new((0, 0));
        let (fault, death): (Fault, _) = (Box::new(|_, _| None), Mutex::default());
        Self(Arc::new(Shared { state: Mutex::default(), changed, fault: Mutex::new(fault), death, issuer }))
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Answers what `fault` says with that status, instead of doing it.
    pub(crate) fn fail(&self, fault: impl Fn(&Method, &str) -> Option<u16> + Send + 'static) {
        *self.0.fault.lock().unwrap() = Box::new(fault);
    }

    /// Lets so many writes of the role pass and never answers the next, which is done or not. Tells when it came.
    pub(crate) fn die_at(&self, writes: usize, is_done: bool) -> oneshot::Receiver<()> {
        let (told, came) = oneshot::channel();
        *self.0.death.lock().unwrap() = Some(Death { writes, is_done, told });
        came
    }

    /// Ends every watch that is open.
    pub(crate) fn cut_watches(&self) {
        self.0.changed.send_modify(|(_, cuts)| *cuts += 1);
    }

    pub(crate) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.0.state.lock().unwrap().objects.get(&key).cloned()
    }

    /// All objects of a kind in a namespace.
    pub(crate) fn all(&self, plural: &str, namespace: &str) -> Vec<Value> {
        let state = self.0.state.lock().unwrap();
        let those = state.objects.iter().filter(|((kind, place, _), _)| kind == plural && place == namespace);
        those.map(|(_, object)| object.clone()).collect()
    }

    pub(crate) fn annotation(&self, namespace: &str, key: &str) -> Option<String> {
        let object = self.get("namespaces", "", namespace)?;
        Some(object["metadata"]["annotations"].get(key)?.as_str()?.to_owned())
    }

    pub(crate) fn count(&self, plural: &str) -> usize {
        self.0.state.lock().unwrap().objects.keys().filter(|(p, ..)| p == plural).count()
    }

    /// Method and path of every change that was asked for.
    pub(crate) fn writes(&self) -> Vec<String> {
        self.0.state.lock().unwrap().writes.clone()
    }

    /// Puts an object there, as somebody else would.
    pub(crate) fn put(&self, plural: &str, namespace: &str, mut object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        let key = (plural.to_owned(), namespace.to_owned(), name);
        self.store(&mut self.0.state.lock().unwrap(), key, object);
    }

    /// Takes an object away, as somebody else would.
    pub(crate) fn remove(&self, plural: &str, namespace: &str, name: &str) {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.delete(&mut self.0.state.lock().unwrap(), &key);
    }

    /// Waits until something is true of the API; looked at again after each change.
    pub(crate) async fn until(&self, what: &str, is_true: impl Fn(&Self) -> bool) {
        let mut changes = self.0.changed.subscribe();
        let wait = async {
            while !is_true(self) {
                changes.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(DEADLINE, wait).await.is_err() {
            panic!("not within {DEADLINE:?}: {what}; changes so far: {:#?}", self.writes());
        }
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        // Approvals are another role's.
        let is_write = request.method() != Method::GET && !request.uri().path().ends_with("/approval");
        let Some(Death { is_done, told, .. }) = is_write.then(|| self.death()).flatten() else {
            return self.carry_out(request).await;
        };
        if is_done {
            self.carry_out(request).await;
        }
        told.send(()).unwrap();
        std::future::pending().await
    }

    /// The death that this write is.
    fn death(&self) -> Option<Death> {
        let mut death = self.0.death.lock().unwrap();
        let next = death.as_mut()?;
        if next.writes == 0 {
            return death.take();
        }
        next.writes -= 1;
        None
    }

    async fn carry_out(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = parts.uri.path().to_owned();
        let query: BTreeMap<String, String> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(decode)
            .collect();
        if let Some(status) = (self.0.fault.lock().unwrap())(&parts.method, &path) {
            return failure(status, "as the test wants");
        }
        let target = Target::of(&path);
        if query.contains_key("watch") {
            return self.watch(&target, &query);
        }
        let mut state = self.0.state.lock().unwrap();
        if parts.method != Method::GET {
            state.writes.push(format!("{} {path}", parts.method));
        }
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        match (&parts.method, &target.name) {
            (&Method::GET, None) => list(&state, &target, &query),
            (&Method::GET, Some(_)) => match state.objects.get(&target.key()) {
                Some(object) => success(StatusCode::OK, object),
                None => failure(404, "not found"),
            },
            (&Method::POST, None) => self.create(&mut state, target, body),
            (&Method::PUT, Some(_)) => {
                let object = self.signed(body);
                success(StatusCode::OK, &self.store(&mut state, target.key(), object))
            }
            (&Method::PATCH, Some(_)) => self.patch(&mut state, &target, &query, body),
            (&Method::DELETE, Some(_)) => match self.delete(&mut state, &target.key()) {
                Some(object) => success(StatusCode::OK, &object),
                None => failure(404, "not found"),
            },
            (&Method::DELETE, None) => {
                let keys: Vec<Key> = state.objects.keys().filter(|key| target.holds(key)).cloned().collect();
                keys.iter().for_each(|key| drop(self.delete(&mut state, key)));
                success(StatusCode::OK, &json!({ "kind": "Status", "status": "Success" }))
            }
            _ => failure(405, "not known"),
        }
    }

    fn create(&self, state: &mut State, mut target: Target, mut object: Value) -> Answer {
        target.name = object["metadata"]["name"].as_str().map(str::to_owned);
        if state.objects.contains_key(&target.key()) {
            return failure(409, "it exists");
        }
        if target.plural == "certificatesigningrequests" {
            object["spec"]["username"] = json!(ACCOUNTS);
        }
        success(StatusCode::CREATED, &self.store(state, target.key(), object))
    }

    fn patch(&self, state: &mut State, target: &Target, query: &BTreeMap<String, String>, patch: Value) -> Answer {
        let key = target.key();
        let existing = state.objects.get(&key).cloned();
        let uid = patch["metadata"]["uid"].as_str();
        if uid.is_some() && existing.as_ref().is_none_or(|object| object["metadata"]["uid"].as_str() != uid) {
            return failure(409, "another uid");
        }
        let is_apply = patch.get("apiVersion").is_some();
        if !is_apply && existing.is_none() {
            return failure(404, "not found");
        }
        let mut object = existing.clone().unwrap_or_else(|| json!({ "metadata": {} }));
        if is_apply {
            let unowned = existing.is_some() && !state.applied.contains_key(&key) && key.0 != "namespaces";
            if unowned && query.get("force").map(String::as_str) != Some("true") {
                return failure(409, "another manager has these fields");
            }
            let names = |object: &Value| -> BTreeSet<String> {
                object["metadata"]["annotations"].as_object().into_iter().flat_map(|a| a.keys().cloned()).collect()
            };
            for old in state.applied.insert(key.clone(), names(&patch)).unwrap_or_default() {
                object["metadata"]["annotations"].as_object_mut().map(|a| a.remove(&old));
            }
            object["spec"] = Value::Null;
        }
        merge(&mut object, &patch);
        if !key.1.is_empty() {
            object["metadata"]["namespace"] = json!(key.1);
        }
        success(StatusCode::OK, &self.store(state, key, object))
    }

    fn store(&self, state: &mut State, key: Key, mut object: Value) -> Value {
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{version}"));
        }
        let kind = if state.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        state.history.push((version, key.clone(), kind, object.clone()));
        state.objects.insert(key, object.clone());
        self.0.changed.send_modify(|(v, _)| *v = version);
        object
    }

    fn delete(&self, state: &mut State, key: &Key) -> Option<Value> {
        let mut object = state.objects.remove(key)?;
        state.applied.remove(key);
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        state.history.push((version, key.clone(), "DELETED", object.clone()));
        if key.0 == "namespaces" {
            let inside: Vec<Key> = state.objects.keys().filter(|other| other.1 == key.2).cloned().collect();
            inside.iter().for_each(|key| drop(self.delete(state, key)));
        }
        self.0.changed.send_modify(|(v, _)| *v = version);
        Some(object)
    }

    fn watch(&self, target: &Target, query: &BTreeMap<String, String>) -> Answer {
        let from: u64 = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        let (plural, namespace, query) = (target.plural.clone(), target.namespace.clone(), query.clone());
        let changes = self.0.changed.subscribe();
        let cuts = changes.borrow().1;
        let api = self.clone();
        let events = futures::stream::unfold((from, changes), move |(from, mut changes)| {
            let (api, target) = (api.clone(), Target::all(&plural, &namespace));
            let query = query.clone();
            async move {
                loop {
                    if changes.borrow_and_update().1 != cuts {
                        return None;
                    }
                    let next = {
                        let state = api.0.state.lock().unwrap();
                        let mut later = state.history.iter().filter(|(version, ..)| *version > from);
                        later.find(|(_, key, _, object)| target.holds(key) && selected(object, &query)).cloned()
                    };
                    if let Some((version, _, kind, object)) = next {
                        let line = json!({ "type": kind, "object": object }).to_string() + "\n";
                        return Some((Ok(Frame::data(Bytes::from(line))), (version, changes)));
                    }
                    changes.changed().await.ok()?;
                }
            }
        });
        Response::new(StreamBody::new(events.boxed()).boxed_unsync())
    }

    /// The object with a certificate, if it is an approved request.
    fn signed(&self, mut object: Value) -> Value {
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|condition| condition["type"] == "Approved") {
            let ByteString(pem) = serde_json::from_value(object["spec"]["request"].clone()).unwrap();
            let subject = hearth_server::signer::request::read(&pem).unwrap();
            let pem = String::from_utf8(pem).unwrap();
            let mut request = CertificateSigningRequestParams::from_pem(&pem).unwrap();
            let mut name = DistinguishedName::new();
            name.push(DnType::OrganizationName, subject.organizations[0].as_str());
            name.push(DnType::CustomDnType(vec![2, 5, 4, 10]), subject.organizations[1].as_str());
            name.push(DnType::CommonName, subject.common_name.as_str());
            request.params.distinguished_name = name;
            let certificate = request.signed_by(&self.0.issuer).unwrap().pem();
            object["status"]["certificate"] = json!(ByteString(certificate.into_bytes()));
        }
        object
    }
}

impl Target {
    fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let rest = if parts[0] == "api" { &parts[2..] } else { &parts[3..] };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            _ => ("", rest),
        };
        Self {
            plural: rest[0].to_owned(),
            namespace: namespace.to_owned(),
            name: rest.get(1).map(|&name| name.to_owned()),
            subresource: rest.get(2).map(|&name| name.to_owned()),
        }
    }

    fn all(plural: &str, namespace: &str) -> Self {
        Self { plural: plural.to_owned(), namespace: namespace.to_owned(), name: None, subresource: None }
    }

    fn key(&self) -> Key {
        assert!(matches!(self.subresource.as_deref(), None | Some("approval")));
        (self.plural.clone(), self.namespace.clone(), self.name.clone().unwrap_or_default())
    }

    fn holds(&self, (plural, namespace, _): &Key) -> bool {
        self.plural == *plural && (self.namespace.is_empty() || self.namespace == *namespace)
    }
}

fn list(state: &State, target: &Target, query: &BTreeMap<String, String>) -> Answer {
    let items = state.objects.iter().filter(|(key, object)| target.holds(key) && selected(object, query));
    let items: Vec<&Value> = items.map(|(_, object)| object).collect();
    let version = state.version.to_string();
    success(
        StatusCode::OK,
        &json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items }),
    )
}

/// Label selectors of one equality, and field selectors by name.
fn selected(object: &Value, query: &BTreeMap<String, String>) -> bool {
    let label = query
        .get("labelSelector")
        .and_then(|s| s.split_once('='))
        .is_none_or(|(key, value)| object["metadata"]["labels"][key] == value);
    let field = query.get("fieldSelector").and_then(|s| s.split_once('=')).is_none_or(|(key, value)| match key {
        "metadata.name" => object["metadata"]["name"] == value,
        "spec.signerName" => object["spec"]["signerName"] == value,
        other => panic!("the field selector {other} is not known here"),
    });
    label && field
}

/// A JSON merge patch.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return *object = patch.clone() };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut object[key], value);
        }
    }
}

fn decode((key, value): (&str, &str)) -> (String, String) {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex = [rest.next().unwrap(), rest.next().unwrap()];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    (key.to_owned(), String::from_utf8(bytes).unwrap())
}

fn success(status: StatusCode, body: &Value) -> Answer {
    let body = Full::new(Bytes::from(body.to_string())).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

fn failure(code: u16, message: &str) -> Answer {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code,
    });
    success(StatusCode::from_u16(code).unwrap(), &status)
}
