//! The accounts controller: keeps for each tool of the directory its corner of the cluster and its home, and for each
//! administrator the rights and the kubeconfig.
//!
//! What is to be done is decided in [`hearth_core::account`]; here it is observed ([`observe`]) and done
//! ([`apply`], [`homes`]), in a loop for tools ([`controller`]) and one for administrators ([`admins`]). It writes nothing that is not the platform's, never works in a
//! home as root, and holds no right to approve the certificates that it requests.

mod admins;
pub mod apply;
mod as_owner;
mod certificate;
mod controller;
mod events;
mod fresh;
mod home_child;
pub mod homes;
pub mod metrics;
mod observe;
mod preview;
mod waiting;
mod workers;
mod workloads;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::Stream;
use hearth_core::account::quotas::Quotas;
use hearth_core::directory_entry::Snapshot;
use hearth_core::names::{self, path};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use home_child::main as home_work;

use crate::{http_service, lease};

/// How often the directory is asked whether anything changed.
const DIRECTORY_INTERVAL: Duration = Duration::from_millis(500);

/// The Lease of the copy that acts.
const LEASE: &str = "accounts";

/// What the role is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = path::PLATFORM)]
    platform: PathBuf,
    /// A kubeconfig to use outside a pod.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The certificate authority of the Kubernetes API, which tools' kubeconfigs trust, PEM.
    #[arg(long, value_name = "FILE", default_value = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")]
    api_ca: PathBuf,
    /// The directory's certificate authority, PEM.
    #[arg(long, value_name = "FILE", default_value = path::CA)]
    directory_ca: PathBuf,
    /// The password of `directory.bind_dn`.
    #[arg(long, value_name = "FILE", default_value = "/etc/hearth/secrets/directory/password")]
    directory_password: PathBuf,
    /// What single tools may use beyond what all may.
    #[arg(long, value_name = "FILE", default_value = path::QUOTAS)]
    quotas: PathBuf,
    /// This copy of the role, among several; the host's name if it is not given.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Print what would be done now, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Where to serve /healthz and /metrics.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9100")]
    health: SocketAddr,
}

/// Runs the role until it is told to stop.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { platform, kubeconfig, api_ca, directory_ca, directory_password, quotas, identity, dry_run, health } =
        args;
    let platform = crate::configuration::read(&platform)?;
    let read =
        |file: &PathBuf| std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()));
    let quotas = Quotas::from_toml(&read(&quotas)?).with_context(|| format!("failed to use {}", quotas.display()))?;
    let client = crate::kubernetes::client(kubeconfig.as_deref()).await?;
    let program = std::env::current_exe().context("failed to find the own program")?;
    let homes = homes::Homes::new(&platform, program);
    let connection = hearth_directory::Connection::of_role(&platform, &directory_ca, &directory_password);
    let snapshots = hearth_directory::follow(connection, DIRECTORY_INTERVAL);
    let (platform, quotas, api_ca) = (Arc::new(platform), Arc::new(quotas), read(&api_ca)?.into());
    let (signing, clock) = (apply::SIGNING, crate::clock::now as fn() -> _);
    let context = apply::Context { client: client.clone(), platform, quotas, api_ca, homes, signing, clock };
    if dry_run {
        return print(&preview::preview(&context, snapshots, observe::watch(&client)).await?);
    }
    let metrics = metrics::Metrics::new();
    let listener = TcpListener::bind(health).await.with_context(|| format!("failed to listen on {health}"))?;
    let router = metrics.clone().router();
    let served = tokio::spawn(http_service::serve(listener, None, router, http_service::stop_signal()));
    let identity = identity.unwrap_or_else(host_name);
    tracing::info!(identity, "keeping accounts");
    let candidacy = lease::stand(client.clone(), names::PLATFORM_NAMESPACE, LEASE, identity);
    let leads = candidacy.leads.clone();
    keep(context, snapshots, leads, metrics, http_service::stop_signal()).await?;
    candidacy.withdraw().await;
    served.await?
}

/// Keeps tools and administrators equal to the directory until `shutdown` completes. `snapshots` is the directory, at
/// first and after each change; an error in it leaves the last snapshot in force. While `leads` is false this only
/// observes, so that it can act at once when that changes.
pub async fn keep(
    context: apply::Context,
    snapshots: impl Stream<Item = anyhow::Result<Snapshot>> + Send,
    leads: watch::Receiver<bool>,
    metrics: Arc<metrics::Metrics>,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let (snapshots, people) = admins::apart(snapshots);
    let (tools, bindings) = (observe::watch(&context.client), admins::watch(&context.client));
    let administrators = admins::run(context.clone(), people, bindings, leads.clone(), metrics.clone());
    tokio::select! {
        ended = controller::run(context, snapshots, tools, leads, metrics, shutdown) => ended,
        () = administrators => Ok(()),
    }
}

/// The name of this host: in a pod, the pod's.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    std::io::stdout().write_all(text.as_bytes()).context("failed to write the answer")
}
