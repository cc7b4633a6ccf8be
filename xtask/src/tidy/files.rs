//! What holds of each file by itself: its length, its beginning, its line ends, and words that do not belong into it.

use std::path::Path;
use std::process::Command;

use super::{Source, Wrong, has_ending, output};

/// Longest source file, in lines; longest test file.
const LONGEST: (usize, usize) = (500, 800);

/// What source code may not have. Written in two parts each, so that this file does not have them.
const WORDS: &[&str] =
    &[concat!("#[ig", "nore"), concat!("#[should_", "panic"), concat!("TO", "DO"), concat!("FIX", "ME")];

/// What only the machine has that somebody works on: its folders, where it gets packages from.
const PLACES: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/fa", "rm/"),
    concat!("GOPR", "OXY="),
    concat!("GOSU", "MDB="),
    concat!("deb ", "http"),
    concat!("index", "-url"),
    concat!("proxy.", "golang.org"),
    concat!("replace", "-with"),
];

pub(super) fn check(source: &Source, wrong: &mut Wrong) {
    let Source { path, text } = source;
    let shown = path.display();
    if has_ending(path, &["rs", "go", "md", "toml", "yaml", "sh"]) {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| line.ends_with([' ', '\t'])) {
            wrong.push(format!("{shown}:{}: ends in a blank: {line:?}", number + 1));
        }
        if !text.is_empty() && !text.ends_with('\n') {
            wrong.push(format!("{shown}: the last line does not end"));
        }
    }
    if has_ending(path, &["rs", "go"]) || is_shell(text) {
        let lines = text.lines().count();
        let longest = if is_test(path) { LONGEST.1 } else { LONGEST.0 };
        if lines > longest {
            wrong.push(format!("{shown}: {lines} lines, at most {longest}: split it"));
        }
        for word in WORDS.iter().filter(|word| text.contains(**word)) {
            wrong.push(format!("{shown}: has {word}"));
        }
    }
    if has_ending(path, &["rs"]) && !text.starts_with("//!") {
        wrong.push(format!("{shown}: does not begin with what the module is (`//!`)"));
    }
    if has_ending(path, &["go"]) {
        is_accepted(Command::new("gofmt").arg("-l").arg(path), &format!("{shown}: run gofmt -w on it"), wrong);
    }
    if is_shell(text) {
        is_accepted(Command::new("bash").arg("-n").arg(path), &format!("{shown}: is not sound"), wrong);
    }
    for place in PLACES.iter().filter(|place| mentions(text, place)) {
        wrong.push(format!("{shown}: has {place}, which holds on one machine only"));
    }
}

/// Runs a command that prints nothing about a sound file.
fn is_accepted(command: &mut Command, otherwise: &str, wrong: &mut Wrong) {
    match output(command) {
        Ok(printed) if printed.is_empty() => {}
        Ok(printed) => wrong.push(format!("{otherwise}: {}", printed.trim())),
        Err(error) => wrong.push(format!("{otherwise}: {error}")),
    }
}

fn is_shell(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    first.starts_with("#!") && first.ends_with("sh")
}

fn is_test(file: &Path) -> bool {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
    file.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "e2e")))
        || stem == "tests"
        || stem.ends_with("_test")
        || stem.ends_with("_tests")
}

/// Whether a text has a word; a path only where it begins, not where it goes on from a variable or another path.
fn mentions(text: &str, word: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '$' | '}' | ')' | '*' | '/');
    text.match_indices(word).any(|(at, _)| !(word.starts_with('/') && text[..at].ends_with(goes_on)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_with(path: &str, text: &str) -> Wrong {
        let mut wrong = Wrong::new();
        check(&Source { path: path.into(), text: text.to_owned() }, &mut wrong);
        wrong
    }

    #[test]
    fn a_tidy_file_passes() {
        assert_eq!(wrong_with("a.rs", "//! What it is.\n"), Wrong::new());
        assert_eq!(wrong_with("a.yaml", ""), Wrong::new());
        assert_eq!(wrong_with("a.rs", &"//! Long.\n".repeat(500)), Wrong::new());
        assert_eq!(wrong_with("e2e/a.rs", &"//! Long.\n".repeat(800)), Wrong::new());
        assert_eq!(wrong_with("a_tests.rs", &"//! Long.\n".repeat(800)), Wrong::new());
    }

    #[test]
    fn each_fault_is_found() {
        assert_eq!(wrong_with("a.rs", "//! What. \n"), ["a.rs:1: ends in a blank: \"//! What. \""]);
        assert_eq!(wrong_with("a.md", "End"), ["a.md: the last line does not end"]);
        assert_eq!(wrong_with("a.rs", "use a;\n"), ["a.rs: does not begin with what the module is (`//!`)"]);
        assert_eq!(wrong_with("a.rs", &"//! Long.\n".repeat(501)), ["a.rs: 501 lines, at most 500: split it"]);
        for word in WORDS {
            assert_eq!(wrong_with("a.rs", &format!("//! What.\n{word}\n")), [format!("a.rs: has {word}")]);
        }
        for place in PLACES {
            let found = format!("a: has {place}, which holds on one machine only");
            assert_eq!(wrong_with("a", &format!("see {place}\n")), [found]);
        }
    }

    #[test]
    fn a_path_counts_where_it_begins() {
        let place = PLACES.first().unwrap();
        assert!(mentions(&format!("\"{place}x\""), place));
        assert!(!mentions(&format!("$mem{place}x"), place));
        assert!(!mentions(&format!("${{mem}}{place}x"), place));
    }
}
