//! Tests of items that are in one frame.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use clipper_domain::{Input, InputType};
use proptest::prelude::*;

use super::{
    AnswerForm, AnswerLimits, DecodeError, FromContainer, FromServer, decode_from_container,
    decode_from_server, encode_answer, encode_predict,
};
use crate::joined::OUTPUTS_MAX_BYTES;
use crate::wire::{INLINE_MAX_BYTES, WireChunks};
use crate::zmtp::{Decoder, Incoming, Limits, LimitsOf};

const MAX: usize = 16;
const AGREED: AnswerLimits =
    AnswerLimits { outputs_max: MAX, error_max_bytes: Some(100), joined: true, computed: true };
const FORM: AnswerForm = AnswerForm { joined: true, computed: None };

/// The frames of a batch.
fn sent(inputs: &[Bytes], joined: bool) -> Vec<Bytes> {
    let inputs: Vec<Input> = inputs.iter().map(|text| Input(Arc::from(&text[..]))).collect();
    let mut out = WireChunks::new();
    encode_predict(&mut out, 7, (InputType::Strings, joined), &inputs);
    let mut bytes = BytesMut::from(&out.copy_to_bytes(out.remaining())[..]);
    let (frame_max_bytes, message_max_bytes) = (1 << 21, 1 << 22);
    let of = LimitsOf::Answers;
    let limits = Limits { frames_max: 128, frame_max_bytes, message_max_bytes, of };
    match Decoder::new(limits).next(&mut bytes).unwrap() {
        Some(Incoming::Message(frames)) => frames,
        other => panic!("{other:?}"),
    }
}

#[test]
fn small_items_travel_in_one_frame_and_large_ones_by_themselves() {
    let small: Vec<Bytes> = ["a", "", "bcd"].map(Bytes::from).into();
    let frames = sent(&small, true);
    assert_eq!((frames.len(), &frames[7][..]), (8, &b"abcd"[..]));
    assert_eq!(sent(&small, false).len(), 10);
    let large = [small[0].clone(), Bytes::from(vec![0; INLINE_MAX_BYTES + 1])];
    assert_eq!(sent(&large, true).len(), 9);
    assert_eq!(sent(&small[..1], true).len(), 8);
    let answer = encode_answer(7, small.clone(), &[2], FORM);
    assert_eq!((answer.len(), &answer[5][..]), (6, &b"abcd"[..]));
    let long = vec![Bytes::from(vec![b'x'; OUTPUTS_MAX_BYTES / 2 + 1]); 2];
    assert_eq!(encode_answer(7, long, &[], FORM).len(), 7);
}

#[test]
fn what_does_not_fit_or_was_not_agreed_is_refused() {
    let small: Vec<Bytes> = ["a", "", "bcd"].map(Bytes::from).into();
    let answer = encode_answer(7, small.clone(), &[], FORM);
    let plain = AnswerLimits { joined: false, ..AGREED };
    let refused = Err(DecodeError::ItemCount { count: 3, frames: 1 });
    assert_eq!(decode_from_container(answer.clone(), plain), refused);
    for body in ["abc", "abcde"] {
        let mut other = answer.clone();
        other[5] = Bytes::from(body);
        assert_eq!(decode_from_container(other, AGREED), refused, "{body}");
    }
    let many = encode_answer(7, vec![Bytes::from("x"); MAX + 1], &[], FORM);
    let too_many = Err(DecodeError::TooMany { count: MAX as u64 + 1, max: MAX });
    assert_eq!(decode_from_container(many, AGREED), too_many);
    // Lengths whose sum is beyond all numbers.
    let mut header = answer[4].to_vec();
    header[8..16].copy_from_slice(&(u64::MAX >> 1).to_le_bytes());
    header[16..24].copy_from_slice(&(u64::MAX >> 1).to_le_bytes());
    header[24..32].copy_from_slice(&6u64.to_le_bytes());
    let mut other = answer;
    other[4] = Bytes::from(header);
    assert_eq!(decode_from_container(other, AGREED), refused);
}

proptest! {
    #[test]
    fn items_come_back(
        texts in prop::collection::vec("[a-z]{0,9}", 0..MAX),
        bits: u16,
        micros: Option<u32>,
    ) {
        let computed = micros.map(|micros| Duration::from_micros(micros.into()));
        let items: Vec<Bytes> = texts.into_iter().map(Bytes::from).collect();
        let is_error = |at: &usize| bits & 1 << at != 0 && !items[*at].is_empty();
        let errors: Vec<usize> = (0..items.len()).filter(is_error).collect();
        let form = AnswerForm { computed, ..FORM };
        let answer = encode_answer(7, items.clone(), &errors, form);
        prop_assert!(items.len() < 2 || answer.len() == 6);
        let read = decode_from_container(answer, AGREED);
        let outputs = items.clone();
        let expected = FromContainer::Answer { message_id: 7, outputs, errors, computed };
        prop_assert_eq!(read, Ok(expected));
        let read = decode_from_server(sent(&items, true), MAX);
        let input_type = InputType::Strings;
        let expected = FromServer::Predict { message_id: 7, input_type, inputs: items };
        prop_assert_eq!(read, Ok(expected));
    }
}
