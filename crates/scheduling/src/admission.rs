//! Whether a query can make its deadline behind what waits already. Pure but for atomic counters,
//! so that an HTTP worker decides without asking the model's thread.
//!
//! The replicas of a model work in rounds: at most one full batch each. A query that is admitted
//! waits for the end of the round under way, for as many rounds as the queries before it fill, and
//! takes part in one of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clipper_clock::Instant;

/// Share of the time until a deadline that is not planned with: for the way to the replica and back
/// to the client.
const RESERVE: f64 = 0.08;

/// Classes of objectives: one for each power of two of microseconds.
const CLASSES: usize = 32;

fn class_of(objective: Duration) -> usize {
    let micros = objective.as_micros().max(1);
    (micros.ilog2() as usize).min(CLASSES - 1)
}

/// Queries waiting for a model. The queue is ordered by deadline, so those with a much looser
/// objective do not stand before a query, although they came first.
#[derive(Debug, Default)]
pub struct QueuedByObjective {
    total: AtomicUsize,
    classes: [AtomicUsize; CLASSES],
}

impl QueuedByObjective {
    /// Takes `n` places, or none if that would exceed `max` (invariant L1).
    #[must_use]
    pub fn reserve(&self, n: usize, objective: Duration, max: usize) -> bool {
        let before = self.total.fetch_add(n, Ordering::Relaxed);
        if before + n > max {
            self.total.fetch_sub(n, Ordering::Relaxed);
            return false;
        }
        self.classes[class_of(objective)].fetch_add(n, Ordering::Relaxed);
        true
    }

    /// Takes a place without asking, for a query that comes back after its replica failed.
    pub fn reserve_again(&self, objective: Duration) {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.classes[class_of(objective)].fetch_add(1, Ordering::Relaxed);
    }

    /// Gives `n` places back.
    pub fn release(&self, n: usize, objective: Duration) {
        saturating_sub(&self.total, n);
        saturating_sub(&self.classes[class_of(objective)], n);
    }

    /// Empties the count, when a batcher takes over after another one died with messages unread.
    pub fn clear(&self) {
        self.total.store(0, Ordering::Relaxed);
        for class in &self.classes {
            class.store(0, Ordering::Relaxed);
        }
    }

    /// Places taken.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Queries that stand before one with this objective, about.
    #[must_use]
    pub fn ahead_of(&self, objective: Duration) -> usize {
        let classes = &self.classes[..=class_of(objective)];
        classes.iter().map(|class| class.load(Ordering::Relaxed)).sum()
    }
}

fn saturating_sub(counter: &AtomicUsize, n: usize) {
    let less = |count: usize| Some(count.saturating_sub(n));
    // It always gives a value, so it always succeeds.
    let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
}

/// What all replicas of a model take at once, and for how long. Published by its batcher.
#[derive(Debug, Clone, Copy, Default)]
pub struct Round {
    /// Queries of a full batch for each replica; 0 while nothing is known.
    pub queries: usize,
    /// Expected time of the slowest batch.
    pub time: Duration,
    /// By how much one batch in a hundred exceeds that.
    pub spread: Duration,
    /// Expected end of the round under way; `None` while a replica is idle.
    pub ends: Option<Instant>,
}

impl Round {
    /// Whether a query that finds `ahead` others before it at `now` can be answered by `deadline`.
    /// Always, if none is before it: somebody has to find out whether the model has become
    /// faster.
    #[must_use]
    pub fn can_make_it(&self, ahead: usize, now: Instant, deadline: Instant) -> bool {
        if ahead == 0 || self.queries == 0 {
            return true;
        }
        let under_way = self.ends.map_or(Duration::ZERO, |ends| {
            // A round that is overdue may well take as long again.
            let overdue = now.saturating_duration_since(ends);
            ends.saturating_duration_since(now).max(overdue).min(self.time)
        });
        let rounds = u32::try_from(1 + ahead / self.queries).unwrap_or(u32::MAX);
        let needed = self.time.saturating_mul(rounds).saturating_add(under_way + self.spread);
        needed <= deadline.saturating_duration_since(now).mul_f64(1.0 - RESERVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipper_clock as clock;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Rounds of 100 queries in 5 ms; the one under way ends in `ends_in`.
    fn round(now: Instant, ends_in: Duration) -> Round {
        Round { queries: 100, time: ms(5), spread: ms(1), ends: Some(now + ends_in) }
    }

    #[test]
    fn as_many_are_admitted_as_the_rounds_before_the_deadline_take() {
        let now = clock::now();
        assert!(Round::default().can_make_it(1_000_000, now, now + ms(1)), "nothing is known yet");
        let early = round(now, ms(5));
        assert!(early.can_make_it(0, now, now + ms(1)), "an empty queue always admits");
        // 18.4 of 20 ms are planned with: 1 for the spread, 5 for this round, 10 for two more.
        assert!(early.can_make_it(199, now, now + ms(20)));
        assert!(!early.can_make_it(200, now, now + ms(20)));
        let soon = round(now, ms(2));
        assert!(soon.can_make_it(299, now, now + ms(20)));
        assert!(!soon.can_make_it(300, now, now + ms(20)));
    }

    #[test]
    fn the_longer_a_round_is_overdue_the_less_is_hoped_of_it() {
        let started = clock::now();
        let round = round(started, ms(5));
        let at = |late| started + ms(5) + late;
        let admits = |late| round.can_make_it(299, at(late), at(late) + ms(20));
        assert!(admits(ms(0)) && admits(ms(2)));
        assert!(!admits(ms(3)) && !admits(ms(100)));
        assert!(round.can_make_it(199, at(ms(100)), at(ms(100)) + ms(20)), "at most a round more");
    }
    #[test]
    fn those_with_looser_objectives_are_not_counted() {
        let queued = QueuedByObjective::default();
        assert!(queued.reserve(500, ms(1_000), 600));
        assert!(queued.reserve(10, ms(20), 600));
        assert_eq!(queued.ahead_of(ms(20)), 10);
        assert_eq!(queued.ahead_of(ms(1_000)), 510);
        assert!(!queued.reserve(91, ms(20), 600));
        queued.release(500, ms(1_000));
        assert_eq!((queued.total(), queued.ahead_of(ms(1_000))), (10, 10));
        queued.release(11, ms(20));
        assert_eq!(queued.total(), 0);
    }
}
