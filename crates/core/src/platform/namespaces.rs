//! The namespaces that are no tool's: the section `[namespaces]` of `platform.toml`, and those that are built in.

use serde::{Deserialize, Serialize};

use crate::ToolName;
use crate::names::{PLATFORM_NAMESPACES, PRIVILEGED_NAMESPACES};

/// The namespaces that are no tool's, by name. Names, not labels: a label can be lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Namespaces {
    /// Where anything is allowed.
    pub privileged: Vec<String>,
    /// Where pods have no privilege but what their role is listed for.
    pub platform: Vec<String>,
}

/// How a namespace is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anything is allowed.
    Privileged,
    /// No privilege but what each role is listed for.
    Platform,
    /// As a tool's, whether it is one or not.
    Tool,
}

impl Namespaces {
    /// How a namespace is judged.
    pub fn kind(&self, name: &str) -> Kind {
        let is_in = |names: &[String]| names.iter().any(|known| known == name);
        match (is_in(&self.privileged), is_in(&self.platform)) {
            (true, _) => Kind::Privileged,
            (false, true) => Kind::Platform,
            (false, false) => Kind::Tool,
        }
    }

    /// All of them, the platform's first.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.platform.iter().chain(&self.privileged).map(String::as_str)
    }

    /// With those that are built in before those that are listed.
    pub(super) fn with_built_in(self) -> Self {
        let with = |built_in: &[&str], listed: Vec<String>| {
            built_in.iter().map(|&name| name.to_owned()).chain(listed).collect()
        };
        Self {
            privileged: with(PRIVILEGED_NAMESPACES, self.privileged),
            platform: with(PLATFORM_NAMESPACES, self.platform),
        }
    }

    /// What is wrong with the lists, a line each.
    pub(super) fn mistakes(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut seen: Vec<&str> = PRIVILEGED_NAMESPACES.iter().chain(PLATFORM_NAMESPACES).copied().collect();
        for name in self.privileged.iter().chain(&self.platform) {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if name.is_empty()
                || name.len() > 63
                || !name.bytes().all(plain)
                || name.starts_with('-')
                || name.ends_with('-')
            {
                found.push(format!("namespaces: '{name}' is not the name of a namespace"));
            } else if ToolName::of_namespace(name).is_some() {
                found.push(format!("namespaces: '{name}' is a tool's namespace, which is always judged as one"));
            }
            if seen.contains(&name.as_str()) {
                found.push(format!("namespaces: '{name}' is listed twice, or built in"));
            }
            seen.push(name);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(privileged: &[&str], platform: &[&str]) -> Namespaces {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Namespaces { privileged: owned(privileged), platform: owned(platform) }
    }

    #[test]
    fn every_other_namespace_is_a_tools() {
        let known = namespaces(&["calico-system"], &["metrics"]).with_built_in();
        for (name, kind) in [
            ("kube-system", Kind::Privileged),
            ("calico-system", Kind::Privileged),
            ("hearth-system", Kind::Platform),
            ("default", Kind::Platform),
            ("metrics", Kind::Platform),
            ("tool-a", Kind::Tool),
            ("metric", Kind::Tool),
            ("", Kind::Tool),
        ] {
            assert_eq!(known.kind(name), kind, "{name}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(namespaces(&["calico-system"], &["metrics"]).mistakes(), Vec::<String>::new());
        for (listed, part) in [
            ("tool-a", "is a tool's namespace"),
            ("Metrics", "is not the name of a namespace"),
            ("", "is not the name of a namespace"),
            ("default", "is listed twice, or built in"),
        ] {
            let found = namespaces(&[], &[listed]).mistakes();
            assert!(found.len() == 1 && found[0].contains(part), "{listed}: {found:?}");
        }
        assert_eq!(namespaces(&["a"], &["a"]).mistakes(), ["namespaces: 'a' is listed twice, or built in"]);
    }
}
