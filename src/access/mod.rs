//! Who may do what: the keys that are good now, and what every endpoint and method asks for.
//!
//! [`table`] says what is asked of whoever comes, `clipper_domain::access` what a role may;
//! frontends do what [`Access::check`] does, by what a connection remembers of who came last
//! (`http::holding`). Invariant T1: nothing that changes state is reachable without its role once
//! a key exists or the address is not loopback ([`exposure`]).
//!
//! A check hashes the presented secret and looks the hash up in a table that is replaced whole:
//! less than a microsecond, without a lock.

pub mod browser;
pub mod certificate;
mod common_name;
pub mod exposure;
mod failures;
pub mod fresh;
mod holder;
pub mod listed;
mod presented;
mod refused;
mod secret;
mod standing;
pub mod table;
mod tarpit;
pub mod token;

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

use arc_swap::ArcSwap;
use clipper_clock as clock;
use clipper_domain::access::{KnownBy, Unidentified};
use clipper_domain::{AccessKey, Action, KeyName, KeyTable, SecretHash};
use clipper_scheduling::quota::{Quota, Whose};
use parking_lot::Mutex;
use tokio::sync::watch;

pub use self::holder::Holder;
pub use self::refused::Refused;
pub use self::secret::{hash, new_secret};

use self::failures::Failures;
use self::presented::Presented;
use self::tarpit::Tarpit;
use self::token::{KeySetError, Tokens};
use clipper_config::AccessConfig;

/// What a request has come with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown<'r> {
    /// The header `Authorization`.
    pub header: Option<&'r [u8]>,
    /// By what the certificate of its connection is known ([`certificate::identities`]).
    pub certificates: &'r [SecretHash],
    pub from: Option<IpAddr>,
}

/// The keys, and what is open without one. Shared by all threads.
#[derive(Debug)]
pub struct Access {
    keys: ArcSwap<KeyTable>,
    /// Of the keys that have limits.
    quotas: ArcSwap<HashMap<KeyName, Arc<Quota>>>,
    sources: Mutex<KeySources>,
    /// Of an issuer.
    tokens: Option<Tokens>,
    /// Told whenever the keys change.
    changes: watch::Sender<()>,
    /// Grows then.
    epoch: AtomicU64,
    /// Anybody has a key who is no container.
    is_of_people: AtomicBool,
    /// Without any key everybody may do everything.
    opens_without_keys: bool,
    open_health: bool,
    open_metrics: bool,
    failures: Failures,
    tarpit: Tarpit,
}

/// Where keys come from.
#[derive(Debug)]
struct KeySources {
    metadata: Vec<AccessKey>,
    /// Of files or the environment; they are there whatever becomes of those of the metadata.
    listed: Arc<[AccessKey]>,
}

impl KeySources {
    fn all(&self) -> impl Iterator<Item = AccessKey> {
        self.metadata.iter().chain(self.listed.iter()).cloned()
    }
}

impl Access {
    /// Of these keys and no others, until [`Self::take`] is called.
    #[must_use]
    pub fn new(
        config: &AccessConfig,
        listed: Vec<AccessKey>,
        opens_without_keys: bool,
    ) -> Arc<Self> {
        Self::with_tokens(config, listed, None, opens_without_keys)
    }

    /// Likewise, and of the issuer whose keys the config names.
    ///
    /// # Errors
    /// What is wrong with these.
    pub fn load(
        config: &AccessConfig,
        listed: Vec<AccessKey>,
        opens_without_keys: bool,
    ) -> Result<Arc<Self>, KeySetError> {
        let tokens = Tokens::of(config)?;
        Ok(Self::with_tokens(config, listed, tokens, opens_without_keys))
    }

