//! HTTP/2 frame by frame, as no client library would send it, and tests in a process of their own.
//!
//! Fields are written as literals that are not indexed and not compressed, so that what is sent is what is in the test.

#![expect(
    clippy::print_stderr,
    reason = "what a process of its own needed of memory is to be read in the test's output"
)]

use std::future::Future;
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::proxy_front::{Front, soon};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GO_AWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags. `ACK` is for settings and pings.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Settings.
pub(crate) const INITIAL_WINDOW: u16 = 4;

/// A client that has begun to speak HTTP/2.
pub(crate) struct Wire {
    stream: TlsStream<TcpStream>,
}

/// A frame that came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// The bytes of a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The window of a stream, or of the connection, grows.
pub(crate) fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// Settings and their values.
pub(crate) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload = values.iter().flat_map(|(name, value)| name.to_be_bytes().into_iter().chain(value.to_be_bytes()));
    frame(SETTINGS, 0, 0, &payload.collect::<Vec<u8>>())
}

/// A block of fields.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(0, name.as_bytes(), value.as_bytes())).collect()
}

/// A field in its literal form: 0 leaves the table as it is, 0x40 adds the field to it.
pub(crate) fn literal(form: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![form];
    for text in [name, value] {
        bytes.extend(length(text.len()));
        bytes.extend(text);
    }
    bytes
}

/// The length of a text (RFC 7541 §5.1, seven bits).
pub(crate) fn length(of: usize) -> Vec<u8> {
    let Some(mut rest) = of.checked_sub(127) else { return vec![u8::try_from(of).unwrap()] };
    let mut bytes = vec![127];
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// The fields of an ordinary request.
pub(crate) fn ask(method: &str, host: &str) -> Vec<u8> {
    let authority = format!("{host}.hearth.example");
    let fields =
        [(":method", method), (":scheme", "https"), (":authority", &authority), (":path", "/"), ("user-agent", "t")];
    block(&fields)
}

impl Wire {
    /// Greets the front door with these settings; nothing of what it says was read yet.
    pub(crate) async fn open(front: &Front, values: &[(u16, u32)]) -> Self {
        Self::open_from(front, "127.0.0.1", values).await
    }

    pub(crate) async fn open_from(front: &Front, visitor: &str, values: &[(u16, u32)]) -> Self {
        let mut wire = Self { stream: front.connect_from(visitor, b"h2").await };
        assert!(wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await);
        assert!(wire.send(settings(values)).await);
        wire
    }

    /// Whether the bytes could be sent, or the front door has closed.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        soon(async { self.stream.write_all(bytes.as_ref()).await.is_ok() && self.stream.flush().await.is_ok() }).await
    }

    /// The next frame, or none when the front door has closed.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        soon(async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let [a, b, c, kind, flags, rest @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]).try_into().unwrap()];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some(Frame { kind, flags, stream: u32::from_be_bytes(rest), payload })
        })
        .await
    }

    /// The next frame that is looked for, what comes before it being dropped; none when the front door has closed.
    pub(crate) async fn next_of(&mut self, is_wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if is_wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// Reads to the end; the code with which the front door said farewell, if it did.
    pub(crate) async fn ended(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GO_AWAY {
                code = Some(frame.code());
            }
        }
        code
    }

    /// Sends bytes again and again, without reading, until the front door takes no more or so many are sent. The sum.
    pub(crate) async fn flood(&mut self, bytes: &[u8], most: usize) -> usize {
        let mut sent = 0;
        while sent < most && self.send(bytes).await {
            sent += bytes.len();
        }
        sent
    }
}

impl Frame {
    /// The code of a reset or a farewell.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GO_AWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The status of the first answer of a connection, which comes as a number in the table or compressed as text.
    pub(crate) fn status(&self) -> u16 {
        match *self.payload.as_slice() {
            [index @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
            // Of the code of RFC 7541, digits up to 2 have five bits and the others six.
            [0x48, length @ 0x82..=0x83, ref text @ ..] => {
                let bits =
                    text[..usize::from(length & 0x7f)].iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
                let (mut left, mut status) = (8 * u32::from(length & 0x7f), 0);
                for _ in 0..3 {
                    let five = bits >> (left - 5) & 0x1f;
                    let digit = if five <= 2 { five } else { (bits >> (left - 6) & 0x3f) - 0x16 };
                    left -= if five <= 2 { 5 } else { 6 };
                    status = status * 10 + u16::try_from(digit).unwrap();
                }
                status
            }
            _ => panic!("no status at the beginning of {:?}", self.payload),
        }
    }
}

/// Says to the process that it is one of its own.
const ALONE: &str = "HEARTH_TEST_ALONE";

/// Runs a test in a process of its own, so that all memory that is taken is taken by it.
pub(crate) fn alone<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F) {
    if std::env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(body());
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    eprintln!("{told}");
    assert!(output.status.success() && told.contains("1 passed"), "{test}");
}

/// What a process of its own takes of memory beyond what it had.
pub(crate) struct Memory {
    before: u64,
}

impl Memory {
    /// From here on.
    pub(crate) fn watch() -> Self {
        // The kernel forgets the peak.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        Self { before: status("VmRSS:") }
    }

    /// The most that it had at a time since then must have been less than so many MiB more. Buffers of sockets are the
    /// kernel's and not in it.
    #[track_caller]
    pub(crate) fn stayed_below(&self, mebibytes: u64) {
        let grown = status("VmHWM:").saturating_sub(self.before);
        eprintln!("the process took {grown} KiB more at its peak, of {mebibytes} MiB allowed");
        assert!(grown < mebibytes * 1024, "{grown} KiB, of {mebibytes} MiB");
    }
}

fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
