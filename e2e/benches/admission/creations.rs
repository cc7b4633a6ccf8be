//! What the policies and the webhook add to the creation of a complete pod: the API server's processor time, and how
//! long the caller waits. Each policy alone, all together, and all with the webhook, against none, in turn.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hearth_core::Platform;
use hearth_core::admission::{Rules, cel};
use kube::api::{ApiResource, DeleteParams, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::control_role::Role;
use crate::{NAMESPACE, PLATFORM, objects, process, summary};

/// How long the API server may take to act on what is registered with it.
const EFFECT: Duration = Duration::from_secs(60);

/// How long what cannot be seen to act is given to act, or to act no more.
const SETTLE: Duration = Duration::from_secs(2);

/// A policy with its bindings.
struct Policy {
    name: String,
    objects: Vec<Value>,
    mutates: bool,
    /// Whether pods of tools are among what it judges.
    sees_pods: bool,
}

/// What is installed for a measurement.
struct Setting {
    name: String,
    policies: Vec<usize>,
    webhook: bool,
}

/// What a creation took, in microseconds.
struct Cost {
    processor: f64,
    middle: f64,
}

/// One of the two figures.
type Of = fn(&Cost) -> f64;

/// The control plane, and what is in it.
struct Stage {
    client: Client,
    pid: u32,
    policies: Vec<Policy>,
    webhook: Value,
    installed: Vec<Value>,
}

/// Measures and prints.
pub(crate) async fn run(plane: &ControlPlane, role: &Role, rounds: usize, count: usize) -> anyhow::Result<()> {
    let mut stage = Stage::new(plane, role).await?;
    let settings = stage.settings();
    let mut costs: Vec<Vec<Cost>> = settings.iter().map(|_| Vec::new()).collect();
    // The first round warms the API server up.
    for round in 0..=rounds {
        for (setting, costs) in settings.iter().zip(&mut costs) {
            stage.install(setting).await?;
            let cost = stage.cost(count).await?;
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    let column = |index: usize, of: Of| costs[index].iter().map(of).collect::<Vec<_>>();
    let added = |index: usize, to: usize, of: Of| {
        costs[index].iter().zip(&costs[to]).map(|(with, without)| of(with) - of(without)).collect::<Vec<_>>()
    };
    let all = settings.len() - 2;
    let measures: [(&str, Of, &str, &str); 2] = [
        ("API server's processor time", |cost| cost.processor, "at most 600", ""),
        ("wait, p50", |cost| cost.middle, "", "at most 1500"),
    ];
    for (what, of, of_policies, of_both) in measures {
        summary(&format!("a pod's creation, {what}: no policies"), "µs", "", &column(0, of));
        for (index, setting) in settings.iter().enumerate().take(all).skip(1) {
            summary(&format!("  added by {}", setting.name), "µs", "", &added(index, 0, of));
        }
        summary("  added by all policies", "µs", of_policies, &added(all, 0, of));
        summary("  added by the webhook to all policies", "µs", "", &added(all + 1, all, of));
        summary("  added by both", "µs", of_both, &added(all + 1, 0, of));
    }
    Ok(())
}

impl Stage {
    async fn new(plane: &ControlPlane, role: &Role) -> anyhow::Result<Self> {
        let port = plane.server.rsplit(':').next().unwrap_or_default();
        let pid = process::with_argument("kube-apiserver", &format!("--secure-port={port}"))?;
        let mut policies: Vec<Policy> = Vec::new();
        for object in cel::policies(&Rules::of(&Platform::from_toml(PLATFORM)?)) {
            let kind = object["kind"].as_str().unwrap_or_default();
            let name = object["spec"]["policyName"].as_str().or(object["metadata"]["name"].as_str());
            let name = name.context("a policy has a name")?.to_owned();
            let rules = object["spec"]["matchConstraints"]["resourceRules"].as_array();
            let of_tools = !name.starts_with("hearth-platform-");
            let sees_pods = of_tools
                && rules.is_some_and(|rules| {
                    rules.iter().filter_map(|rule| rule["resources"].as_array()).flatten().any(|name| name == "pods")
                });
            let mutates = kind.starts_with("Mutating");
            match policies.iter_mut().find(|known| known.name == name) {
                Some(known) => {
                    known.sees_pods |= sees_pods;
                    known.objects.push(object);
                }
                None => policies.push(Policy { name, objects: vec![object], mutates, sees_pods }),
            }
        }
        Ok(Self { client: plane.admin().await, pid, policies, webhook: webhook(role)?, installed: Vec::new() })
    }

    /// None; each policy that sees pods, alone; those that do not; all; all with the webhook.
    fn settings(&self) -> Vec<Setting> {
        let all: Vec<usize> = (0..self.policies.len()).collect();
        let (seeing, others): (Vec<usize>, Vec<usize>) = all.iter().partition(|&&index| self.policies[index].sees_pods);
        let setting = |name: &str, policies: Vec<usize>, webhook| Setting { name: name.to_owned(), policies, webhook };
        let mut settings = vec![setting("nothing", Vec::new(), false)];
        settings.extend(
            seeing.iter().map(|&index| setting(&format!("{} alone", self.policies[index].name), vec![index], false)),
        );
        settings.push(setting("the policies that are about other kinds", others, false));
        settings.push(setting("all policies", all.clone(), false));
        settings.push(setting("all policies and the webhook", all, true));
        settings
    }

    /// Registers what is wanted, removes what is not, and waits until the API server acts so.
    async fn install(&mut self, setting: &Setting) -> anyhow::Result<()> {
        let mut wanted: Vec<Value> = Vec::new();
        for &index in &setting.policies {
            wanted.extend(self.policies[index].objects.iter().cloned());
        }
        wanted.extend(setting.webhook.then(|| self.webhook.clone()));
        for object in self.installed.iter().filter(|object| !wanted.contains(object)) {
            self.api(object).delete(name_of(object), &DeleteParams::default()).await?;
        }
        for object in wanted.iter().filter(|object| !self.installed.contains(object)) {
            let made = self.api(object).create(&PostParams::default(), &serde_json::from_value(object.clone())?).await;
            made.with_context(|| format!("failed to make {}", name_of(object)))?;
        }
        self.installed = wanted;
        let deadline = Instant::now() + EFFECT;
        while !self.acts(setting).await? {
            ensure!(Instant::now() < deadline, "{} does not come to act", setting.name);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    /// Whether pods are treated as the setting says: filled in, and refused by whom.
    async fn acts(&self, setting: &Setting) -> anyhow::Result<bool> {
        let has = |mutates: bool| {
            let mut policies = setting.policies.iter().map(|&index| &self.policies[index]);
            policies.any(|policy| policy.sees_pods && policy.mutates == mutates)
        };
        let mut bare = complete();
        bare["spec"]["securityContext"] = json!({});
        let filled = match self.create(&bare).await {
            Ok(pod) => !pod["spec"]["securityContext"]["runAsUser"].is_null(),
            Err(_) => false,
        };
        let mut forbidden = complete();
        forbidden["spec"]["containers"][0]["image"] = "elsewhere.example/a".into();
        let refusal = self.create(&forbidden).await.err().map(|error| error.to_string()).unwrap_or_default();
        let by = match (setting.webhook, has(false)) {
            (true, _) => refusal.contains("admission webhook"),
            (false, true) => refusal.contains("ValidatingAdmissionPolicy") && !refusal.contains("admission webhook"),
            (false, false) => refusal.is_empty(),
        };
        Ok(by && filled == has(true))
    }

    /// What each of `count` creations takes, one after the other.
    async fn cost(&self, count: usize) -> anyhow::Result<Cost> {
        let pod = complete();
        for _ in 0..50 {
            self.create(&pod).await?;
        }
        let mut waits = Vec::with_capacity(count);
        let before = process::processor_time(self.pid)?;
        for _ in 0..count {
            let began = Instant::now();
            self.create(&pod).await?;
            waits.push(began.elapsed().as_secs_f64() * 1e6);
        }
        let spent = process::processor_time(self.pid)? - before;
        waits.sort_unstable_by(f64::total_cmp);
        Ok(Cost { processor: spent as f64 / 1e3 / count as f64, middle: waits[count / 2] })
    }

    async fn create(&self, pod: &Value) -> anyhow::Result<Value> {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Pod"), "pods");
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), NAMESPACE, &resource);
        let create = PostParams { dry_run: true, ..PostParams::default() };
        Ok(serde_json::to_value(api.create(&create, &serde_json::from_value(pod.clone())?).await?)?)
    }

    fn api(&self, object: &Value) -> Api<DynamicObject> {
        let kind = object["kind"].as_str().unwrap_or_default();
        let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let lower = kind.to_lowercase();
        let plural = lower.strip_suffix('y').map_or_else(|| format!("{lower}s"), |start| format!("{start}ies"));
        Api::all_with(self.client.clone(), &ApiResource::from_gvk_with_plural(&gvk, &plural))
    }
}

/// The pod as its owner would write it, complete.
fn complete() -> Value {
    let mut pod = objects::pod();
    for field in ["managedFields", "ownerReferences", "creationTimestamp"] {
        pod["metadata"].as_object_mut().map(|metadata| metadata.remove(field));
    }
    if let Some(volumes) = pod["spec"]["volumes"].as_array_mut() {
        volumes.retain(|volume| volume["name"] != "token");
    }
    if let Some(mounts) = pod["spec"]["containers"][0]["volumeMounts"].as_array_mut() {
        mounts.retain(|mount| mount["name"] != "token");
    }
    pod
}

/// The webhook's registration as the platform's is, but for where it is.
fn webhook(role: &Role) -> anyhow::Result<Value> {
    let text = include_str!("../../../deploy/base/admission.yaml");
    for document in text.split("\n---\n") {
        let mut document: Value = serde_saphyr::from_str(document)?;
        if document["kind"] == "MutatingWebhookConfiguration" {
            document["webhooks"][0]["clientConfig"] = role.client_config()?;
            return Ok(document);
        }
    }
    anyhow::bail!("the webhook's registration is not in deploy/base/admission.yaml")
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
