//! Whose work failed, and when each is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(500);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(300);

/// Tools, or people, for whom something failed. One whose time has come stays in here, so that its next pause is longer.
#[derive(Debug)]
pub(super) struct Waiting<K>(BTreeMap<K, Retry>);

#[derive(Debug)]
struct Retry {
    failures: u32,
    /// `None` once the time has come.
    at: Option<Instant>,
}

impl<K: Ord + Clone> Waiting<K> {
    /// It failed (again). Returns for how long it waits.
    pub(super) fn failed(&mut self, whose: &K) -> Duration {
        let retry = self.0.entry(whose.clone()).or_insert(Retry { failures: 0, at: None });
        let pause = FIRST.saturating_mul(1 << retry.failures.min(10)).min(LONGEST);
        retry.failures = retry.failures.saturating_add(1);
        retry.at = Some(Instant::now() + pause);
        pause
    }

    /// It is as it should be, or is another now.
    pub(super) fn forget(&mut self, whose: &K) {
        self.0.remove(whose);
    }

    /// Forgets all but those that are named.
    pub(super) fn keep(&mut self, is_kept: impl Fn(&K) -> bool) {
        self.0.retain(|whose, _| is_kept(whose));
    }

    pub(super) fn is_waiting(&self, whose: &K) -> bool {
        self.0.get(whose).is_some_and(|retry| retry.at.is_some())
    }

    /// Ends the wait of those whose time has come, and returns them.
    pub(super) fn wake(&mut self, now: Instant) -> Vec<K> {
        let due = self.0.iter_mut().filter(|(_, retry)| retry.at.is_some_and(|at| at <= now));
        due.map(|(whose, retry)| {
            retry.at = None;
            whose.clone()
        })
        .collect()
    }

    /// When the next wait ends.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().filter_map(|retry| retry.at).min()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<K> Default for Waiting<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

#[cfg(test)]
mod tests {
    use hearth_core::ToolName;

    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let (mut waiting, tool) = (Waiting::default(), "a".parse::<ToolName>().unwrap());
        assert_eq!(waiting.failed(&tool), Duration::from_millis(500));
        assert_eq!(waiting.failed(&tool), Duration::from_secs(1));
        assert!(waiting.is_waiting(&tool) && waiting.wake(Instant::now()).is_empty());
        assert_eq!(waiting.wake(Instant::now() + Duration::from_secs(2)), std::slice::from_ref(&tool));
        assert!(!waiting.is_waiting(&tool) && waiting.next().is_none());
        assert_eq!(waiting.failed(&tool), Duration::from_secs(2));
        for _ in 0..40 {
            assert!(waiting.failed(&tool) <= LONGEST);
        }
        waiting.forget(&tool);
        assert_eq!(waiting.failed(&tool), Duration::from_millis(500));
    }
}
