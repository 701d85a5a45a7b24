//! The percentile spectrum as bars for a terminal. The report in JSON has the numbers, for whoever
//! wants a drawing.

use std::fmt::Write as _;

use super::report::{Point, Report};

/// Columns of the longest bar.
const BAR_COLUMNS: usize = 50;

/// `|` marks the objective.
#[must_use]
pub fn text(report: &Report) -> String {
    let top = top_ms(report);
    let slo = columns(report.slo_ms, top);
    let mut text = String::new();
    for Point { share, ms } in &report.spectrum {
        let bar = columns(*ms, top);
        let cell = |column| match column {
            _ if column < bar => '#',
            _ if column == slo => '|',
            _ => ' ',
        };
        let line: String = (0..=BAR_COLUMNS).map(cell).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:>8} {ms:>10.3} ms {}", label(*share), line.trim_end());
    }
    text
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "0 <= ms <= top, so the result is at most BAR_COLUMNS"
)]
fn columns(ms: f64, top: f64) -> usize {
    (ms / top * BAR_COLUMNS as f64).round().clamp(0.0, BAR_COLUMNS as f64) as usize
}

/// The axis ends at the longest latency, or at the objective if that is near.
fn top_ms(report: &Report) -> f64 {
    let longest = report.spectrum.iter().map(|point| point.ms).fold(0.001, f64::max);
    if report.slo_ms < longest * 2.0 { longest.max(report.slo_ms) } else { longest }
}

fn label(share: f64) -> String {
    let percent = format!("{:.3}", share * 100.0);
    format!("{} %", percent.trim_end_matches('0').trim_end_matches('.'))
}
