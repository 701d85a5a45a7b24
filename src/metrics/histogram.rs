//! A histogram that many threads write without locks and a scrape reads.
//!
//! Buckets hold two significant decimal digits, upper bound inclusive: 1, 2, ... 100, 110, ...
//! 1000, 1100, ... up to [`TOP`]. Decimal, so that the bounds of the Prometheus buckets (1 ms,
//! 2.5 ms, ...) are bucket bounds here and their counts are exact. A quantile is off by at most a
//! bucket: 10 %.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Largest value with a bucket of its own precision: 100 s in microseconds.
pub const TOP: u64 = 100_000_000;

/// Buckets of one unit each: 1 to 100.
const LINEAR: usize = 100;
/// Buckets of each further decade.
const PER_DECADE: usize = 90;
/// Decades from 100 to [`TOP`].
const DECADES: usize = 6;
/// All buckets; the last one holds what is above [`TOP`].
const BUCKETS: usize = LINEAR + PER_DECADE * DECADES + 1;

const POWERS_OF_TEN: [u32; DECADES + 1] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];

/// Whole microseconds, rounded up, so that a value above a bound never counts as below it.
#[must_use]
pub fn micros(time: Duration) -> u64 {
    time.as_secs()
        .saturating_mul(1_000_000)
        .saturating_add(u64::from(time.subsec_nanos().div_ceil(1_000)))
}

/// For ratios and Prometheus samples.
#[must_use]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// The bucket of `value`.
fn index(value: u64) -> usize {
    // The upper bound is inclusive: 100 belongs to the bucket that ends at 100.
    let below = value.saturating_sub(1);
    let Some(below) = u32::try_from(below).ok().filter(|_| below < TOP) else {
        return BUCKETS - 1;
    };
    if below < 100 {
        return below as usize;
    }
    let decade = below.ilog10() as usize - 1;
    let digits = (below / POWERS_OF_TEN[decade]) as usize;
    LINEAR + (decade - 1) * PER_DECADE + digits - 10
}

/// The largest value of bucket `index`.
fn upper(index: usize) -> u64 {
    if index < LINEAR {
        return index as u64 + 1;
    }
    if index >= BUCKETS - 1 {
        return u64::MAX;
    }
    let decade = (index - LINEAR) / PER_DECADE + 1;
    let digits = (index - LINEAR) % PER_DECADE + 10;
    (digits as u64 + 1) * u64::from(POWERS_OF_TEN[decade])
}

/// The smallest value of bucket `index`, 0 aside.
fn lower(index: usize) -> u64 {
    index.checked_sub(1).map_or(1, |previous| upper(previous) + 1)
}

/// Counts values: microseconds or queries.
#[derive(Debug)]
pub struct Histogram {
    /// Five kilobytes, made by the first value: most of thousands of models may be idle.
    buckets: OnceLock<Box<[AtomicU64]>>,
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

fn empty() -> Box<[AtomicU64]> {
    std::iter::repeat_with(AtomicU64::default).take(BUCKETS).collect()
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: OnceLock::new(),
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Counts one value.
    pub fn record(&self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a duration in microseconds, rounded up.
    pub fn record_time(&self, time: Duration) {
        self.record_n(micros(time), 1);
    }

    /// Counts one value `times` times.
    pub fn record_n(&self, value: u64, times: u64) {
        if let Some(bucket) = self.buckets.get_or_init(empty).get(index(value)) {
            bucket.fetch_add(times, Relaxed);
        }
        self.sum.fetch_add(value.saturating_mul(times), Relaxed);
        // A plain load first: a new extreme is rare, and the load keeps the cache line shared.
        if value < self.min.load(Relaxed) {
            self.min.fetch_min(value, Relaxed);
        }
        if value > self.max.load(Relaxed) {
            self.max.fetch_max(value, Relaxed);
        }
    }

    /// The sum of all values.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }

    /// What was counted so far. Writers go on meanwhile, so the sum may be a few values ahead.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let Some(buckets) = self.buckets.get() else { return Snapshot::default() };
        let counts: Vec<u64> = buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let count = counts.iter().sum();
        let first = counts.iter().position(|n| *n > 0);
        let last = counts.iter().rposition(|n| *n > 0);
        let (min, max) = match first.zip(last) {
            None => (0, 0),
            Some((first, last)) => {
                // A writer counts first and notes the extremes after; the buckets bound them.
                let min = self.min.load(Relaxed).min(upper(first));
                (min, self.max.load(Relaxed).max(lower(last)).max(min))
            }
        };
        Snapshot { counts, count, sum: self.sum(), min, max }
    }
}

/// The content of a [`Histogram`] at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    counts: Vec<u64>,
    /// Values counted.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// The smallest; 0 if there is none.
    pub min: u64,
    /// The largest; 0 if there is none.
    pub max: u64,
}

