//! Carries out one tool's actions, in their order, until one fails.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hearth_core::account::kubeconfig::{KeyPair, Server};
use hearth_core::account::objects;
use hearth_core::account::plan::{Action, Given, Was};
use hearth_core::account::quotas::Quotas;
use hearth_core::account::state::Home;
use hearth_core::account::subject::Identity;
use hearth_core::{Platform, ToolName, names};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::homes::{Files, Homes, Resident};
use super::observe::Written;
use super::{certificate, workloads};

/// What actions are carried out with.
#[derive(Clone)]
pub struct Context {
    /// A client of the Kubernetes API.
    pub client: Client,
    /// The configuration.
    pub platform: Arc<Platform>,
    /// What single tools may use beyond what all may.
    pub quotas: Arc<Quotas>,
    /// The certificate authority of the Kubernetes API, PEM.
    pub api_ca: Arc<str>,
    /// The tools' homes.
    pub homes: Homes,
    /// How long to wait for a certificate.
    pub signing: Duration,
    /// What says the time.
    pub clock: fn() -> Timestamp,
}

/// How long to wait for a certificate. The signer answers within milliseconds when it runs.
pub const SIGNING: Duration = Duration::from_secs(30);

impl Context {
    /// What a plan is made with, now.
    pub(super) fn given(&self) -> Given<'_> {
        let Self { platform, quotas, api_ca, .. } = self;
        Given { platform, quotas, api_ca, now: (self.clock)() }
    }

    /// Gets a certificate, and what else belongs into the owner's kubeconfig.
    pub(super) async fn certify(&self, identity: &Identity) -> Result<(Server, KeyPair)> {
        let Self { client, platform, api_ca, signing, .. } = self;
        let pair = certificate::issue(client, identity, platform.tools.certificate_days, *signing).await?;
        let api = &platform.api;
        let server = Server { url: api.server.clone(), tls_name: api.name.clone(), ca: api_ca.as_ref().to_owned() };
        Ok((server, pair))
    }
}

/// What came of a tool's actions.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The tool.
    pub tool: ToolName,
    /// The kinds of the actions that were done.
    pub done: Vec<&'static str>,
    /// What was written to the cluster.
    pub written: Vec<Written>,
    /// The home as it is now, where it was changed.
    pub home: Option<Home>,
    /// The kind of the action that failed, and why.
    pub failed: Option<(&'static str, anyhow::Error)>,
}

/// Carries out a tool's actions.
pub(super) async fn carry_out(context: Context, tool: ToolName, actions: Vec<Action>) -> Outcome {
    let outcome = Outcome { tool, done: Vec::new(), written: Vec::new(), home: None, failed: None };
    let mut work = Work { context: &context, created: None, outcome };
    for action in actions {
        let kind = action.kind();
        match work.act(action).await {
            Ok(()) => work.outcome.done.push(kind),
            Err(error) => {
                work.outcome.failed = Some((kind, error));
                break;
            }
        }
    }
    work.outcome
}

struct Work<'a> {
    context: &'a Context,
    /// `metadata.uid` of the namespace that was created just now.
    created: Option<String>,
    outcome: Outcome,
}

