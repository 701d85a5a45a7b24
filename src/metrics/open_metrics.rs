//! The metrics in the form of `OpenMetrics` 1.0, which has exemplars: the same text as
//! [`super::prometheus_text`] makes, with what differs put in on its way.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;

use super::exemplars::Exemplar;
use super::histogram::float;
use super::prometheus_text::{FlatNames, write_prometheus_text};
use super::registry::Metrics;
use super::table::{self, DURATION_BOUNDS_US};

/// The media type of what is written here.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names and values of an exemplar's labels, characters; the format has no more.
const LABELS_MAX_CHARS: usize = 128;
const REQUEST_ID: &str = "request_id";

/// Writes the body of a scrape, a piece at a time.
///
/// # Errors
/// Those of `out`, and if the encoder meets a metric without a name or value.
pub fn write_open_metrics(
    metrics: &Metrics,
    flat_names: FlatNames,
    mut out: impl io::Write,
) -> io::Result<()> {
    let mut lines = LineTaker { exemplars: exemplars(metrics), head: String::new(), out: &mut out };
    write_prometheus_text(metrics, flat_names, &mut lines)?;
    out.write_all(b"# EOF\n")
}

/// What stands behind a sample, by the sample without its value.
fn exemplars(metrics: &Metrics) -> HashMap<String, String> {
    let mut all = HashMap::new();
    for (app, of) in metrics.all_apps() {
        for (bucket, exemplar) in of.exemplars.all() {
            let Some(labels) = labels(&exemplar) else { continue };
            let bound = DURATION_BOUNDS_US.get(bucket);
            let bound = bound.map_or("+Inf".to_owned(), |us| (float(*us) / 1e6).to_string());
            let (name, app) = (table::PREDICTION_DURATION.name, escaped(app.as_str()));
            let sample = format!("{name}_bucket{{app=\"{app}\",le=\"{bound}\"}}");
            let (took, at) = (float(exemplar.micros) / 1e6, float(exemplar.at_ms) / 1e3);
            all.insert(sample, format!(" # {{{labels}}} {took} {at:.3}"));
        }
    }
    all
}

/// The labels of an exemplar, as many as there may be: its trace by which it is found, its span,
/// its id.
fn labels(exemplar: &Exemplar) -> Option<String> {
    let id = (REQUEST_ID, exemplar.request_id.to_string());
    let wanted = match exemplar.span {
        None => vec![id],
        Some(span) => {
            let trace = ("trace_id", span.trace.to_string());
            vec![trace, id, ("span_id", span.span.to_string())]
        }
    };
    let mut left = LABELS_MAX_CHARS;
    let mut labels = Vec::new();
    for (name, value) in wanted {
        if let Some(rest) = left.checked_sub(name.len() + value.chars().count()) {
            left = rest;
            labels.push(format!("{name}=\"{}\"", escaped(&value)));
        }
    }
    (!labels.is_empty()).then(|| labels.join(","))
}

/// The value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Takes text of the other format, whole lines at a time.
struct LineTaker<W> {
    exemplars: HashMap<String, String>,
    /// The first line of a family, until its kind is known.
    head: String,
    out: W,
}

impl<W: io::Write> LineTaker<W> {
    fn line(&mut self, line: &str, text: &mut String) {
        // Writing to memory does not fail.
        let _ = if let Some(help) = line.strip_prefix("# HELP ") {
            help.clone_into(&mut self.head);
            Ok(())
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            // A family of counters is called without the end that its samples have.
            let family = name.strip_suffix("_total").filter(|_| kind == "counter").unwrap_or(name);
            let help = self.head.strip_prefix(name).unwrap_or_default().replace('"', "\\\"");
            writeln!(text, "# HELP {family}{help}\n# TYPE {family} {kind}")
        } else {
            let sample = line.rsplit_once(' ').map_or(line, |(sample, _)| sample);
            let exemplar = self.exemplars.get(sample).map_or("", String::as_str);
            writeln!(text, "{line}{exemplar}")
        };
    }
}

