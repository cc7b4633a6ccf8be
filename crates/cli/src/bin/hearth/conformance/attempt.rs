//! An attempt as data: what is tried, why a tenant must not succeed, and what tells that it did.
//!
//! Attempts are the YAML files of `attempts`; this reads them and puts in what differs between clusters. It sends
//! nothing and decides nothing.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The chapters, in the order of the report.
const FILES: &[(&str, &str)] = &[
    ("reading", include_str!("attempts/reading.yaml")),
    ("rights", include_str!("attempts/rights.yaml")),
    ("identity", include_str!("attempts/identity.yaml")),
    ("privilege", include_str!("attempts/privilege.yaml")),
    ("users", include_str!("attempts/users.yaml")),
    ("volumes", include_str!("attempts/volumes.yaml")),
    ("scheduling", include_str!("attempts/scheduling.yaml")),
    ("images", include_str!("attempts/images.yaml")),
    ("pods", include_str!("attempts/pods.yaml")),
    ("workloads", include_str!("attempts/workloads.yaml")),
    ("services", include_str!("attempts/services.yaml")),
    ("ingresses", include_str!("attempts/ingresses.yaml")),
    ("objects", include_str!("attempts/objects.yaml")),
];

/// One thing that a tenant must not be able to do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Its name, unique in all files.
    pub name: String,
    /// Why a tenant must not be able to, a sentence.
    pub why: String,
    /// A legal object, by its name in `bases`, that is changed by `set` and `remove` and then created.
    #[serde(default)]
    pub create: Option<String>,
    /// A whole object to create, of the resource `resource`.
    #[serde(default)]
    pub object: Option<Value>,
    /// The plural of `object`.
    #[serde(default)]
    pub resource: Option<String>,
    /// A resource to list, as `secrets` or `ingresses.networking.k8s.io`.
    #[serde(default)]
    pub read: Option<String>,
    /// A verb and a resource to ask the API server's own authorizer about, as `get nodes/proxy`.
    #[serde(default)]
    pub may: Option<String>,
    /// A request of another kind.
    #[serde(default)]
    pub ask: Option<Ask>,
    /// Where.
    #[serde(default, rename = "in")]
    pub place: Place,
    /// Values to put into the legal object, by JSON pointer.
    #[serde(default)]
    pub set: BTreeMap<String, Value>,
    /// What to take out of it.
    #[serde(default)]
    pub remove: Vec<String>,
    /// What the answer must hold if it was possible, beside what was set.
    #[serde(default)]
    pub keeps: BTreeMap<String, Value>,
    /// What the answer holds if it was not possible after all; null stands for anything.
    #[serde(default)]
    pub unless: BTreeMap<String, Value>,
    /// A refusal with this text tells nothing.
    #[serde(default)]
    pub vague: Option<String>,
    /// Whether a refusal by quota is the one that is wanted.
    #[serde(default)]
    pub quota: bool,
}

/// A request of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The HTTP method.
    pub method: String,
    /// The path, without `dryRun`, which is added for all methods but GET.
    pub path: String,
    /// Header fields.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What is sent: a merge patch for PATCH unless `headers` say otherwise.
    #[serde(default)]
    pub body: Value,
}

/// Where something is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The tenant's namespace.
    #[default]
    Own,
    /// Somebody else's.
    Other,
    /// All namespaces, or what is in none.
    Cluster,
}

/// Every attempt with its chapter.
pub fn all() -> anyhow::Result<Vec<(&'static str, Attempt)>> {
    let mut attempts = Vec::new();
    for (chapter, text) in FILES {
        let read: Vec<Attempt> =
            serde_saphyr::from_str(text).with_context(|| format!("the attempts of {chapter} cannot be read"))?;
        attempts.extend(read.into_iter().map(|attempt| (*chapter, attempt)));
    }
    Ok(attempts)
}

