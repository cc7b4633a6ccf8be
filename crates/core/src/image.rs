//! References to container images, read as the container runtime reads them.
//!
//! Which registry an image comes from decides who may run it, so a reference is parsed whole,
//! by the grammar of the distribution project, and registries and paths are compared by segments.

use std::fmt;
use std::str::FromStr;

/// A repository: a registry and a path in it. Also a prefix of repositories, whose path may be empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Repository {
    registry: String,
    path: Vec<String>,
}

/// A parsed image reference: a repository with a tag, a digest or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef {
    repository: Repository,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a text is not an image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an image reference: {reason}")]
pub struct ImageError {
    text: String,
    reason: &'static str,
}

impl Repository {
    /// Parses a registry, or a registry and a path, of a list of places from which images are allowed.
    pub fn prefix(text: &str) -> Result<Self, ImageError> {
        let error = |reason| ImageError { text: text.to_owned(), reason };
        let mut parts = text.split('/');
        let registry = parts.next().unwrap_or_default();
        if !is_registry(registry) {
            return Err(error("it does not start with a registry's host"));
        }
        let path: Vec<String> = parts.map(str::to_owned).collect();
        if !path.iter().all(|segment| is_path_segment(segment)) {
            return Err(error("a segment of its path has characters that are not allowed"));
        }
        Ok(Self { registry: registry.to_owned(), path })
    }

    /// Whether this repository is `prefix`, or lies below it, by whole segments.
    pub fn is_within(&self, prefix: &Self) -> bool {
        self.registry == prefix.registry && self.path.starts_with(&prefix.path)
    }
}

impl ImageRef {
    /// The registry and path, without tag and digest.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The digest, `sha256:…`, if the reference names one.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }
}

// === impl ImageRef ===

impl FromStr for ImageRef {
    type Err = ImageError;

    /// Parses a reference. A name without a registry belongs to `docker.io`, and one without a path to `library/`,
    /// as the runtime would pull it.
    fn from_str(text: &str) -> Result<Self, ImageError> {
        let error = |reason| ImageError { text: text.to_owned(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(error("its digest is not sha256: and 64 lower-case hexadecimal digits")),
            None => (text, None),
        };
        let last_slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest.get(last_slash..).and_then(|last| last.rsplit_once(':')) {
            Some((last, tag)) if is_tag(tag) => {
                (rest.get(..last_slash + last.len()).unwrap_or_default(), Some(tag.to_owned()))
            }
            Some(_) => return Err(error("its tag has characters that are not allowed")),
            None => (rest, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path.to_owned()),
            Some(_) => ("docker.io", name.to_owned()),
            None => ("docker.io", format!("library/{name}")),
        };
        if !is_registry(registry) {
            return Err(error("its registry is not a host"));
        }
        let path: Vec<String> = path.split('/').map(str::to_owned).collect();
        if !path.iter().all(|segment| is_path_segment(segment)) {
            return Err(error("a segment of its path has characters that are not allowed"));
        }
        Ok(Self { repository: Repository { registry: registry.to_owned(), path }, tag, digest })
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.registry)?;
        self.path.iter().try_for_each(|segment| write!(f, "/{segment}"))
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// A host or IPv4 address in lower case, with an optional port.
fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    host.split('.').all(label) && !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit())
}

/// Lower-case letters and digits, joined by one dot, one or two underscores, or hyphens.
fn is_path_segment(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = text.bytes().next().is_some_and(alphanumeric) && text.bytes().next_back().is_some_and(alphanumeric);
    let inner = text.bytes().all(|b| alphanumeric(b) || matches!(b, b'.' | b'_' | b'-'));
    let joints = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|joint| !joint.is_empty());
    ends && inner && joints.into_iter().all(|j| matches!(j, "." | "_" | "__") || j.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(image: &str, prefix: &str) -> Option<bool> {
        let prefix = Repository::prefix(prefix).unwrap();
        image.parse::<ImageRef>().ok().map(|image| image.repository().is_within(&prefix))
    }

    #[test]
    fn registries_are_compared_whole() {
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(within("r.example/hearth/static:1", "r.example"), Some(true));
        assert_eq!(within(&format!("r.example/a@{digest}"), "r.example"), Some(true));
        assert_eq!(within(&format!("r.example/a:1@{digest}"), "r.example"), Some(true));
        assert_eq!(within("r.example:443/a", "r.example"), Some(false));
        assert_eq!(within("r.example.evil/a", "r.example"), Some(false));
        assert_eq!(within("r.example/hearth-evil/a", "r.example/hearth"), Some(false));
        assert_eq!(within("r.example/hearth/a", "r.example/hearth"), Some(true));
        assert_eq!(within("nginx", "r.example"), Some(false));
        assert_eq!(within("library/nginx", "docker.io/library"), Some(true));
        assert_eq!(within("nginx:1", "docker.io/library/nginx"), Some(true));
    }

    #[test]
    fn what_no_runtime_could_pull_is_refused() {
        let short = format!("r.example/a@sha256:{}", "a".repeat(63));
        for bad in [
            "",
            "R.example/a",
            "r.example/A",
            "r.example//a",
            "r.example/a/",
            "u@r.example/a",
            "r.example/a:",
            "r.example/a b",
            "r.example/../a",
            "https://r.example/a",
            &short,
        ] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn shown_as_pulled() {
        assert_eq!("nginx:1".parse::<ImageRef>().unwrap().to_string(), "docker.io/library/nginx:1");
    }
}
