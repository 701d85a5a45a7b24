//! What the parts of a backup are, and what can be wrong with it.

use serde::{Deserialize, Serialize};

use crate::store::error::StoreError;

pub(super) const MAGIC: &[u8; 8] = b"CLIPBAK1";

/// Bytes before the payload of a part.
pub(super) const PART_HEADER: usize = 9;
pub(super) const CHECKED: usize = 5;

/// Longest payload, bytes: far above what a state of a million entries takes.
pub(super) const PAYLOAD_MAX: u32 = 1 << 30;

pub(super) const HEADER: u8 = b'H';
pub(super) const SNAPSHOT: u8 = b'S';
pub(super) const EVENT: u8 = b'E';
pub(super) const STATE: u8 = b'P';
pub(super) const END: u8 = b'Z';

/// What a backup begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Of the release that wrote it.
    pub version: String,
    /// Unix milliseconds.
    pub made_at_ms: u64,
    /// The snapshot that its events go on from; 0: from the beginning.
    pub base: u64,
    /// Its last event.
    pub last: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct End {
    /// Those before it.
    pub(super) parts: u64,
    /// CRC-32 of their checksums.
    pub(super) checksum: u32,
}

/// Why a file is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("it is no backup of Clipper")]
    NotOne,
    #[error("it ends in the middle: whoever wrote it was cut off")]
    CutShort,
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// A later release's.
    #[error("it holds records of format {0}, and this release knows older ones: use a later one")]
    Newer(u8),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("there is a journal in {0} already: choose another directory, or move it away")]
    Present(std::path::PathBuf),
}
