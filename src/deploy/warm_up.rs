//! Which batches a new version's replica computes before queries go to it, and what they teach.
//! Pure.
//!
//! A model that nothing is known of gets small batches, doubled as they turn out to be quick: a
//! first request of many queries would pay for this learning with default outputs. So it is done
//! before, with the trial inputs: sizes are doubled until a batch takes the share of the objective
//! that one may take, there is no larger one, or the time for it is over.

use std::time::Duration;

use clipper_domain::BatchSize;
use clipper_scheduling::latency::LatencyCurve;

/// Batches of one size: the first may stand out.
const REPEATS: u32 = 3;

/// Share of the objective that a batch may take, before larger ones are of no use.
const SHARE: f64 = 0.5;

/// Share of a message that the outputs of a batch may fill.
const MESSAGE_SHARE: f64 = 0.5;

/// What bounds a batch.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// What the version's definition says.
    pub batch_size: BatchSize,
    /// What the configuration says, queries.
    pub batch_max: usize,
    /// Bytes of a message.
    pub message_max_bytes: usize,
    /// Bytes of an input or an output, whichever is larger.
    pub item_bytes: usize,
}

impl Bounds {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a number of bytes"
    )]
    fn most(&self) -> usize {
        let room = (self.message_max_bytes as f64 * MESSAGE_SHARE) as usize;
        let fit = room / self.item_bytes.max(1);
        let fixed = match self.batch_size {
            BatchSize::Adaptive => usize::MAX,
            BatchSize::Fixed(size) => size.get() as usize,
        };
        self.batch_max.min(fit).min(fixed).max(1)
    }
}

/// A warm-up and what it has taught.
#[derive(Debug)]
pub struct WarmUp {
    curve: LatencyCurve,
    objective: Duration,
    most: usize,
    size: usize,
    repeats: u32,
    /// The quickest batch of this size.
    quickest: Duration,
    batches: usize,
}

impl WarmUp {
    /// A warm-up for queries with this objective.
    #[must_use]
    pub fn new(bounds: Bounds, objective: Duration) -> Self {
        Self {
            curve: LatencyCurve::default(),
            objective,
            most: bounds.most(),
            size: 1,
            repeats: 0,
            quickest: Duration::MAX,
            batches: 0,
        }
    }

    /// The size of the next batch, if there is one that ends within `left`.
    #[must_use]
    pub fn next(&self, left: Duration) -> Option<usize> {
        let fits = self.curve.mean(self.size) < left;
        (self.size <= self.most && fits).then_some(self.size)
    }

    /// The batch of [`Self::next`] was answered after this time.
    pub fn answered(&mut self, took: Duration) {
        self.curve.record(self.size, took);
        self.batches += 1;
        self.repeats += 1;
        self.quickest = self.quickest.min(took);
        if self.repeats < REPEATS {
            return;
        }
        let is_last = self.size >= self.most || self.quickest > self.objective.mul_f64(SHARE);
        self.size = if is_last { usize::MAX } else { (self.size * 2).min(self.most) };
        (self.repeats, self.quickest) = (0, Duration::MAX);
    }

    pub fn stop(&mut self) {
        self.size = usize::MAX;
    }

    /// How many batches were answered.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// What they have taught.
    #[must_use]
    pub fn curve(&self) -> &LatencyCurve {
        &self.curve
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use clipper_scheduling::batch::BatchController;

    const OBJECTIVE: Duration = Duration::from_millis(100);
    const BOUNDS: Bounds = Bounds {
        batch_size: BatchSize::Adaptive,
        batch_max: 4_096,
        message_max_bytes: 64 << 20,
        item_bytes: 100,
    };

    /// The sizes that are tried with a model of this cost.
    fn tried(
        bounds: Bounds,
        left: Duration,
        cost: impl Fn(usize) -> Duration,
    ) -> (Vec<usize>, WarmUp) {
        let mut warm_up = WarmUp::new(bounds, OBJECTIVE);
        let (mut sizes, mut used) = (Vec::new(), Duration::ZERO);
        while let Some(size) = warm_up.next(left.saturating_sub(used)) {
            sizes.push(size);
            used += cost(size);
            warm_up.answered(cost(size));
        }
        sizes.dedup();
        (sizes, warm_up)
    }

    fn cost(fixed_us: u64, per_query_us: u64) -> impl Fn(usize) -> Duration {
        move |size| Duration::from_micros(fixed_us + per_query_us * size as u64)
    }

    #[test]
    fn line_21_a_batch_of_150_is_sent_in_few_pieces_after_it() {
        let minute = Duration::from_mins(1);
        let (sizes, warm_up) = tried(BOUNDS, minute, cost(1_000, 200));
        assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 64, 128, 256]);
        let curve = warm_up.curve().clone().kept().unwrap();
        let limit = BatchController::new(BatchSize::Adaptive, 4_096, curve).limit(OBJECTIVE);
        assert!(limit >= 150, "{limit}");
        let unknown = BatchController::new(BatchSize::Adaptive, 4_096, LatencyCurve::default());
        assert_eq!(unknown.limit(OBJECTIVE), 1);
    }

    #[test]
    fn it_stays_within_the_bounds_of_batches_messages_and_time() {
        let minute = Duration::from_mins(1);
        let fixed = BatchSize::Fixed(NonZeroU32::new(6).unwrap());
        let (sizes, _) = tried(Bounds { batch_size: fixed, ..BOUNDS }, minute, cost(10, 1));
        assert_eq!(sizes, [1, 2, 4, 6]);
        let large = Bounds { item_bytes: 8 << 20, ..BOUNDS };
        assert_eq!(tried(large, minute, cost(10, 1)).0, [1, 2, 4]);
        let huge = Bounds { item_bytes: 80 << 20, ..BOUNDS };
        assert_eq!(tried(huge, minute, cost(10, 1)).0, [1]);
        let (sizes, slow) = tried(BOUNDS, Duration::from_secs(1), cost(400_000, 0));
        assert_eq!((sizes, slow.batches()), (vec![1], 2));
        assert_eq!(tried(BOUNDS, Duration::ZERO, cost(10, 1)).0, [0; 0]);
    }
}
