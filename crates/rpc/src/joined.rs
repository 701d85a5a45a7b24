//! The extension that puts the items of a message into one frame ([`Extensions::JOINED`]): what a
//! frame costs, above all its box on an encrypted connection, is then that of the message. The
//! header has the lengths of the items with or without it. Pure.
//!
//! [`Extensions::JOINED`]: super::protocol::Extensions::JOINED

use bytes::{BufMut as _, Bytes, BytesMut};
use clipper_domain::Input;

use super::protocol::{ERROR_MARK, WORD_BYTES};
use super::wire::{INLINE_MAX_BYTES, WireChunks};

/// Joined inputs have at most so many bytes together; they are copied.
const INPUTS_MAX_BYTES: usize = 1 << 20;

/// The same of outputs. A server takes as much in a frame, whatever its limits.
pub(super) const OUTPUTS_MAX_BYTES: usize = 16 << 10;

/// Queues the inputs of a batch in one frame; whether they suit that.
pub(super) fn put_inputs<'a>(
    out: &mut WireChunks,
    inputs: impl ExactSizeIterator<Item = &'a Input> + Clone,
) -> bool {
    if inputs.len() < 2 || inputs.clone().any(|input| input.0.len() > INLINE_MAX_BYTES) {
        return false;
    }
    let bytes = inputs.clone().map(|input| input.0.len()).sum();
    if bytes > INPUTS_MAX_BYTES {
        return false;
    }
    out.fill_frame(bytes, false, |frame| {
        for input in inputs {
            frame.put_slice(&input.0);
        }
    });
    true
}

/// Joins the outputs of an answer, if that pays.
#[must_use]
pub fn outputs(frames: &[Bytes]) -> Option<Bytes> {
    let bytes: usize = frames.iter().map(Bytes::len).sum();
    if frames.len() < 2 || bytes > OUTPUTS_MAX_BYTES {
        return None;
    }
    let mut joined = BytesMut::with_capacity(bytes);
    for frame in frames {
        joined.put_slice(frame);
    }
    Some(joined.freeze())
}

/// Takes the items apart where they came in one frame, behind `head_frames` others of which the
/// last one is the header; its number `count_at` counts them, and behind their lengths it may have
/// `more_words`. What does not fit stays as it is, for those who check it.
pub(super) fn take_apart(
    frames: &mut Vec<Bytes>,
    (head_frames, count_at, more_words): (usize, usize, usize),
    items_max: usize,
) {
    if frames.len() != head_frames + 1 {
        return;
    }
    let Some(header) = frames.get(head_frames - 1).cloned() else { return };
    let Some((words, [])) = header.get(count_at * WORD_BYTES..).map(<[u8]>::as_chunks) else {
        return;
    };
    let Some((count, lengths)) = words.split_first() else { return };
    let count = usize::try_from(u64::from_le_bytes(*count)).unwrap_or(usize::MAX);
    if count < 2 || count > items_max {
        return;
    }
    let Some((lengths, more)) = lengths.split_at_checked(count) else { return };
    if more.len() > more_words {
        return;
    }
    let lengths = lengths.iter().map(|word| u64::from_le_bytes(*word) & !ERROR_MARK);
    let Some(joined) = frames.last() else { return };
    let bytes = lengths.clone().try_fold(0u64, u64::checked_add);
    if bytes != Some(joined.len() as u64) {
        return;
    }
    let Some(mut joined) = frames.pop() else { return };
    // Each is part of the frame, as was just found.
    frames.extend(lengths.map(|len| joined.split_to(usize::try_from(len).unwrap_or_default())));
}
