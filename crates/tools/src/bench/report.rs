//! What a measurement has shown: as JSON, and as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::float::float;
use super::plan::{Load, Plan};
use super::record::{Latencies, Recorder, RequestFailure};

/// Shares whose latencies are reported and plotted.
pub const SPECTRUM: [f64; 13] =
    [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.999_5, 0.999_9, 0.999_99, 1.0];

/// Latencies, milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct LatencySummary {
    pub count: u64,
    pub mean_ms: f64,
    /// Half are at most this.
    pub p50_ms: f64,
    /// Nine of ten are at most this.
    pub p90_ms: f64,
    /// 99 of 100 are at most this.
    pub p99_ms: f64,
    /// 999 of 1,000 are at most this.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl LatencySummary {
    fn of(latencies: &Latencies) -> Self {
        let at = |share| ms(latencies.quantile(share));
        Self {
            count: latencies.count(),
            mean_ms: ms(latencies.mean()),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(latencies.max()),
        }
    }
}

/// A point of the percentile spectrum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// This share of the responses...
    pub share: f64,
    /// ...took at most this long, milliseconds.
    pub ms: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `closed` or `open`.
    pub load: &'static str,
    /// Requests per second that were meant to start (open loop).
    pub offered_requests_per_s: Option<f64>,
    pub inputs: String,
    /// Queries of one request.
    pub queries_per_request: u64,
    /// Connections that carried requests.
    pub connections: usize,
    /// Measured time, seconds.
    pub duration_s: f64,
    pub seed: u64,
    /// Requests that started in that time.
    pub requests: u64,
    /// Those with an HTTP answer, per second.
    pub responses_per_s: f64,
    /// Answered queries per second, default outputs included.
    pub queries_per_s: f64,
    /// Queries that a model answered.
    pub predictions: u64,
    /// Queries answered by a default output, by explanation.
    pub defaults: BTreeMap<String, u64>,
    /// Requests answered with another status than 200, by status.
    pub http_errors: BTreeMap<u16, u64>,
    /// Requests without an answer, by cause.
    pub failures: BTreeMap<&'static str, u64>,
    /// The objective, milliseconds.
    pub slo_ms: f64,
    /// Predictions within the objective, per second.
    pub goodput_per_s: f64,
    /// Predictions within the objective, of all queries that were meant to be sent.
    pub share_in_time: f64,
    /// Of each request, from its intended start.
    pub latency: LatencySummary,
    pub prediction_latency: LatencySummary,
    /// How late the generator itself sent.
    pub send_lag: LatencySummary,
    /// The spectrum of `latency`.
    pub spectrum: Vec<Point>,
}

impl Report {
    pub(super) fn new(plan: &Plan, seen: &Recorder) -> Self {
        let duration_s = plan.duration.as_secs_f64();
        let per_second = |count: u64| float(count) / duration_s.max(f64::MIN_POSITIVE);
        let (load, offered) = match plan.load {
            Load::Closed => ("closed", None),
            Load::Open { rate, .. } => ("open", Some(rate)),
        };
        let defaults: u64 = seen.defaults.values().sum();
        // A response whose answers are not understood is counted as a response already.
        let unanswered =
            seen.failures.iter().filter(|(why, _)| **why != RequestFailure::Answers.label());
        let requests = seen.responses.count() + unanswered.map(|(_, count)| count).sum::<u64>();
        let queries = requests * plan.inputs.per_request();
        let spectrum = SPECTRUM
            .iter()
            .map(|&share| Point { share, ms: ms(seen.responses.quantile(share)) })
            .collect();
        Self {
            load,
            offered_requests_per_s: offered,
            inputs: plan.inputs.choice.to_string(),
            queries_per_request: plan.inputs.per_request(),
            connections: plan.connections,
            duration_s,
            seed: plan.seed,
            requests,
            responses_per_s: per_second(seen.responses.count()),
            queries_per_s: per_second(seen.predictions.count() + defaults),
            predictions: seen.predictions.count(),
            defaults: seen.defaults.clone(),
            http_errors: seen.http_errors.clone(),
            failures: seen.failures.clone(),
            slo_ms: ms(plan.slo),
            goodput_per_s: per_second(seen.in_time),
            share_in_time: if queries == 0 { 0.0 } else { float(seen.in_time) / float(queries) },
            latency: LatencySummary::of(&seen.responses),
            prediction_latency: LatencySummary::of(&seen.predictions),
            send_lag: LatencySummary::of(&seen.send_lag),
            spectrum,
        }
    }

    /// Requests that ended in anything but HTTP 200.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.http_errors.values().sum::<u64>() + self.failures.values().sum::<u64>()
    }

    /// The table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<22} {value}");
        };
        let offered = self.offered_requests_per_s;
        let offered = offered.map_or(String::new(), |rate| format!(", {rate:.0} requests/s"));
        row(
            "load",
            format!(
                "{} loop{offered}, {} connections, {} s, inputs {} x {}, seed {}",
                self.load,
                self.connections,
                self.duration_s,
                self.inputs,
                self.queries_per_request,
                self.seed
            ),
        );
        row("requests", format!("{} ({:.0}/s answered)", self.requests, self.responses_per_s));
        row("queries", format!("{:.0}/s answered", self.queries_per_s));
        row("  prediction", self.predictions.to_string());
        for (why, count) in &self.defaults {
            row("  default", format!("{count}  {why}"));
        }
        for (status, count) in &self.http_errors {
            row("HTTP error", format!("{count}  {status}"));
        }
        for (why, count) in &self.failures {
            row("failure", format!("{count}  {why}"));
        }
        row(
            "goodput",
            format!(
                "{:.0} queries/s within {} ms ({:.2} % of all)",
                self.goodput_per_s,
                self.slo_ms,
                self.share_in_time * 100.0
            ),
        );
        let _ = writeln!(
            text,
            "\n{:<22} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "latency, ms", "mean", "p50", "p90", "p99", "p99.9", "max"
        );
        for (name, l) in [
            ("responses", &self.latency),
            ("predictions", &self.prediction_latency),
            ("generator's lag", &self.send_lag),
        ] {
            let _ = writeln!(
                text,
                "{name:<22} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>9.3}",
                l.mean_ms, l.p50_ms, l.p90_ms, l.p99_ms, l.p999_ms, l.max_ms
            );
        }
        text
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
