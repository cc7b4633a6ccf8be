//! Processes that work in homes, each as one tool after another ([`super::home_child`]).
//!
//! Starting a process for each order cost more than the order: four thousand homes took a minute to look at. So a
//! process is kept for the next order, as long as orders come. One that does not answer in time is killed, but may go
//! on for as long as the file system holds it, so there may be only so many of those.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

use super::home_child::{Answer, LARGEST, Order};

/// How long an order may take; a file system that hangs must not hold up the other tools.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// How long a process waits for another order.
const IDLE: Duration = Duration::from_secs(10);

/// How many processes may be held by file systems that do not answer.
const MOST_STUCK: usize = 32;

/// The processes. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Workers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The program that has the subcommand `home-work`.
    program: PathBuf,
    idle: Mutex<Vec<(Worker, Instant)>>,
    /// Those that were killed and have not ended.
    stuck: Mutex<Vec<Child>>,
}

#[derive(Debug)]
struct Worker {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Workers {
    /// None yet; `program` is a `hearthd`.
    pub(super) fn new(program: PathBuf) -> Self {
        Self(Arc::new(Shared { program, idle: Mutex::default(), stuck: Mutex::default() }))
    }

    /// Has an order carried out.
    pub(super) async fn carry_out(&self, order: &Order) -> Result<Answer> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        // One that waited may have been ended by somebody meanwhile; orders may be given twice.
        if let Some(worker) = self.rested()
            && let Ok(answer) = self.try_with(worker, &line).await?
        {
            return Ok(answer);
        }
        self.try_with(self.start()?, &line).await?
    }

    /// Fails where there is no answer in time. A process that ended without one is the inner error.
    async fn try_with(&self, mut worker: Worker, line: &[u8]) -> Result<Result<Answer>> {
        match tokio::time::timeout(PATIENCE, worker.exchange(line)).await {
            Ok(Ok(answer)) => {
                lock(&self.0.idle).push((worker, Instant::now()));
                Ok(Ok(answer))
            }
            Ok(Err(error)) => Ok(Err(error)),
            Err(_) => {
                let _ = worker.child.start_kill();
                lock(&self.0.stuck).push(worker.child);
                bail!("it did not answer within {PATIENCE:?}")
            }
        }
    }

    /// A process that waits for an order. Those that have waited for long are let go.
    fn rested(&self) -> Option<Worker> {
        let mut idle = lock(&self.0.idle);
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        idle.pop().map(|(worker, _)| worker)
    }

    /// Lets go of processes that nothing was asked of for a while.
    pub(super) fn rest(&self) {
        lock(&self.0.idle).retain(|(_, since)| since.elapsed() < IDLE);
    }

    fn start(&self) -> Result<Worker> {
        let mut stuck = lock(&self.0.stuck);
        stuck.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
        if stuck.len() >= MOST_STUCK {
            bail!("{MOST_STUCK} processes wait for homes that do not answer; no more are started until they do");
        }
        let program = &self.0.program;
        let mut child = Command::new(program)
            .arg("home-work")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        let orders = child.stdin.take().context("the process has no standard input")?;
        let answers = BufReader::new(child.stdout.take().context("the process has no standard output")?);
        Ok(Worker { child, orders, answers })
    }
}

impl Worker {
    async fn exchange(&mut self, line: &[u8]) -> Result<Answer> {
        // A process that ends early says why on its standard output.
        let _ = self.orders.write_all(line).await;
        let mut answer = Vec::new();
        (&mut self.answers).take(LARGEST).read_until(b'\n', &mut answer).await?;
        match serde_json::from_slice(&answer) {
            Ok(answer) => Ok(answer),
            Err(_) => bail!("the process ended without an answer, or gave one that cannot be read"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
