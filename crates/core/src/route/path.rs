//! Paths: what an Ingress path matches, and paths that could be read in two ways.
//!
//! Routing decides on the path as it was sent: nothing is decoded or resolved. A tool's server may read
//! `/a/..%2Fb` as `/b` though, so a path with dot segments, encoded dots or slashes, or doubled slashes has a second
//! reading, and where the two lead to different places the request is refused instead of guessed at.

use std::borrow::Cow;

/// The path of an Ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matcher {
    /// Without the slashes at the end of a prefix: `/` is the empty text.
    text: Box<str>,
    exact: bool,
    /// Of which of a tool's hosts it is.
    pub(super) site: u16,
}

impl Matcher {
    /// A matcher of the path of an Ingress, which starts with a slash, on one of the hosts.
    pub(super) fn new(site: u16, path: &str, exact: bool) -> Self {
        let text = if exact { path } else { path.trim_end_matches('/') };
        Self { text: text.into(), exact, site }
    }

    /// Whether `path`, without a query, is meant. A prefix matches by whole segments, and with or without a slash at
    /// its end.
    pub(super) fn matches(&self, path: &str) -> bool {
        match path.strip_prefix(&*self.text) {
            Some(rest) if self.exact => rest.is_empty(),
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }

    /// Sorts the matchers of a host as the API wants them tried: the longest path first, and exact before prefix.
    pub(super) fn precedence(&self) -> impl Ord + use<> {
        std::cmp::Reverse((self.text.len(), self.exact))
    }
}

/// The first segment and the rest, which starts with a slash: `/a/b` gives `a` and `/b`, `/a` gives `a` and `/`.
pub(super) fn split_first(path: &str) -> (&str, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    match path.find('/') {
        Some(at) => path.split_at(at),
        None => (path, "/"),
    }
}

/// The longest path that an Ingress of a tool may have, in bytes.
pub const LONGEST: usize = 512;

/// What a plain segment is, as a regular expression: a second writing of [`is_plain`] for the policies, which cannot
/// call it.
pub const PLAIN_SEGMENT: &str = "[.]?[A-Za-z0-9_~+:@,=-][A-Za-z0-9._~+:@,=-]*";

/// Whether a path has one reading only, whoever reads it: it starts with a slash, and each segment, of which only the
/// last may be empty, is of letters, digits and `. _ ~ + : @ , = -`, with one dot at its start at most and more after
/// that. So nothing in it is decoded, resolved, joined or taken for a parameter, a pattern or a line of configuration.
pub fn is_plain(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._~+:@,=-".contains(&b);
    let is_segment = |segment: &str| {
        let visible = segment.strip_prefix('.').unwrap_or(segment);
        !visible.is_empty() && !visible.starts_with('.') && visible.bytes().all(plain)
    };
    path.len() <= LONGEST && (path == "/" || rest.split('/').all(is_segment))
}

/// Whether a path of the legacy host is this tool's, by the segment by which the front door tells tools apart, and
/// plain.
pub fn is_plainly_below(path: &str, tool: &str) -> bool {
    is_plain(path) && !tool.is_empty() && split_first(path).0 == tool
}

/// The other reading of a path that can be read in two ways: with encoded dots and slashes decoded, doubled slashes
/// joined and dot segments resolved.
pub(super) fn second_reading(path: &str) -> Option<String> {
    let encoded = path.contains('%');
    if !encoded && !path.contains("//") && !path.contains("/.") {
        return None;
    }
    let decoded = if encoded { decode_dots_and_slashes(path) } else { Cow::Borrowed(path) };
    let mut segments = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => (),
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let mut read = format!("/{}", segments.join("/"));
    let last = decoded.rsplit('/').next().unwrap_or_default();
    if matches!(last, "" | "." | "..") && !read.ends_with('/') {
        read.push('/');
    }
    (read != path).then_some(read)
}

fn decode_dots_and_slashes(path: &str) -> Cow<'_, str> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        decoded.push_str(before);
        let character = match escape.get(..3) {
            Some(text) if text.eq_ignore_ascii_case("%2e") => Some('.'),
            Some(text) if text.eq_ignore_ascii_case("%2f") => Some('/'),
            // Some servers take a backslash for a slash.
            Some(text) if text.eq_ignore_ascii_case("%5c") => Some('/'),
            _ => None,
        };
        decoded.push(character.unwrap_or('%'));
        rest = escape.get(if character.is_some() { 3 } else { 1 }..).unwrap_or_default();
    }
    if decoded.is_empty() {
        return Cow::Borrowed(path);
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the API's documentation, "Ingress: Examples", and some of our own.
    #[test]
    fn paths_match_as_the_api_says() {
        let cases = [
            (false, "/", "/any/path", true),
            (false, "/", "/", true),
            (true, "/foo", "/foo", true),
            (true, "/foo", "/bar", false),
            (true, "/foo", "/foo/", false),
            (true, "/foo/", "/foo", false),
            (true, "/foo/", "/foo/", true),
            (false, "/foo", "/foo", true),
            (false, "/foo", "/foo/", true),
            (false, "/foo/", "/foo", true),
            (false, "/foo/", "/foo/", true),
            (false, "/aaa/bb", "/aaa/bbb", false),
            (false, "/aaa/bbb", "/aaa/bbb", true),
            (false, "/aaa/bbb/", "/aaa/bbb", true),
            (false, "/aaa/bbb", "/aaa/bbb/", true),
            (false, "/aaa/bbb", "/aaa/bbb/ccc", true),
            (false, "/aaa/bbb", "/aaa/bbbxyz", false),
            (false, "/aaa", "/ccc", false),
            (false, "/foo", "/Foo", false),
            (false, "/foo", "/%66oo", false),
        ];
        for (exact, rule, path, expected) in cases {
            assert_eq!(Matcher::new(0, rule, exact).matches(path), expected, "exact: {exact}, {rule} against {path}");
        }
    }

    #[test]
    fn second_readings() {
        let cases = [
            ("/a/b", None),
            ("/a/b/", None),
            ("/", None),
            ("/a%20b", None),
            ("/a.b/.well-known/x", None),
            ("/100%", None),
            ("/a/../b", Some("/b")),
            ("/a/%2e%2E/b", Some("/b")),
            ("/a/..%2fb", Some("/b")),
            ("/a/.%2e%5Cb", Some("/b")),
            ("/../../x", Some("/x")),
            ("/a//b", Some("/a/b")),
            ("//a", Some("/a")),
            ("/a/.", Some("/a/")),
            ("/a/b/..", Some("/a/")),
            ("/..", Some("/")),
            ("%2f", Some("/")),
            ("/a%2Fb%zz", Some("/a/b%zz")),
        ];
        for (path, expected) in cases {
            assert_eq!(second_reading(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn plain_paths() {
        let plain = ["/", "/a", "/a/", "/a.b/c", "/.well-known/x", "/a/b,c=d@e:f+g~h_i-j", "/1"];
        for path in plain {
            assert!(is_plain(path), "{path}");
            assert_eq!(second_reading(path), None, "{path}");
        }
        let odd = [
            "", "a", "//", "/a//b", "/a//", "/.", "/..", "/a/.", "/a/../b", "/...", "/..a", "/%61", "/a;b", "/a{b",
            "/a}", "/a\nb", "/a\n", "/a b", "/a\"b", "/a\\b", "/a$b", "/a*", "/a?b", "/a#b", "/é", "/a|b", "/(a)",
            "/a'b",
        ];
        for path in odd {
            assert!(!is_plain(path), "{path:?}");
        }
        assert!(is_plain(&format!("/{}", "a".repeat(LONGEST - 1))));
        assert!(!is_plain(&format!("/{}", "a".repeat(LONGEST))));
        assert!(is_plainly_below("/a", "a") && is_plainly_below("/a/b", "a"));
        assert!(!is_plainly_below("/ab", "a") && !is_plainly_below("/", "") && !is_plainly_below("/a/../b", "a"));
    }

    #[test]
    fn first_segments() {
        for (path, expected) in
            [("/a/b", ("a", "/b")), ("/a", ("a", "/")), ("/a/", ("a", "/")), ("/", ("", "/")), ("//a", ("", "/a"))]
        {
            assert_eq!(split_first(path), expected, "{path}");
        }
    }
}
