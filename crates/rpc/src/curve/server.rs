//! The server's side of the handshake.

use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::boxes::{self, TAG_BYTES, between, nonce};
use super::keys::{KEY_BYTES, Key, SecretKey};
use super::session::{Numbers, Session};
use crate::zmtp_error::ZmtpError;

/// Bytes of the cookie, which a client gives back as it was.
pub const COOKIE_BYTES: usize = 96;
const LONG_NONCE_BYTES: usize = 16;
const NUMBER_BYTES: usize = 8;
/// HELLO: name, version, padding, the client's transient key, number, box of 64 zeros.
const HELLO_BYTES: usize = 200;
const HELLO_KEY_AT: usize = 6 + 2 + 72;
const VOUCH_BYTES: usize = TAG_BYTES + 2 * KEY_BYTES;

/// What the server brings to one handshake.
#[derive(Clone)]
pub struct Offer {
    /// The server's lasting key, by which clients know it.
    pub secret: SecretKey,
    /// A key of this connection alone.
    pub transient: SecretKey,
    /// Random.
    pub nonce: [u8; LONG_NONCE_BYTES],
    /// Random.
    pub cookie: [u8; COOKIE_BYTES],
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Offer({})", self.secret.public())
    }
}

/// A handshake under way.
#[derive(Debug)]
pub struct ServerHandshake {
    offer: Offer,
    /// Its transient key and latest number, once it has said HELLO.
    client: Option<(Key, u64)>,
}

/// A client that has proved who it is.
#[derive(Debug)]
pub struct Initiated {
    /// Its lasting key. Whether it is welcome is not decided here.
    pub client: Key,
    /// What it says of itself.
    pub metadata: Bytes,
    pub session: Session,
}

impl ServerHandshake {
    #[must_use]
    pub fn new(offer: Offer) -> Self {
        Self { offer, client: None }
    }

    /// Takes HELLO; gives WELCOME.
    ///
    /// # Errors
    /// It is malformed, or for another server key.
    pub fn hello(&mut self, command: &[u8]) -> Result<Bytes, ZmtpError> {
        const MALFORMED: ZmtpError = ZmtpError::MalformedCommand("HELLO");
        let command: &[u8; HELLO_BYTES] = command.try_into().map_err(|_| MALFORMED)?;
        if !command.starts_with(b"\x05HELLO\x01\x00") {
            return Err(MALFORMED);
        }
        let (_, rest) = command.split_at(HELLO_KEY_AT);
        let (key, rest) = rest.split_first_chunk::<KEY_BYTES>().ok_or(MALFORMED)?;
        let (number, sealed) = rest.split_first_chunk::<NUMBER_BYTES>().ok_or(MALFORMED)?;
        let client = Key(*key);
        let mut sealed = sealed.to_vec();
        let nonce_of = nonce(b"CurveZMQHELLO---", number);
        let shared = between(&client, &self.offer.secret);
        boxes::open(&shared, &nonce_of, &mut sealed).ok_or(ZmtpError::Box("HELLO"))?;
        self.client = Some((client, u64::from_be_bytes(*number)));

        let mut welcome = BytesMut::with_capacity(168);
        welcome.put_slice(b"\x07WELCOME");
        welcome.put_slice(&self.offer.nonce);
        let text = [&self.offer.transient.public().0[..], &self.offer.cookie];
        boxes::seal(&shared, &nonce(b"WELCOME-", &self.offer.nonce), &text, &mut welcome);
        Ok(welcome.freeze())
    }

    /// Takes INITIATE.
    ///
    /// # Errors
    /// It is malformed, or does not prove that the client has its key.
    pub fn initiate(&mut self, command: &[u8]) -> Result<Initiated, ZmtpError> {
        const MALFORMED: ZmtpError = ZmtpError::MalformedCommand("INITIATE");
        let (client, last) = self.client.take().ok_or(MALFORMED)?;
        let rest = command.strip_prefix(b"\x08INITIATE").ok_or(MALFORMED)?;
        let (cookie, rest) = rest.split_first_chunk::<COOKIE_BYTES>().ok_or(MALFORMED)?;
        let (number, sealed) = rest.split_first_chunk::<NUMBER_BYTES>().ok_or(MALFORMED)?;
        let value = u64::from_be_bytes(*number);
        // It is no secret from this client, which is the only one it was given to.
        if *cookie != self.offer.cookie || value <= last {
            return Err(ZmtpError::Box("INITIATE"));
        }
        let mut sealed = sealed.to_vec();
        let own = between(&client, &self.offer.transient);
        let text = boxes::open(&own, &nonce(b"CurveZMQINITIATE", number), &mut sealed)
            .ok_or(ZmtpError::Box("INITIATE"))?;
        let (lasting, text) = text.split_first_chunk::<KEY_BYTES>().ok_or(MALFORMED)?;
        let (unique, text) = text.split_first_chunk::<LONG_NONCE_BYTES>().ok_or(MALFORMED)?;
        let (vouch, metadata) = text.split_first_chunk::<VOUCH_BYTES>().ok_or(MALFORMED)?;
        let lasting = Key(*lasting);
        let mut vouch = *vouch;
        let shared = between(&lasting, &self.offer.transient);
        let vouched = boxes::open(&shared, &nonce(b"VOUCH---", unique), &mut vouch)
            .ok_or(ZmtpError::Box("vouch"))?;
        // The key of this connection and the server's: no vouch for another one.
        if vouched != [client.0, self.offer.secret.public().0].as_flattened() {
            return Err(ZmtpError::Box("vouch"));
        }
        let numbers = Numbers { sent: 0, received: value };
        let session = Session::of_server(&client, &self.offer.transient, numbers);
        let metadata = Bytes::copy_from_slice(metadata);
        self.client = Some((client, value));
        Ok(Initiated { client: lasting, metadata, session })
    }

    /// READY, with what the server says of itself. It takes the first number of the session.
    #[must_use]
    pub fn ready(&self, session: &Session, metadata: &[u8]) -> Bytes {
        let mut ready = BytesMut::with_capacity(64);
        ready.put_slice(b"\x05READY");
        let number = session.sealer.next_number();
        ready.put_slice(&number);
        if let Some((client, _)) = &self.client {
            let shared = between(client, &self.offer.transient);
            boxes::seal(&shared, &nonce(b"CurveZMQREADY---", &number), &[metadata], &mut ready);
        }
        ready.freeze()
    }
}
