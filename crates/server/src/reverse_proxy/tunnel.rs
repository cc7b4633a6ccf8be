//! A connection that speaks another protocol: bytes are carried both ways until both sides have ended.
//!
//! It reads nothing into the bytes. A side that fails does not take along what the other one said before: tokio's
//! `copy_bidirectional` would drop it with the first error, and with it a tool's reason for closing.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, split};

/// How long what one side said last may take to the other, when the way back is broken.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Carries until both sides have ended, or one of them failed.
pub(super) async fn carry(
    client: impl AsyncRead + AsyncWrite + Unpin,
    tool: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    let ((from_client, to_client), (from_tool, to_tool)) = (split(client), split(tool));
    let (mut up, mut down) = (pin!(one_way(from_client, to_tool)), pin!(one_way(from_tool, to_client)));
    tokio::select! {
        ended = up.as_mut() => and(ended, down).await,
        ended = down.as_mut() => and(ended, up).await,
    }
}

/// Carries one way to its end, and ends the half of the side that it led to.
async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    copy(&mut from, &mut to).await?;
    to.shutdown().await
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
