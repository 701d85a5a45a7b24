//! Which inputs follow each other.

use std::fmt;

/// Most keys of [`Choice::Zipf`]: its table takes 8 bytes for each.
pub const ZIPF_KEYS_MAX: u64 = 10_000_000;

/// Which inputs follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    /// Each one is new.
    Unique,
    /// All are the same.
    Same,
    /// The k-th of `keys` inputs comes with a probability in proportion to `1 / k^exponent`.
    Zipf {
        /// 0 is uniform.
        exponent: f64,
        /// How many different inputs there are.
        keys: u64,
    },
}

/// A text that is no [`Choice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected unique, same or zipf:S:N with N <= {ZIPF_KEYS_MAX}")]
pub struct InvalidChoice;

impl Choice {
    /// Reads `unique`, `same` or `zipf:S:N`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, InvalidChoice> {
        match text.split(':').collect::<Vec<_>>()[..] {
            ["unique"] => Ok(Self::Unique),
            ["same"] => Ok(Self::Same),
            ["zipf", exponent, keys] => {
                let exponent: f64 = exponent.parse().map_err(|_| InvalidChoice)?;
                let keys: u64 = keys.parse().map_err(|_| InvalidChoice)?;
                let fits = exponent.is_finite() && exponent >= 0.0;
                if !fits || !(1..=ZIPF_KEYS_MAX).contains(&keys) {
                    return Err(InvalidChoice);
                }
                Ok(Self::Zipf { exponent, keys })
            }
            _ => Err(InvalidChoice),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unique => f.write_str("unique"),
            Self::Same => f.write_str("same"),
            Self::Zipf { exponent, keys } => write!(f, "zipf:{exponent}:{keys}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_as_written() {
        for text in ["unique", "same", "zipf:1.1:1000"] {
            assert_eq!(Choice::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "zipf", "zipf:x:5", "zipf:-1:5", "zipf:1:0", "zipf:1:99999999999"] {
            assert!(Choice::parse(text).is_err(), "{text}");
        }
    }
}
