//! The server's side of ZMTP 3.0 and 3.1 with the NULL mechanism, as a ROUTER: pure and bounded.
//!
//! Source: <https://rfc.zeromq.org/spec/23/> (3.0) and <https://rfc.zeromq.org/spec/37/> (3.1).
//! Use: send [`Handshake::greeting`], feed what arrives to [`Handshake::advance`] until it is done,
//! then read the same buffer with a [`Decoder`]. [`super::wire`] makes what goes out.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub use super::limits::{COMMAND_MAX_BYTES, Limit, Limits, LimitsOf};
use super::wire::{FLAG_COMMAND, FLAG_LONG, FLAG_MORE};
pub use super::zmtp_error::ZmtpError;

/// Bytes of a greeting.
pub const GREETING_BYTES: usize = 64;

/// Longest context that a PING may carry (RFC 37).
const PING_CONTEXT_MAX_BYTES: usize = 16;

/// Room made at least for a frame that is still arriving.
const RESERVE_STEP_BYTES: usize = 64 << 10;

/// A read buffer that held a frame of this size is given back once that frame is out.
const KEEP_BUFFER_BYTES: usize = 256 << 10;

/// Size of the buffer that takes its place.
const FRESH_BUFFER_BYTES: usize = 8 << 10;

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

/// What the owner of a [`Handshake`] does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Read more bytes.
    More,
    /// Write these bytes, then advance again without reading.
    Send(Bytes),
    /// The handshake is over; what is left in the buffer belongs to the [`Decoder`].
    Done(Peer),
}

#[derive(Debug)]
enum State {
    /// So many bytes of the greeting are checked.
    Greeting(usize),
    Ready((u8, u8)),
    Finished(Peer),
}

/// The handshake as a state machine. It needs at most [`GREETING_BYTES`] and [`COMMAND_MAX_BYTES`]
/// in the buffer at a time; the time that a peer may take for it is its owner's business.
#[derive(Debug)]
pub struct Handshake {
    state: State,
}

impl Default for Handshake {
    fn default() -> Self {
        Self::new()
    }
}

impl Handshake {
    /// A handshake that has seen nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::Greeting(0) }
    }

    /// The server's greeting, version 3.1. Send it at once: libzmq waits for it after 10 bytes.
    #[must_use]
    pub fn greeting() -> [u8; GREETING_BYTES] {
        let mut greeting = [0; GREETING_BYTES];
        greeting[0] = 0xff;
        greeting[8] = 1;
        greeting[9] = 0x7f;
        greeting[10] = 3;
        greeting[11] = 1;
        greeting[12..16].copy_from_slice(b"NULL");
        greeting
    }

    /// Takes what it can from `buf` and says what to do next.
    ///
    /// # Errors
    /// At the first byte that cannot be part of a greeting or READY of an acceptable peer. The
    /// connection is then to be closed.
    pub fn advance(&mut self, buf: &mut BytesMut) -> Result<Step, ZmtpError> {
        loop {
            match &mut self.state {
                State::Greeting(checked) => {
                    let arrived = buf.len().min(GREETING_BYTES);
                    for (at, byte) in buf.iter().enumerate().take(arrived).skip(*checked) {
                        check_greeting_byte(at, *byte)?;
                    }
                    *checked = arrived;
                    if arrived < GREETING_BYTES {
                        return Ok(Step::More);
                    }
                    let greeting = buf.split_to(GREETING_BYTES);
                    check_mechanism(&greeting[12..32])?;
                    self.state = State::Ready((greeting[10], greeting[11]));
                }
                State::Ready(version) => {
                    let Some((head, head_bytes)) = FrameHead::parse(buf)? else {
                        return Ok(Step::More);
                    };
                    if !head.command {
                        return Err(ZmtpError::NotReady("a message".to_owned()));
                    }
                    let len = head.command_len()?;
                    if buf.len() < head_bytes + len {
                        return Ok(Step::More);
                    }
                    buf.advance(head_bytes);
                    let body = buf.split_to(len).freeze();
                    self.state = State::Finished(parse_ready(*version, &body)?);
                    return Ok(Step::Send(Bytes::from_static(READY)));
                }
                State::Finished(peer) => return Ok(Step::Done(peer.clone())),
            }
        }
    }
}

/// Our READY: a command frame with `Socket-Type` = `ROUTER`.
const READY: &[u8] = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER";

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

fn check_mechanism(field: &[u8]) -> Result<(), ZmtpError> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let name = &field[..end];
    if name == b"NULL" { Ok(()) } else { Err(ZmtpError::Mechanism(lossy(name))) }
}

