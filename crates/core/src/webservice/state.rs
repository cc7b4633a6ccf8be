//! In which state a web service is, from its objects, and when it does not come up: why, and what to do.
//!
//! The state is read from the Deployment first and from its pods when that is not well; events only explain a pod
//! that waits. A pod that runs but does not answer is not called running.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Event, Pod};

use super::CONTAINER;
use crate::names::WEB_PORT;

/// What was seen of a web service.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen<'a> {
    /// Its Deployment, where there is one.
    pub deployment: Option<&'a Deployment>,
    /// Its pods.
    pub pods: &'a [&'a Pod],
    /// Events of the tool's namespace; others than its pods' are passed over.
    pub events: &'a [Event],
}

/// In which state a web service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// There is none.
    Stopped,
    /// It is being removed.
    Stopping,
    /// It comes up, or is being replaced by a newer one.
    Starting {
        /// Pods that answer.
        ready: u32,
        /// Pods that were asked for.
        wanted: u32,
        /// What is being done, where something is known.
        detail: Option<String>,
        /// Whose log may tell why it takes long.
        log: Option<Log>,
    },
    /// All its pods answer, and all are of the newest configuration.
    Running {
        /// Pods that answer.
        ready: u32,
    },
    /// It does not come up, or no longer answers.
    Failing {
        /// Pods that answer all the same, of an older configuration or beside the failing one.
        ready: u32,
        /// Why.
        problem: Problem,
    },
}

/// Why a web service does not come up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Why, a sentence without its full stop.
    pub reason: String,
    /// What the maintainer can do, a sentence without its full stop.
    pub advice: String,
    /// Whose log tells more.
    pub log: Option<Log>,
    /// Whether waiting longer is of no use.
    pub settled: bool,
}

/// Where the last words of a failing program are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The pod.
    pub pod: String,
    /// Whether it is the log of the container before the present one.
    pub previous: bool,
}

impl State {
    /// The state of a web service.
    pub fn of(seen: Seen<'_>) -> Self {
        let Some(deployment) = seen.deployment else { return Self::Stopped };
        if deployment.metadata.deletion_timestamp.is_some() {
            return Self::Stopping;
        }
        let counts = Counts::of(deployment);
        if counts.complete() {
            return Self::Running { ready: counts.available };
        }
        let ready = counts.available;
        if counts.wanted == 0 {
            return Self::Failing { ready, problem: scaled_to_nothing() };
        }
        let pods = || seen.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let problems = pods().filter_map(|pod| problem_of_pod(pod, seen.events)).chain(refusal(deployment));
        match problems.max_by_key(|problem| problem.settled) {
            Some(problem) => Self::Failing { ready, problem },
            None => {
                let waiting = pods().find_map(|pod| Some((detail(pod)?, log(pod))));
                let (detail, log) = waiting.map_or((None, None), |(detail, log)| (Some(detail), log));
                Self::Starting { ready, wanted: counts.wanted, detail, log }
            }
        }
    }
}

/// How many pods there are and should be.
struct Counts {
    wanted: u32,
    available: u32,
    updated: u32,
    all: u32,
    observed: bool,
}

impl Counts {
    fn of(deployment: &Deployment) -> Self {
        let number = |n: Option<i32>| n.and_then(|n| u32::try_from(n).ok());
        let status = deployment.status.as_ref();
        Self {
            wanted: number(deployment.spec.replicas).unwrap_or(1),
            available: number(status.and_then(|s| s.available_replicas)).unwrap_or(0),
            updated: number(status.and_then(|s| s.updated_replicas)).unwrap_or(0),
            all: number(status.and_then(|s| s.replicas)).unwrap_or(0),
            observed: status.and_then(|s| s.observed_generation) >= deployment.metadata.generation,
        }
    }

    fn complete(&self) -> bool {
        self.observed
            && self.wanted > 0
            && self.updated == self.wanted
            && self.all == self.updated
            && self.available >= self.wanted
    }
}

// === what is wrong ===

fn scaled_to_nothing() -> Problem {
    Problem {
        reason: "it is scaled to 0 replicas".to_owned(),
        advice: "start it again with `webservice restart`".to_owned(),
        log: None,
        settled: true,
    }
}

/// Why no pod could be made: the quota, or a rule of the platform.
fn refusal(deployment: &Deployment) -> Option<Problem> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| is(&c.type_, "ReplicaFailure") && is(&c.status, "True"))?;
    let message = condition.message.as_deref().unwrap_or("no reason is given");
    let (reason, advice) = match message.split_once("exceeded quota: ") {
        Some((_, quota)) => (
            format!("the tool's quota is used up ({quota})"),
            "ask for less with --mem, --cpu or --replicas, stop something else of the tool, or ask the platform's operators for more",
        ),
        None => (
            format!("the platform refuses its pods: {message}"),
            "mend what the message names; if it names nothing of yours, tell the platform's operators",
        ),
    };
    Some(Problem { reason, advice: advice.to_owned(), log: None, settled: true })
}