/// What differs between clusters, by the name by which attempts call it.
#[derive(Clone, Debug, Default)]
pub struct Values(pub BTreeMap<&'static str, String>);

/// A value that an attempt needs and that nobody gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(pub String);

impl Values {
    /// The text with the values put in.
    pub fn text(&self, text: &str) -> Result<String, Missing> {
        let (mut filled, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once("${") {
            let (name, behind) = after.split_once('}').unwrap_or((after, ""));
            filled.push_str(before);
            filled.push_str(self.0.get(name).ok_or_else(|| Missing(name.to_owned()))?);
            rest = behind;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    /// The value with the values put in; a text that is nothing but a user number becomes a number.
    pub fn value(&self, value: &Value) -> Result<Value, Missing> {
        Ok(match value {
            Value::String(text) if text == "${uid}" || text == "${other-uid}" => {
                self.text(text)?.parse::<u32>().map_or(Value::Null, Value::from)
            }
            Value::String(text) => self.text(text)?.into(),
            Value::Array(list) => list.iter().map(|entry| self.value(entry)).collect::<Result<_, _>>()?,
            Value::Object(map) => {
                let entries = map.iter().map(|(key, value)| Ok((self.text(key)?, self.value(value)?)));
                Value::Object(entries.collect::<Result<Map<_, _>, _>>()?)
            }
            other => other.clone(),
        })
    }
}

/// Puts a value at a JSON pointer, making what leads to it; an index at the end of a list adds to it.
pub fn put(object: &mut Value, pointer: &str, value: Value) -> anyhow::Result<()> {
    let mut place = object;
    for step in pointer.split('/').skip(1).map(unescaped) {
        if place.is_null() {
            *place = if step == "0" { Value::Array(Vec::new()) } else { Value::Object(Map::new()) };
        }
        place = match place {
            Value::Object(map) => map.entry(step).or_insert(Value::Null),
            Value::Array(list) => {
                let index: usize = step.parse().with_context(|| format!("{pointer}: {step} is no index"))?;
                if index == list.len() {
                    list.push(Value::Null);
                }
                list.get_mut(index).with_context(|| format!("{pointer}: there is nothing at {index}"))?
            }
            _ => bail!("{pointer}: nothing can be put below a plain value"),
        };
    }
    *place = value;
    Ok(())
}

/// Takes out what is at a JSON pointer, if anything is.
pub fn take(object: &mut Value, pointer: &str) {
    let Some((parent, last)) = pointer.rsplit_once('/') else { return };
    match object.pointer_mut(parent) {
        Some(Value::Object(map)) => drop(map.remove(&unescaped(last))),
        Some(Value::Array(list)) => {
            if let Some(index) = last.parse().ok().filter(|index: &usize| *index < list.len()) {
                list.remove(index);
            }
        }
        _ => (),
    }
}

/// Whether an object holds a value at a JSON pointer. Others may have added to what leads there, so an entry of a
/// list counts wherever it stands, and an object may hold more.
pub fn holds(object: &Value, pointer: &str, value: &Value) -> bool {
    let steps: Vec<String> = pointer.split('/').skip(1).map(unescaped).collect();
    below(object, &steps, value)
}

fn below(actual: &Value, steps: &[String], wanted: &Value) -> bool {
    match (steps.split_first(), actual) {
        (None, _) => within(wanted, actual),
        (Some((_, rest)), Value::Array(list)) => list.iter().any(|entry| below(entry, rest, wanted)),
        (Some((step, rest)), Value::Object(map)) => map.get(step).is_some_and(|value| below(value, rest, wanted)),
        _ => false,
    }
}

fn within(wanted: &Value, actual: &Value) -> bool {
    match (wanted, actual) {
        (Value::Object(wanted), Value::Object(actual)) => {
            wanted.iter().all(|(key, value)| actual.get(key).is_some_and(|actual| within(value, actual)))
        }
        (Value::Array(wanted), Value::Array(actual)) => {
            wanted.iter().all(|value| actual.iter().any(|actual| within(value, actual)))
        }
        _ => wanted == actual,
    }
}

fn unescaped(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::super::bases;
    use super::*;

    #[test]
    fn every_attempt_is_whole() {
        let all = all().unwrap();
        assert!(all.len() >= 100, "{} attempts", all.len());
        let names: BTreeSet<&str> = all.iter().map(|(_, attempt)| attempt.name.as_str()).collect();
        assert_eq!(names.len(), all.len(), "two attempts have one name");
        for (chapter, attempt) in &all {
            let name = &attempt.name;
            assert!(attempt.why.ends_with('.') && attempt.why.len() > 30, "{chapter}/{name}: why not?");
            let ways = [
                attempt.create.is_some(),
                attempt.object.is_some(),
                attempt.read.is_some(),
                attempt.may.is_some(),
                attempt.ask.is_some(),
            ];
            assert_eq!(ways.iter().filter(|way| **way).count(), 1, "{chapter}/{name}: one way of trying");
            assert_eq!(attempt.object.is_some(), attempt.resource.is_some(), "{chapter}/{name}: object and resource");
            if let Some(base) = &attempt.create {
                assert!(bases::NAMES.contains(&base.as_str()), "{chapter}/{name}: no base {base}");
            }
            if let Some(may) = &attempt.may {
                assert_eq!(may.split(' ').count(), 2, "{chapter}/{name}: a verb and a resource");
            }
        }
    }

    #[test]
    fn values_are_put_in() {
        let values = Values([("uid", "5".to_owned()), ("host", "a.b".to_owned())].into());
        let filled = values.value(&json!({ "u": "${uid}", "t": ["x-${uid}.${host}"] })).unwrap();
        assert_eq!(filled, json!({ "u": 5, "t": ["x-5.a.b"] }));
        assert_eq!(values.text("${home}/x"), Err(Missing("home".to_owned())));
    }

    #[test]
    fn what_was_set_is_found_again() {
        let mut object = json!({ "spec": { "containers": [{ "name": "main" }] } });
        put(&mut object, "/spec/volumes/0", json!({ "name": "v", "emptyDir": {} })).unwrap();
        put(&mut object, "/metadata/annotations/a.b~1c", json!("d")).unwrap();
        assert_eq!(object["metadata"]["annotations"]["a.b/c"], "d");
        assert!(holds(&object, "/metadata/annotations/a.b~1c", &json!("d")));
        // Somebody put another volume before it, and filled in a default.
        let stored = json!({ "spec": { "volumes": [{ "name": "home" }, { "name": "v", "emptyDir": { "x": 1 } }] } });
        assert!(holds(&stored, "/spec/volumes/0", &json!({ "name": "v", "emptyDir": {} })));
        assert!(!holds(&stored, "/spec/volumes/0", &json!({ "name": "v", "hostPath": {} })));
        take(&mut object, "/spec/containers/0/name");
        assert_eq!(object["spec"]["containers"], json!([{}]));
    }
}
