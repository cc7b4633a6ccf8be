//! Whose a certificate, a kubeconfig and a home are: a tool's, or an administrator's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::directory_entry::person_name::PersonName;
use crate::{ToolName, names};

/// A tool or an administrator. As text it is the common name of the owner's certificates, and the user to Kubernetes:
/// `tool:<name>` or `admin:<name>`. The prefix keeps the two apart: the original put both in one space of names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Owner {
    /// A tool.
    Tool(ToolName),
    /// A person who looks after the platform.
    Admin(PersonName),
}

/// A text that is no owner's common name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "its common name '{}' is neither 'tool:' and the name of a tool nor 'admin:' and the name of a person",
    crate::shown::shown(_0)
)]
pub struct OwnerError(pub String);

impl Owner {
    /// The name alone.
    pub fn name(&self) -> &str {
        match self {
            Self::Tool(tool) => tool.as_str(),
            Self::Admin(person) => person.as_str(),
        }
    }

    /// The group of all owners of the kind, the first organisation of their certificates.
    pub fn group(&self) -> &'static str {
        match self {
            Self::Tool(_) => names::TOOLS_GROUP,
            Self::Admin(_) => names::ADMINS_GROUP,
        }
    }

    /// The namespace in which the owner works where no other is named.
    pub fn namespace(&self) -> String {
        match self {
            Self::Tool(tool) => tool.namespace(),
            Self::Admin(_) => "default".to_owned(),
        }
    }

    /// The folder in the home where certificate and key lie as files of their own, where the original has them.
    pub fn certificate_folder(&self) -> &'static str {
        match self {
            Self::Tool(_) => ".toolskube",
            Self::Admin(_) => ".admkube",
        }
    }
}

// === impl Owner ===

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tool(tool) => write!(f, "tool:{tool}"),
            Self::Admin(person) => write!(f, "admin:{person}"),
        }
    }
}

impl FromStr for Owner {
    type Err = OwnerError;

    fn from_str(text: &str) -> Result<Self, OwnerError> {
        let owner = match text.split_once(':') {
            Some(("tool", name)) => name.parse().ok().map(Self::Tool),
            Some(("admin", name)) => name.parse().ok().map(Self::Admin),
            _ => None,
        };
        owner.ok_or_else(|| OwnerError(text.to_owned()))
    }
}

impl From<ToolName> for Owner {
    fn from(tool: ToolName) -> Self {
        Self::Tool(tool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_reads_back_and_nothing_else_is_one() {
        for text in ["tool:wikibot", "admin:jane_d"] {
            assert_eq!(text.parse::<Owner>().map(|owner| owner.to_string()), Ok(text.to_owned()));
        }
        for bad in ["", "wikibot", "tool:", "tool:a_b", "admin:", "admin:root", "admin:Jane", "admin:tool:a", "TOOL:a"]
        {
            assert_eq!(bad.parse::<Owner>(), Err(OwnerError(bad.to_owned())));
        }
    }
}
