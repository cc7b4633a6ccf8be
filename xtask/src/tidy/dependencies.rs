//! Dependencies: layers, one version of what must be one, one set of cryptography, licences, lints in every crate.
//!
//! Versions are read from `Cargo.lock`; what is built for this machine is asked of `cargo tree`, since the lock file
//! also has what no chosen feature needs.

use std::path::Path;
use std::process::Command;

use super::{Source, Wrong, licence, output};

/// What `core` must not have, however indirectly, because it does nothing but decide.
const NOT_IN_CORE: &[&str] =
    &["anyhow", "axum", "clap", "hyper", "kube", "ldap3", "rustix", "rustls", "tokio", "tracing"];

/// Which crates of the project each may use: dependencies run one way.
const LAYERS: &[(&str, &[&str])] = &[
    ("crates/core", &[]),
    ("crates/directory", &["hearth-core"]),
    ("crates/server", &["hearth-core", "hearth-directory"]),
    ("crates/cli", &["hearth-core", "hearth-directory"]),
    ("e2e", &["hearth-core"]),
    ("fuzz", &["hearth-core"]),
    ("xtask", &[]),
];

/// Two versions of one of these do not fit together: a type of one is not that of the other.
const ONCE: &[&str] = &["h2", "http", "hyper", "k8s-openapi", "kube", "rustls", "thiserror", "tokio"];

/// Another cryptography than aws-lc-rs.
const NEVER: &[&str] = &["native-tls", "openssl", "openssl-sys", "ring"];

pub(super) fn check(sources: &[Source], wrong: &mut Wrong) -> Result<(), String> {
    for source in sources.iter().filter(|source| source.path.ends_with("Cargo.toml")) {
        match source.path.parent().and_then(Path::to_str) {
            Some("") => check_workspace(&source.text, wrong),
            Some(folder) => {
                check_manifest(folder, &source.text, wrong);
                check_used(folder, &source.text, sources, wrong);
            }
            None => {}
        }
    }
    let lock = sources.iter().find(|source| source.path == Path::new("Cargo.lock"));
    check_lock(&lock.ok_or("there is no Cargo.lock")?.text, wrong);
    check_built(&tree(&["--workspace", "--edges", "normal,build,dev"])?, NEVER, "is built", wrong);
    check_licences(&tree(&["--workspace", "--edges", "normal,build,dev"])?, wrong);
    check_built(&tree(&["--package", "hearth-core", "--edges", "normal"])?, NOT_IN_CORE, "is used by core", wrong);
    Ok(())
}

/// Lines of `name version|licence`.
fn tree(which: &[&str]) -> Result<String, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let fixed = ["tree", "--quiet", "--locked", "--prefix", "none", "--no-dedupe", "--format", "{p}|{l}"];
    output(Command::new(cargo).args(fixed).args(which))
}

fn check_workspace(text: &str, wrong: &mut Wrong) {
    if !text.lines().any(|line| line == "unsafe_code = \"forbid\"") {
        wrong.push("Cargo.toml: [workspace.lints.rust] does not have unsafe_code = \"forbid\"".to_owned());
    }
}

/// A crate takes lints and versions from the workspace, and crates of the project from layers below.
fn check_manifest(folder: &str, text: &str, wrong: &mut Wrong) {
    if !text.contains("[lints]\nworkspace = true\n") {
        wrong.push(format!("{folder}/Cargo.toml: does not take the workspace's lints: [lints] workspace = true"));
    }
    let Some((_, below)) = LAYERS.iter().find(|(crate_folder, _)| *crate_folder == folder) else {
        wrong.push(format!("{folder}/Cargo.toml: its layer is not known; say in tidy what it may use"));
        return;
    };
    for (name, line) in dependencies(text) {
        if !line.ends_with(".workspace = true") && !line.contains("workspace = true,") {
            wrong.push(format!("{folder}/Cargo.toml: {name} has a version of its own: {name}.workspace = true"));
        }
        if name.starts_with("hearth-") && !below.contains(&name) {
            wrong.push(format!("{folder}/Cargo.toml: may not use {name}, which is not below it"));
        }
    }
}

