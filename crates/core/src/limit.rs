//! How many requests somebody may make: a rate, with room for a burst, and a number at a time.
//!
//! A burst is let through at once and what is over it is refused, not delayed: a delayed request would hold a connection
//! for those who send too many. The time is an argument, counted from any moment.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What somebody is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// Requests in a second, over time; at least one.
    pub per_second: u32,
    /// Requests at once, after a while without any; at least one.
    pub burst: u32,
    /// Requests, and tunnels, that are open at a time; at least one.
    pub at_once: u32,
}

/// What is over an allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The rate.
    Rate,
    /// The number at a time.
    AtOnce,
}

/// What somebody has made use of.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    /// Requests that may still be made at once, as of `at`.
    left: f64,
    at: Duration,
    open: u32,
}

impl Allowance {
    /// What is wrong with it, if anything.
    pub(crate) fn mistake(self) -> Option<&'static str> {
        let Self { per_second, burst, at_once } = self;
        (per_second == 0 || burst == 0 || at_once == 0).then_some("each number must be at least 1")
    }
}

impl Meter {
    /// Of somebody who made no request yet.
    pub fn new(allowance: Allowance, now: Duration) -> Self {
        Self { left: f64::from(allowance.burst), at: now, open: 0 }
    }

    /// A request begins.
    ///
    /// # Errors
    /// It is over the allowance; then it has not begun.
    pub fn begin(&mut self, allowance: Allowance, now: Duration) -> Result<(), Over> {
        self.left = self.left_at(allowance, now);
        self.at = self.at.max(now);
        if self.open >= allowance.at_once {
            return Err(Over::AtOnce);
        }
        if self.left < 1.0 {
            return Err(Over::Rate);
        }
        self.left -= 1.0;
        self.open += 1;
        Ok(())
    }

    /// A request that had begun ends.
    pub fn end(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// Whether it says no more than a new one would.
    pub fn is_idle(&self, allowance: Allowance, now: Duration) -> bool {
        self.open == 0 && self.left_at(allowance, now) >= f64::from(allowance.burst)
    }

    fn left_at(&self, allowance: Allowance, now: Duration) -> f64 {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        (self.left + passed * f64::from(allowance.per_second)).min(f64::from(allowance.burst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: Allowance = Allowance { per_second: 10, burst: 3, at_once: 2 };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_is_let_through_and_then_the_rate() {
        let mut meter = Meter::new(ALLOWANCE, at(0));
        let mut ask = |millis| {
            let begun = meter.begin(ALLOWANCE, at(millis));
            meter.end();
            begun
        };
        for (millis, expected) in [
            (0, Ok(())),
            (0, Ok(())),
            (0, Ok(())),
            (0, Err(Over::Rate)),
            (99, Err(Over::Rate)),
            (100, Ok(())),
            (100, Err(Over::Rate)),
            (10_000, Ok(())),
            (10_000, Ok(())),
            (10_000, Ok(())),
            (10_000, Err(Over::Rate)),
            // A clock that goes back gives nothing and takes nothing.
            (5_000, Err(Over::Rate)),
            (10_100, Ok(())),
        ] {
            assert_eq!(ask(millis), expected, "{millis}");
        }
    }

    #[test]
    fn only_so_many_are_open_at_a_time() {
        let mut meter = Meter::new(ALLOWANCE, at(0));
        assert!(meter.is_idle(ALLOWANCE, at(0)));
        assert_eq!([meter.begin(ALLOWANCE, at(0)), meter.begin(ALLOWANCE, at(0))], [Ok(()), Ok(())]);
        assert_eq!(meter.begin(ALLOWANCE, at(500)), Err(Over::AtOnce));
        meter.end();
        assert_eq!(meter.begin(ALLOWANCE, at(500)), Ok(()));
        assert!(!meter.is_idle(ALLOWANCE, at(60_000)));
        meter.end();
        meter.end();
        assert!(!meter.is_idle(ALLOWANCE, at(500)) && meter.is_idle(ALLOWANCE, at(60_000)));
    }
}
