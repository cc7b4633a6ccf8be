//! placeholder
#[derive(Debug, clap::Subcommand)]
pub enum Command { List }
pub async fn run(_: Command, _: &()) -> anyhow::Result<()> { Ok(()) }
