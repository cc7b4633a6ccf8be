//! The supervisor: starts the instance's processes and starts again what ends.
//!
//! It holds no state but `run/processes.json` and the pid files. If it is killed, everything goes on; the next one
//! finds the processes by their pid files and goes on watching them. It never stops a process: `down` does that, after
//! it has stopped the supervisor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::instance::{Instance, write};
use crate::process::Spec;

/// The name of the supervisor's own pid file and log.
const NAME: &str = "supervisor";

/// The shortest and the longest pause before a process that ended is started again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// A process that ran this long is taken to have been well.
const WELL: Duration = Duration::from_secs(30);

/// Writes down what is to run and sees to it that a supervisor is there that does it. What runs otherwise than it is
/// to run now, or from a program that was replaced since, is started anew.
pub fn ensure(instance: &Instance, specs: &[Spec]) -> anyhow::Result<()> {
    let before = self::specs(instance)?;
    let own = own_spec(instance);
    let changed = before != specs || own.is_outdated(instance);
    let outdated: Vec<&Spec> = before.iter().filter(|old| !specs.contains(old) || old.is_outdated(instance)).collect();
    if let (true, Some(running)) = (changed, own.running(instance)) {
        running.stop(Duration::from_secs(5));
    }
    write(&file(instance), serde_json::to_string_pretty(specs)?, 0o600)?;
    // A supervisor that stays starts these again by itself.
    for spec in outdated {
        if let Some(running) = spec.running(instance) {
            running.stop(Duration::from_secs(10));
        }
    }
    if own.running(instance).is_none() {
        own.start(instance)?;
    }
    Ok(())
}

/// Stops the supervisor, and then every process, the last started first.
pub fn stop_all(instance: &Instance) -> anyhow::Result<()> {
    if let Some(running) = own_spec(instance).running(instance) {
        running.stop(Duration::from_secs(5));
    }
    for spec in specs(instance)?.iter().rev() {
        if let Some(running) = spec.running(instance) {
            running.stop(Duration::from_secs(10));
        }
    }
    Ok(())
}

/// Stops the supervisor and the kubelet, so that nobody starts containers again while they are being ended.
pub fn stop_kubelet(instance: &Instance) -> anyhow::Result<()> {
    if let Some(running) = own_spec(instance).running(instance) {
        running.stop(Duration::from_secs(5));
    }
    let specs = specs(instance)?;
    if let Some(running) = specs.iter().find(|s| s.name == "kubelet").and_then(|s| s.running(instance)) {
        running.stop(Duration::from_secs(10));
    }
    Ok(())
}

/// What is to run, as last written down.
pub fn specs(instance: &Instance) -> anyhow::Result<Vec<Spec>> {
    match std::fs::read(file(instance)) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
            format!("{} is damaged; `make up` writes it anew if it is removed", file(instance).display())
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).with_context(|| format!("failed to read {}", file(instance).display())),
    }
}

/// Whether a supervisor runs.
pub fn is_running(instance: &Instance) -> bool {
    own_spec(instance).running(instance).is_some()
}

/// The supervisor itself: one thread a process. Runs until it is told to end.
pub fn run(instance: Instance) -> anyhow::Result<()> {
    let instance = Arc::new(instance);
    let threads: Vec<_> = specs(&instance)?
        .into_iter()
        .map(|spec| {
            let instance = instance.clone();
            std::thread::spawn(move || keep(&instance, &spec))
        })
        .collect();
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// Keeps one process running, for ever.
fn keep(instance: &Instance, spec: &Spec) {
    let mut pause = PAUSE.0;
    loop {
        let began = Instant::now();
        match spec.running(instance).map_or_else(|| spec.start(instance), Ok) {
            Ok(running) => {
                log(&format!("{} runs as process {}", spec.name, running.id()));
                running.wait(None);
                log(&format!("{} has ended", spec.name));
            }
            Err(error) => log(&format!("{error:#}")),
        }
        pause = if began.elapsed() > WELL { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
        std::thread::sleep(pause);
    }
}

fn log(message: &str) {
    eprintln!("{} {message}", crate::clock::now());
}

fn own_spec(instance: &Instance) -> Spec {
    let place = &instance.place;
    let command = [
        instance.own_program("hearth"),
        "--home".to_owned(),
        place.home.display().to_string(),
        "--address".to_owned(),
        place.address.to_string(),
        "--cache".to_owned(),
        place.cache.display().to_string(),
        "supervise".to_owned(),
    ];
    Spec { name: NAME.to_owned(), command: command.to_vec(), environment: Vec::new() }
}

fn file(instance: &Instance) -> std::path::PathBuf {
    instance.path("run/processes.json")
}
