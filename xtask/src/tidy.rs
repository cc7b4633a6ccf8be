//! Checks that no other tool makes: lengths of files, module documentation, declared test modules, layers, words
//! that do not belong into the project, and paths that documents name.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest source file, in lines; longest test file.
const LONGEST: (usize, usize) = (500, 800);

/// Crates that `core` must not use, because it does nothing but decide.
const NOT_IN_CORE: &[&str] = &["tokio", "hyper", "kube", "ldap3", "clap", "anyhow", "axum", "rustix", "tracing"];

/// Runs every check and reports everything that is wrong.
pub fn run() -> Result<(), String> {
    let files = tracked()?;
    let mut wrong = Vec::new();
    for file in &files {
        check_file(file, &mut wrong);
    }
    check_core(&mut wrong);
    check_test_modules(&files, &mut wrong);
    check_roles(&files, &mut wrong);
    check_documents(&files, &mut wrong);
    if wrong.is_empty() { Ok(()) } else { Err(format!("not tidy:\n  {}", wrong.join("\n  "))) }
}

fn tracked() -> Result<Vec<PathBuf>, String> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()
        .map_err(|e| format!("failed to run git: {e}"))?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    Ok(text.lines().map(PathBuf::from).filter(|path| path.is_file()).collect())
}

fn has_ending(file: &Path, endings: &[&str]) -> bool {
    file.extension().and_then(|e| e.to_str()).is_some_and(|e| endings.contains(&e))
}

fn is_test(file: &Path) -> bool {
    file.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "e2e")))
        || file.file_stem().is_some_and(|stem| stem == "tests" || stem.to_string_lossy().ends_with("_test"))
}

fn check_file(file: &Path, wrong: &mut Vec<String>) {
    let Ok(text) = std::fs::read_to_string(file) else { return };
    let shown = file.display();
    if has_ending(file, &["rs", "go", "md", "toml", "yaml", "sh"]) {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| line.ends_with([' ', '\t'])) {
            wrong.push(format!("{shown}:{}: ends in a blank: {line:?}", number + 1));
        }
        if !text.is_empty() && !text.ends_with('\n') {
            wrong.push(format!("{shown}: the last line does not end"));
        }
    }
    if has_ending(file, &["rs", "go"]) {
        let lines = text.lines().count();
        let longest = if is_test(file) { LONGEST.1 } else { LONGEST.0 };
        if lines > longest {
            wrong.push(format!("{shown}: {lines} lines, at most {longest}: split it"));
        }
    }
    if has_ending(file, &["rs"]) {
        if !text.starts_with("//!") {
            wrong.push(format!("{shown}: does not begin with what the module is (`//!`)"));
        }
        for word in ["#[ign\u{6f}re", "#[should_pan\u{69}c", "TO\u{44}O", "FIX\u{4d}E", "dbg!\u{28}"] {
            if text.contains(word) {
                wrong.push(format!("{shown}: has {word}"));
            }
        }
    }
}

fn check_core(wrong: &mut Vec<String>) {
    let manifest = std::fs::read_to_string("crates/core/Cargo.toml").unwrap_or_default();
    let dependencies = manifest.split("[dev-dependencies]").next().unwrap_or_default();
    for name in NOT_IN_CORE {
        if dependencies.lines().any(|line| line.split(['.', ' ', '=']).next() == Some(name)) {
            wrong.push(format!("crates/core/Cargo.toml: core may not use {name}"));
        }
    }
}

/// A file below `tests/it` that no `mod` line names is never compiled.
fn check_test_modules(files: &[PathBuf], wrong: &mut Vec<String>) {
    for file in files.iter().filter(|f| has_ending(f, &["rs"])) {
        let Some(folder) = file.parent().filter(|folder| folder.ends_with("tests/it")) else { continue };
        let (Some(stem), Ok(main)) = (file.file_stem(), std::fs::read_to_string(folder.join("main.rs"))) else {
            continue;
        };
        let stem = stem.to_string_lossy();
        if stem != "main" && !main.lines().any(|line| line.trim() == format!("mod {stem};")) {
            wrong.push(format!("{}: no `mod {stem};` in {}", file.display(), folder.join("main.rs").display()));
        }
    }
}

/// Roles do not know each other.
fn check_roles(files: &[PathBuf], wrong: &mut Vec<String>) {
    const ROLES: &[&str] = &["accounts", "admission", "fourohfour", "proxy", "registry_auth", "signer"];
    let source = Path::new("crates/server/src");
    for file in files {
        let Some(own) = file.strip_prefix(source).ok().and_then(|rest| rest.iter().next()?.to_str()) else { continue };
        if !ROLES.contains(&own) {
            continue;
        }
        let text = std::fs::read_to_string(file).unwrap_or_default();
        for other in ROLES.iter().filter(|other| **other != own) {
            if text.contains(&format!("crate::{other}::")) {
                wrong.push(format!("{}: the role {own} uses the role {other}", file.display()));
            }
        }
    }
}

/// Every path of the repository that a document names in backquotes exists.
fn check_documents(files: &[PathBuf], wrong: &mut Vec<String>) {
    const ROOMS: &[&str] = &["bench/", "cluster/", "crates/", "deploy/", "docs/", "e2e/", "images/", "xtask/"];
    for file in files.iter().filter(|f| has_ending(f, &["md"])) {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let mut fenced = false;
        for line in text.lines() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            }
            let quoted = line.split('`').skip(1).step_by(2);
            for path in quoted.filter(|p| !fenced && ROOMS.iter().any(|room| p.starts_with(room))) {
                let path = path.split([' ', ':', '#']).next().unwrap_or_default();
                if !path.contains(['*', '<', '{']) && !Path::new(path).exists() {
                    wrong.push(format!("{}: names `{path}`, which does not exist", file.display()));
                }
            }
        }
    }
}
