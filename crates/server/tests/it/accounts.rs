//! The role accounts with a real loop, real homes and a fake API; approvals by the real signer.
//!
//! Homes have real owners, so these tests run as root, as `make test` does.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use hearth_core::account::kubeconfig::{self, Found};
use hearth_core::directory_entry::{Snapshot, Tool, ToolState};
use hearth_core::names::annotation;
use hearth_core::{Platform, ToolName};
use hearth_server::accounts::{self, apply, homes, metrics};
use hearth_server::signer;
use http::Method;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::accounts_api::{ACCOUNTS, Api};

/// The roles at work on a directory that the test writes.
pub(crate) struct Running {
    pub(crate) api: Api,
    pub(crate) directory: mpsc::UnboundedSender<Snapshot>,
    pub(crate) homes: Arc<tempfile::TempDir>,
    pub(crate) people: tempfile::TempDir,
    stop: oneshot::Sender<()>,
    accounts: JoinHandle<anyhow::Result<()>>,
    signer: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(api: Api) -> Self {
        // What the process may write is what it may give away; the parent is as on a real machine.
        let homes = tempfile::tempdir().unwrap();
        std::fs::set_permissions(homes.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self::start_in(api, Arc::new(homes))
    }

    /// With homes that are there already.
    pub(crate) fn start_in(api: Api, homes: Arc<tempfile::TempDir>) -> Self {
        Self::start_with(api, homes, apply::SIGNING, hearth_server::clock::now)
    }

    /// With another patience for certificates, and another clock.
    pub(crate) fn start_with(
        api: Api,
        homes: Arc<tempfile::TempDir>,
        signing: Duration,
        clock: fn() -> Timestamp,
    ) -> Self {
        let people = tempfile::tempdir().unwrap();
        std::fs::set_permissions(people.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let platform = platform(homes.path(), people.path());
        let (directory, snapshots) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_hearthd"));
        let context = apply::Context {
            client: api.client(),
            homes: homes::Homes::new(&platform, program),
            platform: Arc::new(platform),
            quotas: Arc::default(),
            api_ca: "the authority".into(),
            signing,
            clock,
        };
        let snapshots = stream::unfold(snapshots, |mut receiver| async {
            let snapshot: Snapshot = receiver.recv().await?;
            Some((Ok(snapshot), receiver))
        });
        let shutdown = async { drop(stopped.await) };
        let (_, leads) = watch::channel(true);
        let metrics = metrics::Metrics::new();
        let accounts = tokio::spawn(accounts::keep(context, snapshots, leads, metrics, shutdown));
        let signer = tokio::spawn(sign(api.clone()));
        Self { api, directory, homes, people, stop, accounts, signer }
    }

    pub(crate) fn path(&self, tool: &str, file: &str) -> PathBuf {
        self.homes.path().join(tool).join(file)
    }

    /// Waits until a tool has all that a new tool gets; the registry's credential is written last.
    pub(crate) async fn until_complete(&self, tool: &str) {
        let namespace = format!("tool-{tool}");
        self.api
            .until(&format!("{tool} is complete"), |api| {
                api.annotation(&namespace, annotation::REGISTRY_CREDENTIAL).is_some()
            })
            .await;
    }

    /// Ends the roles in the middle of what they do, and leaves the homes.
    pub(crate) async fn kill(self) -> Arc<tempfile::TempDir> {
        self.signer.abort();
        self.accounts.abort();
        assert!(self.accounts.await.unwrap_err().is_cancelled());
        self.homes
    }

    pub(crate) async fn stop(self) {
        let Self { stop, accounts, signer, .. } = self;
        stop.send(()).unwrap();
        accounts.await.unwrap().unwrap();
        signer.abort();
    }
}

async fn sign(api: Api) {
    let rule = signer::Rule { requestor: ACCOUNTS.to_owned(), longest_seconds: 30 * 86_400 };
    let requests = signer::requests(&api.client());
    signer::follow(api.client(), requests, rule, signer::metrics::Metrics::new(), std::future::pending()).await;
}

fn platform(homes: &Path, people: &Path) -> Platform {
    let (homes, people) = (homes.display(), people.display());
    let text = format!(
        r#"
        domains = {{ public = ["hearth.localhost"], legacy = "tools.hearth.localhost" }}
        api = {{ server = "https://10.88.0.2:6443" }}
        directory = {{ url = "ldaps://ldap", base = "dc=hearth", bind_dn = "cn=reader" }}
        registry = {{ host = "registry.example" }}
        homes = {{ root = "{homes}", people = "{people}" }}
        "#
    );
    Platform::from_toml(&text).unwrap()
}

pub(crate) fn name(tool: &str) -> ToolName {
    tool.parse().unwrap()
}

pub(crate) fn directory(tools: &[(&str, u32, ToolState)]) -> Snapshot {
    let tools = tools.iter().map(|(tool, uid, state)| {
        let maintainers = ["member1".to_owned()].into();
        (name(tool), Tool { name: name(tool), uid: *uid, maintainers, state: state.clone() })
    });
    Snapshot { tools: tools.collect(), ..Snapshot::default() }
}

fn disabled() -> ToolState {
    ToolState::Disabled { since: hearth_server::clock::now() }
}

#[tokio::test]
async fn a_new_tool_gets_everything() {
    let running = Running::start(Api::new());
    running.directory.send(directory(&[("a", 50001, ToolState::Active)])).unwrap();
    running.until_complete("a").await;

    let api = &running.api;
    assert_eq!(api.annotation("tool-a", annotation::UID).as_deref(), Some("50001"));
    assert!(api.get("resourcequotas", "tool-a", "tool-a").is_some());
    assert!(api.get("limitranges", "tool-a", "tool-a").is_some());
    let epoch = api.annotation("tool-a", annotation::EPOCH).unwrap();
    let binding = api.get("rolebindings", "tool-a", "a-tool-binding").unwrap();
    assert_eq!(binding["subjects"][0]["name"], format!("hearth:tool:a:{epoch}"));
    assert_eq!(api.count("certificatesigningrequests"), 0, "requests are deleted when they are done");

    for (file, mode) in [
        ("", 0o2770),
        ("logs", 0o2770),
        (".kube/config", 0o600),
        (".toolskube/client.crt", 0o400),
        (".toolskube/client.key", 0o400),
        (".docker/config.json", 0o600),
    ] {
        let metadata = std::fs::symlink_metadata(running.path("a", file)).unwrap();
        let found = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
        assert_eq!(found, (50001, 50001, mode), "{file} {:o}", found.2);
    }
    let config = std::fs::read_to_string(running.path("a", ".kube/config")).unwrap();
    let Found::Entry { server: Some(server), certificate: Some(certificate) } =
        kubeconfig::find(Some(&config), &name("a").into())
    else {
        panic!("{config}")
    };
    assert_eq!((server.url.as_str(), server.tls_name.as_str()), ("https://10.88.0.2:6443", "api.hearth.internal"));
    assert_eq!(std::fs::read_to_string(running.path("a", ".toolskube/client.crt")).unwrap(), certificate);

    // A second tool comes, and the first is not touched again.
    let before = api.writes().iter().filter(|write| write.contains("tool-a")).count();
    let both = [("a", 50001, ToolState::Active), ("b", 50002, ToolState::Active)];
    running.directory.send(directory(&both)).unwrap();
    running.until_complete("b").await;
    assert_eq!(api.writes().iter().filter(|write| write.contains("tool-a")).count(), before);
    running.stop().await;
}

#[tokio::test]
async fn one_tools_failure_does_not_stop_the_others() {
    let api = Api::new();
    api.fail(|method, path| {
        let is_a = path.contains("/tool-a/resourcequotas") || path.ends_with("/namespaces/tool-b");
        (is_a && method == Method::PATCH).then_some(500)
    });
    let running = Running::start(api.clone());
    let tools = ["a", "b", "c"].map(|tool| (tool, 50001 + u32::from(tool.as_bytes()[0] - b'a'), ToolState::Active));
    running.directory.send(directory(&tools)).unwrap();
    running.until_complete("c").await;
    assert!(api.get("resourcequotas", "tool-a", "tool-a").is_none());
    assert!(api.annotation("tool-b", annotation::EPOCH).is_none());
    api.fail(|_, _| None);
    running.until_complete("a").await;
    running.until_complete("b").await;
    running.stop().await;
}

#[tokio::test]
async fn a_namespace_that_exists_is_never_taken_over() {
    let api = Api::new();
    api.put("namespaces", "", json!({ "metadata": { "name": "tool-b" } }));
    // One that the plan did not know of: it appears just before the first namespace is created.
    let seen = api.clone();
    api.fail(move |method, path| {
        let is_creation = method == Method::POST && path.ends_with("/namespaces");
        if is_creation && seen.get("namespaces", "", "tool-a").is_none() {
            seen.put("namespaces", "", json!({ "metadata": { "name": "tool-a" } }));
        }
        None
    });
    let running = Running::start(api.clone());
    let tools = [("a", 50001, ToolState::Active), ("b", 50002, ToolState::Active), ("c", 50003, ToolState::Active)];
    running.directory.send(directory(&tools)).unwrap();
    running.until_complete("c").await;
    let touched = |tool: &str| api.writes().iter().any(|write| write.contains(&format!("/{tool}")));
    assert!(!touched("tool-a") && !touched("tool-b"), "{:#?}", api.writes());
    running.stop().await;
}

#[tokio::test]
async fn what_is_lost_is_made_again_also_after_watches_were_cut() {
    let api = Api::new();
    let running = Running::start(api.clone());
    running.directory.send(directory(&[("a", 50001, ToolState::Active)])).unwrap();
    running.until_complete("a").await;
    for _ in 0..3 {
        api.cut_watches();
        api.remove("rolebindings", "tool-a", "a-tool-binding");
        api.until("the binding is back", |api| api.get("rolebindings", "tool-a", "a-tool-binding").is_some()).await;
    }
    let mut quota = api.get("resourcequotas", "tool-a", "tool-a").unwrap();
    quota["spec"]["hard"]["pods"] = json!("1000");
    api.put("resourcequotas", "tool-a", quota);
    api.until("the quota is right again", |api| {
        api.get("resourcequotas", "tool-a", "tool-a").is_some_and(|quota| quota["spec"]["hard"]["pods"] == "10")
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_disabled_tool_is_stopped_and_an_enabled_one_runs_again() {
    let api = Api::new();
    let running = Running::start(api.clone());
    running.directory.send(directory(&[("a", 50001, ToolState::Active)])).unwrap();
    running.until_complete("a").await;
    let spec = json!({ "replicas": 2, "selector": {}, "template": {} });
    api.put("deployments", "tool-a", json!({ "metadata": { "name": "web" }, "spec": spec }));
    let spec = json!({ "schedule": "* * * * *", "jobTemplate": {} });
    api.put("cronjobs", "tool-a", json!({ "metadata": { "name": "nightly" }, "spec": spec }));
    api.put("pods", "tool-a", json!({ "metadata": { "name": "bare" } }));
    running.directory.send(directory(&[("a", 50001, disabled())])).unwrap();
    api.until("the tool is stopped", |api| api.annotation("tool-a", annotation::STOPPED).is_some()).await;
    assert!(api.get("rolebindings", "tool-a", "a-tool-binding").is_none());
    assert_eq!(api.annotation("tool-a", annotation::STATE).as_deref(), Some("disabled"));
    assert!(api.annotation("tool-a", annotation::DISABLED_AT).is_some());
    assert_eq!(api.get("deployments", "tool-a", "web").unwrap()["spec"]["replicas"], 0);
    assert_eq!(api.get("cronjobs", "tool-a", "nightly").unwrap()["spec"]["suspend"], true);
    assert!(api.get("pods", "tool-a", "bare").is_none());

    running.directory.send(directory(&[("a", 50001, ToolState::Active)])).unwrap();
    api.until("the tool runs", |api| api.annotation("tool-a", annotation::STOPPED).is_none()).await;
    assert!(api.get("rolebindings", "tool-a", "a-tool-binding").is_some());
    assert_eq!(api.annotation("tool-a", annotation::DISABLED_AT), None);
    let deployment = api.get("deployments", "tool-a", "web").unwrap();
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(deployment["metadata"]["annotations"].get(annotation::BEFORE_DISABLING), None);
    assert_eq!(api.get("cronjobs", "tool-a", "nightly").unwrap()["spec"]["suspend"], false);
    running.stop().await;
}

#[tokio::test]
async fn homes_that_are_not_the_tools_are_left_alone() {
    let api = Api::new();
    let running = Running::start(api.clone());
    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), running.homes.path().join("a")).unwrap();
    std::fs::create_dir(running.homes.path().join("b")).unwrap();
    std::os::unix::fs::chown(running.homes.path().join("b"), Some(50009), Some(50009)).unwrap();
    // The home is the tool's, but the file is a link to somewhere else.
    let home = running.homes.path().join("c");
    std::fs::create_dir_all(home.join(".kube")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", home.join(".kube/config")).unwrap();
    for path in [home.join(".kube"), home.clone()] {
        std::os::unix::fs::chown(path, Some(50003), Some(50003)).unwrap();
    }
    let tools = ["a", "b", "c", "d"].map(|t| (t, 50001 + u32::from(t.as_bytes()[0] - b'a'), ToolState::Active));
    running.directory.send(directory(&tools)).unwrap();
    running.until_complete("d").await;
    running.until_complete("c").await;
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(running.homes.path().join("b")).unwrap().count(), 0);
    assert!(std::fs::symlink_metadata(home.join(".kube/config")).unwrap().is_symlink());
    assert!(api.get("rolebindings", "tool-b", "b-tool-binding").is_some());
    assert_eq!(api.annotation("tool-b", annotation::REGISTRY_CREDENTIAL), None);
    running.stop().await;
}
