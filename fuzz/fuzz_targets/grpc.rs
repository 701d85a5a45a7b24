//! Arbitrary messages to the reader of `ModelInfer`: no panic, every input as its type has to be,
//! and what a general reader of protobuf makes of the message is what this one makes of it.
//!
//! Input: a byte that chooses the input type, then the message.
#![no_main]

use clipper_domain::InputType;
use clipper_oip::grpc::{ModelInferRequest, Request};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

const ROWS_MAX: usize = 64;

fuzz_target!(|data: &[u8]| {
    let [choice, message @ ..] = data else { return };
    let input_type = InputType::FLAT[usize::from(*choice) % InputType::FLAT.len()];
    let Ok(request) = Request::read(message) else { return };
    if let Ok(other) = ModelInferRequest::decode(message) {
        assert_eq!(request.model_name, other.model_name);
        assert_eq!(request.model_version, other.model_version);
        assert_eq!(request.id(), other.id);
    }
    let Ok(infer) = request.infer(input_type, ROWS_MAX) else { return };
    assert!((1..=ROWS_MAX).contains(&infer.inputs.len()));
    let mut bytes = 0;
    for input in &infer.inputs {
        assert_eq!(input.0.len() % input_type.element_bytes(), 0);
        bytes += input.0.len();
    }
    // The shortest number takes one byte, as UINT8 or as a varint, and becomes eight.
    assert!(bytes <= 8 * message.len());
});
