//! Whether a small batch waits a little for a fuller one. Pure.
//!
//! It pays when a batch costs much by itself, whatever is in it, when replicas could not keep up
//! with one request at a time, and when many requests are known to be under way: those just
//! answered come back with the next question. A wait ends when most of the crowd has arrived; a
//! single client never waits, and however many inputs its request has, of two no one does.

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
/// Share of the time that replicas would be busy with one request at a time, from where on it pays
/// to save their time: below, whoever waits waits for nothing.
const BUSY_MIN: f64 = 0.7;

/// How much of the size of requests the newest one says.
const SIZE_STEP: f64 = 0.1;

/// The recent number of requests under way at once, at most, how many come, and how large they are.
#[derive(Debug, Clone, Default)]
pub struct Concurrency {
    peak: f64,
    /// Requests a second, of late; `None` before the first.
    rate: Option<(f64, Instant)>,
    /// Queries of a request, of late; `None` before the first.
    size: Option<f64>,
}

impl Concurrency {
    /// So many requests have just arrived, with so many queries in all, and so many queries wait or
    /// run.
    pub fn arrived(&mut self, requests: usize, queries: usize, under_way: usize, now: Instant) {
        if requests == 0 || queries == 0 {
            return;
        }
        let newest = queries as f64 / requests as f64;
        let before = self.size.unwrap_or(newest);
        let size = before + (newest - before) * (SIZE_STEP * requests as f64).min(1.0);
        self.size = Some(size);
        self.peak = self.peak.max(under_way as f64 / size);
        self.rate = Some((self.rate(now) + requests as f64 / RATE_OVER, now));
    }

    /// Queries of so many requests, as large as those of late.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= size")]
    fn queries(&self, requests: f64) -> usize {
        (requests * self.size.unwrap_or(1.0)).round() as usize
    }

    /// Requests a second, of late.
    fn rate(&self, now: Instant) -> f64 {
        let Some((rate, then)) = self.rate else { return 0.0 };
        let passed = now.saturating_duration_since(then).as_secs_f64();
        rate * (-passed / RATE_OVER).exp()
    }

    /// Whether so many replicas with this curve are busy with one request at a time.
    #[must_use]
    pub fn is_busy(&self, replicas: usize, curve: &LatencyCurve, now: Instant) -> bool {
        let time = curve.mean(self.queries(1.0).max(1)).as_secs_f64();
        self.rate(now) * time >= BUSY_MIN * replicas as f64
    }

    /// Whether it is one request at a time.
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

    /// Most of the queries that come while others are answered: where as many wait, waiting for
    /// more is in vain.
    #[must_use]
    pub fn most(&self) -> usize {
        self.queries((self.peak * MOST).floor()).max(1)
    }

    /// How many queries to gather before a batch goes out, of at most `limit`; 1 if waiting does
    /// not pay for a replica with this curve and queries with this objective.
    #[must_use]
    pub fn worth_gathering(
        &self,
        limit: usize,
        curve: &LatencyCurve,
        objective: Duration,
    ) -> usize {
        let most = self.most();
        let pays = curve.fixed_share(most) >= FIXED_SHARE_MIN;
        if !pays || WAIT > objective.mul_f64(WAIT_SHARE) { 1 } else { most.min(limit) }
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
        concurrency.arrived(of, of, of, clock::now());
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
    fn how_large_requests_are_is_what_those_of_late_were() {
        let (mut concurrency, now) = (Concurrency::default(), clock::now());
        let mut arrived = |requests: usize, each: usize| {
            concurrency.arrived(requests, requests * each, 0, now);
            concurrency.queries(1.0)
        };
        assert_eq!(arrived(1, 10), 10);
        assert_eq!(arrived(1, 110), 20, "a tenth of the way for each");
        assert_eq!(arrived(5, 120), 70);
        assert_eq!(arrived(20, 30), 30, "all of it and no more");
        assert_eq!(arrived(3, 0), 30, "requests without queries");
        concurrency.arrived(0, 5, 0, now);
        assert_eq!(concurrency.queries(1.0), 30, "queries without requests");
    }

    #[test]
    fn a_crowd_that_has_gone_is_forgotten() {
        let mut concurrency = concurrency(64);
        for _ in 0..100 {
            concurrency.arrived(1, 1, 1, clock::now());
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

    /// So many requests under way at once, of 64 queries each.
    fn large_requests(of: usize) -> Concurrency {
        let mut concurrency = Concurrency::default();
        for under_way in 1..=of {
            concurrency.arrived(1, 64, 64 * under_way, clock::now());
        }
        concurrency
    }

    #[test]
    fn a_request_of_many_queries_is_one_caller() {
        let cheap = curve(900, 2);
        let worth = |of| large_requests(of).worth_gathering(1_000, &cheap, OBJECTIVE);
        assert_eq!([1, 2, 3, 4].map(worth), [1, 64, 128, 192], "three quarters, in whole requests");
        assert!(large_requests(1).is_one() && !large_requests(2).is_one());
    }

    #[test]
    fn replicas_are_busy_with_requests_as_large_as_they_are() {
        let curve = curve(1_000, 10);
        let is_busy = |rate: u32, size: usize| {
            let (mut now, mut concurrency) = (clock::now(), Concurrency::default());
            for _ in 0..rate {
                now += Duration::from_secs(1) / rate;
                concurrency.arrived(1, size, size, now);
            }
            concurrency.is_busy(1, &curve, now)
        };
        assert_eq!([600, 800].map(|rate| is_busy(rate, 1)), [false, true]);
        assert_eq!([300, 500].map(|rate| is_busy(rate, 100)), [false, true], "not 30,000 queries");
    }

    #[test]
    fn nothing_is_learned_of_nothing() {
        let mut concurrency = concurrency(64);
        concurrency.arrived(0, 0, 64, clock::now());
        concurrency.arrived(1, 0, 64, clock::now());
        assert_eq!(concurrency.worth_gathering(100, &curve(200, 2), OBJECTIVE), 48);
    }

    /// At so many requests a second, evenly, for two seconds.
    fn at_rate(of: u32) -> (Concurrency, Instant) {
        let (mut now, mut concurrency) = (clock::now(), Concurrency::default());
        for _ in 0..2 * of {
            now += Duration::from_secs(1) / of;
            concurrency.arrived(1, 1, 1, now);
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
