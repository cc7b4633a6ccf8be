//! Documents stay true: every path of the repository that one names in backquotes exists.

use std::path::Path;

use super::{Source, Wrong, has_ending};

/// The folders of the repository; a quoted text that begins with one is a path.
const ROOMS: &[&str] = &["bench/", "cluster/", "crates/", "deploy/", "docs/", "e2e/", "images/", "xtask/"];

pub(super) fn check(sources: &[Source], wrong: &mut Wrong) {
    for source in sources.iter().filter(|source| has_ending(&source.path, &["md"])) {
        for path in named(&source.text).filter(|path| !Path::new(path).exists()) {
            wrong.push(format!("{}: names `{path}`, which does not exist", source.path.display()));
        }
    }
}

/// The paths that a document names, without patterns, and without what is in blocks of code.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    let plain = text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    });
    plain
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|quoted| ROOMS.iter().any(|room| quoted.starts_with(room)))
        .map(|quoted| quoted.split([' ', ':', '#']).next().unwrap_or_default())
        .filter(|path| !path.contains(['*', '<', '{', '…']))
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn paths_are_found_in_quotes_and_not_in_code() {
        let text = "See `docs/a.md#part` and `crates/x/src/y.rs:12`, not `docs/<name>` or `make up`.\n\
                    ```sh\n`docs/b.md`\n```\nAnd `deploy/base/ -k`.\n";
        assert_eq!(named(text).collect::<Vec<_>>(), ["docs/a.md", "crates/x/src/y.rs", "deploy/base/"]);
    }
}
