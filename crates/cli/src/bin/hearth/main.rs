//! `hearth`: what an operator runs.
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "commands speak to those who type them")]
#![expect(unreachable_pub, reason = "`pub` marks what the other modules of this program use")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod admin;
mod adoption;
mod check;
#[path = "../../clock.rs"]
mod clock;
mod components;
mod conformance;
mod down;
mod first_tool;
mod host_command;
mod images;
mod instance;
mod kubernetes;
mod listing;
mod maintenance;
mod manifests;
mod network;
mod node;
mod patience;
mod person;
mod pki;
mod preflight;
mod process;
mod progress;
mod render;
mod revocation;
mod secrets;
mod supervisor;
mod sysctl;
mod tool;
mod up;

use instance::{Instance, Place};

/// Hearth: a platform for a community's web tools.
#[derive(Debug, Parser)]
#[command(name = "hearth", version)]
struct Command {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start everything on this machine, or what is missing of it, and serve a first tool.
    Up(up::Args),
    /// Stop everything; data stays.
    Down,
    /// Stop everything and remove all data of the instance.
    Purge,
    /// Write the manifests of an instance, as `kubectl apply -k` takes them.
    Render,
    /// Create and look after tools.
    #[command(subcommand)]
    Tool(tool::Command),
    /// Create and look after people.
    #[command(subcommand)]
    Person(person::Command),
    /// Say who looks after the platform.
    #[command(subcommand)]
    Admin(admin::Command),
    /// Tell all visitors of a technical problem, or serve tools again.
    #[command(subcommand)]
    Maintenance(maintenance::Command),
    /// Compare what is stored with what is allowed today.
    #[command(subcommand)]
    Check(check::Command),
    /// Try what no tenant of a cluster must be able to do, with a tenant's credentials: any cluster's.
    Conformance(Box<conformance::Args>),
    /// Keep the instance's processes running; `up` starts it.
    #[command(hide = true)]
    Supervise,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Command { place, action } = Command::parse();
    // The only error is that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match run(place, action).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hearth: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(place: Place, action: Action) -> anyhow::Result<ExitCode> {
    // These two ask a cluster, whoever's it is, and nothing of this machine.
    match action {
        Action::Conformance(args) => return Ok(conformance::run(*args).await),
        Action::Check(command) => return Ok(check::run(command, &place).await),
        action => on_this_machine(place, action).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn on_this_machine(place: Place, action: Action) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!("an instance's keys, network namespaces and mounts are root's; run this as root");
    }
    if let Action::Up(args) = action {
        return up::run(args, Instance::open(place)?).await;
    }
    let home = place.home.clone();
    let Some(instance) = Instance::existing(place)? else {
        if matches!(action, Action::Down | Action::Purge) {
            eprintln!("There is no instance of Hearth in {}.", home.display());
            return Ok(());
        }
        anyhow::bail!(
            "there is no instance of Hearth in {}; `make up` makes one, HEARTH_HOME names another",
            home.display()
        );
    };
    match action {
        Action::Up(_) | Action::Check(_) | Action::Conformance(_) => Ok(()),
        Action::Down => down::run(&instance),
        Action::Purge => down::purge(&instance),
        Action::Render => up::render(&instance),
        Action::Supervise => supervisor::run(instance),
        Action::Maintenance(command) => maintenance::run(command, &instance.path("state/proxy")),
        Action::Tool(command) => tool::run(command, &instance).await,
        Action::Admin(command) => admin::run(command, &instance).await,
        Action::Person(command) => person::run(command, &first_tool::connection(&instance)?).await,
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
