//! Why frames are not a message, in words for the operator's log.

use std::fmt;

use super::protocol::RPC_VERSION;
use clipper_domain::{InvalidName, InvalidSignature};

/// Which part of a message holds something wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The empty first frame.
    Delimiter,
    MessageType,
    HeartbeatKind,
    MessageId,
    RequestType,
    /// The length of the header.
    HeaderBytes,
    Header,
    Extensions,
    /// How serious a notice is.
    NoticeLevel,
    /// What a container says of its code and file.
    Build,
    /// How many queries a container answers at the same time.
    Lanes,
    /// Room for pieces of an answer.
    Credit,
    /// What a container of type tensors takes and gives.
    Signature,
    /// Which traces items belong to.
    Traces,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delimiter => "empty first frame",
            Self::MessageType => "message type",
            Self::HeartbeatKind => "heartbeat kind",
            Self::MessageId => "message id",
            Self::RequestType => "request type",
            Self::HeaderBytes => "header length",
            Self::Header => "header",
            Self::Extensions => "extensions",
            Self::NoticeLevel => "notice level",
            Self::Build => "build",
            Self::Lanes => "number of lanes",
            Self::Credit => "credit",
            Self::Signature => "signature",
            Self::Traces => "traces",
        })
    }
}

/// Why frames are not a message of version 3. The texts are for the operator's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A part is missing, or its frame has the wrong length.
    #[error("the message's {part} is missing or has the wrong length ({bytes:?} bytes)")]
    Malformed {
        part: Part,
        /// Length of the frame, if there is one.
        bytes: Option<usize>,
    },
    /// A number with no meaning.
    #[error("the message has the unknown {part} {value}")]
    Unknown { part: Part, value: u64 },
    /// Frames that should not be there, or too few.
    #[error("a message of this kind has {expected} frames, not {found}")]
    FrameCount { expected: usize, found: usize },
    /// The RPC version is missing, unreadable or not [`RPC_VERSION`].
    #[error("{}; version {RPC_VERSION} is needed", VersionText(*.found))]
    RpcVersion {
        /// What the peer said.
        found: Option<u32>,
    },
    /// A model name or version that cannot be one.
    #[error("the container's {field} cannot be one: {why}")]
    Name {
        /// `model name` or `model version`.
        field: &'static str,
        /// The rule that it breaks.
        why: NameFault,
    },
    /// An input type that is not `0` to `4`, nor `5` of a container that announces tensors.
    #[error("the container's input type is {0:?}, not a number from 0 to 4")]
    InputType(String),
    /// What a container takes and gives cannot be that.
    #[error("the container's signature cannot be one: {0}")]
    Signature(InvalidSignature),
    /// The header counts more outputs or inputs than allowed.
    #[error("the message counts {count} items; the limit is {max}")]
    TooMany { count: u64, max: usize },
    /// The header and the frames behind it differ in number.
    #[error("the header counts {count} items but {frames} frames follow it")]
    ItemCount { count: u64, frames: usize },
    /// The header and a frame differ in length.
    #[error("item {index} has {bytes} bytes but the header says {announced}")]
    ItemBytes {
        /// Which, from 0.
        index: usize,
        announced: u64,
        bytes: usize,
    },
    /// An output is marked as an error, but its text cannot be one.
    #[error("the error of item {index} {why}")]
    ErrorText {
        /// Which, from 0.
        index: usize,
        /// The rule that it breaks.
        why: ErrorTextFault,
    },
}

/// Why bytes cannot be the text of a model's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ErrorTextFault {
    #[error("is empty")]
    Empty,
    /// More bytes than the server has said that it takes.
    #[error("has {bytes} bytes; the limit is {max}")]
    TooLong { bytes: usize, max: usize },
    /// Not text.
    #[error("is not UTF-8")]
    NotText,
}

/// Why bytes cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// Not text.
    #[error("it is not UTF-8")]
    NotText,
    /// Against a rule of names.
    #[error(transparent)]
    Invalid(#[from] InvalidName),
}

struct VersionText(Option<u32>);

impl fmt::Display for VersionText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(found) => write!(f, "the peer speaks RPC version {found}"),
            None => f.write_str("the peer does not say a readable RPC version"),
        }
    }
}
