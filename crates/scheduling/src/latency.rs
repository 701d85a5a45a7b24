//! How long a batch of `n` queries takes on one replica, learned from the batches it has answered.
//! Pure.
//!
//! A line fitted with exponentially fading weights, and the ratio that 99 of 100 batches stay
//! below. Before sizes have varied the line goes through the origin: cost in proportion, the
//! cautious assumption.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Weight that a sample keeps when the next one arrives: about the last hundred count.
const FADE: f64 = 0.98;
/// Weight of an imagined batch of nothing that took no time; it decides while all sizes are equal.
const ORIGIN_WEIGHT: f64 = 0.05;
/// Step of the quantile tracker, as a share of the mean.
const RATIO_STEP: f64 = 0.05;
const QUANTILE: f64 = 0.99;
/// Bounds of the tracked ratio; the lower one is where it starts.
const RATIO_MIN: f64 = 1.1;
const RATIO_MAX: f64 = 4.0;
/// A batch beyond this multiple of what was expected counts as this much: one stall of the machine
/// must not bend the line.
const OUTLIER: f64 = 4.0;

/// As how many batches a curve counts that an earlier process has learned.
const KEPT_WEIGHT: f64 = 5.0;

/// The learned curve of one replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyCurve {
    weight: f64,
    n: f64,
    nn: f64,
    y: f64,
    ny: f64,
    ratio: f64,
    /// The largest batch seen.
    pub explored: usize,
}

impl Default for LatencyCurve {
    fn default() -> Self {
        Self { weight: 0.0, n: 0.0, nn: 0.0, y: 0.0, ny: 0.0, ratio: RATIO_MIN, explored: 0 }
    }
}

impl LatencyCurve {
    /// A curve kept by an earlier process, if its numbers can be a curve's. It counts as few
    /// batches only, because the machine or the model may have changed meanwhile.
    #[must_use]
    pub fn kept(self) -> Option<Self> {
        let sums = [self.weight, self.n, self.nn, self.y, self.ny];
        let sound = sums.iter().all(|sum| sum.is_finite() && *sum > 0.0)
            && (RATIO_MIN..=RATIO_MAX).contains(&self.ratio)
            && self.explored > 0;
        let share = (KEPT_WEIGHT / self.weight).min(1.0);
        sound.then_some(Self {
            weight: self.weight * share,
            n: self.n * share,
            nn: self.nn * share,
            y: self.y * share,
            ny: self.ny * share,
            ..self
        })
    }

