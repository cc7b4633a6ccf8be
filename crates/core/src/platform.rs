//! `platform.toml`: what one installation of Hearth is, in one file.
//!
//! The file's format ([`File`]) is the stable interface; the rest of the code uses [`Platform`], which holds
//! parsed types. `hearth render` writes the manifests from it, and every role reads the same file.

mod front_door;
mod mount;
mod namespaces;

use serde::{Deserialize, Serialize};

pub use front_door::{AccessField, FrontDoor, Path};
pub use mount::Mount;
pub use namespaces::{Kind, Namespaces};

use crate::directory_entry::person_name::PersonName;
use crate::host::{Domains, Host};
use crate::image::Repository;

/// The configuration of an installation, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Platform {
    /// The domains under which tools are reached.
    pub domains: Domains,
    /// Where the front door is, and what visitors and tools may use of it.
    pub front_door: FrontDoor,
    /// How clients reach the Kubernetes API.
    pub api: Api,
    /// The LDAP directory.
    pub directory: Directory,
    /// Where images come from and go to.
    pub registry: Registry,
    /// Where home directories are.
    pub homes: Homes,
    /// What holds for every tool.
    pub tools: Tools,
    /// What of the nodes is mounted in tools' pods, beside the own home.
    pub mounts: Vec<Mount>,
    /// The namespaces that are no tool's.
    pub namespaces: Namespaces,
    /// How the rulebook is enforced.
    pub admission: Admission,
}

/// How clients reach the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// The URL written into kubeconfigs, such as `https://10.88.0.2:6443`.
    pub server: String,
    /// The name that is in the API server's certificate; clients verify it whatever the address.
    #[serde(default = "Api::default_name")]
    pub name: String,
}

/// The LDAP directory. Roles bind as `bind_dn` with the password in a file that is given to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// `ldaps://host[:port]`, or `ldap://host[:port]`, which is then upgraded by `StartTLS`.
    pub url: String,
    /// The suffix, such as `dc=hearth,dc=internal`.
    pub base: String,
    /// The first part of every tool's account, as in `tools.wikibot`.
    #[serde(default = "Directory::default_project")]
    pub project: String,
    /// Who the roles are to the directory; may read everything but passwords.
    pub bind_dn: String,
}

/// Where images come from and go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// The platform's own registry, `host` or `host:port`.
    pub host: String,
    /// Whole registries or path prefixes, by segments, from which tools may run images; the own registry is always one.
    pub allowed: Vec<Repository>,
}

/// Where home directories are, as nodes and pods see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Homes {
    /// The parent of all tools' homes.
    #[serde(default = "Homes::default_root")]
    pub root: String,
    /// The parent of all people's homes, as the directory's entries and the bastion have it.
    #[serde(default = "Homes::default_people")]
    pub people: String,
}

/// What holds for every tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tools {
    /// The lowest user number of a tool.
    pub first_uid: u32,
    /// The highest user number of a tool.
    pub last_uid: u32,
    /// Names that no tool may take, beside those that are built in.
    pub reserved: Vec<String>,
    /// Days for which a disabled tool is kept before it is deleted.
    pub grace_days: u32,
    /// How many tools may be deleted or disabled in one pass, in percent of all; at least five.
    pub deletion_share_percent: u32,
    /// Days for which a tool's certificate is valid.
    pub certificate_days: u32,
    /// Names of the `PriorityClasses` that tools' pods may carry. Where the cluster has a class that is the default for
    /// all pods, it must be here: the API server sets it before anything is judged.
    pub priority_classes: Vec<String>,
}

/// How the rulebook is enforced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admission {
    /// Chapters of the rulebook that are tried before they bite: what they would refuse is warned of and noted in the
    /// audit log, and goes through. None by default: everything is enforced.
    pub trial: Vec<String>,
}

/// A mistake in `platform.toml`: everything that is wrong, a line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is not usable:\n{}", .0.join("\n"))]
pub struct PlatformError(pub Vec<String>);

