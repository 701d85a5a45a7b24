//! The name of a request, by which its client, the log and explanations speak of it.

use std::fmt;
use std::sync::Arc;

/// A longer one of a client is not taken.
pub const REQUEST_ID_MAX_BYTES: usize = 128;

/// What a client has sent as the id of its request, or a number that was made for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestId {
    /// Becomes text only where somebody reads it.
    Made(u64),
    Given(Arc<str>),
}

impl RequestId {
    /// Whether a client may call its request so: 1 to 128 visible characters.
    #[must_use]
    pub fn may_be(text: &[u8]) -> bool {
        let is_short = (1..=REQUEST_ID_MAX_BYTES).contains(&text.len());
        is_short && text.iter().all(u8::is_ascii_graphic)
    }

    /// A number as it is shown: 16 hexadecimal digits.
    #[must_use]
    pub fn digits(number: u64) -> [u8; 16] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 16];
        for (at, digit) in text.iter_mut().enumerate() {
            let value = (number >> (60 - 4 * at)) & 0xf;
            *digit = DIGITS[usize::try_from(value).unwrap_or(0)];
        }
        text
    }

    /// What it takes beside itself.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Made(_) => 0,
            Self::Given(text) => text.len(),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made(number) => write!(f, "{number:016x}"),
            Self::Given(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_characters_are_taken_up_to_a_limit() {
        let long = "x".repeat(REQUEST_ID_MAX_BYTES);
        for good in ["7", "a-b_c/d.e:f", &long] {
            assert!(RequestId::may_be(good.as_bytes()), "{good}");
        }
        let longer = format!("{long}x");
        for bad in [&b""[..], b"a b", b"\xc3\xa4", longer.as_bytes()] {
            assert!(!RequestId::may_be(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_number_has_the_same_digits_everywhere() {
        for number in [0, 1, 0x8f3c_61d2_0a9b_e745, u64::MAX] {
            let digits = RequestId::digits(number);
            let text = RequestId::Made(number).to_string();
            assert_eq!(std::str::from_utf8(&digits).unwrap(), text);
            assert_eq!(text.len(), 16);
        }
    }
}
