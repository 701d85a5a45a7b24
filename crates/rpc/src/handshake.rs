//! The handshake of ZMTP 3 from the server's side: greeting, mechanism, READY. Pure and bounded.
//!
//! Mechanisms are NULL, PLAIN (<https://rfc.zeromq.org/spec/24/>) and CURVE ([`super::curve`]).

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::curve::{self, Key, ServerHandshake, Session};
use super::frame::FrameHead;
use super::wire::{FLAG_COMMAND, FLAG_LONG};
use super::zmtp_error::ZmtpError;

/// Bytes of a greeting.
pub const GREETING_BYTES: usize = 64;

/// Of our greeting, what can be sent before the peer has said which mechanism it wants: signature
/// and major version. libzmq waits for them.
const OPENING_BYTES: usize = 11;

/// What libzmq tells its user where authentication failed (RFC 27): with words it would say
/// nothing.
const REFUSED: &[u8] = b"400";

/// What the peer said about itself in the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Major and minor version of its ZMTP.
    pub version: (u8, u8),
    /// `DEALER`, `REQ` or `ROUTER`.
    pub socket_type: &'static str,
    /// The routing identity it asks for; mostly empty. Connections are not keyed by it.
    pub identity: Bytes,
}

/// By what a peer is to be known.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Of PLAIN.
    Secret { name: Bytes, secret: Bytes },
    /// Of CURVE: it has proved that this key is its own.
    Curve(Key),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secret { name, .. } => write!(f, "Secret(of {})", lossy(name)),
            Self::Curve(key) => write!(f, "Curve({key})"),
        }
    }
}

/// What the owner of a [`Handshake`] does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Read more bytes.
    More,
    /// Write these bytes, then advance again without reading.
    Send(Bytes),
    /// Decide whether the peer may go on: advance again, or [`Handshake::refuse`].
    Decide(Credentials),
    /// The handshake is over; what is left in the buffer belongs to the [`super::zmtp::Decoder`].
    Done(Peer),
}

/// The mechanisms that a peer may choose from.
#[derive(Debug, Clone)]
pub struct Offer {
    pub null: bool,
    pub plain: bool,
    pub curve: Option<Box<curve::Offer>>,
}

impl Offer {
    /// What everybody may have who needs no key.
    pub const NULL: Self = Self { null: true, plain: false, curve: None };

    fn is_null_alone(&self) -> bool {
        self.null && !self.plain && self.curve.is_none()
    }

    fn names(&self) -> String {
        let all = [(self.null, "NULL"), (self.plain, "PLAIN"), (self.curve.is_some(), "CURVE")];
        let names: Vec<&str> =
            all.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
        names.join(", ")
    }
}

#[derive(Debug)]
enum HandshakeState {
    /// So many bytes of the greeting are checked.
    Greeting(usize),
    /// Of NULL.
    Ready((u8, u8)),
    PlainHello((u8, u8)),
    /// The name and secret are with the owner.
    PlainDecided((u8, u8)),
    PlainInitiate((u8, u8)),
    CurveHello((u8, u8), Box<ServerHandshake>),
    CurveInitiate((u8, u8), Box<ServerHandshake>),
    /// The key is with the owner.
    CurveDecided((u8, u8), Box<ServerHandshake>, Box<curve::Initiated>),
    Finished(Peer),
    /// It wants what is not offered.
    Unspoken(String),
    /// An error has been given.
    Over,
}

/// The handshake as a state machine. It needs at most [`GREETING_BYTES`] and
/// [`super::zmtp::COMMAND_MAX_BYTES`] in the buffer at a time; the time that a peer may take for it
/// is its owner's business.
#[derive(Debug)]
pub struct Handshake {
    state: HandshakeState,
    offer: Offer,
    session: Option<Session>,
}

impl Default for Handshake {
    fn default() -> Self {
        Self::new()
    }
}

impl Handshake {
    /// A handshake that has seen nothing yet, and offers NULL alone.
    #[must_use]
    pub fn new() -> Self {
        Self::offering(Offer::NULL)
    }

