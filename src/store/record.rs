//! The bytes of one journal record. Pure.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | format version, [`VERSION`] |
//! | 1-2 | u16 little-endian: how many records of the same change follow this one |
//! | 3-6 | u32 little-endian: payload bytes |
//! | 7-10 | u32 little-endian: CRC-32 (IEEE) of bytes 0-6 and the payload |
//! | 11- | payload: an [`Envelope`] (or a snapshot) as JSON |
//!
//! Version 2 knows more of who asked for a change (`Asker`) than the key, which is all that version
//! 1 has; what is not there is not known. The frame (bytes 0-10) stays the same in every version,
//! so that an older release can tell a record of a newer one from a damaged record. Bytes of every
//! version are kept in `tests/fixtures/journal/`.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::event::Envelope;

/// The version this release writes, and the newest it reads.
pub const VERSION: u8 = 2;

const HEADER_BYTES: usize = 11;
const CHECKED_HEADER_BYTES: usize = 7;

/// Why bytes are not a record of this release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Damaged: shorter than a header.
    #[error("it has {0} bytes, a header has {HEADER_BYTES}")]
    Short(usize),
    /// Damaged: more or fewer bytes than the header says.
    #[error("its payload has {found} bytes instead of {expected}")]
    Length { expected: u64, found: usize },
    /// Damaged: other bytes than were written.
    #[error("its checksum is {found:08x} instead of {expected:08x}")]
    Checksum { expected: u32, found: u32 },
    /// Intact, from a later release.
    #[error("it has format version {0}")]
    Newer(u8),
    /// Intact, but not the JSON expected.
    #[error("{0}")]
    NotUnderstood(String),
    /// Too large for the format; nothing was encoded.
    #[error("it is too large for a journal record")]
    TooLarge,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<T> {
    /// How many records of the same change follow.
    pub following: u16,
    pub value: T,
}

/// Frames `value`; `following` records of the same change come after it.
///
/// # Errors
/// [`RecordError::TooLarge`], or `NotUnderstood` if the value has no JSON form.
pub fn encode<T: Serialize>(following: usize, value: &T) -> Result<Vec<u8>, RecordError> {
    let following = u16::try_from(following).map_err(|_| RecordError::TooLarge)?;
    let payload =
        serde_json::to_vec(value).map_err(|e| RecordError::NotUnderstood(e.to_string()))?;
    let length = u32::try_from(payload.len()).map_err(|_| RecordError::TooLarge)?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&following.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    let checksum = checksum(&bytes, &payload);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(&payload);
    Ok(bytes)
}

/// Checks the frame and reads the payload.
///
/// # Errors
/// What is wrong with the bytes; `Newer` and `NotUnderstood` only if they are intact.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<Record<T>, RecordError> {
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(RecordError::Short(bytes.len()));
    };
    let [version, f0, f1, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if usize::try_from(length) != Ok(payload.len()) {
        let expected = u64::from(length);
        return Err(RecordError::Length { expected, found: payload.len() });
    }
    let expected = u32::from_le_bytes([c0, c1, c2, c3]);
    let found = checksum(&header[..CHECKED_HEADER_BYTES], payload);
    if expected != found {
        return Err(RecordError::Checksum { expected, found });
    }
    if version > VERSION {
        return Err(RecordError::Newer(version));
    }
    let value =
        serde_json::from_slice(payload).map_err(|e| RecordError::NotUnderstood(e.to_string()))?;
    Ok(Record { following: u16::from_le_bytes([f0, f1]), value })
}

/// Frames the events of one change, each knowing how many follow.
///
/// # Errors
/// As [`encode`].
pub fn encode_change(events: &[Envelope]) -> Result<Vec<(u64, Vec<u8>)>, RecordError> {
    let count = events.len();
    let record = |(i, e): (usize, &Envelope)| Ok((e.seq, encode(count - 1 - i, e)?));
    events.iter().enumerate().map(record).collect()
}

/// CRC-32 (IEEE) of a header's checked bytes and its payload.
pub(super) fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
