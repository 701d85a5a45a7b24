//! What stands in the place of a secret: something public, whose holder proves that it is his.
//!
//! `curve:Z85` is the public key of a container (ZMTP CURVE), `certificate:...` what a certificate
//! of TLS is known by: its SHA-256, or one of the names in it (`dns:NAME`, `uri:NAME`, `cn:NAME`).

use serde::{Deserialize, Serialize};

/// By what the holder of a key is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KnownBy {
    /// He says it.
    #[default]
    Secret,
    /// A container's own pair of keys.
    Curve,
    /// A client's certificate.
    Certificate,
    /// What an issuer says of him; never stored.
    Token,
}

const CURVE: &str = "curve:";
const CERTIFICATE: &str = "certificate:";
/// Letters of a key of CURVE, Z85.
const CURVE_CHARS: usize = 40;
/// Beside letters and digits.
const Z85: &[u8] = b".-:+=^!/*?&<>()[]{}@%$#";
const FINGERPRINT_DIGITS: usize = 64;
/// Kinds of names in a certificate: hosts and URIs beside its subject, and the common name in it.
const NAMES: [&str; 3] = ["dns:", "uri:", "cn:"];
/// Longest name in a certificate.
const NAME_MAX_BYTES: usize = 255;

impl KnownBy {
    #[must_use]
    pub fn is_secret(&self) -> bool {
        *self == Self::Secret
    }

    /// The name in commands and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Curve => "CURVE key",
            Self::Certificate => "certificate",
            Self::Token => "token",
        }
    }
}

/// Something public by which a holder is known. The keys of a server have its hash where others
/// have that of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicIdentity {
    known_by: KnownBy,
    text: String,
}

/// A text is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    #[error("curve: is followed by a public key of CURVE, 40 characters of Z85")]
    Curve,
    #[error(
        "certificate: is followed by a SHA-256 (openssl x509 -noout -fingerprint -sha256), \
         dns:NAME, uri:NAME or cn:NAME"
    )]
    Certificate,
}

impl PublicIdentity {
    /// Reads a text in the place of a secret; `None` if it is to be a secret.
    ///
    /// # Errors
    /// It begins as one and is none.
    pub fn parse(text: &str) -> Result<Option<Self>, InvalidIdentity> {
        if let Some(key) = text.strip_prefix(CURVE) {
            return Self::curve(key).map(Some);
        }
        text.strip_prefix(CERTIFICATE).map(Self::certificate).transpose()
    }

    /// That of a container.
    ///
    /// # Errors
    /// It is no key.
    pub fn curve(key: &str) -> Result<Self, InvalidIdentity> {
        let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || Z85.contains(&byte);
        if key.len() != CURVE_CHARS || !key.bytes().all(is_digit) {
            return Err(InvalidIdentity::Curve);
        }
        Ok(Self { known_by: KnownBy::Curve, text: format!("{CURVE}{key}") })
    }

    /// That of a client over TLS: a SHA-256 with or without colons, or a name.
    ///
    /// # Errors
    /// It is neither.
    pub fn certificate(text: &str) -> Result<Self, InvalidIdentity> {
        let name = NAMES.iter().find_map(|kind| text.strip_prefix(kind));
        let text = match name {
            Some(name) => {
                let is_short = (1..=NAME_MAX_BYTES).contains(&name.len());
                let is_name = is_short && name.bytes().all(|byte| byte.is_ascii_graphic());
                let is_host = text.starts_with("dns:");
                let text = if is_host { text.to_ascii_lowercase() } else { text.to_owned() };
                is_name.then_some(text)
            }
            None => fingerprint(text),
        };
        let text = text.ok_or(InvalidIdentity::Certificate)?;
        Ok(Self { known_by: KnownBy::Certificate, text: format!("{CERTIFICATE}{text}") })
    }

    #[must_use]
    pub fn known_by(&self) -> KnownBy {
        self.known_by
    }

    /// What is hashed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Whether what came as a secret is to stand for such an identity: it is public, and no secret.
    #[must_use]
    pub fn is_meant(secret: &[u8]) -> bool {
        [CURVE, CERTIFICATE].iter().any(|prefix| secret.starts_with(prefix.as_bytes()))
    }
}

/// In small letters without colons.
fn fingerprint(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let is_whole = digits.len() == FINGERPRINT_DIGITS;
    (is_whole && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then(|| digits.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_identity_has_one_text() {
        let read = |text: &str| {
            let identity = PublicIdentity::parse(text).unwrap().unwrap();
            (identity.known_by, String::from_utf8(identity.as_bytes().to_vec()).unwrap())
        };
        let curve = "curve:Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
        assert_eq!(read(curve), (KnownBy::Curve, curve.to_owned()));
        let short = format!("certificate:{}", "0a".repeat(32));
        let long = format!("certificate:{}", vec!["0A"; 32].join(":"));
        assert_eq!(read(&long), (KnownBy::Certificate, short));
        assert_eq!(read("certificate:dns:Ops.Example").1, "certificate:dns:ops.example");
        assert_eq!(read("certificate:uri:spiffe://a/B").1, "certificate:uri:spiffe://a/B");
        assert_eq!(PublicIdentity::parse("clk_x"), Ok(None));
        for text in [
            "curve:",
            "curve:12",
            "certificate:",
            "certificate:12",
            "certificate:dns:",
            "certificate:dns:a b",
        ] {
            assert!(PublicIdentity::parse(text).is_err(), "{text}");
            assert!(PublicIdentity::is_meant(text.as_bytes()));
        }
        assert!(!PublicIdentity::is_meant(b"clk_x"));
    }
}
