//! What the policies and the webhook add to the creation of a complete pod: the API server's processor time, and how
//! long the caller waits.
//!
//! A machine's speed changes from second to second by more than what is measured. So everything is installed at once,
//! each setting for a namespace of its own, and the namespaces take turns, a few creations each. What policies cost
//! that are about other kinds cannot be set apart so: in each round everything is removed for a while.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hearth_core::Platform;
use hearth_core::admission::{Rules, cel};
use hearth_core::names::annotation;
use kube::api::{ApiResource, DeleteParams, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::control_role::Role;
use crate::{PLATFORM, UID, objects, process, summary};

/// How long the API server may take to act on what is registered with it.
const EFFECT: Duration = Duration::from_secs(60);

/// How long what cannot be seen to act is given to act, or to act no more.
const SETTLE: Duration = Duration::from_secs(2);

/// So many creations are one namespace's turn.
const TURN: usize = 20;

/// A policy and its binding.
struct Policy {
    name: String,
    objects: Vec<Value>,
    mutates: bool,
    /// Whether pods of tools are among what it judges.
    sees_pods: bool,
}

/// What acts on the pods of a namespace.
struct Setting {
    name: String,
    namespace: String,
    /// Those of the policies that see pods.
    policies: Vec<usize>,
    webhook: bool,
}

/// What creations took in all, and how long the caller waited for each, in microseconds.
#[derive(Default)]
struct Cost {
    processor: f64,
    waits: Vec<f64>,
}

/// The control plane, and what is in it.
struct Stage {
    client: Client,
    pid: u32,
    policies: Vec<Policy>,
    settings: Vec<Setting>,
    webhook: Value,
    installed: Vec<Value>,
}

/// Measures and prints.
pub(crate) async fn run(plane: &ControlPlane, role: &Role, rounds: usize, count: usize) -> anyhow::Result<()> {
    let mut stage = Stage::new(plane, role).await?;
    // By setting, and at the end without anything installed.
    let mut rows: Vec<Vec<[f64; 2]>> = vec![Vec::new(); stage.settings.len() + 1];
    // The first round warms the API server up.
    for round in 0..=rounds {
        stage.install().await?;
        let mut costs: Vec<Cost> = stage.settings.iter().map(|_| Cost::default()).collect();
        for _ in 0..count.div_ceil(TURN) {
            for (setting, cost) in stage.settings.iter().zip(&mut costs) {
                stage.take_turn(setting, cost).await?;
            }
        }
        stage.remove().await?;
        let mut nothing = Cost::default();
        for _ in 0..count.div_ceil(TURN) {
            stage.take_turn(&stage.settings[0], &mut nothing).await?;
        }
        costs.push(nothing);
        if round > 0 {
            rows.iter_mut().zip(costs).for_each(|(row, cost)| row.push(cost.figures()));
        }
    }
    stage.print(&rows);
    Ok(())
}

impl Cost {
    /// The processor time of a creation in the mean, and the wait for one in the middle.
    fn figures(mut self) -> [f64; 2] {
        self.waits.sort_unstable_by(f64::total_cmp);
        [self.processor / self.waits.len() as f64, self.waits[self.waits.len() / 2]]
    }
}

impl Stage {
    async fn new(plane: &ControlPlane, role: &Role) -> anyhow::Result<Self> {
        let port = plane.server.rsplit(':').next().unwrap_or_default();
        let pid = process::with_argument("kube-apiserver", &format!("--secure-port={port}"))?;
        let mut policies: Vec<Policy> = Vec::new();
        for pair in cel::policies(&Rules::of(&Platform::from_toml(PLATFORM)?)).chunks(2) {
            let policy = pair.last().context("a policy comes with its binding")?;
            let name = policy["metadata"]["name"].as_str().context("a policy has a name")?.to_owned();
            let rules = policy["spec"]["matchConstraints"]["resourceRules"].as_array().context("it has rules")?;
            let mut resources = rules.iter().filter_map(|rule| rule["resources"].as_array()).flatten();
            let sees_pods = !name.starts_with("hearth-platform-") && resources.any(|resource| resource == "pods");
            let mutates = policy["kind"].as_str().is_some_and(|kind| kind.starts_with("Mutating"));
            policies.push(Policy { name, objects: pair.to_vec(), mutates, sees_pods });
        }
        let settings = settings(&policies);
        for setting in &settings {
            plane.namespace(&setting.namespace, &[(annotation::UID, UID)]).await?;
        }
        let (client, webhook) = (plane.admin().await, webhook(role)?);
        Ok(Self { client, pid, policies, settings, webhook, installed: Vec::new() })
    }

    fn print(&self, rows: &[Vec<[f64; 2]>]) {
        let nothing = self.settings.len();
        let all = nothing - 2;
        let measures = [("API server's processor time", "at most 600", ""), ("wait, p50", "", "at most 1500")];
        for (which, (what, of_policies, of_both)) in measures.into_iter().enumerate() {
            let added = |index: usize, to: usize| {
                rows[index]
                    .iter()
                    .zip(&rows[to])
                    .map(|(with, without)| with[which] - without[which])
                    .collect::<Vec<_>>()
            };
            let without: Vec<f64> = rows[nothing].iter().map(|figures| figures[which]).collect();
            summary(&format!("a pod's creation, {what}: no policies"), "µs", "", &without);
            for (index, setting) in self.settings.iter().enumerate().take(all).skip(1) {
                summary(&format!("  added by {}", setting.name), "µs", "", &added(index, 0));
            }
            summary("  added by the policies that are about other kinds", "µs", "", &added(0, nothing));
            summary("  added by all policies that are about pods", "µs", "", &added(all, 0));
            summary("  added by all policies", "µs", of_policies, &added(all, nothing));
            summary("  added by the webhook to all policies", "µs", "", &added(all + 1, all));
            summary("  added by both", "µs", of_both, &added(all + 1, nothing));
        }
    }

    /// Registers everything, each for the namespaces where it is to act, and waits until it does.
    async fn install(&mut self) -> anyhow::Result<()> {
        let named = |names: Vec<&str>| {
            let expression = json!({ "key": "kubernetes.io/metadata.name", "operator": "In", "values": names });
            json!({ "matchExpressions": [expression] })
        };
        for (index, policy) in self.policies.iter().enumerate() {
            let mut objects = policy.objects.clone();
            if policy.sees_pods {
                let within = self.settings.iter().filter(|setting| setting.policies.contains(&index));
                objects[0]["spec"]["matchResources"]["namespaceSelector"] =
                    named(within.map(|setting| setting.namespace.as_str()).collect());
            }
            self.installed.extend(objects);
        }
        let mut webhook = self.webhook.clone();
        let within = self.settings.iter().filter(|setting| setting.webhook);
        webhook["webhooks"][0]["namespaceSelector"] = named(within.map(|setting| setting.namespace.as_str()).collect());
        self.installed.push(webhook);
        for object in &self.installed {
            let made = self.api(object).create(&PostParams::default(), &serde_json::from_value(object.clone())?).await;
            made.with_context(|| format!("failed to make {}", name_of(object)))?;
        }
        self.wait(true).await
    }

    /// Removes everything, and waits until it acts no more.
    async fn remove(&mut self) -> anyhow::Result<()> {
        for object in std::mem::take(&mut self.installed) {
            self.api(&object).delete(name_of(&object), &DeleteParams::default()).await?;
        }
        self.wait(false).await
    }

    async fn wait(&self, installed: bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + EFFECT;
        for setting in &self.settings {
            while !self.acts(setting, installed).await? {
                ensure!(Instant::now() < deadline, "{} does not come to act, or to end", setting.name);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    /// Whether pods are treated as the setting says: filled in, and refused by whom.
    async fn acts(&self, setting: &Setting, installed: bool) -> anyhow::Result<bool> {
        let has =
            |mutates: bool| installed && setting.policies.iter().any(|&index| self.policies[index].mutates == mutates);
        let mut bare = complete(setting)?;
        bare["spec"]["securityContext"] = json!({});
        let filled = match self.create(setting, &bare).await {
            Ok(pod) => !pod["spec"]["securityContext"]["runAsUser"].is_null(),
            Err(_) => false,
        };
        let mut forbidden = complete(setting)?;
        forbidden["spec"]["containers"][0]["image"] = "elsewhere.example/a".into();
        forbidden["spec"]["securityContext"]["runAsUser"] = 1.into();
        let refusal = self.create(setting, &forbidden).await.err().map(|error| error.to_string()).unwrap_or_default();
        let by = match (installed && setting.webhook, has(false)) {
            (true, _) => refusal.contains("admission webhook"),
            (false, true) => refusal.contains("ValidatingAdmissionPolicy") && !refusal.contains("admission webhook"),
            (false, false) => refusal.is_empty(),
        };
        Ok(by && filled == has(true))
    }

    /// Makes a few pods, one after the other.
    async fn take_turn(&self, setting: &Setting, cost: &mut Cost) -> anyhow::Result<()> {
        let pod = complete(setting)?;
        let before = process::processor_time(self.pid)?;
        for _ in 0..TURN {
            let began = Instant::now();
            self.create(setting, &pod).await?;
            cost.waits.push(began.elapsed().as_secs_f64() * 1e6);
        }
        cost.processor += (process::processor_time(self.pid)? - before) as f64 / 1e3;
        Ok(())
    }

    async fn create(&self, setting: &Setting, pod: &Value) -> anyhow::Result<Value> {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Pod"), "pods");
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &setting.namespace, &resource);
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

/// None; each policy that sees pods, alone; all; all with the webhook. The namespaces' names are as long as that of the
/// tool whose pod it is.
fn settings(policies: &[Policy]) -> Vec<Setting> {
    let all: Vec<usize> = (0..policies.len()).filter(|&index| policies[index].sees_pods).collect();
    let mut settings: Vec<(String, Vec<usize>, bool)> = vec![("nothing".to_owned(), Vec::new(), false)];
    settings.extend(all.iter().map(|&index| (format!("{} alone", policies[index].name), vec![index], false)));
    settings.push(("all policies".to_owned(), all.clone(), false));
    settings.push(("all policies and the webhook".to_owned(), all, true));
    let settings = settings.into_iter().enumerate().map(|(index, (name, policies, webhook))| Setting {
        name,
        namespace: format!("tool-bench-{index}"),
        policies,
        webhook,
    });
    settings.collect()
}

/// The pod as its owner would write it, complete.
fn complete(setting: &Setting) -> anyhow::Result<Value> {
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
    let tool = setting.namespace.trim_start_matches("tool-");
    Ok(serde_json::from_str(&pod.to_string().replace("wikibot", tool))?)
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