    /// Likewise, with these mechanisms.
    #[must_use]
    pub fn offering(offer: Offer) -> Self {
        Self { state: HandshakeState::Greeting(0), offer, session: None }
    }

    /// The server's greeting, version 3.1, where NULL is the mechanism.
    #[must_use]
    pub fn greeting() -> [u8; GREETING_BYTES] {
        greeting(b"NULL", false)
    }

    /// What is to be sent at once: libzmq waits for it after 10 bytes.
    #[must_use]
    pub fn opening(&self) -> Bytes {
        let greeting = Self::greeting();
        let is_all = self.offer.is_null_alone();
        let len = if is_all { GREETING_BYTES } else { OPENING_BYTES };
        Bytes::copy_from_slice(greeting.get(..len).unwrap_or_default())
    }

    /// The keys of the connection, once it is done, where it is encrypted.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// What is sent to a peer that may not go on, after [`Step::Decide`].
    #[must_use]
    pub fn refuse(self) -> Bytes {
        let mut body = b"\x05ERROR".to_vec();
        body.push(u8::try_from(REFUSED.len()).unwrap_or(0));
        body.extend_from_slice(REFUSED);
        command(&body)
    }

    /// Takes what it can from `buf` and says what to do next.
    ///
    /// # Errors
    /// At the first byte that cannot be part of a greeting or of a command of an acceptable peer.
    /// The connection is then to be closed.
    pub fn advance(&mut self, buf: &mut BytesMut) -> Result<Step, ZmtpError> {
        loop {
            if let HandshakeState::Greeting(checked) = &mut self.state {
                let arrived = buf.len().min(GREETING_BYTES);
                for (at, byte) in buf.iter().enumerate().take(arrived).skip(*checked) {
                    check_greeting_byte(at, *byte)?;
                }
                *checked = arrived;
                if arrived < GREETING_BYTES {
                    return Ok(Step::More);
                }
                let greeting = buf.split_to(GREETING_BYTES);
                if let Some(step) = self.choose(&greeting)? {
                    return Ok(step);
                }
                continue;
            }
            match std::mem::replace(&mut self.state, HandshakeState::Over) {
                HandshakeState::Finished(peer) => {
                    self.state = HandshakeState::Finished(peer.clone());
                    return Ok(Step::Done(peer));
                }
                HandshakeState::Unspoken(wanted) => {
                    return Err(ZmtpError::Unspoken { wanted, offered: self.offer.names() });
                }
                HandshakeState::PlainDecided(version) => {
                    self.state = HandshakeState::PlainInitiate(version);
                    return Ok(Step::Send(command(b"\x07WELCOME")));
                }
                HandshakeState::CurveDecided(version, handshake, initiated) => {
                    let peer = parse_metadata(version, &initiated.metadata)?;
                    let ready = handshake.ready(&initiated.session, METADATA);
                    self.session = Some(initiated.session);
                    self.state = HandshakeState::Finished(peer);
                    return Ok(Step::Send(command(&ready)));
                }
                waiting => {
                    let expected = match &waiting {
                        HandshakeState::Ready(_) => "READY",
                        HandshakeState::PlainHello(_) | HandshakeState::CurveHello(..) => "HELLO",
                        HandshakeState::PlainInitiate(_) | HandshakeState::CurveInitiate(..) => {
                            "INITIATE"
                        }
                        _ => return Err(ZmtpError::MalformedCommand("repeated")),
                    };
                    let Some(body) = take_command(buf, expected)? else {
                        self.state = waiting;
                        return Ok(Step::More);
                    };
                    return self.hear(waiting, &body);
                }
            }
        }
    }

