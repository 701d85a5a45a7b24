//! Requests as clients write them, and as they should not.

use std::collections::BTreeMap;

use bytes::Bytes;
use half::f16;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::form::As;
use crate::grpc::{
    InferParameter, InferRequestedOutputTensor, InferTensor, InferTensorContents,
    ModelInferRequest, ParameterChoice,
};

const ROWS_MAX: usize = 100;

fn request(datatype: &str, shape: &[i64]) -> ModelInferRequest {
    let input = InferTensor {
        name: "input".to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..InferTensor::default()
    };
    ModelInferRequest {
        model_name: "m".to_owned(),
        inputs: vec![input],
        ..ModelInferRequest::default()
    }
}

fn raw(datatype: &str, shape: &[i64], data: Vec<u8>) -> ModelInferRequest {
    ModelInferRequest { raw_input_contents: vec![data.into()], ..request(datatype, shape) }
}

fn typed(datatype: &str, shape: &[i64], contents: InferTensorContents) -> ModelInferRequest {
    let mut request = request(datatype, shape);
    request.inputs[0].contents = Some(contents);
    request
}

fn infer(request: &ModelInferRequest, input_type: InputType) -> Result<Infer, String> {
    let message = request.encode_to_vec();
    let read = Request::read(&message).and_then(|read| read.infer(input_type, ROWS_MAX));
    read.map_err(|error| error.to_string())
}

fn doubles(infer: &Infer) -> Vec<Vec<f64>> {
    let row = |input: &clipper_domain::Input| {
        let (elements, []) = input.0.as_chunks::<8>() else { panic!("doubles") };
        elements.iter().map(|element| f64::from_le_bytes(*element)).collect()
    };
    infer.inputs.iter().map(row).collect()
}

#[test]
fn every_datatype_is_read_from_its_list() {
    let contents = InferTensorContents::default;
    for (datatype, contents) in [
        ("BOOL", InferTensorContents { bool_contents: vec![true, false], ..contents() }),
        ("INT8", InferTensorContents { int_contents: vec![1, 0], ..contents() }),
        ("INT16", InferTensorContents { int_contents: vec![1, 0], ..contents() }),
        ("INT32", InferTensorContents { int_contents: vec![1, 0], ..contents() }),
        ("INT64", InferTensorContents { int64_contents: vec![1, 0], ..contents() }),
        ("UINT8", InferTensorContents { uint_contents: vec![1, 0], ..contents() }),
        ("UINT16", InferTensorContents { uint_contents: vec![1, 0], ..contents() }),
        ("UINT32", InferTensorContents { uint_contents: vec![1, 0], ..contents() }),
        ("UINT64", InferTensorContents { uint64_contents: vec![1, 0], ..contents() }),
        ("FP32", InferTensorContents { fp32_contents: vec![1.0, 0.0], ..contents() }),
        ("FP64", InferTensorContents { fp64_contents: vec![1.0, 0.0], ..contents() }),
    ] {
        let read = infer(&typed(datatype, &[2, 1], contents.clone()), InputType::Doubles).unwrap();
        assert_eq!(doubles(&read), [[1.0], [0.0]], "{datatype}");
        assert!(!read.output.binary);
        let few = infer(&typed(datatype, &[3, 1], contents.clone()), InputType::Doubles);
        assert_eq!(
            few.unwrap_err(),
            "inputs[0].contents: the shape says 3 elements, but there are 2"
        );
        let many = infer(&typed(datatype, &[1, 1], contents), InputType::Doubles).unwrap_err();
        assert!(many.starts_with("inputs[0].contents: the shape says 1 elements, but"), "{many}");
    }
    let negative = InferTensorContents { int_contents: vec![-7], ..contents() };
    let read = infer(&typed("INT32", &[1, 1], negative), InputType::Doubles).unwrap();
    assert_eq!(doubles(&read), [[-7.0]]);
    let texts = vec![Bytes::from("hi"), Bytes::new()];
    let texts = InferTensorContents { bytes_contents: texts, ..contents() };
    let read = infer(&typed("BYTES", &[2], texts), InputType::Strings).unwrap();
    let inputs: Vec<&[u8]> = read.inputs.iter().map(|input| &input.0[..]).collect();
    assert_eq!(inputs, [&b"hi"[..], b""]);
}

#[test]
fn raw_contents_are_read_as_binary_tensors() {
    let bytes: Vec<u8> = [1.5_f64, -2.0].iter().flat_map(|n| n.to_le_bytes()).collect();
    let read = infer(&raw("FP64", &[1, 2], bytes), InputType::Doubles).unwrap();
    assert_eq!(doubles(&read), [[1.5, -2.0]]);
    assert!(read.output.binary);
    let half = f16::from_f32(0.5).to_le_bytes().to_vec();
    let read = infer(&raw("FP16", &[1, 1], half), InputType::Doubles).unwrap();
    assert_eq!(doubles(&read), [[0.5]]);
    let read = infer(&raw("BYTES", &[1], b"\x02\0\0\0hi".to_vec()), InputType::Strings).unwrap();
    assert_eq!(&*read.inputs[0].0, b"hi");
}