    /// Whether any batch was seen.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.weight > 0.0
    }

    /// Learns from a batch of `queries` that took `latency`.
    pub fn record(&mut self, queries: usize, latency: Duration) {
        let n = queries.max(1) as f64;
        let mut seconds = latency.as_secs_f64();
        if self.is_known() {
            let expected = self.mean_seconds(n).max(1e-9);
            let up = seconds > expected * self.ratio;
            let step = if up { QUANTILE } else { QUANTILE - 1.0 };
            self.ratio = (self.ratio + RATIO_STEP * step).clamp(RATIO_MIN, RATIO_MAX);
            if queries <= self.explored {
                seconds = seconds.min(expected * OUTLIER);
            }
        }
        self.weight = self.weight * FADE + 1.0;
        self.n = self.n * FADE + n;
        self.nn = self.nn * FADE + n * n;
        self.y = self.y * FADE + seconds;
        self.ny = self.ny * FADE + n * seconds;
        self.explored = self.explored.max(queries);
    }

    /// Expected time of a batch.
    #[must_use]
    pub fn mean(&self, queries: usize) -> Duration {
        Duration::from_secs_f64(self.mean_seconds(queries as f64).max(0.0))
    }

    /// The time that 99 of 100 batches of this size stay within.
    #[must_use]
    pub fn p99(&self, queries: usize) -> Duration {
        self.mean(queries).mul_f64(self.ratio)
    }

    /// By how much [`Self::p99`] exceeds [`Self::mean`].
    #[must_use]
    pub fn spread(&self, queries: usize) -> Duration {
        self.mean(queries).mul_f64(self.ratio - 1.0)
    }

    /// The largest batch whose [`Self::p99`] is within `target`; `None` before anything is known, 0
    /// if even a single query takes longer.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped first")]
    pub fn largest_within(&self, target: Duration) -> Option<usize> {
        if !self.is_known() {
            return None;
        }
        let (fixed, per_query) = self.line();
        let left = target.as_secs_f64() / self.ratio - fixed;
        if left <= 0.0 {
            return Some(0);
        }
        if per_query <= 0.0 {
            return Some(usize::MAX);
        }
        Some((left / per_query).min(1e9) as usize)
    }

    /// The share of a batch's time that does not depend on its size; 0 before anything is known.
    #[must_use]
    pub fn fixed_share(&self, queries: usize) -> f64 {
        let (fixed, per_query) = self.line();
        let whole = fixed + per_query * queries as f64;
        if whole > 0.0 { fixed / whole } else { 0.0 }
    }

    fn mean_seconds(&self, n: f64) -> f64 {
        let (fixed, per_query) = self.line();
        fixed + per_query * n
    }

    /// Seconds per batch and per query, neither negative.
    fn line(&self) -> (f64, f64) {
        if !self.is_known() {
            return (0.0, 0.0);
        }
        // Least squares with the imagined batch at the origin, which adds weight and nothing else.
        let weight = self.weight + ORIGIN_WEIGHT;
        let spread = weight * self.nn - self.n * self.n;
        let slope = ((weight * self.ny - self.n * self.y) / spread.max(f64::MIN_POSITIVE)).max(0.0);
        let fixed = (self.y - slope * self.n) / weight;
        if fixed < 0.0 { (0.0, self.ny / self.nn) } else { (fixed, slope) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(model: impl Fn(usize) -> u64, sizes: &[usize]) -> LatencyCurve {
        let mut curve = LatencyCurve::default();
        for n in sizes {
            curve.record(*n, Duration::from_micros(model(*n)));
        }
        curve
    }

    fn about(value: Duration, micros: u64) -> bool {
        let value = value.as_secs_f64() * 1e6;
        (value - micros as f64).abs() <= 0.1 * micros as f64
    }

    #[test]
    fn one_size_only_means_cost_in_proportion() {
        let curve = learned(|_| 1_000, &[1; 50]);
        assert!(about(curve.mean(1), 1_000));
        assert!(about(curve.mean(10), 10_000), "{:?}", curve.mean(10));
    }

    #[test]
    fn a_fixed_and_a_proportional_part_are_told_apart() {
        let sizes: Vec<usize> = (0..200).map(|i| 1 + i % 40).collect();
        let curve = learned(|n| 2_000 + 100 * n as u64, &sizes);
        assert!(about(curve.mean(1), 2_100), "{:?}", curve.mean(1));
        assert!(about(curve.mean(100), 12_000), "{:?}", curve.mean(100));
        let largest = curve.largest_within(Duration::from_micros(11_000)).expect("known");
        assert!((70..=85).contains(&largest), "{largest}");
    }

    #[test]
    fn a_flat_model_allows_any_size() {
        let sizes: Vec<usize> = (0..200).map(|i| 1 + i % 40).collect();
        let curve = learned(|_| 5_000, &sizes);
        assert!(curve.largest_within(Duration::from_millis(9)).expect("known") > 1_000);
        assert_eq!(curve.largest_within(Duration::from_millis(4)), Some(0));
    }

    #[test]
    fn it_follows_a_model_that_becomes_slower() {
        let sizes: Vec<usize> = (0..200).map(|i| 1 + i % 40).collect();
        let mut curve = learned(|n| 100 * n as u64, &sizes);
        for n in &sizes {
            curve.record(*n, Duration::from_micros(300 * *n as u64));
        }
        assert!(about(curve.mean(20), 6_000), "{:?}", curve.mean(20));
    }

    #[test]
    fn a_kept_curve_is_known_at_once_and_corrected_soon() {
        let sizes: Vec<usize> = (0..200).map(|i| 1 + i % 40).collect();
        let mut curve = learned(|n| 100 * n as u64, &sizes).kept().expect("sound");
        assert!(about(curve.mean(20), 2_000), "{:?}", curve.mean(20));
        assert_eq!(curve.explored, 40);
        for n in sizes.iter().take(40) {
            curve.record(*n, Duration::from_micros(200 * *n as u64));
        }
        assert!(about(curve.mean(20), 4_000), "{:?}", curve.mean(20));
    }

    #[test]
    fn numbers_that_no_batches_can_give_are_not_kept() {
        let sound = learned(|_| 1_000, &[1, 2, 3]);
        assert!(sound.clone().kept().is_some());
        assert_eq!(LatencyCurve::default().kept(), None);
        assert_eq!(LatencyCurve { y: f64::NAN, ..sound.clone() }.kept(), None);
        assert_eq!(LatencyCurve { ratio: 1e9, ..sound.clone() }.kept(), None);
        assert_eq!(LatencyCurve { nn: -1.0, ..sound }.kept(), None);
    }

    #[test]
    fn spread_widens_the_p99() {
        let mut curve = LatencyCurve::default();
        for i in 0..2_000_u64 {
            let micros = if i % 20 == 0 { 2_000 } else { 1_000 };
            curve.record(1, Duration::from_micros(micros));
        }
        assert!(curve.p99(1) > Duration::from_micros(1_700), "{:?}", curve.p99(1));
    }
}
