//! What a container says of itself, read.

use std::sync::Arc;

use bytes::Bytes;
use clipper_domain::{InputType, InvalidName, ModelName, ModelVersion, Signature};

use super::decode_error::{DecodeError, NameFault, Part};
use super::protocol::{Extensions, RPC_VERSION};

/// What a new-container message says.
pub(super) struct Introduction {
    pub(super) name: ModelName,
    pub(super) version: ModelVersion,
    pub(super) input_type: InputType,
    /// Unknown ones included.
    pub(super) extensions: Extensions,
    /// Of type tensors: what goes in and comes out.
    pub(super) signature: Option<Arc<Signature>>,
}

/// Reads a new-container message.
pub(super) fn decode(frames: &[Bytes]) -> Result<Introduction, DecodeError> {
    // The version comes first: of another version, nothing else is known to be where it should.
    let extensions = rpc_version(frames.get(5))?;
    // Of a type that is not known, too, the frames are those of the original.
    let input_type = frames.get(4).map(|frame| input_type(frame));
    let signature = match input_type {
        Some(Ok(InputType::Tensors)) => Some(signature(frames, extensions)?),
        _ => None,
    };
    frame_count(frames, if signature.is_some() { 7 } else { 6 })?;
    Ok(Introduction {
        name: name(&frames[2], "model name", ModelName::parse)?,
        version: name(&frames[3], "model version", ModelVersion::parse)?,
        input_type: input_type.unwrap_or_else(|| Err(DecodeError::InputType(String::new())))?,
        extensions,
        signature,
    })
}

/// What a container of type tensors takes and gives.
fn signature(frames: &[Bytes], extensions: Extensions) -> Result<Arc<Signature>, DecodeError> {
    if !extensions.has(Extensions::TENSORS) {
        return Err(DecodeError::InputType(InputType::Tensors.wire_code().to_string()));
    }
    let missing = DecodeError::Malformed { part: Part::Signature, bytes: None };
    let frame = frames.get(6).ok_or(missing)?;
    Signature::parse(frame).map(Arc::new).map_err(DecodeError::Signature)
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

/// Checks the RPC version and reads the extensions behind it. The frame has 4 bytes, or 8 from
/// containers that announce extensions and from those on the JVM, where the rest is zero.
pub(super) fn rpc_version(frame: Option<&Bytes>) -> Result<Extensions, DecodeError> {
    let found = frame.and_then(|frame| {
        let (version, rest) = frame.split_first_chunk::<4>()?;
        let extensions = match rest {
            [] => 0,
            rest => u32::from_le_bytes(rest.try_into().ok()?),
        };
        Some((u32::from_le_bytes(*version), Extensions(extensions)))
    });
    match found {
        Some((RPC_VERSION, extensions)) => Ok(extensions),
        found => Err(DecodeError::RpcVersion { found: found.map(|(version, _)| version) }),
    }
}

pub(super) fn frame_count(frames: &[Bytes], expected: usize) -> Result<(), DecodeError> {
    if frames.len() == expected {
        return Ok(());
    }
    Err(DecodeError::FrameCount { expected, found: frames.len() })
}
