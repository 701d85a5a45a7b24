//! The metrics under the original's names, as its `GET /metrics` answered them.
//!
//! Four categories; each metric a map of one name to fields; every value a string.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde::ser::{Serialize, SerializeMap, Serializer};

use clipper_clock as clock;

use super::histogram::{Snapshot, float};
use super::meter::Rates;
use super::{AppMetrics, Metrics, ModelMetrics, Outcome};

/// The metrics of one report, by category.
#[derive(Debug, Default, serde::Serialize)]
pub struct Report {
    counters: Vec<Leaf>,
    ratio_counters: Vec<Leaf>,
    meters: Vec<Leaf>,
    histograms: Vec<Leaf>,
}

/// One metric: its name and its fields in order.
#[derive(Debug)]
pub struct Leaf {
    /// Such as `app:digits:num_predictions`.
    pub name: String,
    /// Such as `count` and `7`.
    pub fields: Vec<(&'static str, String)>,
}

struct Fields<'a>(&'a [(&'static str, String)]);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Serialize for Leaf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(&self.name, &Fields(&self.fields))?;
        map.end()
    }
}

impl Report {
    /// Reads all metrics; moves the meters to now.
    #[must_use]
    pub fn of(metrics: &Metrics) -> Self {
        let now = clock::now();
        let mut report = Self::default();
        let (totals, rates) = metrics.totals(now);
        report.counter("internal:prediction_cache_lookups", totals.lookups);
        report.counter("internal:aggregate_num_predictions", totals.lookups);
        report.ratio("internal:prediction_cache_hit_ratio", totals.hits, totals.lookups);
        report.meter("internal:aggregate_model_throughput", rates);
        report.histogram("internal:rpc_request_queueing_delay", "microseconds", &totals.queue_wait);
        for (name, app) in metrics.apps.read().iter() {
            report.app(&format!("app:{name}"), app, now);
        }
        for (id, model) in metrics.models.read().iter() {
            report.model(&format!("model:{id}"), model, now);
        }
        report
    }

    /// All metrics in the order of the report.
    pub fn leaves(&self) -> impl Iterator<Item = &Leaf> {
        [&self.counters, &self.ratio_counters, &self.meters, &self.histograms].into_iter().flatten()
    }

    fn app(&mut self, prefix: &str, app: &Arc<AppMetrics>, now: clock::Instant) {
        let predictions = app.predictions();
        let defaults = predictions.saturating_sub(app.ended(Outcome::Prediction));
        self.counter(&format!("{prefix}:num_predictions"), predictions);
        self.ratio(&format!("{prefix}:default_prediction_ratio"), defaults, predictions);
        self.meter(&format!("{prefix}:prediction_throughput"), app.tick(now));
        let name = format!("{prefix}:prediction_latency");
        self.histogram(&name, "microseconds", &app.latency.snapshot());
    }

    fn model(&mut self, prefix: &str, model: &Arc<ModelMetrics>, now: clock::Instant) {
        let hits = model.hits.load(Relaxed);
        let lookups = hits + model.misses.load(Relaxed);
        self.counter(&format!("{prefix}:num_predictions"), model.predictions());
        self.ratio(&format!("{prefix}:cache_hit_ratio"), hits, lookups);
        self.meter(&format!("{prefix}:prediction_throughput"), model.tick(now));
        let name = format!("{prefix}:prediction_latency");
        self.histogram(&name, "microseconds", &model.query_latency.snapshot());
        self.histogram(&format!("{prefix}:batch_size"), "queries", &model.batch_size.snapshot());
    }

    fn counter(&mut self, name: &str, count: u64) {
        let fields = vec![("count", count.to_string())];
        self.counters.push(Leaf { name: name.to_owned(), fields });
    }

    fn ratio(&mut self, name: &str, part: u64, whole: u64) {
        let ratio =
            if whole == 0 { "nan".to_owned() } else { (float(part) / float(whole)).to_string() };
        self.ratio_counters.push(Leaf { name: name.to_owned(), fields: vec![("ratio", ratio)] });
    }

    fn meter(&mut self, name: &str, rates: Rates) {
        let [one, five, fifteen] = rates.decaying.map(|rate| rate.to_string());
        let fields = vec![
            ("unit", "events per second".to_owned()),
            ("rate", rates.mean.to_string()),
            ("rate_1min", one),
            ("rate_5min", five),
            ("rate_15min", fifteen),
        ];
        self.meters.push(Leaf { name: name.to_owned(), fields });
    }

    fn histogram(&mut self, name: &str, unit: &str, values: &Snapshot) {
        let fields = vec![
            ("unit", unit.to_owned()),
            ("size", values.count.to_string()),
            ("min", values.min.to_string()),
            ("max", values.max.to_string()),
            ("mean", values.mean().to_string()),
            ("std_dev", values.std_dev().to_string()),
            ("p50", values.percentile(50).to_string()),
            ("p95", values.percentile(95).to_string()),
            ("p99", values.percentile(99).to_string()),
        ];
        self.histograms.push(Leaf { name: name.to_owned(), fields });
    }
}

/// The body of the query frontend's `GET /metrics`, and of `/admin/metrics`.
#[must_use]
pub fn clipper_json_body(metrics: &Metrics) -> String {
    let mut body = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut body, indent);
    // Strings into memory: neither the serialiser nor UTF-8 can fail.
    if Report::of(metrics).serialize(&mut serializer).is_err() {
        return String::new();
    }
    body.push(b'\n');
    String::from_utf8(body).unwrap_or_default()
}
