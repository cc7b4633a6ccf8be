//! Modules: every file is compiled, each crate has one program of tests, and roles do not know each other.

use std::path::{Path, PathBuf};

use super::{Source, Wrong, has_ending};

/// What all roles share; every other module of the server is a role.
const SHARED: &[&str] =
    &["clock", "configuration", "http_service", "kubernetes", "lease", "lib", "main", "reverse_proxy", "telemetry"];

pub(super) fn check(sources: &[Source], wrong: &mut Wrong) {
    let rust: Vec<&Source> = sources.iter().filter(|source| has_ending(&source.path, &["rs"])).collect();
    for source in &rust {
        check_declared(&source.path, &rust, wrong);
        check_tests(&source.path, wrong);
    }
    check_roles(&rust, wrong);
}

/// A file that no `mod` line names is never compiled, and its tests never run.
fn check_declared(path: &Path, rust: &[&Source], wrong: &mut Wrong) {
    let (Some(mut folder), Some(mut name)) = (path.parent(), stem(path)) else { return };
    let is_in = |parent: &Path, name: &str| parent.file_name().is_some_and(|found| found == name);
    if matches!(name, "main" | "lib") || is_in(folder, "bin") || (name == "build" && !is_in(folder, "src")) {
        return;
    }
    if name == "mod" {
        let (Some(outer), Some(own)) = (folder.parent(), folder.file_name().and_then(|own| own.to_str())) else {
            return;
        };
        (folder, name) = (outer, own);
    }
    let mut parents: Vec<PathBuf> = ["main.rs", "lib.rs", "mod.rs"].map(|parent| folder.join(parent)).into();
    parents.push(folder.with_extension("rs"));
    let line = format!("mod {name};");
    let ending = format!("/{}\"]", path.file_name().map(|own| own.to_string_lossy()).unwrap_or_default());
    let declares = |source: &&Source| {
        let by_name = parents.contains(&source.path);
        source.text.lines().map(str::trim).any(|found| {
            (by_name && found.strip_suffix(&line).is_some_and(|before| before.is_empty() || before.ends_with(' ')))
                || (found.starts_with("#[path = ") && found.ends_with(&ending))
        })
    };
    if !rust.iter().any(declares) {
        wrong.push(format!("{}: no `{line}` names it, so it is not compiled", path.display()));
    }
}

/// Each further program of tests is another link of everything.
fn check_tests(path: &Path, wrong: &mut Wrong) {
    let folders: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    if let ["crates", name, "tests", rest @ ..] = folders.as_slice()
        && (rest.len() == 1 || matches!(rest, [folder, "main.rs"] if *folder != "it"))
    {
        wrong.push(format!("{}: another program of tests; crates/{name}/tests/it is the one", path.display()));
    }
}

/// Roles do not know each other.
fn check_roles(rust: &[&Source], wrong: &mut Wrong) {
    let role_of = |source: &Source| {
        let inside = source.path.strip_prefix("crates/server/src").ok()?;
        let role = stem(Path::new(inside.iter().next()?))?.to_owned();
        (!SHARED.contains(&role.as_str())).then_some(role)
    };
    let mut roles: Vec<String> = rust.iter().filter_map(|source| role_of(source)).collect();
    roles.sort();
    roles.dedup();
    for source in rust {
        let Some(own) = role_of(source) else { continue };
        for other in roles.iter().filter(|other| **other != own && uses(&source.text, other)) {
            wrong.push(format!("{}: the role {own} uses the role {other}", source.path.display()));
        }
    }
}

/// Whether a text names a module of the crate by its path, also as one of several in braces.
fn uses(text: &str, module: &str) -> bool {
    let is_end = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    text.match_indices("crate::").any(|(at, start)| {
        let rest = &text[at + start.len()..];
        match rest.strip_prefix('{') {
            Some(list) => list
                .split('}')
                .next()
                .unwrap_or_default()
                .split(',')
                .any(|item| item.trim().strip_prefix(module).is_some_and(is_end)),
            None => rest.strip_prefix(module).is_some_and(is_end),
        }
    })
}

fn stem(path: &Path) -> Option<&str> {
    path.file_stem()?.to_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_with(files: &[(&str, &str)]) -> Wrong {
        let source = |&(path, text): &(&str, &str)| Source { path: path.into(), text: text.to_owned() };
        let mut wrong = Wrong::new();
        check(&files.iter().map(source).collect::<Vec<_>>(), &mut wrong);
        wrong
    }

    #[test]
    fn a_file_that_nothing_declares_is_found() {
        let declared = &[
            ("crates/a/src/lib.rs", "pub mod b;\npub(crate) mod e;\n#[path = \"../shared/f.rs\"]\nmod f;\n"),
            ("crates/a/src/b.rs", "mod c;\n"),
            ("crates/a/src/b/c.rs", ""),
            ("crates/a/src/e/mod.rs", ""),
            ("crates/a/shared/f.rs", ""),
            ("crates/a/tests/it/main.rs", "mod g;\n"),
            ("crates/a/tests/it/g.rs", ""),
            ("crates/a/build.rs", ""),
        ];
        assert_eq!(wrong_with(declared), Wrong::new());
        let orphan = &[("crates/a/tests/it/main.rs", "mod other_g;\n"), ("crates/a/tests/it/g.rs", "")];
        assert_eq!(wrong_with(orphan), ["crates/a/tests/it/g.rs: no `mod g;` names it, so it is not compiled"]);
    }

    #[test]
    fn a_second_program_of_tests_is_found() {
        let path = "crates/a/tests/more/main.rs";
        assert_eq!(
            wrong_with(&[(path, "")]),
            [format!("{path}: another program of tests; crates/a/tests/it is the one")]
        );
    }

    #[test]
    fn a_role_that_uses_another_is_found() {
        let files = |text| {
            wrong_with(&[
                ("crates/server/src/lib.rs", "mod clock;\nmod proxy;\nmod signer;\n"),
                ("crates/server/src/clock.rs", ""),
                ("crates/server/src/signer.rs", ""),
                ("crates/server/src/proxy.rs", text),
            ])
        };
        assert_eq!(files("use crate::clock;\nuse crate::signers::x;\n"), Wrong::new());
        let found = ["crates/server/src/proxy.rs: the role proxy uses the role signer"];
        assert_eq!(files("use crate::signer;\n"), found);
        assert_eq!(files("use crate::{clock, signer::x};\n"), found);
    }
}