    /// Takes the whole greeting. Where more than NULL is offered the rest of ours follows, which
    /// has to name the same mechanism.
    fn choose(&mut self, greeting: &[u8]) -> Result<Option<Step>, ZmtpError> {
        let version = (greeting[10], greeting[11]);
        let field = &greeting[12..32];
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        let name = &field[..end];
        if self.offer.is_null_alone() {
            if name != b"NULL" {
                return Err(ZmtpError::Mechanism(lossy(name)));
            }
            self.state = HandshakeState::Ready(version);
            return Ok(None);
        }
        let (spoken, state) = match (name, self.offer.curve.as_deref()) {
            (b"NULL", _) if self.offer.null => (&b"NULL"[..], HandshakeState::Ready(version)),
            (b"PLAIN", _) if self.offer.plain => {
                (&b"PLAIN"[..], HandshakeState::PlainHello(version))
            }
            (b"CURVE", Some(offer)) => {
                let handshake = Box::new(ServerHandshake::new(offer.clone()));
                (&b"CURVE"[..], HandshakeState::CurveHello(version, handshake))
            }
            // libzmq tells its user that the mechanisms differ.
            (other, _) => {
                let ours: &[u8] = if self.offer.plain { b"PLAIN" } else { b"CURVE" };
                (ours, HandshakeState::Unspoken(lossy(other)))
            }
        };
        self.state = state;
        let whole = self::greeting(spoken, spoken != b"NULL");
        Ok(Some(Step::Send(Bytes::copy_from_slice(&whole[OPENING_BYTES..]))))
    }

    /// Takes the command that was awaited.
    fn hear(&mut self, awaited: HandshakeState, body: &Bytes) -> Result<Step, ZmtpError> {
        match awaited {
            HandshakeState::Ready(version) => {
                self.state = HandshakeState::Finished(parse_ready(version, body)?);
                Ok(Step::Send(Bytes::from_static(READY)))
            }
            HandshakeState::PlainHello(version) => {
                let credentials = parse_plain_hello(body)?;
                self.state = HandshakeState::PlainDecided(version);
                Ok(Step::Decide(credentials))
            }
            HandshakeState::PlainInitiate(version) => {
                let metadata = body.strip_prefix(b"\x08INITIATE");
                let metadata = metadata.ok_or_else(|| unexpected(body, "INITIATE"))?;
                self.state = HandshakeState::Finished(parse_metadata(version, metadata)?);
                Ok(Step::Send(Bytes::from_static(READY)))
            }
            HandshakeState::CurveHello(version, mut handshake) => {
                let welcome = handshake.hello(body)?;
                self.state = HandshakeState::CurveInitiate(version, handshake);
                Ok(Step::Send(command(&welcome)))
            }
            HandshakeState::CurveInitiate(version, mut handshake) => {
                let initiated = Box::new(handshake.initiate(body)?);
                let credentials = Credentials::Curve(initiated.client);
                self.state = HandshakeState::CurveDecided(version, handshake, initiated);
                Ok(Step::Decide(credentials))
            }
            _ => Err(ZmtpError::MalformedCommand("unexpected")),
        }
    }
}

pub(super) fn greeting(mechanism: &[u8], as_server: bool) -> [u8; GREETING_BYTES] {
    let mut greeting = [0; GREETING_BYTES];
    greeting[0] = 0xff;
    greeting[8] = 1;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[11] = 1;
    for (to, from) in greeting[12..32].iter_mut().zip(mechanism) {
        *to = *from;
    }
    greeting[32] = u8::from(as_server);
    greeting
}

/// Our READY: a command frame with `Socket-Type` = `ROUTER`.
const READY: &[u8] = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER";

/// What stands in it.
const METADATA: &[u8] = b"\x0bSocket-Type\x00\x00\x00\x06ROUTER";

/// A command in its frame.
pub(crate) fn command(body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(9 + body.len());
    if let Ok(short) = u8::try_from(body.len()) {
        frame.put_u8(FLAG_COMMAND);
        frame.put_u8(short);
    } else {
        frame.put_u8(FLAG_COMMAND | FLAG_LONG);
        frame.put_u64(body.len() as u64);
    }
    frame.put_slice(body);
    frame.freeze()
}

