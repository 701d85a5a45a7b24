//! Rows as clients write them, and as they should not.

use proptest::prelude::*;

use super::*;
use crate::row::RowCheck;
use crate::write::put_json;

fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), datatype, shape: shape.to_vec(), labels: Vec::new() }
}

fn row(json: &str, specs: &[TensorSpec]) -> Result<String, String> {
    let row = read_row(json, specs, &"input").map_err(|error| error.to_string())?;
    assert!(RowCheck::new(specs).takes(&row));
    let (_, tensors) = row::read(&row).unwrap();
    let texts = tensors.iter().map(|tensor| {
        let mut out = Vec::new();
        put_json(tensor.datatype, &tensor.dims().collect::<Vec<_>>(), tensor.data, &mut out);
        String::from_utf8(out).unwrap()
    });
    Ok(texts.collect::<Vec<_>>().join(" "))
}

#[test]
fn arrays_are_nested_or_flat() {
    let specs = [
        spec("a", Datatype::Fp32, &[-1, 2, 2]),
        spec("b", Datatype::Bytes, &[-1]),
        spec("c", Datatype::Int64, &[-1, -1]),
    ];
    let expected = Ok("[[1.0,2.0],[3.0,4.5]] \"x\" [7]".to_owned());
    assert_eq!(row(r#"{"c": [7], "a": [[1, 2], [3, 4.5]], "b": "x"}"#, &specs), expected);
    assert_eq!(row(r#"{"a": [1, 2, 3, 4.5], "b": ["x"], "c": [7]}"#, &specs), expected);
    let open = [spec("a", Datatype::Uint8, &[-1, -1, 2])];
    assert_eq!(row(r#"{"a": [1, 2, 3, 4]}"#, &open).unwrap(), "[[1,2],[3,4]]");
    assert_eq!(row(r#"{"a": [[1, 2]]}"#, &open).unwrap(), "[[1,2]]");
    let two = [spec("a", Datatype::Uint8, &[-1, -1, -1])];
    let error = row(r#"{"a": [1, 2]}"#, &two).unwrap_err();
    assert!(error.contains("input.a: a flat array of 2 elements does not fit"), "{error}");
    let bytes = [spec("b", Datatype::Bytes, &[-1, 2])];
    let texts = row(r#"{"b": ["é", {"b64": "/w=="}]}"#, &bytes).unwrap();
    assert_eq!(texts, r#"["é",{"b64":"/w=="}]"#);
}

#[test]
fn every_datatype_has_its_range() {
    for (datatype, good, bad) in [
        (Datatype::Bool, "true", "2"),
        (Datatype::Bool, "1", "1.0"),
        (Datatype::Uint8, "255", "256"),
        (Datatype::Uint16, "65535", "-1"),
        (Datatype::Uint32, "4294967295", "4294967296"),
        (Datatype::Uint64, "18446744073709551615", "18446744073709551616"),
        (Datatype::Int8, "-128", "128"),
        (Datatype::Int16, "-32768", "true"),
        (Datatype::Int32, "-2147483648", "1.5"),
        (Datatype::Int64, "-9223372036854775808", "9223372036854775808"),
        (Datatype::Fp16, "65504", "70000"),
        (Datatype::Bf16, "1", "\"1\""),
        (Datatype::Fp32, "3e38", "1e39"),
        (Datatype::Fp64, "1e308", "null"),
        (Datatype::Bytes, "\"x\"", "1"),
    ] {
        let specs = [spec("a", datatype, &[-1, -1])];
        let of = |element: &str| row(&format!("{{\"a\": [{element}]}}"), &specs);
        assert!(of(good).is_ok(), "{datatype:?} {good}");
        let error = of(bad).unwrap_err();
        let expected = format!("input.a: element 0 is not of datatype {}", datatype.name());
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let specs = [spec("a", Datatype::Fp32, &[-1, 2, 2]), spec("b", Datatype::Int32, &[-1])];
    for (json, expected) in [
        ("[]", "input: it must be an object"),
        ("7", "input: it must be an object"),
        ("{}", "input.a: the tensor is missing"),
        (r#"{"a": [1,2,3,4]}"#, "input.b: the tensor is missing"),
        (r#"{"x": 1}"#, "input.x: the model has no such tensor; it takes 'a', 'b'"),
        (r#"{"b": 1, "b": 2}"#, "input.b: the tensor is there twice"),
        (r#"{"a": [[1,2],[3]]}"#, "input.a: its arrays have different lengths (element 3)"),
        (r#"{"a": [[1,2],3]}"#, "input.a: its arrays have different lengths (element 2)"),
        (r#"{"a": [[1,2,3],[4,5,6]]}"#, "input.a: its shape is [2, 3], but the model takes [2, 2]"),
        (r#"{"a": [1,2,3]}"#, "input.a: a flat array of 3 elements"),
        (r#"{"a": [[[1,2]]]}"#, "input.a: its shape is [3 or more dimensions]"),
        (r#"{"a": []}"#, "input.a: a dimension is 0"),
        (r#"{"a": [[],[]]}"#, "input.a: a dimension is 0"),
        (r#"{"a": 1}"#, "input.a: its shape is []"),
        (r#"{"a": {"b64": "eA=="}}"#, "input.a: element 0"),
        (r#"{"a": [1,2"#, "input: EOF"),
        (r#"{"a": [1,2,3,4], "b": 7} x"#, "input: trailing"),
    ] {
        let error = row(json, &specs).unwrap_err();
        assert!(error.starts_with(expected), "{json}: {error}");
    }
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(1_000), "]".repeat(1_000));
    assert!(row(&deep, &specs).is_err());
}

#[test]
fn data_has_exactly_its_shape() {
    let read = |json, shape: &[i64]| read_data(json, Datatype::Uint8, shape);
    assert_eq!(read("[1, 2, 3, 4]", &[2, 2]), Ok(vec![1, 2, 3, 4]));
    assert_eq!(read("[[1, 2], [3, 4]]", &[2, 2]), Ok(vec![1, 2, 3, 4]));
    assert!(matches!(read("[[1, 2]]", &[2, 2]), Err(Fault::Shape { .. })));
    assert!(matches!(read("[1, 2]", &[2, 2]), Err(Fault::Flat(2, _))));
    assert!(matches!(read("[1, 2] 3", &[2]), Err(Fault::Json(_))));
    assert!(matches!(read("[1, 2]", &[1 << 62, 1 << 62]), Err(Fault::Flat(2, _))));
}

proptest! {
    #[test]
    fn any_text(json in "[\\[\\]{}\",:a0-9.eE+-]{0,40}") {
        let specs = [spec("a", Datatype::Fp32, &[-1, -1, 2]), spec("e", Datatype::Bytes, &[-1])];
        let _ = row(&json, &specs);
    }
}
