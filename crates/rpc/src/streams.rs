//! The extension for answers in pieces ([`Extensions::STREAMS`]): its messages, both ways.
//!
//! A container that streams says how many queries it answers at the same time, its lanes. The
//! server opens a stream by a message of its own, before the predict message with the same id,
//! which has one input. It is answered by pieces, each of which uses up one credit, and by one end.
//! The server gives credits as its caller reads, and takes an answer that nobody wants any more
//! back by a cancel message, which is answered by the end, too.

use bytes::{BufMut as _, Bytes};

use super::decode_error::{DecodeError, ErrorTextFault, Part};
use super::protocol::RPC_VERSION;
use super::wire::WireChunks;

#[allow(unused_imports, reason = "named in the description")]
use super::protocol::Extensions;

const TYPE_STREAMS: u32 = 4;
const TYPE_PIECE: u32 = 5;
const TYPE_END: u32 = 6;

const TYPE_HEARTBEAT: u32 = 2;
const HEARTBEAT_OPEN: u32 = 4;
const HEARTBEAT_CREDIT: u32 = 5;
const HEARTBEAT_CANCEL: u32 = 6;

/// The most lanes that a container may have.
pub const LANES_MAX: u32 = 4_096;

/// What a container says about answers in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamNews {
    /// It gives them, to so many queries at the same time.
    Lanes(u32),
    /// A piece of an answer.
    Piece {
        message_id: u32,
        /// Meant to be UTF-8 text, which is not checked here.
        text: Bytes,
    },
    /// An answer is complete, or has failed.
    End {
        message_id: u32,
        /// Its text is UTF-8.
        error: Option<Bytes>,
    },
}

/// What the server says about answers in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamOrder {
    /// The predict message with this id, which follows, is to be answered in pieces: at first so
    /// many, none of them longer than that.
    Open { message_id: u32, pieces: u32, piece_max_bytes: u32 },
    /// Room for so many more pieces.
    Credit { message_id: u32, pieces: u32 },
    /// Nobody wants the rest of an answer.
    Cancel { message_id: u32 },
}

/// The frames of what a container says; only for a server that has accepted
/// [`Extensions::STREAMS`].
#[must_use]
pub fn encode_news(news: StreamNews) -> Vec<Bytes> {
    let (kind, number, text) = match news {
        StreamNews::Lanes(lanes) => (TYPE_STREAMS, lanes, None),
        StreamNews::Piece { message_id, text } => (TYPE_PIECE, message_id, Some(text)),
        StreamNews::End { message_id, error } => (TYPE_END, message_id, error),
    };
    let bytes_of = |value: u32| Bytes::copy_from_slice(&value.to_le_bytes());
    let mut frames = vec![Bytes::new(), bytes_of(kind), bytes_of(number)];
    frames.extend(text);
    frames
}

/// Queues what the server says; only for a container that has announced [`Extensions::STREAMS`].
pub fn encode_order(out: &mut WireChunks, order: StreamOrder) {
    let (kind, message_id, numbers) = match order {
        StreamOrder::Open { message_id, pieces, piece_max_bytes } => {
            (HEARTBEAT_OPEN, message_id, Some((pieces, piece_max_bytes)))
        }
        StreamOrder::Credit { message_id, pieces } => {
            (HEARTBEAT_CREDIT, message_id, Some((pieces, 0)))
        }
        StreamOrder::Cancel { message_id } => (HEARTBEAT_CANCEL, message_id, None),
    };
    out.copy_frame(&[], true);
    out.copy_frame(&RPC_VERSION.to_le_bytes(), true);
    out.copy_frame(&TYPE_HEARTBEAT.to_le_bytes(), true);
    out.copy_frame(&kind.to_le_bytes(), true);
    out.copy_frame(&message_id.to_le_bytes(), numbers.is_some());
    if let Some((pieces, piece_max_bytes)) = numbers {
        let mut frame = Vec::with_capacity(8);
        frame.put_u32_le(pieces);
        if kind == HEARTBEAT_OPEN {
            frame.put_u32_le(piece_max_bytes);
        }
        out.copy_frame(&frame, false);
    }
}