impl Work<'_> {
    async fn act(&mut self, action: Action) -> Result<()> {
        let tool = self.outcome.tool.clone();
        let namespace = tool.namespace();
        match action {
            Action::CreateNamespace(object) => self.create_namespace(&object).await?,
            Action::ApplyNamespace(object) => self.apply_namespace(object).await?,
            Action::ApplyQuota(object, was) => {
                let written = self.apply::<ResourceQuota>(&namespace, &object, was).await?;
                self.outcome.written.push(Written::Quota(written));
            }
            Action::ApplyLimits(object, was) => {
                let written = self.apply::<LimitRange>(&namespace, &object, was).await?;
                self.outcome.written.push(Written::Limits(written));
            }
            Action::ApplyBinding(object, was) => {
                let written = self.apply::<RoleBinding>(&namespace, &object, was).await?;
                self.outcome.written.push(Written::Binding(written));
            }
            Action::DeleteBinding(name) => {
                let api: Api<RoleBinding> = Api::namespaced(self.context.client.clone(), &namespace);
                gone(api.delete(&name, &DeleteParams::default()).await)
                    .with_context(|| format!("failed to delete the role binding {namespace}/{name}"))?;
                self.outcome.written.push(Written::NoBinding);
            }
            Action::Stop => workloads::stop(&self.context.client, &namespace).await?,
            Action::Start => workloads::start(&self.context.client, &namespace).await?,
            Action::MakeHome(uid) => {
                self.outcome.home = Some(self.context.homes.make(&Resident::tool(&tool, uid)).await?)
            }
            Action::IssueCertificate { uid, identity } => {
                let files = Files { kubeconfig: Some(self.context.certify(&identity).await?), password: None };
                let resident = Resident::tool(&tool, uid);
                self.outcome.home = Some(Home::Own(self.context.homes.work(&resident, files).await?));
            }
            Action::WriteCredential { uid, password } => {
                let files = Files { kubeconfig: None, password: Some(password.text) };
                self.outcome.home = Some(Home::Own(self.context.homes.work(&Resident::tool(&tool, uid), files).await?));
            }
            Action::ArchiveHome(uid) => self.outcome.home = Some(self.context.homes.archive(&tool, uid).await?),
            Action::DeleteNamespace(uid) => {
                let api: Api<Namespace> = Api::all(self.context.client.clone());
                let this = Preconditions { uid: Some(uid), resource_version: None };
                gone(api.delete(&namespace, &DeleteParams::background().preconditions(this)).await)
                    .with_context(|| format!("failed to delete the namespace {namespace}"))?;
                self.outcome.written.push(Written::NamespaceDeleted);
            }
        }
        Ok(())
    }

    async fn create_namespace(&mut self, object: &Namespace) -> Result<()> {
        let api: Api<Namespace> = Api::all(self.context.client.clone());
        let parameters = PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let created = api.create(&parameters, object).await;
        let created = created.with_context(|| format!("failed to create the namespace {}", object.name_any()))?;
        self.created = created.metadata.uid.clone();
        self.outcome.written.push(Written::Namespace(created.metadata));
        Ok(())
    }

    /// Applies labels and annotations to the namespace that was planned for, and to no other of its name.
    async fn apply_namespace(&mut self, mut object: Namespace) -> Result<()> {
        let name = object.name_any();
        if object.metadata.uid.is_none() {
            object.metadata.uid = self.created.clone();
        }
        anyhow::ensure!(object.metadata.uid.is_some(), "it is not known which namespace {name} is meant");
        let api: Api<Namespace> = Api::all(self.context.client.clone());
        let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
        let failed = || format!("failed to label and annotate the namespace {name}");
        let mut applied = api.patch(&name, &parameters, &Patch::Apply(&object)).await.with_context(failed)?;
        // Applying takes away only what applying has set. What somebody else set and should not be there goes apart.
        let wanted = object.annotations();
        let extra = |key: &&&str| applied.annotations().contains_key(**key) && !wanted.contains_key(**key);
        let extra: serde_json::Map<String, serde_json::Value> =
            objects::ANNOTATIONS.iter().filter(extra).map(|&key| (key.to_owned(), json!(null))).collect();
        if !extra.is_empty() {
            let patch = json!({ "metadata": { "uid": applied.metadata.uid, "annotations": extra } });
            let parameters =
                PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            applied = api.patch(&name, &parameters, &Patch::Merge(patch)).await.with_context(failed)?;
        }
        self.outcome.written.push(Written::Namespace(applied.metadata));
        Ok(())
    }

    /// Applies an object. Only one that was seen as ours is taken from another manager of the same fields.
    async fn apply<K>(&self, namespace: &str, object: &K, was: Was) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Serialize + DeserializeOwned + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.context.client.clone(), namespace);
        let mut parameters = PatchParams::apply(names::FIELD_MANAGER);
        if was == Was::Ours {
            parameters = parameters.force();
        }
        let name = object.name_any();
        let applied = api.patch(&name, &parameters, &Patch::Apply(object)).await;
        applied.with_context(|| format!("failed to apply the {} {namespace}/{name}", K::kind(&())))
    }
}

/// Deleting what is gone already is what was wanted.
pub(super) fn gone<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(|_| ()),
    }
}
