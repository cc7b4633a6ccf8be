//! Bodies on their way through: streamed, never collected, with a limit on their size and on the time between pieces.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use super::access::Record;
use super::by_tool::OfTool;
use super::compressed::{Compressed, Encoder};
use super::pool::Lease;

/// Why a body was cut off.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the request's body is longer than is allowed")]
    TooLong,
    #[error("the next piece of the body did not come in time")]
    TooSlow,
    #[error("the body could not be compressed")]
    Compression(#[source] std::io::Error),
    #[error(transparent)]
    Connection(#[from] hyper::Error),
}

/// A client's body, held while an address is found that accepts the request: nothing of it is read before.
#[derive(Clone)]
pub(super) struct Upload(Arc<Shared>);

struct Shared {
    body: Mutex<Option<Incoming>>,
    left: AtomicU64,
    state: AtomicU8,
    pause: Duration,
    /// What counts the bytes.
    counters: Option<Arc<OfTool>>,
}

const UNTOUCHED: u8 = 0;
const READ: u8 = 1;
const TOO_LONG: u8 = 2;
const TOO_SLOW: u8 = 3;
const BROKEN: u8 = 4;

/// The body of one attempt to send a request.
pub(super) struct UploadBody {
    shared: Arc<Shared>,
    clock: IdleClock,
}

/// The body of a response: a tool's, or a page of our own. When it is dropped, the request is over and is recorded.
pub(super) struct ResponseBody {
    content: Content,
    clock: IdleClock,
    record: Option<Record>,
}

enum Content {
    Page(Full<Bytes>),
    Tool(ToolBody),
    Compressed(Box<Compressed>),
}

/// A tool's body, and the connection on which it comes until it has ended.
pub(super) struct ToolBody {
    body: Incoming,
    lease: Option<Lease>,
}

/// Measures the time for which nothing came, or went.
pub(super) struct IdleClock {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Upload {
    /// Holds `body`, of which at most `longest` bytes are passed on, with at most `pause` between two pieces. They are
    /// counted by `counters`.
    pub(super) fn new(body: Incoming, longest: u64, pause: Duration, counters: Arc<OfTool>) -> Self {
        Self::of(Some(body), longest, pause, Some(counters))
    }

    /// No body.
    pub(super) fn empty() -> Self {
        Self::of(None, 0, Duration::MAX, None)
    }

    fn of(body: Option<Incoming>, longest: u64, pause: Duration, counters: Option<Arc<OfTool>>) -> Self {
        let (left, state) = (AtomicU64::new(longest), AtomicU8::new(UNTOUCHED));
        Self(Arc::new(Shared { body: Mutex::new(body), left, state, pause, counters }))
    }

    /// A body for one attempt.
    pub(super) fn attempt(&self) -> UploadBody {
        UploadBody { shared: self.0.clone(), clock: IdleClock::new(self.0.pause) }
    }

    /// Whether nothing has been read, so that another attempt can have all of it.
    pub(super) fn is_untouched(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == UNTOUCHED
    }

    /// Whether there is nothing to read at all.
    pub(super) fn is_empty(&self) -> bool {
        self.0.body().as_ref().is_none_or(Body::is_end_stream)
    }

    /// Whether it was cut off for its length.
    pub(super) fn was_too_long(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == TOO_LONG
    }

    /// Whether it was cut off because the client sent nothing for too long.
    pub(super) fn was_too_slow(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == TOO_SLOW
    }

    /// Whether the client's connection ended in the middle of it, or what it sent could not be read.
    pub(super) fn was_broken(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == BROKEN
    }
}

impl Shared {
    fn body(&self) -> MutexGuard<'_, Option<Incoming>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResponseBody {
    /// A page of our own.
    pub(super) fn page(content: Bytes) -> Self {
        Self { content: Content::Page(Full::new(content)), clock: IdleClock::new(Duration::MAX), record: None }
    }

    /// A tool's body, with at most `pause` between two pieces.
    pub(super) fn of_tool(body: ToolBody, pause: Duration) -> Self {
        Self { content: Content::Tool(body), clock: IdleClock::new(pause), record: None }
    }

    /// The same, compressed; one without anything in it stays so.
    pub(super) fn compressed(body: ToolBody, by: (Encoder, OwnedSemaphorePermit), pause: Duration) -> Self {
        let whole = Self::of_tool(body, pause);
        match whole.content {
            Content::Tool(body) if !body.is_end_stream() => {
                Self { content: Content::Compressed(Box::new(Compressed::new(body, by))), ..whole }
            }
            content => Self { content, ..whole },
        }
    }

    /// The answer to HEAD: a page's length is told, the page is not sent.
    pub(super) fn without_content(self) -> Self {
        match self.content {
            Content::Page(_) => Self::page(Bytes::new()),
            Content::Tool(_) | Content::Compressed(_) => self,
        }
    }

    /// Has the request recorded when the body has been sent or given up.
    pub(super) fn recorded(mut self, record: Record) -> Self {
        self.record = Some(record);
        self
    }
}

// === impl Body ===

impl Body for UploadBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let shared = &this.shared;
        let polled = {
            let mut body = shared.body();
            let Some(body) = body.as_mut() else { return Poll::Ready(None) };
            shared.state.store(READ, Ordering::Release);
            Pin::new(body).poll_frame(cx)
        };
        let Poll::Ready(frame) = polled else {
            ready!(this.clock.poll_expired(cx));
            shared.state.store(TOO_SLOW, Ordering::Release);
            return Poll::Ready(Some(Err(BodyError::TooSlow)));
        };
        this.clock.reset();
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            let left = shared.left.load(Ordering::Relaxed);
            if length > left {
                shared.state.store(TOO_LONG, Ordering::Release);
                return Poll::Ready(Some(Err(BodyError::TooLong)));
            }
            shared.left.store(left - length, Ordering::Relaxed);
            if let Some(counters) = &shared.counters {
                counters.received(length);
            }
        }
        if let Some(Err(_)) = &frame {
            shared.state.store(BROKEN, Ordering::Release);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.shared.body().as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.shared.body().as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = match &mut this.content {
            Content::Page(page) => Pin::new(page).poll_frame(cx).map_err(|never| match never {}),
            Content::Tool(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
            Content::Compressed(body) => body.poll_frame(cx),
        };
        let Poll::Ready(frame) = polled else {
            ready!(this.clock.poll_expired(cx));
            return Poll::Ready(Some(Err(BodyError::TooSlow)));
        };
        this.clock.reset();
        if let Some(record) = &mut this.record {
            match &frame {
                Some(Ok(frame)) => record.sent(frame.data_ref().map_or(0, Buf::remaining)),
                Some(Err(_)) => record.cut_off(),
                None => (),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Page(page) => page.is_end_stream(),
            Content::Tool(body) => body.is_end_stream(),
            Content::Compressed(body) => body.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Page(page) => page.size_hint(),
            Content::Tool(body) => body.size_hint(),
            Content::Compressed(_) => SizeHint::default(),
        }
    }
}

impl Body for ToolBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        // After trailers nothing comes.
        if frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers)) {
            this.ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl ToolBody ===

impl ToolBody {
    /// The body of an answer that came on the connection `lease`, where that is given back.
    pub(super) fn new(body: Incoming, lease: Option<Lease>) -> Self {
        Self { body, lease }
    }

    fn ended(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Drop for ToolBody {
    fn drop(&mut self) {
        // Nobody asks for the end of a body of which it is known beforehand.
        if self.body.is_end_stream() {
            self.ended();
        }
    }
}

// === impl IdleClock ===

impl IdleClock {
    /// At most so long.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, sleep: None, waiting: false }
    }

    /// Starts waiting, if it has not begun, and is ready when the limit has passed.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.limit == Duration::MAX {
            return Poll::Pending;
        }
        let deadline = || Instant::now() + self.limit;
        let sleep = match &mut self.sleep {
            Some(sleep) if self.waiting => sleep,
            Some(sleep) => {
                sleep.as_mut().reset(deadline());
                sleep
            }
            None => self.sleep.insert(Box::pin(tokio::time::sleep(self.limit))),
        };
        self.waiting = true;
        sleep.as_mut().poll(cx)
    }

    /// Something came.
    pub(super) fn reset(&mut self) {
        self.waiting = false;
    }
}
