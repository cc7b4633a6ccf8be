//! From changes of objects to tables.
//!
//! The index keeps the facts of every tool and one table. A change that alters a fact rebuilds the sub-table of that
//! tool only; one that alters nothing (a new resourceVersion, a status) is noticed and costs a comparison.
//!
//! The facts rest as bytes (module `record`), in which they take a tenth of the memory that they do as values; the same
//! bytes are what the proxy keeps on disk. One tool's are read when an object of it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::facts::{Entry, Kind};
use super::known::Known;
use super::record;
use super::table::{Served, Table};
use crate::ToolName;

/// A change of what is known of the cluster.
#[derive(Clone, Debug)]
pub enum Change {
    /// An object is now so.
    Set(Entry),
    /// An object is gone, or does not concern the front door any more.
    Remove(Kind, ToolName, String),
    /// These are all the objects of a kind.
    Replace(Kind, Vec<Entry>),
    /// A list of all objects of a kind begins; they follow as [`Change::Set`]. Nothing is different yet.
    ListBegins(Kind),
    /// The list was complete: what it did not show is gone. One that was not is followed by another that begins.
    ListEnds(Kind),
}

/// Everything that is known, and the table that follows from it.
#[derive(Clone, Debug)]
pub struct Index {
    tools: BTreeMap<ToolName, Box<[u8]>>,
    table: Table,
    /// The tools of which something is different since [`Index::take_changed`].
    changed: BTreeSet<ToolName>,
}

impl Index {
    /// An index that knows nothing.
    pub fn new(served: impl Into<Served>) -> Self {
        Self { tools: BTreeMap::new(), table: Table::empty(served), changed: BTreeSet::new() }
    }

    /// Takes a change. Returns whether anything is different now.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Set(entry) => self.alter(&entry.tool.clone(), |known| known.set(entry)),
            Change::Remove(kind, tool, name) => {
                self.tools.contains_key(&tool) && self.alter(&tool, |known| known.remove(kind, &name))
            }
            Change::Replace(kind, entries) => {
                self.apply(Change::ListBegins(kind));
                let of_kind = entries.into_iter().filter(|entry| entry.fact.kind() == kind);
                let changed = of_kind.fold(false, |changed, entry| self.apply(Change::Set(entry)) | changed);
                self.apply(Change::ListEnds(kind)) | changed
            }
            Change::ListBegins(kind) => {
                for (tool, facts) in &mut self.tools {
                    let mut known = read(tool, facts);
                    known.doubt(kind);
                    *facts = record::write(tool, &known);
                }
                false
            }
            Change::ListEnds(kind) => {
                let doubted =
                    |tool: &ToolName, facts: &[u8]| read(tool, facts).unseen.iter().any(|(of, _)| *of == kind);
                let doubted = self.tools.iter().filter(|(tool, facts)| doubted(tool, facts));
                let tools: Vec<ToolName> = doubted.map(|(tool, _)| tool.clone()).collect();
                tools.iter().fold(false, |changed, tool| self.alter(tool, |known| known.forget_unseen(kind)) | changed)
            }
        }
    }

    /// The table as it is now. It does not change any more.
    pub fn table(&self) -> Arc<Table> {
        Arc::new(self.table.clone())
    }

    /// Everything that is known.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.tools.iter().flat_map(|(tool, facts)| read(tool, facts).into_entries(tool.clone()))
    }

    /// The tools of which something has changed since this was asked last.
    pub fn take_changed(&mut self) -> BTreeSet<ToolName> {
        std::mem::take(&mut self.changed)
    }

    /// All that is known of a tool as it is kept on disk; of one of which nothing is, a record that says so.
    pub fn record(&self, tool: &ToolName) -> Vec<u8> {
        record::of_tool(tool, self.tools.get(tool).map_or(&[], Box::as_ref))
    }

    /// The first tools after this one, in their order.
    pub fn tools_after(&self, last: Option<&ToolName>) -> impl Iterator<Item = &ToolName> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.tools.range::<ToolName, _>((from, Bound::Unbounded)).map(|(tool, _)| tool)
    }

    /// Takes records as [`Index::record`] makes them, of which a later one of a tool replaces an earlier one. One that
    /// cannot be read ends it. Returns how many were taken.
    pub fn restore(&mut self, records: impl Iterator<Item = Vec<u8>>) -> usize {
        let mut touched = BTreeSet::new();
        let mut taken = 0;
        for bytes in records {
            let Some((tool, known)) = record::read_of_tool(&bytes) else { break };
            taken += 1;
            if known.is_empty() {
                self.tools.remove(&tool);
            } else {
                let facts = record::write(&tool, &known);
                self.tools.insert(tool.clone(), facts);
            }
            touched.insert(tool);
        }
        for tool in touched {
            self.rebuild(&tool);
        }
        taken
    }

    /// Changes what is known of a tool, and the table where that is different afterwards.
    fn alter(&mut self, tool: &ToolName, change: impl FnOnce(&mut Known) -> bool) -> bool {
        // The name that is there already is kept, so that all parts of a tool share one.
        let own = self.tools.get_key_value(tool).map(|(own, _)| own.clone());
        let tool = own.as_ref().unwrap_or(tool);
        let mut known = self.tools.get(tool).map(|facts| read(tool, facts)).unwrap_or_default();
        let doubts = known.unseen.len();
        let changed = change(&mut known);
        if !changed && known.unseen.len() == doubts {
            return false;
        }
        if known.is_empty() {
            self.tools.remove(tool);
        } else {
            self.tools.insert(tool.clone(), record::write(tool, &known));
        }
        if changed {
            self.put(tool, &known);
            self.changed.insert(tool.clone());
        }
        changed
    }

    fn rebuild(&mut self, tool: &ToolName) {
        let known = self.tools.get(tool).map(|facts| read(tool, facts)).unwrap_or_default();
        self.put(tool, &known);
    }

    fn put(&mut self, tool: &ToolName, known: &Known) {
        let (routes, fallback) = known.routes(tool, self.table.served());
        self.table.put(tool, routes, fallback);
    }
}

/// What [`record::write`] wrote a moment ago.
fn read(tool: &ToolName, facts: &[u8]) -> Known {
    record::read(tool, facts).unwrap_or_default()
}
