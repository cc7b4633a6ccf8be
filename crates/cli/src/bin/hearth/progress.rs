//! Telling the operator what is done and how long it took: a line a step, a spinner where the output is a terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Reports steps on standard error.
pub struct Progress {
    began: Instant,
    terminal: bool,
}

impl Progress {
    /// Starts the clock of the whole.
    pub fn start() -> Self {
        Self { began: Instant::now(), terminal: std::io::stderr().is_terminal() }
    }

    /// Does a step and says what came of it. The step's own answer, if it has words, is shown behind its name.
    pub async fn step<T: Outcome>(
        &self,
        name: &str,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let bar = if self.terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.set_style(
            ProgressStyle::with_template("  {spinner} {msg} ({elapsed})")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        bar.set_message(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        let before = self.began.elapsed();
        let result = work.await;
        bar.finish_and_clear();
        let seconds = (self.began.elapsed() - before).as_secs_f64();
        match &result {
            Ok(outcome) => eprintln!("  {seconds:6.1} s  {name}{}", outcome.words()),
            Err(_) => eprintln!("  {seconds:6.1} s  {name}: failed"),
        }
        result
    }

    /// How long everything has taken.
    pub fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

/// What a step has to say for itself.
pub trait Outcome {
    /// Words to show behind the step's name, starting with a separator; or nothing.
    fn words(&self) -> String;
}

impl Outcome for () {
    fn words(&self) -> String {
        String::new()
    }
}

impl Outcome for String {
    fn words(&self) -> String {
        if self.is_empty() { String::new() } else { format!(": {self}") }
    }
}
