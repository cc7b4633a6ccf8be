//! The types of web services, as an operator lists them at run time.
//!
//! The list is the key `images-v1.yaml` of the `ConfigMap` `hearth-public/image-config`, which everyone with an account
//! may read. It maps a type's name to what is known of it:
//!
//! ```yaml
//! static:
//!   image: registry.hearth.internal/hearth/static   # complete, best with a digest
//!   state: stable                                   # or deprecated
//!   until: 2027-06-30                               # of a deprecated one: how long it is kept (optional)
//!   description: files from ~/public_html           # a few words for lists (optional)
//!   requires: [public_html/]                        # what must be in the home; a slash asks for a folder (optional)
//! ```
//!
//! Keys that this version does not know are left out, so that an operator may add some for a newer command.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::yaml::{self, YamlError};
use crate::image::{ImageError, ImageRef};

/// The `ConfigMap` of [`crate::names::PUBLIC_NAMESPACE`] that holds the list.
pub const CONFIG_MAP: &str = "image-config";

/// Its key that holds the list.
pub const KEY: &str = "images-v1.yaml";

/// All types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Types(BTreeMap<String, WebType>);

/// One type.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct WebType {
    image: String,
    state: Support,
    until: Option<String>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    requires: Vec<String>,
}

/// Whether a type is for new web services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Support {
    /// It is.
    Stable,
    /// It still runs, with a warning, and is not listed.
    Deprecated,
}

/// Why a type cannot be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// No such type; with the list of those that there are.
    #[error("'{name}' is not a type of web service\n{list}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is, for a person.
        list: String,
    },
    /// The operators' list is faulty.
    #[error(
        "the platform's list of images is not usable for the type '{name}': {error}; tell the platform's operators"
    )]
    Image {
        /// The type.
        name: String,
        /// What is wrong with its image.
        error: ImageError,
    },
}

impl Types {
    /// Reads the list.
    pub fn parse(text: &str) -> Result<Self, YamlError> {
        yaml::read(text).map(Self)
    }

    /// A type and its image.
    pub fn find(&self, name: &str) -> Result<(&WebType, ImageRef), TypeError> {
        let found =
            self.0.get(name).ok_or_else(|| TypeError::Unknown { name: name.to_owned(), list: self.to_string() })?;
        let image = found.image.parse().map_err(|error| TypeError::Image { name: name.to_owned(), error })?;
        Ok((found, image))
    }

    /// The names of the types that are for new web services.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, t)| t.state == Support::Stable).map(|(name, _)| name.as_str())
    }
}

impl WebType {
    /// What must be in a tool's home for this type to start: paths below it, folders with a slash at the end.
    pub fn requires(&self) -> &[String] {
        &self.requires
    }

    /// What to tell a maintainer who starts a type that is no longer for new web services.
    pub fn warning(&self, name: &str) -> Option<String> {
        let until = self.until.as_ref().map(|day| format!(" It is kept until {day}.")).unwrap_or_default();
        (self.state == Support::Deprecated).then(|| format!("DEPRECATED: '{name}' type is deprecated.{until}"))
    }
}

impl std::fmt::Display for Types {
    /// `type must be one of:` and a line for each.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("type must be one of:")?;
        let width = self.names().map(str::len).max().unwrap_or_default();
        for (name, kind) in self.0.iter().filter(|(_, t)| t.state == Support::Stable) {
            write!(f, "\n{}", format!("  * {name:width$}  {}", kind.description).trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "
static: {image: r.example/hearth/static, state: stable, description: files, requires: [public_html/]}
python3.11: {image: 'r.example/hearth/python3.11:1', state: stable, later: {than: this}}
python3.4: {image: r.example/hearth/python3.4, state: deprecated, until: 2027-06-30}
broken: {image: 'r.example/a b', state: deprecated}
";

    #[test]
    fn types_are_found_and_listed() {
        let types = Types::parse(LIST).unwrap();
        let (found, image) = types.find("static").unwrap();
        assert_eq!(image.to_string(), "r.example/hearth/static");
        assert_eq!(found.requires(), ["public_html/"]);
        assert_eq!(found.warning("static"), None);
        assert_eq!(types.to_string(), "type must be one of:\n  * python3.11\n  * static      files");
        assert!(
            types.find("php").unwrap_err().to_string().starts_with("'php' is not a type of web service\ntype must")
        );
        assert!(types.find("broken").unwrap_err().to_string().ends_with("tell the platform's operators"));
        let (old, _) = types.find("python3.4").unwrap();
        let warning = "DEPRECATED: 'python3.4' type is deprecated. It is kept until 2027-06-30.";
        assert_eq!(old.warning("python3.4").as_deref(), Some(warning));
    }

    #[test]
    fn the_list_that_is_deployed_is_good() {
        let manifest = include_str!("../../../../deploy/base/image-config.yaml");
        let start = manifest.find(&format!("{KEY}: |\n")).unwrap();
        let list: Vec<&str> = manifest[start..].lines().skip(1).map_while(|line| line.strip_prefix("    ")).collect();
        let types = Types::parse(&list.join("\n")).unwrap();
        assert_eq!(types.names().collect::<Vec<_>>(), ["python3.11", "static"]);
        for name in ["static", "python3.11"] {
            let (_, image) = types.find(name).unwrap();
            assert_eq!(image.to_string(), format!("registry.hearth.internal/hearth/{name}"));
        }
    }
}
