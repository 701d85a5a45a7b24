//! Arbitrary frames to the message codec, both directions: no panic, and what was read is written
//! back to a message with the same meaning.
//!
//! Input: frames, each a length byte and its body; the last one may be cut.
#![no_main]

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use clipper_domain::Input;
use clipper_rpc::codec::{self, AnswerForm, AnswerLimits, FromContainer, FromServer};
use clipper_rpc::wire::WireChunks;
use clipper_rpc::zmtp::{Decoder, Incoming, Limits, LimitsOf};
use clipper_rpc::{streams, traces};
use libfuzzer_sys::fuzz_target;

const ITEMS_MAX: usize = 64;
const ERROR_MAX_BYTES: usize = 64;

fn split(mut data: &[u8]) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while let Some((&len, rest)) = data.split_first() {
        let (frame, rest) = rest.split_at(usize::from(len).min(rest.len()));
        frames.push(Bytes::copy_from_slice(frame));
        data = rest;
    }
    frames
}

/// What a peer reads of a queue with one message.
fn over_the_wire(mut out: WireChunks) -> Vec<Bytes> {
    let of = LimitsOf::Answers;
    let (frame_max_bytes, message_max_bytes) = (1 << 20, 1 << 20);
    let limits = Limits { frames_max: 128, frame_max_bytes, message_max_bytes, of };
    let mut buf = BytesMut::from(&out.copy_to_bytes(out.remaining())[..]);
    match Decoder::new(limits).next(&mut buf) {
        Ok(Some(Incoming::Message(frames))) if buf.is_empty() => frames,
        other => panic!("one whole message, not {other:?}"),
    }
}

fuzz_target!(|data: &[u8]| {
    let frames = split(data);
    // With and without the agreements that an answer may hold errors, that its outputs may be in one
    // frame, and that it may say how long it was computed.
    for agreed in 0..8 {
        let error_max_bytes = (agreed & 1 != 0).then_some(ERROR_MAX_BYTES);
        let (joined, computed) = (agreed & 2 != 0, agreed & 4 != 0);
        let limits = AnswerLimits { outputs_max: ITEMS_MAX, error_max_bytes, joined, computed };
        let Ok(message) = codec::decode_from_container(frames.clone(), limits) else { continue };
        let again = match message.clone() {
            FromContainer::Heartbeat => codec::encode_container_heartbeat(),
            FromContainer::NewContainer { name, version, input_type, extensions, signature } => {
                let signature = signature.as_deref();
                codec::encode_new_container(&name, &version, input_type, extensions, signature)
            }
            FromContainer::Build(build) => codec::encode_build(&build),
            FromContainer::Stream(news) => streams::encode_news(news),
            FromContainer::Answer { message_id, outputs, errors, computed } => {
                for &error in &errors {
                    let text = std::str::from_utf8(&outputs[error]).expect("checked");
                    assert!(!text.is_empty() && text.len() <= ERROR_MAX_BYTES);
                }
                assert!(error_max_bytes.is_some() || errors.is_empty());
                codec::encode_answer(message_id, outputs, &errors, AnswerForm { joined, computed })
            }
        };
        assert_eq!(codec::decode_from_container(again, limits), Ok(message));
    }
    if let Ok(message) = codec::decode_from_server(frames, ITEMS_MAX) {
        for joined in [false, true] {
            let mut out = WireChunks::new();
            match message.clone() {
                FromServer::Heartbeat { send_metadata } => {
                    codec::encode_heartbeat(&mut out, send_metadata);
                }
                FromServer::Extensions { accepted, error_max_bytes } => {
                    codec::encode_extensions(&mut out, accepted, error_max_bytes);
                }
                FromServer::Notice { level, text } => codec::encode_notice(&mut out, level, &text),
                FromServer::Stream(order) => streams::encode_order(&mut out, order),
                // Without a trace nothing is written.
                FromServer::Traces(of) if of.items.is_empty() => continue,
                FromServer::Traces(of) => {
                    traces::encode_traces(&mut out, of.message_id, of.items.into_iter());
                }
                FromServer::Predict { message_id, input_type, inputs } => {
                    let inputs: Vec<Input> =
                        inputs.iter().map(|input| Input(Arc::from(&input[..]))).collect();
                    codec::encode_predict(&mut out, message_id, (input_type, joined), &inputs);
                }
            }
            let again = codec::decode_from_server(over_the_wire(out), ITEMS_MAX);
            assert_eq!(again.as_ref(), Ok(&message));
        }
    }
});
