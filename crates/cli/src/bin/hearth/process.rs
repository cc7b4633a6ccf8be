//! A process of the instance: what it is, and whether it runs.
//!
//! A process is known by a file that holds its number and the time at which it started, so that a number that the
//! kernel gave to another process in the meantime is never taken for it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::instance::{Instance, write};

/// What is to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// A short name, also that of its log and its pid file.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables of its environment beside the inherited ones.
    pub environment: Vec<(String, String)>,
    /// Whether a second one takes over from the first, which ends by itself then.
    #[serde(default)]
    pub hands_over: bool,
    /// A digest of what of the configuration it reads when it starts: with another one it is started anew.
    #[serde(default)]
    pub configuration: String,
}

/// A process that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    pid: Pid,
}

impl Spec {
    /// The process, if it runs.
    pub fn running(&self, instance: &Instance) -> Option<Running> {
        Running::parse(&std::fs::read_to_string(pid_file(instance, &self.name)).ok()?)
    }

    /// Whether the process runs from a program file that has been replaced or removed since.
    pub fn is_outdated(&self, instance: &Instance) -> bool {
        let program = |running: Running| std::fs::read_link(format!("/proc/{}/exe", running.id())).ok();
        let replaced = |path: PathBuf| path.as_os_str().as_encoded_bytes().ends_with(b" (deleted)");
        self.running(instance).and_then(program).is_some_and(replaced)
    }

    /// Starts the process, and writes down which it is.
    pub fn start(&self, instance: &Instance) -> anyhow::Result<Running> {
        let pid = self.spawn(instance)?;
        self.write_down(instance, pid).with_context(|| {
            format!("{} may have ended at once; see {}", self.name, log_file(instance, &self.name).display())
        })?;
        Ok(Running { pid: Pid::from_raw(pid).context("the kernel gave no process number")? })
    }

    /// Starts the process in a session of its own, so that it outlives whoever started it; its number.
    pub fn spawn(&self, instance: &Instance) -> anyhow::Result<i32> {
        let (program, args) = self.command.split_first().context("a process has no program")?;
        let log_path = log_file(instance, &self.name);
        rotate(&log_path)?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .with_context(|| format!("failed to open {}", log_path.display()))?;
        // `setsid` is a program and not a call, because calls between fork and exec are unsafe.
        let child = Command::new("setsid")
            .arg(program)
            .args(args)
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .current_dir("/")
            .spawn()
            .with_context(|| format!("failed to start {} ({program})", self.name))?;
        Ok(i32::try_from(child.id())?)
    }

    /// Writes down that the process which calls this is the one.
    pub fn register(&self, instance: &Instance) -> anyhow::Result<()> {
        self.write_down(instance, i32::try_from(std::process::id())?)
    }

    fn write_down(&self, instance: &Instance, pid: i32) -> anyhow::Result<()> {
        let started = started_at(pid).with_context(|| format!("process {pid} has ended"))?;
        write(&pid_file(instance, &self.name), format!("{pid} {started}\n"), 0o644).map(drop)
    }
}

/// Processes of this name that were taken over from and may not have ended yet. Those that have are forgotten.
pub fn retired(instance: &Instance, name: &str) -> Vec<Running> {
    let text = std::fs::read_to_string(retired_file(instance, name)).unwrap_or_default();
    text.lines().filter_map(Running::parse).collect()
}

impl Running {
    /// A process by what a pid file says, if it runs.
    fn parse(text: &str) -> Option<Self> {
        let (pid, started) = text.trim().split_once(' ')?;
        let pid: i32 = pid.parse().ok()?;
        (started_at(pid)? == started).then_some(Self { pid: Pid::from_raw(pid)? })
    }

    /// Writes down that a process is to be taken over from.
    pub fn retire(self, instance: &Instance, name: &str) -> anyhow::Result<()> {
        let all = retired(instance, name).into_iter().chain([self]);
        let lines = all.filter_map(|one| Some(format!("{} {}\n", one.id(), started_at(one.id())?)));
        write(&retired_file(instance, name), lines.collect::<String>(), 0o644).map(drop)
    }

    /// Waits until the process has ended, for `limit` at most; whether it has.
    pub fn wait(self, limit: Option<Duration>) -> bool {
        let Ok(fd) = pidfd_open(self.pid, PidfdFlags::empty()) else { return true };
        let limit = limit.and_then(|limit| rustix::event::Timespec::try_from(limit).ok());
        let ended = loop {
            match poll(&mut [PollFd::new(&fd, PollFlags::IN)], limit.as_ref()) {
                Err(rustix::io::Errno::INTR) => (),
                Ok(0) => break false,
                _ => break true,
            }
        };
        if ended {
            // Collects the process if it is a child of ours; if not, that fails and does not matter.
            let _ = rustix::process::waitpid(Some(self.pid), rustix::process::WaitOptions::NOHANG);
        }
        ended
    }

    /// Asks the process to end and, when it has not after `grace`, ends it.
    pub fn stop(self, grace: Duration) {
        let Ok(fd) = pidfd_open(self.pid, PidfdFlags::empty()) else { return };
        let _ = pidfd_send_signal(&fd, Signal::TERM);
        if !self.wait(Some(grace)) {
            let _ = pidfd_send_signal(&fd, Signal::KILL);
            self.wait(Some(Duration::from_secs(5)));
        }
    }

    /// Its number.
    pub fn id(self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }
}

/// The file that a process writes to.
pub fn log_file(instance: &Instance, name: &str) -> PathBuf {
    instance.path(format!("log/{name}.log"))
}

/// The file that holds a process's number.
pub fn pid_file(instance: &Instance, name: &str) -> PathBuf {
    instance.path(format!("run/{name}.pid"))
}

fn retired_file(instance: &Instance, name: &str) -> PathBuf {
    instance.path(format!("run/{name}.retired"))
}

/// When a process started, in the kernel's ticks; nothing if it has ended, even if nobody collected it yet.
fn started_at(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) { None } else { fields.get(19).map(|s| (*s).to_owned()) }
}

/// Keeps one earlier log when the current one is larger than 32 MiB.
fn rotate(path: &std::path::Path) -> anyhow::Result<()> {
    if path.metadata().is_ok_and(|m| m.len() > 32 << 20) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    Ok(())
}
