//! The only place that reads the clock; everything else is given the time.

use jiff::Timestamp;

/// Now, in UTC.
pub fn now() -> Timestamp {
    Timestamp::now()
}
