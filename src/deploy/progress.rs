//! How far a deployment is: one line of JSON for each step, each of bounded size.

use std::time::Duration;

use serde_json::value::RawValue;

pub use clipper_domain::deploy_model::Failed;

use clipper_domain::deploy_model;
use clipper_scheduling::output::Output;

/// Longest output that is shown whole, bytes of JSON; of a longer one the beginning is, as a text.
const OUTPUT_SHOWN_MAX_BYTES: usize = 16 << 10;

/// How much of a longer output is shown, and of a longer cause, characters.
const TEXT_SHOWN_MAX_CHARS: usize = 2_000;

/// As the server writes them: with a model's output as it came.
pub type Progress = deploy_model::Progress<Box<RawValue>>;

pub(super) fn failed(cause: impl Into<String>) -> Failed {
    Failed { cause: cause.into(), output: Vec::new() }
}

/// With a cause that a model may have made as long as it likes.
pub(super) fn failed_with_output(cause: &str, output: Vec<String>) -> Failed {
    Failed { cause: beginning(cause), output }
}

/// The step of a replica that has answered.
///
/// # Errors
/// An output that is no JSON, which none is.
pub(super) fn answered(
    first: Option<&Output>,
    queries: usize,
    batch_time: Duration,
) -> Result<Progress, serde_json::Error> {
    let json = first.map_or(&b"null"[..], Output::json);
    let batch_ms = batch_time.as_secs_f64() * 1e3;
    if json.len() <= OUTPUT_SHOWN_MAX_BYTES {
        let output = serde_json::from_slice(json)?;
        return Ok(Progress::Answered { output, output_bytes: None, queries, batch_ms });
    }
    let text = beginning(&String::from_utf8_lossy(json));
    let output = serde_json::value::to_raw_value(&text)?;
    Ok(Progress::Answered { output, output_bytes: Some(json.len()), queries, batch_ms })
}

/// The text, or the beginning of a long one.
fn beginning(text: &str) -> String {
    match text.char_indices().nth(TEXT_SHOWN_MAX_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(text: &str) -> serde_json::Value {
        let output = Output::from_text(text.as_bytes()).unwrap();
        let step = answered(Some(&output), 4, Duration::from_millis(2)).unwrap();
        serde_json::to_value(step).unwrap()
    }

    #[test]
    fn line_21_a_line_stays_short_however_long_the_output_is() {
        let short = step("[1, 2]");
        assert_eq!((&short["output"], short.get("output_bytes")), (&[1, 2][..].into(), None));
        let long = step(&format!("[{}]", vec!["0.5"; 1 << 20].join(",")));
        assert_eq!(long["output_bytes"], (4 << 20) + 1);
        let shown = long["output"].as_str().unwrap();
        assert!(shown.starts_with("[0.5,0.5") && shown.ends_with("..."), "{shown}");
        assert!(long.to_string().len() < 10_000);
        let failed = failed_with_output(&"é".repeat(1 << 20), vec![]);
        assert!(failed.cause.len() < 10_000);
    }
}
