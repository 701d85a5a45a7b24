//! How a call ends.

use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

/// gRPC's status codes, those that a server of this kind sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl Code {
    pub const ALL: [Self; 13] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::Unauthenticated,
    ];

    /// As documentation and clients write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// The code of a `grpc-status` header; what is not known is [`Self::Unknown`].
    #[must_use]
    pub fn parse(header: &[u8]) -> Self {
        let number = std::str::from_utf8(header).ok().and_then(|text| text.parse::<u8>().ok());
        let code = Self::ALL.into_iter().find(|code| Some(*code as u8) == number);
        code.unwrap_or(Self::Unknown)
    }

    pub(crate) fn header(self) -> HeaderValue {
        HeaderValue::from(self as u16)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A code and what happened, for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Status {
    pub code: Code,
    pub message: String,
    /// After so long the client may try again.
    pub retry_after: Option<Duration>,
}

/// What the gRPC specification has escaped in a message, besides everything that is not ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

impl Status {
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    #[must_use]
    pub fn ok() -> Self {
        Self::new(Code::Ok, String::new())
    }

    /// The `grpc-message` header; `None` where there is nothing to say.
    pub(crate) fn message_header(&self) -> Option<HeaderValue> {
        if self.message.is_empty() {
            return None;
        }
        let text = utf8_percent_encode(&self.message, ESCAPED).to_string();
        HeaderValue::try_from(text).ok()
    }

    /// The `grpc-retry-pushback-ms` header, which clients' retry policies go by.
    pub(crate) fn pushback_header(&self) -> Option<HeaderValue> {
        let after = self.retry_after?.as_millis();
        Some(HeaderValue::from(u32::try_from(after).unwrap_or(u32::MAX)))
    }

    pub(crate) fn read_message(header: &[u8]) -> String {
        percent_decode(header).decode_utf8_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_messages_survive_their_headers() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.header().as_bytes()), code);
        }
        assert_eq!(Code::parse(b"99"), Code::Unknown);
        assert_eq!(Code::parse(b"x"), Code::Unknown);
        for text in ["100 % caf\u{e9}\r\nx", "plain", "\u{202e}\0"] {
            let status = Status::new(Code::Internal, text);
            let header = status.message_header().unwrap();
            assert!(header.as_bytes().iter().all(|byte| (0x20..0x7f).contains(byte)), "{text}");
            assert_eq!(Status::read_message(header.as_bytes()), text);
        }
        assert_eq!(Status::ok().message_header(), None);
    }
}
