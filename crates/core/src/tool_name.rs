//! The name of a tool: one type, one parser.
//!
//! A name appears in a namespace, a host, a unix account, a path and a certificate, so nothing
//! else in Hearth decides what a tool name is. Names that exist are accepted as the original
//! maintain-kubeusers accepts them; names to be created must also satisfy the stricter rule of
//! the account pages, and must not be reserved.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::shown::shown;
use serde::{Deserialize, Serialize};

/// Longest name that is accepted, so that `tool-<name>` and names derived from it stay labels.
pub const LONGEST: usize = 53;

/// Longest name that may be created: a unix account is `tools.<name>`.
pub const LONGEST_NEW: usize = 32;

/// Names that no tool may take, because a browser, a mail client or the platform gives them a meaning.
pub const RESERVED: &[&str] = &[
    "admin",
    "api",
    "autoconfig",
    "autodiscover",
    "cdn",
    "dns",
    "ftp",
    "git",
    "hearth",
    "imap",
    "k8s",
    "kubernetes",
    "ldap",
    "localhost",
    "login",
    "mail",
    "mta-sts",
    "ns",
    "pop",
    "proxy",
    "registry",
    "root",
    "smtp",
    "ssh",
    "static",
    "status",
    "tool",
    "tools",
    "webmail",
    "wpad",
    "www",
];

/// A tool's name, of which a copy costs nothing: lower-case letters, digits and inner hyphens, 1 to 53 of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ToolName(Arc<str>);

/// Why a text is not the name of a tool, or not one that may be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text has no characters.
    #[error("a tool name needs at least one character")]
    Empty,
    /// The text is longer than the rule allows.
    #[error("the tool name '{}' has {} characters; at most {longest} are allowed", shown(name), name.chars().count())]
    TooLong {
        /// The text.
        name: String,
        /// How many characters are allowed.
        longest: usize,
    },
    /// A character other than a lower-case letter, a digit or an inner hyphen.
    #[error(
        "'{}' is not a tool name: only lower-case letters, digits and hyphens are allowed, and it starts and ends with a letter or digit",
        shown(name)
    )]
    Characters {
        /// The text.
        name: String,
    },
    /// A new name must start with a letter.
    #[error("the tool name '{}' must start with a letter", shown(name))]
    FirstCharacter {
        /// The text.
        name: String,
    },
    /// The name is kept for the platform or has a meaning to other programs.
    #[error("the tool name '{name}' is reserved; choose another")]
    Reserved {
        /// The text.
        name: String,
    },
}

impl ToolName {
    /// Parses a name for a tool that is to be created: the rule of [`FromStr`], and 32 characters at most,
    /// a letter first, not reserved here nor in `also_reserved`, not punycode (`xn--`).
    pub fn for_creation(text: &str, also_reserved: &[String]) -> Result<Self, NameError> {
        let name: Self = text.parse()?;
        if text.len() > LONGEST_NEW {
            return Err(NameError::TooLong { name: text.to_owned(), longest: LONGEST_NEW });
        }
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return Err(NameError::FirstCharacter { name: text.to_owned() });
        }
        let reserved = RESERVED.contains(&text) || also_reserved.iter().any(|r| r == text);
        if reserved || text.starts_with("xn--") {
            return Err(NameError::Reserved { name: text.to_owned() });
        }
        Ok(name)
    }

    /// The tool of a namespace, where the namespace is a tool's: `tool-wikibot` gives `wikibot`.
    pub fn of_namespace(namespace: &str) -> Option<Self> {
        namespace.strip_prefix("tool-")?.parse().ok()
    }

    /// The tool's namespace, `tool-<name>`.
    pub fn namespace(&self) -> String {
        format!("tool-{}", self.0)
    }

    /// The tool's unix and directory account in a project, `tools.<name>`.
    pub fn account(&self, project: &str) -> String {
        format!("{project}.{}", self.0)
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl ToolName ===

impl FromStr for ToolName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > LONGEST {
            return Err(NameError::TooLong { name: text.to_owned(), longest: LONGEST });
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !text.bytes().all(allowed) || text.starts_with('-') || text.ends_with('-') {
            return Err(NameError::Characters { name: text.to_owned() });
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for ToolName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ToolName> for String {
    fn from(name: ToolName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for ToolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(), &str>) {
        let parsed = ToolName::for_creation(text, &["operators-own".to_owned()]).map(|_| ());
        assert_eq!(parsed.map_err(|e| e.to_string()), expected.map_err(str::to_owned), "{text:?}");
    }

    #[test]
    fn names_for_creation() {
        check("wikibot", Ok(()));
        check("a", Ok(()));
        check("a-1-b", Ok(()));
        check("", Err("a tool name needs at least one character"));
        check("1st", Err("the tool name '1st' must start with a letter"));
        check("www", Err("the tool name 'www' is reserved; choose another"));
        check("operators-own", Err("the tool name 'operators-own' is reserved; choose another"));
        check("xn--bcher-kva", Err("the tool name 'xn--bcher-kva' is reserved; choose another"));
        let rule =
            "only lower-case letters, digits and hyphens are allowed, and it starts and ends with a letter or digit";
        for bad in ["Wiki", "wiki_bot", "-a", "a-", "a.b", "a/b", "é", "a b", "a\n"] {
            let shown = bad.replace('\n', "\\n");
            check(bad, Err(&format!("'{shown}' is not a tool name: {rule}")));
        }
        let long = "a".repeat(33);
        check(&long, Err(&format!("the tool name '{long}' has 33 characters; at most 32 are allowed")));
    }

    #[test]
    fn existing_names_are_accepted_more_widely() {
        assert!("1st".parse::<ToolName>().is_ok());
        assert!("a".repeat(53).parse::<ToolName>().is_ok());
        assert!("a".repeat(54).parse::<ToolName>().is_err());
        assert_eq!(ToolName::of_namespace("tool-wikibot").map(|t| t.namespace()), Some("tool-wikibot".to_owned()));
        assert_eq!(ToolName::of_namespace("kube-system"), None);
        assert_eq!(ToolName::of_namespace("tool-"), None);
    }
}
