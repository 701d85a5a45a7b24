//! The container's side of the handshake with a key, for containers in the box. Pure.
//!
//! Without a key they are the `zeromq` crate's, which knows no other mechanism than NULL.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::curve::{ClientHandshake, Session};
use super::handshake::{GREETING_BYTES, command, peer_error, short_field, take_command};
use super::zmtp_error::ZmtpError;

/// By what a container is known.
#[derive(Debug)]
pub enum Identity {
    /// Of PLAIN.
    Secret(Secret),
    Curve(Box<ClientHandshake>),
}

/// A key's name and its secret, of at most 255 bytes each.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    pub name: String,
    pub secret: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret(of {})", self.name)
    }
}

/// What the owner does next.
#[derive(Debug)]
pub enum Step {
    /// Read more bytes.
    More,
    /// Write these bytes, then advance again without reading.
    Send(Bytes),
    /// What is left in the buffer is for a [`super::zmtp::Decoder`].
    Done(Option<Session>),
}

#[derive(Debug)]
enum ClientState {
    Greeting,
    Welcome,
    Ready,
}

/// What a DEALER says of itself.
const METADATA: &[u8] = b"\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0";

/// A handshake under way.
#[derive(Debug)]
pub struct Handshake {
    identity: Identity,
    state: ClientState,
}

impl Handshake {
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self { identity, state: ClientState::Greeting }
    }

    /// What is to be sent first.
    #[must_use]
    pub fn greeting(&self) -> [u8; GREETING_BYTES] {
        super::handshake::greeting(self.mechanism(), false)
    }

    fn mechanism(&self) -> &'static [u8] {
        match self.identity {
            Identity::Secret(_) => b"PLAIN",
            Identity::Curve(_) => b"CURVE",
        }
    }

    /// Takes what it can from `buf` and says what to do next.
    ///
    /// # Errors
    /// The server refuses, or does not follow the protocol.
    pub fn advance(&mut self, buf: &mut BytesMut) -> Result<Step, ZmtpError> {
        match self.state {
            ClientState::Greeting => {
                if buf.len() < GREETING_BYTES {
                    return Ok(Step::More);
                }
                let greeting = buf.split_to(GREETING_BYTES);
                if greeting[0] != 0xff {
                    return Err(ZmtpError::FirstByte(greeting[0]));
                }
                let theirs = &greeting[12..32];
                let end = theirs.iter().position(|byte| *byte == 0).unwrap_or(theirs.len());
                if theirs.get(..end) != Some(self.mechanism()) {
                    let name = String::from_utf8_lossy(theirs.get(..end).unwrap_or_default());
                    return Err(ZmtpError::Mechanism(name.into_owned()));
                }
                self.state = ClientState::Welcome;
                Ok(Step::Send(command(&self.hello())))
            }
            ClientState::Welcome => {
                let Some(body) = take_command(buf, "WELCOME")? else { return Ok(Step::More) };
                refused(&body)?;
                let initiate = match &mut self.identity {
                    Identity::Secret(_) if &body[..] == b"\x07WELCOME" => {
                        Bytes::from([b"\x08INITIATE", METADATA].concat())
                    }
                    Identity::Secret(_) => return Err(ZmtpError::MalformedCommand("WELCOME")),
                    Identity::Curve(handshake) => handshake.welcome(&body, METADATA)?,
                };
                self.state = ClientState::Ready;
                Ok(Step::Send(command(&initiate)))
            }
            ClientState::Ready => {
                let Some(body) = take_command(buf, "READY")? else { return Ok(Step::More) };
                refused(&body)?;
                match &self.identity {
                    Identity::Secret(_) if body.starts_with(b"\x05READY") => Ok(Step::Done(None)),
                    Identity::Secret(_) => Err(ZmtpError::MalformedCommand("READY")),
                    Identity::Curve(handshake) => handshake.ready(&body).map(Some).map(Step::Done),
                }
            }
        }
    }

    fn hello(&self) -> Bytes {
        match &self.identity {
            Identity::Curve(handshake) => handshake.hello(),
            Identity::Secret(Secret { name, secret }) => {
                let mut hello = BytesMut::from(&b"\x05HELLO"[..]);
                for text in [name, secret] {
                    let text = text.as_bytes().get(..255).unwrap_or(text.as_bytes());
                    hello.put_u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
                    hello.put_slice(text);
                }
                hello.freeze()
            }
        }
    }
}

/// Whether the server has said no.
fn refused(body: &Bytes) -> Result<(), ZmtpError> {
    let mut rest = body.chunk();
    match short_field(&mut rest) {
        Some(b"ERROR") => Err(peer_error(rest)),
        _ => Ok(()),
    }
}
