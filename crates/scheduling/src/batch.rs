//! How many queries the next message to a replica carries. Pure.
//!
//! A fixed size is obeyed exactly. Otherwise the size is the largest whose learned p99 latency fits
//! twice into the objective, because a query may have to wait for one whole batch before its own.
//! The paper's controller (NSDI'17, section 4.3) probes additively and rides over the objective;
//! this one knows its latency curve, so it grows faster and stays below.

use std::time::Duration;

use super::latency::LatencyCurve;
use clipper_domain::BatchSize;

/// Share of the objective that one batch may take: two of them, and a tenth for everything around.
const SHARE: f64 = 0.45;
/// Share of the objective that a probe may take.
const PROBE_SHARE: f64 = 0.9;
/// So many batches come between a probe and the next one, which is made as soon as there are enough
/// queries for it.
const PROBE_AFTER: u32 = 8;

/// One replica's batch sizes and what it has learned.
#[derive(Debug, Clone)]
pub struct BatchController {
    size: BatchSize,
    max: usize,
    curve: LatencyCurve,
    since_probe: u32,
}

impl BatchController {
    /// A controller that never exceeds `max` queries, whatever `size` says, and starts from what an
    /// earlier replica of the same model has learned.
    #[must_use]
    pub fn new(size: BatchSize, max: usize, curve: LatencyCurve) -> Self {
        Self { size, max: max.max(1), curve, since_probe: 0 }
    }

    /// The most queries that the next batch may carry for queries with this latency objective; at
    /// least 1.
    #[must_use]
    pub fn limit(&self, objective: Duration) -> usize {
        let wanted = match self.size {
            BatchSize::Fixed(n) => n.get() as usize,
            BatchSize::Adaptive => self.adaptive(objective),
        };
        wanted.clamp(1, self.max)
    }

    /// How many queries of a batch of at most `limit` are answered in time, if as many wait; at
    /// least 1. Of a fixed size that takes too long a part only, and those may share a batch.
    #[must_use]
    pub fn in_time(&self, limit: usize, objective: Duration) -> usize {
        match self.size {
            BatchSize::Fixed(_) => {
                let fits = self.curve.largest_within(objective.mul_f64(SHARE)).unwrap_or(limit);
                limit.min(fits.max(1))
            }
            BatchSize::Adaptive => limit,
        }
    }

    fn adaptive(&self, objective: Duration) -> usize {
        let explored = self.curve.explored.max(1);
        let Some(fits) = self.curve.largest_within(objective.mul_f64(SHARE)) else { return 1 };
        if fits > explored {
            // Into the unknown at most by doubling.
            return fits.min(explored.saturating_mul(2));
        }
        // The line's slope is a guess beyond the sizes seen. Where it alone forbids the next size,
        // try that now and then, if even the guess would not be late.
        let next = explored + explored.div_ceil(4);
        let harmless = self.curve.p99(next) <= objective.mul_f64(PROBE_SHARE);
        if fits == explored && harmless && self.since_probe >= PROBE_AFTER { next } else { fits }
    }

    /// Of batches from now on; what was learned stays.
    pub fn set_size(&mut self, size: BatchSize) {
        self.size = size;
    }

    /// Learns from an answered batch.
    pub fn record(&mut self, queries: usize, latency: Duration) {
        let is_probe = queries > self.curve.explored;
        self.since_probe = if is_probe { 0 } else { self.since_probe.saturating_add(1) };
        self.curve.record(queries, latency);
    }

    /// What is known of this replica's latency.
    #[must_use]
    pub fn curve(&self) -> &LatencyCurve {
        &self.curve
    }
}

/// Queries after which an objective that nobody has any more is forgotten, at the latest twice as
/// many.
const WINDOW: u32 = 1_024;
/// Assumed before the first query.
const NO_OBJECTIVE: Duration = Duration::from_secs(3_600);

/// The tightest latency objective among a model's latest queries.
#[derive(Debug, Clone)]
pub struct Objective {
    current: Duration,
    previous: Duration,
    seen: u32,
}

impl Default for Objective {
    fn default() -> Self {
        Self { current: NO_OBJECTIVE, previous: NO_OBJECTIVE, seen: 0 }
    }
}

impl Objective {
    /// A query with this objective was sent.
    pub fn saw(&mut self, objective: Duration) {
        if self.seen == WINDOW {
            self.previous = self.current;
            self.current = NO_OBJECTIVE;
            self.seen = 0;
        }
        self.seen += 1;
        self.current = self.current.min(objective);
    }

