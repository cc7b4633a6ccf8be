//! The loop: observe, plan, apply.
//!
//! One task owns what was observed; each tool's actions run in a task of their own, a few at a time, and never two
//! for one tool. A tool that fails waits longer each time, and the others do not notice.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::mem::discriminant;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::{Stream, StreamExt};
use hearth_core::ToolName;
use hearth_core::account::plan::{Action, Refused, plan, plan_for};
use hearth_core::account::state::Home;
use hearth_core::directory_entry::{Snapshot, Tool, ToolState};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::apply::{self, Context, Outcome};
use super::events::Events;
use super::fresh::Random;
use super::homes::Resident;
use super::metrics::Metrics;
use super::observe::{Concerns, Observed, Seen};
use super::waiting::Waiting;

/// How long changes are gathered before a plan is made.
const GATHER: Duration = Duration::from_millis(50);

/// How often everything is looked at again, homes included, whatever the watches said.
const FULL_PASS: Duration = Duration::from_secs(600);

/// How often the loop turns when nothing happens.
const IDLE: Duration = Duration::from_secs(10);

/// How many tools are worked on at once, and how many homes are looked at.
const AT_ONCE: usize = 8;

/// After a success whose plan is still not empty so often, the tool waits as after a failure: something undoes
/// what we do.
const UNDONE: u32 = 5;

/// Keeps the cluster and the homes equal to the directory until `shutdown` completes. `snapshots` is the directory,
/// at first and after each change; an error in it leaves the last snapshot in force. While `leads` is false it only
/// observes, so that it can act at once when that changes.
pub(super) async fn run(
    context: Context,
    snapshots: impl Stream<Item = Result<Snapshot>> + Send,
    cluster: impl Stream<Item = Seen> + Send,
    mut leads: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let (mut snapshots, mut cluster, mut shutdown) = (pin!(snapshots), pin!(cluster.fuse()), pin!(shutdown));
    let mut controller = Controller::new(context, metrics);
    let (mut directory_open, mut election_open) = (true, true);
    controller.leads(*leads.borrow_and_update());
    loop {
        let due = controller.next_turn();
        tokio::select! {
            () = &mut shutdown => break,
            snapshot = snapshots.next(), if directory_open => match snapshot {
                Some(Ok(snapshot)) => controller.directory(snapshot),
                Some(Err(error)) => tracing::warn!(
                    error = format!("{error:#}"),
                    "the directory cannot be read; what it said last stays in force"
                ),
                None => directory_open = false,
            },
            changed = leads.changed(), if election_open => match changed {
                Ok(()) => controller.leads(*leads.borrow_and_update()),
                Err(_) => election_open = false,
            },
            Some(seen) = cluster.next() => match controller.observed.take(seen) {
                Concerns::Nothing => (),
                Concerns::Tool(tool) => controller.change(tool),
                Concerns::All => controller.change_all(),
            },
            Some(outcome) = controller.work.join_next(), if !controller.work.is_empty() => {
                controller.finished(outcome?);
            }
            Some(looked) = controller.looks.join_next(), if !controller.looks.is_empty() => {
                controller.looked(looked?);
            }
            () = tokio::time::sleep_until(due) => controller.turn(),
        }
    }
    // What has begun is finished: a certificate that was issued is also written.
    while let Some(outcome) = controller.work.join_next().await {
        controller.finished(outcome?);
    }
    Ok(())
}

struct Controller {
    context: Context,
    metrics: Arc<Metrics>,
    events: Events,
    /// Whether this copy of the role acts.
    acts: bool,
    /// Whether the last pass found nothing to do.
    is_clean: bool,
    desired: Option<Snapshot>,
    observed: Observed,
    /// When to plan, if anything changed.
    plan_at: Option<Instant>,
    full_pass_at: Instant,
    /// Tools that are to be planned for, because something about them changed.
    changed: BTreeSet<ToolName>,
    /// Whether all are.
    all_changed: bool,
    /// What the last plans leave to be begun.
    pending: BTreeMap<ToolName, Vec<Action>>,
    /// Active tools whose homes are to be looked at: those that were not yet come first.
    to_look: BTreeSet<ToolName>,
    /// Those whose homes were looked at before, and are to be looked at again.
    to_look_again: BTreeSet<ToolName>,
    /// Tools that are worked on.
    busy: BTreeSet<ToolName>,
    /// Tools whose home is looked at, and whether the tool was worked on meanwhile.
    looking: BTreeMap<ToolName, bool>,
    /// Tools whose actions failed.
    failed: Waiting<ToolName>,
    /// Tools whose home could not be looked at.
    unseen: Waiting<ToolName>,
    /// How often in a row a tool's actions were done and something was still to do.
    undone: BTreeMap<ToolName, u32>,
    refused: Vec<Refused>,
    work: JoinSet<Outcome>,
    looks: JoinSet<(ToolName, Result<Home>)>,
}

