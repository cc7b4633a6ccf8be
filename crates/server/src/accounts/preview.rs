//! What a pass would do now: everything is observed once, a plan is made and told, and nothing is done.

use std::fmt::Write as _;
use std::pin::pin;

use anyhow::{Context as _, Result};
use futures::{Stream, StreamExt, stream};
use hearth_core::account::plan::{Action, plan};
use hearth_core::directory_entry::{Snapshot, ToolState};

use super::admins;
use super::apply::Context;
use super::fresh::Random;
use super::homes::Resident;
use super::observe::{Observed, Seen};

/// How many homes are looked at at once.
const AT_ONCE: usize = 8;

/// Tells a line for each tool with something to do, one for each thing that is left alone, and how many there are.
pub(super) async fn preview(
    context: &Context,
    snapshots: impl Stream<Item = Result<Snapshot>> + Send,
    cluster: impl Stream<Item = Seen> + Send,
) -> Result<String> {
    let (mut snapshots, mut cluster) = (pin!(snapshots), pin!(cluster));
    let desired = snapshots.next().await.context("the directory says nothing")??;
    let mut observed = Observed::default();
    while !observed.is_complete() {
        let seen = cluster.next().await.context("the cluster says nothing")?;
        if let Seen::Failed(error) = seen {
            return Err(error).context("failed to list what the cluster has");
        }
        observed.take(seen);
    }
    let mut text = String::new();
    let active = desired.tools.values().filter(|tool| tool.state == ToolState::Active);
    let mut looks = stream::iter(active)
        .map(|tool| async move { (&tool.name, context.homes.look(&Resident::tool(&tool.name, tool.uid)).await) })
        .buffer_unordered(AT_ONCE);
    while let Some((tool, home)) = looks.next().await {
        match home {
            Ok(home) => drop(observed.state.homes.insert(tool.clone(), home)),
            Err(error) => writeln!(text, "{tool}: its home cannot be looked at: {error:#}")?,
        }
    }
    let plan = plan(&desired, &observed.state, context.given(), &mut Random);
    for (tool, actions) in &plan.tools {
        let kinds: Vec<&str> = actions.iter().map(Action::kind).collect();
        writeln!(text, "{tool}: {}", kinds.join(", "))?;
    }
    for refused in &plan.refused {
        match &refused.tool {
            Some(tool) => writeln!(text, "{tool} is left alone: {}", refused.reason)?,
            None => writeln!(text, "left alone: {}", refused.reason)?,
        }
    }
    let admins = admins::preview(context, &desired.admins).await?;
    for line in &admins.lines {
        writeln!(text, "{line}")?;
    }
    for refused in &desired.refused {
        writeln!(text, "the entry {} cannot be used: {}", refused.dn, refused.reason)?;
    }
    let (tools, people) = (desired.tools.len(), desired.admins.len());
    let to_do = plan.tools.len() + admins.to_do;
    let left = plan.refused.len() + admins.left + desired.refused.len();
    let all = format!("{tools} tools and {people} administrators");
    writeln!(text, "{all}; something is to be done for {to_do}, and {left} things are left alone")?;
    Ok(text)
}
