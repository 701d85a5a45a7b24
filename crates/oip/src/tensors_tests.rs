//! Requests of several tensors as clients write them, and as they should not.

use clipper_tensors::batch::is_as_long;
use clipper_tensors::row::RowCheck;
use proptest::prelude::*;

use super::*;

const ROWS_MAX: usize = 100;

fn signature() -> Arc<Signature> {
    let json = r#"{"inputs":[{"name":"ids","datatype":"INT64","shape":[-1,-1]},
        {"name":"text","datatype":"BYTES","shape":[-1]},
        {"name":"image","datatype":"FP32","shape":[-1,2,2]}],
        "outputs":[{"name":"p","datatype":"FP32","shape":[-1,2]},
        {"name":"label","datatype":"BYTES","shape":[-1]}]}"#;
    Arc::new(Signature::parse(json.as_bytes()).unwrap())
}

fn read(json: &str, binary: &[u8]) -> Result<Infer, String> {
    let body = [json.as_bytes(), binary].concat();
    let header = json.len().to_string();
    parse_tensors(&body, Some(header.as_bytes()), &signature(), ROWS_MAX)
        .map_err(|error| error.to_string())
}

const IDS: &str = r#"{"name":"ids","datatype":"INT64","shape":[2,1],"data":[7,8]}"#;
const TEXT: &str = r#"{"name":"text","datatype":"BYTES","shape":[2],"data":["a","bc"]}"#;
const IMAGE: &str =
    r#"{"name":"image","datatype":"FP32","shape":[2,2,2],"data":[1,2,3,4,5,6,7,8]}"#;

fn inputs(tensors: &[&str]) -> String {
    format!("{{\"inputs\":[{}]}}", tensors.join(","))
}

#[test]
fn json_and_binary_make_the_same_rows() {
    let json = read(&inputs(&[IDS, TEXT, IMAGE]), b"").unwrap();
    assert_eq!(json.inputs.len(), 2);
    assert!(json.inputs.iter().all(|row| RowCheck::new(signature().inputs()).takes(&row.0)));
    let mut binary = b"\x01\0\0\0a\x02\0\0\0bc".to_vec();
    let numbers = (1..=8_u8).map(f32::from);
    binary.extend(numbers.flat_map(f32::to_le_bytes));
    let tensors = [
        r#"{"name":"text","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":11}}"#,
        IDS,
        r#"{"name":"image","datatype":"FP32","shape":[2,2,2],
            "parameters":{"binary_data_size":32}}"#,
    ];
    let mixed = read(&inputs(&tensors), &binary).unwrap();
    assert_eq!(mixed.inputs, json.inputs);
    let form = mixed.tensors.unwrap();
    let all = [0, 1].map(|at| WantedOutput { at, binary: false });
    assert_eq!(form.outputs, all);
}

