//! The metrics under the original's names, as its `GET /metrics` answered them.
//!
//! Four categories; each metric a map of one name to fields; every value a string.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde::ser::{Serialize, SerializeMap, SerializeStruct as _, Serializer};

use clipper_clock as clock;
use clipper_domain::Outcome;

use super::handles::{AppMetrics, ModelMetrics};
use super::histogram::{Snapshot, float};
use super::meter::Rates;
use super::registry::{Metrics, Totals};

/// What a report is about. Its metrics are read one after the other, as they are written: a report
/// of 100,000 applications needs no room for all its text.
pub struct Report {
    now: clock::Instant,
    totals: Totals,
    rates: Rates,
    pub(super) apps: Vec<Subject<AppMetrics>>,
    pub(super) models: Vec<Subject<ModelMetrics>>,
}

/// An application or a model version of a report.
pub(super) struct Subject<M> {
    /// What its metrics' names begin with, such as `app:digits`.
    pub(super) prefix: String,
    metrics: Arc<M>,
}

type Leaves<'a> = Box<dyn Iterator<Item = Leaf> + 'a>;

/// One metric: its name and its fields in order.
#[derive(Debug)]
pub struct Leaf {
    /// Such as `app:digits:num_predictions`.
    pub name: String,
    /// Such as `count` and `7`.
    pub fields: Vec<(&'static str, String)>,
}

struct JsonFields<'a>(&'a [(&'static str, String)]);

impl Serialize for JsonFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Serialize for Leaf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(&self.name, &JsonFields(&self.fields))?;
        map.end()
    }
}

/// One of the four categories.
struct Category<'a>(&'a Report, fn(&'a Report) -> Leaves<'a>);

impl Serialize for Category<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.1)(self.0))
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut report = serializer.serialize_struct("Report", 4)?;
        report.serialize_field("counters", &Category(self, Self::counters))?;
        report.serialize_field("ratio_counters", &Category(self, Self::ratio_counters))?;
        report.serialize_field("meters", &Category(self, Self::meters))?;
        report.serialize_field("histograms", &Category(self, Self::histograms))?;
        report.end()
    }
}

impl Report {
    /// Of all applications and models there are now.
    #[must_use]
    pub fn of(metrics: &Metrics) -> Self {
        let now = clock::now();
        let (totals, rates) = metrics.totals(now);
        let mut apps = Vec::new();
        for (name, app) in metrics.apps.read().iter() {
            apps.push(Subject { prefix: format!("app:{name}"), metrics: Arc::clone(app) });
        }
        let mut models = Vec::new();
        for (id, model) in metrics.models.read().iter() {
            models.push(Subject { prefix: format!("model:{id}"), metrics: Arc::clone(model) });
        }
        Self { now, totals, rates, apps, models }
    }

    /// All metrics in the order of the report.
    pub fn leaves(&self) -> impl Iterator<Item = Leaf> + '_ {
        let others = self.meters().chain(self.histograms());
        self.counters().chain(self.ratio_counters()).chain(others)
    }

    fn counters(&self) -> Leaves<'_> {
        let lookups = self.totals.lookups;
        let all = [
            counter("internal:prediction_cache_lookups".to_owned(), lookups),
            counter("internal:aggregate_num_predictions".to_owned(), lookups),
        ];
        let apps = self.apps.iter().map(Subject::<AppMetrics>::counter);
        let models = self.models.iter().map(Subject::<ModelMetrics>::counter);
        Box::new(all.into_iter().chain(apps).chain(models))
    }

    fn ratio_counters(&self) -> Leaves<'_> {
        let name = "internal:prediction_cache_hit_ratio".to_owned();
        let all = ratio(name, self.totals.hits, self.totals.lookups);
        let apps = self.apps.iter().map(Subject::<AppMetrics>::ratio);
        let models = self.models.iter().map(Subject::<ModelMetrics>::ratio);
        Box::new(std::iter::once(all).chain(apps).chain(models))
    }

    fn meters(&self) -> Leaves<'_> {
        let all = meter("internal:aggregate_model_throughput".to_owned(), self.rates);
        let apps = self.apps.iter().map(|app| app.meter(app.metrics.tick(self.now)));
        let models = self.models.iter().map(|model| model.meter(model.metrics.tick(self.now)));
        Box::new(std::iter::once(all).chain(apps).chain(models))
    }

    fn histograms(&self) -> Leaves<'_> {
        let name = "internal:rpc_request_queueing_delay".to_owned();
        let all = histogram(name, "microseconds", &self.totals.queue_wait);
        let apps = self.apps.iter().map(Subject::<AppMetrics>::histogram);
        let models = self.models.iter().flat_map(Subject::<ModelMetrics>::histograms);
        Box::new(std::iter::once(all).chain(apps).chain(models))
    }
}

