//! The only place that reads the clock; everything else is given the time.

use jiff::Timestamp;

/// Now, in UTC.
#[expect(clippy::disallowed_methods, reason = "the one place where roles take the time from")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
