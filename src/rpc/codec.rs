//! The meaning of frames: Clipper's RPC version 3 (frame tables in [`super`]), both ways. Pure.
//!
//! A server decodes what containers send and encodes straight into the queue of a connection; a
//! container does the reverse with lists of frames, as `ZeroMQ` sockets take and give them.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::wire::{INLINE_MAX_BYTES, WireChunks};
use crate::domain::{Input, InputType, InvalidName, ModelName, ModelVersion};

/// The version of the protocol that both sides must have.
pub const RPC_VERSION: u32 = 3;

const TYPE_NEW_CONTAINER: u32 = 0;
const TYPE_CONTENT: u32 = 1;
const TYPE_HEARTBEAT: u32 = 2;

const HEARTBEAT_KEEP_ALIVE: u32 = 0;
const HEARTBEAT_SEND_METADATA: u32 = 1;

const REQUEST_PREDICT: u32 = 0;

/// Frames of an answer before its outputs.
const ANSWER_HEAD_FRAMES: usize = 5;
/// Frames of a predict message before its inputs.
const PREDICT_HEAD_FRAMES: usize = 7;
/// Bytes of a number in a header.
const WORD_BYTES: usize = 8;

/// A message of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromContainer {
    /// It is alive, or it wants to be asked for its metadata.
    Heartbeat,
    /// It says what it serves.
    NewContainer {
        /// The model.
        name: ModelName,
        /// Its version.
        version: ModelVersion,
        /// What its inputs are made of.
        input_type: InputType,
    },
    /// The outputs of one batch.
    Answer {
        /// The id of the predict message that it answers.
        message_id: u32,
        /// One output per input, in order; meant to be UTF-8 text, which is not checked here.
        outputs: Vec<Bytes>,
    },
}

/// A message of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromServer {
    /// The answer to a heartbeat.
    Heartbeat {
        /// The server does not know this connection and wants a new-container message.
        send_metadata: bool,
    },
    /// A batch to predict.
    Predict {
        /// To be sent back with the outputs.
        message_id: u32,
        /// What the inputs are made of.
        input_type: InputType,
        /// One frame per input; that its length suits the type is the model's to check.
        inputs: Vec<Bytes>,
    },
}

/// Which part of a message holds something wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The empty first frame.
    Delimiter,
    /// The message type.
    MessageType,
    /// The heartbeat's kind.
    HeartbeatKind,
    /// The message id.
    MessageId,
    /// The request type.
    RequestType,
    /// The length of the header.
    HeaderBytes,
    /// The header.
    Header,
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
        })
    }
}

/// Why frames are not a message of version 3. The texts are for the operator's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A part is missing, or its frame has the wrong length.
    #[error("the message's {part} is missing or has the wrong length ({bytes:?} bytes)")]
    Malformed {
        /// Which.
        part: Part,
        /// Length of the frame, if there is one.
        bytes: Option<usize>,
    },
    /// A number with no meaning.
    #[error("the message has the unknown {part} {value}")]
    Unknown {
        /// Which number.
        part: Part,
        /// Its value.
        value: u64,
    },
    /// Frames that should not be there, or too few.
    #[error("a message of this kind has {expected} frames, not {found}")]
    FrameCount {
        /// By the table.
        expected: usize,
        /// What arrived.
        found: usize,
    },
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
    /// An input type that is not `0` to `4`.
    #[error("the container's input type is {0:?}, not a number from 0 to 4")]
    InputType(String),
    /// The header counts more outputs or inputs than allowed.
    #[error("the message counts {count} items; the limit is {max}")]
    TooMany {
        /// By its header.
        count: u64,
        /// The limit.
        max: usize,
    },
    /// The header and the frames behind it differ in number.
    #[error("the header counts {count} items but {frames} frames follow it")]
    ItemCount {
        /// By the header.
        count: u64,
        /// What arrived.
        frames: usize,
    },
    /// The header and a frame differ in length.
    #[error("item {index} has {bytes} bytes but the header says {announced}")]
    ItemBytes {
        /// Which, from 0.
        index: usize,
        /// By the header.
        announced: u64,
        /// What arrived.
        bytes: usize,
    },
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

/// Reads a message of a container. An answer may have up to `outputs_max` outputs; they are moved,
/// not copied.
///
/// # Errors
/// What is wrong with the message. The connection is then to be closed.
pub fn decode_from_container(
    mut frames: Vec<Bytes>,
    outputs_max: usize,
) -> Result<FromContainer, DecodeError> {
    delimiter(&frames)?;
    match u32_at(&frames, 1, Part::MessageType)? {
        TYPE_HEARTBEAT => {
            frame_count(&frames, 2)?;
            Ok(FromContainer::Heartbeat)
        }
        TYPE_NEW_CONTAINER => new_container(&frames),
        TYPE_CONTENT => {
            let message_id = u32_at(&frames, 2, Part::MessageId)?;
            let header = header(&frames, 3, 1)?;
            items(header, 0, &frames[ANSWER_HEAD_FRAMES..], outputs_max)?;
            frames.drain(..ANSWER_HEAD_FRAMES);
            Ok(FromContainer::Answer { message_id, outputs: frames })
        }
        other => Err(unknown(Part::MessageType, other)),
    }
}

