//! The meaning of frames: Clipper's RPC version 3 (frame tables in [`super`]), both ways. Pure.
//!
//! A server decodes what containers send and encodes straight into the queue of a connection; a
//! container does the reverse with lists of frames, as `ZeroMQ` sockets take and give them.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::answer::{self, Answer};
pub use super::answer::{AnswerForm, AnswerLimits, encode_answer};
pub use super::decode_error::{DecodeError, ErrorTextFault, NameFault, Part};
use super::fields::{
    TYPE_CONTENT, delimiter, header, items, number, same_length, u32_at, unknown, word,
};
use super::introduction::{self, Introduction, frame_count, rpc_version};
use super::joined;
use super::protocol::WORD_BYTES;
pub use super::protocol::{Build, Extensions, NOTICE_MAX_BYTES, NoticeLevel, RPC_VERSION};
use super::streams::{self, StreamNews, StreamOrder};
use super::traces::{self, BatchTraces, HEARTBEAT_TRACES};
use super::wire::{INLINE_MAX_BYTES, WireChunks};
use clipper_domain::{Input, InputType, ModelName, ModelVersion, Signature};

const TYPE_NEW_CONTAINER: u32 = 0;
const TYPE_HEARTBEAT: u32 = 2;
const TYPE_BUILD: u32 = 3;

const HEARTBEAT_KEEP_ALIVE: u32 = 0;
const HEARTBEAT_SEND_METADATA: u32 = 1;
const HEARTBEAT_EXTENSIONS: u32 = 2;
const HEARTBEAT_NOTICE: u32 = 3;

const REQUEST_PREDICT: u32 = 0;

/// Frames of a predict message before its inputs.
const PREDICT_HEAD_FRAMES: usize = 7;

/// A message of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromContainer {
    /// It is alive, or it wants to be asked for its metadata.
    Heartbeat,
    /// It says what it serves.
    NewContainer {
        name: ModelName,
        version: ModelVersion,
        /// What its inputs are made of.
        input_type: InputType,
        /// The extensions that it announces, unknown ones included.
        extensions: Extensions,
        /// Of type tensors: what goes in and comes out.
        signature: Option<Arc<Signature>>,
    },
    /// The outputs of one batch.
    Answer {
        /// The id of the predict message that it answers.
        message_id: u32,
        /// One output per input, in order; meant to be UTF-8 text, which is not checked here.
        outputs: Vec<Bytes>,
        /// Which of the outputs are errors of the model, ascending; their text is UTF-8.
        errors: Vec<usize>,
        /// How long the container says that it computed.
        computed: Option<Duration>,
    },
    /// Which code and file it runs.
    Build(Build),
    /// About answers in pieces.
    Stream(StreamNews),
}

/// A message of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromServer {
    /// The answer to a heartbeat.
    Heartbeat {
        /// The server does not know this connection and wants a new-container message.
        send_metadata: bool,
    },
    /// The extensions that the server accepts of those announced.
    Extensions {
        accepted: Extensions,
        /// Longest text of an error, bytes.
        error_max_bytes: u32,
    },
    /// What the server thinks of the container.
    Notice {
        /// How serious it is.
        level: NoticeLevel,
        /// For the container's log.
        text: String,
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
    /// About answers in pieces.
    Stream(StreamOrder),
    /// Which traces the items of the batch that follows belong to.
    Traces(BatchTraces),
}

