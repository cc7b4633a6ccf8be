//! What each action does, and what is said of it.

use hearth_core::webservice::objects::{self, Objects, Owner};
use hearth_core::webservice::state::{Log, Problem};
use hearth_core::webservice::{Backend, State};
use k8s_openapi::api::apps::v1::Deployment;

use crate::args::{Action, Request};
use crate::cluster::{Cluster, Found};
use crate::exit::{Exit, Failure, Outcome};
use crate::identity::Identity;
use crate::progress::{self, Progress};
use crate::wait::{self, Short};
use crate::{files, front_door, settle};

/// Does what was asked.
pub(crate) async fn act(request: &Request, identity: &Identity) -> Outcome<Exit> {
    if request.wishes.backend == Some(Backend::Gridengine) {
        return Err(Failure::failed(hearth_core::webservice::settings::SettingsError::Grid));
    }
    let cluster = Cluster::open(identity).await?;
    match request.action {
        Action::Start => start(request, identity, &cluster).await,
        Action::Stop => stop(identity, &cluster).await,
        Action::Restart => restart(request, identity, &cluster).await,
        Action::Status => status(&cluster).await,
    }
}

async fn start(request: &Request, identity: &Identity, cluster: &Cluster) -> Outcome<Exit> {
    let mut found = cluster.look().await?;
    found.refuse_foreign()?;
    match &found.deployment {
        None => (),
        Some(deployment) if deployment.metadata.deletion_timestamp.is_some() => {
            progress::say("Your webservice is still being stopped; it is started after that.");
            wait::until_gone(cluster, &identity.tool).await?;
            found = Found::default();
        }
        Some(_) => {
            return Err(Failure::failed(
                "Your job is already running\nto start it again, or with other settings, use `webservice restart`",
            ));
        }
    }
    launch(request, identity, cluster, found, "Starting webservice").await
}

async fn restart(request: &Request, identity: &Identity, cluster: &Cluster) -> Outcome<Exit> {
    let found = cluster.look().await?;
    found.refuse_foreign()?;
    match &found.deployment {
        Some(deployment) if deployment.metadata.deletion_timestamp.is_none() => {
            launch(request, identity, cluster, found, "Restarting").await
        }
        _ => {
            progress::say("Your webservice is not running; it is started.");
            start(request, identity, cluster).await
        }
    }
}

/// Makes the objects from all settings, remembers them, and waits until the web service answers.
async fn launch(
    request: &Request,
    identity: &Identity,
    cluster: &Cluster,
    found: Found,
    sentence: &str,
) -> Outcome<Exit> {
    let remembered = files::manifest(&identity.home)?;
    let mut wishes = request
        .wishes
        .clone()
        .or(files::template(&identity.home, request.template.as_deref())?)
        .or(remembered.wishes.clone());
    // A manifest that was lost does not change what runs.
    wishes.kind = wishes.kind.or_else(|| found.deployment.as_ref().and_then(objects::kind).map(str::to_owned));
    let types = cluster.types().await?;
    let (settings, image) = settle::settle(wishes, &types, &identity.home)?;
    let owner = Owner { tool: &identity.tool, uid: identity.uid, platform: &identity.platform };
    let now = crate::clock::now();
    let objects = Objects::new(owner, &settings, &image, now);
    let mut progress = Progress::begin(sentence);
    let applied = cluster.apply(&objects, &found).await;
    let saved = applied.as_ref().ok().map(|_| {
        let new = remembered.clone().started(&settings);
        files::save(&identity.home, &remembered, &new, now)
    });
    let deadline = tokio::time::Instant::now() + request.timeout;
    let outcome = match applied {
        Ok(generation) => wait::until_ready(cluster, &identity.tool, generation, deadline, &mut progress).await,
        Err(failure) => Err(failure),
    };
    let host = identity.platform.domains.host_of(&identity.tool);
    let seen = match outcome {
        Ok(Ok(())) => {
            let door = front_door::Door { address: identity.platform.front_door.address, ca: &request.ca };
            Ok(front_door::until_answered(&door, &host, deadline, &mut progress).await)
        }
        Ok(Err(short)) => Err(came_short(request, identity, cluster, &settings.kind, short).await),
        Err(failure) => Err(failure),
    };
    progress.end();
    seen?.map_err(|problem| {
        Failure::failed(format!(
            "Your webservice of type {} runs, but https://{host}/ does not answer: {problem}.",
            settings.kind
        ))
    })?;
    progress::answer(&format!("Your webservice of type {} is running at https://{host}/", settings.kind));
    saved.unwrap_or(Ok(())).map(|()| Exit::Success)
}

