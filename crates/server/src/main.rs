//! `hearthd`: runs one of the platform's roles until it is told to stop.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hearth_server::{accounts, admission, balancer, fourohfour, ingress, proxy, registry_auth, signer, telemetry};

/// The platform's roles.
#[derive(Debug, Parser)]
#[command(name = "hearthd", version)]
struct Command {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Keep for each tool of the directory its corner of the cluster.
    Accounts(accounts::Args),
    /// Answer the API server's admission reviews.
    Admission(admission::Args),
    /// Keep HAProxy's configuration equal to the cluster's nodes.
    Balancer(balancer::Args),
    /// Serve the pages for hosts and tools without a web service.
    Fourohfour(fourohfour::Args),
    /// Route requests to tools inside the cluster, for the front door.
    Ingress(ingress::Args),
    /// Route visitors to tools: the front door.
    Proxy(proxy::Args),
    /// Issue the registry's tokens.
    RegistryAuth(registry_auth::Args),
    /// Approve the certificate requests of tools.
    Signer(signer::Args),
    /// Work in tools' homes, in each as its tool; started by accounts.
    #[command(hide = true)]
    HomeWork,
}

fn main() -> ExitCode {
    let command = Command::parse();
    if let Role::HomeWork = command.role {
        return accounts::home_work();
    }
    telemetry::init();
    // A review is judged in microseconds and waits for nothing: handing it from thread to thread would cost more.
    let mut builder = match command.role {
        Role::Admission(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "failed to start");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(command.role));
    // A role has waited for what it wants finished. A look-up of a name that nobody answers is not waited for: it would
    // hold a stopped role for half a minute.
    runtime.shutdown_background();
    code
}

async fn run(role: Role) -> ExitCode {
    let result = match role {
        Role::Accounts(args) => accounts::run(args).await,
        Role::Admission(args) => admission::run(args).await,
        Role::Balancer(args) => balancer::run(args).await,
        Role::Fourohfour(args) => fourohfour::run(args).await,
        Role::Ingress(args) => ingress::run(args).await,
        Role::Proxy(args) => proxy::run(args).await,
        Role::RegistryAuth(args) => registry_auth::run(args).await,
        Role::Signer(args) => signer::run(args).await,
        Role::HomeWork => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "stopped");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        super::Command::command().debug_assert();
    }
}
