//! Why a connection cannot go on, in words for the operator's log.

use std::fmt;
use std::io;

use super::limits::{COMMAND_MAX_BYTES, Limit, LimitsOf};

/// Why a connection cannot go on. The texts are for the operator's log.
#[derive(Debug, thiserror::Error)]
pub enum ZmtpError {
    /// The first byte is not that of a greeting.
    #[error("the peer is not ZMTP 3: its first byte is {}", FirstByte(*.0))]
    FirstByte(u8),
    /// The tenth byte is not that of a greeting.
    #[error("the peer is not ZMTP 3: byte 10 of its greeting is {0:#04x} instead of 0x7f")]
    Signature(u8),
    /// A greeting of ZMTP 1 or 2.
    #[error("the peer speaks ZMTP {0}; this server needs 3.0 or later (libzmq 4)")]
    Version(u8),
    /// CURVE, PLAIN, GSSAPI or something else.
    #[error("the peer wants the security mechanism {0:?}; this server has only NULL")]
    Mechanism(String),
    /// The as-server flag, which NULL forbids.
    #[error("the peer's greeting says that it is the server of the NULL mechanism, which has none")]
    AsServer,
    /// It wants a mechanism that it may not have.
    #[error(
        "the peer wants the security mechanism {wanted:?}; of this server it may have {offered}"
    )]
    Unspoken { wanted: String, offered: String },
    /// Something else than the command that comes next.
    #[error("the peer sent {got} instead of {expected} after its greeting")]
    NotExpected { got: String, expected: &'static str },
    /// Something sealed that does not open.
    #[error("the peer's {0} does not open: it is sealed with other keys, or was changed")]
    Box(&'static str),
    /// A message of an encrypted connection that was there already.
    #[error("the peer repeats a message of its encrypted connection")]
    Repeated,
    /// Names and lengths in a command do not fit together.
    #[error("the peer's {0} command is malformed")]
    MalformedCommand(&'static str),
    /// A command over [`COMMAND_MAX_BYTES`].
    #[error("the peer sends a command of {0} bytes; the limit is {COMMAND_MAX_BYTES}")]
    CommandBytes(u64),
    /// READY without a socket type.
    #[error("the peer's READY command has no Socket-Type")]
    NoSocketType,
    /// A socket type that cannot talk to a ROUTER.
    #[error("the peer's socket is a {0:?}; a model container uses a DEALER")]
    SocketType(String),
    /// The peer's ERROR command.
    #[error("the peer ended the connection with an error: {0:?}")]
    Peer(String),
    /// Reserved bits, or a command that says that more follows.
    #[error("the peer sends a frame with the invalid flags {0:#04x}")]
    Flags(u8),
    /// Over [`crate::zmtp::Limits::frames_max`].
    #[error(
        "the peer sends a message of more than {max} frames ({})",
        LimitName(Limit::Frames, *of)
    )]
    FramesMax {
        max: usize,
        /// What it is for.
        of: LimitsOf,
    },
    /// Over [`crate::zmtp::Limits::frame_max_bytes`].
    #[error(
        "the peer sends a frame of {bytes} bytes; the limit is {max} ({})",
        LimitName(Limit::FrameBytes, *of)
    )]
    FrameBytes {
        bytes: u64,
        max: usize,
        /// What it is for.
        of: LimitsOf,
    },
    /// Over [`crate::zmtp::Limits::message_max_bytes`].
    #[error(
        "the peer sends a message of more than {max} bytes ({})",
        LimitName(Limit::MessageBytes, *of)
    )]
    MessageBytes {
        max: usize,
        /// What it is for.
        of: LimitsOf,
    },
    /// The connection itself failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

impl ZmtpError {
    /// Whether the peer seems to speak HTTP.
    #[must_use]
    pub fn is_http(&self) -> bool {
        matches!(self, Self::FirstByte(b'A'..=b'Z'))
    }

    /// The limit that a message was over, and what the limit is for; `None` for other faults.
    #[must_use]
    pub fn over_limit(&self) -> Option<(Limit, LimitsOf)> {
        match self {
            Self::FramesMax { of, .. } => Some((Limit::Frames, *of)),
            Self::FrameBytes { of, .. } => Some((Limit::FrameBytes, *of)),
            Self::MessageBytes { of, .. } => Some((Limit::MessageBytes, *of)),
            _ => None,
        }
    }
}

/// Shows a wrong first byte with a guess at who sent it.
struct FirstByte(u8);

impl fmt::Display for FirstByte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)?;
        match self.0 {
            b'A'..=b'Z' => {
                let letter = char::from(self.0);
                write!(f, " ('{letter}'); is an HTTP client talking to the RPC port?")
            }
            0x16 => f.write_str("; is a TLS client talking to the RPC port?"),
            0x00 | 0x01 => f.write_str("; is it a ZeroMQ 2 peer?"),
            _ => Ok(()),
        }
    }
}

/// Shows what a limit is for, as the key of the config where it has one.
struct LimitName(Limit, LimitsOf);

impl fmt::Display for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.1, self.0) {
            (LimitsOf::Handshake, _) => "before it has said what it serves",
            (LimitsOf::Unasked, _) => "while nothing is asked of it",
            (LimitsOf::Answers, Limit::Frames) => "rpc.frames_max",
            (LimitsOf::Answers, Limit::FrameBytes) => "rpc.frame_max_bytes",
            (LimitsOf::Answers, Limit::MessageBytes) => "rpc.message_max_bytes",
        })
    }
}
