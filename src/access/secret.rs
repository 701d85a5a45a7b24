//! Secrets: made, and known by their hash.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clipper_domain::SecretHash;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

/// What secrets start with, so that scanners of repositories know one when they see it.
const SECRET_PREFIX: &str = "clk_";

/// SHA-256: a secret has 256 random bits, so that a slow hash would make it no safer.
#[must_use]
pub fn hash(secret: &[u8]) -> SecretHash {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, secret).as_ref());
    SecretHash(bytes)
}

/// A new secret, of 256 random bits; none if the system gives no randomness.
#[must_use]
pub fn new_secret() -> Option<String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).ok()?;
    let text = URL_SAFE_NO_PAD.encode(bytes);
    Some(format!("{SECRET_PREFIX}{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_everybody() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash(b"abc").to_string(), abc);
        assert_eq!(new_secret().unwrap().len(), SECRET_PREFIX.len() + 43);
    }
}