/// Reads a message of a container. The outputs of an answer are moved, not copied.
///
/// # Errors
/// What is wrong with the message. The connection is then to be closed.
pub fn decode_from_container(
    frames: Vec<Bytes>,
    limits: AnswerLimits,
) -> Result<FromContainer, DecodeError> {
    delimiter(&frames)?;
    match u32_at(&frames, 1, Part::MessageType)? {
        TYPE_HEARTBEAT => {
            frame_count(&frames, 2)?;
            Ok(FromContainer::Heartbeat)
        }
        TYPE_NEW_CONTAINER => {
            let Introduction { name, version, input_type, extensions, signature } =
                introduction::decode(&frames)?;
            Ok(FromContainer::NewContainer { name, version, input_type, extensions, signature })
        }
        TYPE_CONTENT => {
            let Answer { message_id, outputs, errors, computed } = answer::decode(frames, limits)?;
            Ok(FromContainer::Answer { message_id, outputs, errors, computed })
        }
        TYPE_BUILD => {
            frame_count(&frames, 3)?;
            let bytes = Some(frames[2].len());
            let malformed = DecodeError::Malformed { part: Part::Build, bytes };
            Build::parse(&frames[2]).map(FromContainer::Build).ok_or(malformed)
        }
        other => streams::from_container(other, frames, limits.error_max_bytes)
            .map(FromContainer::Stream),
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
        TYPE_HEARTBEAT => heartbeat(&frames),
        TYPE_CONTENT => {
            let message_id = u32_at(&frames, 3, Part::MessageId)?;
            let request = u32_at(&frames, 4, Part::RequestType)?;
            if request != REQUEST_PREDICT {
                return Err(unknown(Part::RequestType, request));
            }
            joined::take_apart(&mut frames, (PREDICT_HEAD_FRAMES, 1, 0), inputs_max);
            let header = header(&frames, 5, 2)?;
            let code = word(header, 0);
            let input_type = InputType::from_wire_code(code)
                .ok_or_else(|| DecodeError::InputType(code.to_string()))?;
            items(header, 1, &frames[PREDICT_HEAD_FRAMES..], inputs_max, same_length)?;
            frames.drain(..PREDICT_HEAD_FRAMES);
            Ok(FromServer::Predict { message_id, input_type, inputs: frames })
        }
        other => Err(unknown(Part::MessageType, other)),
    }
}