/// Text of the peer for an error, cut to a length that fits a log line.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(255)]).into_owned()
}

/// Splits a field with a one-byte length off the front of `rest`.
fn short_field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (&len, after) = rest.split_first()?;
    let (field, after) = after.split_at_checked(usize::from(len))?;
    *rest = after;
    Some(field)
}

fn parse_ready(version: (u8, u8), body: &Bytes) -> Result<Peer, ZmtpError> {
    const MALFORMED: ZmtpError = ZmtpError::MalformedCommand("READY");
    let mut rest = &body[..];
    match short_field(&mut rest).ok_or(MALFORMED)? {
        b"READY" => {}
        b"ERROR" => return Err(peer_error(rest)),
        other => return Err(ZmtpError::NotReady(format!("the command {:?}", lossy(other)))),
    }
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

fn peer_error(mut rest: &[u8]) -> ZmtpError {
    short_field(&mut rest)
        .map_or(ZmtpError::MalformedCommand("ERROR"), |reason| ZmtpError::Peer(lossy(reason)))
}

/// A frame's flags and length, as announced.
#[derive(Debug, Clone, Copy)]
struct FrameHead {
    command: bool,
    more: bool,
    len: u64,
}

impl FrameHead {
    /// Reads a head from the front of `bytes`; gives it with its own size, or nothing when it is
    /// not whole yet.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, ZmtpError> {
        let Some((&flags, rest)) = bytes.split_first() else { return Ok(None) };
        let command = flags & FLAG_COMMAND != 0;
        let more = flags & FLAG_MORE != 0;
        if flags & !(FLAG_COMMAND | FLAG_LONG | FLAG_MORE) != 0 || (command && more) {
            return Err(ZmtpError::Flags(flags));
        }
        let (len, head_bytes) = if flags & FLAG_LONG != 0 {
            let Some(len) = rest.first_chunk::<8>() else { return Ok(None) };
            (u64::from_be_bytes(*len), 9)
        } else {
            let Some(&len) = rest.first() else { return Ok(None) };
            (u64::from(len), 2)
        };
        Ok(Some((Self { command, more, len }, head_bytes)))
    }

    fn command_len(self) -> Result<usize, ZmtpError> {
        within(self.len, COMMAND_MAX_BYTES).ok_or(ZmtpError::CommandBytes(self.len))
    }
}

/// `len` as a `usize` when it is not over `max`.
fn within(len: u64, max: usize) -> Option<usize> {
    usize::try_from(len).ok().filter(|len| *len <= max)
}

/// What a peer sent after the handshake.
#[derive(Clone, PartialEq, Eq)]
pub enum Incoming {
    /// The frames of one message, at least one. They share the memory of the read buffer: whoever
    /// keeps a frame beyond its message copies it, else a few bytes hold a whole block.
    Message(Vec<Bytes>),
    /// A PING; answer it with a PONG of the same context.
    Ping {
        /// Up to 16 bytes.
        context: Bytes,
    },
    /// A command that means nothing to us. It is a sign of life, and it takes time.
    Ignored,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(frames) => {
                let bytes: usize = frames.iter().map(Bytes::len).sum();
                write!(f, "Message({} frames, {bytes} bytes)", frames.len())
            }
            Self::Ping { context } => write!(f, "Ping({} bytes)", context.len()),
            Self::Ignored => f.write_str("Ignored"),
        }
    }
}

/// Reads messages and commands from the bytes behind the handshake.
///
/// It copies no frame body. Its memory is what the peer has sent of one message, at most
/// `message_max_bytes`, as much again while a frame arrives, and the vector of at most `frames_max`
/// frames. After an error it must not be used again.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    next_limits: Limits,
    /// The frame whose head is read and whose body of so many bytes is awaited.
    awaited: Option<(FrameHead, usize)>,
    frames: Vec<Bytes>,
    /// Bytes of `frames`, of the awaited one, and of commands between them.
    message_bytes: usize,
    /// The read buffer has held a large frame and is to be given back.
    large_buffer: bool,
}

