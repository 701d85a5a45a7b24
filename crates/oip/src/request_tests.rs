//! Requests as clients send them, and as they should not.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::error::Class;

const ROWS_MAX: usize = 100;

fn of(body: &Value, input_type: InputType) -> Result<Infer, InferError> {
    parse(body.to_string().as_bytes(), None, input_type, ROWS_MAX)
}

fn refused(body: &Value, input_type: InputType) -> String {
    of(body, input_type).unwrap_err().to_string()
}

fn doubles(data: &Value, shape: &Value) -> Value {
    json!({"inputs": [{"name": "input", "shape": shape, "datatype": "FP64", "data": data}]})
}

fn binary(json: &Value, tail: &[u8], input_type: InputType) -> Result<Infer, InferError> {
    let mut body = json.to_string().into_bytes();
    let header = body.len().to_string();
    body.extend_from_slice(tail);
    parse(&body, Some(header.as_bytes()), input_type, ROWS_MAX)
}

fn sized(datatype: &str, shape: &Value, size: u64) -> Value {
    json!({"inputs": [{"name": "input", "shape": shape, "datatype": datatype,
        "parameters": {"binary_data_size": size}}]})
}

#[test]
fn a_request_says_more_than_its_inputs() {
    let mut body = doubles(&json!([[1, 2], [3, 4]]), &json!([2, 2]));
    body["id"] = json!("7");
    body["model_name"] = json!("passed over");
    body["parameters"] = json!({"timeout": 2500, "priority": 1, "binary_data_output": true,
        "default": true, "sequence_id": "x", "anything": {"at": ["all"]}});
    let infer = of(&body, InputType::Doubles).unwrap();
    assert_eq!(infer.inputs.len(), 2);
    assert_eq!(infer.id.as_deref(), Some("7"));
    assert_eq!(infer.timeout, Some(Duration::from_micros(2_500)));
    assert!(infer.takes_default && infer.output.binary && infer.priority == 1);
    body["outputs"] = json!([{"name": "output", "parameters":
        {"binary_data": false, "datatype": "FP64"}}]);
    let infer = of(&body, InputType::Doubles).unwrap();
    let form = OutputForm { binary: false, datatype: As::Numbers(Datatype::Fp64) };
    assert_eq!(infer.output, form);
    body["parameters"] = json!({"timeout": 0, "output_datatype": "auto"});
    body["outputs"] = Value::Null;
    let infer = of(&body, InputType::Doubles).unwrap();
    assert_eq!((infer.timeout, infer.priority), (None, 0), "0 says nothing");
    assert_eq!(infer.output.datatype, As::Auto);
}

#[test]
fn a_binary_input_stands_behind_the_json() {
    let wire: Vec<u8> = [1.5_f32, 2.5, 3.5, 4.5].iter().flat_map(|n| n.to_le_bytes()).collect();
    let infer = binary(&sized("FP32", &json!([2, 2]), 16), &wire, InputType::Floats).unwrap();
    assert_eq!((&*infer.inputs[0].0, &*infer.inputs[1].0), (&wire[..8], &wire[8..]));
    let wider = binary(&sized("FP32", &json!([1, 4]), 16), &wire, InputType::Doubles).unwrap();
    assert_eq!(wider.inputs[0].0[..8], 1.5_f64.to_le_bytes());
    let raw = parse(&wire, Some(b"0"), InputType::Floats, ROWS_MAX).unwrap();
    assert!(raw.output.binary && *raw.inputs[0].0 == wire[..]);
    let bytes = sized("UINT8", &json!([2, 2]), 4);
    let images = binary(&bytes, &[1, 2, 3, 4], InputType::Bytes).unwrap();
    assert_eq!(&*images.inputs[1].0, [3, 4]);
}