fn problem_of_pod(pod: &Pod, events: &[Event]) -> Option<Problem> {
    let name = pod.metadata.name.clone()?;
    if let Some(message) = unschedulable(pod) {
        return Some(Problem {
            reason: format!("no machine has room for it ({message})"),
            advice: "ask for less with --mem or --cpu, or try again later".to_owned(),
            log: None,
            settled: false,
        });
    }
    let Some(container) = container(pod) else { return mount_failure(&name, events) };
    let state = container.state.clone().unwrap_or_default();
    match &state {
        ContainerState { waiting: Some(waiting), .. } => {
            let message = waiting.message.clone().unwrap_or_default();
            match waiting.reason.as_deref().unwrap_or_default() {
                "CrashLoopBackOff" => Some(crash(container, name, events)),
                "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => Some(Problem {
                    reason: format!("its image {} cannot be fetched ({message})", container.image),
                    advice: "if the image is your own, check its name and that it was pushed; or else tell the platform's operators".to_owned(),
                    log: None,
                    settled: true,
                }),
                reason @ ("CreateContainerConfigError" | "CreateContainerError" | "RunContainerError") => {
                    Some(Problem {
                        reason: format!("its container cannot be made: {message} ({reason})"),
                        advice: "mend what the message names, then run `webservice restart`".to_owned(),
                        log: None,
                        settled: true,
                    })
                }
                _ => mount_failure(&name, events),
            }
        }
        ContainerState { running: Some(_), .. }
            if container.started == Some(true) && stopped_answering(pod, container) =>
        {
            Some(Problem {
                reason: format!("its program runs, but does not answer on port {WEB_PORT}"),
                advice: "look at its log, then run `webservice restart`".to_owned(),
                log: Some(Log { pod: name, previous: false }),
                settled: false,
            })
        }
        _ => None,
    }
}

/// Whether a program that runs has answered before and does so no longer. One that has only just started is not ready
/// for a moment either; the pod then became unready before the program was started.
fn stopped_answering(pod: &Pod, container: &ContainerStatus) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.and_then(|all| all.iter().find(|c| c.type_ == "Ready"));
    let unready_since = ready.and_then(|condition| condition.last_transition_time.as_ref());
    let running = container.state.as_ref().and_then(|state| state.running.as_ref());
    let started = running.and_then(|running| running.started_at.as_ref());
    let not_yet = matches!((unready_since, started), (Some(since), Some(started)) if since.0 <= started.0);
    !container.ready && !not_yet
}

/// Why a program ends again and again.
fn crash(container: &ContainerStatus, pod: String, events: &[Event]) -> Problem {
    let last = container.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    let never_answered = events.iter().any(|event| {
        concerns(event, &pod)
            && event.reason.as_deref() == Some("Unhealthy")
            && event.message.as_deref().is_some_and(|m| m.starts_with("Startup probe failed"))
    });
    let (reason, advice) = match last {
        Some(end) if end.reason.as_deref() == Some("OOMKilled") => (
            "its program was ended because it used more memory than it may".to_owned(),
            "give it more, as in `webservice --mem 1Gi restart`",
        ),
        Some(end) if never_answered && matches!(end.exit_code, 137 | 143) => (
            format!("its program was ended because it never accepted connections on port {WEB_PORT}"),
            "let it listen on 0.0.0.0 and on the port that the variable PORT names, then run `webservice restart`",
        ),
        Some(end) => (
            format!("its program ends again and again, last with exit code {}", end.exit_code),
            "mend what its log says, then run `webservice restart`",
        ),
        None => {
            ("its program ends again and again".to_owned(), "mend what its log says, then run `webservice restart`")
        }
    };
    Problem { reason, advice: advice.to_owned(), log: Some(Log { pod, previous: true }), settled: true }
}

/// Why a pod's volumes cannot be mounted, which only events tell.
fn mount_failure(pod: &str, events: &[Event]) -> Option<Problem> {
    let event = events.iter().rfind(|e| concerns(e, pod) && e.reason.as_deref() == Some("FailedMount"))?;
    let message = event.message.as_deref().unwrap_or("no reason is given");
    Some(Problem {
        reason: format!("a folder that it needs cannot be mounted ({message})"),
        advice: "check that the tool's home exists, or tell the platform's operators".to_owned(),
        log: None,
        settled: false,
    })
}

