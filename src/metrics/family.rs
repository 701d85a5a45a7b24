//! Samples of one metric, as the encoder of Prometheus takes them.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::histogram::{Snapshot, float};
use super::table::{MetricKind, Row};

/// Samples of one row of the table.
pub(super) struct Family {
    row: &'static Row,
    samples: Vec<Metric>,
}

impl Family {
    pub(super) fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    pub(super) fn row(&self) -> &'static Row {
        self.row
    }

    pub(super) fn new(row: &'static Row) -> Self {
        Self { row, samples: Vec::new() }
    }

    /// Adds a counter or gauge.
    pub(super) fn number(&mut self, labels: &[&str], value: f64) {
        let mut sample = match self.row.kind {
            MetricKind::Gauge => gauge_sample(value),
            MetricKind::Counter | MetricKind::Histogram => {
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
    pub(super) fn histogram(
        &mut self,
        labels: &[&str],
        values: &Snapshot,
        bounds: &[u64],
        unit: f64,
    ) {
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

    pub(super) fn finish(self) -> MetricFamily {
        let kind = match self.row.kind {
            MetricKind::Counter => MetricType::COUNTER,
            MetricKind::Gauge => MetricType::GAUGE,
            MetricKind::Histogram => MetricType::HISTOGRAM,
        };
        family(self.row.name.to_owned(), self.row.help.to_owned(), kind, self.samples)
    }
}

pub(super) fn family(
    name: String,
    help: String,
    kind: MetricType,
    samples: Vec<Metric>,
) -> MetricFamily {
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

pub(super) fn gauge_sample(value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    Metric::from_gauge(gauge)
}
