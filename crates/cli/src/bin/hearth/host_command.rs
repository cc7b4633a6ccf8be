//! Running programs of the host, with errors that say what was run and what it said.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// A program to run.
pub struct Run {
    command: Command,
    input: Option<Vec<u8>>,
}

impl Run {
    /// A program of the PATH, or of a path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(program), input: None }
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Gives text on standard input.
    pub fn input(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.input = Some(text.into());
        self
    }

    /// Runs it; its standard output, or an error with the last lines of its standard error.
    pub fn output(mut self) -> anyhow::Result<String> {
        let shown = self.shown();
        self.command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().with_context(|| format!("failed to start `{shown}`"))?;
        let writer = match (self.input, child.stdin.take()) {
            (Some(input), Some(mut stdin)) => Some(std::thread::spawn(move || {
                use std::io::Write;
                // A program that does not read to the end says so by its exit status.
                let _ = stdin.write_all(&input);
            })),
            _ => None,
        };
        let output = child.wait_with_output().with_context(|| format!("failed to wait for `{shown}`"))?;
        if let Some(writer) = writer {
            let _ = writer.join();
        }
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = said.trim_end().lines().collect();
            let last = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n");
            bail!("`{shown}` failed ({}):\n{last}", output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it; an error if it fails.
    pub fn run(self) -> anyhow::Result<()> {
        self.output().map(drop)
    }

    /// Runs it; whether it succeeded.
    pub fn succeeds(mut self) -> bool {
        self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.command.status().is_ok_and(|status| status.success())
    }

    fn shown(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        let text = words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
        match text.char_indices().nth(200) {
            Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
            None => text,
        }
    }
}

/// Runs `ip` with words separated by blanks.
pub fn ip(words: &str) -> anyhow::Result<()> {
    Run::new("ip").args(words.split_whitespace()).run()
}

/// Whether `ip` succeeds with words separated by blanks.
pub fn ip_succeeds(words: &str) -> bool {
    Run::new("ip").args(words.split_whitespace()).succeeds()
}
