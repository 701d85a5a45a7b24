//! Looks for the highest rate that is answered in time: doubling, then bisection. Pure.

/// Most measurements of one search.
const STEPS_MAX: u32 = 24;
/// The search ends when the highest good and the lowest bad rate are this close.
const CLOSE: f64 = 1.02;
/// Lowest rate that is tried, requests per second.
const RATE_MIN: f64 = 1.0;

/// The share of queries that must be answered by a model within the objective.
pub const GOOD_SHARE: f64 = 0.99;

/// A search under way.
#[derive(Debug, Clone)]
pub struct GoodputSearch {
    rate: f64,
    rate_max: f64,
    good: Option<f64>,
    bad: Option<f64>,
    steps: u32,
}

impl GoodputSearch {
    /// Starts at `rate` requests per second and never goes above `rate_max`.
    #[must_use]
    pub fn new(rate: f64, rate_max: f64) -> Self {
        Self { rate: rate.clamp(RATE_MIN, rate_max), rate_max, good: None, bad: None, steps: 0 }
    }

    /// The rate to measure next; `None` when the search is over.
    #[must_use]
    pub fn next_rate(&self) -> Option<f64> {
        let close = match (self.good, self.bad) {
            (Some(good), Some(bad)) => bad / good < CLOSE,
            (Some(good), None) => good >= self.rate_max,
            (None, Some(bad)) => bad <= RATE_MIN,
            (None, None) => false,
        };
        (!close && self.steps < STEPS_MAX).then_some(self.rate)
    }

    /// What measuring [`Self::next_rate`] gave: the share of queries answered in time.
    pub fn record(&mut self, share_in_time: f64) {
        self.steps += 1;
        if share_in_time >= GOOD_SHARE {
            self.good = Some(self.rate);
        } else {
            self.bad = Some(self.rate);
        }
        let next = match (self.good, self.bad) {
            (Some(good), Some(bad)) => f64::midpoint(good, bad),
            (None, Some(bad)) => bad / 2.0,
            _ => self.rate * 2.0,
        };
        self.rate = next.clamp(RATE_MIN, self.rate_max);
    }

    /// The highest rate that was good, if any was.
    #[must_use]
    pub fn best(&self) -> Option<f64> {
        self.good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(start: f64, max: f64, capacity: f64) -> (Option<f64>, u32) {
        let mut search = GoodputSearch::new(start, max);
        while let Some(rate) = search.next_rate() {
            search.record(if rate <= capacity { 1.0 } else { 0.5 });
        }
        (search.best(), search.steps)
    }

    #[test]
    fn finds_the_capacity_from_either_side_in_a_bounded_number_of_steps() {
        for start in [1.0, 100.0, 50_000.0] {
            for capacity in [3.0, 870.0, 12_345.0] {
                let (best, steps) = search(start, 1e6, capacity);
                let best = best.unwrap();
                assert!(best <= capacity && best > capacity / CLOSE - 1.0, "{best} {capacity}");
                assert!(steps <= STEPS_MAX);
            }
        }
    }

    #[test]
    fn ends_at_its_bounds() {
        assert_eq!(search(100.0, 1_000.0, 1e9).0, Some(1_000.0));
        assert_eq!(search(100.0, 1_000.0, 0.0).0, None);
    }
}
