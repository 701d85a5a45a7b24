//! Texts of flags that follow the rule of a key.

use std::time::Duration;

use crate::config::rule::Rule;

fn checked(rule: Rule, text: &str) -> Result<String, String> {
    rule.read(text).map(|_| text.to_owned())
}

pub(super) fn redis_url(text: &str) -> Result<String, String> {
    checked(Rule::RedisUrl, text)
}

pub(super) fn data_dir(text: &str) -> Result<String, String> {
    checked(Rule::Text, text)
}

/// Seconds, at most a day.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let expected = || "expected seconds, more than 0 and at most 86400".to_owned();
    let seconds: f64 = text.parse().map_err(|_| expected())?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| expected())?;
    let fits = duration > Duration::ZERO && duration <= Duration::from_hours(24);
    if fits { Ok(duration) } else { Err(expected()) }
}

/// Milliseconds into the microseconds of an objective; the server knows its limits.
pub(super) fn slo_micros(text: &str) -> Result<i64, String> {
    let expected = || "expected milliseconds, 0.001 at least, such as 20 or 0.5".to_owned();
    let millis: f64 = text.parse().map_err(|_| expected())?;
    let duration = Duration::try_from_secs_f64(millis / 1e3).map_err(|_| expected())?;
    let micros = i64::try_from(duration.as_micros()).map_err(|_| expected())?;
    if micros > 0 { Ok(micros) } else { Err(expected()) }
}