impl<W: io::Write> io::Write for LineTaker<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let lines = std::str::from_utf8(bytes).map_err(io::Error::other)?;
        let mut text = String::with_capacity(lines.len() + lines.len() / 8);
        for line in lines.lines() {
            self.line(line, &mut text);
        }
        self.out.write_all(text.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clipper_clock as clock;
    use clipper_domain::{AppName, Outcome, RequestId, TraceParent};

    use super::*;
    use crate::metrics::prometheus_text_body;

    fn page(metrics: &Metrics) -> String {
        let mut page = Vec::new();
        write_open_metrics(metrics, FlatNames::Listed, &mut page).unwrap();
        String::from_utf8(page).unwrap()
    }

    #[test]
    fn an_exemplar_names_its_trace_and_keeps_to_the_number_of_characters() {
        let text = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let span = TraceParent::parse(text);
        let of = |id: usize, span| {
            labels(&Exemplar { micros: 1, request_id: "x".repeat(id).into(), span, at_ms: 1 })
        };
        let trace = "trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\"";
        let at = "span_id=\"00f067aa0ba902b7\"";
        let id = |count| format!("request_id=\"{}\"", "x".repeat(count));
        for (count, expected) in [
            (55, format!("{trace},{},{at}", id(55))),
            (56, format!("{trace},{}", id(56))),
            (78, format!("{trace},{}", id(78))),
            (79, format!("{trace},{at}")),
            (128, format!("{trace},{at}")),
        ] {
            assert_eq!(of(count, span).as_ref(), Some(&expected), "{count}");
        }
        assert_eq!((of(118, None), of(119, None)), (Some(id(118)), None));
    }

    #[test]
    fn it_is_the_other_text_but_for_what_differs() {
        let metrics = Metrics::new();
        for name in ["a", "say \"b\"\\"] {
            let app = metrics.app(&AppName::parse(name).unwrap());
            for (ms, id) in [(2, "fast"), (700, "slow \"one\""), (90_000, "above")] {
                let took = Duration::from_millis(ms);
                app.answered(Outcome::Prediction, 1, took);
                let id = RequestId::Given(id.into());
                app.exemplars.offer(took, Some(&id), None, clock::now());
            }
            let long = RequestId::Given("x".repeat(128).into());
            app.answered(Outcome::Prediction, 1, Duration::from_millis(20));
            app.exemplars.offer(Duration::from_millis(20), Some(&long), None, clock::now());
        }
        let page = page(&metrics);
        assert!(page.ends_with("\n# EOF\n"));
        let exemplars: Vec<&str> = page.lines().filter(|line| line.contains(" # {")).collect();
        assert_eq!(exemplars.len(), 6, "{exemplars:?}");
        let first = "clipper_prediction_duration_seconds_bucket{app=\"a\",le=\"0.0025\"} 1 # \
                     {request_id=\"fast\"} 0.002 ";
        assert!(exemplars[0].starts_with(first), "{}", exemplars[0]);
        assert!(exemplars[1].contains("# {request_id=\"slow \\\"one\\\"\"} 0.7 "));
        assert!(exemplars[2].contains("le=\"+Inf\"} 4 # {request_id=\"above\"} 90 "));
        assert!(page.contains("\n# TYPE clipper_predictions counter\nclipper_predictions_total{"));
        assert!(page.contains("\n# TYPE process_cpu_seconds counter\n"));
        // Samples are the same, and in the same order, but for those of the process itself.
        let samples = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let lines = lines.filter(|line| !line.starts_with("process_"));
            lines.map(|line| line.split(" # {").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let other = prometheus_text_body(&metrics, FlatNames::Listed).unwrap();
        assert!(!other.contains(" # {") && !other.contains("# EOF"));
        let (ours, others) = (samples(&page), samples(&other));
        assert_eq!(ours.len(), others.len());
        let rates = |line: &&String| !line.contains("rate") && !line.contains("_min");
        assert!(ours.iter().filter(rates).eq(others.iter().filter(rates)));
    }
}
