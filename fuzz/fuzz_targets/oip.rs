//! Arbitrary bodies to the reader of inference requests, and arbitrary texts to the writer of
//! answers: no panic, nothing longer than its bound, and every input as its type has to be.
//!
//! Input: a byte that chooses the input type and whether there is a header, the header's value up
//! to the first 0, then the body.
#![no_main]

use clipper_domain::InputType;
use clipper_oip::{Answer, As, Datatype, Encoding, OutputForm, inflate, parse, text_bytes};
use libfuzzer_sys::fuzz_target;

const ROWS_MAX: usize = 64;
const BYTES_MAX: usize = 1 << 16;

fn requests(choice: u8, header: Option<&[u8]>, body: &[u8]) {
    let input_type = InputType::FLAT[usize::from(choice) % InputType::FLAT.len()];
    let Ok(infer) = parse(body, header, input_type, ROWS_MAX) else { return };
    assert!((1..=ROWS_MAX).contains(&infer.inputs.len()));
    let mut bytes = 0;
    for input in &infer.inputs {
        assert_eq!(input.0.len() % input_type.element_bytes(), 0);
        match input_type {
            InputType::Strings => assert!(std::str::from_utf8(&input.0).is_ok()),
            _ => assert!(!input.0.is_empty()),
        }
        bytes += input.0.len();
    }
    // The shortest number takes one byte, as UINT8 in binary form, and becomes eight.
    assert!(bytes <= 8 * body.len());
}

fn answers(choice: u8, body: &[u8]) {
    // What a model says is UTF-8 and JSON by the time it is an output.
    let texts: Vec<Vec<u8>> = body
        .split(|byte| *byte == b'\n')
        .filter_map(|text| std::str::from_utf8(text).ok())
        .map(|text| match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => text.trim().as_bytes().to_vec(),
            Err(_) => serde_json::to_vec(text).expect("a string"),
        })
        .take(ROWS_MAX)
        .collect();
    let rows: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
    let datatype = match choice % 4 {
        0 => As::Texts,
        1 => As::Auto,
        2 => As::Numbers(Datatype::Fp32),
        _ => As::Numbers(Datatype::Int64),
    };
    let form = OutputForm { binary: choice & 128 != 0, datatype };
    let (id, defaults) = (Some("id"), None);
    let answer =
        Answer { model_name: "m", model_version: Some("1"), id, rows: &rows, defaults, form };
    let Ok(parts) = answer.write(BYTES_MAX) else { return };
    let page: serde_json::Value = serde_json::from_slice(&parts.json).expect("JSON");
    let output = &page["outputs"][0];
    assert_eq!(output["shape"][0], rows.len());
    let binary = parts.binary.as_ref().map_or(0, Vec::len);
    assert!(parts.json.len() + binary <= BYTES_MAX);
    if form.binary {
        assert_eq!(output["parameters"]["binary_data_size"], binary);
    } else if output["datatype"] == "BYTES" {
        for (row, text) in rows.iter().enumerate() {
            let told = output["data"][row].as_str().expect("a string");
            assert_eq!(told.as_bytes(), &*text_bytes(text));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let [choice, rest @ ..] = data else { return };
    let (header, body) = if choice & 64 == 0 {
        (None, rest)
    } else {
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        (Some(&rest[..end]), &rest[(end + 1).min(rest.len())..])
    };
    requests(*choice, header, body);
    answers(*choice, rest);
    let encoding = if choice & 1 == 0 { Encoding::Gzip } else { Encoding::Deflate };
    if let Ok(whole) = inflate(rest, encoding, BYTES_MAX, |_| true, |_| true) {
        assert!(whole.len() <= BYTES_MAX);
    }
});
