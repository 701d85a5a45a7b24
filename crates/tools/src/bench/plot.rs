//! The percentile spectrum as text and as SVG.
//!
//! The shares are spread by their nines: 90 %, 99 % and 99.9 % are equally far apart, since an
//! objective is about the tail.

use std::fmt::Write as _;

use super::report::{Point, Report};

/// Columns of the longest bar.
const BAR_COLUMNS: usize = 50;
/// Where 100 % is drawn, in nines.
const NINES_MAX: f64 = 5.5;

/// Bars for terminals; `|` marks the objective.
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

fn nines(share: f64) -> f64 {
    if share >= 1.0 { NINES_MAX } else { -(1.0 - share).log10() }
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const GRID_LINES: u8 = 5;

/// A drawing of its own, without scripts or outside references.
#[must_use]
pub fn svg(report: &Report) -> String {
    let top = top_ms(report) * 1.05;
    let x = |share: f64| LEFT + nines(share) / NINES_MAX * (WIDTH - LEFT - RIGHT);
    let y = |ms: f64| HEIGHT - BOTTOM - ms / top * (HEIGHT - TOP - BOTTOM);
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"14\">Latency by percentile: {} loop, {:.0} \
         responses/s, inputs {} x {}</text>\n",
        report.load, report.responses_per_s, report.inputs, report.queries_per_request
    );
    for step in 0..=GRID_LINES {
        let ms = top * f64::from(step) / f64::from(GRID_LINES);
        let at = y(ms);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{ms:.2} ms</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    for share in [0.0, 0.5, 0.9, 0.99, 0.999, 0.999_9, 0.999_99, 1.0] {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(share),
            bottom + 20.0,
            label(share)
        );
    }
    if report.slo_ms <= top {
        let at = y(report.slo_ms);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#c00\" \
             stroke-dasharray=\"6 4\"/><text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\" \
             fill=\"#c00\">objective {} ms</text>",
            at - 5.0,
            report.slo_ms
        );
    }
    let points: Vec<String> = report
        .spectrum
        .iter()
        .map(|point| format!("{:.1},{:.1}", x(point.share), y(point.ms)))
        .collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#06c\" stroke-width=\"2\"/>\n</svg>",
        points.join(" ")
    );
    svg
}