#[test]
fn what_is_wrong_is_named_by_its_field() {
    let good = || doubles(&json!([1, 2]), &json!([1, 2]));
    let with = |path: &str, value: Value| {
        let mut body = good();
        *body.pointer_mut(path).unwrap() = value;
        body
    };
    let cases = [
        (json!([]), "request: "),
        (json!({}), "missing field `inputs`"),
        (json!({"inputs": []}), "inputs: it is missing"),
        (json!({"inputs": [{"name": "input"}]}), "inputs[0]: missing field"),
        (with("/inputs/0/name", json!("x")), "inputs[0].name: there is no tensor 'x'"),
        (with("/inputs/0/datatype", json!("FLOAT")), "inputs[0].datatype: 'FLOAT' is not"),
        (with("/inputs/0/datatype", json!("BYTES")), "inputs[0].datatype: BYTES cannot give"),
        (with("/inputs/0/shape", json!([2])), "inputs[0].shape: numbers need"),
        (with("/inputs/0/shape", json!([-1, 2])), "inputs[0].shape[0]: invalid value"),
        (with("/inputs/0/shape", json!([1.5, 2])), "inputs[0].shape[0]: invalid type"),
        (with("/inputs/0/shape", json!([2, 0])), "inputs[0].shape: a dimension is 0"),
        (with("/inputs/0/shape", json!([1, 1_u64 << 63])), "inputs[0].shape: it has more"),
        (with("/inputs/0/shape", json!([101, 2])), "inputs[0].shape: 101 rows"),
        (with("/inputs/0/shape", json!(vec![1; 33])), "inputs[0].shape: more than 32"),
        (with("/inputs/0/data", json!([1, "2"])), "inputs[0].data: element 1 is not of"),
        (with("/inputs/0/data", json!([1, 2, 3])), "inputs[0].data: the shape says 2"),
        (with("/inputs/0/data", Value::Null), "inputs[0].data: give either"),
    ];
    for (body, part) in cases {
        let text = refused(&body, InputType::Doubles);
        assert!(text.contains(part), "{body}: {text}");
    }
    let mut twice = good();
    let one = twice["inputs"][0].clone();
    twice["inputs"].as_array_mut().unwrap().push(one.clone());
    assert!(refused(&twice, InputType::Doubles).contains("inputs[1].name: the tensor"));
    twice["inputs"] = json!(vec![one; 65]);
    assert!(refused(&twice, InputType::Doubles).contains("inputs: more than 64"));
    for (outputs, part) in [
        (json!([{"name": "scores"}]), "outputs[0].name: there is no tensor 'scores'"),
        (json!([{"name": "output"}, {"name": "output"}]), "outputs[1].name"),
        (json!([{"name": "output", "parameters": {"classification": 3}}]), "classification: it is"),
        (json!([{"name": "output", "parameters": {"datatype": "INT8"}}]), "parameters.datatype: "),
        (json!({"name": "output"}), "outputs: invalid type"),
    ] {
        let mut body = good();
        body["outputs"] = outputs;
        let text = refused(&body, InputType::Doubles);
        assert!(text.contains(part), "{body}: {text}");
    }
    let shared = json!({"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64",
        "parameters": {"shared_memory_region": "r"}}]});
    assert_eq!(of(&shared, InputType::Doubles).unwrap_err().class(), Class::Unsupported);
    let many = doubles(&json!([1]), &json!([101, 1]));
    assert_eq!(of(&many, InputType::Doubles).unwrap_err().class(), Class::TooLarge);
}

#[test]
fn sizes_of_binary_data_that_lie_are_refused() {
    let tail = [0; 16];
    for (json, part) in [
        (sized("FP64", &json!([1, 2]), 17), "binary_data_size: it says 17 bytes, but there are 16"),
        (sized("FP64", &json!([1, 2]), u64::MAX), "binary_data_size: it says"),
        (sized("FP64", &json!([1, 2]), 8), "binary_data_size: it says 8 bytes, but the shape"),
        (sized("FP64", &json!([1, 1]), 8), "body: the body has 8 bytes more"),
        (sized("FP64", &json!([1, 1_u64 << 61]), 16), "inputs[0]."),
        (doubles(&json!([1, 2]), &json!([1, 2])), "body: the body has 16 bytes more"),
    ] {
        let text = binary(&json, &tail, InputType::Doubles).unwrap_err().to_string();
        assert!(text.contains(part), "{json}: {text}");
    }
    let lying = [5, 0, 0, 0, b'a', b'b'];
    let json = sized("BYTES", &json!([1]), 6);
    let text = binary(&json, &lying, InputType::Strings).unwrap_err().to_string();
    assert_eq!(text, "inputs[0].data: element 0 says 5 bytes, but 2 are left");
}

#[test]
fn what_an_error_repeats_is_short_and_clean() {
    let body = doubles(&json!([1, 2]), &json!([1, 2]));
    let mut long = body;
    long["inputs"][0]["name"] = json!(format!("\u{202e}{}", "x".repeat(100_000)));
    let text = refused(&long, InputType::Doubles);
    assert!(text.len() < 400 && !text.contains('\u{202e}'), "{text}");
    let mut wrong = doubles(&json!([1, 2]), &json!([1, 2]));
    wrong["parameters"] = json!({"timeout": "y".repeat(100_000)});
    let text = refused(&wrong, InputType::Doubles);
    assert!(text.starts_with("parameters.timeout: ") && text.len() < 400, "{text}");
}

proptest! {
    #[test]
    fn json_and_binary_give_the_same_inputs(
        rows in 1_usize..5,
        each in 1_usize..5,
        eighths in proptest::collection::vec(-8_000_000_i32..8_000_000, 25),
    ) {
        // The JSON parser may be off by the last bit of longer fractions.
        let numbers: Vec<f64> =
            eighths[..rows * each].iter().map(|n| f64::from(*n) / 8.0).collect();
        let numbers = &numbers[..];
        let shape = json!([rows, each]);
        let wire: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let flat = of(&doubles(&json!(numbers), &shape), InputType::Doubles).unwrap();
        let nested: Vec<&[f64]> = numbers.chunks(each).collect();
        let nested = of(&doubles(&json!(nested), &shape), InputType::Doubles).unwrap();
        let json = sized("FP64", &shape, wire.len() as u64);
        let binary = binary(&json, &wire, InputType::Doubles).unwrap();
        prop_assert_eq!(&flat.inputs, &nested.inputs);
        prop_assert_eq!(&flat.inputs, &binary.inputs);
        prop_assert_eq!(flat.inputs.len(), rows);
    }
}
