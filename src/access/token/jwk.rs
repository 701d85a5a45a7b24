//! The public keys of an issuer, as a JWKS (RFC 7517) has them, and what they sign by.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clipper_domain::SecretHash;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;

use super::super::secret::hash;

/// Bytes of a modulus: a shorter one is no good any more.
const RSA_MIN_BYTES: usize = 256;
/// Keys of one issuer.
const KEYS_MAX: usize = 64;

/// What a token is signed by. Signatures that a public key could make (HS256), and none at all, are
/// not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// A key as the file has it.
#[derive(Deserialize)]
struct WrittenKey {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct WrittenSet {
    keys: Vec<WrittenKey>,
}

/// What is wrong with a JWKS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetFault {
    #[error("it is no JWKS: {0}")]
    Json(String),
    #[error("keys[{0}]: {1}")]
    Key(usize, &'static str),
    #[error("it has no key for RS256, ES256 or EdDSA")]
    Empty,
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Of a curve, as ring takes it.
    Point(Vec<u8>),
}

/// One key that signs tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signer {
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
    public: Public,
    /// Of the key itself.
    pub(super) hash: SecretHash,
}

/// The keys of a file that sign tokens; others in it are passed over.
pub(super) fn parse(text: &str) -> Result<Vec<Signer>, KeySetFault> {
    let set: WrittenSet =
        serde_json::from_str(text).map_err(|error| KeySetFault::Json(error.to_string()))?;
    if set.keys.len() > KEYS_MAX {
        return Err(KeySetFault::TooMany);
    }
    let keys = set.keys.into_iter().enumerate();
    let signers: Result<Vec<_>, _> = keys
        .filter_map(|(n, key)| {
            signer(key).map_err(|problem| KeySetFault::Key(n, problem)).transpose()
        })
        .collect();
    let signers = signers?;
    if signers.is_empty() { Err(KeySetFault::Empty) } else { Ok(signers) }
}

fn signer(key: WrittenKey) -> Result<Option<Signer>, &'static str> {
    let WrittenKey { kty, kid, purpose, alg, crv, n, e, x, y } = key;
    let algorithm = match (kty.as_str(), crv.as_deref()) {
        ("RSA", _) => Algorithm::Rs256,
        ("EC", Some("P-256")) => Algorithm::Es256,
        ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
        _ => return Ok(None),
    };
    let is_for_others = purpose.is_some_and(|purpose| purpose != "sig")
        || alg.is_some_and(|name| Algorithm::parse(&name) != Some(algorithm));
    if is_for_others {
        return Ok(None);
    }
    let public = match algorithm {
        Algorithm::Rs256 => {
            let n = without_zeros(bytes(n, "n is no base64url")?);
            if n.len() < RSA_MIN_BYTES {
                return Err("n has fewer than 2048 bits");
            }
            Public::Rsa { n, e: without_zeros(bytes(e, "e is no base64url")?) }
        }
        Algorithm::Es256 => {
            let (x, y) = (bytes(x, "x is no base64url")?, bytes(y, "y is no base64url")?);
            if [&x, &y].iter().any(|part| part.len() != 32) {
                return Err("x and y have 32 bytes each");
            }
            Public::Point([&[4][..], &x, &y].concat())
        }
        Algorithm::EdDsa => {
            let x = bytes(x, "x is no base64url")?;
            if x.len() != 32 {
                return Err("x has 32 bytes");
            }
            Public::Point(x)
        }
    };
    let hash = match &public {
        Public::Rsa { n, e } => hash(&[&n[..], e].concat()),
        Public::Point(point) => hash(point),
    };
    Ok(Some(Signer { kid, algorithm, public, hash }))
}

fn bytes(text: Option<String>, problem: &'static str) -> Result<Vec<u8>, &'static str> {
    let text = text.ok_or(problem)?;
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| problem)
}

/// As ring takes numbers.
fn without_zeros(number: Vec<u8>) -> Vec<u8> {
    number.into_iter().skip_while(|byte| *byte == 0).collect()
}

impl Signer {
    /// Whether this key has signed a message.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let checked = match (&self.public, self.algorithm) {
            (Public::Rsa { n, e }, _) => RsaPublicKeyComponents { n, e }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
            (Public::Point(point), Algorithm::EdDsa) => {
                UnparsedPublicKey::new(&ED25519, point).verify(message, signature)
            }
            (Public::Point(point), _) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
        };
        checked.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_for_other_things_are_passed_over_and_broken_ones_named() {
        let ed = r#"{"kty": "OKP", "crv": "Ed25519", "kid": "a",
                     "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let set = |keys: &str| parse(&format!("{{\"keys\": [{keys}]}}"));
        let found = set(ed).unwrap();
        assert_eq!((found.len(), found[0].kid.as_deref()), (1, Some("a")));
        let symmetric = r#"{"kty": "oct", "k": "AAAA", "alg": "HS256"}"#;
        assert_eq!(set(&format!("{symmetric}, {ed}")), Ok(found));
        assert_eq!(set(symmetric), Err(KeySetFault::Empty));
        let sealing = ed.replace("\"kid\"", "\"use\": \"enc\", \"kid\"");
        assert_eq!(set(&sealing), Err(KeySetFault::Empty));
        for (key, problem) in [
            (r#"{"kty": "RSA", "n": "AQAB", "e": "AQAB"}"#, "n has fewer than 2048 bits"),
            (r#"{"kty": "EC", "crv": "P-256", "x": "AQAB", "y": "AQAB"}"#, "x and y have 32 bytes"),
            (r#"{"kty": "OKP", "crv": "Ed25519", "x": "!"}"#, "x is no base64url"),
        ] {
            let told = set(key).unwrap_err().to_string();
            assert!(told.contains(&format!("keys[0]: {problem}")), "{told}");
        }
        assert!(matches!(parse("[]"), Err(KeySetFault::Json(_))));
    }
}
