//! The loop for administrators: what [`hearth_core::account::admins`] plans is done.
//!
//! There are few of them, so that each pass lists all their bindings and plans for all. Rights are given and taken in the
//! pass itself; what is done in homes, which may hang, runs beside it in a task for each person.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use hearth_core::account::admins::{BindingAction, HomeAction, plan_home, plan_rights};
use hearth_core::account::plan::Was;
use hearth_core::account::subject::Identity;
use hearth_core::directory_entry::person_name::PersonName;
use hearth_core::directory_entry::{Admin, Snapshot};
use hearth_core::names;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::apply::{Context, gone};
use super::fresh::Random;
use super::homes::{Files, Resident};
use super::metrics::Metrics;
use super::observe::Steps;
use super::waiting::Waiting;

/// How long changes are gathered before a pass.
const GATHER: Duration = Duration::from_millis(50);

/// How often everything is looked at again, homes included, whatever the watch said.
const FULL_PASS: Duration = Duration::from_secs(600);

/// The administrators of the directory, by name.
pub(super) type People = BTreeMap<PersonName, Admin>;

/// What the watch of their bindings says: that something changed, or that it failed.
pub(super) type Seen = Result<Event<PartialObjectMeta<ClusterRoleBinding>>, watcher::Error>;

/// The directory's snapshots as they come, and the administrators of the last one; nothing before the first.
pub(super) fn apart(
    snapshots: impl Stream<Item = Result<Snapshot>> + Send,
) -> (impl Stream<Item = Result<Snapshot>> + Send, watch::Receiver<Option<People>>) {
    let (sender, receiver) = watch::channel(None);
    let snapshots = snapshots.inspect(move |item| {
        if let Ok(snapshot) = item {
            let is_new = |last: &Option<People>| last.as_ref() != Some(&snapshot.admins);
            sender.send_if_modified(|last| {
                let changed = is_new(last);
                if changed {
                    *last = Some(snapshot.admins.clone());
                }
                changed
            });
        }
    });
    (snapshots, receiver)
}

/// Watches the bindings that have our label.
pub(super) fn watch(client: &Client) -> BoxStream<'static, Seen> {
    let api = Api::<PartialObjectMeta<ClusterRoleBinding>>::all(client.clone());
    kube::runtime::watcher(api, Config::default().labels(&ours())).backoff(Steps::default()).boxed()
}

/// Keeps administrators equal to the directory, for ever. While `leads` is false nothing is done.
pub(super) async fn run(
    context: Context,
    mut people: watch::Receiver<Option<People>>,
    seen: impl Stream<Item = Seen> + Send,
    mut leads: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
) {
    let mut seen = pin!(seen.fuse());
    let mut keeper = Keeper::new(context, metrics);
    let (mut directory_open, mut election_open) = (true, true);
    loop {
        let due = keeper.next();
        tokio::select! {
            changed = people.changed(), if directory_open => match changed {
                Ok(()) => keeper.directory(people.borrow_and_update().clone().unwrap_or_default()),
                Err(_) => directory_open = false,
            },
            changed = leads.changed(), if election_open => match changed {
                Ok(()) => keeper.look_at_all(),
                Err(_) => election_open = false,
            },
            Some(event) = seen.next() => match event {
                Ok(_) => keeper.soon(),
                Err(error) => {
                    tracing::warn!(%error, "the watch of administrators' bindings failed and is begun again");
                }
            },
            Some(done) = keeper.work.join_next(), if !keeper.work.is_empty() => {
                if let Ok((person, tended)) = done {
                    keeper.finished(person, tended);
                }
            }
            () = tokio::time::sleep_until(due) => {
                let acts = *leads.borrow();
                keeper.turn(acts).await;
            }
        }
    }
}

/// What would be done now.
#[derive(Debug, Default)]
pub(super) struct Preview {
    /// A line for each thing that is to be done, or is left alone.
    pub lines: Vec<String>,
    /// For how many people something is to be done.
    pub to_do: usize,
    /// How many things are left alone.
    pub left: usize,
}

