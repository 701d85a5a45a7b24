//! Texts of flags to values.

use std::time::Duration;

use clipper_domain::{InputType, OnnxEngine};

use clipper_config::rule::{NotAccepted, Rule};

/// What the text of a flag should have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub(super) struct Expected(pub String);

impl Expected {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

fn checked(rule: Rule, text: &str) -> Result<String, NotAccepted> {
    rule.read(text).map(|_| text.to_owned())
}

pub(super) fn redis_url(text: &str) -> Result<String, NotAccepted> {
    checked(Rule::RedisUrl, text)
}

pub(super) fn data_dir(text: &str) -> Result<String, NotAccepted> {
    checked(Rule::Text, text)
}

pub(super) fn input_type(text: &str) -> Result<InputType, Expected> {
    InputType::parse(text).ok_or_else(|| Expected::new(Rule::InputType.accepted()))
}

/// One of the original's.
pub(super) fn flat_input_type(text: &str) -> Result<InputType, Expected> {
    let names = || InputType::FLAT.map(InputType::long_name).join(", ");
    let flat = InputType::parse(text).filter(|one| InputType::FLAT.contains(one));
    flat.ok_or_else(|| Expected::new(format!("one of {}", names())))
}

pub(super) fn engine(text: &str) -> Result<OnnxEngine, Expected> {
    OnnxEngine::parse(text)
        .ok_or_else(|| Expected::new(format!("one of {}", OnnxEngine::NAMES.join(", "))))
}

fn time(text: &str, unit_s: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse::<f64>().ok()? * unit_s).ok()
}

/// A time and its unit.
pub(super) fn time_with_unit(text: &str) -> Result<Duration, Expected> {
    let units = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3_600.0)];
    let read = |(unit, unit_s)| time(text.strip_suffix(unit)?, unit_s);
    units
        .into_iter()
        .find_map(read)
        .ok_or_else(|| Expected::new("a time such as 500ms, 30s, 5m or 2h"))
}

/// Seconds, at most a day.
pub(super) fn seconds(text: &str) -> Result<Duration, Expected> {
    seconds_or_none(text)
        .ok()
        .filter(|duration| *duration > Duration::ZERO)
        .ok_or_else(|| Expected::new("seconds, more than 0 and at most 86400"))
}

/// Seconds from 0, at most a day.
pub(super) fn seconds_or_none(text: &str) -> Result<Duration, Expected> {
    time(text, 1.0)
        .filter(|duration| *duration <= Duration::from_hours(24))
        .ok_or_else(|| Expected::new("seconds, at most 86400"))
}

/// Milliseconds into the microseconds of an objective; the server knows its limits.
pub(super) fn slo_micros(text: &str) -> Result<i64, Expected> {
    time(text, 1e-3)
        .and_then(|duration| i64::try_from(duration.as_micros()).ok())
        .filter(|micros| *micros > 0)
        .ok_or_else(|| Expected::new("milliseconds, 0.001 at least, such as 20 or 0.5"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("0.5h", 1_800_000)] {
            assert_eq!(time_with_unit(text), Ok(Duration::from_millis(ms)));
        }
        for text in ["5", "m", "-1s", "5d"] {
            assert!(time_with_unit(text).is_err(), "{text}");
        }
    }
}
