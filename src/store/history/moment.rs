//! Points of the journal as people write them: a number, or a time.

use time::{Date, Month, OffsetDateTime, Time, UtcOffset};

/// A place in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Right after this event; 0: before the first.
    Seq(u64),
    /// Right after the last event by then, Unix milliseconds.
    Time(u64),
}

/// A text that is no [`Point`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{}' is no point of the journal: the number of an event, a time such as \
     2026-01-31T23:59:59Z, or how long ago such as 90s, 15m, 2h or 7d",
    clipper_domain::printable::printable(.0)
)]
pub struct NoPoint(pub String);

impl Point {
    /// Reads `42`, `2026-01-31T23:59:59Z` (also with milliseconds, another offset, or a space for
    /// the T), `now`, or `2h`: so long before `now_ms`.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(text: &str, now_ms: u64) -> Result<Self, NoPoint> {
        let text = text.trim();
        if let Ok(seq) = text.parse() {
            return Ok(Self::Seq(seq));
        }
        let point = match text {
            "now" => Some(now_ms),
            _ => ago(text).map(|ms| now_ms.saturating_sub(ms)).or_else(|| rfc_3339(text)),
        };
        point.map(Self::Time).ok_or_else(|| NoPoint(text.chars().take(64).collect()))
    }
}

fn ago(text: &str) -> Option<u64> {
    let (number, ms) = match text.as_bytes().last()? {
        b's' if text.ends_with("ms") => (text.strip_suffix("ms")?, 1),
        b's' => (text.strip_suffix('s')?, 1_000),
        b'm' => (text.strip_suffix('m')?, 60_000),
        b'h' => (text.strip_suffix('h')?, 3_600_000),
        b'd' => (text.strip_suffix('d')?, 86_400_000),
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(ms)
}

fn rfc_3339(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let (time, offset_s) = if let Some(time) = rest.strip_suffix(['Z', 'z']) {
        (time, 0)
    } else {
        let at = rest.rfind(['+', '-'])?;
        let (time, offset) = rest.split_at_checked(at)?;
        let (sign, offset) = (if offset.starts_with('-') { -1 } else { 1 }, offset.get(1..)?);
        let (hours, minutes) = offset.split_once(':')?;
        (
            time,
            sign * (i32::from(number::<u8>(hours)?) * 3_600
                + i32::from(number::<u8>(minutes)?) * 60),
        )
    };
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let month = Month::try_from(number::<u8>(month)?).ok()?;
    let date = Date::from_calendar_date(number(year)?, month, number(day)?).ok()?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut clock = time.split(':');
    let (hour, minute) = (number(clock.next()?)?, number(clock.next()?)?);
    let second = clock.next().map_or(Some(0), number)?;
    let time = Time::from_hms(hour, minute, second).ok()?;
    // Of a fraction the first three digits count.
    let millis: u64 = number(format!("{fraction:0<3}").get(..3)?)?;
    let offset = UtcOffset::from_whole_seconds(offset_s).ok()?;
    let seconds = date.with_time(time).assume_offset(offset).unix_timestamp();
    let is_whole = parts.next().is_none() && clock.next().is_none();
    u64::try_from(seconds).ok().filter(|_| is_whole).map(|seconds| seconds * 1_000 + millis)
}

/// Digits only: `+5` is no part of a time.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A time as RFC 3339 has it, in UTC: people compare it with their logs.
#[must_use]
pub fn utc(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX);
    let Ok(t) = OffsetDateTime::from_unix_timestamp(seconds) else {
        return format!("{unix_ms} ms");
    };
    let (month, ms) = (u8::from(t.month()), unix_ms % 1_000);
    format!(
        "{:04}-{month:02}-{:02}T{:02}:{:02}:{:02}.{ms:03}Z",
        t.year(),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_26_times_are_of_a_calendar() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(1_700_000_000_012), "2023-11-14T22:13:20.012Z");
        assert_eq!(utc(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(utc(u64::MAX), format!("{} ms", u64::MAX));
    }

    #[test]
    fn a_point_is_a_number_or_a_time() {
        let at = |text| Point::parse(text, 10_000_000).ok();
        assert_eq!(at(" 42"), Some(Point::Seq(42)));
        assert_eq!(at("now"), Some(Point::Time(10_000_000)));
        assert_eq!(at("90s"), Some(Point::Time(9_910_000)));
        assert_eq!(at("2h"), Some(Point::Time(2_800_000)));
        assert_eq!(at("500ms"), Some(Point::Time(9_999_500)));
        assert_eq!(at("9d"), Some(Point::Time(0)));
        for text in [
            "2023-11-14T22:13:20.012Z",
            "2023-11-14 22:13:20.0129z",
            "2023-11-15T00:13:20.012+02:00",
            "2023-11-14T17:43:20.012-04:30",
        ] {
            assert_eq!(at(text), Some(Point::Time(1_700_000_000_012)), "{text}");
        }
        assert_eq!(at("2023-11-14T22:13Z"), Some(Point::Time(1_699_999_980_000)));
        for text in [
            "",
            "x",
            "-1",
            "2h30",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-13-14T22:13:20Z",
            "2023-11-14T25:13:20Z",
            "2023-11-14T22:13:20:1Z",
            "2023-11-14-1T22:13:20Z",
            "d",
            "1960-01-01T00:00:00Z",
            "2023-11-14T22:13:20.\u{e4}Z",
            "2023-11-14T2+:13:20Z",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_printed_is_read() {
        for ms in [0, 1, 1_700_000_000_012, 1_709_251_199_999, 4_102_444_800_000] {
            assert_eq!(Point::parse(&utc(ms), 0), Ok(Point::Time(ms)));
        }
    }
}
