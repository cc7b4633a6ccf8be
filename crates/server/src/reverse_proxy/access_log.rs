//! The access log: JSON, a line a request, with what the operator keeps of it.
//!
//! A request leaves its line in memory; a thread of the log writes what has gathered. A reader of the log that is slow
//! holds up no visitor: what does not fit is counted and lost.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hearth_core::platform::AccessField;
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;

/// How long lines gather, so that many are written at once.
const GATHER: Duration = Duration::from_millis(100);

/// How many bytes may wait to be written.
const MOST: usize = 4 << 20;

/// Where requests leave their lines. Clones write into the same log.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<Arc<Shared>>);

/// The thread that writes.
#[derive(Debug)]
pub struct Writer {
    log: AccessLog,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    fields: Vec<AccessField>,
    lines: Mutex<Lines>,
    came: Condvar,
    lost: Counter,
}

#[derive(Debug, Default)]
struct Lines {
    text: Vec<u8>,
    clock: Clock,
    is_closed: bool,
}

/// The time as text, of which all but the fraction changes once a second.
#[derive(Debug, Default)]
struct Clock {
    second: i64,
    text: String,
}

/// What is known of a request at its end.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) protocol: &'a str,
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) tool: &'a str,
    pub(super) status: u16,
    pub(super) reason: &'a str,
    pub(super) bytes: u64,
    pub(super) complete: bool,
    pub(super) duration: Duration,
}

impl AccessLog {
    /// Nothing is kept.
    pub fn none() -> Self {
        Self(None)
    }

    /// A log with these fields that is written to `to`. Lines that did not fit count as `lost`.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(
        fields: Vec<AccessField>,
        lost: Counter,
        mut to: impl Write + Send + 'static,
    ) -> std::io::Result<(Self, Writer)> {
        let shared = Shared { fields, lines: Mutex::default(), came: Condvar::new(), lost };
        let log = Self((!shared.fields.is_empty()).then(|| Arc::new(shared)));
        let written = log.clone();
        let work = move || {
            let Some(shared) = written.0 else { return };
            while let Some(text) = shared.gathered() {
                // Whoever reads the log is gone: nobody is told of it in a log.
                let _ = to.write_all(&text).and_then(|()| to.flush());
            }
        };
        let thread = std::thread::Builder::new().name("access log".to_owned()).spawn(work)?;
        Ok((log.clone(), Writer { log, thread }))
    }

    pub(super) fn write(&self, line: &Line<'_>) {
        let Some(shared) = &self.0 else { return };
        let mut lines = shared.lines();
        if lines.text.len() >= MOST {
            shared.lost.inc();
            return;
        }
        let was_empty = lines.text.is_empty();
        let Lines { text, clock, .. } = &mut *lines;
        // Writing into memory cannot fail.
        let _ = line.write(&shared.fields, clock, text);
        drop(lines);
        if was_empty {
            shared.came.notify_one();
        }
    }
}

impl Writer {
    /// Writes what is there. Lines that come later are not written.
    pub fn finish(self) {
        if let Some(shared) = &self.log.0 {
            shared.lines().is_closed = true;
            shared.came.notify_one();
        }
        // It has nothing that could panic but what it writes to.
        let _ = self.thread.join();
    }
}

// === impl Shared ===

