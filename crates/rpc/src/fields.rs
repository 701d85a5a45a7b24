//! Fields of messages: numbers, headers, and the lengths in them. Pure.

use bytes::Bytes;

use super::decode_error::{DecodeError, Part};
use super::protocol::WORD_BYTES;

/// The kind of a message that brings a batch, or its answer.
pub(super) const TYPE_CONTENT: u32 = 1;

pub(super) fn number(value: u32) -> Bytes {
    Bytes::copy_from_slice(&value.to_le_bytes())
}

pub(super) fn unknown(part: Part, value: u32) -> DecodeError {
    DecodeError::Unknown { part, value: u64::from(value) }
}

pub(super) fn delimiter(frames: &[Bytes]) -> Result<(), DecodeError> {
    let bytes = frames.first().map(Bytes::len);
    if bytes == Some(0) {
        return Ok(());
    }
    Err(DecodeError::Malformed { part: Part::Delimiter, bytes })
}

pub(super) fn u32_at(frames: &[Bytes], index: usize, part: Part) -> Result<u32, DecodeError> {
    let frame = frames.get(index);
    frame
        .and_then(|frame| <[u8; 4]>::try_from(&frame[..]).ok())
        .map(u32::from_le_bytes)
        .ok_or(DecodeError::Malformed { part, bytes: frame.map(Bytes::len) })
}

/// The header whose length is in frame `index` and which is the frame behind it. It has at least
/// `words_min` numbers and nothing but whole numbers.
pub(super) fn header(
    frames: &[Bytes],
    index: usize,
    words_min: usize,
) -> Result<&[u8], DecodeError> {
    let announced = frames.get(index);
    let announced = announced
        .and_then(|frame| <[u8; 8]>::try_from(&frame[..]).ok())
        .map(u64::from_le_bytes)
        .ok_or(DecodeError::Malformed {
            part: Part::HeaderBytes,
            bytes: announced.map(Bytes::len),
        })?;
    let header = frames.get(index + 1).map(|frame| &frame[..]);
    header
        .filter(|header| {
            header.len() as u64 == announced
                && header.len() % WORD_BYTES == 0
                && header.len() >= words_min * WORD_BYTES
        })
        .ok_or(DecodeError::Malformed { part: Part::Header, bytes: header.map(<[u8]>::len) })
}

/// Number `index` of a header that is known to have it.
pub(super) fn word(header: &[u8], index: usize) -> u64 {
    header
        .get(index * WORD_BYTES..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |word| u64::from_le_bytes(*word))
}

/// Checks that number `count_at` of the header counts `frames`, and by `check`, which gets a
/// frame's place and its number, that what follows are their lengths.
pub(super) fn items(
    header: &[u8],
    count_at: usize,
    frames: &[Bytes],
    max: usize,
    mut check: impl FnMut(usize, u64, &Bytes) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let count = word(header, count_at);
    if count > max as u64 {
        return Err(DecodeError::TooMany { count, max });
    }
    if count != frames.len() as u64 {
        return Err(DecodeError::ItemCount { count, frames: frames.len() });
    }
    let (lengths, _) = header[(count_at + 1) * WORD_BYTES..].as_chunks::<WORD_BYTES>();
    if lengths.len() != frames.len() {
        let bytes = Some(header.len());
        return Err(DecodeError::Malformed { part: Part::Header, bytes });
    }
    for (index, (length, frame)) in lengths.iter().zip(frames).enumerate() {
        check(index, u64::from_le_bytes(*length), frame)?;
    }
    Ok(())
}

pub(super) fn same_length(index: usize, announced: u64, frame: &Bytes) -> Result<(), DecodeError> {
    if announced == frame.len() as u64 {
        return Ok(());
    }
    Err(DecodeError::ItemBytes { index, announced, bytes: frame.len() })
}
