//! From LDAP entries to tools and people.
//!
//! The directory is written by people and by other programs, so nothing in it is taken on trust: an entry
//! that cannot be used is reported with its name and the reason, and is never passed over in silence (the
//! original skipped such tools, and nobody knew why they had no account). What is decided here:
//!
//! - [`dn`]: distinguished names, as far as "who is this member" needs them;
//! - [`time`]: generalised time, as the directory writes moments;
//! - [`admins`]: who the administrators are;
//! - [`snapshot`]: entries to [`Snapshot`], and a single entry to a [`Person`];
//! - [`person_name`], [`ssh_key`]: what a person may be called, and which keys may open the account.
//!
//! It never speaks LDAP (`hearth-directory` does) and never decides what becomes of a tool (`account` does).

pub mod admins;
pub mod dn;
pub mod person_name;
pub mod snapshot;
pub mod ssh_key;
pub mod time;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use self::person_name::PersonName;
use crate::ToolName;
use crate::shown::shown;

/// One entry as the server gave it: attribute names in lower case and without options, values as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The distinguished name, as the server wrote it.
    pub dn: String,
    /// Attribute name, in lower case, to its values.
    pub attributes: BTreeMap<String, Vec<String>>,
}

/// A tool, as the directory has it. Its group number is its user number, and its home is the configured
/// root and its name: entries that say otherwise are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The name, without the project's prefix.
    pub name: ToolName,
    /// The user and group number.
    pub uid: u32,
    /// Account names of the people, or of other tools, who may act as the tool.
    pub maintainers: BTreeSet<String>,
    /// Whether the tool may run anything.
    pub state: ToolState,
}

/// Whether a tool may run anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolState {
    /// It may.
    Active,
    /// It may not; it is kept for the days of grace from `since` on and is then deleted.
    Disabled {
        /// When it was disabled. The year 0 (`000001010000Z`) is the original's way to write "delete it now".
        since: jiff::Timestamp,
    },
}

impl ToolState {
    /// Whether a tool in this state can be brought back no longer: it is disabled for more than its days of grace.
    pub fn is_over(&self, grace_days: u32, now: Timestamp) -> bool {
        let grace = SignedDuration::from_hours(24).saturating_mul(i32::try_from(grace_days).unwrap_or(i32::MAX));
        match self {
            Self::Active => false,
            Self::Disabled { since } => since.duration_until(now) > grace,
        }
    }
}

/// A person who looks after the platform, as the directory has it. The home is the configured parent and the name:
/// entries that say otherwise are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admin {
    /// The account's name.
    pub name: PersonName,
    /// The user number.
    pub uid: u32,
    /// The number of the person's first group.
    pub gid: u32,
}

/// Everything that the platform needs to know of the directory, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The tools, by name.
    pub tools: BTreeMap<ToolName, Tool>,
    /// The platform's administrators, by name.
    pub admins: BTreeMap<PersonName, Admin>,
    /// What could not be used, and why.
    pub refused: Vec<Refused>,
    /// User numbers of accounts that could not be used, and perhaps of some that are gone: no tool may have them.
    pub unusable_uids: BTreeSet<u32>,
}

/// An entry, or a part of one, that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The entry's distinguished name, as the server wrote it.
    pub dn: String,
    /// The tool that the entry stands for, where that much is clear. Such a tool exists, whether or not it is
    /// among [`Snapshot::tools`]: it must never be taken for one that was deleted.
    pub tool: Option<ToolName>,
    /// Why.
    pub reason: Refusal,
}

/// A person, as the directory has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The account's name.
    pub name: String,
    /// The user number.
    pub uid: u32,
    /// The number of the person's first group.
    pub gid: u32,
    /// The home directory on the bastion.
    pub home: String,
    /// The name to show.
    pub full_name: String,
    /// Public keys with which the person logs in, in OpenSSH's one-line format.
    pub ssh_keys: Vec<String>,
}

/// Why an entry could not be used. Each message finishes "the entry cannot be used: …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An attribute that is needed is not there.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// An attribute that must have one value has several.
    #[error("it has {count} values of {attribute}, where one is needed")]
    Several {
        /// The attribute.
        attribute: &'static str,
        /// How many there are.
        count: usize,
    },
    /// An attribute's value is not what the attribute is for.
    #[error("its {attribute} '{}' {problem}", shown(value))]
    Value {
        /// The attribute.
        attribute: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it, as the rest of the sentence.
        problem: String,
    },
    /// The name is not the name of a tool.
    #[error("{0}")]
    Name(#[from] crate::tool_name::NameError),
    /// Several tools have the same number, so none of them may be trusted to own files with it.
    #[error("its uidNumber {uid} is also that of {}", shown(others))]
    SharedUid {
        /// The number.
        uid: u32,
        /// The other entries' names, separated by commas.
        others: String,
    },
    /// Two entries describe the same tool.
    #[error("the entry {} describes the same tool", shown(_0))]
    Twice(String),
    /// There is no group beside the account.
    #[error("its group {} does not exist, so nobody could be its maintainer", shown(_0))]
    NoGroup(String),
    /// There is no account beside the group.
    #[error("its account {} does not exist", shown(_0))]
    NoAccount(String),
}