impl Decoder {
    /// A decoder at the start of a message.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            next_limits: limits,
            awaited: None,
            frames: Vec::new(),
            message_bytes: 0,
            large_buffer: false,
        }
    }

    /// Sets the limits of the messages that begin from now on; one that has begun ends under those
    /// that it began with.
    pub fn set_next_limits(&mut self, limits: Limits) {
        self.next_limits = limits;
    }

    /// Whether it is between two messages or commands, with nothing of the next one taken.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.awaited.is_none() && self.frames.is_empty()
    }

    /// Bytes in the whole frames of the message that has begun; 0 between messages.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let awaited = self.awaited.map_or(0, |(_, len)| len);
        self.message_bytes.saturating_sub(awaited)
    }

    /// Takes the next message or command from `buf`; nothing when more bytes are needed.
    ///
    /// # Errors
    /// The rule or limit that the peer broke.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Incoming>, ZmtpError> {
        loop {
            // A head is read once and remembered, so a frame that arrives in many pieces costs one
            // comparison a piece.
            let (head, len) = if let Some(awaited) = self.awaited {
                awaited
            } else {
                let Some((head, head_bytes)) = FrameHead::parse(buf)? else {
                    self.give_back_large(buf);
                    return Ok(None);
                };
                let len = self.admit(head)?;
                buf.advance(head_bytes);
                (head, len)
            };
            self.awaited = Some((head, len));
            if buf.len() < len {
                // Room grows with what has arrived: announcing a large frame costs the peer
                // nothing, so it must cost us nothing.
                let missing = len - buf.len();
                buf.reserve(missing.min(buf.len().max(RESERVE_STEP_BYTES)));
                return Ok(None);
            }
            self.awaited = None;
            self.large_buffer |= len >= KEEP_BUFFER_BYTES;
            // An empty frame needs no share in the buffer.
            let body = if len == 0 { Bytes::new() } else { buf.split_to(len).freeze() };
            if head.command {
                return parse_command(&body).map(Some);
            }
            self.frames.push(body);
            if !head.more {
                self.message_bytes = 0;
                return Ok(Some(Incoming::Message(std::mem::take(&mut self.frames))));
            }
        }
    }

    /// Checks a head against the limits; gives the length that it announces.
    fn admit(&mut self, head: FrameHead) -> Result<usize, ZmtpError> {
        let len = if head.command {
            let len = head.command_len()?;
            if self.frames.is_empty() {
                return Ok(len);
            }
            // libzmq may put a PING between two frames of a message. It counts as part of it: small
            // frames between large commands would else each hold a block of the read buffer.
            len
        } else {
            if self.frames.is_empty() {
                self.limits = self.next_limits;
            }
            let Limits { frames_max, frame_max_bytes: max, of, .. } = self.limits;
            if self.frames.len() >= frames_max {
                return Err(ZmtpError::FramesMax { max: frames_max, of });
            }
            within(head.len, max).ok_or(ZmtpError::FrameBytes { bytes: head.len, max, of })?
        };
        let total = self.message_bytes.saturating_add(len);
        let Limits { message_max_bytes: max, of, .. } = self.limits;
        if total > max {
            return Err(ZmtpError::MessageBytes { max, of });
        }
        if self.frames.capacity() == 0 {
            // The frames of an answer with a few outputs.
            self.frames.reserve(8.min(self.limits.frames_max));
        }
        self.message_bytes = total;
        Ok(len)
    }

    /// Exchanges a read buffer that grew with a large frame for a small one; otherwise each of
    /// thousands of idle connections might keep the largest block it ever needed.
    fn give_back_large(&mut self, buf: &mut BytesMut) {
        if self.large_buffer && buf.len() < FRESH_BUFFER_BYTES {
            let mut fresh = BytesMut::with_capacity(FRESH_BUFFER_BYTES);
            fresh.put_slice(buf);
            *buf = fresh;
            self.large_buffer = false;
        }
    }
}

/// Reads a command behind the handshake. All but PING and ERROR mean nothing to us: PONG because
/// any byte counts as a sign of life, the rest because RFC 37 asks for it.
fn parse_command(body: &Bytes) -> Result<Incoming, ZmtpError> {
    let mut rest = &body[..];
    match short_field(&mut rest) {
        Some(b"PING") => {
            // Two bytes of time-to-live, which binds the peer and not us, then the context.
            let context = rest.get(2..).ok_or(ZmtpError::MalformedCommand("PING"))?;
            if context.len() > PING_CONTEXT_MAX_BYTES {
                return Err(ZmtpError::MalformedCommand("PING"));
            }
            Ok(Incoming::Ping { context: body.slice_ref(context) })
        }
        Some(b"ERROR") => Err(peer_error(rest)),
        Some(_) => Ok(Incoming::Ignored),
        None => Err(ZmtpError::MalformedCommand("nameless")),
    }
}

#[cfg(test)]
#[path = "zmtp_tests.rs"]
mod tests;
