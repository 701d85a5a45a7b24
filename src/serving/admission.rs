//! Whether a query can make its deadline behind what waits already. Pure but for atomic counters, so that
//! an HTTP worker decides without asking the model's thread.
//!
//! The replicas of a model work in rounds: at most one full batch each. A query that is admitted waits for
//! the round under way, for as many rounds as the queries before it fill, and takes part in one of its own.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Classes of objectives: one for each power of two of microseconds.
const CLASSES: usize = 32;

fn class_of(objective: Duration) -> usize {
    let micros = objective.as_micros().max(1);
    (micros.ilog2() as usize).min(CLASSES - 1)
}

/// Queries waiting for a model. The queue is ordered by deadline, so those with a much looser objective
/// do not stand before a query, although they came first.
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

/// What all replicas of a model take at once, and for how long.
#[derive(Debug, Default)]
pub struct Round {
    queries: AtomicUsize,
    nanos: AtomicU64,
}

impl Round {
    /// Published by the batcher after each batch.
    pub fn publish(&self, queries: usize, time: Duration) {
        self.queries.store(queries, Ordering::Relaxed);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.store(nanos, Ordering::Relaxed);
    }

    /// Whether a query that finds `ahead` others before it can be answered within `objective`. Always,
    /// if none is before it: somebody has to find out whether the model has become faster.
    #[must_use]
    pub fn can_make_it(&self, ahead: usize, objective: Duration) -> bool {
        let (queries, nanos) =
            (self.queries.load(Ordering::Relaxed), self.nanos.load(Ordering::Relaxed));
        if ahead == 0 || queries == 0 {
            return true;
        }
        let rounds = 2 + (ahead / queries) as u64;
        Duration::from_nanos(nanos.saturating_mul(rounds)) <= objective
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn as_many_are_admitted_as_the_rounds_before_the_deadline_take() {
        let round = Round::default();
        assert!(round.can_make_it(1_000_000, ms(1)), "nothing is known yet");
        round.publish(100, ms(5));
        assert!(round.can_make_it(0, ms(1)), "an empty queue always admits");
        assert!(round.can_make_it(299, ms(20)));
        assert!(!round.can_make_it(300, ms(20)));
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