impl Snapshot {
    /// Adds the values of another snapshot.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.min = if self.count == 0 { other.min } else { self.min.min(other.min) };
        self.max = self.max.max(other.max);
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        self.counts.resize(BUCKETS, 0);
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
    }

    /// For each of the ascending `bounds`, how many values are at most that.
    /// Exact if the bound has at most two significant digits.
    pub fn cumulative<'a>(&'a self, bounds: &'a [u64]) -> impl Iterator<Item = u64> + 'a {
        let mut at = 0;
        let mut total = 0;
        bounds.iter().map(move |bound| {
            while at < self.counts.len() && upper(at) <= *bound {
                total += self.counts[at];
                at += 1;
            }
            total
        })
    }

    /// The value that `percent` of all values do not exceed; 0 if there is none.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> f64 {
        let rank = self.count.saturating_mul(percent).div_ceil(100).max(1);
        let mut before = 0;
        for (at, count) in self.counts.iter().enumerate() {
            if before + count >= rank {
                let low = float(lower(at));
                let high = float(upper(at).min(self.max));
                let part = float(rank - before) / float(*count);
                return (low + (high - low) * part).clamp(float(self.min), float(self.max));
            }
            before += count;
        }
        0.0
    }

    /// The mean; 0 if there is no value.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { float(self.sum) / float(self.count) }
    }

    /// The standard deviation, each value taken as the middle of its bucket; 0 without values.
    /// A sum of squares kept by the writers would be one more shared word, and overflow.
    #[must_use]
    pub fn std_dev(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        let mean = self.mean();
        let (min, max) = (float(self.min), float(self.max));
        let squares: f64 = self
            .counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(at, count)| {
                let high = float(upper(at).min(self.max));
                let middle = f64::midpoint(float(lower(at)), high).clamp(min, max);
                float(*count) * (middle - mean).powi(2)
            })
            .sum();
        (squares / float(self.count)).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Snapshot {
        let histogram = Histogram::default();
        for value in values {
            histogram.record(value);
        }
        histogram.snapshot()
    }

    #[test]
    fn every_bucket_holds_exactly_the_values_between_its_bounds() {
        for at in 0..BUCKETS - 1 {
            assert_eq!(index(lower(at)), at, "lower bound of {at}");
            assert_eq!(index(upper(at)), at, "upper bound of {at}");
            assert!(upper(at) * 10 <= lower(at) * 11 + 10, "bucket {at} is wider than 10 %");
        }
        assert_eq!(upper(BUCKETS - 2), TOP);
        assert_eq!((index(0), index(TOP + 1), index(u64::MAX)), (0, BUCKETS - 1, BUCKETS - 1));
    }

    #[test]
    fn cumulative_counts_are_exact_at_round_bounds() {
        let snapshot = of([999, 1_000, 1_001, 2_500, 2_501, TOP, TOP + 1]);
        let counts: Vec<u64> = snapshot.cumulative(&[100, 1_000, 2_500, TOP]).collect();
        assert_eq!(counts, [0, 2, 4, 6]);
        assert_eq!(snapshot.count, 7);
    }

    #[test]
    fn statistics_are_close_to_those_of_the_values() {
        let snapshot = of(1..=100_000);
        for (percent, exact) in [(50, 50_000.0), (95, 95_000.0), (99, 99_000.0)] {
            let got = snapshot.percentile(percent);
            assert!((got - exact).abs() < exact * 0.02, "p{percent} is {got}");
        }
        assert!((snapshot.mean() - 50_000.5).abs() < 1e-6);
        assert!((snapshot.std_dev() - 28_867.5).abs() < 50.0, "{}", snapshot.std_dev());
        assert_eq!((snapshot.min, snapshot.max), (1, 100_000));
    }

    #[test]
    fn few_values_keep_their_exact_statistics() {
        let one = of([12_345]);
        assert_eq!(one.percentile(50).to_string(), "12345");
        assert_eq!(
            (one.mean().to_string(), one.std_dev().to_string()),
            ("12345".into(), "0".into())
        );
        let none = of([]);
        assert_eq!((none.percentile(99), none.mean(), none.std_dev()), (0.0, 0.0, 0.0));
        assert_eq!(of([3, 8, 8, 8]).percentile(50).to_string(), "8");
        assert_eq!(of([TOP * 3]).percentile(99).to_string(), (TOP * 3).to_string());
    }

    #[test]
    fn buckets_are_made_by_the_first_value() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot(), Snapshot::default());
        assert!(histogram.buckets.get().is_none());
        histogram.record(1);
        assert_eq!(histogram.snapshot(), of([1]));
    }

    #[test]
    fn merging_equals_counting_together() {
        let mut merged = Snapshot::default();
        merged.merge(&of([7, 5_000]));
        merged.merge(&of([]));
        merged.merge(&of([2, 90]));
        assert_eq!(merged, of([7, 5_000, 2, 90]));
    }

    #[test]
    fn durations_round_up_to_microseconds() {
        let values = [(0, 0), (1, 1), (1_000, 1), (1_001, 2), (1_000_000_001, 1_000_001)];
        for (nanos, expected) in values {
            assert_eq!(micros(Duration::from_nanos(nanos)), expected);
        }
        assert!(micros(Duration::MAX) > TOP);
    }

    #[test]
    fn threads_lose_no_count() {
        let histogram = Histogram::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (1..=10_000).for_each(|value| histogram.record(value)));
            }
        });
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.count, snapshot.sum), (40_000, 4 * 50_005_000));
        assert_eq!((snapshot.min, snapshot.max), (1, 10_000));
    }
}
