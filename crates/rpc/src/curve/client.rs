//! The client's side of the handshake: containers in the box, and tests.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::boxes::{self, between, nonce};
use super::keys::{KEY_BYTES, Key, SecretKey};
use super::server::COOKIE_BYTES;
use super::session::{Numbers, Session};
use crate::zmtp_error::ZmtpError;

const LONG_NONCE_BYTES: usize = 16;
const NUMBER_BYTES: usize = 8;

/// A handshake under way.
#[derive(Debug)]
pub struct ClientHandshake {
    server: Key,
    own: SecretKey,
    /// A key of this connection alone.
    transient: SecretKey,
    /// Random, for the vouch.
    vouch_nonce: [u8; LONG_NONCE_BYTES],
    /// The server's transient key, once it has said WELCOME.
    welcomed: Option<Key>,
}

impl ClientHandshake {
    /// `transient` and `vouch_nonce` are random.
    #[must_use]
    pub fn new(
        server: Key,
        own: SecretKey,
        transient: SecretKey,
        vouch_nonce: [u8; LONG_NONCE_BYTES],
    ) -> Self {
        Self { server, own, transient, vouch_nonce, welcomed: None }
    }

    /// HELLO.
    #[must_use]
    pub fn hello(&self) -> Bytes {
        let mut hello = BytesMut::with_capacity(200);
        hello.put_slice(b"\x05HELLO\x01\x00");
        hello.put_bytes(0, 72);
        hello.put_slice(&self.transient.public().0);
        let number = 1_u64.to_be_bytes();
        hello.put_slice(&number);
        let shared = between(&self.server, &self.transient);
        boxes::seal(&shared, &nonce(b"CurveZMQHELLO---", &number), &[&[0; 64]], &mut hello);
        hello.freeze()
    }

    /// Takes WELCOME; gives INITIATE.
    ///
    /// # Errors
    /// It is malformed, or of another server.
    pub fn welcome(&mut self, command: &[u8], metadata: &[u8]) -> Result<Bytes, ZmtpError> {
        const MALFORMED: ZmtpError = ZmtpError::MalformedCommand("WELCOME");
        let rest = command.strip_prefix(b"\x07WELCOME").ok_or(MALFORMED)?;
        let (unique, sealed) = rest.split_first_chunk::<LONG_NONCE_BYTES>().ok_or(MALFORMED)?;
        let mut sealed = sealed.to_vec();
        let shared = between(&self.server, &self.transient);
        let text = boxes::open(&shared, &nonce(b"WELCOME-", unique), &mut sealed)
            .ok_or(ZmtpError::Box("WELCOME"))?;
        let (key, cookie) = text.split_first_chunk::<KEY_BYTES>().ok_or(MALFORMED)?;
        let cookie: &[u8; COOKIE_BYTES] = cookie.try_into().map_err(|_| MALFORMED)?;
        let server = Key(*key);
        self.welcomed = Some(server);

        let mut vouch = BytesMut::with_capacity(80);
        let keys = [&self.transient.public().0[..], &self.server.0];
        let for_vouch = nonce(b"VOUCH---", &self.vouch_nonce);
        boxes::seal(&between(&server, &self.own), &for_vouch, &keys, &mut vouch);

        let mut initiate = BytesMut::with_capacity(257 + metadata.len());
        initiate.put_slice(b"\x08INITIATE");
        initiate.put_slice(cookie);
        let number = 2_u64.to_be_bytes();
        initiate.put_slice(&number);
        let text = [&self.own.public().0[..], &self.vouch_nonce, &vouch, metadata];
        let shared = between(&server, &self.transient);
        boxes::seal(&shared, &nonce(b"CurveZMQINITIATE", &number), &text, &mut initiate);
        Ok(initiate.freeze())
    }

    /// Takes READY.
    ///
    /// # Errors
    /// It is malformed, or of another server.
    pub fn ready(&self, command: &[u8]) -> Result<Session, ZmtpError> {
        const MALFORMED: ZmtpError = ZmtpError::MalformedCommand("READY");
        let server = self.welcomed.as_ref().ok_or(MALFORMED)?;
        let rest = command.strip_prefix(b"\x05READY").ok_or(MALFORMED)?;
        let (number, sealed) = rest.split_first_chunk::<NUMBER_BYTES>().ok_or(MALFORMED)?;
        let mut sealed = sealed.to_vec();
        let shared = between(server, &self.transient);
        boxes::open(&shared, &nonce(b"CurveZMQREADY---", number), &mut sealed)
            .ok_or(ZmtpError::Box("READY"))?;
        let numbers = Numbers { sent: 2, received: u64::from_be_bytes(*number) };
        Ok(Session::of_client(server, &self.transient, numbers))
    }
}
