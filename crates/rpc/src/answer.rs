//! An answer to a batch: its outputs, which of them are errors, and how long it was computed. Pure.

use std::time::Duration;

use bytes::{BufMut as _, Bytes};

use super::decode_error::{DecodeError, ErrorTextFault, Part};
use super::fields::{TYPE_CONTENT, header, items, number, same_length, u32_at, word};
use super::joined;
use super::protocol::{ERROR_MARK, WORD_BYTES};

#[allow(unused_imports, reason = "named in the description")]
use super::protocol::Extensions;

/// Frames of an answer before its outputs.
const HEAD_FRAMES: usize = 5;

/// What an answer may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerLimits {
    pub outputs_max: usize,
    /// Longest text of an error, bytes; `None` where errors were not negotiated.
    pub error_max_bytes: Option<usize>,
    /// Its outputs may be in one frame, as was negotiated.
    pub joined: bool,
    /// It may say how long it was computed, as was negotiated.
    pub computed: bool,
}

/// What an answer has beside its outputs, of what its server has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AnswerForm {
    /// Its outputs may be in one frame ([`Extensions::JOINED`]).
    pub joined: bool,
    /// How long the container has computed ([`Extensions::COMPUTED`]).
    pub computed: Option<Duration>,
}

/// The outputs of one batch, as [`super::codec::FromContainer`] has them.
pub(super) struct Answer {
    pub(super) message_id: u32,
    pub(super) outputs: Vec<Bytes>,
    pub(super) errors: Vec<usize>,
    pub(super) computed: Option<Duration>,
}

/// Reads an answer.
pub(super) fn decode(mut frames: Vec<Bytes>, limits: AnswerLimits) -> Result<Answer, DecodeError> {
    let message_id = u32_at(&frames, 2, Part::MessageId)?;
    if limits.joined {
        let more_words = usize::from(limits.computed);
        joined::take_apart(&mut frames, (HEAD_FRAMES, 0, more_words), limits.outputs_max);
    }
    let whole = header(&frames, 3, 1)?;
    let (header, computed) = computed(whole, limits);
    let errors = outputs(header, &frames[HEAD_FRAMES..], limits)?;
    frames.drain(..HEAD_FRAMES);
    Ok(Answer { message_id, outputs: frames, errors, computed })
}

/// The part of a header that has the lengths, and the number behind it where there is one.
fn computed(header: &[u8], limits: AnswerLimits) -> (&[u8], Option<Duration>) {
    let words = (header.len() / WORD_BYTES) as u64;
    if !limits.computed || word(header, 0).checked_add(2) != Some(words) {
        return (header, None);
    }
    match header.split_last_chunk() {
        Some((lengths, micros)) => {
            (lengths, Some(Duration::from_micros(u64::from_le_bytes(*micros))))
        }
        None => (header, None),
    }
}

/// A container's answer to the predict message `message_id`. `errors` says which of the outputs are
/// errors, ascending; only for a server that has accepted [`Extensions::QUERY_ERRORS`].
#[must_use]
pub fn encode_answer(
    message_id: u32,
    outputs: Vec<Bytes>,
    errors: &[usize],
    AnswerForm { joined, computed }: AnswerForm,
) -> Vec<Bytes> {
    let mut header = Vec::with_capacity((2 + outputs.len()) * WORD_BYTES);
    header.put_u64_le(outputs.len() as u64);
    let mut errors = errors.iter().peekable();
    for (index, output) in outputs.iter().enumerate() {
        let mark = if errors.next_if_eq(&&index).is_some() { ERROR_MARK } else { 0 };
        header.put_u64_le(output.len() as u64 | mark);
    }
    if let Some(computed) = computed {
        header.put_u64_le(u64::try_from(computed.as_micros()).unwrap_or(u64::MAX));
    }
    let mut frames = Vec::with_capacity(HEAD_FRAMES + outputs.len());
    frames.push(Bytes::new());
    frames.push(number(TYPE_CONTENT));
    frames.push(number(message_id));
    frames.push(Bytes::copy_from_slice(&(header.len() as u64).to_le_bytes()));
    frames.push(Bytes::from(header));
    match joined.then(|| joined::outputs(&outputs)).flatten() {
        Some(joined) => frames.push(joined),
        None => frames.extend(outputs),
    }
    frames
}

/// Checks the outputs of an answer; those that are errors.
fn outputs(
    header: &[u8],
    frames: &[Bytes],
    limits: AnswerLimits,
) -> Result<Vec<usize>, DecodeError> {
    let mut errors = Vec::new();
    items(header, 0, frames, limits.outputs_max, |index, announced, frame| {
        match limits.error_max_bytes {
            Some(max) if announced & ERROR_MARK != 0 => {
                same_length(index, announced & !ERROR_MARK, frame)?;
                error_text(frame, max).map_err(|why| DecodeError::ErrorText { index, why })?;
                errors.push(index);
                Ok(())
            }
            _ => same_length(index, announced, frame),
        }
    })?;
    Ok(errors)
}

fn error_text(frame: &[u8], max: usize) -> Result<(), ErrorTextFault> {
    match frame.len() {
        0 => return Err(ErrorTextFault::Empty),
        bytes if bytes > max => return Err(ErrorTextFault::TooLong { bytes, max }),
        _ => {}
    }
    std::str::from_utf8(frame).map(|_| ()).map_err(|_| ErrorTextFault::NotText)
}
