//! `hearth check rules`: what is stored already that today's rules would refuse.
//!
//! Lists every object of a judged kind, page by page, and judges each by the rulebook as if it were made now; what is
//! in a namespace that is not judged passes. What the cluster itself wrote into an object since it was made (the node of a pod, the address of a
//! service) is left out of the judgement. It changes nothing, and keeps of each object only what is wrong with it.
//! Who wrote an object is not stored, so rules about writers are not judged.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use hearth_core::Platform;
use hearth_core::admission::fields::{Book, CHAPTERS, Resource};
use hearth_core::admission::{Operation, Request, Rules, Verdict, review};
use kube::{Client, Error};
use serde_json::{Value, json};

use super::Cluster;
use crate::conformance::Output;
use crate::instance::Place;
use crate::listing::printable;

/// How many objects are asked for at once.
const PAGE: usize = 200;

/// How often a list that took too long is begun again.
const MOST_BEGINNINGS: usize = 3;

/// Which cluster, by which rules.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    cluster: Cluster,
    /// The configuration by which to judge; the instance's own if it is not given.
    #[arg(long, value_name = "FILE")]
    platform: Option<PathBuf>,
    /// In which form to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Objects that are refused for the same reasons, under whatever made them.
#[derive(Debug, Default)]
struct Found {
    /// How many there are.
    count: usize,
    /// The rules that they are against.
    rules: Vec<&'static str>,
}

/// What was found out.
#[derive(Debug, Default)]
struct Report {
    /// How many objects were looked at.
    judged: usize,
    /// By namespace, name and reasons.
    found: BTreeMap<(String, String, Vec<String>), Found>,
}

/// What is stored and would be refused, as text, and whether that is nothing.
pub(super) async fn run(args: Args, place: &Place) -> anyhow::Result<(String, bool)> {
    let output = args.output;
    let report = judged(args, place).await?;
    Ok((report.write(output), report.found.is_empty()))
}

async fn judged(args: Args, place: &Place) -> anyhow::Result<Report> {
    let Args { cluster, platform, output: _ } = args;
    let platform = platform.unwrap_or_else(|| place.home.join("platform.toml"));
    let text = std::fs::read_to_string(&platform)
        .with_context(|| format!("failed to read {}; --platform names another", platform.display()))?;
    let rules = Rules::of(&Platform::from_toml(&text)?);
    let client = cluster.client(place).await?;
    let mut namespaces = BTreeMap::new();
    each(&client, "/api/v1/namespaces", |_, namespace| {
        let name = namespace.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        namespaces.insert(name, annotations(namespace));
    })
    .await?;
    let mut report = Report::default();
    for chapter in CHAPTERS.iter().filter(|chapter| !matches!(chapter.book, Book::Writers(_))) {
        for resource in chapter.resources.iter().filter(|resource| !resource.name.contains('/')) {
            report.add(&client, &rules, &namespaces, resource).await?;
        }
    }
    Ok(report)
}

fn annotations(object: &Value) -> BTreeMap<String, String> {
    let map = object.pointer("/metadata/annotations").and_then(Value::as_object);
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    map.into_iter().flatten().filter_map(text).collect()
}

/// Calls back with every object of a list and its kind, page by page; whether the API server has such a list.
async fn each(client: &Client, path: &str, mut found: impl FnMut(&str, &mut Value)) -> anyhow::Result<bool> {
    let mut after = String::new();
    loop {
        let request = http::Request::get(format!("{path}?limit={PAGE}{after}")).body(Vec::new())?;
        let mut list: Value = match client.request(request).await {
            Ok(list) => list,
            Err(Error::Api(status)) if status.code == 404 && after.is_empty() => return Ok(false),
            Err(error) => return Err(error).with_context(|| format!("failed to list {path}")),
        };
        let kind = list.get("kind").and_then(Value::as_str).unwrap_or_default().trim_end_matches("List").to_owned();
        for item in list.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            found(&kind, item);
        }
        match list.pointer("/metadata/continue").and_then(Value::as_str).filter(|token| !token.is_empty()) {
            Some(token) => after = format!("&continue={token}"),
            None => return Ok(true),
        }
    }
}

// === impl Report ===

