//! An API server that has as many tools as one likes, makes their objects when they are asked for, and tells of changes.
//!
//! A real one would take an hour and a machine of its own for what stands here in four functions.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// The fake. What it says of a tool's pod can be changed.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    tools: usize,
    backend: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// All events, so that a watch that begins anew misses none.
    events: Vec<(u64, Bytes)>,
    watchers: Vec<UnboundedSender<Bytes>>,
    away: bool,
}

/// The name of a tool.
pub(crate) fn name(index: usize) -> String {
    format!("tool-{index:06}")
}

impl Api {
    /// One with `tools` tools, whose pods are all at `backend`.
    pub(crate) async fn start(tools: usize, backend: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let api = Self { address: listener.local_addr()?, tools, backend, state: Arc::default() };
        let serving = api.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let api = serving.clone();
                let service = service_fn(move |request| {
                    let answer = api.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Ok(api)
    }

    /// The pod of a tool moves. The event is on its way when this returns.
    pub(crate) fn move_pod(&self, tool: usize, to: SocketAddr) {
        let mut state = self.locked();
        state.version += 1;
        let version = state.version;
        let mut object = slice(&name(tool), to);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        object["kind"] = json!("EndpointSlice");
        object["apiVersion"] = json!("discovery.k8s.io/v1");
        let event = Bytes::from(format!("{}\n", json!({ "type": "MODIFIED", "object": object })));
        state.events.push((version, event.clone()));
        state.watchers.retain(|watcher| watcher.send(event.clone()).is_ok());
    }

    /// Is away from now on, or back.
    pub(crate) fn set_away(&self, away: bool) {
        let mut state = self.locked();
        state.away = away;
        state.watchers.clear();
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        let kind = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let query = request.uri().query().unwrap_or_default();
        let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let number = |key: &str| value(key).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        if self.locked().away {
            return Response::builder().status(503).body(Full::new(Bytes::new()).boxed()).expect("it is an answer");
        }
        if value("watch").is_some() {
            return self.watch(&kind, number("resourceVersion"), number("timeoutSeconds"));
        }
        let first = number("continue") as usize;
        let end = self.tools.min(first + number("limit").max(1) as usize);
        let items: Vec<Value> = (first..end).map(|tool| object(&kind, &name(tool), self.backend)).collect();
        let version = self.locked().version;
        let token = if end < self.tools { end.to_string() } else { String::new() };
        let list = json!({ "kind": "List", "apiVersion": "v1", "items": items,
            "metadata": { "resourceVersion": version.to_string(), "continue": token } });
        Response::new(Full::new(Bytes::from(list.to_string())).boxed())
    }

    fn watch(&self, kind: &str, since: u64, seconds: u64) -> Response<BoxBody<Bytes, Infallible>> {
        let (sender, mut events) = unbounded_channel();
        if kind == "endpointslices" {
            let mut state = self.locked();
            for (_, event) in state.events.iter().filter(|(version, _)| *version > since) {
                let _ = sender.send(event.clone());
            }
            state.watchers.push(sender.clone());
        }
        let over = tokio::time::sleep(Duration::from_secs(seconds));
        let stream = futures::stream::poll_fn(move |cx| events.poll_recv(cx)).take_until(over);
        let held = stream.map(move |event| {
            // Without a sender the stream would end at once.
            let _held = &sender;
            Ok::<_, Infallible>(Frame::data(event))
        });
        Response::new(BodyExt::boxed(StreamBody::new(held)))
    }
}

/// An object of a tool as `webservice` and the cluster make it.
pub(crate) fn object(kind: &str, tool: &str, backend: SocketAddr) -> Value {
    let namespace = format!("tool-{tool}");
    match kind {
        "namespaces" => json!({ "metadata": { "name": namespace, "annotations": {
            "hearth.internal/state": "active", "hearth.internal/uid": "50123", "hearth.internal/maintainers": "ada" } } }),
        "services" => json!({ "metadata": { "name": tool, "namespace": namespace },
            "spec": { "ports": [{ "name": "http", "port": 8000, "targetPort": 8000 }], "ipFamilies": ["IPv4"] } }),
        "ingresses" => {
            let backend = json!({ "service": { "name": tool, "port": { "number": 8000 } } });
            json!({ "metadata": { "name": tool, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z" },
                "spec": { "ingressClassName": "hearth", "rules": [{ "host": format!("{tool}.hearth.localhost"),
                    "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": backend }] } }] } })
        }
        _ => slice(tool, backend),
    }
}

fn slice(tool: &str, at: SocketAddr) -> Value {
    json!({ "metadata": { "name": format!("{tool}-x7k2p"), "namespace": format!("tool-{tool}"), "labels": {
            "kubernetes.io/service-name": tool,
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io" } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [at.ip()], "conditions": { "ready": true, "serving": true } }],
        "ports": [{ "name": "http", "port": at.port(), "protocol": "TCP" }] })
}