/// What a pod without a problem is doing.
fn detail(pod: &Pod) -> Option<String> {
    let Some(container) = container(pod) else { return Some("waiting for a machine".to_owned()) };
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        return Some(match waiting.reason.as_deref() {
            Some("ErrImagePull") => {
                format!("its image could not be fetched at once ({})", waiting.message.as_deref().unwrap_or_default())
            }
            _ => "its container is being made".to_owned(),
        });
    }
    if let Some(end) = &state.terminated {
        return Some(format!("its program ended with exit code {} and is started again", end.exit_code));
    }
    (!container.ready).then(|| format!("its program does not yet accept connections on port {WEB_PORT}"))
}

/// The log of a program that runs.
fn log(pod: &Pod) -> Option<Log> {
    container(pod)?.state.as_ref()?.running.as_ref()?;
    Some(Log { pod: pod.metadata.name.clone()?, previous: false })
}

fn unschedulable(pod: &Pod) -> Option<&str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    (condition.reason.as_deref() == Some("Unschedulable")).then(|| condition.message.as_deref().unwrap_or_default())
}

/// Whether a field that may be absent has this value.
fn is(field: &Option<String>, value: &str) -> bool {
    field.as_deref() == Some(value)
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.iter().find(|c| c.name == CONTAINER)
}

