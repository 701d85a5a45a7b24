//! Who may connect to the port for containers, and what they may serve.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use clipper_domain::ModelId;
use clipper_domain::access::SecretHash;
use clipper_rpc::curve::{self, SecretKey, Session};
pub use clipper_rpc::zmtp::Credentials;
use clipper_rpc::zmtp::Offer;

use crate::config::Network;

/// The keys of containers. Asked where one connects or registers, and now and then afterwards.
pub trait Access: Send + Sync + 'static {
    /// Whether a container needs a key, unless its address frees it from that.
    fn needs_keys(&self) -> bool;

    /// Whose credentials these are.
    ///
    /// # Errors
    /// Nobody's, or they are no good any more; in words for the log, without the secret.
    fn identify(&self, credentials: &Credentials) -> Result<Pass, String>;

    /// Whether the holder of a pass may still serve a model.
    ///
    /// # Errors
    /// Why not.
    fn check(&self, pass: &Pass, model: &ModelId) -> Result<(), String>;
}

/// Nobody needs a key: for tests.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub struct Open;

#[cfg(test)]
impl Access for Open {
    fn needs_keys(&self) -> bool {
        false
    }

    fn identify(&self, _: &Credentials) -> Result<Pass, String> {
        Err("this server has no keys".to_owned())
    }

    fn check(&self, _: &Pass, _: &ModelId) -> Result<(), String> {
        Ok(())
    }
}

/// A key that was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// Its name.
    pub key: Arc<str>,
    /// The hash of its secret: another secret is another pass.
    pub hash: SecretHash,
}

/// A container that has come with a key.
#[derive(Clone)]
pub struct Admission {
    pass: Pass,
    access: Arc<dyn Access>,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Admission({})", self.pass.key)
    }
}

impl Admission {
    /// Whether it may still serve a model.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, model: &ModelId) -> Result<(), String> {
        self.access.check(&self.pass, model)
    }
}

/// What a connection has come with; nothing, where nothing is asked.
#[derive(Debug, Clone, Default)]
pub struct Security {
    pub admission: Option<Admission>,
    /// Where it is encrypted.
    pub session: Option<Session>,
}

/// What the port asks of whoever connects.
#[derive(Clone)]
pub struct Gate {
    access: Arc<dyn Access>,
    /// From there nobody needs a key.
    null_from: Arc<[Network]>,
    /// The server's key, where connections can be encrypted.
    curve: Option<SecretKey>,
}

impl Gate {
    #[must_use]
    pub fn new(access: Arc<dyn Access>, null_from: &[Network], curve: Option<SecretKey>) -> Self {
        Self { access, null_from: null_from.into(), curve }
    }

    /// What an address may choose from.
    pub(super) fn offer(&self, peer: IpAddr) -> Offer {
        let needs_keys = self.access.needs_keys();
        if !needs_keys && self.curve.is_none() {
            return Offer::NULL;
        }
        let null = !needs_keys || self.null_from.iter().any(|network| network.holds(peer));
        let curve = self.curve.as_ref().map(|secret| {
            Box::new(curve::Offer {
                secret: secret.clone(),
                transient: SecretKey::from_random(rand::random()),
                nonce: rand::random(),
                cookie: random_cookie(),
            })
        });
        Offer { null, plain: needs_keys, curve }
    }

    /// Whether whoever has these credentials may connect.
    pub(super) fn admit(&self, credentials: &Credentials) -> Result<Option<Admission>, String> {
        if !self.access.needs_keys() {
            // Encrypted, and everybody's.
            return Ok(None);
        }
        let pass = self.access.identify(credentials)?;
        Ok(Some(Admission { pass, access: Arc::clone(&self.access) }))
    }
}

fn random_cookie() -> [u8; curve::COOKIE_BYTES] {
    use rand::RngCore as _;
    let mut cookie = [0; curve::COOKIE_BYTES];
    rand::rng().fill_bytes(&mut cookie);
    cookie
}
