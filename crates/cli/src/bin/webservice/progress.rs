//! What is said while something is done: one line that changes on a terminal, plain lines elsewhere, on standard error.

use std::io::{IsTerminal, Write};

/// The progress of one action.
pub(crate) struct Progress {
    terminal: bool,
    last: String,
}

impl Progress {
    /// Begins with a sentence such as `Starting webservice`.
    pub(crate) fn begin(sentence: &str) -> Self {
        let mut progress = Self { terminal: std::io::stderr().is_terminal(), last: String::new() };
        progress.show(&format!("{sentence}..."));
        progress
    }

    /// Shows what is being done now, once.
    pub(crate) fn show(&mut self, text: &str) {
        if self.last == text {
            return;
        }
        text.clone_into(&mut self.last);
        if self.terminal {
            write(&format!("\r\x1b[2K{text}"));
        } else {
            say(text);
        }
    }

    /// Ends the line.
    pub(crate) fn end(self) {
        if self.terminal {
            write("\n");
        }
    }
}

/// Says something on standard error.
pub(crate) fn say(text: &str) {
    write(&format!("{text}\n"));
}

/// Says something that was asked for, on standard output.
pub(crate) fn answer(text: &str) {
    // A reader that went away (`webservice status | head -0`) is not a failure.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Asks a person at a terminal. None where there is none, or no answer.
pub(crate) fn ask(question: &str) -> Option<String> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return None;
    }
    write(question);
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).ok()?;
    Some(line.trim().to_owned()).filter(|line| !line.is_empty())
}

fn write(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // Nobody could be told that standard error cannot be written to.
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}
