//! Pauses between attempts: each twice as long as the one before, up to the longest. Pure.

use std::time::Duration;

/// The next pause. A success resets it.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        let first = first.min(longest);
        Self { first, longest, next: first }
    }

    /// [`Self::new`] of milliseconds, as they stand in the configuration.
    #[must_use]
    pub fn from_millis(first: u64, longest: u64) -> Self {
        Self::new(Duration::from_millis(first), Duration::from_millis(longest))
    }

    /// The pause before the next attempt.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        pause
    }

    /// The next pause is the first one again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::from_millis(100, 350);
        let mut pauses = || (0..4).map(|_| backoff.next_pause().as_millis()).collect::<Vec<_>>();
        assert_eq!(pauses(), [100, 200, 350, 350]);
        backoff.reset();
        assert_eq!(backoff.next_pause().as_millis(), 100);
        assert_eq!(Backoff::from_millis(500, 20).next_pause().as_millis(), 20);
    }
}