/// The file as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    domains: DomainsFile,
    #[serde(default)]
    front_door: FrontDoor,
    api: Api,
    directory: Directory,
    registry: RegistryFile,
    #[serde(default)]
    homes: Homes,
    #[serde(default)]
    tools: Tools,
    #[serde(default)]
    mounts: Vec<Mount>,
    #[serde(default)]
    namespaces: Namespaces,
    #[serde(default)]
    admission: Admission,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DomainsFile {
    public: Vec<String>,
    legacy: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistryFile {
    host: String,
    #[serde(default)]
    allowed: Vec<String>,
}

impl Platform {
    /// Reads a `platform.toml`. All mistakes that can be seen are reported at once.
    pub fn from_toml(text: &str) -> Result<Self, PlatformError> {
        let file: File = toml::from_str(text).map_err(|e| PlatformError(vec![e.to_string().trim_end().to_owned()]))?;
        let mut mistakes = Vec::new();
        let mut host = |field: &str, text: &str| match text.parse::<Host>() {
            Ok(host) => Some(host),
            Err(e) => {
                mistakes.push(format!("{field}: {e}"));
                None
            }
        };
        let public: Vec<Host> = file.domains.public.iter().filter_map(|t| host("domains.public", t)).collect();
        let legacy = host("domains.legacy", &file.domains.legacy);
        if file.domains.public.is_empty() {
            mistakes.push("domains.public: at least one domain is needed".to_owned());
        }
        let mut allowed = Vec::new();
        for text in std::iter::once(&file.registry.host).chain(&file.registry.allowed) {
            match Repository::prefix(text) {
                Ok(prefix) => allowed.push(prefix),
                Err(e) => mistakes.push(format!("registry: {e}")),
            }
        }
        if !file.directory.url.starts_with("ldaps://") && !file.directory.url.starts_with("ldap://") {
            mistakes.push(format!("directory.url: '{}' starts with neither ldaps:// nor ldap://", file.directory.url));
        }
        if !file.api.server.starts_with("https://") {
            mistakes.push(format!("api.server: '{}' does not start with https://", file.api.server));
        }
        mistakes.extend(file.homes.mistakes());
        mistakes.extend(file.front_door.mistakes());
        if file.tools.first_uid < 1000 || file.tools.first_uid > file.tools.last_uid {
            mistakes.push("tools: first_uid must be at least 1000 and no higher than last_uid".to_owned());
        }
        mistakes.extend(mount::mistakes(&file.mounts, &file.homes.root));
        mistakes.extend(file.namespaces.mistakes());
        for name in file.admission.trial.iter().filter(|name| !chapters().any(|known| known == name.as_str())) {
            let known: Vec<&str> = chapters().collect();
            mistakes.push(format!("admission.trial: there is no chapter '{name}'; there are {}", known.join(", ")));
        }
        match legacy {
            Some(legacy) if mistakes.is_empty() => Ok(Self {
                domains: Domains { public, legacy },
                front_door: file.front_door,
                api: file.api,
                directory: file.directory,
                registry: Registry { host: file.registry.host, allowed },
                homes: file.homes,
                tools: file.tools,
                mounts: file.mounts,
                namespaces: file.namespaces.with_built_in(),
                admission: file.admission,
            }),
            _ => Err(PlatformError(mistakes)),
        }
    }
}

/// The chapters of the rulebook, by name.
fn chapters() -> impl Iterator<Item = &'static str> {
    crate::admission::fields::CHAPTERS.iter().map(|chapter| chapter.name)
}

// === impl of the sections ===

impl Api {
    fn default_name() -> String {
        "api.hearth.internal".to_owned()
    }
}

impl Directory {
    fn default_project() -> String {
        "tools".to_owned()
    }

    /// Where people are: `ou=people,<base>`.
    pub fn people(&self) -> String {
        format!("ou=people,{}", self.base)
    }

    /// Where the tools' groups are: `ou=servicegroups,<base>`.
    pub fn tool_groups(&self) -> String {
        format!("ou=servicegroups,{}", self.base)
    }

