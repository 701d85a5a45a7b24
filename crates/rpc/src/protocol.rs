//! What both sides of the protocol must agree on: its version, its extensions, and their values.

use std::fmt;

use bytes::Bytes;

/// The version of the protocol that both sides must have.
pub const RPC_VERSION: u32 = 3;

/// Longest text of a notice, bytes; the server cuts what is longer.
pub const NOTICE_MAX_BYTES: usize = 1024;

/// Longest text of a build, bytes.
pub const BUILD_MAX_BYTES: usize = 128;

/// Bytes of a number in a header.
pub(super) const WORD_BYTES: usize = 8;
/// Marks the length of an output that is an error. No output is so long.
pub(super) const ERROR_MARK: u64 = 1 << 63;

/// Extensions of version 3, one bit each. A container announces those it knows, the server accepts
/// those it knows too, and only then they are used: a container or a server that has never heard of
/// them sees no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extensions(pub u32);

impl Extensions {
    /// Plain version 3.
    pub const NONE: Self = Self(0);
    /// An answer may hold an error in place of an output.
    pub const QUERY_ERRORS: Self = Self(1);
    /// The server may send notices for the container's log.
    pub const NOTICES: Self = Self(2);
    /// The container states its build.
    pub const BUILD: Self = Self(4);
    /// The container takes and gives tensors, and has said which.
    pub const TENSORS: Self = Self(8);
    /// The container answers in pieces.
    pub const STREAMS: Self = Self(16);
    /// The items of a message may be in one frame.
    pub const JOINED: Self = Self(32);
    /// An answer may say how long the container has computed.
    pub const COMPUTED: Self = Self(64);
    /// The container wants to know which trace an item belongs to.
    pub const TRACES: Self = Self(128);
    /// Those of a container that answers whole batches only.
    pub const OF_BATCHES: Self = Self(
        Self::QUERY_ERRORS.0 | Self::NOTICES.0 | Self::BUILD.0 | Self::JOINED.0 | Self::COMPUTED.0,
    );
    /// All that this crate knows.
    pub const KNOWN: Self =
        Self(Self::OF_BATCHES.0 | Self::TENSORS.0 | Self::STREAMS.0 | Self::TRACES.0);

    /// Those of `self` that are in `other` as well.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of `other` are in `self`.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.and(other) == other
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// How serious a notice is for its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeLevel {
    /// It is a replica.
    Info,
    /// It stays connected and gets no queries.
    Warning,
    /// The server closes the connection.
    Error,
}

impl NoticeLevel {
    /// As on the wire.
    #[must_use]
    pub fn wire_code(self) -> u32 {
        match self {
            Self::Info => 0,
            Self::Warning => 1,
            Self::Error => 2,
        }
    }

    /// From the wire; a level that is not known is taken seriously.
    #[must_use]
    pub fn from_wire_code(code: u32) -> Self {
        match code {
            0 => Self::Info,
            1 => Self::Warning,
            _ => Self::Error,
        }
    }
}

/// Which code and file a container runs, in its own words; compared for equality only.
#[derive(Clone, PartialEq, Eq)]
pub struct Build(Bytes);

impl Build {
    /// A build from its text: 1 to [`BUILD_MAX_BYTES`] visible ASCII characters.
    ///
    /// The bytes are copied: they may be a small part of a read buffer, and a build is kept.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let fits = (1..=BUILD_MAX_BYTES).contains(&text.len());
        (fits && text.iter().all(u8::is_ascii_graphic)).then(|| Self(Bytes::copy_from_slice(text)))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Checked at the beginning: it is ASCII.
        f.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

impl fmt::Debug for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Build({self})")
    }
}
