//! Following the directory: one snapshot at first, and one after each change.
//!
//! Polling one attribute of one entry costs the server less than a millisecond, so it may be done often. Asking
//! the server to send changes (RFC 4533) would replace [`next_change`] and nothing else.

use std::time::Duration;

use anyhow::Result;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use hearth_core::directory_entry::Snapshot;
use tokio::time::sleep;

use crate::{Connection, Directory};

/// How often everything is read from a server that does not say when it was written to.
const WITHOUT_CHANGE_NUMBER: Duration = Duration::from_secs(60);

/// The longest pause between attempts to reach the directory.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The directory's state at first and after each change, for ever. An error is given out once each time an
/// attempt fails; the next item comes from the next attempt, after a pause that grows to 15 s.
/// `interval` is how often to ask whether anything changed; 500 ms is a good value.
pub fn follow(connection: Connection, interval: Duration) -> BoxStream<'static, Result<Snapshot>> {
    let state = Follower { connection, interval, directory: None, failures: 0 };
    stream::unfold(state, |mut state| async move {
        let item = state.next().await;
        Some((item, state))
    })
    .boxed()
}

struct Follower {
    connection: Connection,
    interval: Duration,
    /// The connection, once a first reading came from it.
    directory: Option<Directory>,
    /// How many attempts have failed since the last that did not.
    failures: u32,
}

// === impl Follower ===

impl Follower {
    async fn next(&mut self) -> Result<Snapshot> {
        if self.failures > 0 {
            sleep(pause(self.interval, self.failures)).await;
        }
        let item = self.attempt().await;
        if item.is_err() {
            self.directory = None;
            self.failures += 1;
        } else {
            self.failures = 0;
        }
        item
    }

    async fn attempt(&mut self) -> Result<Snapshot> {
        if let Some(directory) = &mut self.directory {
            next_change(directory, self.interval).await?;
            return directory.read().await;
        }
        let mut directory = self.connection.connect().await?;
        let snapshot = directory.read().await?;
        self.directory = Some(directory);
        Ok(snapshot)
    }
}

/// Returns when the directory should be read again.
async fn next_change(directory: &mut Directory, interval: Duration) -> Result<()> {
    if !directory.tells_changes() {
        sleep(WITHOUT_CHANGE_NUMBER).await;
        return Ok(());
    }
    loop {
        sleep(interval).await;
        if directory.changed().await? {
            return Ok(());
        }
    }
}

fn pause(interval: Duration, failures: u32) -> Duration {
    interval.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        let half = Duration::from_millis(500);
        assert_eq!(pause(half, 1), Duration::from_secs(1));
        assert_eq!(pause(half, 3), Duration::from_secs(4));
        assert_eq!(pause(half, u32::MAX), LONGEST_PAUSE);
    }
}
