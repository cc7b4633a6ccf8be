//! Who may pull and push what in the platform's registry.
//!
//! Anyone may pull. A tool may push below `tool-<name>/`, the platform below `hearth/`; repositories are compared by
//! whole segments. A disabled tool may not push. Nobody may delete: an image that is gone from under a running tool
//! cannot be brought back.
//!
//! Who someone is has been decided before, by a password; that is not done here.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::ToolName;
use crate::image::Repository;
use crate::names::annotation;

/// The `iss` of every token.
pub const ISSUER: &str = "hearth";

/// The user that pushes the platform's own images.
pub const PLATFORM_USER: &str = "platform";

/// Where the platform's own images are.
const PLATFORM_REPOSITORIES: &str = "hearth";

/// A registry's name for repositories alone, so that they can be compared; no such host can exist.
const ANY_REGISTRY: &str = "registry.invalid";

/// A user's name, as it stands before the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// `tool-<name>`.
    Tool(ToolName),
    /// `platform`.
    Platform,
}

/// Who asks, once the password was found to be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// No user was named.
    Anonymous,
    /// A tool.
    Tool {
        /// Its name.
        name: ToolName,
        /// Whether it is disabled.
        disabled: bool,
    },
    /// The platform itself.
    Platform,
}

/// What the registry knows of a tool: what `accounts` wrote on its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The SHA-256 of its password.
    pub credential: [u8; 32],
    /// Whether it is disabled.
    pub disabled: bool,
}

/// What is asked for: `repository:<name>:<actions>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    kind: String,
    name: String,
    actions: Vec<String>,
}

/// What is granted, as a token's `access` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Access {
    /// `repository`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The repository.
    pub name: String,
    /// What may be done, in the order in which it was asked for; never empty.
    pub actions: Vec<Action>,
}

/// What can be done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Read.
    Pull,
    /// Write.
    Push,
}

/// The text is not a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a scope: write repository:NAME:pull,push")]
pub struct ScopeError(String);

/// The text is not the name of a user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a user of the registry: users are tool-NAME, with the password in the tool's ~/.docker/config.json"
)]
pub struct UserError(String);

/// What of a scope is granted; none where nothing is.
pub fn grant(identity: &Identity, scope: &Scope) -> Option<Access> {
    if scope.kind != "repository" {
        return None;
    }
    let repository = Repository::prefix(&format!("{ANY_REGISTRY}/{}", scope.name)).ok()?;
    let own = match identity {
        Identity::Tool { name, disabled: false } => Some(name.namespace()),
        Identity::Platform => Some(PLATFORM_REPOSITORIES.to_owned()),
        Identity::Anonymous | Identity::Tool { disabled: true, .. } => None,
    };
    let own = own.and_then(|own| Repository::prefix(&format!("{ANY_REGISTRY}/{own}")).ok());
    let may_push = own.is_some_and(|own| repository.is_within(&own) && repository != own);
    let mut actions = Vec::new();
    for action in &scope.actions {
        let granted = match action.as_str() {
            "pull" => Some(Action::Pull),
            "push" => may_push.then_some(Action::Push),
            _ => None,
        };
        actions.extend(granted.filter(|action| !actions.contains(action)));
    }
    (!actions.is_empty()).then(|| Access { kind: scope.kind.clone(), name: scope.name.clone(), actions })
}

impl Account {
    /// Reads an account from the annotations of a tool's namespace. None while it has no password, or an unusable one.
    pub fn of_annotations(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let credential = digest(annotations.get(annotation::REGISTRY_CREDENTIAL)?)?;
        // Whatever is not said to be active may not push.
        let disabled = annotations.get(annotation::STATE).is_none_or(|state| state != "active");
        Some(Self { credential, disabled })
    }
}

/// A SHA-256 that is written in hexadecimal.
pub fn digest(hex: &str) -> Option<[u8; 32]> {
    let hex = hex.trim();
    let mut digest = [0; 32];
    if hex.len() != 2 * digest.len() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..hex.len()).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(digest)
}

impl Scope {
    /// Whether a grant gives all that this scope asks for.
    pub fn is_all(&self, access: &Access) -> bool {
        let given = |asked: &String| access.actions.iter().any(|action| action.as_str() == asked);
        self.name == access.name && self.actions.iter().all(given)
    }
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
        }
    }
}

// === impl FromStr and Display ===

