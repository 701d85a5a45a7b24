//! What a token says, and the key that its holder has because of it. Pure; the signature has been
//! checked by then.

use clipper_domain::access::{InvalidPattern, KnownBy, Pattern};
use clipper_domain::{AccessKey, KeyName, Limits, Role, SecretHash};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Map, Value};

use super::fault::TokenFault;

/// How far an issuer's clock may be ahead.
const AHEAD_MS: u64 = 30_000;

/// What a name of a key cannot have; `%` tells it from the rest.
const NOT_IN_NAMES: &AsciiSet = &CONTROLS.add(b',').add(b':').add(b'/').add(b'%');

/// What is expected of tokens, and which of their claims say what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExpectedClaims {
    pub(super) issuer: String,
    pub(super) audience: String,
    pub(super) role_claim: String,
    pub(super) names_claim: String,
    /// What each holder may ask for.
    pub(super) limits: Limits,
}

impl ExpectedClaims {
    /// The key of whoever has a token with these claims.
    pub(super) fn key(
        &self,
        claims: &Map<String, Value>,
        (hash, now_ms): (SecretHash, u64),
    ) -> Result<AccessKey, TokenFault> {
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(TokenFault::Issuer);
        }
        if !self.is_for_us(claims.get("aud")) {
            return Err(TokenFault::Audience);
        }
        let expires_at_ms = time(claims, "exp")?.ok_or(TokenFault::Endless)?;
        if expires_at_ms <= now_ms {
            return Err(TokenFault::Expired);
        }
        if time(claims, "nbf")?.is_some_and(|from| from > now_ms.saturating_add(AHEAD_MS)) {
            return Err(TokenFault::Early);
        }
        let role = self.role(claims)?;
        let only = self.names(claims)?;
        if !role.is_limitable() && !only.is_everything() {
            return Err(TokenFault::NotLimitable(role));
        }
        let subject = claims.get("sub").and_then(Value::as_str);
        let subject = subject.filter(|name| !name.is_empty()).ok_or(TokenFault::Subject)?;
        let name = format!("jwt {}", utf8_percent_encode(subject, NOT_IN_NAMES));
        let name = KeyName::parse(&name).map_err(|_| TokenFault::Subject)?;
        let (expires_at_ms, known_by) = (Some(expires_at_ms), KnownBy::Token);
        let limits = if role == Role::Predict { self.limits } else { Limits::default() };
        Ok(AccessKey { name, role, only, expires_at_ms, known_by, hash, previous: None, limits })
    }

    fn is_for_us(&self, audience: Option<&Value>) -> bool {
        match audience {
            Some(Value::String(one)) => *one == self.audience,
            Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(&self.audience)),
            _ => false,
        }
    }

    /// The one role that a claim names, alone or among words that mean nothing here.
    fn role(&self, claims: &Map<String, Value>) -> Result<Role, TokenFault> {
        let named = || TokenFault::Role(self.role_claim.clone());
        let words: Vec<&str> = match claims.get(&self.role_claim) {
            Some(Value::String(words)) => words.split(' ').collect(),
            Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
            _ => return Err(named()),
        };
        let mut roles = words.into_iter().filter_map(Role::parse).filter(|r| *r != Role::Container);
        let role = roles.next().ok_or_else(named)?;
        if roles.any(|other| other != role) { Err(named()) } else { Ok(role) }
    }

    fn names(&self, claims: &Map<String, Value>) -> Result<Pattern, TokenFault> {
        let invalid = |why: InvalidPattern| TokenFault::Names(self.names_claim.clone(), why);
        match claims.get(&self.names_claim) {
            None => Ok(Pattern::default()),
            Some(Value::String(pattern)) => Pattern::parse(pattern).map_err(invalid),
            Some(_) => Err(invalid(InvalidPattern)),
        }
    }
}

/// A time of a claim, Unix milliseconds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, TokenFault> {
    let Some(time) = claims.get(name) else { return Ok(None) };
    let seconds = time.as_f64().filter(|seconds| (0.0..=1e12).contains(seconds));
    Ok(Some((seconds.ok_or(TokenFault::Time(name))? * 1_000.0) as u64))
}
