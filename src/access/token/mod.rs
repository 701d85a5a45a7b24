//! Tokens of an issuer (JWT, RFC 7519) in the place of keys: signed by one of his keys, for this
//! server, and not for ever.
//!
//! A token that was taken is remembered by its hash, so that the next request of its holder costs
//! as much as one with a key.

mod claims;
pub mod fault;
mod jwk;
mod source;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clipper_clock as clock;
use clipper_domain::access::KnownBy;
use clipper_domain::{AccessKey, KeyName, SecretHash};
use clipper_scheduling::quota::{Quota, Whose};
use quick_cache::sync::Cache;
use serde::Deserialize;
use serde_json::{Map, Value};

pub use self::jwk::KeySetFault;
pub use self::source::{KeySetError, UrlFault, is_url};

use self::claims::ExpectedClaims;
use self::fault::TokenFault;
use self::jwk::{Algorithm, Signer};
use self::source::Source;
use super::holder::Holder;
use super::secret::hash;
use clipper_config::AccessConfig;

/// Longest token that is looked at.
const TOKEN_MAX_BYTES: usize = 16 << 10;

/// Takes the tokens of one issuer.
#[derive(Debug)]
pub(super) struct Tokens {
    source: Source,
    expected: ExpectedClaims,
    signers: ArcSwap<Vec<Signer>>,
    /// Those that were taken, by their hash: the key of each, and of whose key its signature is.
    taken: Cache<SecretHash, (Arc<AccessKey>, SecretHash)>,
    /// Of their holders, where they are limited.
    quotas: Cache<KeyName, Arc<Quota>>,
}

#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl Tokens {
    /// As the config has it; `None`: no issuer's.
    ///
    /// # Errors
    /// What is wrong with the file of his keys.
    pub(super) fn of(config: &AccessConfig) -> Result<Option<Self>, KeySetError> {
        if config.jwt_keys.as_os_str().is_empty() {
            return Ok(None);
        }
        let tokens = Self {
            source: Source::of(&config.jwt_keys, Duration::from_millis(config.jwt_keys_refresh_ms)),
            expected: ExpectedClaims {
                issuer: config.jwt_issuer.clone(),
                audience: config.jwt_audience.clone(),
                role_claim: config.jwt_role_claim.clone(),
                names_claim: config.jwt_names_claim.clone(),
                // The config was checked.
                limits: config.jwt_limits().unwrap_or_default(),
            },
            signers: ArcSwap::default(),
            taken: Cache::new(config.jwt_cache_max),
            quotas: Cache::new(config.jwt_cache_max),
        };
        // The server starts whether or not an issuer is there.
        if !tokens.source.is_remote() {
            tokens.read()?;
        }
        Ok(Some(tokens))
    }

    /// Reads his keys again; whether they are others. `None`: it is not time to.
    pub(super) fn read(&self) -> Result<Option<bool>, KeySetError> {
        let Some(text) = self.source.read()? else { return Ok(None) };
        let fault = |fault| KeySetError::Content { from: self.source.name(), fault };
        let signers = jwk::parse(&text).map_err(fault)?;
        let is_new = signers != **self.signers.load();
        if is_new {
            self.signers.store(Arc::new(signers));
        }
        Ok(Some(is_new))
    }

    /// Whether a secret has the form of a token: three parts, the first of them JSON.
    pub(super) fn is_meant(secret: &[u8]) -> bool {
        secret.starts_with(b"eyJ") && secret.split(|byte| *byte == b'.').count() == 3
    }

    /// Whether a key of the issuer is still one of his.
    pub(super) fn has_signer(&self, signer: &SecretHash) -> bool {
        self.signers.load().iter().any(|known| known.hash == *signer)
    }

    /// One that was taken before and is still good.
    pub(super) fn remembered(&self, token: &SecretHash, now_ms: u64) -> Option<Holder> {
        let (key, signer) = self.taken.get(token)?;
        let is_good = key.expires_at_ms.is_some_and(|at| at > now_ms) && self.has_signer(&signer);
        is_good.then_some(Holder { key, known_by: KnownBy::Token, hash: signer })
    }

    /// What the holder of a token may ask for, whatever token of his it is.
    pub(super) fn quota(&self, key: &AccessKey) -> Arc<Quota> {
        let whose = || Whose::Key(key.name.clone());
        let made = || Ok::<_, Infallible>(Quota::new(whose(), key.limits, clock::now()));
        let Ok(quota) = self.quotas.get_or_insert_with(&key.name, made);
        quota
    }

    /// Whose token this is.
    pub(super) fn take(&self, token: &[u8], now_ms: u64) -> Result<Holder, TokenFault> {
        let (signer, claims) = self.opened(token)?;
        let of = hash(token);
        let key = Arc::new(self.expected.key(&claims, (of, now_ms))?);
        self.taken.insert(of, (Arc::clone(&key), signer));
        Ok(Holder { key, known_by: KnownBy::Token, hash: signer })
    }

    /// Of whose key the signature is, and what he says.
    fn opened(&self, token: &[u8]) -> Result<(SecretHash, Map<String, Value>), TokenFault> {
        let text = std::str::from_utf8(token).map_err(|_| TokenFault::Form)?;
        let parts = text.rsplit_once('.').filter(|_| token.len() <= TOKEN_MAX_BYTES);
        let (signed, signature) = parts.ok_or(TokenFault::Form)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenFault::Form)?;
        let header: TokenHeader = json(header)?;
        if header.crit.is_some() {
            return Err(TokenFault::Critical);
        }
        let algorithm = Algorithm::parse(&header.alg).ok_or(TokenFault::Algorithm)?;
        let signature = bytes(signature)?;
        let signers = self.signers.load();
        // One that has a name is the one of this name.
        let mut meant = signers.iter().filter(|signer| {
            let is_named = header.kid.is_none() || signer.kid.is_none() || signer.kid == header.kid;
            signer.algorithm == algorithm && is_named
        });
        let mut refused = TokenFault::Signer;
        let found = meant.find(|signer| {
            refused = TokenFault::Signature;
            signer.has_signed(signed.as_bytes(), &signature)
        });
        if found.is_none() {
            self.source.missed();
        }
        let hash = found.map(|signer| signer.hash).ok_or(refused)?;
        Ok((hash, json(claims)?))
    }
}

fn bytes(part: &str) -> Result<Vec<u8>, TokenFault> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenFault::Form)
}

fn json<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, TokenFault> {
    serde_json::from_slice(&bytes(part)?).map_err(|_| TokenFault::Form)
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
