//! Who may connect to the port for containers, and what they may serve.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clipper_domain::ModelId;
use clipper_domain::access::{KnownBy, SecretHash};
use clipper_rpc::curve::{self, SecretKey, Session};
pub use clipper_rpc::zmtp::Credentials;
use clipper_rpc::zmtp::Offer;

use clipper_config::{Network, RpcConfig};

/// How often a container's key is looked at again.
pub const KEY_CHECK: Duration = Duration::from_millis(250);

/// Why a container is not let in, or may not go on. For the log: it has no secret.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    #[error("it has come without a key, and this server asks for one by now")]
    Keyless,
    #[error("this server has no keys")]
    NoKeys,
    #[error(transparent)]
    Key(Box<dyn std::error::Error + Send + Sync>),
}

/// The keys of containers. Asked where one connects or registers, and now and then afterwards.
pub trait Access: Send + Sync + 'static {
    /// Whether a container needs a key, unless its address frees it from that.
    fn needs_keys(&self) -> bool;

    /// Whose credentials these are.
    ///
    /// # Errors
    /// Nobody's, or they are no good any more.
    fn identify(&self, credentials: &Credentials) -> Result<Pass, Rejected>;

    /// Whether the holder of a pass may still serve a model.
    ///
    /// # Errors
    /// Why not.
    fn check(&self, pass: &Pass, model: &ModelId) -> Result<(), Rejected>;
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

    fn identify(&self, _: &Credentials) -> Result<Pass, Rejected> {
        Err(Rejected::NoKeys)
    }

    fn check(&self, _: &Pass, _: &ModelId) -> Result<(), Rejected> {
        Ok(())
    }
}

/// A key that was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// Its name.
    pub key: Arc<str>,
    /// `None`: it is that of a process of this server.
    pub known_by: Option<KnownBy>,
    /// Of its secret, or of what stands in its place: another secret is another pass.
    pub hash: SecretHash,
}

/// On what terms a container is there.
#[derive(Clone)]
pub struct Admission {
    /// `None`: it has come without a key while none was needed.
    pass: Option<Pass>,
    access: Arc<dyn Access>,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Admission({:?})", self.pass.as_ref().map(|pass| &pass.key))
    }
}

impl Admission {
    /// Whether it may still serve a model.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, model: &ModelId) -> Result<(), Rejected> {
        match &self.pass {
            Some(pass) => self.access.check(pass, model),
            None if self.access.needs_keys() => Err(Rejected::Keyless),
            None => Ok(()),
        }
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
    /// From there a secret may come in clear although connections can be encrypted.
    plain_from: Arc<[Network]>,
    /// The server's key, where connections can be encrypted.
    curve: Option<SecretKey>,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) peer: IpAddr,
    /// Where it arrived.
    pub(super) local: Option<IpAddr>,
}

impl Origin {
    /// Nobody else is on its way.
    fn is_this_machine(self) -> bool {
        let peer = self.peer.to_canonical();
        peer.is_loopback() || self.local.is_some_and(|local| local.to_canonical() == peer)
    }
}

impl Gate {
    #[must_use]
    pub fn new(access: Arc<dyn Access>, config: &RpcConfig, curve: Option<SecretKey>) -> Self {
        let [null_from, plain_from] =
            [&config.null_from, &config.plain_from].map(|networks| networks.as_slice().into());
        Self { access, null_from, plain_from, curve }
    }

    /// What an address may choose from.
    pub(super) fn offer(&self, origin: Origin) -> Offer {
        let needs_keys = self.access.needs_keys();
        if !needs_keys && self.curve.is_none() {
            return Offer::NULL;
        }
        let is_of = |networks: &[Network]| networks.iter().any(|one| one.holds(origin.peer));
        let null = !needs_keys || is_of(&self.null_from);
        let may_be_read = self.curve.is_some() && !origin.is_this_machine();
        let plain = needs_keys && (!may_be_read || is_of(&self.plain_from));
        let curve = self.curve.as_ref().map(|secret| {
            Box::new(curve::Offer {
                secret: secret.clone(),
                transient: SecretKey::from_random(rand::random()),
                nonce: rand::random(),
                cookie: random_cookie(),
            })
        });
        Offer { null, plain, curve }
    }

    /// Whether whoever has these credentials may connect.
    pub(super) fn admit(&self, credentials: &Credentials) -> Result<Option<Admission>, Rejected> {
        if !self.access.needs_keys() {
            // Encrypted, and everybody's.
            return Ok(None);
        }
        let pass = Some(self.access.identify(credentials)?);
        Ok(Some(Admission { pass, access: Arc::clone(&self.access) }))
    }

    /// On what terms somebody from this address is there who has not been asked for a key; none
    /// where nobody ever is.
    pub(super) fn unasked(&self, peer: IpAddr) -> Option<Admission> {
        let is_free = self.null_from.iter().any(|network| network.holds(peer));
        (!is_free).then(|| Admission { pass: None, access: Arc::clone(&self.access) })
    }
}

fn random_cookie() -> [u8; curve::COOKIE_BYTES] {
    use rand::RngCore as _;
    let mut cookie = [0; curve::COOKIE_BYTES];
    rand::rng().fill_bytes(&mut cookie);
    cookie
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Asking;

    impl Access for Asking {
        fn needs_keys(&self) -> bool {
            true
        }

        fn identify(&self, _: &Credentials) -> Result<Pass, Rejected> {
            Err(Rejected::NoKeys)
        }

        fn check(&self, _: &Pass, _: &ModelId) -> Result<(), Rejected> {
            Err(Rejected::NoKeys)
        }
    }

    #[test]
    fn secrets_come_in_clear_where_nobody_can_read_them_or_somebody_says_so() {
        let own = || Some(SecretKey::from_random([7; 32]));
        let config =
            RpcConfig { plain_from: vec!["10.1.0.0/16".parse().unwrap()], ..RpcConfig::default() };
        let offered = |curve: Option<SecretKey>, peer: &str| {
            let gate = Gate::new(Arc::new(Asking), &config, curve);
            let local = Some("10.9.9.9".parse().unwrap());
            let offer = gate.offer(Origin { peer: peer.parse().unwrap(), local });
            (offer.null, offer.plain, offer.curve.is_some())
        };
        for (peer, expected) in [
            ("127.0.0.1", (true, true, true)),
            ("::ffff:127.0.0.1", (true, true, true)),
            ("10.9.9.9", (false, true, true)),
            ("10.1.2.3", (false, true, true)),
            ("10.2.2.3", (false, false, true)),
        ] {
            assert_eq!(offered(own(), peer), expected, "{peer}");
        }
        assert_eq!(offered(None, "10.2.2.3"), (false, true, false));
    }
}
