//! Answers in their forms.

use serde_json::{Value, json};

use super::*;

const MAX: usize = 1 << 20;

fn answer<'a>(rows: &'a [&'a [u8]], binary: bool, datatype: As) -> Answer<'a> {
    let form = OutputForm { binary, datatype };
    Answer { model_name: "m", model_version: Some("1"), id: None, rows, defaults: None, form }
}

fn in_json(rows: &[&[u8]], datatype: As) -> Value {
    let parts = answer(rows, false, datatype).write(MAX).unwrap();
    assert_eq!(parts.binary, None);
    serde_json::from_slice(&parts.json).unwrap()
}

#[test]
fn texts_are_strings_without_their_quotes_and_all_else_as_it_is() {
    let rows: [&[u8]; 4] = [b"7", b"\"caf\\u00e9 \\\"x\\\"\"", b"{\"a\": [1]}", b"null"];
    let page = in_json(&rows, As::Texts);
    let expected = json!({"model_name": "m", "model_version": "1", "outputs": [{
        "name": "output", "datatype": "BYTES", "shape": [4, 1],
        "data": ["7", "café \"x\"", "{\"a\": [1]}", "null"],
    }]});
    assert_eq!(page, expected);
    let parts = answer(&rows, true, As::Texts).write(MAX).unwrap();
    let mut binary = Vec::new();
    for text in ["7", "café \"x\"", "{\"a\": [1]}", "null"] {
        binary.extend_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
        binary.extend_from_slice(text.as_bytes());
    }
    let page: Value = serde_json::from_slice(&parts.json).unwrap();
    assert_eq!(page["outputs"][0]["parameters"]["binary_data_size"], json!(binary.len()));
    assert_eq!(parts.binary, Some(binary));
}

#[test]
fn numbers_are_given_where_all_rows_have_them() {
    let output = |rows: &[&[u8]], datatype| in_json(rows, datatype)["outputs"][0].clone();
    let whole = output(&[b"7", b"-8"], As::Auto);
    assert_eq!((&whole["datatype"], &whole["data"]), (&json!("INT64"), &json!([7, -8])));
    let mixed = output(&[b"7", b"0.5"], As::Auto);
    assert_eq!((&mixed["datatype"], &mixed["data"]), (&json!("FP64"), &json!([7.0, 0.5])));
    let lists = output(&[b"[0.25, 0.75]", b"[1, 0]"], As::Auto);
    assert_eq!(lists["shape"], json!([2, 2]));
    assert_eq!(lists["data"], json!([0.25, 0.75, 1.0, 0.0]));
    for rows in [[&b"7"[..], b"\"x\""], [b"[1]", b"[1, 2]"], [b"[]", b"[]"], [b"true", b"1"]] {
        assert_eq!(output(&rows, As::Auto)["datatype"], json!("BYTES"), "{rows:?}");
    }
    let parts = answer(&[b"1", b"2"], true, As::Numbers(Datatype::Fp32)).write(MAX).unwrap();
    assert_eq!(parts.binary.unwrap(), [1.0_f32.to_le_bytes(), 2.0_f32.to_le_bytes()].concat());
}

#[test]
fn a_datatype_that_was_asked_for_is_given_or_refused() {
    let fault = |rows: &[&[u8]], datatype| {
        answer(rows, false, As::Numbers(datatype)).write(MAX).unwrap_err().to_string()
    };
    let text = fault(&[b"1", b"\"cat\""], Datatype::Fp64);
    assert_eq!(
        text,
        "the output of row 1 is not FP64: it is neither a number nor a list of numbers"
    );
    assert!(fault(&[b"1.5"], Datatype::Int64).contains("cannot hold it"));
    assert!(fault(&[b"3000000000"], Datatype::Int32).contains("row 0"));
    assert!(fault(&[b"1e300"], Datatype::Fp32).contains("row 0"));
}

#[test]
fn an_answer_without_rows_is_json_as_well() {
    for datatype in [As::Texts, As::Auto, As::Numbers(Datatype::Fp32)] {
        assert_eq!(in_json(&[], datatype)["outputs"][0]["data"], json!([]));
    }
}

#[test]
fn an_answer_has_a_bound() {
    let long = format!("\"{}\"", "x".repeat(1_000));
    let rows = vec![long.as_bytes(); 100];
    for binary in [false, true] {
        let error = answer(&rows, binary, As::Texts).write(50_000).unwrap_err();
        assert_eq!(error, OutputFault::TooLong(50_000));
    }
    let numbers = format!("[{}1]", "1,".repeat(1_000));
    let rows = vec![numbers.as_bytes(); 100];
    let error = answer(&rows, true, As::Auto).write(50_000).unwrap_err();
    assert_eq!(error, OutputFault::TooLong(50_000));
}

#[test]
fn default_outputs_are_named_row_by_row() {
    let mut answer = answer(&[b"1", b"-1", b"-1"], false, As::Texts);
    answer.id = Some("a");
    answer.defaults = Some(Defaults { rows: vec![1, 2], explanation: "late" });
    let page: Value = serde_json::from_slice(&answer.write(MAX).unwrap().json).unwrap();
    let expected = json!({"default": true, "default_rows": "1,2", "default_explanation": "late"});
    assert_eq!((&page["parameters"], &page["id"]), (&expected, &json!("a")));
}