/// Tells what would be done now.
pub(super) async fn preview(context: &Context, people: &People) -> Result<Preview> {
    let rights = plan_rights(people, &list(&context.client).await?, &mut Random);
    let mut to_do: BTreeMap<&PersonName, Vec<&str>> = BTreeMap::new();
    for (person, actions) in &rights.people {
        to_do.entry(person).or_default().extend(actions.iter().map(BindingAction::kind));
    }
    let mut left: Vec<String> = rights.refused.iter().map(|reason| format!("left alone: {reason}")).collect();
    for ((person, admin), identity) in people.iter().zip(rights.identities.values()) {
        let found = match context.homes.look(&Resident::admin(admin)).await {
            Ok(found) => found,
            Err(error) => {
                left.push(format!("administrator {person}: the home cannot be looked at: {error:#}"));
                continue;
            }
        };
        match plan_home(admin, identity, &found, context.given()) {
            Ok(actions) if actions.is_empty() => (),
            Ok(actions) => to_do.entry(person).or_default().extend(actions.into_iter().map(HomeAction::kind)),
            Err(reason) => left.push(format!("administrator {person} is left alone: {reason}")),
        }
    }
    let lines = to_do.iter().map(|(person, kinds)| format!("administrator {person}: {}", kinds.join(", ")));
    let (to_do, left_alone) = (to_do.len(), left.len());
    Ok(Preview { lines: lines.chain(left).collect(), to_do, left: left_alone })
}

fn ours() -> String {
    format!("{}={}", names::label::MANAGED_BY, names::FIELD_MANAGER)
}

/// The bindings that have our label, by name.
async fn list(client: &Client) -> Result<BTreeMap<String, ClusterRoleBinding>> {
    let api = Api::<ClusterRoleBinding>::all(client.clone());
    let found = api.list(&ListParams::default().labels(&ours())).await;
    let found = found.context("failed to list the administrators' cluster role bindings")?;
    Ok(found.into_iter().map(|binding| (binding.name_any(), binding)).collect())
}

struct Keeper {
    context: Context,
    metrics: Arc<Metrics>,
    /// The directory's administrators, once it was read.
    people: Option<People>,
    /// When the next pass is, if anything changed.
    pass_at: Option<Instant>,
    full_pass_at: Instant,
    /// Whose homes are to be looked at.
    to_look: BTreeSet<PersonName>,
    /// In whose homes something is done.
    busy: BTreeSet<PersonName>,
    /// For whom something failed.
    failed: Waiting<PersonName>,
    /// What was said of somebody, so that it is said once.
    told: BTreeMap<PersonName, String>,
    /// Whether it was said that nobody loses any rights.
    told_of_removals: bool,
    /// How often in a row the bindings could not be listed.
    unlisted: u32,
    work: JoinSet<(PersonName, Tended)>,
}

/// What came of looking at a home.
#[derive(Default)]
struct Tended {
    /// The kinds of the actions that were done.
    done: Vec<&'static str>,
    /// Why it is left alone.
    refused: Option<String>,
    /// What failed, and the kind of the action if it was one.
    failed: Option<(Option<&'static str>, anyhow::Error)>,
}

impl Keeper {
    fn new(context: Context, metrics: Arc<Metrics>) -> Self {
        Self {
            context,
            metrics,
            people: None,
            pass_at: None,
            full_pass_at: Instant::now() + FULL_PASS,
            to_look: BTreeSet::new(),
            busy: BTreeSet::new(),
            failed: Waiting::default(),
            told: BTreeMap::new(),
            told_of_removals: false,
            unlisted: 0,
            work: JoinSet::new(),
        }
    }

    fn soon(&mut self) {
        self.pass_at.get_or_insert_with(|| Instant::now() + GATHER);
    }

    fn directory(&mut self, people: People) {
        tracing::info!(administrators = people.len(), "the directory was read");
        self.failed = Waiting::default();
        self.told.retain(|person, _| people.contains_key(person));
        self.people = Some(people);
        self.look_at_all();
    }

    fn look_at_all(&mut self) {
        self.to_look = self.people.iter().flatten().map(|(person, _)| person.clone()).collect();
        self.soon();
    }

    fn next(&self) -> Instant {
        let times = [self.failed.next(), self.pass_at, Some(self.full_pass_at)];
        times.into_iter().flatten().min().unwrap_or(self.full_pass_at)
    }

    async fn turn(&mut self, acts: bool) {
        let now = Instant::now();
        if now >= self.full_pass_at {
            self.full_pass_at = now + FULL_PASS;
            self.look_at_all();
        }
        let woken = self.failed.wake(now);
        let is_woken = !woken.is_empty();
        self.to_look.extend(woken);
        if is_woken || self.pass_at.is_some_and(|at| at <= now) {
            self.pass_at = None;
            if acts {
                self.pass().await;
            }
        }
    }

