//! What one thread of the generator has seen; added up at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};

/// Longest latency that is told apart from longer ones, ns: 10 minutes.
const LATENCY_MAX_NS: u64 = 600_000_000_000;
/// Decimal digits that a latency keeps.
const DIGITS: u8 = 3;
/// Different explanations that are counted apart; further ones are counted together.
const EXPLANATIONS_MAX: usize = 64;

/// Why a request got no HTTP answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestFailure {
    Connect,
    /// No answer in time.
    Timeout,
    Connection,
    /// A response that is not understood.
    Malformed,
    /// A response that is understood, with answers that are not.
    Answers,
    /// No connection was free for it before its time was over (open loop).
    NotSent,
}

impl RequestFailure {
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Malformed => "malformed",
            Self::Answers => "answers",
            Self::NotSent => "not_sent",
        }
    }
}

/// Latencies in nanoseconds, within a bounded memory.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> Result<Self, CreationError> {
        Histogram::new_with_bounds(1, LATENCY_MAX_NS, DIGITS).map(Self)
    }

    fn record(&mut self, latency: Duration, count: u64) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record_n(ns.max(1), count);
    }

    fn add(&mut self, other: &Self) {
        // Both have the same bounds, which is all that `add` asks for.
        let _ = self.0.add(&other.0);
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that this share of all do not exceed.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(share))
    }

    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::try_from_secs_f64(self.0.mean() / 1e9).unwrap_or_default()
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }
}

/// Counts and latencies of the requests that started in the measured time.
#[derive(Debug, Clone)]
pub struct Recorder {
    /// Of each request with an HTTP answer.
    pub responses: Latencies,
    /// Of each query that a model answered.
    pub predictions: Latencies,
    /// From a request's intended start to its sending: what the generator itself adds.
    pub send_lag: Latencies,
    /// Predictions within the objective.
    pub in_time: u64,
    /// Queries answered by a default output, by explanation.
    pub defaults: BTreeMap<String, u64>,
    /// Requests answered by another status than 200, by status.
    pub http_errors: BTreeMap<u16, u64>,
    /// Requests without an answer.
    pub failures: BTreeMap<&'static str, u64>,
}

impl Recorder {
    /// Nothing seen yet.
    ///
    /// # Errors
    /// The bounds of the latencies make no histogram.
    pub fn new() -> Result<Self, CreationError> {
        Ok(Self {
            responses: Latencies::new()?,
            predictions: Latencies::new()?,
            send_lag: Latencies::new()?,
            in_time: 0,
            defaults: BTreeMap::new(),
            http_errors: BTreeMap::new(),
            failures: BTreeMap::new(),
        })
    }

    pub fn response(&mut self, status: u16, latency: Duration) {
        self.responses.record(latency, 1);
        if status != 200 {
            *self.http_errors.entry(status).or_default() += 1;
        }
    }

    /// A query of a response was answered by a model.
    pub fn prediction(&mut self, latency: Duration, slo: Duration) {
        self.predictions.record(latency, 1);
        self.in_time += u64::from(latency <= slo);
    }

    /// A query of a response was answered by the default output.
    pub fn default_output(&mut self, explanation: &str) {
        if let Some(count) = self.defaults.get_mut(explanation) {
            *count += 1;
            return;
        }
        let full = self.defaults.len() >= EXPLANATIONS_MAX;
        let key = if full { "other explanations" } else { explanation };
        *self.defaults.entry(key.to_owned()).or_default() += 1;
    }

    /// A request was sent.
    pub fn sent(&mut self, lag: Duration) {
        self.send_lag.record(lag, 1);
    }

    /// A request got no answer.
    pub fn failure(&mut self, failure: RequestFailure) {
        *self.failures.entry(failure.label()).or_default() += 1;
    }

    /// Adds what another thread has seen.
    pub fn add(&mut self, other: &Self) {
        self.responses.add(&other.responses);
        self.predictions.add(&other.predictions);
        self.send_lag.add(&other.send_lag);
        self.in_time += other.in_time;
        merge(&mut self.defaults, &other.defaults);
        merge(&mut self.http_errors, &other.http_errors);
        merge(&mut self.failures, &other.failures);
    }
}

fn merge<K: Ord + Clone>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key.clone()).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up() {
        let slo = Duration::from_millis(20);
        let mut one = Recorder::new().unwrap();
        for millis in [1, 2, 30] {
            one.response(200, Duration::from_millis(millis));
            one.prediction(Duration::from_millis(millis), slo);
        }
        let mut two = Recorder::new().unwrap();
        two.response(503, Duration::from_millis(5));
        two.default_output("late");
        two.failure(RequestFailure::Timeout);
        one.add(&two);
        one.add(&two);
        assert_eq!(one.responses.count(), 5);
        assert_eq!((one.predictions.count(), one.in_time), (3, 2));
        assert_eq!(one.http_errors, BTreeMap::from([(503, 2)]));
        assert_eq!(one.defaults, BTreeMap::from([("late".to_owned(), 2)]));
        assert_eq!(one.failures, BTreeMap::from([("timeout", 2)]));
        assert_eq!(one.predictions.quantile(0.5).as_millis(), 2);
        let max = one.predictions.max().as_secs_f64();
        assert!((0.030..0.0301).contains(&max), "{max}");
    }

    #[test]
    fn endless_explanations_and_latencies_do_not_take_endless_memory() {
        let mut recorder = Recorder::new().unwrap();
        (0..1_000).for_each(|n| recorder.default_output(&format!("reason {n}")));
        assert!(recorder.defaults.len() <= EXPLANATIONS_MAX + 1);
        assert_eq!(recorder.defaults.values().sum::<u64>(), 1_000);
        recorder.response(200, Duration::MAX);
        assert!(recorder.responses.max() >= Duration::from_nanos(LATENCY_MAX_NS));
    }
}