impl Controller {
    fn new(context: Context, metrics: Arc<Metrics>) -> Self {
        Self {
            events: Events::new(&context.client),
            context,
            metrics,
            acts: false,
            is_clean: false,
            desired: None,
            observed: Observed::default(),
            plan_at: None,
            full_pass_at: Instant::now() + FULL_PASS,
            changed: BTreeSet::new(),
            all_changed: true,
            pending: BTreeMap::new(),
            to_look: BTreeSet::new(),
            to_look_again: BTreeSet::new(),
            busy: BTreeSet::new(),
            looking: BTreeMap::new(),
            failed: Waiting::default(),
            unseen: Waiting::default(),
            undone: BTreeMap::new(),
            refused: Vec::new(),
            work: JoinSet::new(),
            looks: JoinSet::new(),
        }
    }

    /// Something about a tool changed.
    fn change(&mut self, tool: ToolName) {
        self.changed.insert(tool);
        self.plan_soon();
    }

    /// Something changed that may concern every tool.
    fn change_all(&mut self) {
        self.all_changed = true;
        self.plan_soon();
    }

    fn plan_soon(&mut self) {
        self.plan_at.get_or_insert_with(|| Instant::now() + GATHER);
    }

    fn directory(&mut self, snapshot: Snapshot) {
        tracing::info!(tools = snapshot.tools.len(), refused = snapshot.refused.len(), "the directory was read");
        for refused in &snapshot.refused {
            tracing::warn!(entry = refused.dn, reason = %refused.reason, "an entry of the directory cannot be used");
        }
        let old = self.desired.replace(snapshot).unwrap_or_default();
        let new = self.desired.iter().flat_map(|desired| desired.tools.values());
        let is_new = |tool: &&Tool| old.tools.get(&tool.name) != Some(*tool);
        let changed: Vec<ToolName> = new.filter(is_new).map(|tool| tool.name.clone()).collect();
        for tool in changed {
            // Disabling, above all, does not wait until an earlier failure is forgiven.
            self.forget(&tool);
            self.look_soon(&tool);
            self.change(tool);
        }
        let is_gone =
            |tool: &&ToolName| self.desired.as_ref().is_some_and(|desired| !desired.tools.contains_key(*tool));
        let gone: Vec<ToolName> = old.tools.keys().filter(is_gone).cloned().collect();
        for tool in gone {
            self.forget(&tool);
            self.observed.state.homes.remove(&tool);
            self.change(tool);
        }
        // How many may be removed depends on all.
        self.plan_soon();
    }

    /// Forgets what was tried for a tool.
    fn forget(&mut self, tool: &ToolName) {
        self.failed.forget(tool);
        self.unseen.forget(tool);
        self.undone.remove(tool);
        self.to_look.remove(tool);
        self.to_look_again.remove(tool);
    }

    /// Has a tool's home looked at. A disabled tool's plays no part.
    fn look_soon(&mut self, tool: &ToolName) {
        let known = self.desired.as_ref().and_then(|desired| desired.tools.get(tool));
        if self.acts && known.is_some_and(|tool| tool.state == ToolState::Active) {
            let is_seen = self.observed.state.homes.contains_key(tool);
            let set = if is_seen { &mut self.to_look_again } else { &mut self.to_look };
            set.insert(tool.clone());
        }
    }

    fn look_at_all_soon(&mut self) {
        let all: Vec<ToolName> = self.desired.iter().flat_map(|desired| desired.tools.keys().cloned()).collect();
        all.iter().for_each(|tool| self.look_soon(tool));
    }

