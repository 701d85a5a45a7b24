//! Names of applications and models by a pattern: `team-a-*`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::NAME_MAX_BYTES;

/// Which names a key is for: any text in which `*` stands for any part of a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pattern is a name of 1 to {NAME_MAX_BYTES} bytes in which * stands for any part, such as \
     team-a-*"
)]
pub struct InvalidPattern;

impl Pattern {
    /// Checks a text.
    ///
    /// # Errors
    /// It is empty, too long, or no name fits it.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let is_short = (1..=NAME_MAX_BYTES).contains(&text.len());
        let never_fits = |c: char| c.is_control() || [',', ':', '/'].contains(&c);
        if !is_short || text.contains(never_fits) {
            return Err(InvalidPattern);
        }
        Ok(Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every name fits.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.bytes().all(|byte| byte == b'*')
    }

    /// Whether a name fits. Takes at most the product of both lengths.
    #[must_use]
    pub fn fits(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where to go on if what follows the last `*` does not fit.
        let mut retry: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    p += 1;
                    retry = Some((p, n));
                }
                Some(byte) if *byte == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => {
                    let Some((after_star, from)) = retry else { return false };
                    retry = Some((after_star, from + 1));
                    (p, n) = (after_star, from + 1);
                }
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}

impl Default for Pattern {
    fn default() -> Self {
        Self("*".to_owned())
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPattern;
    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        Self::parse(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_part() {
        let fits = |pattern, name| Pattern::parse(pattern).unwrap().fits(name);
        for (pattern, name) in [
            ("*", "anything"),
            ("team-a-*", "team-a-"),
            ("team-a-*", "team-a-digits"),
            ("*-eu", "digits-eu"),
            ("a*b*c", "a1b2b3c"),
            ("a", "a"),
            ("*", "a"),
            ("v-*", "v-1"),
            ("*-b", "a-b"),
            ("**", "x"),
            ("模*", "模型"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("team-a-*", "team-b-x"),
            ("v-*", "w-1"),
            ("a", "ab"),
            ("a*b", "a"),
            ("*b", "bc"),
            ("a*b*c", "acb"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
        for text in ["", "a/b", "a:b", "a\n", &"x".repeat(NAME_MAX_BYTES + 1)] {
            assert_eq!(Pattern::parse(text), Err(InvalidPattern), "{text:?}");
        }
    }

    #[test]
    fn many_stars_do_not_take_long() {
        let pattern = Pattern::parse(&"*a".repeat(128)).unwrap();
        assert!(!pattern.fits(&"a".repeat(127)));
        assert!(!pattern.fits(&"b".repeat(10_000)));
    }
}
