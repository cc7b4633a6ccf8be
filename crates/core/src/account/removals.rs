//! Which tools a pass removes: deletes, or takes their rights from. A directory that lies (an empty answer, half of
//! one) would remove many at once, so that a pass which would remove too many removes none.

use super::objects;
use super::plan::{Action, Given, Plan};
use super::refused::{Reason, Refused};
use super::state::{ClusterState, Corner};
use crate::directory_entry::{Snapshot, Tool, ToolState};
use crate::{ToolName, names};

/// How many tools may be deleted or disabled in one pass, however few there are.
const FEW: usize = 5;

/// Plans the deletion of tools that are gone or disabled for too long; all of them or none. Returns whether tools may be
/// disabled in this pass: those count too, so that a directory which says of all that they are disabled stops nothing.
pub(super) fn removals(desired: &Snapshot, observed: &ClusterState, given: Given<'_>, plan: &mut Plan) -> bool {
    let unclear = |tool: &ToolName| desired.refused.iter().any(|refused| refused.tool.as_ref() == Some(tool));
    let is_wanted = |tool: &ToolName| match desired.tools.get(tool) {
        Some(tool) => is_expired(tool, given),
        None => !unclear(tool),
    };
    let ours = || observed.namespaces.iter().filter(|(_, corner)| corner.is_ours());
    let wanted: Vec<_> = ours().filter(|(tool, corner)| !corner.terminating && is_wanted(tool)).collect();
    let is_disabled = |tool: &&Tool| {
        let corner = observed.namespaces.get(&tool.name).filter(|corner| !corner.terminating);
        is_to_be_disabled(tool, corner) && !is_expired(tool, given)
    };
    let removed = wanted.len() + desired.tools.values().filter(is_disabled).count();
    // With the tools that this very pass makes, or the next pass would count otherwise.
    let new = |tool: &&Tool| tool.state == ToolState::Active && !observed.namespaces.contains_key(&tool.name);
    let total = ours().count() + desired.tools.values().filter(new).count();
    let allowed = (total * given.platform.tools.deletion_share_percent as usize / 100).max(FEW);
    let refuse = |reason| Refused { tool: None, reason };
    if desired.tools.is_empty() && !wanted.is_empty() {
        plan.refused.push(refuse(Reason::EmptyDirectory(total)));
    } else if removed > allowed {
        plan.refused.push(refuse(Reason::TooManyRemovals { wanted: removed, allowed, total }));
        return false;
    } else {
        for (tool, corner) in wanted {
            plan.tools.insert(tool.clone(), deletion(tool, desired.tools.get(tool), corner));
        }
    }
    true
}

/// Whether a pass would disable the tool: the directory says so, and it has its rights still.
pub(super) fn is_to_be_disabled(tool: &Tool, corner: Option<&Corner>) -> bool {
    // One that has lost its rights is on its way, and is brought to its end.
    tool.state != ToolState::Active && corner.is_some_and(|corner| corner.is_ours() && corner.binding.is_some())
}

/// Whether a tool is disabled for longer than the days of grace.
fn is_expired(tool: &Tool, given: Given<'_>) -> bool {
    tool.state.is_over(given.platform.tools.grace_days, given.now)
}

/// Deletes a tool. Of one that the directory still knows the home goes into the archive, once nothing can run in it any
/// more; the home of one that the directory has forgotten stays where it is: it may be a mistake, and an entry of the
/// same number brings the tool back to it.
fn deletion(name: &ToolName, tool: Option<&Tool>, corner: &Corner) -> Vec<Action> {
    let mut actions = Vec::new();
    if let Some(tool) = tool {
        if corner.binding.is_some() {
            actions.push(Action::DeleteBinding(objects::binding_name(name)));
        }
        if corner.annotation(names::annotation::STOPPED).is_none() {
            actions.push(Action::Stop);
        }
        actions.push(Action::ArchiveHome(tool.uid));
    }
    actions.push(Action::DeleteNamespace(corner.uid.clone()));
    actions
}
