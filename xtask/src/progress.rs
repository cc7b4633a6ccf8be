//! Showing several builds at once: a line for each that begins and ends, and, on a terminal, one line that moves.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// All builds of a run.
pub struct Board {
    tasks: Mutex<Vec<Arc<Task>>>,
    finished: AtomicBool,
    terminal: bool,
}

/// One build.
pub struct Task {
    name: &'static str,
    began: Instant,
    done: AtomicUsize,
    total: AtomicUsize,
    seconds: Mutex<Option<f64>>,
}

impl Board {
    /// An empty board; on a terminal something paints it until `finish`.
    pub fn new() -> Arc<Self> {
        let board = Arc::new(Self {
            tasks: Mutex::default(),
            finished: AtomicBool::new(false),
            terminal: std::io::stderr().is_terminal(),
        });
        let painted = board.clone();
        std::thread::spawn(move || painted.paint());
        board
    }

    /// Notes that a build begins.
    pub fn begin(&self, name: &'static str) -> Arc<Task> {
        let task = Arc::new(Task {
            name,
            began: Instant::now(),
            done: AtomicUsize::new(0),
            total: AtomicUsize::new(0),
            seconds: Mutex::new(None),
        });
        if let Ok(mut tasks) = self.tasks.lock() {
            tasks.push(task.clone());
        }
        task
    }

    /// Notes that a build has ended, and says how long it took.
    pub fn end(&self, task: &Task, ok: bool) {
        let seconds = task.began.elapsed().as_secs_f64();
        if let Ok(mut slot) = task.seconds.lock() {
            *slot = Some(seconds);
        }
        self.clear();
        eprintln!("  {seconds:6.1} s  {}{}", task.name, if ok { "" } else { ": failed" });
    }

    /// Stops painting.
    pub fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
        self.clear();
    }

    fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }

    fn paint(&self) {
        // A log that nobody watches gets a line now and then, so that one can tell a long build from a dead one.
        let pause = if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(60) };
        loop {
            std::thread::sleep(pause);
            if self.finished.load(Ordering::Relaxed) {
                return;
            }
            let Ok(tasks) = self.tasks.lock() else { return };
            let running: Vec<String> = tasks.iter().filter_map(|task| task.line()).collect();
            if running.is_empty() {
                continue;
            }
            if self.terminal {
                eprint!("\r\x1b[K  building  {}", running.join(" · "));
                let _ = std::io::stderr().flush();
            } else {
                eprintln!("            still building: {}", running.join(", "));
            }
        }
    }
}

impl Task {
    /// Sets how many steps the build has in all.
    pub fn set_total(&self, total: usize) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// Notes one more step.
    pub fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// The build as shown while it runs: a bar if its length is known.
    fn line(&self) -> Option<String> {
        if self.seconds.lock().ok()?.is_some() {
            return None;
        }
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let seconds = self.began.elapsed().as_secs();
        Some(match (done.min(total) * 10).checked_div(total) {
            None => format!("{} {seconds} s", self.name),
            Some(filled) => format!("{} [{}{}] {seconds} s", self.name, "=".repeat(filled), " ".repeat(10 - filled)),
        })
    }
}
