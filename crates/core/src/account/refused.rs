//! What is left alone although it is not as it should be, and why, in sentences for operators.

use super::state::Foreign;
use crate::{ToolName, names};

/// Something that is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The tool, where it is about one.
    pub tool: Option<ToolName>,
    /// Why.
    pub reason: Reason,
}

/// Why something is left alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The namespace was made by somebody else.
    #[error(
        "the namespace {0} exists without the label {label}={manager}: it is left alone; delete it, or label it if it is the tool's",
        label = names::label::MANAGED_BY,
        manager = names::FIELD_MANAGER
    )]
    ForeignNamespace(String),
    /// The namespace belongs to another incarnation of the tool.
    #[error(
        "the namespace {namespace} is of user number {found}, the directory says {expected}: it is left alone; delete it if it is that of an earlier tool of the name"
    )]
    OtherUid {
        /// The namespace.
        namespace: String,
        /// What the annotation says.
        found: String,
        /// What the directory says.
        expected: u32,
    },
    /// The user number is not one that tools may have.
    #[error("the user number {uid} is not between {first} and {last}, see tools.first_uid and tools.last_uid")]
    UidOutOfRange {
        /// The number.
        uid: u32,
        /// The lowest that is allowed.
        first: u32,
        /// The highest that is allowed.
        last: u32,
    },
    /// The home is not the tool's.
    #[error("the home {path} is {what}: it is left alone, and gets no credentials; move it away or correct its owner")]
    ForeignHome {
        /// Where it is.
        path: String,
        /// What it is instead.
        what: String,
    },
    /// A file in the home cannot be used.
    #[error("the file {path} is left alone: {problem}; move it away to get a new one")]
    UnusableFile {
        /// Where it is.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Too many tools are gone or disabled at once.
    #[error(
        "{wanted} of {total} tools are to be deleted or disabled, at most {allowed} may be in one pass: none is; if this is meant, raise tools.deletion_share_percent"
    )]
    TooManyRemovals {
        /// How many would be deleted or disabled.
        wanted: usize,
        /// How many may be.
        allowed: usize,
        /// How many tools have a namespace.
        total: usize,
    },
    /// Too many people are to be administrators no longer.
    #[error(
        "{wanted} of {total} administrators are to lose their rights, at most five may at once: none does; if this is meant, delete their cluster role bindings"
    )]
    TooManyAdmins {
        /// How many would lose them.
        wanted: usize,
        /// How many there are.
        total: usize,
    },
    /// The directory has no tools at all.
    #[error("the directory lists no tool at all, while {0} have a namespace: none is deleted")]
    EmptyDirectory(usize),
}

// === impl Reason ===

impl Reason {
    /// Something stands in the place of a home of this user.
    pub(super) fn foreign_home(path: String, foreign: &Foreign, uid: u32) -> Self {
        let what = match foreign {
            Foreign::NotADirectory => "not a directory".to_owned(),
            Foreign::OwnedBy(other) => format!("owned by user number {other}, not {uid}"),
        };
        Self::ForeignHome { path, what }
    }
}