impl FromStr for User {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        if text == PLATFORM_USER {
            return Ok(Self::Platform);
        }
        ToolName::of_namespace(text).map(Self::Tool).ok_or_else(|| UserError(text.to_owned()))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => Ok(()),
            Self::Tool { name, .. } => f.write_str(&name.namespace()),
            Self::Platform => f.write_str(PLATFORM_USER),
        }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    /// Parses a scope. The actions stand behind the last colon, because a name may hold a host and its port.
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let error = || ScopeError(text.to_owned());
        let (kind, rest) = text.split_once(':').ok_or_else(error)?;
        let (name, actions) = rest.rsplit_once(':').ok_or_else(error)?;
        if kind.is_empty() || name.is_empty() {
            return Err(error());
        }
        let actions = actions.split(',').filter(|action| !action.is_empty()).map(str::to_owned).collect();
        Ok(Self { kind: kind.to_owned(), name: name.to_owned(), actions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(user: &str, scope: &str) -> String {
        let name = || "wikibot".parse().unwrap();
        let identity = match user {
            "" => Identity::Anonymous,
            "wikibot" => Identity::Tool { name: name(), disabled: false },
            "disabled" => Identity::Tool { name: name(), disabled: true },
            _ => Identity::Platform,
        };
        match grant(&identity, &scope.parse().unwrap()) {
            Some(access) => serde_json::to_string(&access.actions).unwrap().replace('"', ""),
            None => String::new(),
        }
    }

    #[test]
    fn who_may_do_what() {
        let table = [
            ("", "repository:hearth/static:pull", "[pull]"),
            ("", "repository:tool-wikibot/app:pull,push", "[pull]"),
            ("", "repository:hearth/static:push", ""),
            ("wikibot", "repository:tool-wikibot/app:pull,push", "[pull,push]"),
            ("wikibot", "repository:tool-wikibot/a/b:push,pull,push", "[push,pull]"),
            ("wikibot", "repository:tool-wikibot/app:delete", ""),
            ("wikibot", "repository:tool-wikibot/app:*", ""),
            ("wikibot", "repository:tool-wikibot:push", ""),
            ("wikibot", "repository:tool-wikibot-two/app:push", ""),
            ("wikibot", "repository:tool-wikibo/app:push", ""),
            ("wikibot", "repository:tool-other/app:pull,push", "[pull]"),
            ("wikibot", "repository:hearth/static:pull,push", "[pull]"),
            ("wikibot", "repository:tool-wikibot/../tool-other/app:push", ""),
            ("wikibot", "repository:tool-wikibot//app:push", ""),
            ("wikibot", "repository:/tool-wikibot/app:push", ""),
            ("wikibot", "repository:TOOL-wikibot/app:pull,push", ""),
            ("wikibot", "repository:tool-wikibot/app@x:push", ""),
            ("wikibot", "registry:catalog:*", ""),
            ("wikibot", "repository(plugin):tool-wikibot/app:push", ""),
            ("wikibot", "repository:tool-wikibot/app:", ""),
            ("disabled", "repository:tool-wikibot/app:pull,push", "[pull]"),
            ("platform", "repository:hearth/hearthd:pull,push", "[pull,push]"),
            ("platform", "repository:hearth-evil/x:push", ""),
            ("platform", "repository:tool-wikibot/app:pull,push", "[pull]"),
        ];
        for (user, scope, expected) in table {
            assert_eq!(granted(user, scope), expected, "{user:?} asks for {scope}");
        }
    }

    #[test]
    fn scopes_and_users_are_parsed_whole() {
        let scope: Scope = "repository:r.example:443/a:pull".parse().unwrap();
        assert_eq!((scope.name.as_str(), scope.actions), ("r.example:443/a", vec!["pull".to_owned()]));
        for bad in ["", "repository", "repository:", "repository::pull", ":a:pull", "repository:a"] {
            let expected = format!("'{bad}' is not a scope: write repository:NAME:pull,push");
            assert_eq!(bad.parse::<Scope>().unwrap_err().to_string(), expected);
        }
        assert_eq!("platform".parse(), Ok(User::Platform));
        assert_eq!("tool-wikibot".parse(), Ok(User::Tool("wikibot".parse().unwrap())));
        for bad in ["", "wikibot", "tool-", "tool-Wiki", "Platform"] {
            let error = bad.parse::<User>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("'{bad}' is not a user of the registry: users are tool-NAME")),
                "{error}"
            );
        }
    }

    #[test]
    fn accounts_come_from_annotations() {
        let hex = "0f".repeat(32);
        let account = |pairs: &[(&str, &str)]| {
            Account::of_annotations(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        let credential = (annotation::REGISTRY_CREDENTIAL, hex.as_str());
        let active = account(&[credential, (annotation::STATE, "active")]).unwrap();
        assert_eq!(active, Account { credential: [0x0f; 32], disabled: false });
        assert!(account(&[credential, (annotation::STATE, "disabled")]).unwrap().disabled);
        assert!(account(&[credential]).unwrap().disabled);
        assert_eq!(account(&[(annotation::STATE, "active")]), None);
        for bad in ["", "0f", &"zz".repeat(32), &"é".repeat(32), &"+f".repeat(32), &hex[1..]] {
            assert_eq!(account(&[(annotation::REGISTRY_CREDENTIAL, bad)]), None, "{bad}");
        }
    }
}