fn concerns(event: &Event, pod: &str) -> bool {
    event.involved_object.kind.as_deref() == Some("Pod") && event.involved_object.name.as_deref() == Some(pod)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A Deployment that wants `wanted` pods, has `all`, of which `updated` are new and `available` answer.
    fn deployment(wanted: u32, all: u32, updated: u32, available: u32) -> Value {
        json!({
            "metadata": {"name": "wikibot", "generation": 2},
            "spec": {"replicas": wanted, "selector": {}, "template": {}},
            "status": {
                "observedGeneration": 2, "replicas": all, "updatedReplicas": updated, "availableReplicas": available,
            },
        })
    }

    fn waiting(reason: &str, message: &str) -> Value {
        json!({"state": {"waiting": {"reason": reason, "message": message}}, "ready": false})
    }

    fn pod(status: Value) -> Value {
        let mut status = status;
        let defaults = json!({"name": "webservice", "image": "r/hearth/static", "imageID": "", "restartCount": 0});
        status.as_object_mut().unwrap().extend(defaults.as_object().unwrap().clone());
        json!({"metadata": {"name": "wikibot-1"}, "status": {"containerStatuses": [status]}})
    }

    fn event(reason: &str, message: &str) -> Value {
        json!({
            "metadata": {}, "reason": reason, "message": message,
            "involvedObject": {"kind": "Pod", "name": "wikibot-1"},
        })
    }

    fn state(deployment: Value, pods: &[Value], events: &[Value]) -> State {
        let deployment: Deployment = serde_json::from_value(deployment).unwrap();
        let pods: Vec<Pod> = pods.iter().map(|p| serde_json::from_value(p.clone()).unwrap()).collect();
        let events: Vec<Event> = events.iter().map(|e| serde_json::from_value(e.clone()).unwrap()).collect();
        let pods: Vec<&Pod> = pods.iter().collect();
        State::of(Seen { deployment: Some(&deployment), pods: &pods, events: &events })
    }

    /// The reason and whether it is settled, of a web service whose only pod is in this state.
    fn failing(pod: Value, events: &[Value]) -> (String, bool) {
        match state(deployment(1, 1, 1, 0), &[pod], events) {
            State::Failing { ready: 0, problem } => (problem.reason, problem.settled),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn healthy_states() {
        assert_eq!(State::of(Seen::default()), State::Stopped);
        assert_eq!(state(deployment(2, 2, 2, 2), &[], &[]), State::Running { ready: 2 });
        let starting = |ready, wanted, detail: Option<&str>| State::Starting {
            ready,
            wanted,
            detail: detail.map(str::to_owned),
            log: None,
        };
        assert_eq!(state(deployment(1, 0, 0, 0), &[], &[]), starting(0, 1, None));
        assert_eq!(state(deployment(1, 2, 1, 1), &[], &[]), starting(1, 1, None), "an old pod still stands");
        let mut unobserved = deployment(1, 1, 1, 1);
        unobserved["metadata"]["generation"] = json!(3);
        assert_eq!(state(unobserved, &[], &[]), starting(1, 1, None), "a change was not yet acted on");
        let mut going = deployment(1, 1, 1, 1);
        going["metadata"]["deletionTimestamp"] = json!("2026-11-22T18:00:00Z");
        assert_eq!(state(going, &[], &[]), State::Stopping);
        let making = pod(waiting("ContainerCreating", ""));
        assert_eq!(state(deployment(1, 1, 1, 0), &[making], &[]), starting(0, 1, Some("its container is being made")));
        let silent = pod(json!({"state": {"running": {}}, "started": false, "ready": false}));
        match state(deployment(1, 1, 1, 0), &[silent], &[]) {
            State::Starting { ready: 0, wanted: 1, detail: Some(detail), log: Some(log) } => {
                assert_eq!(detail, "its program does not yet accept connections on port 8000");
                assert_eq!(log, Log { pod: "wikibot-1".to_owned(), previous: false });
            }
            other => panic!("{other:?}"),
        }
        let pull = pod(waiting("ErrImagePull", "not there"));
        let detail = "its image could not be fetched at once (not there)";
        assert_eq!(state(deployment(1, 1, 1, 0), &[pull], &[]), starting(0, 1, Some(detail)));
    }

    #[test]
    fn problems_of_pods() {
        let crash = |code: i32, reason: &str| {
            let mut status = waiting("CrashLoopBackOff", "back-off");
            status["lastState"] = json!({"terminated": {"exitCode": code, "reason": reason}});
            pod(status)
        };
        let ends = "its program ends again and again, last with exit code 1";
        assert_eq!(failing(crash(1, "Error"), &[]), (ends.to_owned(), true));
        let memory = "its program was ended because it used more memory than it may";
        assert_eq!(failing(crash(137, "OOMKilled"), &[]), (memory.to_owned(), true));
        let silent = "its program was ended because it never accepted connections on port 8000";
        let probe = event("Unhealthy", "Startup probe failed: connection refused");
        assert_eq!(failing(crash(143, "Error"), &[probe]), (silent.to_owned(), true));
        let pull = "its image r/hearth/static cannot be fetched (not there)";
        assert_eq!(failing(pod(waiting("ImagePullBackOff", "not there")), &[]), (pull.to_owned(), true));
        let made = "its container cannot be made: no secret (CreateContainerConfigError)";
        assert_eq!(failing(pod(waiting("CreateContainerConfigError", "no secret")), &[]), (made.to_owned(), true));
        let unready = pod(json!({"state": {"running": {}}, "started": true, "ready": false}));
        let text = "its program runs, but does not answer on port 8000";
        assert_eq!(failing(unready, &[]), (text.to_owned(), false));
        let ready = |since: &str| {
            let running =
                json!({"state": {"running": {"startedAt": "2026-01-01T00:00:05Z"}}, "started": true, "ready": false});
            let mut pod = pod(running);
            pod["status"]["conditions"] = json!([{"type": "Ready", "status": "False", "lastTransitionTime": since}]);
            state(deployment(1, 1, 1, 0), &[pod], &[])
        };
        assert!(matches!(ready("2026-01-01T00:00:09Z"), State::Failing { .. }));
        assert!(matches!(ready("2026-01-01T00:00:03Z"), State::Starting { .. }), "it has only just started");
        let mount = event("FailedMount", "is not a directory");
        let text = "a folder that it needs cannot be mounted (is not a directory)";
        assert_eq!(failing(pod(waiting("ContainerCreating", "")), &[mount]), (text.to_owned(), false));
        let pending = json!({
            "metadata": {"name": "wikibot-1"},
            "status": {"conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"},
            ]},
        });
        assert_eq!(failing(pending, &[]), ("no machine has room for it (0/1 nodes)".to_owned(), false));
    }

    #[test]
    fn problems_of_the_deployment() {
        let refused = |message: &str| {
            let mut deployment = deployment(1, 0, 0, 0);
            deployment["status"]["conditions"] =
                json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}]);
            match state(deployment, &[], &[]) {
                State::Failing { problem, .. } => (problem.reason, problem.settled),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            refused(
                "pods \"a\" is forbidden: exceeded quota: tool-a, requested: pods=1, used: pods=10, limited: pods=10"
            ),
            (
                "the tool's quota is used up (tool-a, requested: pods=1, used: pods=10, limited: pods=10)".to_owned(),
                true
            )
        );
        assert_eq!(refused("no such uid"), ("the platform refuses its pods: no such uid".to_owned(), true));
        match state(deployment(0, 0, 0, 0), &[], &[]) {
            State::Failing { problem, .. } => assert_eq!(problem.reason, "it is scaled to 0 replicas"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_failing_replacement_does_not_hide_what_still_serves() {
        let broken = pod(waiting("ImagePullBackOff", "not there"));
        let well = pod(json!({"state": {"running": {}}, "started": true, "ready": true}));
        match state(deployment(1, 2, 1, 1), &[well, broken], &[]) {
            State::Failing { ready: 1, problem } => assert!(problem.settled),
            other => panic!("{other:?}"),
        }
    }
}
