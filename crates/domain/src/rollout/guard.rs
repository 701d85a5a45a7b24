//! What has to stay true of the new version: `errors<1%`, `p99<slo`, `p95<50ms`, `disagreement<2%`,
//! `loss<=baseline`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::percent::Percent;

/// A condition that ends a rollout when it is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Guard {
    /// Queries that the new version gets, and that get no output of it although it had the time.
    Errors(Percent),
    /// A quantile of the time to the answer; queries that were late or turned away count as slow.
    Latency {
        /// The part of the queries that has to be answered in time, percent.
        quantile: Quantile,
        bound: LatencyBound,
    },
    /// Queries that both versions answer, and not alike.
    Disagreement(Percent),
    /// The mean loss is not above that of the old version in the same time.
    Loss,
}

/// A quantile that guards may be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantile {
    P50,
    P90,
    P95,
    P99,
}

impl Quantile {
    const ALL: [(Self, &'static str, f64); 4] = [
        (Self::P50, "p50", 0.5),
        (Self::P90, "p90", 0.1),
        (Self::P95, "p95", 0.05),
        (Self::P99, "p99", 0.01),
    ];

    fn row(self) -> (Self, &'static str, f64) {
        Self::ALL.into_iter().find(|(quantile, ..)| *quantile == self).unwrap_or(Self::ALL[3])
    }

    /// The part of the queries that may be slower.
    #[must_use]
    pub fn slower(self) -> f64 {
        self.row().2
    }
}

/// What a quantile has to stay below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatencyBound {
    /// The application's latency objective.
    Slo,
    Micros(u32),
}

/// A text that is no guard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGuard {
    #[error(
        "'{0}' is no guard: expected MEASURE<BOUND, such as errors<1%, p99<slo, p95<50ms, \
         disagreement<2% or loss<=baseline"
    )]
    Form(String),
    #[error("'{0}' cannot be guarded: expected errors, p50, p90, p95, p99, disagreement or loss")]
    Measure(String),
    #[error("{measure}: expected {expected}, not '{found}'")]
    Bound { measure: String, expected: &'static str, found: String },
}

/// Longest piece of a refused text that is shown, characters.
const SHOWN_CHARS_MAX: usize = 60;

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect()
}

impl Guard {
    /// Reads what its display shows; spaces do not matter.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidGuard> {
        let (measure, bound) =
            text.split_once('<').ok_or_else(|| InvalidGuard::Form(shown(text)))?;
        let measure = measure.trim();
        let (is_inclusive, bound) =
            bound.strip_prefix('=').map_or((false, bound), |bound| (true, bound));
        let bound = bound.trim();
        let wrong = |expected| InvalidGuard::Bound {
            measure: shown(measure),
            expected,
            found: shown(bound),
        };
        let quantile = Quantile::ALL.into_iter().find(|(_, name, _)| *name == measure);
        match (measure, quantile) {
            ("errors", _) => percent(bound).map(Self::Errors).ok_or_else(|| wrong(PERCENT)),
            ("disagreement", _) => {
                percent(bound).map(Self::Disagreement).ok_or_else(|| wrong(PERCENT))
            }
            ("loss", _) if is_inclusive && bound == "baseline" => Ok(Self::Loss),
            ("loss", _) => Err(wrong("loss<=baseline")),
            (_, Some((quantile, ..))) => latency(bound)
                .map(|bound| Self::Latency { quantile, bound })
                .ok_or_else(|| wrong("slo, or a time such as 50ms, 800us or 0.5s")),
            _ => Err(InvalidGuard::Measure(shown(measure))),
        }
    }

    /// What it measures, in words.
    #[must_use]
    pub fn measure(&self) -> &'static str {
        match self {
            Self::Errors(_) => "errors",
            Self::Latency { .. } => "slow answers",
            Self::Disagreement(_) => "other answers",
            Self::Loss => "mean loss",
        }
    }

    /// The part of what it looks at that may be bad; none where another version says it.
    #[must_use]
    pub fn bound(&self) -> Option<f64> {
        match self {
            Self::Errors(percent) | Self::Disagreement(percent) => Some(percent.fraction()),
            Self::Latency { quantile, .. } => Some(quantile.slower()),
            Self::Loss => None,
        }
    }
}

const PERCENT: &str = "a percentage from 0.01% to below 100%, such as 1%";

fn percent(text: &str) -> Option<Percent> {
    let number: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
    Percent::try_from(number).ok().filter(|percent| *percent < Percent::ALL)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
fn latency(text: &str) -> Option<LatencyBound> {
    if text == "slo" {
        return Some(LatencyBound::Slo);
    }
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    let (number, unit) =
        units.into_iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    let micros = number.trim().parse::<f64>().ok()? * unit;
    let in_range = (1.0..=f64::from(i32::MAX)).contains(&micros);
    in_range.then_some(LatencyBound::Micros(micros.round() as u32))
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errors(percent) => write!(f, "errors<{percent}"),
            Self::Latency { quantile, bound } => {
                let name = quantile.row().1;
                match bound {
                    LatencyBound::Slo => write!(f, "{name}<slo"),
                    LatencyBound::Micros(us) if us % 1_000 == 0 => {
                        write!(f, "{name}<{}ms", us / 1_000)
                    }
                    LatencyBound::Micros(us) => write!(f, "{name}<{us}us"),
                }
            }
            Self::Disagreement(percent) => write!(f, "disagreement<{percent}"),
            Self::Loss => f.write_str("loss<=baseline"),
        }
    }
}

impl TryFrom<String> for Guard {
    type Error = InvalidGuard;
    fn try_from(text: String) -> Result<Self, InvalidGuard> {
        Self::parse(&text)
    }
}

impl From<Guard> for String {
    fn from(guard: Guard) -> String {
        guard.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_are_read_as_they_are_shown() {
        let same = [
            "errors<1%",
            "errors<0.25%",
            "p99<slo",
            "p95<50ms",
            "p50<1500us",
            "disagreement<2%",
            "loss<=baseline",
        ];
        for text in same {
            assert_eq!(Guard::parse(text).unwrap().to_string(), text);
        }
        for (text, other) in [(" errors <= 1 % ", "errors<1%"), ("p99 < 0.5s", "p99<500ms")] {
            assert_eq!(Guard::parse(text).unwrap().to_string(), other);
        }
    }

    #[test]
    fn what_is_no_guard_is_told_with_what_it_should_be() {
        let cases = [
            ("errors", "no guard: expected MEASURE<BOUND"),
            ("errors>1%", "no guard: expected MEASURE<BOUND"),
            ("faults<1%", "'faults' cannot be guarded: expected errors, p50"),
            ("p98<slo", "'p98' cannot be guarded"),
            ("errors<1", "errors: expected a percentage"),
            ("errors<100%", "errors: expected a percentage"),
            ("disagreement<-2%", "disagreement: expected a percentage"),
            ("p99<fast", "p99: expected slo, or a time"),
            ("p99<0ms", "p99: expected slo, or a time"),
            ("loss<baseline", "loss: expected loss<=baseline"),
            ("loss<=0.1", "loss: expected loss<=baseline"),
        ];
        for (text, expected) in cases {
            let error = Guard::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
