//! `webservice`: a maintainer's command that puts a tool on the web.
//!
//! It works in four stages: what was typed ([`args`]), who runs it and what is written in the tool's files
//! ([`identity`], [`files`]), what is done in the cluster ([`act`], with [`cluster`] and [`wait`]) and seen of it at the
//! front door ([`front_door`]), and what is said ([`progress`], [`exit`]). What is decided, and the objects, are in `hearth_core::webservice`.
//!
//! It does with the tool's own kubeconfig only what the tool may do with `kubectl`; it holds no right of its own.

mod act;
mod args;
#[path = "../../clock.rs"]
mod clock;
mod cluster;
mod exit;
mod files;
mod front_door;
mod identity;
mod progress;
mod settle;
mod wait;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::exit::{Exit, Failure, Outcome};

fn main() -> ExitCode {
    let outcome = run(Args::parse());
    let exit = outcome.unwrap_or_else(|failure| {
        progress::say(&failure.text);
        failure.exit
    });
    exit.into()
}

fn run(args: Args) -> Outcome<Exit> {
    let request = args.request()?;
    let identity = identity::resolve(&request.platform)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::environment(format!("failed to start: {e}")))?;
    runtime.block_on(act::act(&request, &identity))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        super::Args::command().debug_assert();
    }
}
