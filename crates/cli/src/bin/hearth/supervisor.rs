//! The supervisor: starts the instance's processes and starts again what ends.
//!
//! It holds no state but `run/processes.json` and the pid files. If it is killed, everything goes on; the next one
//! finds the processes by their pid files and goes on watching them. It never stops a process: `down` does that, after
//! it has stopped the supervisor.

use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::instance::{Instance, Node, write};
use crate::process::{Spec, log_file, retired};

/// The name of the supervisor's own pid file and log.
const NAME: &str = "supervisor";

/// The shortest and the longest pause before a process that ended is started again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// How long the supervisor may take to start.
const START: Duration = Duration::from_secs(10);

/// A process that ran this long is taken to have been well.
const WELL: Duration = Duration::from_secs(30);

/// Writes down what is to run and sees to it that a supervisor is there that does it. What runs otherwise than it is
/// to run now, or from a program that was replaced since, is started anew.
pub fn ensure(instance: &Instance, specs: &[Spec]) -> anyhow::Result<()> {
    let before = self::specs(instance)?;
    let own = own_spec(instance);
    let outdated: Vec<&Spec> = before.iter().filter(|old| !specs.contains(old) || old.is_outdated(instance)).collect();
    let changed = before != specs || own.is_outdated(instance);
    // A supervisor waits for the process that it knows, which may go on for long when another has taken over.
    let hands_over = outdated.iter().any(|spec| spec.hands_over);
    if let (true, Some(running)) = (changed || hands_over, own.running(instance)) {
        running.stop(Duration::from_secs(5));
    }
    write(&file(instance), serde_json::to_string_pretty(specs)?, 0o600)?;
    // A supervisor that stays starts these again by itself.
    for old in outdated {
        let Some(running) = old.running(instance) else { continue };
        match specs.iter().find(|new| new.name == old.name && new.hands_over && old.hands_over) {
            Some(new) => {
                running.retire(instance, &old.name)?;
                new.start(instance)?;
            }
            None => running.stop(Duration::from_secs(10)),
        }
    }
    if own.running(instance).is_some() {
        return Ok(());
    }
    // It writes down its number by itself.
    own.spawn(instance)?;
    let began = Instant::now();
    while own.running(instance).is_none() {
        if began.elapsed() > START {
            bail!("the supervisor did not start; see {}", log_file(instance, NAME).display());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Stops the supervisor, and then every process, the last started first.
pub fn stop_all(instance: &Instance) -> anyhow::Result<()> {
    if let Some(running) = own_spec(instance).running(instance) {
        running.stop(Duration::from_secs(5));
    }
    for spec in specs(instance)?.iter().rev() {
        for running in spec.running(instance).into_iter().chain(retired(instance, &spec.name)) {
            running.stop(Duration::from_secs(10));
        }
    }
    Ok(())
}

/// Stops the supervisor and the kubelets, so that nobody starts containers again while they are being ended.
pub fn stop_kubelets(instance: &Instance, nodes: &[Node]) -> anyhow::Result<()> {
    if let Some(running) = own_spec(instance).running(instance) {
        running.stop(Duration::from_secs(5));
    }
    let specs = specs(instance)?;
    let names: Vec<String> = nodes.iter().map(|node| node.own("kubelet")).collect();
    let kubelets = specs.iter().filter(|spec| names.contains(&spec.name));
    for running in kubelets.filter_map(|spec| spec.running(instance)) {
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

/// The supervisor itself: one thread a process. Runs until it is told to end. There is never a second one: whoever
/// started it may have been ended before it could write down that it had.
pub fn run(instance: Instance) -> anyhow::Result<()> {
    let path = instance.path("run/supervisor.lock");
    let lock = std::fs::File::create(&path).with_context(|| format!("failed to open {}", path.display()))?;
    lock.try_lock().with_context(|| format!("another supervisor holds {}", path.display()))?;
    own_spec(&instance).register(&instance)?;
    let instance = Arc::new(instance);
    let starting = Arc::new(RwLock::new(()));
    end_between_starts(starting.clone())?;
    let threads: Vec<_> = specs(&instance)?
        .into_iter()
        .map(|spec| {
            let (instance, starting) = (instance.clone(), starting.clone());
            std::thread::spawn(move || keep(&instance, &spec, &starting))
        })
        .collect();
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// Ends this process when it is asked to, but not between the start of a process and the writing of its number: that
/// process would be nobody's, and the next supervisor would start a second one.
fn end_between_starts(starting: Arc<RwLock<()>>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("failed to wait for the signal to end")?;
    tokio::spawn(async move {
        terminate.recv().await;
        let _none_starts = starting.write();
        std::process::exit(0);
    });
    Ok(())
}

/// Keeps one process running, for ever.
fn keep(instance: &Instance, spec: &Spec, starting: &RwLock<()>) {
    let mut pause = PAUSE.0;
    loop {
        let began = Instant::now();
        let started = {
            let _starting = starting.read();
            spec.running(instance).map_or_else(|| spec.start(instance), Ok)
        };
        match started {
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
    Spec {
        name: NAME.to_owned(),
        command: command.to_vec(),
        environment: Vec::new(),
        hands_over: false,
        configuration: String::new(),
    }
}

fn file(instance: &Instance) -> std::path::PathBuf {
    instance.path("run/processes.json")
}
