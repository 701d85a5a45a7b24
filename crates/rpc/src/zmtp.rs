//! The server's side of ZMTP 3.0 and 3.1, as a ROUTER: pure and bounded.
//!
//! Source: <https://rfc.zeromq.org/spec/23/> (3.0) and <https://rfc.zeromq.org/spec/37/> (3.1).
//! Use: send [`Handshake::opening`], feed what arrives to [`Handshake::advance`] until it is done,
//! then read the same buffer with a [`Decoder`]. [`super::wire`] makes what goes out.

use std::fmt;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::curve::{OVERHEAD_BYTES, Opener, Session};
use super::frame::{FrameHead, within};
pub use super::handshake::{Credentials, GREETING_BYTES, Handshake, Offer, Peer, Step};
use super::handshake::{peer_error, short_field};
pub use super::limits::{COMMAND_MAX_BYTES, Limit, Limits, LimitsOf};
pub use super::zmtp_error::ZmtpError;

/// Longest context that a PING may carry (RFC 37).
const PING_CONTEXT_MAX_BYTES: usize = 16;

/// Room made at least for a frame that is still arriving.
const RESERVE_STEP_BYTES: usize = 64 << 10;

/// A read buffer that held a frame of this size is given back once that frame is out.
const KEEP_BUFFER_BYTES: usize = 256 << 10;

/// Size of the buffer that takes its place.
const FRESH_BUFFER_BYTES: usize = 8 << 10;

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
    /// Of an encrypted connection.
    opener: Option<Arc<Opener>>,
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
            opener: None,
        }
    }

    /// The same of a connection that is encrypted.
    #[must_use]
    pub fn with_session(mut self, session: Option<&Session>) -> Self {
        self.opener = session.map(|session| Arc::clone(&session.opener));
        self
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
            let mut body = if len == 0 { BytesMut::new() } else { buf.split_to(len) };
            let head = self.opened(head, &mut body)?;
            let body = body.freeze();
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

    /// Opens the box that a frame of an encrypted connection is; what is in it says what it is.
    fn opened(&mut self, head: FrameHead, body: &mut BytesMut) -> Result<FrameHead, ZmtpError> {
        let Some(opener) = &self.opener else { return Ok(head) };
        let marks = opener.open(body)?;
        let len = body.len();
        if marks.command {
            if len > COMMAND_MAX_BYTES {
                return Err(ZmtpError::CommandBytes(len as u64));
            }
            if self.frames.is_empty() {
                self.message_bytes = 0;
            }
        }
        Ok(FrameHead { command: marks.command, more: marks.more, len: len as u64 })
    }

    /// Checks a head against the limits; gives the length that it announces.
    fn admit(&mut self, head: FrameHead) -> Result<usize, ZmtpError> {
        if self.opener.is_none() {
            return self.admit_plain(head);
        }
        // Whether it is a command is known when it is open.
        let overhead = OVERHEAD_BYTES as u64;
        let len = head.len.checked_sub(overhead).ok_or(ZmtpError::MalformedCommand("MESSAGE"))?;
        let inner = self.admit_plain(FrameHead { command: false, more: false, len })?;
        Ok(inner + OVERHEAD_BYTES)
    }

    fn admit_plain(&mut self, head: FrameHead) -> Result<usize, ZmtpError> {
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