    /// This copy of the role acts from now on, or another does.
    fn leads(&mut self, leads: bool) {
        self.acts = leads;
        self.metrics.leads(leads);
        self.pending.clear();
        // What another did in the homes meanwhile was not seen.
        self.observed.state.homes.clear();
        self.to_look.clear();
        self.to_look_again.clear();
        self.looking.values_mut().for_each(|disturbed| *disturbed = true);
        self.look_at_all_soon();
        self.change_all();
    }

    /// When something is to be done without an event.
    fn next_turn(&self) -> Instant {
        let idle = Instant::now() + IDLE;
        let times = [self.failed.next(), self.unseen.next(), self.plan_at, Some(self.full_pass_at)];
        times.into_iter().flatten().min().map_or(idle, |next| next.min(idle))
    }

    fn turn(&mut self) {
        self.metrics.turned();
        self.context.homes.rest();
        let now = Instant::now();
        if now >= self.full_pass_at {
            self.full_pass_at = now + FULL_PASS;
            self.look_at_all_soon();
            self.change_all();
        }
        let woken = self.unseen.wake(now);
        woken.iter().for_each(|tool| self.look_soon(tool));
        let retried = self.failed.wake(now);
        let is_woken = !woken.is_empty() || !retried.is_empty();
        self.changed.extend(retried);
        if is_woken || self.plan_at.is_some_and(|at| at <= now) {
            self.plan_at = None;
            self.pass();
        }
    }

    /// Makes a plan for what changed, and begins with it.
    fn pass(&mut self) {
        let Some(desired) = &self.desired else { return };
        if !self.acts || !self.observed.is_complete() {
            return;
        }
        let (state, given) = (&self.observed.state, self.context.given());
        let changed = std::mem::take(&mut self.changed);
        let is_whole = std::mem::take(&mut self.all_changed);
        let plan = match is_whole {
            true => plan(desired, state, given, &mut Random),
            false => plan_for(&changed, desired, state, given, &mut Random),
        };
        let was_planned_for = |tool: &ToolName| is_whole || changed.contains(tool);
        let is_done = |tool: &ToolName| was_planned_for(tool) && !plan.tools.contains_key(tool);
        self.undone.retain(|tool, _| !is_done(tool));
        self.failed.keep(|tool| !is_done(tool));
        self.pending.retain(|tool, _| !was_planned_for(tool));
        // What is held back for the number of removals is looked at again with whatever comes next.
        self.all_changed = plan.refused.iter().any(|refused| refused.tool.is_none());
        let others =
            self.refused.iter().filter(|refused| refused.tool.as_ref().is_some_and(|tool| !was_planned_for(tool)));
        let refused = others.cloned().chain(plan.refused).collect();
        self.pending.extend(plan.tools);
        self.tell(refused);
        self.begin();
    }

    /// Tells operators and maintainers what is deleted, and what is left alone from now on.
    fn tell(&mut self, refused: Vec<Refused>) {
        let is_deleted = |actions: &Vec<Action>| matches!(actions.last(), Some(Action::DeleteNamespace(_)));
        let deleted = self.pending.iter().filter(|(tool, actions)| is_deleted(actions) && !self.busy.contains(*tool));
        let deleted: Vec<&str> = deleted.map(|(tool, _)| tool.as_str()).collect();
        if !deleted.is_empty() {
            tracing::warn!(
                tools = deleted.join(", "),
                "these tools are gone or over their days of grace, and deleted now"
            );
        }
        // Said once, not again when only a number in it changed.
        let same = |a: &Refused, b: &Refused| a.tool == b.tool && discriminant(&a.reason) == discriminant(&b.reason);
        let is_new = |refused: &&Refused| !self.refused.iter().any(|known| same(known, refused));
        for refused in refused.iter().filter(is_new) {
            let tool = refused.tool.as_ref().map(ToolName::as_str);
            tracing::warn!(tool, reason = %refused.reason, "something is left alone");
            if let Some(tool) = &refused.tool
                && let Some(uid) = self.observed.uid_of_ours(tool)
            {
                self.events.warn(tool, uid, "LeftAlone", "plan", refused.reason.to_string());
            }
        }
        self.refused = refused;
        let Some(desired) = &self.desired else { return };
        let failing = self.failed.len() + self.unseen.len();
        let is_clean = self.pending.is_empty() && self.busy.is_empty() && self.refused.is_empty() && failing == 0;
        let is_clean = is_clean && self.has_looked();
        if is_clean && !self.is_clean {
            tracing::info!(tools = desired.tools.len(), "all is as it should be");
        }
        self.is_clean = is_clean;
        self.metrics.passed(desired.tools.len(), self.refused.len() + desired.refused.len(), failing, is_clean);
    }