fn heartbeat(frames: &[Bytes]) -> Result<FromServer, DecodeError> {
    let kind = u32_at(frames, 3, Part::HeartbeatKind)?;
    if kind == HEARTBEAT_TRACES {
        return traces::decode(frames).map(FromServer::Traces);
    }
    if kind > HEARTBEAT_NOTICE {
        return streams::from_server(kind, frames).map(FromServer::Stream);
    }
    let extended = matches!(kind, HEARTBEAT_EXTENSIONS | HEARTBEAT_NOTICE);
    frame_count(frames, if extended { 6 } else { 4 })?;
    match kind {
        HEARTBEAT_KEEP_ALIVE => Ok(FromServer::Heartbeat { send_metadata: false }),
        HEARTBEAT_SEND_METADATA => Ok(FromServer::Heartbeat { send_metadata: true }),
        HEARTBEAT_EXTENSIONS => Ok(FromServer::Extensions {
            accepted: Extensions(u32_at(frames, 4, Part::Extensions)?),
            error_max_bytes: u32_at(frames, 5, Part::Extensions)?,
        }),
        HEARTBEAT_NOTICE => {
            let text = &frames[5][..frames[5].len().min(NOTICE_MAX_BYTES)];
            Ok(FromServer::Notice {
                level: NoticeLevel::from_wire_code(u32_at(frames, 4, Part::NoticeLevel)?),
                text: String::from_utf8_lossy(text).into_owned(),
            })
        }
        other => Err(unknown(Part::HeartbeatKind, other)),
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

/// Queues the server's word on the extensions that a container has announced. Only for such a
/// container: others do not know this message.
pub fn encode_extensions(out: &mut WireChunks, accepted: Extensions, error_max_bytes: u32) {
    out.copy_frame(&[], true);
    out.copy_frame(&RPC_VERSION.to_le_bytes(), true);
    out.copy_frame(&TYPE_HEARTBEAT.to_le_bytes(), true);
    out.copy_frame(&HEARTBEAT_EXTENSIONS.to_le_bytes(), true);
    out.copy_frame(&accepted.0.to_le_bytes(), true);
    out.copy_frame(&error_max_bytes.to_le_bytes(), false);
}

/// Queues what the server thinks of a container, cut to [`NOTICE_MAX_BYTES`]. Only for one that has
/// announced [`Extensions::NOTICES`].
pub fn encode_notice(out: &mut WireChunks, level: NoticeLevel, text: &str) {
    out.copy_frame(&[], true);
    out.copy_frame(&RPC_VERSION.to_le_bytes(), true);
    out.copy_frame(&TYPE_HEARTBEAT.to_le_bytes(), true);
    out.copy_frame(&HEARTBEAT_NOTICE.to_le_bytes(), true);
    out.copy_frame(&level.wire_code().to_le_bytes(), true);
    let end = text.floor_char_boundary(NOTICE_MAX_BYTES);
    out.copy_frame(&text.as_bytes()[..end], false);
}

/// Queues a batch; large inputs are queued by reference. `joined`: the container takes the others
/// in one frame.
pub fn encode_predict<'a, I>(
    out: &mut WireChunks,
    message_id: u32,
    (input_type, joined): (InputType, bool),
    inputs: I,
) where
    I: IntoIterator<Item = &'a Input>,
    I::IntoIter: ExactSizeIterator + Clone,
{
    let inputs = inputs.into_iter();
    let count = inputs.len();
    encode_predict_head(out, message_id, input_type, count, |header| {
        for input in inputs.clone() {
            header.put_u64_le(input.0.len() as u64);
        }
    });
    if joined && joined::put_inputs(out, inputs.clone()) {
        return;
    }
    for (index, input) in inputs.enumerate() {
        let more = index + 1 < count;
        if input.0.len() <= INLINE_MAX_BYTES {
            out.copy_frame(&input.0, more);
        } else {
            out.push_frame(Bytes::from_owner(Arc::clone(&input.0)), more);
        }
    }
}

/// The frames of a batch before its `count` items, whose lengths `lengths` puts.
pub(crate) fn encode_predict_head(
    out: &mut WireChunks,
    message_id: u32,
    input_type: InputType,
    count: usize,
    lengths: impl FnOnce(&mut BytesMut),
) {
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
        lengths(header);
    });
}

#[must_use]
pub fn encode_container_heartbeat() -> Vec<Bytes> {
    vec![Bytes::new(), number(TYPE_HEARTBEAT)]
}

/// A container's description of itself. Extensions are announced behind the RPC version, in the
/// same frame, of which the original server reads the first 4 bytes; with a signature one more.
#[must_use]
pub fn encode_new_container(
    name: &ModelName,
    version: &ModelVersion,
    input_type: InputType,
    extensions: Extensions,
    signature: Option<&Signature>,
) -> Vec<Bytes> {
    let tensors = if signature.is_some() { Extensions::TENSORS } else { Extensions::NONE };
    let extensions = Extensions(extensions.0 | tensors.0);
    let mut rpc_version = RPC_VERSION.to_le_bytes().to_vec();
    if !extensions.is_none() {
        rpc_version.put_u32_le(extensions.0);
    }
    let mut frames = vec![
        Bytes::new(),
        number(TYPE_NEW_CONTAINER),
        Bytes::copy_from_slice(name.as_str().as_bytes()),
        Bytes::copy_from_slice(version.as_str().as_bytes()),
        Bytes::from(input_type.wire_code().to_string()),
        Bytes::from(rpc_version),
    ];
    frames.extend(signature.map(|signature| Bytes::from(signature.json())));
    frames
}

/// A container's word on which code and file it runs; only for a server that has accepted
/// [`Extensions::BUILD`].
#[must_use]
pub fn encode_build(build: &Build) -> Vec<Bytes> {
    vec![Bytes::new(), number(TYPE_BUILD), build.as_bytes().clone()]
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "joined_tests.rs"]
mod joined_tests;
