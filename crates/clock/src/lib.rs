//! The only place that reads clocks, the pauses between attempts, and what is counted in a second.
//!
//! Monotonic time goes through tokio, so that a test with `tokio::time::pause()` moves it at will.

mod backoff;
mod second;

use std::time::{SystemTime, UNIX_EPOCH};

pub use backoff::Backoff;
pub use second::Second;
pub use tokio::time::Instant;

#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall clock in Unix milliseconds; for records and logs, never for decisions.
#[must_use]
pub fn unix_millis() -> u64 {
    unix_nanos() / 1_000_000
}

/// The same in nanoseconds, until the year 2554.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn unix_nanos() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}
