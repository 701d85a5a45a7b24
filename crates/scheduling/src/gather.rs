//! Whether a small batch waits a little for a fuller one. Pure.
//!
//! It pays when a batch costs much by itself, whatever is in it, when replicas could not keep up
//! with one query at a time, and when many queries are known to be under way: those just answered
//! come back with the next question. A wait ends when most of the crowd has arrived; a single
//! client never waits.

use std::time::Duration;

use clipper_clock::Instant;

use crate::latency::LatencyCurve;

/// Longest wait: one tick of the timer.
pub const WAIT: Duration = Duration::from_millis(1);
/// A wait is at most this share of the latency objective.
const WAIT_SHARE: f64 = 0.05;
/// Share of the crowd that is worth waiting for.
const MOST: f64 = 0.75;
/// What the memory of a crowd keeps from batch to batch.
const FADE: f64 = 0.95;
/// What it keeps when a batch has waited in vain: a caller that stays behind alone waits few times.
const FADE_IN_VAIN: f64 = 0.5;
/// A wait pays if at least this share of a batch's time is there whatever its size.
const FIXED_SHARE_MIN: f64 = 0.25;

/// Seconds over which the rate of queries is told.
const RATE_OVER: f64 = 0.1;
/// Share of the time that replicas would be busy with one query at a time, from where on it pays to
/// save their time: below, whoever waits waits for nothing.
const BUSY_MIN: f64 = 0.7;

/// The recent number of queries under way at once, at most, and how many come.
#[derive(Debug, Clone, Default)]
pub struct Concurrency {
    peak: f64,
    /// Queries a second, of late; `None` before the first.
    rate: Option<(f64, Instant)>,
}

impl Concurrency {
    /// So many queries have just arrived, and so many wait or run.
    pub fn arrived(&mut self, queries: usize, under_way: usize, now: Instant) {
        self.peak = self.peak.max(under_way as f64);
        self.rate = Some((self.rate(now) + queries as f64 / RATE_OVER, now));
    }

    /// Queries a second, of late.
    fn rate(&self, now: Instant) -> f64 {
        let Some((rate, then)) = self.rate else { return 0.0 };
        let passed = now.saturating_duration_since(then).as_secs_f64();
        rate * (-passed / RATE_OVER).exp()
    }

    /// Whether so many replicas with this curve are busy with one query at a time.
    #[must_use]
    pub fn is_busy(&self, replicas: usize, curve: &LatencyCurve, now: Instant) -> bool {
        self.rate(now) * curve.mean(1).as_secs_f64() >= BUSY_MIN * replicas as f64
    }

    /// Whether it is one query at a time.
    #[must_use]
    pub fn is_one(&self) -> bool {
        self.peak < 2.0
    }

    /// A batch was sent.
    pub fn batch_sent(&mut self) {
        self.peak *= FADE;
    }

    /// Nobody came while a batch waited.
    pub fn stayed_away(&mut self) {
        self.peak *= FADE_IN_VAIN;
    }

    /// How many queries to gather before a batch goes out, of at most `limit`; 1 if waiting does
    /// not pay for a replica with this curve and queries with this objective.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= peak")]
    pub fn worth_gathering(
        &self,
        limit: usize,
        curve: &LatencyCurve,
        objective: Duration,
    ) -> usize {
        let most = (self.peak * MOST) as usize;
        let pays = curve.fixed_share(most) >= FIXED_SHARE_MIN;
        if !pays || WAIT > objective.mul_f64(WAIT_SHARE) { 1 } else { most.clamp(1, limit) }
    }
}

#[cfg(test)]
mod tests {
    use clipper_clock as clock;

    use super::*;

    const OBJECTIVE: Duration = Duration::from_millis(100);

    fn curve(fixed_us: u64, per_query_us: u64) -> LatencyCurve {
        let mut curve = LatencyCurve::default();
        for n in (0..200).map(|i| 1 + i % 40) {
            curve.record(n, Duration::from_micros(fixed_us + per_query_us * n as u64));
        }
        curve
    }

    fn concurrency(of: usize) -> Concurrency {
        let mut concurrency = Concurrency::default();
        concurrency.arrived(of, of, clock::now());
        concurrency
    }

    #[test]
    fn one_client_never_waits_and_a_crowd_is_gathered() {
        let cheap = curve(200, 2);
        assert!(concurrency(1).is_one() && !concurrency(2).is_one());
        assert_eq!(concurrency(1).worth_gathering(100, &cheap, OBJECTIVE), 1);
        assert_eq!(concurrency(64).worth_gathering(100, &cheap, OBJECTIVE), 48);
        assert_eq!(concurrency(64).worth_gathering(10, &cheap, OBJECTIVE), 10);
    }

    #[test]
    fn nobody_waits_where_it_does_not_pay_or_cannot_be_afforded() {
        assert_eq!(concurrency(64).worth_gathering(100, &curve(10, 1_000), OBJECTIVE), 1);
        let tight = Duration::from_millis(10);
        assert_eq!(concurrency(64).worth_gathering(100, &curve(200, 2), tight), 1);
        assert_eq!(concurrency(64).worth_gathering(100, &LatencyCurve::default(), OBJECTIVE), 1);
    }

    #[test]
    fn a_crowd_fades_with_each_batch_and_the_objective_may_be_twenty_waits() {
        let cheap = curve(200, 2);
        let mut fading = concurrency(64);
        fading.batch_sent();
        assert_eq!(fading.worth_gathering(100, &cheap, OBJECTIVE), 45, "of 60.8");
        assert_eq!(concurrency(64).worth_gathering(100, &cheap, WAIT * 20), 48);
    }

    #[test]
    fn a_crowd_that_has_gone_is_forgotten() {
        let mut concurrency = concurrency(64);
        for _ in 0..100 {
            concurrency.arrived(1, 1, clock::now());
            concurrency.batch_sent();
        }
        assert_eq!(concurrency.worth_gathering(100, &curve(200, 2), OBJECTIVE), 1);
    }

    #[test]
    fn a_few_waits_in_vain_are_enough() {
        let mut concurrency = concurrency(64);
        for _ in 0..5 {
            assert!(concurrency.worth_gathering(100, &curve(200, 2), OBJECTIVE) > 1);
            concurrency.stayed_away();
        }
        assert_eq!(concurrency.worth_gathering(100, &curve(200, 2), OBJECTIVE), 1);
    }

    /// At so many queries a second, evenly, for two seconds.
    fn at_rate(of: u32) -> (Concurrency, Instant) {
        let (mut now, mut concurrency) = (clock::now(), Concurrency::default());
        for _ in 0..2 * of {
            now += Duration::from_secs(1) / of;
            concurrency.arrived(1, 1, now);
        }
        (concurrency, now)
    }

    #[test]
    fn replicas_are_busy_from_where_single_queries_take_most_of_their_time() {
        let curve = curve(900, 100);
        let is_busy = |rate, replicas| {
            let (concurrency, now) = at_rate(rate);
            concurrency.is_busy(replicas, &curve, now)
        };
        assert_eq!([600, 800].map(|rate| is_busy(rate, 1)), [false, true]);
        assert_eq!([1_200, 1_600].map(|rate| is_busy(rate, 2)), [false, true]);
        assert!(!Concurrency::default().is_busy(1, &curve, clock::now()));
        let (concurrency, now) = at_rate(2_000);
        assert!(concurrency.is_busy(1, &curve, now), "twice what it can do");
        let later = now + Duration::from_millis(200);
        assert!(!concurrency.is_busy(1, &curve, later), "nobody has come since");
    }
}
