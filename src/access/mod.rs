//! Who may do what: the keys that are good now, and what every endpoint and method asks for.
//!
//! [`table`] says what is asked of whoever comes, `clipper_domain::access` what a role may;
//! frontends only call [`Access::check`]. Invariant T1: nothing that changes state is reachable
//! without its role once a key exists or the address is not loopback ([`exposure`]).
//!
//! A check hashes the presented secret and looks the hash up in a table that is replaced whole:
//! less than a microsecond, without a lock.

pub mod browser;
pub mod exposure;
mod failures;
pub mod listed;
mod presented;
pub mod table;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use clipper_clock as clock;
use clipper_domain::access::{Denied, Unidentified};
use clipper_domain::{AccessKey, Action, KeyName, KeyTable, SecretHash};
use clipper_scheduling::quota::{Quota, Whose};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

use self::failures::Failures;
use self::presented::Presented;
use crate::config::AccessConfig;

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
    use base64::Engine as _;
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).ok()?;
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    Some(format!("{SECRET_PREFIX}{text}"))
}

/// Why somebody may not do what was asked. Shows no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(
        "This server asks for a key, and none came: send the header Authorization: Bearer KEY \
         (commands of clipper: --key KEY or CLIPPER_KEY)"
    )]
    Missing,
    #[error("The header Authorization is neither Bearer KEY nor Basic with a key as the password")]
    Malformed,
    #[error("The key that came is none of this server")]
    Unknown,
    #[error("Key '{0}' has expired, or has another secret by now: ask whoever manages keys")]
    Expired(KeyName),
    #[error(
        "Too many wrong keys came from this address (access.failures_per_minute): try again in \
         {retry_after_s} s"
    )]
    TooOften { retry_after_s: u32 },
    #[error(transparent)]
    Denied(#[from] Denied),
}

/// The keys, and what is open without one. Shared by all threads.
#[derive(Debug)]
pub struct Access {
    keys: ArcSwap<KeyTable>,
    /// Of the keys that have limits.
    quotas: ArcSwap<HashMap<KeyName, Arc<Quota>>>,
    /// From a file or the environment; they are there whatever becomes of those of the metadata.
    listed: Vec<AccessKey>,
    /// Without any key everybody may do everything.
    opens_without_keys: bool,
    open_health: bool,
    open_metrics: bool,
    failures: Failures,
}

impl Access {
    /// Of these keys and no others, until [`Self::take`] is called.
    #[must_use]
    pub fn new(
        config: &AccessConfig,
        listed: Vec<AccessKey>,
        opens_without_keys: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            keys: ArcSwap::from_pointee(KeyTable::new(listed.iter().cloned())),
            quotas: ArcSwap::default(),
            listed,
            opens_without_keys,
            open_health: config.open_health,
            open_metrics: config.open_metrics,
            failures: Failures::new(config.failures_per_minute),
        })
    }

    /// For tests of what does not ask for keys.
    #[must_use]
    pub fn open() -> Arc<Self> {
        Self::new(&AccessConfig::default(), Vec::new(), true)
    }

    /// Takes the keys of the metadata in place of those before.
    pub fn take<'k>(&self, of_metadata: impl Iterator<Item = &'k AccessKey>) {
        let keys: Vec<AccessKey> =
            of_metadata.cloned().chain(self.listed.iter().cloned()).collect();
        let before = self.quotas.load();
        // A name that is listed twice has the limits of the key that comes last.
        let quotas = keys.iter().filter(|key| !key.limits.is_none()).map(|key| {
            let quota = match before.get(&key.name) {
                Some(quota) if *quota.limits() == key.limits => Arc::clone(quota),
                Some(quota) => quota.with(key.limits),
                None => Quota::new(Whose::Key(key.name.clone()), key.limits, clock::now()),
            };
            (key.name.clone(), quota)
        });
        self.quotas.store(Arc::new(quotas.collect()));
        self.keys.store(Arc::new(KeyTable::new(keys)));
    }

    /// What the holder of a key may ask for, if that is limited.
    #[must_use]
    pub fn quota(&self, key: &AccessKey) -> Option<Arc<Quota>> {
        if key.limits.is_none() {
            return None;
        }
        self.quotas.load().get(&key.name).cloned()
    }

    /// Of all keys that have limits, by name.
    #[must_use]
    pub fn quotas(&self) -> Vec<(KeyName, Arc<Quota>)> {
        let quotas = self.quotas.load();
        let mut all: Vec<_> =
            quotas.iter().map(|(name, quota)| (name.clone(), Arc::clone(quota))).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// Those of a file or the environment.
    #[must_use]
    pub fn listed(&self) -> &[AccessKey] {
        &self.listed
    }

    /// Whether keys can be managed by one that is not in the metadata.
    #[must_use]
    pub fn has_admin_elsewhere(&self) -> bool {
        self.listed.iter().any(AccessKey::is_lasting_admin)
    }

    /// Whether nobody could do anything if there were no key.
    #[must_use]
    pub fn is_closed_without_keys(&self) -> bool {
        !self.opens_without_keys
    }

    /// Whether a key is needed at all.
    #[must_use]
    pub fn asks(&self) -> bool {
        !self.opens_without_keys || !self.keys.load().is_empty()
    }

    /// Whether metrics are for everybody.
    #[must_use]
    pub fn has_open_metrics(&self) -> bool {
        self.open_metrics
    }

    /// Whether somebody may do something, with the application or model `name` if it concerns one.
    /// `header` is that of `Authorization`. `None`: no key is needed.
    ///
    /// # Errors
    /// Why not.
    pub fn check(
        &self,
        (action, name): (Action, Option<&str>),
        header: Option<&[u8]>,
        from: Option<IpAddr>,
    ) -> Result<Option<Arc<AccessKey>>, Refused> {
        if !self.asks() || self.is_open(action) {
            return Ok(None);
        }
        let header = header.ok_or(Refused::Missing)?;
        let key = Presented::read(header)
            .ok_or(Refused::Malformed)
            .and_then(|presented| self.identify(presented.secret()))
            .map_err(|refused| self.failed(refused, from))?;
        key.check(action, name)?;
        Ok(Some(key))
    }

    fn is_open(&self, action: Action) -> bool {
        match action {
            Action::Health => self.open_health,
            Action::Scrape => self.open_metrics,
            _ => false,
        }
    }

    /// Whose secret this is.
    ///
    /// # Errors
    /// Nobody's, or it is no good any more.
    pub fn identify(&self, secret: &[u8]) -> Result<Arc<AccessKey>, Refused> {
        let found = self.keys.load();
        match found.find(&hash(secret), clock::unix_millis()) {
            Ok(key) => Ok(Arc::clone(key)),
            Err(Unidentified::Unknown) => Err(Refused::Unknown),
            Err(Unidentified::Expired(name)) => Err(Refused::Expired(name)),
        }
    }

    /// Counts a failure; one address after many is told to wait. Its good keys are good meanwhile:
    /// others may be behind it, and nobody finds a secret by trying.
    fn failed(&self, refused: Refused, from: Option<IpAddr>) -> Refused {
        let Some(from) = from else { return refused };
        match self.failures.count(from, clock::unix_millis()) {
            Ok(()) => refused,
            Err(wait_ms) => {
                let seconds = u32::try_from(wait_ms.div_ceil(1_000)).unwrap_or(u32::MAX);
                Refused::TooOften { retry_after_s: seconds.max(1) }
            }
        }
    }
}

