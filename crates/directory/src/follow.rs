//! Following the directory: one snapshot at first, and one after each change.
//!
//! Where a server tells that entries were written and nothing else, these are read by themselves, which takes a few
//! milliseconds however many there are. After anything else everything is read, and now and then in any case.
//!
//! A server that offers it tells of each change by itself. One that does not is asked for its change number, which
//! costs it less than a millisecond and may be done often.

use std::time::Duration;

use anyhow::Result;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use hearth_core::directory_entry::Snapshot;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::bell::Bell;
use crate::{Connection, Directory};

/// How often everything is read from a server that does not say when it was written to.
const WITHOUT_CHANGE_NUMBER: Duration = Duration::from_secs(60);

/// How long a server that tells of changes is believed when it says nothing: a connection may be dead and not show it.
const SILENCE: Duration = Duration::from_secs(60);

/// How long after a change, or the first of several, everything is read, whatever was told of it.
const WHOLE: Duration = Duration::from_secs(60);

/// The longest pause between attempts to reach the directory.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The directory's state at first and after each change, for ever. An error is given out once each time an
/// attempt fails; the next item comes from the next attempt, after a pause that grows to 15 s.
/// `interval` is how often to ask a server that does not tell by itself; 500 ms is a good value.
pub fn follow(connection: Connection, interval: Duration) -> BoxStream<'static, Result<Snapshot>> {
    let state = Follower { connection, interval, directory: None, bell: None, last: None, whole_at: None, failures: 0 };
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
    /// What tells of changes on that connection, where the server offers it.
    bell: Option<Bell>,
    /// What was given out last.
    last: Option<Snapshot>,
    /// When everything is to be read, though nothing more changes.
    whole_at: Option<Instant>,
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
        match &item {
            Ok(snapshot) => {
                self.last = Some(snapshot.clone());
                self.failures = 0;
            }
            Err(_) => {
                (self.directory, self.bell, self.whole_at) = (None, None, None);
                self.failures += 1;
            }
        }
        item
    }

    async fn attempt(&mut self) -> Result<Snapshot> {
        let Some(directory) = &mut self.directory else { return self.begin().await };
        loop {
            let change = next_change(directory, &mut self.bell, self.interval);
            let change = match self.whole_at {
                Some(at) => timeout_at(at, change).await.unwrap_or(Ok(Change::Any))?,
                None => change.await?,
            };
            if let (Change::Written, Some(last)) = (change, &self.last)
                && let Some(snapshot) = directory.read_since(last).await?
            {
                self.whole_at.get_or_insert_with(|| Instant::now() + WHOLE);
                return Ok(snapshot);
            }
            self.whole_at = None;
            let snapshot = directory.read().await?;
            if self.last.as_ref() != Some(&snapshot) {
                return Ok(snapshot);
            }
        }
    }

    async fn begin(&mut self) -> Result<Snapshot> {
        let mut directory = self.connection.connect().await?;
        // Before the reading, so that what is written meanwhile rings.
        let bell = directory.bell().await?;
        let snapshot = directory.read().await?;
        (self.directory, self.bell) = (Some(directory), bell);
        Ok(snapshot)
    }
}

/// What is known of a change.
enum Change {
    /// Entries were added or modified.
    Written,
    /// Anything.
    Any,
}

/// Returns when the directory should be read again.
async fn next_change(directory: &mut Directory, bell: &mut Option<Bell>, interval: Duration) -> Result<Change> {
    while let Some(ringing) = bell {
        match timeout(SILENCE, ringing.rings()).await {
            Ok(Ok(true)) => return Ok(Change::Written),
            Ok(Ok(false)) => return Ok(Change::Any),
            Ok(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "the directory is asked for changes from now on");
                *bell = None;
            }
            Err(_) if directory.changed().await? => return Ok(Change::Any),
            Err(_) => (),
        }
    }
    if !directory.tells_changes() {
        sleep(WITHOUT_CHANGE_NUMBER).await;
        return Ok(Change::Any);
    }
    loop {
        sleep(interval).await;
        if directory.changed().await? {
            return Ok(Change::Any);
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