    fn with_tokens(
        config: &AccessConfig,
        listed: Vec<AccessKey>,
        tokens: Option<Tokens>,
        opens_without_keys: bool,
    ) -> Arc<Self> {
        let sources = KeySources { metadata: Vec::new(), listed: listed.into() };
        let keys = KeyTable::new(sources.all());
        Arc::new(Self {
            epoch: AtomicU64::default(),
            is_of_people: keys.is_of_people().into(),
            keys: ArcSwap::from_pointee(keys),
            quotas: ArcSwap::default(),
            sources: Mutex::new(sources),
            tokens,
            changes: watch::Sender::new(()),
            opens_without_keys,
            open_health: config.open_health,
            open_metrics: config.open_metrics,
            failures: Failures::new(config.failures_per_minute),
            tarpit: Tarpit::new(config.failures_per_minute),
        })
    }

    /// For tests of what does not ask for keys.
    #[must_use]
    pub fn open() -> Arc<Self> {
        Self::new(&AccessConfig::default(), Vec::new(), true)
    }

    /// Takes the keys of the metadata in place of those before.
    pub fn take<'k>(&self, of_metadata: impl Iterator<Item = &'k AccessKey>) {
        let metadata = of_metadata.cloned().collect();
        self.change(|sources| sources.metadata = metadata);
    }

    /// Takes the keys of files in place of those before; whether they are others.
    pub fn take_listed(&self, listed: Vec<AccessKey>) -> bool {
        if *self.listed() == listed[..] {
            return false;
        }
        self.change(|sources| sources.listed = listed.into());
        true
    }

    fn change(&self, change: impl FnOnce(&mut KeySources)) {
        let mut sources = self.sources.lock();
        change(&mut sources);
        let keys: Vec<AccessKey> = sources.all().collect();
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
        // Under the lock: what is stored last is what was changed last.
        self.quotas.store(Arc::new(quotas.collect()));
        let keys = KeyTable::new(keys);
        self.is_of_people.store(keys.is_of_people(), Relaxed);
        self.keys.store(Arc::new(keys));
        drop(sources);
        self.tell();
    }

    fn tell(&self) {
        // Whoever sees the new number sees the new keys.
        self.epoch.fetch_add(1, Release);
        self.changes.send_replace(());
    }

    /// Another one when the keys are others: what was known of a holder may be wrong then.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    /// What the holder of a key may ask for, if that is limited.
    #[must_use]
    pub fn quota(&self, key: &AccessKey) -> Option<Arc<Quota>> {
        if key.limits.is_none() {
            return None;
        }
        if key.known_by == KnownBy::Token {
            return self.tokens.as_ref().map(|tokens| tokens.quota(key));
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

    /// Those of files or the environment.
    #[must_use]
    pub fn listed(&self) -> Arc<[AccessKey]> {
        Arc::clone(&self.sources.lock().listed)
    }

    /// Whether tokens of an issuer stand for keys.
    #[must_use]
    pub fn takes_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Reads the keys of the issuer again; whether they are others. `None`: it is not time to.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn renew_signers(&self) -> Result<Option<bool>, KeySetError> {
        let is_new = self.tokens.as_ref().map_or(Ok(None), Tokens::read)?;
        if is_new == Some(true) {
            self.tell();
        }
        Ok(is_new)
    }

    /// Whether keys can be managed by one that is not in the metadata, or by whom an issuer says.
    #[must_use]
    pub fn has_admin_elsewhere(&self) -> bool {
        self.takes_tokens() || self.listed().iter().any(AccessKey::is_lasting_admin)
    }

    /// Whether nobody could do anything if there were no key.
    #[must_use]
    pub fn is_closed_without_keys(&self) -> bool {
        !self.opens_without_keys
    }

    /// Whether a key is needed at all. Those of containers alone ask nobody else for one.
    #[must_use]
    pub fn asks(&self) -> bool {
        !self.opens_without_keys || self.takes_tokens() || self.is_of_people.load(Relaxed)
    }

    /// Whether containers need a key, unless their address frees them from that.
    #[must_use]
    pub fn asks_containers(&self) -> bool {
        self.asks() || !self.keys.load().is_empty()
    }

    /// Whether metrics are for everybody.
    #[must_use]
    pub fn has_open_metrics(&self) -> bool {
        self.open_metrics
    }

    /// Whether somebody may do something, with the application or model `name` if it concerns one.
    /// `None`: no key is needed.
    ///
    /// # Errors
    /// Why not.
    pub fn check(
        &self,
        (action, name): (Action, Option<&str>),
        shown: Shown<'_>,
    ) -> Result<Option<Holder>, Refused> {
        if !self.asks_for(action) {
            return Ok(None);
        }
        let holder = self.holder(shown)?;
        holder.key.check(action, name)?;
        Ok(Some(holder))
    }

    /// Whether a key is needed for that.
    #[must_use]
    pub fn asks_for(&self, action: Action) -> bool {
        self.asks() && !self.is_open(action)
    }

    /// Who has come, whatever for.
    ///
    /// # Errors
    /// Nobody who is known.
    pub fn holder(&self, shown: Shown<'_>) -> Result<Holder, Refused> {
        match shown.header {
            Some(header) => self
                .of_header(header, shown.from)
                .map_err(|refused| self.failed(refused, shown.from)),
            None => self.of_certificate(shown.certificates),
        }
    }

    fn of_header(&self, header: &[u8], from: Option<IpAddr>) -> Result<Holder, Refused> {
        let presented = Presented::read(header).ok_or(Refused::Malformed)?;
        let secret = presented.secret();
        match (self.identify(KnownBy::Secret, secret), &self.tokens) {
            (Err(Refused::Unknown), Some(tokens)) if Tokens::is_meant(secret) => {
                self.of_token(tokens, secret, from)
            }
            (identified, _) => identified,
        }
    }

    fn of_token(
        &self,
        tokens: &Tokens,
        token: &[u8],
        from: Option<IpAddr>,
    ) -> Result<Holder, Refused> {
        let now_ms = clock::unix_millis();
        if let Some(holder) = tokens.remembered(&hash(token), now_ms) {
            return Ok(holder);
        }
        // A signature takes a hundred times as long as a look-up: whoever has come with many wrong
        // ones has no further one checked for a while.
        if from.is_some_and(|from| self.failures.are_too_many(from, now_ms)) {
            return Err(Refused::Unknown);
        }
        tokens.take(token, now_ms).map_err(Refused::Token)
    }

    /// Whose certificate a connection has, where it has one.
    fn of_certificate(&self, certificates: &[SecretHash]) -> Result<Holder, Refused> {
        let mut refused = Refused::Missing;
        for hash in certificates {
            match self.find(KnownBy::Certificate, hash) {
                Ok(key) => return Ok(Holder { key, known_by: KnownBy::Certificate, hash: *hash }),
                Err(Refused::Expired(name)) => refused = Refused::Expired(name),
                Err(_) if refused == Refused::Missing => refused = Refused::Certificate,
                Err(_) => {}
            }
        }
        Err(refused)
    }

    /// Ends when a refusal may be answered; `None`: at once. Whoever comes too often waits.
    pub fn hold(
        &self,
        refused: &Refused,
        from: Option<IpAddr>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        self.tarpit.hold(refused, from)
    }

    fn is_open(&self, action: Action) -> bool {
        match action {
            Action::Health => self.open_health,
            Action::Scrape => self.open_metrics,
            Action::Page => true,
            _ => false,
        }
    }

    /// Whose secret this is, or whose what stands in the place of one.
    ///
    /// # Errors
    /// Nobody's, or it is no good any more.
    pub fn identify(&self, known_by: KnownBy, shown: &[u8]) -> Result<Holder, Refused> {
        let hash = hash(shown);
        Ok(Holder { key: self.find(known_by, &hash)?, known_by, hash })
    }

    /// The key of this hash.
    ///
    /// # Errors
    /// There is none, or it is no good any more.
    pub fn find(&self, known_by: KnownBy, hash: &SecretHash) -> Result<Arc<AccessKey>, Refused> {
        match self.keys.load().find(known_by, hash, clock::unix_millis()) {
            Ok(found) => Ok(Arc::clone(found.key)),
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
#[path = "access_tests.rs"]
mod tests;
