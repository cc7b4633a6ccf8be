//! `hearth maintenance`: the page that tells everybody of a technical problem, switched on and off while the front door
//! runs. The switch is a file in the front door's state folder, which it looks at every second.

use std::path::Path;

use anyhow::Context;
use hearth_core::names::MAINTENANCE;

/// What to do with the switch.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show the page to everybody, in place of every tool.
    On {
        /// What visitors are told beside that there is a technical problem.
        #[arg(default_value = "")]
        text: String,
    },
    /// Serve tools again.
    Off,
}

/// Switches. `state` is the front door's state folder.
pub fn run(command: Command, state: &Path) -> anyhow::Result<()> {
    let file = state.join(MAINTENANCE);
    match command {
        Command::On { text } => {
            // One rename: it is never read half written.
            let new = file.with_extension("new");
            let written = std::fs::write(&new, format!("{text}\n")).and_then(|()| std::fs::rename(&new, &file));
            written.with_context(|| format!("failed to write {}", file.display()))
        }
        Command::Off => match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("failed to remove {}", file.display()))
            }
            _ => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_on_while_the_file_is_there() {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join(MAINTENANCE);
        run(Command::Off, state.path()).unwrap();
        run(Command::On { text: "Back at noon.".to_owned() }, state.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "Back at noon.\n");
        run(Command::On { text: String::new() }, state.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "\n");
        run(Command::Off, state.path()).unwrap();
        assert!(!file.exists());
    }
}