impl Report {
    /// Judges all objects of a resource.
    async fn add(
        &mut self,
        client: &Client,
        rules: &Rules,
        namespaces: &BTreeMap<String, BTreeMap<String, String>>,
        resource: &Resource,
    ) -> anyhow::Result<()> {
        let api = if resource.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.group) };
        let path = format!("{api}/{}/{}", resource.version, resource.name);
        for _ in 0..MOST_BEGINNINGS {
            let mut part = Self::default();
            let listed =
                each(client, &path, |kind, object| part.judge(rules, namespaces, resource, kind, object)).await;
            match listed {
                Ok(_) => {
                    self.judged += part.judged;
                    for (key, found) in part.found {
                        let all = self.found.entry(key).or_default();
                        all.count += found.count;
                        all.rules = found.rules;
                    }
                    return Ok(());
                }
                // The list was too old to go on with.
                Err(error) if matches!(error.downcast_ref(), Some(Error::Api(status)) if status.code == 410) => (),
                Err(error) => return Err(error),
            }
        }
        bail!("{path} changes too fast to be listed; try again")
    }

    fn judge(
        &mut self,
        rules: &Rules,
        namespaces: &BTreeMap<String, BTreeMap<String, String>>,
        resource: &Resource,
        kind: &str,
        object: &mut Value,
    ) {
        let namespace = text(object, "/metadata/namespace");
        let maker = maker(object);
        let name = text(object, "/metadata/name");
        as_made(resource.name, object);
        if let Some(map) = object.as_object_mut() {
            map.insert("kind".to_owned(), kind.into());
        }
        let none = BTreeMap::new();
        let verdict = review(
            rules,
            &Request {
                operation: Operation::Create,
                group: resource.group,
                resource: resource.name,
                subresource: "",
                namespace: &namespace,
                user: "",
                object,
                old: None,
                annotations: namespaces.get(&namespace).unwrap_or(&none),
            },
        );
        self.judged += 1;
        if let Verdict::Refuse { violations, .. } = verdict {
            let mut found: Vec<&'static str> = violations.iter().map(|violation| violation.rule.name()).collect();
            found.sort_unstable();
            found.dedup();
            let reasons = violations.into_iter().map(|violation| violation.message).collect();
            let name = maker.map_or_else(|| format!("{kind} {name}"), |maker| format!("{kind} of {maker}"));
            let entry = self.found.entry((namespace, name, reasons)).or_default();
            entry.count += 1;
            entry.rules = found;
        }
    }

    fn write(&self, output: Output) -> String {
        let refused: usize = self.found.values().map(|found| found.count).sum();
        let mut by_rule: BTreeMap<&str, usize> = BTreeMap::new();
        for found in self.found.values() {
            found.rules.iter().for_each(|rule| *by_rule.entry(rule).or_default() += found.count);
        }
        if output == Output::Json {
            let found = self.found.iter().map(|((namespace, object, reasons), found)| {
                json!({
                    "namespace": namespace, "object": object, "count": found.count,
                    "rules": found.rules, "reasons": reasons,
                })
            });
            let document = json!({
                "judged": self.judged, "refused": refused, "by_rule": by_rule, "found": found.collect::<Vec<_>>(),
            });
            return format!("{document:#}\n");
        }
        let mut text = String::new();
        for ((namespace, object, reasons), found) in &self.found {
            let many = if found.count > 1 { format!(" ({} of them)", found.count) } else { String::new() };
            text.push_str(&format!("{}  {}{many}\n", printable(namespace), printable(object)));
            reasons.iter().for_each(|reason| text.push_str(&format!("  {}\n", printable(reason))));
        }
        if !self.found.is_empty() {
            text.push('\n');
        }
        let counts: Vec<String> = by_rule.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
        let against = if counts.is_empty() { String::new() } else { format!(" (by rule: {})", counts.join(", ")) };
        text.push_str(&format!("{} objects looked at, {refused} would be refused today{against}\n", self.judged));
        text
    }
}

/// What made an object, as `ReplicaSet web-5c9d`, so that its pods are told of together.
fn maker(object: &Value) -> Option<String> {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array)?;
    let owner = owners.iter().find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))?;
    Some(format!("{} {}", text(owner, "/kind"), text(owner, "/name")))
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Takes out what was not in the object when it was made: what the scheduler, the API server and controllers wrote.
fn as_made(resource: &str, object: &mut Value) {
    let spec: &[&str] = match resource {
        // A debugging container came by a request of its own.
        "pods" => &["nodeName", "ephemeralContainers"],
        "services" => &["clusterIP", "clusterIPs", "healthCheckNodePort"],
        _ => &[],
    };
    let metadata =
        ["deletionGracePeriodSeconds", "deletionTimestamp", "generation", "managedFields", "resourceVersion"];
    for (place, names) in [("/spec", spec), ("/metadata", &metadata), ("", &["status"])] {
        if let Some(map) = object.pointer_mut(place).and_then(Value::as_object_mut) {
            names.iter().for_each(|name| drop(map.remove(*name)));
        }
    }
    // Finalizers of Kubernetes itself are put on and taken off by its controllers.
    let own = |name: &Value| {
        let name = name.as_str().unwrap_or_default();
        !name.contains('/') || name.split('/').next().is_some_and(|domain| domain.ends_with("kubernetes.io"))
    };
    let left = object.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut).map(|list| {
        list.retain(|name| !own(name));
        list.is_empty()
    });
    if left == Some(true)
        && let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut)
    {
        metadata.remove("finalizers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_judged_as_it_was_made() {
        let mut pod = json!({
            "metadata": { "name": "a", "resourceVersion": "1", "finalizers": ["batch.kubernetes.io/job-tracking"] },
            "spec": { "nodeName": "node", "hostPID": true },
            "status": {},
        });
        as_made("pods", &mut pod);
        assert_eq!(pod, json!({ "metadata": { "name": "a" }, "spec": { "hostPID": true } }));
        let mut kept = json!({ "metadata": { "finalizers": ["foregroundDeletion", "example.com/a"] } });
        as_made("services", &mut kept);
        assert_eq!(kept, json!({ "metadata": { "finalizers": ["example.com/a"] } }));
    }

    #[test]
    fn pods_are_told_of_under_what_made_them() {
        let owner = |controller: bool| {
            json!({ "metadata": { "ownerReferences": [
                { "kind": "ReplicaSet", "name": "web-1", "controller": controller },
            ] } })
        };
        assert_eq!(maker(&owner(true)).as_deref(), Some("ReplicaSet web-1"));
        assert_eq!(maker(&owner(false)), None);
        let mut report = Report { judged: 3, found: BTreeMap::new() };
        let reasons = vec!["spec.hostPID is true: it must be false".to_owned()];
        let found = Found { count: 2, rules: vec!["node"] };
        report.found.insert(("tool-a".to_owned(), "Pod of ReplicaSet web-1".to_owned(), reasons), found);
        let text = report.write(Output::Table);
        assert_eq!(
            text,
            "tool-a  Pod of ReplicaSet web-1 (2 of them)\n  spec.hostPID is true: it must be false\n\n\
             3 objects looked at, 2 would be refused today (by rule: node 2)\n"
        );
    }
}
