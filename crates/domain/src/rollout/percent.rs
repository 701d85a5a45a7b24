//! Parts of all queries.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A part of all queries, in hundredths of a percent: 0.01 % to 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Percent(u16);

/// A number that is no part of all queries.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("expected a percentage from 0.01 to 100, not {0}")]
pub struct InvalidPercent(f64);

impl Percent {
    pub const ALL: Self = Self(10_000);

    /// As a part of one.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

impl TryFrom<f64> for Percent {
    type Error = InvalidPercent;

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
    fn try_from(percent: f64) -> Result<Self, InvalidPercent> {
        let hundredths = (percent * 100.0).round();
        let in_range = (1.0..=10_000.0).contains(&hundredths);
        in_range.then_some(Self(hundredths as u16)).ok_or(InvalidPercent(percent))
    }
}

impl From<Percent> for f64 {
    fn from(percent: Percent) -> f64 {
        f64::from(percent.0) / 100.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(*self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_keep_two_digits_and_their_range() {
        for (number, text) in [(1.0, "1%"), (0.5, "0.5%"), (0.01, "0.01%"), (100.0, "100%")] {
            let percent = Percent::try_from(number).unwrap();
            assert_eq!(percent.to_string(), text);
            assert_eq!(serde_json::to_value(percent).unwrap().as_f64(), Some(number));
        }
        for number in [0.0, -1.0, 100.5, f64::NAN, 0.001] {
            assert!(Percent::try_from(number).is_err(), "{number}");
        }
    }
}
