//! Reading small YAML files of people: mistakes are reported with their place.

use serde::de::{DeserializeOwned, IgnoredAny};
use std::collections::BTreeMap;

/// What is wrong in a YAML file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct YamlError {
    /// What is wrong.
    pub reason: String,
    /// Line and column, counted from one, where known.
    pub place: Option<(u64, u64)>,
}

impl YamlError {
    /// A mistake in a value whose place is known.
    pub(crate) fn at<T>(value: &serde_saphyr::Spanned<T>, reason: impl std::fmt::Display) -> Self {
        Self { reason: reason.to_string(), place: place(value.referenced) }
    }
}

impl std::fmt::Display for YamlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "line {line}, column {column}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

/// Reads a document. An empty one is an empty map.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    let text = if is_blank(text) { "{}" } else { text };
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let reason = match error.location() {
            // The parser repeats the place at the end of its sentence.
            Some(_) => error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
            None => error.to_string(),
        };
        YamlError { reason, place: error.location().and_then(place) }
    })
}

/// The keys of a document's map that are not among `known`.
pub(crate) fn unknown_keys(text: &str, known: &[&str]) -> Result<Vec<String>, YamlError> {
    let map: BTreeMap<String, IgnoredAny> = read(text)?;
    Ok(map.into_keys().filter(|key| !known.contains(&key.as_str())).collect())
}

fn is_blank(text: &str) -> bool {
    text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    })
}

fn place(location: serde_saphyr::Location) -> Option<(u64, u64)> {
    (location != serde_saphyr::Location::UNKNOWN).then(|| (location.line(), location.column()))
}
