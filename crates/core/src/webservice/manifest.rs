//! `service.manifest`: what the command remembers of a running web service, in the tool's home, YAML.
//!
//! The format is the original's, version 4: `backend`, `web` (the type), `cpu`, `memory`, `replicas` and
//! `web::extra_args`. Keys that this version does not know are kept as they are. Stopping removes the known ones.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::yaml::{self, YamlError};
use super::{Backend, Settings, Wishes};

/// The version of the format.
const VERSION: u32 = 4;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// The settings of the web service; none when it is stopped.
    pub wishes: Wishes,
    /// Keys of other versions of the command.
    others: BTreeMap<String, Value>,
}

/// The file as it is written.
#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    backend: Option<Spanned<String>>,
    web: Option<String>,
    cpu: Option<Spanned<String>>,
    memory: Option<Spanned<String>>,
    replicas: Option<u32>,
    #[serde(rename = "web::extra_args")]
    extra_args: Option<Vec<String>>,
}

const KNOWN: &[&str] = &["version", "backend", "web", "cpu", "memory", "replicas", "web::extra_args"];

impl Manifest {
    /// Reads a state file.
    pub fn parse(text: &str) -> Result<Self, YamlError> {
        let File { backend, web, cpu, memory, replicas, extra_args } = yaml::read(text)?;
        let mut others: BTreeMap<String, Value> = yaml::read(text)?;
        others.retain(|key, _| !KNOWN.contains(&key.as_str()));
        let wishes = Wishes {
            backend: parsed::<Backend>(backend)?,
            kind: web,
            cpu: parsed(cpu)?,
            memory: parsed(memory)?,
            replicas,
            extra_args,
        };
        Ok(Self { wishes, others })
    }

    /// What is to be remembered once `settings` run.
    pub fn started(self, settings: &Settings) -> Self {
        let Settings { kind, cpu, memory, replicas, extra_args } = settings.clone();
        let wishes = Wishes {
            backend: Some(Backend::Kubernetes),
            kind: Some(kind),
            cpu,
            memory,
            replicas: (replicas != 1).then_some(replicas),
            extra_args: (!extra_args.is_empty()).then_some(extra_args),
        };
        Self { wishes, others: self.others }
    }

    /// What is to be remembered once nothing runs.
    pub fn stopped(self) -> Self {
        Self { wishes: Wishes::default(), others: self.others }
    }

    /// The file's text; `written` is the time for its header.
    pub fn render(&self, written: jiff::Timestamp) -> String {
        let Wishes { backend, kind, cpu, memory, replicas, extra_args } = &self.wishes;
        let mut text = format!(
            "# This file is used by Toolforge infrastructure.\n# Please do not edit manually at this time.\n# {}\n",
            written.strftime("%Y-%m-%dT%H:%M:%SZ")
        );
        let mut line = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                // Writing to a text cannot fail.
                let _ = writeln!(text, "{key}: {value}");
            }
        };
        line("version", Some(VERSION.to_string()));
        line("backend", backend.map(|b| b.to_string()));
        line("web", kind.as_deref().map(scalar));
        line("cpu", cpu.as_ref().map(|c| scalar(&c.to_string())));
        line("memory", memory.as_ref().map(|m| scalar(&m.to_string())));
        line("replicas", replicas.map(|r| r.to_string()));
        line("web::extra_args", extra_args.as_ref().map(|args| Value::from(args.clone()).to_string()));
        for (key, value) in &self.others {
            line(&scalar(key), Some(value.to_string()));
        }
        text
    }
}

/// A text as a YAML scalar: as it is where that cannot be misread, or else as a JSON text, which YAML contains.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}

/// A text in a file as the value that it stands for.
fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: Option<Spanned<String>>) -> Result<Option<T>, YamlError> {
    text.map(|text| text.value.parse().map_err(|e: T::Err| YamlError::at(&text, e))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            kind: "python3.11".to_owned(),
            cpu: Some("1".parse().unwrap()),
            memory: Some("1Gi".parse().unwrap()),
            replicas: 2,
            extra_args: vec!["--a: b".to_owned(), "#é\"".to_owned()],
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let old = "version: 4\nweb: static\nfuture key: {a: [1, two]}\nreplicas: 3\n";
        let manifest = Manifest::parse(old).unwrap().started(&settings());
        let text = manifest.render("2026-11-22T18:00:00.5Z".parse().unwrap());
        assert_eq!(
            text,
            "# This file is used by Toolforge infrastructure.\n# Please do not edit manually at this time.\n# 2026-11-22T18:00:00Z\n\
             version: 4\nbackend: kubernetes\nweb: python3.11\ncpu: \"1\"\nmemory: \"1Gi\"\nreplicas: 2\n\
             web::extra_args: [\"--a: b\",\"#é\\\"\"]\n\"future key\": {\"a\":[1,\"two\"]}\n"
        );
        let read = Manifest::parse(&text).unwrap();
        assert_eq!(read, manifest);
        assert_eq!(read.wishes.settle().unwrap(), settings());
    }

    #[test]
    fn stopping_forgets_the_web_service_only() {
        let manifest = Manifest::parse("version: 4\nweb: static\nfuture: 1\n").unwrap().stopped();
        let text = manifest.render("2026-11-22T18:00:00Z".parse().unwrap());
        assert!(text.ends_with("# 2026-11-22T18:00:00Z\nversion: 4\nfuture: 1\n"), "{text}");
    }

    #[test]
    fn files_of_the_original_are_read() {
        let text = "# This file is used by Toolforge infrastructure.\nbackend: kubernetes\ncpu: null\nversion: 4\nweb: static\nweb::extra_args: []\n";
        let wishes = Manifest::parse(text).unwrap().wishes;
        assert_eq!(wishes.kind.as_deref(), Some("static"));
        assert_eq!(wishes.cpu, None);
        assert_eq!(Manifest::parse("").unwrap(), Manifest::default());
    }

    #[test]
    fn damage_is_reported_with_its_place() {
        for (text, place) in [("web: [", "line "), ("cpu: much\n", "line 1, column 6: 'much'"), ("\u{0}", "")] {
            let error = Manifest::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(place), "{text:?}: {error}");
        }
    }
}