#[test]
fn outputs_are_chosen_by_name() {
    let tensors = inputs(&[IDS, TEXT, IMAGE]);
    let with = |outputs: &str| {
        let json = tensors.replacen('{', &format!("{{{outputs},"), 1);
        read(&json, b"").map(|infer| infer.tensors.unwrap().outputs)
    };
    let label = WantedOutput { at: 1, binary: true };
    let one = r#""outputs":[{"name":"label","parameters":{"binary_data":true}}]"#;
    assert_eq!(with(one).unwrap(), [label]);
    let all = with(r#""parameters":{"binary_data_output":true}"#).unwrap();
    assert_eq!(all, [WantedOutput { at: 0, binary: true }, label]);
    for (outputs, expected) in [
        (r#""outputs":[{"name":"q"}]"#, "outputs[0].name: there is no tensor 'q' here"),
        (r#""outputs":[{"name":"p"},{"name":"p"}]"#, "outputs[1].name: the tensor is there twice"),
        (
            r#""outputs":[{"name":"p","parameters":{"classification":3}}]"#,
            "outputs[0].parameters.classification: it is not supported",
        ),
    ] {
        let error = with(outputs).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

fn tensor(name: &str, datatype: &str, shape: &str, rest: &str) -> String {
    format!(r#"{{"name":"{name}","datatype":"{datatype}","shape":[{shape}],{rest}}}"#)
}

fn binary(size: u64) -> String {
    format!(r#""parameters":{{"binary_data_size":{size}}}"#)
}

/// Reads tensors with 8 bytes of binary data where they are looked at.
fn refused(cases: &[(Vec<String>, &str)]) {
    for (tensors, expected) in cases {
        let tensors: Vec<&str> = tensors.iter().map(String::as_str).collect();
        let bytes: &[u8] = if expected.contains("missing") || expected.contains("twice") {
            b""
        } else {
            b"\xff\xff\xff\xffabcd"
        };
        let error = read(&inputs(&tensors), bytes).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn tensors_that_are_described_wrongly_are_refused_by_the_field() {
    let max = u64::MAX.to_string();
    refused(&[
        (vec![IDS.to_owned()], "inputs: the tensor 'text' is missing"),
        (vec![IDS.to_owned(), IDS.to_owned()], "inputs[1].name: the tensor is there twice"),
        (vec![tensor("x", "FP32", "1", "\"data\":[1]")], "inputs[0].name: there is no tensor 'x'"),
        (vec![tensor("ids", "FP7", "1,1", "\"data\":[1]")], "inputs[0].datatype: 'FP7' is not a"),
        (vec![tensor("ids", "INT32", "1,1", "\"data\":[1]")], "inputs[0].datatype: INT32 is not"),
        (vec![tensor("ids", "INT64", "1", "\"data\":[1]")], "inputs[0].shape: [1] does not fit"),
        (vec![tensor("image", "FP32", "1,2,3", &binary(24))], "inputs[0].shape: [1,2,3] does not"),
        (vec![tensor("ids", "INT64", "1,0", "\"data\":[]")], "inputs[0].shape: a dimension is 0"),
        (vec![tensor("ids", "INT64", "0,1", "\"data\":[]")], "inputs[0].shape: a dimension is 0"),
        (vec![tensor("ids", "INT64", "101,1", &binary(808))], "inputs[0].shape: 101 rows, more"),
        (
            vec![tensor("ids", "INT64", "2,9223372036854775808", &binary(8))],
            "inputs[0].shape: it has more elements",
        ),
        (vec![tensor("ids", "INT64", &format!("1,{max}"), &binary(8))], "inputs[0].shape: it has"),
        (
            vec![tensor("ids", "INT64", "1,4611686018427387903", &binary(8))],
            "inputs[0].shape: it has more elements",
        ),
    ]);
}

#[test]
fn elements_that_are_wrong_are_refused_by_the_field() {
    refused(&[
        (
            vec![tensor("ids", "INT64", "1,1", &binary(9))],
            "inputs[0].parameters.binary_data_size: it says 9 bytes, but there are 8",
        ),
        (
            vec![tensor("ids", "INT64", "1,2", &binary(8))],
            "inputs[0].parameters.binary_data_size: it has 8 bytes, but the shape",
        ),
        (
            vec![tensor("text", "BYTES", "1", &binary(8))],
            "inputs[0].data: element 0 says 4294967295 bytes, but 4 are left",
        ),
        (
            vec![tensor(
                "ids",
                "INT64",
                "1,1",
                r#""data":[1],"parameters":{"binary_data_size":8}"#,
            )],
            "inputs[0].data: give either data or",
        ),
        (
            vec![tensor("ids", "INT64", "1,1", "\"data\":[1.5]")],
            "inputs[0].data: element 0 is not of datatype INT64",
        ),
        (
            vec![tensor("ids", "INT64", "1,2", "\"data\":[1]")],
            "inputs[0].data: a flat array of 1 elements",
        ),
        (
            vec![tensor("ids", "INT64", "2,1", "\"data\":[[1],[2,3]]")],
            "inputs[0].data: its arrays have different lengths",
        ),
        (
            vec![IDS.to_owned(), tensor("text", "BYTES", "1", r#""data":["a"]"#)],
            "body: the body has 8 bytes more",
        ),
    ]);
    let other = tensor("text", "BYTES", "1", r#""data":["a"]"#);
    let error = read(&inputs(&[IDS, &other, IMAGE]), b"").unwrap_err();
    assert!(error.starts_with("inputs[1].shape: 1 rows, but the first tensor has 2"), "{error}");
}

#[test]
fn a_raw_body_is_one_row_of_the_one_input() {
    let of = |spec: &str, body: &[u8]| {
        let json = format!(
            r#"{{"inputs":[{{"name":"x",{spec}}}],
            "outputs":[{{"name":"y","datatype":"FP32","shape":[-1]}}]}}"#
        );
        let signature = Arc::new(Signature::parse(json.as_bytes()).unwrap());
        let read = parse_tensors(body, Some(b"0"), &signature, ROWS_MAX);
        read.map(|infer| infer.inputs[0].clone()).map_err(|error| error.to_string())
    };
    let dims = |input: &Input| row::read(&input.0).unwrap().1[0].dims().collect::<Vec<_>>();
    let fixed = of(r#""datatype":"FP32","shape":[-1,2,2]"#, &[0; 16]).unwrap();
    assert_eq!(dims(&fixed), [2, 2]);
    let open = of(r#""datatype":"UINT8","shape":[-1,-1,3]"#, &[0; 12]).unwrap();
    assert_eq!(dims(&open), [4, 3]);
    let text = of(r#""datatype":"BYTES","shape":[-1]"#, b"hi").unwrap();
    assert_eq!(row::read(&text.0).unwrap().1[0].data, b"\x02\0\0\0hi");
    for (spec, body) in [
        (r#""datatype":"FP32","shape":[-1,2,2]"#, &[0; 15][..]),
        (r#""datatype":"UINT8","shape":[-1,-1,3]"#, &[0; 13]),
        (r#""datatype":"UINT8","shape":[-1,-1,-1]"#, &[0; 12]),
        (r#""datatype":"UINT8","shape":[-1,-1]"#, &[]),
    ] {
        let error = of(spec, body).unwrap_err();
        assert!(error.starts_with("body: "), "{error}");
    }
    let several = parse_tensors(b"x", Some(b"0"), &signature(), ROWS_MAX).unwrap_err().to_string();
    assert!(several.starts_with("body: the model has several inputs ('ids', 'text'"), "{several}");
}

#[test]
fn answers_are_json_and_binary() {
    use crate::{OutputFault, TensorAnswer};
    let row = |p: [f32; 2], label: &[u8]| {
        let p: Vec<u8> = p.iter().flat_map(|n| n.to_le_bytes()).collect();
        let length = u32::try_from(label.len()).unwrap().to_le_bytes();
        let label = [&length[..], label].concat();
        row::build(&[
            Part { datatype: Datatype::Fp32, dims: &[2], data: &p },
            Part { datatype: Datatype::Bytes, dims: &[], data: &label },
        ])
    };
    let rows = [row([1.0, 0.5], b"a"), row([0.0, -1.0], b"bc")];
    let rows: Vec<&Arc<[u8]>> = rows.iter().collect();
    let form = |binary: [bool; 2]| TensorForm {
        signature: signature(),
        outputs: (0..2).map(|at| WantedOutput { at, binary: binary[at] }).collect(),
    };
    let write = |rows: &[&Arc<[u8]>], binary, max| {
        let answer = TensorAnswer {
            model_name: "m",
            model_version: Some("1"),
            id: None,
            rows,
            form: &form(binary),
        };
        answer.write(max).map(|parts| {
            assert_eq!(parts.has_binary, binary.contains(&true));
            (String::from_utf8(parts.json).unwrap(), parts.binary.concat())
        })
    };
    let (json, binary) = write(&rows, [false, true], 1_000).unwrap();
    let expected = r#"{"model_name":"m","model_version":"1","outputs":["#.to_owned()
        + r#"{"name":"p","datatype":"FP32","shape":[2,2],"data":[1.0,0.5,0.0,-1.0]},"#
        + r#"{"name":"label","datatype":"BYTES","shape":[2],"#
        + r#""parameters":{"binary_data_size":11}}]}"#;
    assert_eq!(json, expected);
    assert_eq!(binary, b"\x01\0\0\0a\x02\0\0\0bc");
    let (json, _) = write(&rows, [true, false], 1_000).unwrap();
    assert!(json.contains(r#""shape":[2],"data":["a","bc"]"#), "{json}");
    assert_eq!(write(&rows, [true, true], 100), Err(OutputFault::TooLong(100)));
    let bad = row([0.0, 0.0], b"\xff");
    assert_eq!(write(&[&bad], [true, false], 1_000), Err(OutputFault::NotText { row: 0 }));
    let none = Arc::from(&b"x"[..]);
    assert_eq!(write(&[&none], [true, false], 1_000), Err(OutputFault::NoTensors));
}

proptest! {
    #[test]
    fn any_body(body in prop::collection::vec(any::<u8>(), 0..200), header in 0..250_usize) {
        let header = header.to_string();
        let _ = parse_tensors(&body, Some(header.as_bytes()), &signature(), ROWS_MAX);
    }

    #[test]
    fn every_row_is_as_long_as_its_shape(rows in 1..4_u64, each in 1..4_u64) {
        let data: Vec<u64> = (0..rows * each).collect();
        let text = vec!["\"x\""; usize::try_from(rows).unwrap()].join(",");
        let image = vec!["1"; usize::try_from(rows * 4).unwrap()].join(",");
        let tensor = |name: &str, datatype: &str, shape: String, data: String| {
            let described = format!(r#"{{"name":"{name}","datatype":"{datatype}","#);
            described + &format!(r#""shape":[{shape}],"data":{data}}}"#)
        };
        let json = inputs(&[
            &tensor("ids", "INT64", format!("{rows},{each}"), format!("{data:?}")),
            &tensor("text", "BYTES", rows.to_string(), format!("[{text}]")),
            &tensor("image", "FP32", format!("{rows},2,2"), format!("[{image}]")),
        ]);
        let infer = read(&json, b"").unwrap();
        prop_assert_eq!(infer.inputs.len() as u64, rows);
        for input in &infer.inputs {
            for tensor in row::read(&input.0).unwrap().1 {
                let dims: Vec<u64> = tensor.dims().collect();
                prop_assert!(is_as_long(tensor.datatype, &dims, tensor.data));
            }
        }
    }
}
