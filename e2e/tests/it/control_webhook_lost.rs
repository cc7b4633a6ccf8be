//! When the webhook is lost: killed while it is asked, or hanging. What is legal passes and what is forbidden does not,
//! because the policies in the API server decide; nothing waits longer than the webhook's own timeout.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hearth_core::names::annotation;
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client, Error};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::control_admission::{PLATFORM, register, run, stage};
use crate::control_plane::ControlPlane;
use crate::control_role::Role;

/// How long the API server may take to act on a new webhook.
const EFFECT: Duration = Duration::from_secs(60);

/// How long the API server waits for the webhook, as its registration says.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How many are asked for at once.
const AT_ONCE: usize = 4;

/// What came of a creation that was asked for.
struct Outcome {
    legal: bool,
    began: Instant,
    took: Duration,
    result: Result<(), String>,
}

/// A stream of creations, legal and forbidden in turn, that goes on until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    senders: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    async fn start(plane: &ControlPlane, namespace: &str) -> Self {
        let (stop, outcomes) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let mut senders = Vec::new();
        for _ in 0..AT_ONCE {
            let (stop, outcomes) = (stop.clone(), outcomes.clone());
            let api = pods(plane.admin().await, namespace);
            senders.push(tokio::spawn(async move {
                for legal in [true, false].into_iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (began, result) = (Instant::now(), create(&api, legal).await);
                    let result = result.map_err(|error| error.to_string());
                    outcomes.lock().await.push(Outcome { legal, began, took: began.elapsed(), result });
                }
            }));
        }
        Self { stop, outcomes, senders }
    }

    /// Waits until so many more have come back.
    async fn goes_on(&self, more: usize) {
        let (already, deadline) = (self.outcomes.lock().await.len(), Instant::now() + EFFECT);
        while self.outcomes.lock().await.len() < already + more {
            assert!(Instant::now() < deadline, "the API server answers no more");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(self) -> Vec<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        for sender in self.senders {
            sender.await.unwrap();
        }
        std::mem::take(&mut *self.outcomes.lock().await)
    }
}

fn pods(client: Client, namespace: &str) -> Api<Pod> {
    Api::namespaced(client, namespace)
}

/// Asks for a pod, without storing it.
async fn create(api: &Api<Pod>, legal: bool) -> Result<(), Error> {
    let image = if legal { "registry.hearth.internal/a" } else { "elsewhere.example/a" };
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "asked" }, "spec": { "containers": [{ "name": "a", "image": image }] },
    }))
    .unwrap();
    api.create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await.map(drop)
}

/// Waits until a forbidden pod is refused by the webhook.
async fn speaks(api: &Api<Pod>) {
    let deadline = Instant::now() + EFFECT;
    loop {
        let refusal = create(api, false).await.unwrap_err().to_string();
        if refusal.contains("admission webhook") {
            return;
        }
        assert!(Instant::now() < deadline, "the webhook is not asked: {refusal}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load_it_takes_nothing_with_it() {
    let plane = stage().await;
    plane.namespace("tool-killed", &[(annotation::UID, "50132")]).await.unwrap();
    let mut role = Role::start(plane, PLATFORM, false).unwrap();
    register(plane, "tool-killed", role.client_config().unwrap()).await;
    let api = pods(plane.admin().await, "tool-killed");
    speaks(&api).await;

    let load = Load::start(plane, "tool-killed").await;
    let mut lost = Vec::new();
    for _ in 0..3 {
        load.goes_on(40).await;
        role.kill();
        let killed = Instant::now();
        load.goes_on(100).await;
        lost.push((killed, Instant::now()));
        role.start_again().unwrap();
        speaks(&api).await;
    }
    let outcomes = load.end().await;

    for Outcome { legal, result, .. } in &outcomes {
        match (legal, result) {
            (true, Ok(())) => (),
            (false, Err(refusal)) if refusal.contains("elsewhere.example/a") => (),
            (true, Err(refusal)) => panic!("a legal pod was refused: {refusal}"),
            (false, other) => panic!("a forbidden pod was not refused for its image: {other:?}"),
        }
    }
    let by = |who: &str| outcomes.iter().filter(|o| o.result.as_ref().is_err_and(|error| error.contains(who))).count();
    assert!(by("admission webhook") > 0 && by("ValidatingAdmissionPolicy") > 0);
    // A connection that nobody takes fails at once, so what was asked meanwhile did not wait for the timeout.
    for (from, to) in lost {
        let within = outcomes.iter().filter(|outcome| (from..to).contains(&outcome.began));
        let mut took: Vec<Duration> = within.map(|outcome| outcome.took).collect();
        took.sort_unstable();
        assert!(took[took.len() / 2] < TIMEOUT, "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_it_is_waited_for_until_its_timeout_and_no_longer() {
    let plane = stage().await;
    plane.namespace("tool-hung", &[(annotation::UID, "50133")]).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/review", listener.local_addr().unwrap());
    // Takes connections, and holds them without a word.
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    register(plane, "tool-hung", json!({ "url": url })).await;

    let api = pods(plane.admin().await, "tool-hung");
    let timed = async |legal| {
        let began = Instant::now();
        let result = create(&api, legal).await;
        (result, began.elapsed())
    };
    let deadline = Instant::now() + EFFECT;
    while timed(true).await.1 < TIMEOUT {
        assert!(Instant::now() < deadline, "the API server does not ask the webhook");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (result, took) = timed(true).await;
    result.unwrap();
    // Twice the timeout would be a second attempt, or a wait for something else.
    assert!((TIMEOUT..2 * TIMEOUT).contains(&took), "{took:?}");
    let (result, took) = timed(false).await;
    let refusal = result.unwrap_err().to_string();
    assert!(refusal.contains("hearth-tool-pods") && refusal.contains("elsewhere.example/a"), "{refusal}");
    assert!((TIMEOUT..2 * TIMEOUT).contains(&took), "{took:?}");
    let foreign = json!({ "hostPID": true, "containers": [{ "name": "a", "image": "registry.hearth.internal/a" }] });
    assert!(run(plane, "tool-hung", foreign).await.unwrap_err().to_string().contains("spec.hostPID"));
}
