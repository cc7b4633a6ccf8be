//! `service.template`: settings that a maintainer writes down once, YAML.
//!
//! Keys: `backend`, `type`, `cpu`, `mem`, `replicas`, `extra_args` (a list, or one text that is split at blanks), and
//! `canonical`, `release` and `buildservice-image` of older files, which mean nothing here. An unknown key warns and
//! is left out, so that a file that a newer command understands still works.

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::yaml::{self, YamlError};
use super::{Backend, Wishes};

/// What a template says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Its settings.
    pub wishes: Wishes,
    /// Sentences about keys that are left out.
    pub warnings: Vec<String>,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct File {
    backend: Option<Spanned<String>>,
    r#type: Option<String>,
    cpu: Option<Spanned<String>>,
    mem: Option<Spanned<String>>,
    replicas: Option<u32>,
    extra_args: Option<Arguments>,
}

/// Arguments, written as a list or as one text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Arguments {
    List(Vec<String>),
    Text(String),
}

const KNOWN: &[&str] = &["backend", "type", "cpu", "mem", "replicas", "extra_args"];
const WITHOUT_MEANING: &[&str] = &["canonical", "release", "buildservice-image"];

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, YamlError> {
        let File { backend, r#type, cpu, mem, replicas, extra_args } = yaml::read(text)?;
        let mut warnings = Vec::new();
        let (old, unknown): (Vec<_>, Vec<_>) =
            yaml::unknown_keys(text, KNOWN)?.into_iter().partition(|key| WITHOUT_MEANING.contains(&key.as_str()));
        if !unknown.is_empty() {
            warnings.push(format!("contains unknown keys: {}", unknown.join(", ")));
        }
        if !old.is_empty() {
            warnings.push(format!("contains keys that have no meaning here: {}", old.join(", ")));
        }
        let extra_args = extra_args.map(|arguments| match arguments {
            Arguments::List(list) => list,
            Arguments::Text(text) => text.split_whitespace().map(str::to_owned).collect(),
        });
        let wishes = Wishes {
            backend: parsed::<Backend>(backend)?,
            kind: r#type,
            cpu: parsed(cpu)?,
            memory: parsed(mem)?,
            replicas,
            extra_args,
        };
        Ok(Self { wishes, warnings })
    }
}

/// A text in a file as the value that it stands for.
fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: Option<Spanned<String>>) -> Result<Option<T>, YamlError> {
    text.map(|text| text.value.parse().map_err(|e: T::Err| YamlError::at(&text, e))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key() {
        let text = "# mine\nbackend: kubernetes\ntype: static\ncpu: 1\nmem: 1Gi\nreplicas: 2\nextra_args: [--a, b c]\n";
        let template = Template::parse(text).unwrap();
        assert_eq!(template.warnings, Vec::<String>::new());
        let wishes = template.wishes;
        assert_eq!(wishes.backend, Some(Backend::Kubernetes));
        assert_eq!(wishes.kind.as_deref(), Some("static"));
        assert_eq!(wishes.cpu.map(|c| c.to_string()).as_deref(), Some("1"));
        assert_eq!(wishes.memory.map(|m| m.to_string()).as_deref(), Some("1Gi"));
        assert_eq!(wishes.replicas, Some(2));
        assert_eq!(wishes.extra_args, Some(vec!["--a".to_owned(), "b c".to_owned()]));
    }

    #[test]
    fn an_empty_file_asks_for_nothing() {
        for text in ["", "\n# nothing\n", "---\n"] {
            assert_eq!(Template::parse(text).unwrap().wishes, Wishes::default(), "{text:?}");
        }
        let args = Template::parse("extra_args: --a b").unwrap().wishes.extra_args;
        assert_eq!(args, Some(vec!["--a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn unknown_keys_warn() {
        let template = Template::parse("memory: 1Gi\ncanonical: true\ntype: static").unwrap();
        assert_eq!(
            template.warnings,
            ["contains unknown keys: memory", "contains keys that have no meaning here: canonical"]
        );
        assert_eq!(template.wishes.kind.as_deref(), Some("static"));
    }

    #[test]
    fn mistakes_have_a_place() {
        let check = |text: &str, expected: &str| {
            let error = Template::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        };
        check(
            "type: static\nmem: 512m\n",
            "line 2, column 6: '512m' is not an amount of memory: m means thousandths of a byte",
        );
        check("backend: docker", "line 1, column 10: 'docker' is not a backend");
        check("replicas: two", "line 1, column 11: ");
        check("type: static\n mem: 1Gi", "line 2, column ");
        check("type: static\ntype: python", "line 2, column 1: ");
        check("- static", "line 1, column 1: ");
    }
}
