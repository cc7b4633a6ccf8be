//! `hearth check`: compares what is stored with what should be, and changes nothing.

mod accounts;
mod domains;
mod rules;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::instance::Place;
use crate::listing::print;

/// What to compare.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Tell what `accounts` would do now for tools, and what it leaves alone.
    Accounts(Cluster),
    /// Tell whether browsers keep tools apart under the configured domains.
    Domains(domains::Args),
    /// List the stored objects that today's rules would refuse.
    Rules(rules::Args),
}

/// Which cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct Cluster {
    /// An administrator's credentials; the instance's own if they are not given.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// 0: all is as it should be; 1: something is not; 2: it could not be found out.
pub async fn run(command: Command, place: &Place) -> ExitCode {
    let found = match command {
        Command::Accounts(cluster) => accounts::run(cluster, place).await,
        Command::Domains(args) => domains::run(args, place),
        Command::Rules(args) => rules::run(args, place).await,
    };
    match found.and_then(|(text, is_right)| print(&text).map(|()| is_right)) {
        Ok(is_right) => ExitCode::from(u8::from(!is_right)),
        Err(error) => {
            eprintln!("hearth: {error:#}");
            ExitCode::from(2)
        }
    }
}

// === impl Cluster ===

impl Cluster {
    async fn client(self, place: &Place) -> anyhow::Result<Client> {
        let file = self.kubeconfig.unwrap_or_else(|| place.home.join("admin.kubeconfig"));
        let kubeconfig = Kubeconfig::read_from(&file)
            .with_context(|| format!("failed to read {}; --kubeconfig names another", file.display()))?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }
}
