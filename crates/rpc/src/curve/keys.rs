//! Keys and their text form.

use std::fmt;

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;

/// Letters of a key's text.
const TEXT_CHARS: usize = 40;

/// Z85 (RFC 32), in which libzmq's tools write keys.
const DIGITS: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; KEY_BYTES]);

/// A text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key of CURVE is 40 characters of Z85")]
pub struct InvalidKey;

impl Key {
    /// Reads 40 characters of Z85.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        decode(text).map(Self).ok_or(InvalidKey)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A secret key; cleared when it is dropped, never shown but by [`Self::text`].
#[derive(Clone)]
pub struct SecretKey(pub(super) crypto_box::SecretKey);

impl SecretKey {
    /// One of 32 random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; KEY_BYTES]) -> Self {
        Self(crypto_box::SecretKey::from_bytes(bytes))
    }

    /// Reads 40 characters of Z85.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        decode(text).map(Self::from_random).ok_or(InvalidKey)
    }

    #[must_use]
    pub fn public(&self) -> Key {
        Key(self.0.public_key().to_bytes())
    }

    /// The secret itself, in Z85.
    #[must_use]
    pub fn text(&self) -> String {
        encode(&self.0.to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

fn encode(key: &[u8; KEY_BYTES]) -> String {
    let mut text = String::with_capacity(TEXT_CHARS);
    for four in key.as_chunks::<4>().0 {
        let value = u32::from_be_bytes(*four);
        for power in [52_200_625, 614_125, 7_225, 85, 1] {
            let digit = (value / power % 85) as usize;
            text.push(char::from(DIGITS.get(digit).copied().unwrap_or(b'0')));
        }
    }
    text
}

fn decode(text: &str) -> Option<[u8; KEY_BYTES]> {
    let text: &[u8; TEXT_CHARS] = text.as_bytes().try_into().ok()?;
    let mut key = [0; KEY_BYTES];
    for (four, five) in key.as_chunks_mut::<4>().0.iter_mut().zip(text.as_chunks::<5>().0) {
        let mut value: u32 = 0;
        for letter in five {
            let digit = DIGITS.iter().position(|digit| digit == letter)?;
            value = value.checked_mul(85)?.checked_add(u32::try_from(digit).ok()?)?;
        }
        *four = value.to_be_bytes();
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_libzmq_writes_them() {
        // The test keys of RFC 26's implementation (libzmq's tests/test_security_curve.cpp).
        let secret = SecretKey::parse("D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs").unwrap();
        assert_eq!(secret.public().to_string(), "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID");
        assert_eq!(secret.text(), "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs");
        let text = format!("{secret:?}");
        assert!(!text.contains("D:)Q"), "{text}");
        for text in ["", "a", &"#".repeat(40), &"\u{e9}".repeat(20), &" ".repeat(40)] {
            assert_eq!(Key::parse(text), Err(InvalidKey), "{text}");
        }
    }
}
