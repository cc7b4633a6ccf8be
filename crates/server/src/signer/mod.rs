//! Approves certificate requests for tools and administrators, and nothing else.
//!
//! It considers only requests that `accounts` made, reads what is really signed ([`request`]), and compares it with
//! the annotations of the tool's namespace or with the administrator's binding, as they are at that moment
//! ([`hearth_core::account::approval`]).
//! Requests of others are left to others. It holds no key and signs nothing: the cluster's own signer does.

pub mod metrics;
pub mod request;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{Stream, StreamExt};
use hearth_core::ToolName;
use hearth_core::account::approval::{self, NamespaceFacts, Request, SIGNER, Standard};
use hearth_core::account::owner::Owner;
use hearth_core::account::{admins, subject::Identity};
use hearth_core::directory_entry::person_name::PersonName;
use hearth_core::names::path;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use kube::core::PartialObjectMeta;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Config};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, ResourceExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use self::metrics::{Decision, Metrics};
use crate::http_service;

/// How long a request is tried again while the API server does not answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one watch lasts, in seconds; one that is silent for longer is taken for dead.
const WATCH_SECONDS: u32 = 60;

/// What the role is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = path::PLATFORM)]
    platform: PathBuf,
    /// A kubeconfig to use outside a pod.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The only user whose requests are considered.
    #[arg(long, value_name = "USER", default_value = "system:serviceaccount:hearth-system:accounts")]
    requestor: String,
    /// Where to serve /healthz and /metrics.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9100")]
    health: SocketAddr,
}

/// What requests are judged by.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The only user whose requests are considered.
    pub requestor: String,
    /// The longest life of a certificate, in seconds.
    pub longest_seconds: i32,
}

/// Runs the role until it is told to stop.
pub async fn run(args: Args) -> Result<()> {
    let Args { platform, kubeconfig, requestor, health } = args;
    let platform = crate::configuration::read(&platform)?;
    let longest_seconds = i32::try_from(u64::from(platform.tools.certificate_days) * 86_400).unwrap_or(i32::MAX);
    let client = crate::kubernetes::client(kubeconfig.as_deref()).await?;
    let metrics = Metrics::new();
    let listener = TcpListener::bind(health).await.with_context(|| format!("failed to listen on {health}"))?;
    let router = metrics.clone().router();
    let served = tokio::spawn(http_service::serve(listener, None, router, http_service::stop_signal()));
    let rule = Rule { requestor, longest_seconds };
    follow(client.clone(), requests(&client), rule, metrics, http_service::stop_signal()).await;
    served.await?
}

/// All requests to the signer for clients, at first and whenever one changes.
pub fn requests(client: &Client) -> impl Stream<Item = watcher::Result<CertificateSigningRequest>> + Send + use<> {
    let config = Config::default().timeout(WATCH_SECONDS).fields(&format!("spec.signerName={SIGNER}"));
    watch(Api::all(client.clone()), config).backoff(Steps::default()).applied_objects()
}

