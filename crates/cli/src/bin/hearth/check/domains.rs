//! `hearth check domains`: whether browsers keep tools apart under the configured domains, by the Public Suffix List.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use hearth_core::Platform;
use hearth_core::public_suffix::{Standing, standing};

use crate::instance::Place;

/// Where Debian's package `publicsuffix` has the list.
const LIST: &str = "/usr/share/publicsuffix/public_suffix_list.dat";

/// Whose domains, by which list.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration; the instance's own if it is not given.
    #[arg(long, value_name = "FILE")]
    platform: Option<PathBuf>,
    /// The list, as <https://publicsuffix.org/list/public_suffix_list.dat> has it.
    #[arg(long, value_name = "FILE", default_value = LIST)]
    list: PathBuf,
}

/// What browsers take the domains for, and whether it is right for all of them.
pub(super) fn run(args: Args, place: &Place) -> anyhow::Result<(String, bool)> {
    let Args { platform, list } = args;
    let platform = platform.unwrap_or_else(|| place.home.join("platform.toml"));
    let text = std::fs::read_to_string(&platform)
        .with_context(|| format!("failed to read {}; --platform names another", platform.display()))?;
    let platform = Platform::from_toml(&text)?;
    let list = read(&list)?;
    Ok(report(&platform, &list))
}

fn read(file: &Path) -> anyhow::Result<String> {
    let list = std::fs::read_to_string(file).with_context(|| {
        format!("failed to read {}; install Debian's publicsuffix, or name a list with --list", file.display())
    })?;
    // A page of an error is not a list on which nothing is.
    ensure!(list.lines().any(|line| line.trim() == "com"), "{} is not the Public Suffix List", file.display());
    Ok(list)
}

fn report(platform: &Platform, list: &str) -> (String, bool) {
    let mut text = String::new();
    let mut is_right = true;
    for domain in &platform.domains.public {
        match standing(list, domain) {
            Standing::Suffix => text.push_str(&format!(
                "{domain}: on the Public Suffix List. Browsers take each tool for a site of its own: none can set a \
                 cookie for the others, and a cookie with SameSite is not sent when another tool's page asks.\n"
            )),
            Standing::Within(site) => {
                is_right = false;
                text.push_str(&format!(
                    "{domain}: not on the Public Suffix List. Browsers take all tools for one site, {site}:\n\
                     - a script in one tool's page can set a cookie for {site} that the browser sends to every tool, \
                     also in place of a tool's own; the front door drops such cookies from answers and cannot see \
                     scripts,\n\
                     - SameSite does not protect one tool from requests that another tool's page makes,\n\
                     - tools share the browser's limits of cookies and storage, and its decisions about the site.\n\
                     Tools can help themselves with cookies whose names begin with __Host-. To have it listed: \
                     https://publicsuffix.org/submit/\n"
                ));
            }
        }
    }
    (text, is_right)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLATFORM: &str = "[domains]\npublic = ['toolforge.org', 'tools.example.org']\nlegacy = 'old.example.org'\n\
        [api]\nserver = 'https://10.88.0.2:6443'\n\
        [directory]\nurl = 'ldaps://ldap'\nbase = 'dc=hearth'\nbind_dn = 'cn=reader'\n[registry]\nhost = 'registry.internal'\n";

    #[test]
    fn each_domain_is_told_of() {
        let mut platform = Platform::from_toml(PLATFORM).unwrap();
        let list = "com\norg\n// Wikimedia\ntoolforge.org\n";
        let (text, is_right) = report(&platform, list);
        assert!(!is_right && text.contains("toolforge.org: on the Public Suffix List."), "{text}");
        assert!(text.contains("tools.example.org: not on") && text.contains("one site, example.org:"), "{text}");
        platform.domains.public.truncate(1);
        assert!(report(&platform, list).1);
    }

    #[test]
    fn what_is_no_list_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("list");
        assert!(read(&file).unwrap_err().to_string().contains("install Debian's publicsuffix"));
        std::fs::write(&file, "<html>404</html>").unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("is not the Public Suffix List"));
        std::fs::write(&file, "// the list\ncom\n").unwrap();
        assert!(read(&file).is_ok());
    }
}
