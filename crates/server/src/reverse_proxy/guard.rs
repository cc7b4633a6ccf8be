//! A connection of HTTP/1 whose bytes go through [`Framing`] before the parser reads them.
//!
//! What may be passed on is read straight into the parser's buffer; only what came too early is held here. For a request
//! that is refused the parser gets one of ours in its place, so that the refusal is answered in its turn, recorded and
//! counted like any other answer; after it the connection has nothing more to say.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures::task::AtomicWaker;
use hearth_core::framing::{Framing, Then, Violation};
use http::{HeaderMap, HeaderName, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::bodies::IdleClock;
use super::stall::within;

/// What stands in the place of a refused request. Somebody else who sends it is answered as anybody is.
const REFUSED: &[u8] = b"GET / HTTP/1.1\r\nhost: refused.invalid\r\nx-hearth-refused: 1\r\n\r\n";

const MARK: HeaderName = HeaderName::from_static("x-hearth-refused");

/// How much is read at a time of what is held.
const PIECE: usize = 8 * 1024;

/// What the reading and the answering half of a connection tell each other.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// How many requests were answered, and whether the last answer switched to another protocol.
    answered: AtomicU64,
    is_switched: AtomicBool,
    waker: AtomicWaker,
    /// Why the last request of the connection is refused.
    refused: OnceLock<Violation>,
}

impl Gate {
    /// Why the request with these fields is refused, if it stands for one that is.
    pub(super) fn refused(&self, headers: &HeaderMap) -> Option<Violation> {
        if headers.contains_key(MARK) { self.refused.get().copied() } else { None }
    }

    /// An answer begins: what comes after its request can be told now.
    pub(super) fn answers(&self, status: StatusCode) {
        if status == StatusCode::SWITCHING_PROTOCOLS {
            self.is_switched.store(true, Ordering::Release);
        }
        self.answered.fetch_add(1, Ordering::Release);
        self.waker.wake();
    }

    /// Whether the answer to the request of this number switched, once it begins.
    fn poll_switched(&self, number: u64, cx: &Context<'_>) -> Poll<bool> {
        self.waker.register(cx.waker());
        match self.answered.load(Ordering::Acquire) >= number {
            true => Poll::Ready(self.is_switched.load(Ordering::Acquire)),
            false => Poll::Pending,
        }
    }
}

/// The status of a refusal.
pub(super) fn status(violation: Violation) -> StatusCode {
    match violation {
        Violation::TooLong | Violation::TooMany => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// A connection of which only requests with one reading can be read.
pub(super) struct Guarded<S> {
    stream: S,
    framing: Framing,
    gate: Arc<Gate>,
    /// What came and was not read yet: so many bytes of it may be.
    held: BytesMut,
    passed: usize,
    state: State,
    /// Measures how long the client takes nothing.
    clock: IdleClock,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// What comes next depends on an answer.
    Undecided,
    /// Nothing more is read. The parser waits for what never comes, and ends the connection with the last answer.
    Refused,
    /// The client has ended its half.
    Ended,
    /// The body that is being read has no end that could be told.
    Broken(Violation),
}

impl<S> Guarded<S> {
    /// Guards a connection on which nothing was read yet, and on which the client may take nothing for `pause`.
    pub(super) fn new(stream: S, gate: Arc<Gate>, pause: Duration) -> Self {
        let (framing, clock) = (Framing::new(), IdleClock::new(pause));
        Self { stream, framing, gate, held: BytesMut::new(), passed: 0, state: State::Open, clock }
    }

    /// Gives a client that takes nothing up, unless it speaks another protocol, in which it may.
    fn within<T>(&mut self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match self.gate.is_switched.load(Ordering::Acquire) {
            true => polled,
            false => within(&mut self.clock, polled, cx),
        }
    }

    /// Gives what is held and may be read.
    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let length = self.passed.min(buf.remaining());
        buf.put_slice(self.held.get(..length).unwrap_or_default());
        self.held.advance(length);
        self.passed -= length;
        if self.held.is_empty() {
            // A connection that waits for its next request keeps no memory for it.
            self.held = BytesMut::new();
        }
    }

    /// Acts on what was found after the bytes that may be read.
    fn then(&mut self, then: Then) {
        match then {
            Then::More => (),
            Then::Undecided => self.state = State::Undecided,
            Then::Refused(violation) => {
                tracing::debug!(%violation, "a request is refused");
                let _ = self.gate.refused.set(violation);
                self.held.truncate(self.passed);
                self.held.extend_from_slice(REFUSED);
                self.passed = self.held.len();
                self.state = State::Refused;
            }
            Then::Broken(violation) => self.state = State::Broken(violation),
        }
    }

    /// Looks at all that is held.
    fn look(&mut self) {
        let step = self.framing.advance(&self.held);
        self.passed = step.passed;
        self.then(step.then);
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Reads into the parser's buffer; what it may not have yet is held.
    fn poll_straight(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        if new.is_empty() {
            self.state = State::Ended;
            return Poll::Ready(Ok(()));
        }
        let step = self.framing.advance(new);
        self.held.extend_from_slice(new.get(step.passed..).unwrap_or_default());
        buf.set_filled(before + step.passed);
        self.then(step.then);
        Poll::Ready(Ok(()))
    }

    /// Reads more to what is held.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut piece = [0; PIECE];
        let mut piece = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
        if piece.filled().is_empty() {
            self.state = State::Ended;
            self.held.clear();
            return Poll::Ready(Ok(()));
        }
        self.held.extend_from_slice(piece.filled());
        self.look();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.passed > 0 {
                this.give(buf);
            }
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            match this.state {
                State::Refused => return Poll::Pending,
                State::Ended => return Poll::Ready(Ok(())),
                State::Broken(violation) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)));
                }
                State::Undecided => {
                    let is_switched = ready!(this.gate.poll_switched(this.framing.heads(), cx));
                    this.framing.decide(is_switched);
                    this.state = State::Open;
                    this.look();
                }
                State::Open if this.held.is_empty() => ready!(this.poll_straight(cx, buf))?,
                State::Open => ready!(this.poll_more(cx))?,
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.within(polled, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.within(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        this.within(polled, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.within(polled, cx)
    }
}
