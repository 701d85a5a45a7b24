//! The metrics as Prometheus text, format 0.0.4.
//!
//! First the metrics of [`super::table`]; then, on the metrics port, every number of the Clipper
//! JSON as a gauge under the flat name that the original's exporter gave it.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use prometheus::core::Collector;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::clipper_json::Report;
use super::histogram::{Snapshot, float};
use super::table::{self, Kind, Row};
use super::{Metrics, ModelMetrics, Outcome, RedisMetrics, RpcEnd};

/// The media type of [`prometheus_text_body`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const MICROS_PER_SECOND: f64 = 1e6;

/// Whether a scrape also lists the original exporter's flat names. They break a rule of naming (a
/// gauge must not end in `_count`), and on two ports each would appear twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlatNames {
    /// For the metrics port, where the original's dashboards look for them.
    Listed,
    /// For the query frontend.
    LeftOut,
}

/// The body of a scrape.
///
/// # Errors
/// Only if the encoder meets a metric without a name or value, which would be a fault here.
pub fn prometheus_text_body(
    metrics: &Metrics,
    flat_names: FlatNames,
) -> Result<String, prometheus::Error> {
    let (flat, dropped) = flat(&Report::of(metrics));
    let mut families = process_wide(metrics, dropped);
    families.extend(of_apps(metrics));
    families.extend(of_models(metrics));
    families.sort_by_key(|family| {
        table::TABLE.iter().position(|row| row.name == family.name()).unwrap_or(usize::MAX)
    });
    if flat_names == FlatNames::Listed {
        families.extend(flat);
    }
    families.retain(|family| !family.get_metric().is_empty());
    prometheus::TextEncoder::new().encode_to_string(&families)
}

/// Samples of one row of the table.
struct Family {
    row: &'static Row,
    samples: Vec<Metric>,
}

impl Family {
    fn new(row: &'static Row) -> Self {
        Self { row, samples: Vec::new() }
    }

    /// Adds a counter or gauge.
    fn number(&mut self, labels: &[&str], value: f64) {
        let mut sample = match self.row.kind {
            Kind::Gauge => gauge_sample(value),
            Kind::Counter | Kind::Histogram => {
                let mut counter = Counter::default();
                counter.set_value(value);
                let mut sample = Metric::default();
                sample.set_counter(counter);
                sample
            }
        };
        sample.set_label(self.labels(labels));
        self.samples.push(sample);
    }

    /// Adds a histogram; `unit` is how many of its values make one unit of the metric.
    fn histogram(&mut self, labels: &[&str], values: &Snapshot, bounds: &[u64], unit: f64) {
        let buckets = bounds.iter().zip(values.cumulative(bounds)).map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(float(*bound) / unit);
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(values.count);
        histogram.set_sample_sum(float(values.sum) / unit);
        let mut sample = Metric::from_label(self.labels(labels));
        sample.set_histogram(histogram);
        self.samples.push(sample);
    }

    fn labels(&self, values: &[&str]) -> Vec<LabelPair> {
        self.row.labels.iter().zip(values).map(|(name, value)| label(name, value)).collect()
    }

    fn finish(self) -> MetricFamily {
        let kind = match self.row.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        };
        family(self.row.name.to_owned(), self.row.help.to_owned(), kind, self.samples)
    }
}

fn family(name: String, help: String, kind: MetricType, samples: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name);
    family.set_help(help);
    family.set_field_type(kind);
    family.set_metric(samples);
    family
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn gauge_sample(value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    Metric::from_gauge(gauge)
}

fn process_wide(metrics: &Metrics, dropped: u64) -> Vec<MetricFamily> {
    let mut connections = Family::new(&table::RPC_CONNECTIONS);
    connections.number(&[], float(metrics.rpc_connections.load(Relaxed)));
    let mut ended = Family::new(&table::RPC_ENDED);
    for (why, count) in RpcEnd::ALL.iter().zip(&metrics.rpc_ended) {
        ended.number(&[why.label()], float(count.load(Relaxed)));
    }
    let mut restarts = Family::new(&table::ACTOR_RESTARTS);
    for (actor, count) in metrics.actor_restarts.lock().iter() {
        restarts.number(&[actor], float(*count));
    }
    let mut stalls = Family::new(&table::THREAD_STALLS);
    for (thread, count) in metrics.thread_stalls.lock().iter() {
        stalls.number(&[thread], float(*count));
    }
    let mut lost = Family::new(&table::LOG_LINES_LOST);
    lost.number(&[], float(metrics.log_lines_lost.get().map_or(0, |lost| lost.load(Relaxed))));
    let mut commands = Family::new(&table::ADMIN_COMMANDS);
    commands.number(&["acknowledged"], float(metrics.admin_acknowledged.load(Relaxed)));
    commands.number(&["refused"], float(metrics.admin_refused.load(Relaxed)));
    let mut feedback = Family::new(&table::FEEDBACK_REFUSED);
    feedback.number(&[], float(metrics.feedback_refused.load(Relaxed)));
    let mut build = Family::new(&table::BUILD_INFO);
    build.number(&[env!("CARGO_PKG_VERSION")], 1.0);
    let mut flat_dropped = Family::new(&table::FLAT_NAMES_DROPPED);
    flat_dropped.number(&[], float(dropped));
    let families =
        [connections, ended, restarts, stalls, lost, commands, feedback, build, flat_dropped];
    let redis = metrics.redis.get().map(of_redis).into_iter().flatten();
    let mut families: Vec<MetricFamily> =
        families.into_iter().chain(redis).map(Family::finish).collect();
    families.extend(metrics.process.collect());
    families
}

