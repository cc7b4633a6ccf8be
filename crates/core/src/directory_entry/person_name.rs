//! The name of a person's account.
//!
//! A person is a unix account on the bastion, so a name that a machine already has for itself must never be
//! given to anyone: whoever may put a key on `root` is root.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::shown::shown;

/// The longest name, as `useradd` has it.
pub const LONGEST: usize = 32;

/// Accounts that a Debian machine, or the platform, has for itself; `systemd-…` and `_…` besides.
const RESERVED: &[&str] = &[
    "admin",
    "backup",
    "bin",
    "daemon",
    "dbus",
    "games",
    "gnats",
    "hearth",
    "irc",
    "list",
    "lp",
    "mail",
    "man",
    "messagebus",
    "munge",
    "news",
    "nobody",
    "nslcd",
    "openldap",
    "operator",
    "polkitd",
    "postfix",
    "prometheus",
    "proxy",
    "reader",
    "root",
    "sgeadmin",
    "sshd",
    "sssd",
    "sync",
    "sys",
    "syslog",
    "tools",
    "uucp",
    "www-data",
];

/// A person's account name, checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PersonName(String);

/// Why a text is not a name that a person may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PersonNameError {
    /// It breaks the rule for names.
    #[error(
        "'{}' is not the name of a person: a name has 1 to {LONGEST} lower-case letters, digits, hyphens and underscores, and starts with a letter",
        shown(_0)
    )]
    Rule(String),
    /// It belongs to the system.
    #[error("the name '{0}' is reserved for the system; choose another")]
    Reserved(String),
}

impl PersonName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl PersonName ===

impl FromStr for PersonName {
    type Err = PersonNameError;

    fn from_str(text: &str) -> Result<Self, PersonNameError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase());
        if text.len() > LONGEST || !starts_well || !text.bytes().all(allowed) {
            return Err(PersonNameError::Rule(text.to_owned()));
        }
        if RESERVED.contains(&text) || text.starts_with("systemd-") {
            return Err(PersonNameError::Reserved(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for PersonName {
    type Error = PersonNameError;

    fn try_from(text: String) -> Result<Self, PersonNameError> {
        text.parse()
    }
}

impl From<PersonName> for String {
    fn from(name: PersonName) -> Self {
        name.0
    }
}

impl fmt::Display for PersonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_people() {
        for good in ["member1", "a", "jane-doe", "j_d"] {
            assert_eq!(good.parse::<PersonName>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
        let long = "a".repeat(33);
        for bad in ["", "1a", "-a", "_apt", "Jane", "tools.wikibot", "a b", "a,b", "é", "a\n", &long] {
            assert_eq!(bad.parse::<PersonName>(), Err(PersonNameError::Rule(bad.to_owned())));
        }
        for taken in ["root", "www-data", "systemd-network"] {
            assert_eq!(taken.parse::<PersonName>(), Err(PersonNameError::Reserved(taken.to_owned())));
        }
    }
}
