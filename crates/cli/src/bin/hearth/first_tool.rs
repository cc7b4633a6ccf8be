//! placeholder
use crate::instance::Instance;
pub fn connection(_: &Instance) -> anyhow::Result<()> { Ok(()) }
pub async fn people_and_tools(_: &Instance) -> anyhow::Result<()> { Ok(()) }
pub async fn serve(_: &Instance, _: std::time::Duration) -> anyhow::Result<()> { Ok(()) }