/// Judges requests until `shutdown` completes, each in a task of its own.
pub async fn follow(
    client: Client,
    requests: impl Stream<Item = watcher::Result<CertificateSigningRequest>> + Send,
    rule: Rule,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (mut requests, mut shutdown) = (std::pin::pin!(requests.fuse()), std::pin::pin!(shutdown));
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => (),
            request = requests.next() => match request {
                Some(Ok(request)) if is_open(&request, &rule) => {
                    tasks.spawn(settle(client.clone(), request, rule.clone(), metrics.clone()));
                }
                Some(Ok(_)) => (),
                Some(Err(error)) => {
                    tracing::warn!(%error, "the watch of certificate requests failed and is begun again");
                }
                None => break,
            },
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Whether a request is one of ours to judge, and was not judged yet.
fn is_open(request: &CertificateSigningRequest, rule: &Rule) -> bool {
    let is_judged = request.status.as_ref().is_some_and(|status| {
        let known =
            |c: &CertificateSigningRequestCondition| ["Approved", "Denied", "Failed"].contains(&c.type_.as_str());
        status.certificate.is_some() || status.conditions.iter().flatten().any(known)
    });
    let is_ours = request.spec.username.as_deref() == Some(rule.requestor.as_str());
    is_ours && request.spec.signer_name == SIGNER && !is_judged
}

/// Judges a request and writes the decision; tried again for a while where the API server does not answer.
async fn settle(client: Client, request: CertificateSigningRequest, rule: Rule, metrics: Arc<Metrics>) {
    let name = request.name_any();
    let started = tokio::time::Instant::now();
    let mut steps = Steps::default();
    while started.elapsed() < PATIENCE {
        match attempt(&client, &request, &rule).await {
            Ok(decision) => {
                metrics.decided(decision);
                return;
            }
            // It is gone, or was judged by somebody else: the watch shows what it is now.
            Err(error) if is_about_another_state(&error) => return,
            Err(error) => {
                tracing::warn!(request = name, error = format!("{error:#}"), "a certificate request waits");
                tokio::time::sleep(steps.next().unwrap_or_default()).await;
            }
        }
    }
    metrics.decided(Decision::GivenUp);
}

fn is_about_another_state(error: &anyhow::Error) -> bool {
    let status = error.downcast_ref::<kube::Error>();
    matches!(status, Some(kube::Error::Api(status)) if status.code == 404 || status.code == 409)
}

async fn attempt(client: &Client, request: &CertificateSigningRequest, rule: &Rule) -> Result<Decision> {
    let name = request.name_any();
    let verdict = judge(client, request, rule).await?;
    let (type_, reason, message) = match &verdict {
        Ok(Owner::Tool(tool)) => {
            ("Approved", "ToolIsActive", format!("it is for the tool {tool}, as its namespace says"))
        }
        Ok(Owner::Admin(person)) => {
            let binding = admins::binding_name(person);
            ("Approved", "IsAdministrator", format!("it is for the administrator {person}, as {binding} says"))
        }
        Err(refusal) => ("Denied", "NotApproved", format!("the request is denied: {refusal}")),
    };
    let mut decided = request.clone();
    let status = decided.status.get_or_insert_with(CertificateSigningRequestStatus::default);
    status.conditions.get_or_insert_with(Vec::new).push(CertificateSigningRequestCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.clone()),
        last_update_time: Some(Time(crate::clock::now())),
        last_transition_time: None,
    });
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    // It carries the version that was judged; had it changed since, this fails.
    api.replace_subresource("approval", &name, &PostParams::default(), &decided).await?;
    match verdict {
        Ok(_) => tracing::info!(request = name, "{message}"),
        Err(_) => tracing::warn!(request = name, "{message}"),
    }
    Ok(if type_ == "Approved" { Decision::Approved } else { Decision::Denied })
}

/// Whom the request is for, or why it is refused; an error where that cannot be known now.
async fn judge(client: &Client, request: &CertificateSigningRequest, rule: &Rule) -> Result<Result<Owner, String>> {
    let ByteString(pem) = &request.spec.request;
    let subject = match request::read(pem) {
        Ok(subject) => subject,
        Err(faulty) => return Ok(Err(faulty.to_string())),
    };
    let material = Request {
        subject: &subject,
        usages: request.spec.usages.as_deref().unwrap_or_default(),
        signer_name: &request.spec.signer_name,
        requestor: request.spec.username.as_deref().unwrap_or_default(),
        expiration_seconds: request.spec.expiration_seconds,
    };
    let standard = Standard { requestor: &rule.requestor, longest_seconds: rule.longest_seconds };
    let Identity { owner, epoch } = match approval::identity(&material, &standard) {
        Ok(identity) => identity,
        Err(refusal) => return Ok(Err(refusal.to_string())),
    };
    // Read, not watched, so that who was disabled is never approved for being late.
    let verdict = match &owner {
        Owner::Tool(tool) => approval::approve_tool(tool, &epoch, namespace(client, tool).await?.as_ref()),
        Owner::Admin(person) => approval::approve_admin(person, &epoch, binding(client, person).await?.as_ref()),
    };
    Ok(verdict.map(|()| owner).map_err(|refusal| refusal.to_string()))
}

/// What the tool's namespace says now.
async fn namespace(client: &Client, tool: &ToolName) -> Result<Option<NamespaceFacts>> {
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
    let found = api.get_opt(&tool.namespace()).await;
    let found = found.with_context(|| format!("failed to read the namespace {}", tool.namespace()))?;
    Ok(found.filter(|namespace| namespace.metadata.deletion_timestamp.is_none()).map(|namespace| NamespaceFacts {
        labels: namespace.metadata.labels.unwrap_or_default(),
        annotations: namespace.metadata.annotations.unwrap_or_default(),
    }))
}

/// The binding that makes the person an administrator now.
async fn binding(client: &Client, person: &PersonName) -> Result<Option<ClusterRoleBinding>> {
    let (api, name): (Api<ClusterRoleBinding>, _) = (Api::all(client.clone()), admins::binding_name(person));
    let found = api.get_opt(&name).await.with_context(|| format!("failed to read the cluster role binding {name}"))?;
    Ok(found.filter(|binding| binding.metadata.deletion_timestamp.is_none()))
}

/// Pauses between attempts: from 50 ms, doubling, to 5 s.
#[derive(Debug, Default)]
struct Steps(u32);

impl Iterator for Steps {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = Duration::from_millis(50).saturating_mul(1 << self.0.min(7)).min(Duration::from_secs(5));
        self.0 = self.0.saturating_add(1);
        Some(pause)
    }
}

impl Backoff for Steps {
    fn reset(&mut self) {
        self.0 = 0;
    }
}
