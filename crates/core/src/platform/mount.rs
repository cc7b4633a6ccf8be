//! What of the nodes is mounted in tools' pods beside the own home: the section `[[mounts]]` of `platform.toml`.
//!
//! A path is taken as it is written and never resolved. So it may not lie below anything that a tool can write, where a
//! link could lead out of it: not below the homes, nor below another mount that tools write to.

use serde::{Deserialize, Serialize};

/// A path of the nodes that tools' pods may mount, and those with the label `toolforge=tool` do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Where it is, on the nodes and in the pods alike: an absolute path in its plainest form.
    pub path: String,
    /// Whether tools may only read it, as is so unless the configuration says otherwise.
    #[serde(default = "Mount::default_read_only")]
    pub read_only: bool,
}

/// Longest name of a volume, in characters.
const LONGEST_NAME: usize = 63;

impl Mount {
    fn default_read_only() -> bool {
        true
    }

    /// The name of its volume, in a pod that has none for it, as `mount-0-public-dumps`. `index` is its place in the
    /// list, and keeps the names of two mounts apart.
    pub fn volume(&self, index: usize) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let text: String = format!("mount-{index}{}", self.path).chars().map(plain).take(LONGEST_NAME).collect();
        text.trim_end_matches('-').to_owned()
    }
}

/// What is wrong with the list, a line each.
pub(super) fn mistakes(mounts: &[Mount], homes: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, Mount { path, .. }) in mounts.iter().enumerate() {
        if !is_plain(path) {
            found.push(format!(
                "mounts: '{path}' is not a plain absolute path: letters, digits, '.', '_' and '-' between single \
                 slashes, none at the end, no '.' or '..'"
            ));
        } else if is_within(path, homes) || is_within(homes, path) {
            found.push(format!(
                "mounts: '{path}' and homes.root '{homes}' lie one in the other: a tool mounts its own home only"
            ));
        }
        for (other, earlier) in mounts.iter().enumerate() {
            if path == &earlier.path {
                if other < index {
                    found.push(format!("mounts: '{path}' is listed twice"));
                }
            } else if is_within(path, &earlier.path) && !earlier.read_only {
                found.push(format!(
                    "mounts: '{path}' lies below '{}', which tools may write: they could put a link in its place",
                    earlier.path
                ));
            }
        }
    }
    found
}

/// Whether the path is absolute and can be read in one way only.
fn is_plain(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    path.strip_prefix('/')
        .is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..") && part.bytes().all(plain)))
}

/// Whether a path is another or below it, by whole segments.
fn is_within(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(path: &str, read_only: bool) -> Mount {
        Mount { path: path.to_owned(), read_only }
    }

    fn wrong(mounts: &[Mount]) -> Vec<String> {
        mistakes(mounts, "/data/project")
    }

    #[test]
    fn the_originals_mounts_are_accepted() {
        let read_only = ["/public/dumps", "/mnt/nfs/dumps-clouddumps1001.wikimedia.org", "/etc/ldap.conf"];
        let mut mounts: Vec<Mount> = read_only.into_iter().map(|path| mount(path, true)).collect();
        mounts.extend([mount("/data/scratch", false), mount("/var/lib/sss/pipes", false)]);
        assert_eq!(wrong(&mounts), Vec::<String>::new());
    }

    #[test]
    fn paths_that_are_not_plain_are_refused() {
        for path in
            ["", "/", "public", "/public/", "/public//dumps", "/public/../etc", "/./public", "/a b", "/a:b", "/é"]
        {
            let found = wrong(&[mount(path, true)]);
            assert!(found.iter().any(|line| line.contains("is not a plain absolute path")), "{path}: {found:?}");
        }
    }

    #[test]
    fn nothing_lies_below_what_tools_write() {
        for path in ["/data", "/data/project", "/data/project/wikibot"] {
            assert!(wrong(&[mount(path, true)])[0].contains("lie one in the other"), "{path}");
        }
        assert!(wrong(&[mount("/data/projects", true)]).is_empty());
        let nested = |read_only| wrong(&[mount("/srv/a/b", true), mount("/srv/a", read_only)]);
        assert!(nested(false)[0].contains("lies below '/srv/a'"), "{:?}", nested(false));
        assert!(nested(true).is_empty());
        assert!(wrong(&[mount("/srv", true), mount("/srv", false)])[0].contains("is listed twice"));
    }

    #[test]
    fn each_volume_has_a_name_of_its_own() {
        let long = format!("/{}", "a".repeat(100));
        let mounts = ["/public/dumps", "/public-dumps", "/Etc/ldap.conf", &long, &format!("{long}b")];
        let mut names: Vec<String> =
            mounts.iter().enumerate().map(|(index, path)| mount(path, true).volume(index)).collect();
        assert_eq!(names[..3], ["mount-0-public-dumps", "mount-1-public-dumps", "mount-2-etc-ldap-conf"]);
        assert!(names.iter().all(|name| name.len() <= LONGEST_NAME), "{names:?}");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 5);
    }
}