/// Reads a message of the server. A batch may have up to `inputs_max` inputs; they are moved, not
/// copied.
///
/// # Errors
/// What is wrong with the message.
pub fn decode_from_server(
    mut frames: Vec<Bytes>,
    inputs_max: usize,
) -> Result<FromServer, DecodeError> {
    delimiter(&frames)?;
    rpc_version(frames.get(1))?;
    match u32_at(&frames, 2, Part::MessageType)? {
        TYPE_HEARTBEAT => {
            let kind = u32_at(&frames, 3, Part::HeartbeatKind)?;
            frame_count(&frames, 4)?;
            match kind {
                HEARTBEAT_KEEP_ALIVE => Ok(FromServer::Heartbeat { send_metadata: false }),
                HEARTBEAT_SEND_METADATA => Ok(FromServer::Heartbeat { send_metadata: true }),
                other => Err(unknown(Part::HeartbeatKind, other)),
            }
        }
        TYPE_CONTENT => {
            let message_id = u32_at(&frames, 3, Part::MessageId)?;
            let request = u32_at(&frames, 4, Part::RequestType)?;
            if request != REQUEST_PREDICT {
                return Err(unknown(Part::RequestType, request));
            }
            let header = header(&frames, 5, 2)?;
            let code = word(header, 0);
            let input_type = InputType::from_wire_code(code)
                .ok_or_else(|| DecodeError::InputType(code.to_string()))?;
            items(header, 1, &frames[PREDICT_HEAD_FRAMES..], inputs_max)?;
            frames.drain(..PREDICT_HEAD_FRAMES);
            Ok(FromServer::Predict { message_id, input_type, inputs: frames })
        }
        other => Err(unknown(Part::MessageType, other)),
    }
}

/// Queues the server's answer to a heartbeat. `send_metadata`: the server does not know this
/// connection.
pub fn encode_heartbeat(out: &mut WireChunks, send_metadata: bool) {
    let kind = if send_metadata { HEARTBEAT_SEND_METADATA } else { HEARTBEAT_KEEP_ALIVE };
    out.copy_frame(&[], true);
    out.copy_frame(&RPC_VERSION.to_le_bytes(), true);
    out.copy_frame(&TYPE_HEARTBEAT.to_le_bytes(), true);
    out.copy_frame(&kind.to_le_bytes(), false);
}

/// Queues a batch; large inputs are queued by reference.
pub fn encode_predict<'a, I>(
    out: &mut WireChunks,
    message_id: u32,
    input_type: InputType,
    inputs: I,
) where
    I: IntoIterator<Item = &'a Input>,
    I::IntoIter: ExactSizeIterator + Clone,
{
    let inputs = inputs.into_iter();
    let count = inputs.len();
    let header_bytes = (2 + count) * WORD_BYTES;
    out.copy_frame(&[], true);
    out.copy_frame(&RPC_VERSION.to_le_bytes(), true);
    out.copy_frame(&TYPE_CONTENT.to_le_bytes(), true);
    out.copy_frame(&message_id.to_le_bytes(), true);
    out.copy_frame(&REQUEST_PREDICT.to_le_bytes(), true);
    out.copy_frame(&(header_bytes as u64).to_le_bytes(), true);
    out.fill_frame(header_bytes, count > 0, |header| {
        header.put_u64_le(u64::from(input_type.wire_code()));
        header.put_u64_le(count as u64);
        for input in inputs.clone() {
            header.put_u64_le(input.0.len() as u64);
        }
    });
    for (index, input) in inputs.enumerate() {
        let more = index + 1 < count;
        if input.0.len() <= INLINE_MAX_BYTES {
            out.copy_frame(&input.0, more);
        } else {
            out.push_frame(Bytes::from_owner(Arc::clone(&input.0)), more);
        }
    }
}

/// A container's heartbeat.
#[must_use]
pub fn encode_container_heartbeat() -> Vec<Bytes> {
    vec![Bytes::new(), number(TYPE_HEARTBEAT)]
}

/// A container's description of itself.
#[must_use]
pub fn encode_new_container(
    name: &ModelName,
    version: &ModelVersion,
    input_type: InputType,
) -> Vec<Bytes> {
    vec![
        Bytes::new(),
        number(TYPE_NEW_CONTAINER),
        Bytes::copy_from_slice(name.as_str().as_bytes()),
        Bytes::copy_from_slice(version.as_str().as_bytes()),
        Bytes::from(input_type.wire_code().to_string()),
        number(RPC_VERSION),
    ]
}