    /// Gives and takes rights, and begins what is to be done in homes.
    async fn pass(&mut self) {
        let Some(people) = self.people.clone() else { return };
        let bindings = match list(&self.context.client).await {
            Ok(bindings) => bindings,
            Err(error) => {
                let pause = GATHER.saturating_mul(1 << self.unlisted.min(10)).min(Duration::from_secs(60));
                self.unlisted = self.unlisted.saturating_add(1);
                tracing::warn!(error = format!("{error:#}"), again_in = ?pause, "administrators are not looked after");
                self.pass_at = Some(Instant::now() + pause);
                return;
            }
        };
        self.unlisted = 0;
        let rights = plan_rights(&people, &bindings, &mut Random);
        if let Some(reason) = rights.refused.as_ref().filter(|_| !self.told_of_removals) {
            tracing::warn!(%reason, "something is left alone");
        }
        self.told_of_removals = rights.refused.is_some();
        for (person, actions) in rights.people {
            if !self.failed.is_waiting(&person) {
                self.bind(&person, actions).await;
            }
        }
        for person in std::mem::take(&mut self.to_look) {
            let (Some(admin), Some(identity)) = (people.get(&person), rights.identities.get(&person)) else { continue };
            if self.failed.is_waiting(&person) || !self.busy.insert(person.clone()) {
                continue;
            }
            let (context, admin, identity) = (self.context.clone(), admin.clone(), identity.clone());
            self.work.spawn(async move {
                let tended = tend(&context, &admin, &identity).await;
                (person, tended)
            });
        }
        self.metrics.looked_after(
            people.len(),
            self.failed.len(),
            self.told.len() + usize::from(self.told_of_removals),
        );
    }

    async fn bind(&mut self, person: &PersonName, actions: Vec<BindingAction>) {
        for action in actions {
            let kind = action.kind();
            let done = bind(&self.context.client, action).await;
            self.metrics.acted(kind, done.is_ok());
            match done {
                Ok(()) => tracing::info!(%person, done = kind, "an administrator's rights were changed"),
                Err(error) => return self.fails(person, &error),
            }
        }
        // A new epoch, above all, needs a new certificate.
        self.to_look.insert(person.clone());
        self.soon();
    }

    fn fails(&mut self, person: &PersonName, error: &anyhow::Error) {
        let (pause, error) = (self.failed.failed(person), format!("{error:#}"));
        tracing::warn!(%person, error, again_in = ?pause, "an administrator could not be looked after");
    }

    fn finished(&mut self, person: PersonName, tended: Tended) {
        let Tended { done, refused, failed } = tended;
        self.busy.remove(&person);
        for kind in &done {
            self.metrics.acted(kind, true);
        }
        if !done.is_empty() {
            tracing::info!(%person, done = done.join(", "), "an administrator's home was brought up to date");
        }
        match refused {
            Some(reason) if self.told.get(&person) != Some(&reason) => {
                tracing::warn!(%person, reason, "something is left alone");
                self.told.insert(person.clone(), reason);
            }
            Some(_) => (),
            None => drop(self.told.remove(&person)),
        }
        match failed {
            None => self.failed.forget(&person),
            Some((kind, error)) => {
                if let Some(kind) = kind {
                    self.metrics.acted(kind, false);
                }
                self.fails(&person, &error);
            }
        }
        self.soon();
    }
}

async fn bind(client: &Client, action: BindingAction) -> Result<()> {
    let api = Api::<ClusterRoleBinding>::all(client.clone());
    match action {
        BindingAction::Delete(name) => gone(api.delete(&name, &DeleteParams::default()).await)
            .with_context(|| format!("failed to delete the cluster role binding {name}")),
        BindingAction::Apply(binding, was) => {
            let mut parameters = PatchParams::apply(names::FIELD_MANAGER);
            if was == Was::Ours {
                parameters = parameters.force();
            }
            let name = binding.name_any();
            let applied = api.patch(&name, &parameters, &Patch::Apply(&binding)).await;
            applied.map(drop).with_context(|| format!("failed to apply the cluster role binding {name}"))
        }
    }
}

/// Looks at an administrator's home and does what is to be done there.
async fn tend(context: &Context, admin: &Admin, identity: &Identity) -> Tended {
    let (mut tended, resident) = (Tended::default(), Resident::admin(admin));
    let actions = match context.homes.look(&resident).await {
        Ok(found) => plan_home(admin, identity, &found, context.given()),
        Err(error) => {
            tended.failed = Some((None, error));
            return tended;
        }
    };
    match actions {
        Err(reason) => tended.refused = Some(reason.to_string()),
        Ok(actions) => {
            for action in actions {
                if let Err(error) = act(context, &resident, identity, action).await {
                    tended.failed = Some((Some(action.kind()), error));
                    break;
                }
                tended.done.push(action.kind());
            }
        }
    }
    tended
}

async fn act(context: &Context, resident: &Resident, identity: &Identity, action: HomeAction) -> Result<()> {
    match action {
        HomeAction::Make => context.homes.make(resident).await.map(drop),
        HomeAction::Certify => {
            let files = Files { kubeconfig: Some(context.certify(identity).await?), password: None };
            context.homes.work(resident, files).await.map(drop)
        }
    }
}
