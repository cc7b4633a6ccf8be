//! The pages for hosts and tools that serve nothing.

use std::path::PathBuf;

use hearth_core::names::path;

/// What the role is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = path::PLATFORM)]
    platform: PathBuf,
}

/// Runs the role until it is told to stop.
pub async fn run(args: Args) -> anyhow::Result<()> {
    anyhow::bail!("not built yet: {args:?}")
}
