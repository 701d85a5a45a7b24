//! How many queries the next message to a replica carries. Pure.
//!
//! A fixed size is obeyed exactly. Otherwise additive increase, multiplicative decrease as in the
//! paper's controller (NSDI'17, section 4.3): the limit grows while a batch that used it ends well
//! within the latency objective, holds close to it, and shrinks by a tenth beyond it.

use std::time::Duration;

use crate::domain::BatchSize;

/// Queries added to the limit after a batch that was fast enough.
const STEP: f64 = 2.0;
/// Factor on the limit after a batch that was too slow.
const BACKOFF: f64 = 0.9;
/// Share of the objective below which the limit grows.
const HEADROOM: f64 = 0.9;

/// One replica's batch limit.
#[derive(Debug, Clone)]
pub struct BatchController {
    size: BatchSize,
    limit: f64,
    max: usize,
}

impl BatchController {
    /// A controller that never exceeds `max` queries, whatever `size` says.
    #[must_use]
    pub fn new(size: BatchSize, max: usize) -> Self {
        Self { size, limit: 1.0, max: max.max(1) }
    }

    /// The most queries that the next batch may carry; at least 1.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 <= limit <= max")]
    pub fn limit(&self) -> usize {
        match self.size {
            BatchSize::Fixed(n) => (n.get() as usize).min(self.max),
            BatchSize::Adaptive => (self.limit as usize).clamp(1, self.max),
        }
    }

    /// Learns from a finished batch: how many queries, how long, and the objective of the tightest.
    #[allow(clippy::cast_precision_loss, reason = "batch sizes are far below 2^52")]
    pub fn record(&mut self, queries: usize, latency: Duration, objective: Duration) {
        if latency > objective {
            self.limit = (self.limit * BACKOFF).max(1.0);
        } else if latency < objective.mul_f64(HEADROOM) && queries >= self.limit() {
            self.limit = (self.limit + STEP).min(self.max as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const OBJECTIVE: Duration = Duration::from_millis(20);

    #[test]
    fn a_fixed_size_is_obeyed_whatever_the_latency() {
        let mut controller =
            BatchController::new(BatchSize::Fixed(NonZeroU32::new(7).expect("not zero")), 100);
        controller.record(7, OBJECTIVE * 10, OBJECTIVE);
        assert_eq!(controller.limit(), 7);
    }

    #[test]
    fn adaptive_settles_where_a_linear_model_meets_the_objective() {
        let mut controller = BatchController::new(BatchSize::Adaptive, 4096);
        for _ in 0..500 {
            let size = controller.limit();
            let latency = Duration::from_micros(100 * size as u64);
            controller.record(size, latency, OBJECTIVE);
        }
        assert!((170..=202).contains(&controller.limit()), "{}", controller.limit());
    }

    #[test]
    fn batches_that_did_not_fill_the_limit_do_not_raise_it() {
        let mut controller = BatchController::new(BatchSize::Adaptive, 4096);
        controller.record(1, Duration::from_millis(1), OBJECTIVE);
        assert_eq!(controller.limit(), 3);
        controller.record(1, Duration::from_millis(1), OBJECTIVE);
        assert_eq!(controller.limit(), 3);
    }
}
