//! `hearth conformance`: what a tenant of a cluster can do that no tenant should.
//!
//! It tries with a tenant's own credentials what the files of `attempts` list, by server-side dry run wherever that
//! answers the question, and says of each whether it was possible, refused (and by what) or cannot be told. It works on
//! any cluster: nothing in it knows Hearth's rules, and it changes nothing but one pod and one Deployment without
//! replicas in the tenant's namespace, which it removes again.

mod attempt;
mod bases;
mod outcome;
mod report;
mod trial;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use futures::StreamExt;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use attempt::Values;
use outcome::Outcome;
use report::Finding;
pub use report::Output;
use trial::Tenant;

/// How many attempts are under way at once.
const AT_ONCE: usize = 8;

/// Which tenant, and what is not its own.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The tenant's kubeconfig.
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// A context in it, other than its current one.
    #[arg(long)]
    context: Option<String>,
    /// The tenant's namespace; that of the context if it is not given.
    #[arg(long)]
    namespace: Option<String>,
    /// A namespace that is not the tenant's: best another tenant's.
    #[arg(long, value_name = "NAMESPACE", default_value = "kube-system")]
    other_namespace: String,
    /// The user number as which the tenant's pods must run, if they must; read from its pods if it is not given.
    #[arg(long, value_name = "N")]
    uid: Option<u32>,
    /// An image that the tenant may run; that of one of its pods if it is not given.
    #[arg(long, value_name = "IMAGE")]
    allowed_image: Option<String>,
    /// An image that the tenant may not run.
    #[arg(long, value_name = "IMAGE", default_value = "docker.io/library/nginx:latest")]
    foreign_image: String,
    /// A host that the tenant may claim; that of one of its Ingresses if it is not given.
    #[arg(long)]
    host: Option<String>,
    /// A host that the tenant may not claim; `other-tenant` beside the own one if it is not given.
    #[arg(long, value_name = "HOST")]
    foreign_host: Option<String>,
    /// The class of the tenant's Ingresses, if they must name one.
    #[arg(long, value_name = "CLASS")]
    ingress_class: Option<String>,
    /// The folder of the node that the tenant's pods may mount, if there is one.
    #[arg(long, value_name = "PATH")]
    node_path: Option<String>,
    /// A folder of the node that they may not mount; `other-tenant` beside the own one if it is not given.
    #[arg(long, value_name = "PATH")]
    other_node_path: Option<String>,
    /// A service account of the tenant's namespace as which the tenant may not run pods, if there is one.
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// In which form to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Tries everything. 0: nothing was possible; 1: something was; 2: it could not be tried.
pub async fn run(args: Args) -> ExitCode {
    match tried(args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("hearth: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing was possible.
async fn tried(args: Args) -> anyhow::Result<bool> {
    let output = args.output;
    let mut tenant = tenant(args).await?;
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let findings = tokio::select! {
        findings = try_all(&mut tenant) => Some(findings),
        _ = interrupted.recv() => None,
        _ = terminated.recv() => None,
    };
    tenant.remove_real().await?;
    let findings = findings.context("interrupted; what was made is removed")??;
    crate::listing::print(&report::write(output, &tenant.legal, &findings))?;
    Ok(!findings.iter().any(|finding| finding.outcome == Outcome::Possible))
}

async fn try_all(tenant: &mut Tenant) -> anyhow::Result<Vec<Finding>> {
    let attempts = attempt::all()?;
    tenant.try_legal().await;
    if let Some((_, refused)) =
        tenant.legal.iter().find(|(name, outcome)| *name == "pod" && *outcome != Outcome::Possible)
    {
        bail!(
            "not even a legal pod is possible, so nothing that is refused would tell anything; it is {}, {} ({})",
            refused.name(),
            refused.because(),
            refused.message()
        );
    }
    tenant.make_real().await;
    let tenant = &*tenant;
    let tries = attempts.into_iter().map(|(chapter, attempt)| async move {
        let outcome = tenant.attempt(&attempt).await;
        Finding { chapter, name: attempt.name, why: attempt.why, outcome }
    });
    Ok(futures::stream::iter(tries).buffered(AT_ONCE).collect().await)
}

/// The tenant of the arguments, and what they leave to be found out.
async fn tenant(mut args: Args) -> anyhow::Result<Tenant> {
    let file = Kubeconfig::read_from(&args.kubeconfig)
        .with_context(|| format!("failed to read {}", args.kubeconfig.display()))?;
    let options = KubeConfigOptions { context: args.context.take(), ..KubeConfigOptions::default() };
    let config = kube::Config::from_custom_kubeconfig(file, &options).await?;
    let namespace = args.namespace.take().unwrap_or_else(|| config.default_namespace.clone());
    let mut tenant =
        Tenant { client: Client::try_from(config)?, values: Values::default(), legal: Vec::new(), made: false };
    let pods = format!("/api/v1/namespaces/{namespace}/pods?limit=20");
    let ingresses = format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses?limit=20");
    let text = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned));
    if args.allowed_image.is_none() {
        args.allowed_image = text(found(&tenant, &pods, "/spec/containers/0/image").await);
    }
    if args.uid.is_none() {
        let uid = found(&tenant, &pods, "/spec/securityContext/runAsUser").await;
        args.uid = uid.and_then(|uid| u32::try_from(uid.as_u64()?).ok());
    }
    if args.host.is_none() {
        args.host = text(found(&tenant, &ingresses, "/spec/rules/0/host").await);
    }
    tenant.values = values(args, namespace)?;
    Ok(tenant)
}

/// What attempts are filled in with.
fn values(args: Args, namespace: String) -> anyhow::Result<Values> {
    let Args {
        kubeconfig: _,
        context: _,
        namespace: _,
        other_namespace,
        uid,
        allowed_image,
        foreign_image,
        host,
        foreign_host,
        ingress_class,
        node_path: home,
        other_node_path: other_home,
        account,
        output: _,
    } = args;
    let Some(image) = allowed_image else {
        bail!(
            "no pod runs in {namespace} whose image could be used; say by --allowed-image which one the tenant may run"
        );
    };
    // A name without a registry is one of Docker's.
    let registry = image.split_once('/').map_or("docker.io", |(registry, _)| registry).to_owned();
    let homes = home.as_ref().and_then(|home| home.rsplit_once('/')).map(|(parent, _)| parent.to_owned());
    let (label, domain) = host.as_ref().and_then(|host| host.split_once('.')).unzip();
    let (label, domain) = (label.map(str::to_owned), domain.map(str::to_owned));
    let beside = format!("other-tenant.{}", domain.as_deref().unwrap_or("example"));
    let given = [
        ("namespace", Some(namespace)),
        ("other", Some(other_namespace)),
        ("uid", uid.map(|uid| uid.to_string())),
        ("other-uid", uid.map(|uid| uid.saturating_add(1).to_string())),
        ("registry-undotted", Some(undotted(&registry))),
        ("registry", Some(registry)),
        ("image", Some(image)),
        ("foreign-image", Some(foreign_image)),
        ("host", host),
        ("label", label),
        ("domain-undotted", domain.as_deref().map(undotted)),
        ("domain", domain),
        ("foreign-host", Some(foreign_host.unwrap_or(beside))),
        ("ingress-class", ingress_class),
        ("other-home", other_home.or_else(|| homes.as_ref().map(|homes| format!("{homes}/other-tenant")))),
        ("homes", homes),
        ("home", home),
        ("account", account),
    ];
    Ok(Values(given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()))
}

/// The first value at a pointer of the objects of a list.
async fn found(tenant: &Tenant, path: &str, pointer: &str) -> Option<Value> {
    let list = tenant.send("GET", path, &[], &Value::Null).await.ok()?;
    let items = list.get("items")?.as_array()?;
    items.iter().find_map(|item| item.pointer(pointer)).cloned()
}

/// The name with another letter in place of its first dot.
fn undotted(name: &str) -> String {
    name.replacen('.', "x", 1)
}
