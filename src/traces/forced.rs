//! How many requests are recorded because their callers say so: whoever reaches the server can.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use clipper_clock::Instant;

/// So many in each second.
#[derive(Debug)]
pub(super) struct Forced {
    per_second_max: u32,
    since: Instant,
    /// The second in the upper half, how many there were in it in the lower one.
    window: AtomicU64,
}

impl Forced {
    pub(super) fn new(per_second_max: u32, now: Instant) -> Self {
        Self { per_second_max, since: now, window: AtomicU64::new(0) }
    }

    /// Whether another one may be recorded `now`.
    pub(super) fn admits(&self, now: Instant) -> bool {
        let second = now.saturating_duration_since(self.since).as_secs() & u64::from(u32::MAX);
        let next = |window: u64| {
            let (of, count) = (window >> 32, window & u64::from(u32::MAX));
            // Another thread may have seen the next one begin.
            let second = second.max(of);
            let count = if of == second { count } else { 0 };
            (count < u64::from(self.per_second_max)).then_some(second << 32 | (count + 1))
        };
        self.window.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use clipper_clock as clock;

    #[test]
    fn so_many_in_each_second() {
        let start = clock::now();
        let forced = Forced::new(3, start);
        let admitted = |after_ms| {
            let now = start + Duration::from_millis(after_ms);
            (0..10).filter(|_| forced.admits(now)).count()
        };
        assert_eq!([admitted(0), admitted(999), admitted(1_000), admitted(60_000)], [3, 0, 3, 3]);
        // A thread that looked at the clock before takes of the same second.
        assert_eq!(admitted(59_999), 0);
        assert!(!Forced::new(0, start).admits(start));
    }
}