/// Why the web service did not come up, with all that can be found out.
async fn came_short(request: &Request, identity: &Identity, cluster: &Cluster, kind: &str, short: Short) -> Failure {
    // Events may tell more than the watches did. Where they cannot be had, what is known has to do.
    let explained = match cluster.deployment().await {
        Ok(deployment) => cluster.state(deployment.as_ref()).await.ok(),
        Err(_) => None,
    };
    let seconds = request.timeout.as_secs();
    let mut text = format!("Your webservice of type {kind} does not come up: ");
    match (explained, short) {
        (Some(State::Failing { problem, ready }), _) => {
            text.push_str(&format!("{}.", problem.reason));
            if ready > 0 {
                text.push_str("\nWhat ran before keeps answering.");
            }
            text.push_str(&explanation(cluster, &problem).await);
        }
        (_, Short::Problem(problem)) => {
            text.push_str(&format!("{}.", problem.reason));
            text.push_str(&explanation(cluster, &problem).await);
        }
        (Some(State::Starting { ready, wanted, detail, log }), Short::Timeout) => {
            let detail = detail.map(|d| format!(", {d}")).unwrap_or_default();
            text.push_str(&format!("{ready} of {wanted} replicas answer after {seconds} s{detail}."));
            if let Some(log) = &log {
                text.push_str(&last_lines(cluster, log).await);
            }
            text.push_str("\nThe cluster keeps trying; see how it is with `webservice status`.");
        }
        (_, Short::Timeout) => {
            text.push_str(&format!(
                "it was not seen to answer within {seconds} s.\nSee how it is with `webservice status`."
            ));
        }
    }
    let command = format!("kubectl describe pods --selector name={}", identity.tool);
    Failure::failed(format!("{text}\nAll that is known of it: `{command}`"))
}

/// What to do about a problem, and the last lines of the program's log.
async fn explanation(cluster: &Cluster, problem: &Problem) -> String {
    let log = match &problem.log {
        Some(log) => last_lines(cluster, log).await,
        None => String::new(),
    };
    format!("\nWhat to do: {}.{log}", problem.advice)
}

async fn last_lines(cluster: &Cluster, log: &Log) -> String {
    let lines = cluster.last_lines(log).await;
    match lines.is_empty() {
        true => "\nIts log is empty.".to_owned(),
        false => format!("\nThe last lines of its log:\n    {}", lines.replace('\n', "\n    ")),
    }
}

async fn stop(identity: &Identity, cluster: &Cluster) -> Outcome<Exit> {
    let found = cluster.look().await?;
    let remembered = files::manifest(&identity.home)?;
    if found.is_empty() {
        progress::answer("Your webservice is not running");
    } else {
        found.refuse_foreign()?;
        let progress = Progress::begin("Stopping webservice");
        let outcome = match cluster.delete(&found).await {
            Ok(()) => wait::until_gone(cluster, &identity.tool).await,
            Err(failure) => Err(failure),
        };
        progress.end();
        outcome?;
        progress::answer("Your webservice is stopped");
    }
    let new = remembered.clone().stopped();
    files::save(&identity.home, &remembered, &new, crate::clock::now())?;
    Ok(Exit::Success)
}

async fn status(cluster: &Cluster) -> Outcome<Exit> {
    let deployment = cluster.deployment().await?.filter(|d| objects::is_ours(&d.metadata));
    let state = cluster.state(deployment.as_ref()).await?;
    let kind = kind_of(deployment.as_ref());
    let running = format!("Your webservice of type {kind} is running on backend kubernetes");
    let (text, exit) = match state {
        State::Stopped => ("Your webservice is not running".to_owned(), Exit::Success),
        State::Stopping => (format!("Your webservice of type {kind} is being stopped"), Exit::Success),
        State::Running { .. } => (running, Exit::Success),
        State::Starting { ready, wanted, detail, log: _ } => {
            let detail = detail.map(|d| format!(", {d}")).unwrap_or_default();
            let count = format!("{ready} of {wanted} replicas answer{detail}");
            let text = match ready {
                0 => format!("Your webservice of type {kind} is starting on backend kubernetes\n{count}"),
                _ => format!("{running}\nIt is being changed: {count}"),
            };
            (text, Exit::Success)
        }
        State::Failing { ready, problem } => {
            let headline = match ready {
                0 => format!("Your webservice of type {kind} is failing on backend kubernetes: {}", problem.reason),
                _ => format!("{running}\nNot all of it is well ({ready} replicas answer): {}", problem.reason),
            };
            (format!("{headline}{}", explanation(cluster, &problem).await), Exit::Failing)
        }
    };
    progress::answer(&text);
    Ok(exit)
}

/// The type of what runs; a Deployment that was changed by hand may not tell it.
fn kind_of(deployment: Option<&Deployment>) -> String {
    deployment.and_then(objects::kind).unwrap_or("unknown").to_owned()
}
