//! Checks that no other tool makes: of each file, of modules and layers, of dependencies, of documents.
//!
//! It reads the files that git knows or would take, and asks cargo what is built; it changes nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

mod dependencies;
mod documents;
mod files;
mod licence;
mod modules;

/// A file of the project that is text.
struct Source {
    path: PathBuf,
    text: String,
}

/// Everything that is found to be wrong, a sentence each.
type Wrong = Vec<String>;

/// Runs every check and reports everything that is wrong.
pub fn run() -> Result<(), String> {
    let root = output(Command::new("git").args(["rev-parse", "--show-toplevel"]))?;
    std::env::set_current_dir(root.trim()).map_err(|e| format!("failed to enter {}: {e}", root.trim()))?;
    let sources = tracked()?;
    let mut wrong = Wrong::new();
    for source in &sources {
        files::check(source, &mut wrong);
    }
    modules::check(&sources, &mut wrong);
    dependencies::check(&sources, &mut wrong)?;
    documents::check(&sources, &mut wrong);
    if wrong.is_empty() { Ok(()) } else { Err(format!("not tidy:\n  {}", wrong.join("\n  "))) }
}

/// Every file that git has or would add, but links and what is not text.
fn tracked() -> Result<Vec<Source>, String> {
    let listed = output(Command::new("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    let paths = listed.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from);
    let files = paths.filter(|path| path.symlink_metadata().is_ok_and(|found| found.is_file()));
    let sources: Vec<Source> =
        files.filter_map(|path| Some(Source { text: std::fs::read_to_string(&path).ok()?, path })).collect();
    if sources.is_empty() { Err("git knows of no file here".to_owned()) } else { Ok(sources) }
}

/// What a command prints; an error if it fails.
fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("failed to run {command:?}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    String::from_utf8(output.stdout).map_err(|e| format!("{command:?} does not print text: {e}"))
}

fn has_ending(file: &Path, endings: &[&str]) -> bool {
    file.extension().and_then(|e| e.to_str()).is_some_and(|e| endings.contains(&e))
}
