//! The container's half of protocol version 3 as frames (protocol page, section 3): pure, and
//! bounded, because every count is checked against the frames that really arrived.

use bytes::{BufMut, Bytes, BytesMut};

use crate::domain::InputType;

/// The RPC version that this container speaks.
pub const RPC_VERSION: u32 = 3;

const NEW_CONTAINER: u32 = 0;
const CONTENT: u32 = 1;
const HEARTBEAT: u32 = 2;
const KIND_SEND_METADATA: u32 = 1;
const REQUEST_PREDICT: u32 = 0;

/// What the server may say.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerMessage {
    /// A heartbeat was heard.
    KeepAlive,
    /// The server does not know this connection and wants a new-container message.
    SendMetadata,
    /// A batch to answer.
    Predict {
        /// Repeated in the answer.
        message_id: u32,
        /// What the server takes the inputs for; none when the code is unknown.
        input_type: Option<InputType>,
        /// One frame per input.
        inputs: Vec<Bytes>,
    },
    /// Well-formed, but nothing that a container acts on, such as feedback.
    Other,
}

/// Why a message cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame is missing.
    #[error("the message ends before its {0}")]
    Missing(&'static str),
    /// A frame has another length than its field.
    #[error("the {0} has the wrong length")]
    Length(&'static str),
    /// Another RPC version.
    #[error("the server speaks RPC version {0}, this container version {RPC_VERSION}")]
    Version(u32),
    /// The header counts other inputs than the frames that follow it.
    #[error("the header announces other inputs than the {0} that arrived")]
    Inputs(usize),
}

/// `""`, `u32 2`: the container is alive.
#[must_use]
pub fn heartbeat() -> Vec<Bytes> {
    vec![Bytes::new(), u32_frame(HEARTBEAT)]
}

/// Registers a replica of `name`, `version`.
#[must_use]
pub fn new_container(name: &str, version: &str, input_type: InputType) -> Vec<Bytes> {
    vec![
        Bytes::new(),
        u32_frame(NEW_CONTAINER),
        Bytes::copy_from_slice(name.as_bytes()),
        Bytes::copy_from_slice(version.as_bytes()),
        Bytes::from(input_type.wire_code().to_string()),
        u32_frame(RPC_VERSION),
    ]
}

/// Answers the batch `message_id`.
#[must_use]
pub fn answer(message_id: u32, outputs: Vec<String>) -> Vec<Bytes> {
    let mut header = BytesMut::with_capacity(8 * (outputs.len() + 1));
    header.put_u64_le(outputs.len() as u64);
    for output in &outputs {
        header.put_u64_le(output.len() as u64);
    }
    let mut header_bytes = BytesMut::with_capacity(8);
    header_bytes.put_u64_le(header.len() as u64);
    let mut frames = Vec::with_capacity(5 + outputs.len());
    frames.extend([
        Bytes::new(),
        u32_frame(CONTENT),
        u32_frame(message_id),
        header_bytes.freeze(),
        header.freeze(),
    ]);
    frames.extend(outputs.into_iter().map(Bytes::from));
    frames
}

/// Reads a message of the server.
///
/// # Errors
/// The first frame that does not fit; the connection is then no longer to be trusted.
pub fn decode(frames: Vec<Bytes>) -> Result<ServerMessage, FrameError> {
    let mut frames = frames.into_iter();
    if !next(&mut frames, "delimiter")?.is_empty() {
        return Err(FrameError::Length("delimiter"));
    }
    let version = next_u32(&mut frames, "RPC version")?;
    if version != RPC_VERSION {
        return Err(FrameError::Version(version));
    }
    match next_u32(&mut frames, "message type")? {
        HEARTBEAT => Ok(match next_u32(&mut frames, "heartbeat kind")? {
            KIND_SEND_METADATA => ServerMessage::SendMetadata,
            _ => ServerMessage::KeepAlive,
        }),
        CONTENT => decode_request(frames),
        _ => Ok(ServerMessage::Other),
    }
}

fn decode_request(
    mut frames: impl ExactSizeIterator<Item = Bytes>,
) -> Result<ServerMessage, FrameError> {
    let message_id = next_u32(&mut frames, "message id")?;
    if next_u32(&mut frames, "request type")? != REQUEST_PREDICT {
        return Ok(ServerMessage::Other);
    }
    let announced = u64_le(&next(&mut frames, "header length")?);
    let header = next(&mut frames, "header")?;
    if announced != Some(header.len() as u64) || header.len() % 8 != 0 {
        return Err(FrameError::Length("header"));
    }
    let mut words = header.chunks_exact(8).map(|word| u64_le(word).unwrap_or_default());
    let (Some(type_code), Some(count)) = (words.next(), words.next()) else {
        return Err(FrameError::Length("header"));
    };
    let inputs: Vec<Bytes> = frames.collect();
    let lengths_agree = words.len() == inputs.len()
        && words.zip(&inputs).all(|(length, input)| length == input.len() as u64);
    if count != inputs.len() as u64 || !lengths_agree {
        return Err(FrameError::Inputs(inputs.len()));
    }
    Ok(ServerMessage::Predict {
        message_id,
        input_type: InputType::from_wire_code(type_code),
        inputs,
    })
}

fn next(frames: &mut impl Iterator<Item = Bytes>, what: &'static str) -> Result<Bytes, FrameError> {
    frames.next().ok_or(FrameError::Missing(what))
}

fn next_u32(
    frames: &mut impl Iterator<Item = Bytes>,
    what: &'static str,
) -> Result<u32, FrameError> {
    let frame = next(frames, what)?;
    frame.as_ref().try_into().map(u32::from_le_bytes).map_err(|_| FrameError::Length(what))
}

fn u64_le(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}

fn u32_frame(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(header: &[u64], inputs: &[&'static [u8]]) -> Vec<Bytes> {
        let header: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut frames = vec![
            Bytes::new(),
            u32_frame(3),
            u32_frame(1),
            u32_frame(9),
            u32_frame(0),
            Bytes::copy_from_slice(&(header.len() as u64).to_le_bytes()),
            Bytes::from(header),
        ];
        frames.extend(inputs.iter().map(|input| Bytes::from_static(input)));
        frames
    }

    #[test]
    fn a_batch_is_read() {
        let message = decode(request(&[4, 2, 1, 3], &[b"a", b"bcd"]));
        let inputs = vec![Bytes::from_static(b"a"), Bytes::from_static(b"bcd")];
        assert_eq!(
            message,
            Ok(ServerMessage::Predict {
                message_id: 9,
                input_type: Some(InputType::Strings),
                inputs
            })
        );
    }

    #[test]
    fn counts_that_lie_are_refused() {
        let cases: [(&[u64], &[&'static [u8]]); 6] = [
            (&[4, 1 << 40, 1], &[b"a"]),
            (&[4, 1, 2], &[b"a"]),
            (&[4, 1], &[b"a"]),
            (&[4, 2, 1, 1], &[b"a"]),
            (&[4], &[]),
            (&[], &[]),
        ];
        for (header, inputs) in cases {
            assert!(decode(request(header, inputs)).is_err(), "{header:?}");
        }
        assert_eq!(
            decode(vec![Bytes::new(), u32_frame(2), u32_frame(2), u32_frame(0)]),
            Err(FrameError::Version(2))
        );
    }

    #[test]
    fn an_answer_counts_bytes_not_characters() {
        let frames = answer(7, vec!["é".to_owned(), String::new()]);
        assert_eq!(&frames[3][..], &24_u64.to_le_bytes());
        let header: Vec<u8> = [2_u64, 2, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(&frames[4][..], &header[..]);
        assert_eq!(frames.len(), 7);
    }

    proptest! {
        #[test]
        fn any_frames_are_read_or_refused(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12),
            start in 0_usize..5,
        ) {
            // Start like a real message, so that the later checks are reached too.
            let mut message = request(&[2, 1, 4], &[]);
            message.truncate(start + 2);
            message.extend(frames.into_iter().map(Bytes::from));
            let _ = decode(message);
        }
    }
}
