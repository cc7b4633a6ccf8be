//! The accounts controller: keeps for each tool of the directory its corner of the cluster and its home.
//!
//! What is to be done is decided in [`hearth_core::account`]; here it is observed ([`observe`]) and done
//! ([`apply`], [`homes`]), in a loop ([`controller`]). It writes nothing that is not the platform's, never works in a
//! home as root, and holds no right to approve the certificates that it requests.

pub mod apply;
mod certificate;
pub mod controller;
mod fresh;
mod home_child;
pub mod homes;
pub mod metrics;
pub mod observe;
mod waiting;
mod workloads;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hearth_core::Platform;
use hearth_core::names::path;
use tokio::net::TcpListener;

pub use home_child::main as home_write;

use crate::http_service;

/// How often the directory is asked whether anything changed.
const DIRECTORY_INTERVAL: Duration = Duration::from_millis(500);

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
    /// Where to serve /healthz and /metrics.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9100")]
    health: SocketAddr,
}

/// Runs the role until it is told to stop.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { platform, kubeconfig, api_ca, directory_ca, directory_password, health } = args;
    let read =
        |file: &PathBuf| std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()));
    let platform = Platform::from_toml(&read(&platform)?)
        .with_context(|| format!("failed to understand {}", platform.display()))?;
    let client = crate::kubernetes::client(kubeconfig.as_deref()).await?;
    let program = std::env::current_exe().context("failed to find the own program")?;
    let homes = homes::Homes::new(&platform, program);
    let connection = hearth_directory::Connection::of_role(&platform, &directory_ca, &directory_password);
    let snapshots = hearth_directory::follow(connection, DIRECTORY_INTERVAL);
    let metrics = metrics::Metrics::new();
    let listener = TcpListener::bind(health).await.with_context(|| format!("failed to listen on {health}"))?;
    let router = metrics.clone().router();
    let served = tokio::spawn(http_service::serve(listener, None, router, http_service::stop_signal()));
    let context =
        apply::Context { client: client.clone(), platform: Arc::new(platform), api_ca: read(&api_ca)?.into(), homes };
    controller::run(context, snapshots, observe::watch(&client), metrics, http_service::stop_signal()).await?;
    served.await?
}