    /// The tightest of the last [`WINDOW`] queries, or a few more.
    #[must_use]
    pub fn tightest(&self) -> Duration {
        self.current.min(self.previous)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    const OBJECTIVE: Duration = Duration::from_millis(20);

    fn adaptive() -> BatchController {
        BatchController::new(BatchSize::Adaptive, 4096, LatencyCurve::default())
    }

    /// Runs full batches through `model`; the batch sizes and latencies of the second half.
    fn settle(
        controller: &mut BatchController,
        mut model: impl FnMut(usize) -> Duration,
    ) -> Vec<(usize, Duration)> {
        let mut seen = Vec::new();
        for _ in 0..1_000 {
            let n = controller.limit(OBJECTIVE);
            let latency = model(n);
            controller.record(n, latency);
            seen.push((n, latency));
        }
        seen.split_off(500)
    }

    #[test]
    fn a_fixed_size_is_obeyed_whatever_the_latency() {
        let size = BatchSize::Fixed(NonZeroU32::new(7).expect("not zero"));
        let mut controller = BatchController::new(size, 100, LatencyCurve::default());
        controller.record(7, OBJECTIVE * 10);
        assert_eq!(controller.limit(OBJECTIVE), 7);
    }

    #[test]
    fn of_a_fixed_size_that_takes_too_long_a_part_is_in_time() {
        let of = |queries| {
            let size = BatchSize::Fixed(NonZeroU32::new(queries).expect("not zero"));
            let mut controller = BatchController::new(size, 100, LatencyCurve::default());
            let in_time = |of: &BatchController| of.in_time(of.limit(OBJECTIVE), OBJECTIVE);
            assert_eq!(in_time(&controller), queries as usize, "nothing is known");
            controller.record(1, OBJECTIVE / 10);
            in_time(&controller)
        };
        assert_eq!([3, 4, 5, 100].map(of), [3, 4, 4, 4], "two such batches, and a reserve");
        let mut slow = adaptive();
        slow.record(1, OBJECTIVE);
        assert_eq!(slow.in_time(slow.limit(OBJECTIVE), OBJECTIVE), 1);
    }

    #[test]
    fn two_batches_fit_into_the_objective_for_models_of_every_kind() {
        let mut random = SmallRng::seed_from_u64(7);
        for (fixed_us, per_query_us) in [(50, 5), (1_000, 20), (5_000, 0), (100, 900), (10, 5_000)]
        {
            let noisy = |n: usize| {
                let mean = (fixed_us + per_query_us * n as u64) as f64;
                Duration::from_secs_f64(mean * 1e-6 * random.random_range(0.95..1.25))
            };
            let mut late = 0;
            let seen = settle(&mut adaptive(), noisy);
            for pair in seen.windows(2) {
                late += usize::from(pair[0].1 + pair[1].1 > OBJECTIVE);
            }
            let smallest = seen.iter().map(|(n, _)| *n).min().expect("not empty");
            let best = (8_500 - fixed_us).checked_div(per_query_us).unwrap_or(4_096).min(4_096);
            assert!(late <= 5, "{fixed_us} + {per_query_us} n: {late} of 499 late");
            assert!(
                smallest as f64 >= 0.7 * best as f64,
                "{fixed_us} + {per_query_us} n: {smallest} of {best}"
            );
        }
    }

    #[test]
    fn a_model_slower_than_the_objective_gets_single_queries() {
        let seen = settle(&mut adaptive(), |n| Duration::from_millis(30 * n as u64));
        assert!(seen.iter().all(|(n, _)| *n == 1));
    }

    #[test]
    fn a_probe_waits_for_enough_queries() {
        let mut controller = adaptive();
        for _ in 0..100 {
            controller.record(1, Duration::from_millis(5));
        }
        assert_eq!(controller.limit(OBJECTIVE), 2, "two may not take as long as twice one");
        controller.record(1, Duration::from_millis(5));
        assert_eq!(controller.limit(OBJECTIVE), 2, "there was one only");
        controller.record(2, Duration::from_millis(10));
        assert_eq!(controller.limit(OBJECTIVE), 1, "they do");
    }

    #[test]
    fn sizes_at_most_double_into_the_unknown() {
        let mut controller = adaptive();
        let mut sizes = Vec::new();
        for _ in 0..6 {
            let n = controller.limit(OBJECTIVE);
            controller.record(n, Duration::from_micros(10));
            sizes.push(n);
        }
        assert_eq!(sizes, [1, 2, 4, 8, 16, 32]);
    }
}