impl Shared {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for lines and a little longer, and takes them; nothing where the log has ended.
    fn gathered(&self) -> Option<Vec<u8>> {
        let is_idle = |lines: &mut Lines| lines.text.is_empty() && !lines.is_closed;
        let lines = self.came.wait_while(self.lines(), is_idle).unwrap_or_else(PoisonError::into_inner);
        let is_open = |lines: &mut Lines| !lines.is_closed;
        let waited = self.came.wait_timeout_while(lines, GATHER, is_open);
        let (mut lines, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let room = Vec::with_capacity(lines.text.len());
        let text = std::mem::replace(&mut lines.text, room);
        (!text.is_empty()).then_some(text)
    }
}

// === impl Clock ===

impl Clock {
    fn write(&mut self, out: &mut Vec<u8>) -> std::io::Result<()> {
        let now = crate::clock::now();
        let second = now.as_second();
        if second != self.second || self.text.is_empty() {
            let text = Timestamp::from_second(second).unwrap_or_default().to_string();
            (self.second, self.text) = (second, text.trim_end_matches('Z').to_owned());
        }
        write!(out, "\"{}.{:06}Z\"", self.text, now.subsec_microsecond())
    }
}

// === impl Line ===

impl Line<'_> {
    fn write(&self, fields: &[AccessField], clock: &mut Clock, out: &mut Vec<u8>) -> std::io::Result<()> {
        out.extend_from_slice(b"{\"target\":\"access\"");
        for field in fields {
            match field {
                AccessField::Timestamp => {
                    out.extend_from_slice(b",\"timestamp\":");
                    clock.write(out)?;
                }
                AccessField::Protocol => text(out, b",\"protocol\":", self.protocol)?,
                AccessField::Method => text(out, b",\"method\":", self.method)?,
                AccessField::Host => text(out, b",\"host\":", self.host)?,
                AccessField::Path => text(out, b",\"path\":", self.path)?,
                AccessField::Tool => text(out, b",\"tool\":", self.tool)?,
                AccessField::Status => write!(out, ",\"status\":{}", self.status)?,
                AccessField::Reason => text(out, b",\"reason\":", self.reason)?,
                AccessField::Bytes => write!(out, ",\"bytes\":{}", self.bytes)?,
                AccessField::Complete => write!(out, ",\"complete\":{}", self.complete)?,
                AccessField::DurationUs => write!(out, ",\"duration_us\":{}", self.duration.as_micros())?,
            }
        }
        out.extend_from_slice(b"}\n");
        Ok(())
    }
}

/// A field whose value others wrote.
fn text(out: &mut Vec<u8>, name: &[u8], value: &str) -> std::io::Result<()> {
    out.extend_from_slice(name);
    serde_json::to_writer(out, value).map_err(std::io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written, one after the other.
    #[derive(Clone, Debug, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn line(path: &str) -> Line<'_> {
        let (protocol, method, host, tool) = ("h2", "GET", "a.hearth.example", "a");
        let duration = Duration::from_micros(1234);
        Line { protocol, method, host, path, tool, status: 200, reason: "", bytes: 5, complete: true, duration }
    }

    fn written(fields: &[AccessField], paths: &[&str]) -> String {
        let to = Written::default();
        let (log, writer) = AccessLog::start(fields.to_vec(), Counter::default(), to.clone()).unwrap();
        paths.iter().for_each(|path| log.write(&line(path)));
        writer.finish();
        String::from_utf8(to.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn each_request_is_a_line_of_json() {
        let text = written(&AccessField::ALL, &["/", "/a\"\n\u{1b}é"]);
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["path"], "/a\"\n\u{1b}é");
        for line in &lines {
            assert_eq!(line.as_object().unwrap().len(), 1 + AccessField::ALL.len());
            assert!(line["timestamp"].as_str().unwrap().parse::<Timestamp>().is_ok(), "{line}");
        }
    }

    #[test]
    fn only_what_the_operator_keeps_is_written() {
        let text = written(&[AccessField::Status, AccessField::DurationUs], &["/secret"]);
        assert_eq!(text, "{\"target\":\"access\",\"status\":200,\"duration_us\":1234}\n");
        assert_eq!(written(&[], &["/secret"]), "");
    }

    #[test]
    fn a_log_that_nobody_reads_holds_up_nobody() {
        /// Writes when it may.
        struct Stalled(std::sync::mpsc::Receiver<()>, Written);

        impl Write for Stalled {
            fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
                let _ = self.0.recv();
                self.1.write(text)
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        let (go_on, may) = std::sync::mpsc::channel();
        let (to, lost) = (Written::default(), Counter::<u64>::default());
        let (log, writer) =
            AccessLog::start(AccessField::ALL.to_vec(), lost.clone(), Stalled(may, to.clone())).unwrap();
        let path = format!("/{}", "x".repeat(1000));
        let mut sent = 0_u64;
        while lost.get() == 0 {
            log.write(&line(&path));
            sent += 1;
            assert!(sent < 20_000, "nothing is ever lost");
        }
        drop(go_on);
        writer.finish();
        let text = String::from_utf8(to.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count() as u64 + lost.get(), sent);
    }
}