/// Reads a message of a container, the kind of which is of this extension or unknown.
pub(super) fn from_container(
    kind: u32,
    frames: Vec<Bytes>,
    error_max_bytes: Option<usize>,
) -> Result<StreamNews, DecodeError> {
    match kind {
        TYPE_STREAMS => lanes(&frames),
        TYPE_PIECE => piece(frames),
        TYPE_END => end(frames, error_max_bytes),
        _ => Err(DecodeError::Unknown { part: Part::MessageType, value: u64::from(kind) }),
    }
}

fn lanes(frames: &[Bytes]) -> Result<StreamNews, DecodeError> {
    count(frames, 3)?;
    match number(frames, 2, Part::Lanes)? {
        lanes @ 1..=LANES_MAX => Ok(StreamNews::Lanes(lanes)),
        other => Err(DecodeError::Unknown { part: Part::Lanes, value: u64::from(other) }),
    }
}

fn piece(mut frames: Vec<Bytes>) -> Result<StreamNews, DecodeError> {
    count(&frames, 4)?;
    let message_id = number(&frames, 2, Part::MessageId)?;
    Ok(StreamNews::Piece { message_id, text: frames.swap_remove(3) })
}

fn end(mut frames: Vec<Bytes>, error_max_bytes: Option<usize>) -> Result<StreamNews, DecodeError> {
    if frames.len() != 4 {
        count(&frames, 3)?;
    }
    let message_id = number(&frames, 2, Part::MessageId)?;
    let error = frames.drain(3..).next();
    if let Some(text) = &error {
        let fault = match (std::str::from_utf8(text), error_max_bytes) {
            (Err(_), _) => Some(ErrorTextFault::NotText),
            (Ok(""), _) => Some(ErrorTextFault::Empty),
            (Ok(text), Some(max)) if text.len() > max => {
                Some(ErrorTextFault::TooLong { bytes: text.len(), max })
            }
            _ => None,
        };
        if let Some(why) = fault {
            return Err(DecodeError::ErrorText { index: 0, why });
        }
    }
    Ok(StreamNews::End { message_id, error })
}

/// Reads a heartbeat of the server, the kind of which is of this extension or unknown.
pub(super) fn from_server(kind: u32, frames: &[Bytes]) -> Result<StreamOrder, DecodeError> {
    let numbers_bytes = match kind {
        HEARTBEAT_OPEN => 8,
        HEARTBEAT_CREDIT => 4,
        HEARTBEAT_CANCEL => 0,
        _ => {
            return Err(DecodeError::Unknown { part: Part::HeartbeatKind, value: u64::from(kind) });
        }
    };
    count(frames, if numbers_bytes == 0 { 5 } else { 6 })?;
    let message_id = number(frames, 4, Part::MessageId)?;
    let numbers = frames.get(5).map_or(&[][..], |frame| &frame[..]);
    if numbers.len() != numbers_bytes {
        return Err(DecodeError::Malformed { part: Part::Credit, bytes: Some(numbers.len()) });
    }
    let (words, _) = numbers.as_chunks::<4>();
    let word = |at: usize| words.get(at).map_or(0, |word| u32::from_le_bytes(*word));
    Ok(match kind {
        HEARTBEAT_OPEN => {
            StreamOrder::Open { message_id, pieces: word(0), piece_max_bytes: word(1) }
        }
        HEARTBEAT_CREDIT => StreamOrder::Credit { message_id, pieces: word(0) },
        _ => StreamOrder::Cancel { message_id },
    })
}

fn count(frames: &[Bytes], expected: usize) -> Result<(), DecodeError> {
    if frames.len() == expected {
        return Ok(());
    }
    Err(DecodeError::FrameCount { expected, found: frames.len() })
}

fn number(frames: &[Bytes], index: usize, part: Part) -> Result<u32, DecodeError> {
    let frame = frames.get(index);
    frame
        .and_then(|frame| <[u8; 4]>::try_from(&frame[..]).ok())
        .map(u32::from_le_bytes)
        .ok_or(DecodeError::Malformed { part, bytes: frame.map(Bytes::len) })
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