/// What the manifest of a crate that ships names and the crate does not is built for nothing.
fn check_used(folder: &str, text: &str, sources: &[Source], wrong: &mut Wrong) {
    for (name, _) in dependencies(text).filter(|_| folder.starts_with("crates/")) {
        let word = name.replace('-', "_");
        let mut own = sources.iter().filter(|source| {
            source.path.starts_with(folder) && source.path.extension().is_some_and(|ending| ending == "rs")
        });
        let is_word = |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word);
        if !own.any(|source| is_word(&source.text)) {
            wrong.push(format!("{folder}/Cargo.toml: {name} is not used"));
        }
    }
}

/// Names and lines of a manifest's dependencies of every kind.
fn dependencies(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut inside = false;
    text.lines().filter_map(move |line| {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        }
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        (inside && !line.starts_with(['[', '#']) && !name.is_empty()).then_some((name, line))
    })
}

fn check_lock(text: &str, wrong: &mut Wrong) {
    for name in ONCE {
        let found = text.lines().filter(|line| *line == format!("name = \"{name}\"")).count();
        if found != 1 {
            wrong.push(format!("Cargo.lock: {found} versions of {name}; see cargo tree --invert {name}"));
        }
    }
    let registry = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    for line in text.lines().filter(|line| line.starts_with("source = ") && *line != registry) {
        wrong.push(format!("Cargo.lock: {line}: crates come from crates.io only"));
    }
}

fn check_built(tree: &str, unwanted: &[&str], what: &str, wrong: &mut Wrong) {
    for name in unwanted {
        if tree.lines().any(|line| line.split(' ').next() == Some(name)) {
            wrong.push(format!("{name} {what}; see cargo tree --invert {name}"));
        }
    }
}

fn check_licences(tree: &str, wrong: &mut Wrong) {
    let mut lines: Vec<&str> = tree.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines.dedup();
    for line in lines {
        let (package, expression) = line.split_once('|').unwrap_or((line, ""));
        if !licence::is_accepted(expression) {
            wrong.push(format!("{package}: its licence is {expression:?}, which tidy does not accept"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIDY: &str = "[dependencies]\nhearth-core.workspace = true\n\n[lints]\nworkspace = true\n";

    #[test]
    fn a_manifest_is_held_to_its_layer() {
        let mut wrong = Wrong::new();
        check_manifest("crates/server", TIDY, &mut wrong);
        assert_eq!(wrong, Wrong::new());
        check_manifest("crates/core", TIDY, &mut wrong);
        assert_eq!(wrong, ["crates/core/Cargo.toml: may not use hearth-core, which is not below it"]);
    }

    #[test]
    fn own_lints_and_own_versions_are_found() {
        let mut wrong = Wrong::new();
        check_manifest("e2e", "[dev-dependencies]\nbytes = \"1\"\n[lints.rust]\n", &mut wrong);
        assert_eq!(
            wrong,
            [
                "e2e/Cargo.toml: does not take the workspace's lints: [lints] workspace = true",
                "e2e/Cargo.toml: bytes has a version of its own: bytes.workspace = true"
            ]
        );
    }

    #[test]
    fn what_is_not_used_is_found() {
        let sources = [Source { path: "crates/server/src/a.rs".into(), text: "use hearth_core_x::y;\n".to_owned() }];
        let mut wrong = Wrong::new();
        check_used("crates/server", TIDY, &sources, &mut wrong);
        assert_eq!(wrong, ["crates/server/Cargo.toml: hearth-core is not used"]);
    }

    #[test]
    fn a_second_version_and_another_source_are_found() {
        let once: String = ONCE.iter().map(|name| format!("[[package]]\nname = \"{name}\"\n")).collect();
        let mut wrong = Wrong::new();
        check_lock(&once, &mut wrong);
        assert_eq!(wrong, Wrong::new());
        check_lock(&format!("{once}name = \"hyper\"\nsource = \"git+https://example.org/x\"\n"), &mut wrong);
        assert_eq!(
            wrong,
            [
                "Cargo.lock: 2 versions of hyper; see cargo tree --invert hyper",
                "Cargo.lock: source = \"git+https://example.org/x\": crates come from crates.io only"
            ]
        );
    }

    #[test]
    fn what_must_not_be_built_and_licences_are_found() {
        let mut wrong = Wrong::new();
        check_built("ring-buffer v1|MIT\nring v0.17|ISC\n", NEVER, "is built", &mut wrong);
        check_licences("a v1|MIT\n\na v1|MIT\nb v1|\n", &mut wrong);
        assert_eq!(
            wrong,
            ["ring is built; see cargo tree --invert ring", "b v1: its licence is \"\", which tidy does not accept"]
        );
    }
}
