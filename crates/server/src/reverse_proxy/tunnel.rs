//! Bytes between a visitor and a tool that speak another protocol than HTTP by now, such as WebSocket.
//!
//! They are not looked at. A side that fails does not take along what the other one said before: tokio's
//! `copy_bidirectional` would drop it with the first error, and with it a tool's reason for closing. But it is told at
//! once that there is nothing more to come. A tunnel through which nothing came for as long as a tool may pause in an
//! answer is closed: otherwise the ends that vanished without a word would add up.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy, split};
use tokio::time::Instant;

use super::by_tool::OfTool;

/// How long what one side said last may take to the other, when the way back is broken.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// When something came last, in milliseconds since the tunnel was opened.
struct Clock {
    opened: Instant,
    last: AtomicU64,
}

/// One end. What is read from it is counted, and notes the time.
struct End<'a, S, C> {
    stream: S,
    clock: &'a Clock,
    count: C,
}

/// Carries bytes between the visitor and the tool until one of them ends, or neither says anything for `silence`.
///
/// # Errors
/// An end is cut off, or both were silent.
pub(super) async fn carry<A, B>(visitor: A, tool: B, silence: Duration, counters: &OfTool) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let clock = &Clock { opened: Instant::now(), last: AtomicU64::new(0) };
    let visitor = End { stream: visitor, clock, count: |bytes| counters.received(bytes) };
    let tool = End { stream: tool, clock, count: |bytes| counters.sent(bytes) };
    tokio::select! {
        ended = both_ways(visitor, tool) => ended,
        () = clock.silent(silence) => Err(io::Error::new(io::ErrorKind::TimedOut, "both ends were silent for too long")),
    }
}

/// Carries until both sides have ended, or one of them failed.
async fn both_ways(
    visitor: impl AsyncRead + AsyncWrite + Unpin,
    tool: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    let ((from_visitor, to_visitor), (from_tool, to_tool)) = (split(visitor), split(tool));
    let (mut up, mut down) = (pin!(one_way(from_visitor, to_tool)), pin!(one_way(from_tool, to_visitor)));
    tokio::select! {
        ended = up.as_mut() => and(ended, down).await,
        ended = down.as_mut() => and(ended, up).await,
    }
}

/// Carries one way to its end, and ends the half of the side that it led to, however it ended.
async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let copied = copy(&mut from, &mut to).await;
    let ended = to.shutdown().await;
    copied.and(ended)
}

/// Waits for the other way: as long as it takes, or for its last words.
async fn and(ended: io::Result<()>, other: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    match ended {
        Ok(()) => other.await,
        Err(error) => {
            let _ = tokio::time::timeout(LAST_WORDS, other).await;
            Err(error)
        }
    }
}

impl Clock {
    /// Completes when nothing came for so long.
    async fn silent(&self, limit: Duration) {
        loop {
            let last = self.opened + Duration::from_millis(self.last.load(Relaxed));
            if last.elapsed() >= limit {
                return;
            }
            tokio::time::sleep_until(last + limit).await;
        }
    }
}

impl<S: AsyncRead + Unpin, C: Fn(u64) + Unpin> AsyncRead for End<'_, S, C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        (this.count)((buf.filled().len() - before) as u64);
        this.clock.last.store(u64::try_from(this.clock.opened.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, C: Unpin> AsyncWrite for End<'_, S, C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_silent_tunnel_is_closed_and_one_that_is_used_is_not() {
        let (mut visitor, near) = duplex(64);
        let (far, mut tool) = duplex(64);
        let (counters, limit) = (OfTool::default(), Duration::from_secs(1));
        let begun = Instant::now();
        let talk = async {
            // Longer than the limit, with pauses that are shorter.
            while begun.elapsed() < limit * 2 {
                visitor.write_all(b"x").await.unwrap();
                assert_eq!(tool.read_u8().await.unwrap(), b'x');
                tool.write_all(b"y").await.unwrap();
                assert_eq!(visitor.read_u8().await.unwrap(), b'y');
                tokio::time::sleep(limit / 20).await;
            }
            Instant::now()
        };
        let (ended, talked) = tokio::join!(carry(near, far, limit, &counters), talk);
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(talked.elapsed() < limit * 5);
    }

    #[tokio::test]
    async fn a_visitor_learns_at_once_that_the_tool_has_broken_off() {
        let (mut visitor, near) = duplex(64);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (far, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (far, (tool, _)) = (far.unwrap(), accepted.unwrap());
        let carried = tokio::spawn(async move {
            let counters = OfTool::default();
            carry(near, far, Duration::from_secs(60), &counters).await
        });
        // It ends as a process does that is killed with something unread: by a reset.
        tool.set_zero_linger().unwrap();
        drop(tool);
        assert_eq!(visitor.read(&mut [0]).await.unwrap(), 0);
        assert!(!carried.is_finished(), "the visitor may still say its last words");
        drop(visitor);
        assert_eq!(carried.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