/// Absent in embedded mode.
fn of_redis(redis: &RedisMetrics) -> [Family; 7] {
    let rows = [
        (&table::REDIS_CONNECTED, &redis.connected),
        (&table::REDIS_FAILURES, &redis.failures),
        (&table::REDIS_MALFORMED, &redis.malformed),
        (&table::REDIS_CONFLICTS, &redis.conflicts),
        (&table::REDIS_EVENTS, &redis.events),
        (&table::REDIS_EVICTS, &redis.evicts),
        (&table::REDIS_RESTORED, &redis.restored),
    ];
    rows.map(|(row, value)| {
        let mut family = Family::new(row);
        family.number(&[], float(value.load(Relaxed)));
        family
    })
}

fn of_apps(metrics: &Metrics) -> Vec<MetricFamily> {
    let mut predictions = Family::new(&table::PREDICTIONS);
    let mut durations = Family::new(&table::PREDICTION_DURATION);
    let mut objectives = Family::new(&table::APPLICATION_OBJECTIVE);
    let mut rejected = Family::new(&table::REQUESTS_REJECTED);
    for (name, app) in metrics.apps.read().iter() {
        let name = name.as_str();
        for outcome in Outcome::ALL {
            predictions.number(&[name, outcome.label()], float(app.ended(outcome)));
        }
        let latency = app.latency.snapshot();
        durations.histogram(&[name], &latency, table::DURATION_BOUNDS_US, MICROS_PER_SECOND);
        objectives.number(&[name], float(app.objective.load(Relaxed)) / MICROS_PER_SECOND);
        rejected.number(&[name], float(app.rejected.load(Relaxed)));
    }
    [predictions, durations, objectives, rejected].map(Family::finish).into()
}

fn of_models(metrics: &Metrics) -> Vec<MetricFamily> {
    let mut numbers = MODEL_NUMBERS.map(|(row, _)| Family::new(row));
    let mut lookups = Family::new(&table::CACHE_LOOKUPS);
    let mut sizes = Family::new(&table::MODEL_BATCH_SIZE);
    let mut durations = Family::new(&table::MODEL_BATCH_DURATION);
    let mut waits = Family::new(&table::QUEUE_WAIT);
    let mut replicas = REPLICA_ROWS.map(Family::new);
    for (id, model) in metrics.models.read().iter() {
        let labels = [id.name.as_str(), id.version.as_str()];
        for (family, (_, read)) in numbers.iter_mut().zip(MODEL_NUMBERS) {
            family.number(&labels, float(read(model)));
        }
        for (result, count) in [("hit", &model.hits), ("miss", &model.misses)] {
            lookups.number(&[labels[0], labels[1], result], float(count.load(Relaxed)));
        }
        let size = model.batch_size.snapshot();
        sizes.histogram(&labels, &size, table::BATCH_BOUNDS, 1.0);
        for (family, values) in
            [(&mut durations, &model.batch_latency), (&mut waits, &model.queue_wait)]
        {
            let values = values.snapshot();
            family.histogram(&labels, &values, table::DURATION_BOUNDS_US, MICROS_PER_SECOND);
        }
        for (replica, counts) in model.by_replica() {
            let replica = replica.to_string();
            let values = [
                float(counts.batches.load(Relaxed)),
                float(counts.predictions.load(Relaxed)),
                float(counts.busy.load(Relaxed)) / MICROS_PER_SECOND,
            ];
            for (family, value) in replicas.iter_mut().zip(values) {
                family.number(&[labels[0], labels[1], &replica], value);
            }
        }
    }
    let others = [lookups, sizes, durations, waits];
    numbers.into_iter().chain(others).chain(replicas).map(Family::finish).collect()
}

type ReadModel = fn(&ModelMetrics) -> u64;

/// The counters and gauges of a model version that have no label of their own.
const MODEL_NUMBERS: [(&Row, ReadModel); 8] = [
    (&table::MODEL_PREDICTIONS, ModelMetrics::predictions),
    (&table::MODEL_ERRORS, |model| model.model_errors.load(Relaxed)),
    (&table::REPLICAS, |model| model.replicas.load(Relaxed)),
    (&table::QUEUE_DEPTH, |model| model.queue_depth.load(Relaxed)),
    (&table::QUEUE_SKIPPED, |model| model.skipped.load(Relaxed)),
    (&table::QUEUE_RETRIED, |model| model.retried.load(Relaxed)),
    (&table::STRAY_ANSWERS, |model| model.stray_answers.load(Relaxed)),
    (&table::CONTAINER_STARTS, |model| model.child_starts.load(Relaxed)),
];

const REPLICA_ROWS: [&Row; 3] =
    [&table::REPLICA_BATCHES, &table::REPLICA_PREDICTIONS, &table::REPLICA_BUSY];

/// Every number of the report under its flat name, and how many were left out because their name
/// was taken: `app:a-b:...` and `app:a_b:...` become the same.
fn flat(report: &Report) -> (Vec<MetricFamily>, u64) {
    let mut seen = HashSet::new();
    let mut dropped = 0;
    let mut families = Vec::new();
    for leaf in report.leaves() {
        for (field, text) in &leaf.fields {
            let Ok(value) = text.parse::<f64>() else { continue };
            let name = flat_name(&leaf.name, field);
            if !seen.insert(name.clone()) {
                dropped += 1;
                continue;
            }
            let help = format!("Field {field} of {} in the Clipper JSON.", leaf.name);
            families.push(family(name, help, MetricType::GAUGE, vec![gauge_sample(value)]));
        }
    }
    (families, dropped)
}

/// `app:a-b:num_predictions` and `count` become `app_a_b_num_predictions_count`.
fn flat_name(name: &str, field: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    name.chars().map(plain).chain(['_']).chain(field.chars()).collect()
}