    /// Where the tools' accounts are: `ou=people,ou=servicegroups,<base>`.
    pub fn tool_accounts(&self) -> String {
        format!("ou=people,ou=servicegroups,{}", self.base)
    }
}

impl Homes {
    /// The folder of deleted tools' homes in the parent of all homes.
    pub const ARCHIVE: &'static str = ".archive";

    fn default_root() -> String {
        "/data/project".to_owned()
    }

    fn default_people() -> String {
        "/home".to_owned()
    }

    fn mistakes(&self) -> Vec<String> {
        let is_path = |path: &str| path.starts_with('/') && !path.ends_with('/');
        let parts = [("root", &self.root), ("people", &self.people)];
        let wrong = parts.into_iter().filter(|(_, path)| !is_path(path));
        let mut mistakes: Vec<String> = wrong
            .map(|(name, path)| format!("homes.{name}: '{path}' is not an absolute path without a slash at its end"))
            .collect();
        if self.root == self.people {
            mistakes.push(format!("homes: '{}' cannot hold both tools' homes and people's", self.root));
        }
        mistakes
    }

    /// The home of a tool.
    pub fn of(&self, tool: &crate::ToolName) -> String {
        format!("{}/{tool}", self.root)
    }

    /// The home of a person.
    pub fn of_person(&self, person: &PersonName) -> String {
        format!("{}/{person}", self.people)
    }

    /// Where homes of deleted tools are put. No tool has this name.
    pub fn archive(&self) -> String {
        format!("{}/{}", self.root, Self::ARCHIVE)
    }
}

impl Default for Homes {
    fn default() -> Self {
        Self { root: Self::default_root(), people: Self::default_people() }
    }
}

impl Default for Tools {
    fn default() -> Self {
        Self {
            first_uid: 50000,
            last_uid: 59999,
            reserved: Vec::new(),
            grace_days: 40,
            deletion_share_percent: 5,
            certificate_days: 30,
            priority_classes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const GOOD: &str = r#"
        [domains]
        public = ["hearth.localhost"]
        legacy = "tools.hearth.localhost"
        [api]
        server = "https://10.88.0.2:6443"
        [directory]
        url = "ldaps://ldap.hearth.internal"
        base = "dc=hearth,dc=internal"
        bind_dn = "cn=reader,dc=hearth,dc=internal"
        [registry]
        host = "registry.hearth.internal"
    "#;

    #[test]
    fn defaults_are_filled_in() {
        let platform = Platform::from_toml(GOOD).unwrap();
        assert_eq!(platform.homes.of(&"wikibot".parse().unwrap()), "/data/project/wikibot");
        assert_eq!(platform.api.name, "api.hearth.internal");
        assert_eq!(platform.directory.tool_accounts(), "ou=people,ou=servicegroups,dc=hearth,dc=internal");
        assert_eq!(platform.registry.allowed.len(), 1);
        assert_eq!(platform.front_door.address, None);
        let inside = Platform::from_toml(&format!("{GOOD}\n[front_door]\naddress = \"10.0.0.1:443\"")).unwrap();
        assert_eq!(inside.front_door.address, Some(SocketAddr::from(([10, 0, 0, 1], 443))));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let bad = GOOD.replace("[\"hearth.localhost\"]", "[\"*.localhost\"]").replace("https://10", "http://10");
        let error = Platform::from_toml(&bad).unwrap_err();
        assert_eq!(error.0.len(), 2, "{error}");
        assert!(Platform::from_toml(&format!("{GOOD}\nport = 1")).unwrap_err().to_string().contains("unknown field"));
    }

    #[test]
    fn only_chapters_can_be_on_trial() {
        let trial = |text: &str| Platform::from_toml(&format!("{GOOD}\n[admission]\ntrial = [{text}]"));
        assert_eq!(trial("\"ingresses\"").unwrap().admission.trial, ["ingresses"]);
        assert_eq!(Platform::from_toml(GOOD).unwrap().admission, Admission::default());
        let error = trial("\"ingress\"").unwrap_err().to_string();
        assert!(error.contains("there is no chapter 'ingress'; there are pods, "), "{error}");
    }
}
