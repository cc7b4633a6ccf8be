//! A fake API server: lists and watches of the kinds that the front door follows, with all that can go wrong.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up fails")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::SinkExt;
use futures::channel::mpsc::Sender;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::proxy_front::{full, listen, piped, soon};

/// The API server. What it holds can be changed while it runs.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// How many lists and watches of each plural there were.
    seen: watch::Sender<BTreeMap<String, (usize, usize)>>,
    /// How many requests came while it was away.
    refused: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// Plural and namespaced name to object.
    objects: BTreeMap<(String, String), Value>,
    /// What has happened, by version and plural, for watches that begin later.
    log: Vec<(u64, String, Value)>,
    watchers: Vec<(String, Sender<Bytes>)>,
    away: bool,
    silent: bool,
    expired: bool,
}

impl Api {
    pub(crate) async fn start() -> Self {
        let listener = listen().await;
        let api = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
            seen: watch::channel(BTreeMap::new()).0,
            refused: watch::channel(0).0,
        };
        let serving = api.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let api = serving.clone();
                let service = service_fn(move |request| {
                    let answer = api.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        api
    }

    pub(crate) fn client(&self) -> kube::Client {
        hearth_server::kubernetes::install_crypto();
        let mut config = kube::Config::new(format!("http://{}", self.address).parse().unwrap());
        config.default_retry = false;
        kube::Client::try_from(config).unwrap()
    }

    /// Makes or changes an object, and tells those who watch.
    pub(crate) async fn put(&self, plural: &str, mut object: Value) {
        let (watchers, event) = {
            let mut state = self.state.lock().unwrap();
            state.version += 1;
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            let key = (plural.to_owned(), name_of(&object));
            let kind = if state.objects.insert(key, object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
            state.note(plural, json!({"type": kind, "object": object}))
        };
        tell(watchers, event).await;
    }

    /// Deletes an object, and tells those who watch.
    pub(crate) async fn delete(&self, plural: &str, name: &str) {
        let (watchers, event) = {
            let mut state = self.state.lock().unwrap();
            state.version += 1;
            let mut object = state.objects.remove(&(plural.to_owned(), name.to_owned())).unwrap();
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            state.note(plural, json!({"type": "DELETED", "object": object}))
        };
        tell(watchers, event).await;
    }

    /// Deletes an object without telling anybody, as if it had happened while the watch was cut.
    pub(crate) fn lose(&self, plural: &str, name: &str) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        state.objects.remove(&(plural.to_owned(), name.to_owned())).unwrap();
    }

    /// Sends a bookmark to all who watch a kind.
    pub(crate) async fn bookmark(&self, plural: &str) {
        let (watchers, event) = {
            let state = self.state.lock().unwrap();
            let metadata = json!({"resourceVersion": state.version.to_string()});
            let object = json!({"kind": "Any", "apiVersion": "v1", "metadata": metadata});
            (state.watchers_of(plural), json!({"type": "BOOKMARK", "object": object}))
        };
        tell(watchers, event).await;
    }

    /// Cuts all watches; if `expired`, the next ones are told to list again.
    pub(crate) fn cut(&self, expired: bool) {
        let mut state = self.state.lock().unwrap();
        state.expired = expired;
        state.watchers.clear();
    }

    /// Is away, or back: answers everything with 503.
    pub(crate) fn set_away(&self, away: bool) {
        let mut state = self.state.lock().unwrap();
        state.away = away;
        state.watchers.clear();
    }

    /// Says nothing on any watch, new ones included, or speaks again: then they are cut, and what was not said comes
    /// when they are begun anew.
    pub(crate) fn set_silent(&self, silent: bool) {
        let mut state = self.state.lock().unwrap();
        state.silent = silent;
        if !silent {
            state.watchers.clear();
        }
    }

    /// Waits until a kind has been listed and watched so often.
    pub(crate) async fn seen(&self, plural: &str, lists: usize, watches: usize) {
        let mut seen = self.seen.subscribe();
        let enough = |seen: &BTreeMap<String, (usize, usize)>| {
            seen.get(plural).is_some_and(|(listed, watched)| *listed >= lists && *watched >= watches)
        };
        soon(seen.wait_for(enough)).await.unwrap();
    }

    /// Waits until so many requests have come while it was away.
    pub(crate) async fn refused(&self, requests: usize) {
        soon(self.refused.subscribe().wait_for(|count| *count >= requests)).await.unwrap();
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        let plural = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let mut state = self.state.lock().unwrap();
        if state.away {
            self.refused.send_modify(|count| *count += 1);
            return status(503, "ServiceUnavailable");
        }
        self.seen.send_modify(|seen| {
            let counts = seen.entry(plural.clone()).or_default();
            if watches { counts.1 += 1 } else { counts.0 += 1 }
        });
        if !watches {
            state.expired = false;
            let items: Vec<&Value> =
                state.objects.iter().filter(|((of, _), _)| *of == plural).map(|(_, object)| object).collect();
            let metadata = json!({"resourceVersion": state.version.to_string()});
            let list = json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items});
            return Response::builder()
                .header("content-type", "application/json")
                .body(full(list.to_string()))
                .unwrap();
        }
        if state.expired {
            return status(410, "Expired");
        }
        let (mut sender, body) = piped();
        let missed = state.missed(&plural, version_asked_for(request));
        if !missed.is_empty() {
            sender.try_send(Bytes::from(missed)).unwrap();
        }
        state.watchers.push((plural, sender));
        Response::builder().header("content-type", "application/json").body(body).unwrap()
    }
}