/// The next command, when it is whole.
pub(crate) fn take_command(
    buf: &mut BytesMut,
    expected: &'static str,
) -> Result<Option<Bytes>, ZmtpError> {
    let Some((head, head_bytes)) = FrameHead::parse(buf)? else { return Ok(None) };
    if !head.command {
        return Err(ZmtpError::NotExpected { got: "a message".to_owned(), expected });
    }
    let len = head.command_len()?;
    if buf.len() < head_bytes + len {
        return Ok(None);
    }
    buf.advance(head_bytes);
    Ok(Some(buf.split_to(len).freeze()))
}

fn check_greeting_byte(at: usize, byte: u8) -> Result<(), ZmtpError> {
    match at {
        0 if byte != 0xff => Err(ZmtpError::FirstByte(byte)),
        9 if byte != 0x7f => Err(ZmtpError::Signature(byte)),
        // Later major versions are fine: they fall back to ours.
        10 if byte < 3 => Err(ZmtpError::Version(if byte == 0 { 1 } else { 2 })),
        32 if byte != 0 => Err(ZmtpError::AsServer),
        _ => Ok(()),
    }
}

/// Text of the peer for an error, cut to a length that fits a log line.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(255)]).into_owned()
}

/// Splits a field with a one-byte length off the front of `rest`.
pub(super) fn short_field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (&len, after) = rest.split_first()?;
    let (field, after) = after.split_at_checked(usize::from(len))?;
    *rest = after;
    Some(field)
}

/// What a command is instead of the one awaited.
fn unexpected(body: &[u8], expected: &'static str) -> ZmtpError {
    let mut rest = body;
    match short_field(&mut rest) {
        None => ZmtpError::MalformedCommand(expected),
        Some(b"ERROR") => peer_error(rest),
        Some(name) if name == expected.as_bytes() => ZmtpError::MalformedCommand(expected),
        Some(other) => {
            ZmtpError::NotExpected { got: format!("the command {:?}", lossy(other)), expected }
        }
    }
}

/// Name and secret of PLAIN.
fn parse_plain_hello(body: &Bytes) -> Result<Credentials, ZmtpError> {
    let fail = || unexpected(body, "HELLO");
    let mut rest = body.strip_prefix(b"\x05HELLO").ok_or_else(fail)?;
    let name = short_field(&mut rest).ok_or_else(fail)?;
    let secret = short_field(&mut rest).ok_or_else(fail)?;
    if !rest.is_empty() {
        return Err(fail());
    }
    Ok(Credentials::Secret { name: body.slice_ref(name), secret: body.slice_ref(secret) })
}

fn parse_ready(version: (u8, u8), body: &Bytes) -> Result<Peer, ZmtpError> {
    let metadata = body.strip_prefix(b"\x05READY").ok_or_else(|| unexpected(body, "READY"))?;
    parse_metadata(version, metadata)
}

fn parse_metadata(version: (u8, u8), mut rest: &[u8]) -> Result<Peer, ZmtpError> {
    const MALFORMED: ZmtpError = ZmtpError::MalformedCommand("READY");
    let mut socket_type = None;
    let mut identity = Bytes::new();
    while !rest.is_empty() {
        let name = short_field(&mut rest).ok_or(MALFORMED)?;
        let (len, after) = rest.split_first_chunk::<4>().ok_or(MALFORMED)?;
        let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| MALFORMED)?;
        let (value, after) = after.split_at_checked(len).ok_or(MALFORMED)?;
        rest = after;
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            socket_type = Some(value);
        } else if name.eq_ignore_ascii_case(b"Identity") {
            // Copied, so that it does not keep the read buffer alive as long as the connection.
            identity = Bytes::copy_from_slice(value);
        }
    }
    let socket_type = match socket_type.ok_or(ZmtpError::NoSocketType)? {
        b"DEALER" => "DEALER",
        b"REQ" => "REQ",
        b"ROUTER" => "ROUTER",
        other => return Err(ZmtpError::SocketType(lossy(other))),
    };
    Ok(Peer { version, socket_type, identity })
}

pub(super) fn peer_error(mut rest: &[u8]) -> ZmtpError {
    short_field(&mut rest)
        .map_or(ZmtpError::MalformedCommand("ERROR"), |reason| ZmtpError::Peer(lossy(reason)))
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
