//! The instance that is measured: its cluster, its role `accounts`, and what the API server counts.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hearth_core::Platform;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

const NAMESPACE: &str = "hearth-system";

/// The resources of which accounts makes one for each tool.
const RESOURCES: [&str; 5] =
    ["namespaces", "resourcequotas", "limitranges", "rolebindings", "certificatesigningrequests"];

/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A running instance.
pub(crate) struct Instance {
    pub(crate) home: PathBuf,
    pub(crate) client: Client,
    pub(crate) platform: Platform,
    /// Where the directory listens.
    pub(crate) ldap: SocketAddr,
    pods: Api<Pod>,
}

/// How often the API server was asked, by verb and resource.
#[derive(Debug, Default)]
pub(crate) struct Calls(BTreeMap<(String, String), u64>);

impl Instance {
    /// The one in `HEARTH_HOME`.
    pub(crate) async fn open() -> anyhow::Result<Self> {
        let home = std::env::var_os("HEARTH_HOME").map(PathBuf::from).context("HEARTH_HOME names no instance")?;
        let kubeconfig = Kubeconfig::read_from(home.join("admin.kubeconfig"))?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let platform = Platform::from_toml(&std::fs::read_to_string(home.join("platform.toml"))?)?;
        let network: Value = serde_json::from_slice(&std::fs::read(home.join("instance.json"))?)?;
        let octet = network["octet"].as_u64().context("the instance has no network")?;
        let ldap = SocketAddr::from((Ipv4Addr::new(10, u8::try_from(octet)?, 128, 89), 636));
        let pods = Api::namespaced(client.clone(), NAMESPACE);
        Ok(Self { home, client, platform, ldap, pods })
    }

    /// How many tools the directory has.
    pub(crate) fn tools(&self) -> anyhow::Result<usize> {
        let listed: Value = serde_json::from_str(&self.hearth(&["tool", "list", "--output", "json"])?)?;
        Ok(listed["tools"].as_array().context("no list of tools")?.len())
    }

    /// Runs the operator's command; what it prints.
    pub(crate) fn hearth(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = std::process::Command::new(self.home.join("bin/hearth")).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "hearth {} failed: {said}", arguments.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A process of the instance, by its pid file.
    pub(crate) fn process(&self, name: &str) -> anyhow::Result<u32> {
        let file = self.home.join(format!("run/{name}.pid"));
        let text = std::fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
        Ok(text.split_whitespace().next().context("an empty pid file")?.parse()?)
    }

    /// Sets the number of copies of accounts, and waits until they run.
    pub(crate) async fn scale(&self, copies: u32) -> anyhow::Result<()> {
        let deployments: Api<k8s_openapi::api::apps::v1::Deployment> = Api::namespaced(self.client.clone(), NAMESPACE);
        let patch = Patch::Merge(json!({ "spec": { "replicas": copies } }));
        deployments.patch("accounts", &PatchParams::default(), &patch).await?;
        self.until("accounts is scaled", async || {
            let there = self.pods.list(&ListParams::default().labels("app.kubernetes.io/name=accounts")).await?.items;
            let running = there.iter().filter(|pod| started(pod).is_some()).count();
            Ok((there.len() == copies as usize && running == there.len()).then_some(()))
        })
        .await
    }

    /// The role's process.
    pub(crate) fn role(&self) -> anyhow::Result<u32> {
        // The node's processes are named by the instance's network, so that another instance's are not taken.
        let octet: Value = serde_json::from_slice(&std::fs::read(self.home.join("instance.json"))?)?;
        let node = format!("/hearth{}/", octet["octet"]);
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default();
            if read("cmdline").starts_with("/hearthd\0accounts\0") && read("cgroup").contains(&node) {
                return Ok(path.file_name().and_then(|name| name.to_str()).unwrap_or_default().parse()?);
            }
        }
        bail!("accounts does not run")
    }

    /// Ends the role as a crash would, and waits until it runs again.
    pub(crate) async fn kill_role(&self) -> anyhow::Result<()> {
        let before = self.pod().await?;
        let killed = std::process::Command::new("kill").args(["-KILL", &self.role()?.to_string()]).status()?;
        anyhow::ensure!(killed.success(), "accounts could not be killed");
        self.until("accounts runs again", async || {
            let now = self.pod().await?;
            let restarts = |pod: &Pod| Some(pod.status.as_ref()?.container_statuses.as_ref()?.first()?.restart_count);
            Ok((restarts(&now) > restarts(&before) && started(&now).is_some()).then_some(()))
        })
        .await
    }

    /// How long the role took from its first line in the log until all was as it should be for so many tools.
    pub(crate) async fn clean_after_start(&self, tools: usize, patience: Duration) -> anyhow::Result<Duration> {
        let deadline = Instant::now() + patience;
        let parameters = LogParams { limit_bytes: Some(64 << 20), ..LogParams::default() };
        loop {
            let name = self.pod().await?.name_any();
            let log = self.pods.logs(&name, &parameters).await?;
            let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let at = |line: &Value| line["timestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
            let is_clean = |line: &&Value| {
                line["message"] == "all is as it should be" && line["tools"].as_u64() == Some(tools as u64)
            };
            if let (Some(first), Some(clean)) = (lines.first().and_then(at), lines.iter().find(is_clean).and_then(at)) {
                return Ok(clean.duration_since(first).try_into()?);
            }
            anyhow::ensure!(Instant::now() < deadline, "accounts is not done; its last line: {:?}", lines.last());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// What the API server has counted so far.
    pub(crate) async fn calls(&self) -> anyhow::Result<Calls> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let text = self.client.request_text(request).await?;
        let mut calls = Calls::default();
        for line in text.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
            let Some((labels, count)) = line.rsplit_once("} ") else { continue };
            let label = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                Some(rest.split_once('"')?.0.to_owned())
            };
            let (Some(verb), Some(resource)) = (label("verb"), label("resource")) else { continue };
            // What controllers write is the status.
            let is_ours = label("subresource").is_none_or(|sub| sub.is_empty() || sub == "approval");
            if is_ours && RESOURCES.contains(&resource.as_str()) {
                *calls.0.entry((verb, resource)).or_default() += count.parse::<f64>()? as u64;
            }
        }
        Ok(calls)
    }

    async fn pod(&self) -> anyhow::Result<Pod> {
        let those = ListParams::default().labels("app.kubernetes.io/name=accounts");
        self.pods.list(&those).await?.items.pop().context("accounts has no pod")
    }

    async fn until<T>(&self, what: &str, look: impl AsyncFn() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            anyhow::ensure!(Instant::now() < deadline, "not in time: {what}");
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// When the container of a pod began to run, if it does.
fn started(pod: &Pod) -> Option<()> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    status.state.as_ref()?.running.as_ref().map(drop)
}

impl Calls {
    /// What was counted after `before`.
    pub(crate) fn since(self, before: &Self) -> Self {
        let left = |key: &(String, String), count: u64| count - before.0.get(key).copied().unwrap_or(0);
        Self(self.0.into_iter().map(|(key, count)| (key.clone(), left(&key, count))).collect())
    }

    pub(crate) fn writes(&self) -> u64 {
        self.sum(|verb| !matches!(verb, "GET" | "LIST" | "WATCH"))
    }

    pub(crate) fn reads(&self) -> u64 {
        self.sum(|verb| matches!(verb, "GET" | "LIST" | "WATCH"))
    }

    fn sum(&self, is_one: impl Fn(&str) -> bool) -> u64 {
        self.0.iter().filter(|((verb, _), _)| is_one(verb)).map(|(_, count)| count).sum()
    }
}