impl State {
    /// Keeps what has happened; with those who are to be told.
    fn note(&mut self, plural: &str, event: Value) -> (Vec<Sender<Bytes>>, Value) {
        self.log.push((self.version, plural.to_owned(), event.clone()));
        (self.watchers_of(plural), event)
    }

    /// What a watch from this version has to begin with.
    fn missed(&self, plural: &str, version: u64) -> String {
        let after = self.log.partition_point(|(at, ..)| *at <= version);
        let missed = self.log.iter().skip(after).filter(|(_, of, _)| !self.silent && of == plural);
        missed.map(|(.., event)| format!("{event}\n")).collect()
    }

    fn watchers_of(&self, plural: &str) -> Vec<Sender<Bytes>> {
        if self.silent {
            return Vec::new();
        }
        self.watchers.iter().filter(|(of, _)| of == plural).map(|(_, sender)| sender.clone()).collect()
    }
}

fn version_asked_for(request: &Request<Incoming>) -> u64 {
    let mut pairs = request.uri().query().unwrap_or_default().split('&');
    pairs.find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap().parse().unwrap()
}

async fn tell(watchers: Vec<Sender<Bytes>>, event: Value) {
    for mut watcher in watchers {
        // One that has gone away lists or watches again.
        let _ = watcher.send(Bytes::from(format!("{event}\n"))).await;
    }
}

fn status(code: u16, reason: &str) -> Response<BoxBody<Bytes, Infallible>> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": reason, "metadata": {}});
    let response = Response::builder().status(code).header("content-type", "application/json");
    response.body(full(status.to_string())).unwrap()
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

/// The objects of a tool with a web service, by plural.
pub(crate) fn tool(name: &str, address: SocketAddr) -> Vec<(&'static str, Value)> {
    let namespace = format!("tool-{name}");
    let backend = json!({"service": {"name": name, "port": {"number": 8000}}});
    let rule = json!({"host": format!("{name}.hearth.example"),
        "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}});
    let annotations = json!({"hearth.internal/maintainers": "ada,grace", "hearth.internal/state": "active"});
    vec![
        (
            "namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "annotations": annotations}}),
        ),
        (
            "services",
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"ports": [{"name": "http", "port": 8000}]}}),
        ),
        (
            "ingresses",
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": name, "namespace": namespace}, "spec": {"rules": [rule]}}),
        ),
        ("endpointslices", slice(name, address)),
    ]
}

/// The slice of a tool's service.
pub(crate) fn slice(name: &str, address: SocketAddr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": format!("{name}-slice"), "namespace": format!("tool-{name}"), "labels": {
            "kubernetes.io/service-name": name,
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address.ip()], "conditions": {"ready": true}}],
        "ports": [{"name": "http", "port": address.port()}],
    })
}