impl<M> Subject<M> {
    fn named(&self, metric: &str) -> String {
        format!("{}:{metric}", self.prefix)
    }

    fn meter(&self, rates: Rates) -> Leaf {
        meter(self.named("prediction_throughput"), rates)
    }
}

impl Subject<AppMetrics> {
    fn counter(&self) -> Leaf {
        counter(self.named("num_predictions"), self.metrics.predictions())
    }

    fn ratio(&self) -> Leaf {
        let predictions = self.metrics.predictions();
        let defaults = predictions.saturating_sub(self.metrics.ended(Outcome::Prediction));
        ratio(self.named("default_prediction_ratio"), defaults, predictions)
    }

    fn histogram(&self) -> Leaf {
        let name = self.named("prediction_latency");
        histogram(name, "microseconds", &self.metrics.latency.snapshot())
    }

    /// All of its metrics.
    pub(super) fn leaves(&self, now: clock::Instant) -> [Leaf; 4] {
        [self.counter(), self.ratio(), self.meter(self.metrics.tick(now)), self.histogram()]
    }
}

impl Subject<ModelMetrics> {
    fn counter(&self) -> Leaf {
        counter(self.named("num_predictions"), self.metrics.predictions())
    }

    fn ratio(&self) -> Leaf {
        let hits = self.metrics.hits.load(Relaxed);
        let lookups = hits + self.metrics.misses.load(Relaxed);
        ratio(self.named("cache_hit_ratio"), hits, lookups)
    }

    fn histograms(&self) -> [Leaf; 2] {
        let latency = self.metrics.query_latency.snapshot();
        let size = self.metrics.batch_size.snapshot();
        [
            histogram(self.named("prediction_latency"), "microseconds", &latency),
            histogram(self.named("batch_size"), "queries", &size),
        ]
    }

    /// All of its metrics.
    pub(super) fn leaves(&self, now: clock::Instant) -> [Leaf; 5] {
        let [latency, size] = self.histograms();
        [self.counter(), self.ratio(), self.meter(self.metrics.tick(now)), latency, size]
    }
}

fn counter(name: String, count: u64) -> Leaf {
    Leaf { name, fields: vec![("count", count.to_string())] }
}

fn ratio(name: String, part: u64, whole: u64) -> Leaf {
    let ratio =
        if whole == 0 { "nan".to_owned() } else { (float(part) / float(whole)).to_string() };
    Leaf { name, fields: vec![("ratio", ratio)] }
}

fn meter(name: String, rates: Rates) -> Leaf {
    let [one, five, fifteen] = rates.decaying.map(|rate| rate.to_string());
    let fields = vec![
        ("unit", "events per second".to_owned()),
        ("rate", rates.mean.to_string()),
        ("rate_1min", one),
        ("rate_5min", five),
        ("rate_15min", fifteen),
    ];
    Leaf { name, fields }
}

fn histogram(name: String, unit: &str, values: &Snapshot) -> Leaf {
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
    Leaf { name, fields }
}

/// Writes the body of the query frontend's `GET /metrics`, and of `/admin/metrics`.
///
/// # Errors
/// Those of `out`.
pub fn write_clipper_json(metrics: &Metrics, mut out: impl io::Write) -> io::Result<()> {
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, indent);
    Report::of(metrics).serialize(&mut serializer)?;
    out.write_all(b"\n")
}

/// What [`write_clipper_json`] writes.
#[must_use]
pub fn clipper_json_body(metrics: &Metrics) -> String {
    let mut body = Vec::new();
    // Strings into memory: neither the serialiser nor UTF-8 can fail.
    if write_clipper_json(metrics, &mut body).is_err() {
        return String::new();
    }
    String::from_utf8(body).unwrap_or_default()
}
