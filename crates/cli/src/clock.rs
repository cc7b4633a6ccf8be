//! The only place where the commands read the clock; everything else is given the time.
//!
//! Both programs include this file: they share nothing else that would be worth a library.

use jiff::Timestamp;

/// Now, in UTC.
#[expect(clippy::disallowed_methods, reason = "the one place where the commands take the time from")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