#[test]
fn what_a_request_says_besides_its_inputs() {
    let mut request = raw("FP64", &[1, 1], vec![0; 8]);
    request.id = "seven".to_owned();
    let parameter = |choice: ParameterChoice| InferParameter::from(choice);
    request.parameters = BTreeMap::from([
        ("timeout".to_owned(), parameter(ParameterChoice::Int64(1_500))),
        ("default".to_owned(), parameter(ParameterChoice::Bool(true))),
        ("priority".to_owned(), parameter(ParameterChoice::Uint64(1))),
        ("x".to_owned(), parameter(ParameterChoice::Double(0.5))),
    ]);
    let datatype = parameter(ParameterChoice::Text("FP32".to_owned()));
    request.outputs = vec![InferRequestedOutputTensor {
        name: "output".to_owned(),
        parameters: BTreeMap::from([("datatype".to_owned(), datatype)]),
    }];
    let read = infer(&request, InputType::Doubles).unwrap();
    assert_eq!(read.id.as_deref(), Some("seven"));
    assert_eq!(read.timeout, Some(std::time::Duration::from_micros(1_500)));
    assert!(read.takes_default && read.priority == 1);
    assert_eq!(read.output.datatype, As::Numbers(Datatype::Fp32));
    request.parameters.insert("timeout".to_owned(), parameter(ParameterChoice::Int64(-1)));
    let error = infer(&request, InputType::Doubles).unwrap_err();
    assert_eq!(error, "parameters.timeout: it is not a number of microseconds");
    let low = parameter(ParameterChoice::Text("low".to_owned()));
    request.parameters = BTreeMap::from([("priority".to_owned(), low)]);
    let error = infer(&request, InputType::Doubles).unwrap_err();
    assert_eq!(error, "parameters.priority: it is not a number, 0 or more");
}

#[test]
fn a_request_that_is_wrong_is_refused_by_the_field() {
    let eight = || vec![0; 8];
    let both = {
        let mut both = raw("FP64", &[1, 1], eight());
        both.inputs[0].contents = Some(InferTensorContents::default());
        both
    };
    let mut two = raw("FP64", &[1, 1], eight());
    two.inputs.push(two.inputs[0].clone());
    let mut parts = raw("FP64", &[1, 1], eight());
    parts.raw_input_contents.push(Bytes::new());
    let shared = {
        let mut shared = request("FP64", &[1, 1]);
        let region = InferParameter::from(ParameterChoice::Text("r".to_owned()));
        shared.inputs[0].parameters.insert("shared_memory_region".to_owned(), region);
        shared
    };
    let wide = raw("FP64", &[1; 33], eight());
    let list = InferTensorContents { fp32_contents: vec![1.0], ..InferTensorContents::default() };
    for (request, expected) in [
        (request("FP64", &[1, 1]), "inputs[0].contents: give each tensor either contents or"),
        (both, "inputs[0].contents: give each tensor either contents or"),
        (two, "inputs[1].name: the tensor is there twice"),
        (parts, "raw_input_contents: it has 2 parts for 1 inputs"),
        (shared, "inputs[0].parameters.shared_memory_region: it is not supported here"),
        (wide, "inputs[0].shape: there are more than 32"),
        (raw("FP64", &[1, 2], eight()), "raw_input_contents[0]: it has 8 bytes, but the shape"),
        (raw("FP64", &[1, 1], vec![0; 9]), "raw_input_contents[0]: it has 9 bytes, but"),
        (raw("FP64", &[-1, 1], eight()), "inputs[0].shape: dimension 0 is -1"),
        (raw("FP64", &[1, i64::MIN], eight()), "inputs[0].shape: dimension 1 is -9223"),
        (raw("FP64", &[1, i64::MAX], eight()), "inputs[0].shape: it has more elements than any"),
        (raw("FP64", &[101, 1], eight()), "inputs[0].shape: 101 rows, more than"),
        (raw("FP7", &[1, 1], eight()), "inputs[0].datatype: 'FP7' is not a datatype"),
        (typed("FP64", &[1, 1], list), "inputs[0].contents: elements of datatype FP64 belong"),
        (ModelInferRequest::default(), "inputs: it is missing"),
    ] {
        let error = infer(&request, InputType::Doubles).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
    let text = raw("BYTES", &[1], b"\xff\xff\xff\x7fhi".to_vec());
    let error = infer(&text, InputType::Strings).unwrap_err();
    assert!(error.starts_with("raw_input_contents[0]: element 0 says 2147483647 bytes"), "{error}");
}

#[test]
fn millions_of_fields_are_not_looked_at() {
    for field in [b"\x2a\0", b"\x3a\0", b"\x32\0", b"\x22\0", b"\x78\0"] {
        let message = field.repeat(1 << 20);
        let error = Request::read(&message).unwrap_err().to_string();
        assert!(error.contains("there are more than") || error.contains("protobuf"), "{error}");
    }
}

proptest! {
    /// Whatever comes is read or refused; and what prost reads is read alike.
    #[test]
    fn any_bytes(message in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(read) = Request::read(&message) {
            let _ = read.infer(InputType::Doubles, ROWS_MAX);
            if let Ok(other) = ModelInferRequest::decode(&message[..]) {
                prop_assert_eq!(read.model_name, other.model_name);
                prop_assert_eq!(read.inputs.len(), other.inputs.len());
            }
        }
    }

    #[test]
    fn raw_doubles_are_the_inputs(rows in 1_usize..5, each in 1_usize..5, seed in any::<u64>()) {
        let numbers: Vec<u8> =
            (0..rows * each).flat_map(|n| (seed ^ n as u64).to_le_bytes()).collect();
        let shape = [rows, each].map(|n| i64::try_from(n).unwrap());
        let read = infer(&raw("FP64", &shape, numbers.clone()), InputType::Doubles).unwrap();
        prop_assert_eq!(read.inputs.len(), rows);
        let all: Vec<u8> = read.inputs.iter().flat_map(|input| input.0.to_vec()).collect();
        prop_assert_eq!(all, numbers);
    }
}