/// A container's answer to the predict message `message_id`.
#[must_use]
pub fn encode_answer(message_id: u32, outputs: Vec<Bytes>) -> Vec<Bytes> {
    let mut header = Vec::with_capacity((1 + outputs.len()) * WORD_BYTES);
    header.put_u64_le(outputs.len() as u64);
    for output in &outputs {
        header.put_u64_le(output.len() as u64);
    }
    let mut frames = Vec::with_capacity(ANSWER_HEAD_FRAMES + outputs.len());
    frames.push(Bytes::new());
    frames.push(number(TYPE_CONTENT));
    frames.push(number(message_id));
    frames.push(Bytes::copy_from_slice(&(header.len() as u64).to_le_bytes()));
    frames.push(Bytes::from(header));
    frames.extend(outputs);
    frames
}

fn number(value: u32) -> Bytes {
    Bytes::copy_from_slice(&value.to_le_bytes())
}

fn unknown(part: Part, value: u32) -> DecodeError {
    DecodeError::Unknown { part, value: u64::from(value) }
}

fn delimiter(frames: &[Bytes]) -> Result<(), DecodeError> {
    let bytes = frames.first().map(Bytes::len);
    if bytes == Some(0) {
        return Ok(());
    }
    Err(DecodeError::Malformed { part: Part::Delimiter, bytes })
}

fn u32_at(frames: &[Bytes], index: usize, part: Part) -> Result<u32, DecodeError> {
    let frame = frames.get(index);
    frame
        .and_then(|frame| <[u8; 4]>::try_from(&frame[..]).ok())
        .map(u32::from_le_bytes)
        .ok_or(DecodeError::Malformed { part, bytes: frame.map(Bytes::len) })
}

fn frame_count(frames: &[Bytes], expected: usize) -> Result<(), DecodeError> {
    if frames.len() == expected {
        return Ok(());
    }
    Err(DecodeError::FrameCount { expected, found: frames.len() })
}

/// Checks the RPC version. Containers on the JVM send it in 8 bytes, all others in 4.
fn rpc_version(frame: Option<&Bytes>) -> Result<(), DecodeError> {
    let found = frame.and_then(|frame| {
        let long = <[u8; 8]>::try_from(&frame[..]).ok().map(u64::from_le_bytes);
        let short = <[u8; 4]>::try_from(&frame[..]).ok().map(u32::from_le_bytes);
        short.or_else(|| u32::try_from(long?).ok())
    });
    if found == Some(RPC_VERSION) { Ok(()) } else { Err(DecodeError::RpcVersion { found }) }
}

fn new_container(frames: &[Bytes]) -> Result<FromContainer, DecodeError> {
    // The version comes first: of another version, nothing else is known to be where it should.
    rpc_version(frames.get(5))?;
    frame_count(frames, 6)?;
    Ok(FromContainer::NewContainer {
        name: name(&frames[2], "model name", ModelName::parse)?,
        version: name(&frames[3], "model version", ModelVersion::parse)?,
        input_type: input_type(&frames[4])?,
    })
}

fn name<T>(
    frame: &[u8],
    field: &'static str,
    parse: fn(&str) -> Result<T, InvalidName>,
) -> Result<T, DecodeError> {
    let named = std::str::from_utf8(frame)
        .map_err(|_| NameFault::NotText)
        .and_then(|text| parse(text).map_err(NameFault::from));
    named.map_err(|why| DecodeError::Name { field, why })
}

/// Reads the input type. The original's containers in C++ and R cut this frame to the length of the
/// model version, so behind the digit there may be a zero byte and rubbish.
fn input_type(frame: &[u8]) -> Result<InputType, DecodeError> {
    let end = frame.iter().position(|byte| *byte == 0).unwrap_or(frame.len());
    let text = String::from_utf8_lossy(&frame[..end.min(64)]);
    text.parse()
        .ok()
        .and_then(InputType::from_wire_code)
        .ok_or_else(|| DecodeError::InputType(text.into_owned()))
}

/// The header whose length is in frame `index` and which is the frame behind it. It has at least
/// `words_min` numbers and nothing but whole numbers.
fn header(frames: &[Bytes], index: usize, words_min: usize) -> Result<&[u8], DecodeError> {
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
fn word(header: &[u8], index: usize) -> u64 {
    header
        .get(index * WORD_BYTES..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |word| u64::from_le_bytes(*word))
}

/// Checks that number `count_at` of the header counts `frames`, and that what follows are their
/// lengths.
fn items(header: &[u8], count_at: usize, frames: &[Bytes], max: usize) -> Result<(), DecodeError> {
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
        let announced = u64::from_le_bytes(*length);
        if announced != frame.len() as u64 {
            return Err(DecodeError::ItemBytes { index, announced, bytes: frame.len() });
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
