//! Clients that do not take what they are sent: such a pause is bounded, as one in what they send is.
//!
//! Otherwise a client that asks for long answers and leaves its window shut, or reads nothing, would hold the tools'
//! connections and what is buffered of the answers for the price of a ping now and then. There are three limits: on the
//! time in which not one byte can be written to a connection ([`within`], [`Written`]), on the time in which a piece of
//! one answer of HTTP/2 is not taken ([`Streams`]), and on the time in which a connection of HTTP/2 has no request
//! ([`Open::idle`]). It never ends a tunnel.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::bodies::IdleClock;

/// The largest piece of an answer that is handed to HTTP/2 at a time. h2 buffers a piece whole as soon as the client's
/// window has room for one byte, and a client has the time of one pause for each.
const PIECE: usize = 64 * 1024;

/// The largest last piece: after it the request is over for us, and what the client does not take of it stays with the
/// connection until that ends.
const LAST: usize = 16 * 1024;

tokio::task_local! {
    /// How many pieces of this stream's answer were handed over, and whether the last waits to be taken.
    static HANDED: Cell<(u64, bool)>;
}

/// Lets what is polled fail when it was pending for as long as `clock` allows.
pub(super) fn within<T>(
    clock: &mut IdleClock,
    polled: Poll<io::Result<T>>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<T>> {
    if polled.is_pending() {
        ready!(clock.poll_expired(cx));
        return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")));
    }
    clock.reset();
    polled
}

/// A connection on which a pause in writing is bounded.
pub(super) struct Written<S> {
    stream: S,
    clock: IdleClock,
}

/// Runs the streams of one connection of HTTP/2, and gives up those whose answer is not taken.
#[derive(Clone)]
pub(super) struct Streams {
    pause: Duration,
    open: Arc<Open>,
}

/// How many streams of a connection have begun and ended.
#[derive(Debug, Default)]
pub(super) struct Open {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// A stream, as long as it runs.
struct Running(Arc<Open>);

/// A body in pieces of a bounded size, which tells [`Streams`] when one is handed over.
pub(super) struct Pieces<B> {
    body: B,
    rest: Bytes,
}

impl<S> Written<S> {
    /// At most `pause` passes before a byte of what is to be written can be.
    pub(super) fn new(stream: S, pause: Duration) -> Self {
        Self { stream, clock: IdleClock::new(pause) }
    }
}

impl Streams {
    /// At most `pause` passes before a piece of an answer is taken.
    pub(super) fn new(pause: Duration) -> Self {
        Self { pause, open: Arc::default() }
    }

    pub(super) fn open(&self) -> Arc<Open> {
        self.open.clone()
    }
}

impl Open {
    /// Completes when there was no stream for `limit`, and before it was twice that.
    pub(super) async fn idle(&self, limit: Duration) {
        let mut last = None;
        loop {
            tokio::time::sleep(limit).await;
            let (ended, begun) = (self.ended.load(Ordering::Acquire), self.begun.load(Ordering::Acquire));
            let now = (begun == ended).then_some(begun);
            if now.is_some() && now == last {
                return;
            }
            last = now;
        }
    }
}

impl<B> Pieces<B> {
    pub(super) fn new(body: B) -> Self {
        Self { body, rest: Bytes::new() }
    }

    /// The next piece of what is there.
    fn piece(&mut self) -> Bytes {
        let length = match self.rest.len() {
            long if long > PIECE + LAST => PIECE,
            long if long > LAST => long - LAST,
            short => short,
        };
        self.rest.split_to(length)
    }
}

/// Runs a stream to its end, or until a piece of its answer was not taken for `pause`.
async fn taken(stream: impl Future<Output = ()>, pause: Duration) {
    let (mut stream, mut clock, mut last) = (pin!(stream), IdleClock::new(pause), 0);
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let (handed, waits) = HANDED.with(Cell::get);
        if !waits || handed != last {
            clock.reset();
            last = handed;
        }
        if !waits {
            return Poll::Pending;
        }
        ready!(clock.poll_expired(cx));
        tracing::debug!("a client does not take the answer that it asked for");
        Poll::Ready(())
    })
    .await;
}

// === impl Streams ===

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.open.begun.fetch_add(1, Ordering::AcqRel);
        let (running, pause) = (Running(self.open.clone()), self.pause);
        tokio::spawn(HANDED.scope(Cell::new((0, false)), async move {
            taken(stream, pause).await;
            drop(running);
        }));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}

// === impl Pieces ===

impl<B: Body<Data = Bytes> + Unpin> Body for Pieces<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let handed = |waits| {
            let _ = HANDED.try_with(|handed| handed.set((handed.get().0 + u64::from(waits), waits)));
        };
        if this.rest.is_empty() {
            handed(false);
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else { return Poll::Ready(None) };
            match frame?.into_data() {
                Ok(data) => this.rest = data,
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            }
        }
        handed(true);
        Poll::Ready(Some(Ok(Frame::data(this.piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}

// === impl Written ===

impl<S: AsyncRead + Unpin> AsyncRead for Written<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Written<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        within(&mut this.clock, Pin::new(&mut this.stream).poll_write(cx, buf), cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        within(&mut this.clock, Pin::new(&mut this.stream).poll_write_vectored(cx, bufs), cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        within(&mut this.clock, Pin::new(&mut this.stream).poll_flush(cx), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        within(&mut this.clock, Pin::new(&mut this.stream).poll_shutdown(cx), cx)
    }
}
