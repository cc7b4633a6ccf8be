//! The configuration as a role reads it when it starts: a file that somebody else put there.

use std::path::Path;

use anyhow::Context;
use hearth_core::Platform;

/// The configuration in this file. The error names the file, and where in it something is wrong.
pub fn read(file: &Path) -> anyhow::Result<Platform> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("failed to read the configuration {}", file.display()))?;
    Platform::from_toml(&text).with_context(|| file.display().to_string())
}