#[cfg(test)]
mod timing_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use clipper_domain::access::listed::parse;

    fn access(text: &str) -> Arc<Access> {
        Access::new(&AccessConfig::default(), parse(text, hash).unwrap(), true)
    }

    fn bearer(secret: &str) -> Vec<u8> {
        format!("Bearer {secret}").into_bytes()
    }

    #[test]
    fn without_a_key_nothing_is_asked_and_with_one_everything_is() {
        let none = access("");
        assert_eq!(none.check((Action::ManageKeys, None), None, None), Ok(None));
        let secret = new_secret().unwrap();
        assert_eq!(secret.len(), SECRET_PREFIX.len() + 43);
        let some = access(&format!("ci predict {secret} a-*"));
        let check = |action, name, header: Option<&[u8]>| some.check((action, name), header, None);
        assert_eq!(check(Action::Predict, Some("a-1"), None), Err(Refused::Missing));
        assert_eq!(check(Action::Health, None, None), Ok(None));
        let good = bearer(&secret);
        let key = check(Action::Predict, Some("a-1"), Some(&good)).unwrap().unwrap();
        assert_eq!(key.name.as_str(), "ci");
        assert!(matches!(
            check(Action::Predict, Some("b"), Some(&good)),
            Err(Refused::Denied(Denied::Name { .. }))
        ));
        assert!(matches!(
            check(Action::Operate, None, Some(&good)),
            Err(Refused::Denied(Denied::Role { .. }))
        ));
        let wrong = bearer(&secret[1..]);
        assert_eq!(check(Action::Predict, None, Some(&wrong)), Err(Refused::Unknown));
        assert_eq!(check(Action::Predict, None, Some(b"x")), Err(Refused::Malformed));
    }

    #[test]
    fn an_address_with_many_wrong_keys_is_told_to_wait_and_its_good_ones_are_good() {
        let secret = new_secret().unwrap();
        let some = access(&format!("ci predict {secret}"));
        let from = Some(IpAddr::from([10, 0, 0, 1]));
        let check = |header: Vec<u8>| some.check((Action::Predict, None), Some(&header), from);
        let told = std::iter::repeat_with(|| check(bearer("wrong")).unwrap_err());
        let first = told.take(1_000).find(|refused| matches!(refused, Refused::TooOften { .. }));
        assert!(first.is_some());
        assert!(check(bearer(&secret)).is_ok());
    }

    #[test]
    fn hashes_are_those_of_everybody() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash(b"abc").to_string(), abc);
    }
}
