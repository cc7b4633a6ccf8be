//! How long ago the cluster was last heard from.
//!
//! An address may be given to another tool while the proxy looks away, so a table is dialled from only while every
//! watch has been heard from within [`Freshness::limit`]. Kubernetes' CNI does not give an address out again within
//! 60 s, so 30 s leave room for requests that are on their way.

use std::pin::pin;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hearth_core::route::Kind;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A table older than this is not dialled from.
pub const STALE_AFTER: Duration = Duration::from_secs(30);

/// When each kind of object was last heard of.
pub struct Freshness {
    limit: Duration,
    contacts: Mutex<[Option<Instant>; Kind::ALL.len()]>,
    complete: AtomicBool,
    completed: Notify,
}

impl Freshness {
    /// Nothing has been heard yet; what is heard holds for `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { limit, contacts: Mutex::default(), complete: AtomicBool::new(false), completed: Notify::new() }
    }

    /// For how long what is heard holds.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// The table holds everything that was so at `at`, as far as objects of this kind go.
    pub fn heard(&self, kind: Kind, at: Instant) {
        let mut contacts = self.contacts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(contact) = contacts.get_mut(kind as usize) {
            *contact = (*contact).max(Some(at));
        }
    }

    /// The table has been complete once since the start.
    pub fn set_complete(&self) {
        self.complete.store(true, Ordering::Release);
        self.completed.notify_waiters();
    }

    /// Waits until the table is complete.
    pub async fn completed(&self) {
        let mut completed = pin!(self.completed.notified());
        // From here on it is not missed.
        completed.as_mut().enable();
        if !self.complete.load(Ordering::Acquire) {
            completed.await;
        }
    }

    /// Whether the proxy may be sent requests: its table was complete once and is not stale.
    pub fn is_ready(&self) -> bool {
        self.complete.load(Ordering::Acquire) && !self.is_stale()
    }

    /// Whether addresses of the table must not be dialled.
    pub fn is_stale(&self) -> bool {
        self.is_stale_at(Instant::now())
    }

    /// When the kind that has been silent for longest was heard of; nothing before all have been.
    pub fn oldest(&self) -> Option<Instant> {
        let contacts = self.contacts.lock().unwrap_or_else(PoisonError::into_inner);
        // `None` sorts first: one silent kind makes the whole silent.
        contacts.iter().min().copied().flatten()
    }

    /// The time since this kind was heard of.
    pub fn age_of(&self, kind: Kind) -> Option<Duration> {
        let contacts = self.contacts.lock().unwrap_or_else(PoisonError::into_inner);
        contacts.get(kind as usize).copied().flatten().map(|contact| contact.elapsed())
    }

    fn is_stale_at(&self, now: Instant) -> bool {
        self.oldest().is_none_or(|contact| now.saturating_duration_since(contact) > self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_silent_kind_counts() {
        let freshness = Freshness::new(STALE_AFTER);
        let begin = Instant::now();
        let after = |seconds: u64| begin + Duration::from_secs(seconds);
        for kind in &Kind::ALL[1..] {
            freshness.heard(*kind, begin);
            assert!(freshness.is_stale_at(begin));
        }
        freshness.heard(Kind::ALL[0], begin);
        assert!(!freshness.is_stale_at(after(30)) && freshness.is_stale_at(after(31)));
        freshness.heard(Kind::Ingress, after(20));
        assert!(freshness.is_stale_at(after(31)), "one kind that is heard of does not help the others");
        for kind in Kind::ALL {
            freshness.heard(kind, after(25));
            freshness.heard(kind, begin);
        }
        assert!(!freshness.is_stale_at(after(55)), "what is heard late does not make it older");
    }

    #[test]
    fn ready_is_complete_and_fresh() {
        let freshness = Freshness::new(STALE_AFTER);
        freshness.set_complete();
        assert!(!freshness.is_ready());
        for kind in Kind::ALL {
            freshness.heard(kind, Instant::now());
        }
        assert!(freshness.is_ready());
    }
}