    /// Begins what is to be done, up to the bound.
    fn begin(&mut self) {
        while self.work.len() < AT_ONCE
            && let Some((tool, actions)) = self.pending.pop_first()
        {
            if self.busy.contains(&tool) || self.failed.is_waiting(&tool) {
                // It is planned for again when that ends.
                continue;
            }
            if let Some(disturbed) = self.looking.get_mut(&tool) {
                *disturbed = true;
            }
            self.busy.insert(tool.clone());
            self.work.spawn(apply::carry_out(self.context.clone(), tool, actions));
        }
        while self.acts
            && self.looks.len() < AT_ONCE
            && let Some((tool, uid)) = self.next_look()
        {
            self.to_look.remove(&tool);
            self.to_look_again.remove(&tool);
            self.looking.insert(tool.clone(), self.busy.contains(&tool));
            let homes = self.context.homes.clone();
            self.looks.spawn(async move {
                let home = homes.look(&Resident::tool(&tool, uid)).await;
                (tool, home)
            });
        }
    }

    /// Whether every home that plays a part was looked at.
    fn has_looked(&self) -> bool {
        self.looks.is_empty() && self.to_look.is_empty() && self.to_look_again.is_empty()
    }

    /// The next home to look at.
    fn next_look(&self) -> Option<(ToolName, u32)> {
        let is_free = |tool: &&ToolName| !self.looking.contains_key(*tool) && !self.busy.contains(*tool);
        let tool = self.to_look.iter().chain(&self.to_look_again).find(is_free)?;
        Some((tool.clone(), self.desired.as_ref()?.tools.get(tool)?.uid))
    }

    fn looked(&mut self, (tool, home): (ToolName, Result<Home>)) {
        let is_disturbed = self.looking.remove(&tool).unwrap_or(false);
        match home {
            // What was seen may be from before the tool was worked on, by this copy of the role or another.
            Ok(_) if is_disturbed && (!self.acts || self.observed.state.homes.contains_key(&tool)) => (),
            Ok(home) => {
                self.unseen.forget(&tool);
                if self.observed.state.homes.insert(tool.clone(), home.clone()).as_ref() != Some(&home) {
                    self.change(tool);
                }
            }
            Err(error) => {
                let pause = self.unseen.failed(&tool);
                tracing::warn!(%tool, error = format!("{error:#}"), again_in = ?pause, "a home cannot be looked at");
            }
        }
        self.begin();
        if self.has_looked() {
            self.plan_soon();
        }
    }

    fn finished(&mut self, outcome: Outcome) {
        let Outcome { tool, done, written, home, failed } = outcome;
        self.busy.remove(&tool);
        // A plan that was made meanwhile did not know of this.
        self.pending.remove(&tool);
        for written in written {
            self.observed.wrote(&tool, written);
        }
        if let Some(home) = home {
            self.observed.state.homes.insert(tool.clone(), home);
        }
        for kind in &done {
            self.metrics.acted(kind, true);
        }
        match failed {
            None => {
                tracing::info!(%tool, done = done.join(", "), "a tool was brought up to date");
                self.failed.forget(&tool);
                let times = self.undone.entry(tool.clone()).or_insert(0);
                *times += 1;
                if *times > UNDONE {
                    let pause = self.failed.failed(&tool);
                    tracing::warn!(%tool, again_in = ?pause, "what is done for a tool does not last: who undoes it?");
                }
            }
            Some((kind, error)) => {
                self.metrics.acted(kind, false);
                if !done.is_empty() {
                    // It got further than before.
                    self.failed.forget(&tool);
                }
                let pause = self.failed.failed(&tool);
                let error = format!("{error:#}");
                tracing::warn!(%tool, action = kind, error, again_in = ?pause, "a tool could not be brought up to date");
                if let Some(uid) = self.observed.uid_of_ours(&tool) {
                    self.events.warn(&tool, uid, "UpdateFailed", kind, error);
                }
                // It may be half done.
                self.observed.state.homes.remove(&tool);
                self.look_soon(&tool);
            }
        }
        self.change(tool);
        self.begin();
    }
}
