//! Arbitrary bytes as tensors: rows of JSON, bodies of requests, answers of containers. No panic,
//! nothing that is longer than its bound, and every row that is made is one of its signature.
//!
//! Input: a byte that chooses what the rest is, then the rest.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use clipper_domain::Signature;
use clipper_oip::grpc::Request;
use clipper_oip::{TensorAnswer, parse_tensors};
use clipper_tensors::batch::{self, Expected, Group};
use clipper_tensors::json;
use clipper_tensors::row::RowCheck;
use libfuzzer_sys::fuzz_target;

const ROWS_MAX: usize = 16;
const BYTES_MAX: usize = 1 << 16;

fn signature() -> Arc<Signature> {
    let json = br#"{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,-1,2]},
        {"name":"t","datatype":"BYTES","shape":[-1]}],
        "outputs":[{"name":"y","datatype":"UINT8","shape":[-1,-1]},
        {"name":"l","datatype":"BYTES","shape":[-1,2]}]}"#;
    Arc::new(Signature::parse(json).expect("a signature"))
}

fuzz_target!(|data: &[u8]| {
    let [choice, rest @ ..] = data else { return };
    let signature = signature();
    let infer = match choice % 4 {
        0 => {
            let Ok(text) = std::str::from_utf8(rest) else { return };
            if let Ok(row) = json::read_row(text, signature.inputs(), &"input") {
                assert!(RowCheck::new(signature.inputs()).takes(&row));
                assert!(row.len() <= 64 + 16 * rest.len());
            }
            return;
        }
        1 => {
            let header = (usize::from(*choice) / 4 * 8).to_string();
            parse_tensors(rest, Some(header.as_bytes()), &signature, ROWS_MAX)
        }
        2 => Request::read(rest).and_then(|read| read.infer_tensors(&signature, ROWS_MAX)),
        _ => return answers(&signature, rest),
    };
    let Ok(infer) = infer else { return };
    assert!((1..=ROWS_MAX).contains(&infer.inputs.len()));
    for input in &infer.inputs {
        assert!(RowCheck::new(signature.inputs()).takes(&input.0));
        assert!(input.0.len() <= 256 + 8 * rest.len());
    }
});

/// A description of up to 255 words, then parts of a length in one byte each.
fn answers(signature: &Arc<Signature>, data: &[u8]) {
    let Some((words, mut rest)) = data.split_first() else { return };
    let mut frames = Vec::new();
    let mut length = usize::from(*words) * 8;
    loop {
        let Some((part, left)) = rest.split_at_checked(length) else { break };
        frames.push(Bytes::copy_from_slice(part));
        let Some((next, left)) = left.split_first() else { break };
        (length, rest) = (usize::from(*next), left);
    }
    let specs = signature.outputs();
    let expected = Expected { specs, rows: Some(ROWS_MAX), error_max_bytes: 64 };
    let Ok(groups) = batch::parse(&frames, expected) else { return };
    assert_eq!(groups.iter().map(|group| group.rows).sum::<usize>(), ROWS_MAX);
    let rows: Vec<Arc<[u8]>> = groups.iter().flat_map(Group::rows).collect();
    assert!(rows.iter().all(|row| RowCheck::new(specs).takes(row)));
    let outputs = [false, true].into_iter().enumerate();
    let outputs = outputs.map(|(at, binary)| clipper_oip::WantedOutput { at, binary }).collect();
    let form = clipper_oip::TensorForm { signature: Arc::clone(signature), outputs };
    let rows: Vec<&Arc<[u8]>> = rows.iter().collect();
    let answer =
        TensorAnswer { model_name: "m", model_version: None, id: None, rows: &rows, form: &form };
    if let Ok(parts) = answer.write(BYTES_MAX) {
        assert!(parts.bytes() <= BYTES_MAX + 2);
    }
}
