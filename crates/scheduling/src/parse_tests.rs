//! What bodies are accepted, and what is said of the others.

use super::*;
use crate::bodies::{FeedbackSays, FeedbackSubject, UpdateBody};
use crate::feedback::update_body;

fn wire(body: &str, input_type: InputType) -> Result<Vec<Vec<u8>>, String> {
    match predict_body(body.as_bytes(), input_type, 3) {
        Ok(parsed) => Ok(parsed.inputs.iter().map(|i| i.0.to_vec()).collect()),
        Err(BodyError::Semantic(text)) => Err(text),
        Err(BodyError::Syntax(error)) => Err(format!("syntax: {error}")),
        Err(BodyError::NotAnObject(_)) => Err("not an object".to_owned()),
        Err(BodyError::TooManyInputs(n)) => Err(format!("more than {n}")),
    }
}

fn doubles(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn all_five_types_become_wire_bytes() {
    use InputType::{Bytes, Doubles, Floats, Integers, Strings};
    assert_eq!(wire(r#"{"input": [1.5, -2, 3]}"#, Doubles), Ok(vec![doubles(&[1.5, -2.0, 3.0])]));
    assert_eq!(
        wire(r#"{"input": [1.5, 2]}"#, Floats),
        Ok(vec![[1.5f32.to_le_bytes(), 2f32.to_le_bytes()].concat()])
    );
    assert_eq!(
        wire(r#"{"input": [1, -2]}"#, Integers),
        Ok(vec![[1i32.to_le_bytes(), (-2i32).to_le_bytes()].concat()])
    );
    assert_eq!(wire(r#"{"input": "h\u00e9"}"#, Strings), Ok(vec!["hé".as_bytes().to_vec()]));
    assert_eq!(wire(r#"{"input": ""}"#, Strings), Ok(vec![vec![]]));
    assert_eq!(wire(r#"{"input": "AQL/"}"#, Bytes), Ok(vec![vec![1, 2, 255]]));
    assert_eq!(wire(r#"{"input": "AQ"}"#, Bytes), Ok(vec![vec![1]]));
}

#[test]
fn batches_keep_their_order_and_other_members_are_ignored() {
    let body = r#"{"x": [[{}]], "input_batch": [[1], [2.5, 3]], "version": "7", "version": 8}"#;
    let parsed = predict_body(body.as_bytes(), InputType::Doubles, 3).expect("valid");
    assert_eq!(parsed.version.as_deref(), Some("7"));
    let bytes: Vec<_> = parsed.inputs.iter().map(|i| i.0.to_vec()).collect();
    assert_eq!(bytes, [doubles(&[1.0]), doubles(&[2.5, 3.0])]);
    assert_eq!(wire(r#"{"input_batch": []}"#, InputType::Doubles), Ok(vec![]));
    let too_many = r#"{"input_batch": [[1], [1], [1], [1]]}"#;
    assert_eq!(wire(too_many, InputType::Doubles), Err("more than 3".to_owned()));
}

#[test]
fn refusals_say_what_and_where() {
    use InputType::{Bytes, Doubles, Floats, Integers, Strings};
    let array_wanted =
        "Type mismatch! JSON key input expected type Array of doubles but found type String";
    let string_wanted = "Type mismatch! JSON key input expected type String but found type Array";
    let batch_wanted = "Type mismatch! JSON key input_batch expected type Array of inputs but \
                        found type String";
    let one_wanted = "Type mismatch! JSON key input_batch, input 1, expected type Array of \
                      doubles but found type Number";
    let cases = [
        (Doubles, "[1]", "not an object"),
        (Doubles, "{}", "JSON object does not have required keys input or input_batch"),
        (Doubles, r#"{"input": "abc"}"#, array_wanted),
        (Strings, r#"{"input": ["hello"]}"#, string_wanted),
        (Doubles, r#"{"input_batch": "x"}"#, batch_wanted),
        (Doubles, r#"{"input_batch": [[1], 1.5]}"#, one_wanted),
        (
            Doubles,
            r#"{"input": [1, true]}"#,
            "Array input of type True is not of type double (element 1 of the input)",
        ),
        (
            Integers,
            r#"{"input_batch": [[1], [2, 3.5]]}"#,
            "Array input of type Number is not of type int (element 1 of input 1)",
        ),
        (
            Integers,
            r#"{"input": [1, 3000000000]}"#,
            "element 1 of the input, 3000000000, is outside the range of a 32-bit integer",
        ),
        (Floats, r#"{"input": [1e300]}"#, "element 0 of the input, "),
        (Doubles, r#"{"input": []}"#, "The input is empty: give at least one element"),
        (Doubles, r#"{"input_batch": [[1], []]}"#, "Input 1 is empty: give at least one element"),
        (Bytes, r#"{"input": ""}"#, "The input is empty: give at least one element"),
        (Bytes, r#"{"input": "!!!"}"#, "The input is not base64-encoded: "),
        (Doubles, r#"{"input": [NaN]}"#, "syntax: expected value"),
        (Doubles, r#"{"input": [1e999]}"#, "syntax: number out of range"),
        (Doubles, r#"{"input": [1]} x"#, "syntax: trailing characters"),
    ];
    for (input_type, body, start) in cases {
        let text = wire(body, input_type).expect_err(body);
        assert!(text.starts_with(start), "{body}: {text}");
    }
}

#[test]
fn deep_nesting_is_refused_or_skipped_not_overflowed() {
    let deep = "[".repeat(200_000);
    assert!(wire(&format!("{{\"input\": {deep}"), InputType::Doubles).is_err());
    assert!(wire(&format!("{{\"other\": {deep}"), InputType::Doubles).is_err());
    assert!(wire(&deep, InputType::Doubles).is_err());
}

fn update(body: &str, form: FeedbackForm) -> Result<UpdateBody, BodyError> {
    update_body(body.as_bytes(), InputType::Doubles, form)
}

#[test]
fn a_label_that_is_none_is_refused_with_what_it_may_be() {
    for (form, expected) in [
        (FeedbackForm::Original, "key label expected type Number but found type Array"),
        (FeedbackForm::Any, "key label expected type Number, String or Bool but found type Array"),
    ] {
        let Err(BodyError::Semantic(text)) =
            update(r#"{"uid": 1, "input": [1], "label": []}"#, form)
        else {
            panic!("{form:?}")
        };
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_field_that_a_policy_goes_by_is_a_text_or_a_number() {
    let field: Arc<str> = Arc::from("session");
    let key = |session: &str| {
        let body = format!("{{\"session\": {session}, \"input\": [1], \"other\": true}}");
        let read = keyed_predict_body(body.as_bytes(), InputType::Doubles, 1, Some(&field));
        // Whoever does not go by it passes over it.
        assert_eq!(predict_body(body.as_bytes(), InputType::Doubles, 1).unwrap().key, None);
        read.map(|body| body.key).map_err(|error| match error {
            BodyError::Semantic(text) => text,
            other => format!("{other:?}"),
        })
    };
    assert_eq!(key("\"a\\u0062\""), Ok(Some("ab".to_owned())));
    assert_eq!(key("-7"), Ok(Some("-7".to_owned())));
    assert_eq!(key("null"), Ok(None));
    for wrong in ["true", "[1]", "{}"] {
        assert!(key(wrong).unwrap_err().starts_with("session: it must be a string"), "{wrong}");
    }
}

#[test]
fn updates_take_integer_labels() {
    let body = r#"{"uid": 5, "input": [1], "label": 1}"#;
    for form in [FeedbackForm::Original, FeedbackForm::Any] {
        let parsed = update(body, form).expect("valid");
        assert!(matches!(parsed.about, FeedbackSubject::Input(5, _)), "{parsed:?}");
        assert!(matches!(parsed.told, FeedbackSays::Label(label) if label == 1));
        for missing in [r#"{"input": [1], "label": 1}"#, r#"{"uid": 1, "input": [1]}"#] {
            assert!(update(missing, form).is_err(), "{missing}");
        }
    }
}

#[test]
fn feedback_for_policies_names_a_query_and_says_a_label_or_a_loss() {
    let taken = [
        r#"{"query_id": 7, "label": "cat"}"#,
        r#"{"query_id": 7, "loss": 0.5}"#,
        r#"{"uid": 1, "input": [1], "label": "cat"}"#,
    ];
    for body in taken {
        assert!(update(body, FeedbackForm::Any).is_ok(), "{body}");
        assert!(update(body, FeedbackForm::Original).is_err(), "{body}");
    }
    let refused = [
        (r#"{"query_id": -1, "label": 1}"#, "query_id: "),
        (r#"{"query_id": 7, "loss": 1.5}"#, "loss: "),
        (r#"{"query_id": 7, "label": [1]}"#, "Type mismatch! JSON key label"),
        (r#"{"query_id": 7}"#, "JSON object does not have required key: label"),
    ];
    for (body, start) in refused {
        let Err(BodyError::Semantic(text)) = update(body, FeedbackForm::Any) else {
            panic!("{body}")
        };
        assert!(text.starts_with(start), "{body}: {text}");
    }
}

#[test]
fn line_09a_the_room_that_inputs_take_is_known_before() {
    use InputType::{Doubles, Integers, Strings};
    let body = r#"{"input_batch": [[1,2,3], [4]], "version": "1"}"#;
    for (input_type, bytes_each) in [(Doubles, 8), (Integers, 4)] {
        let parsed = predict_body(body.as_bytes(), input_type, 3).expect("valid");
        let taken: usize = parsed.inputs.iter().map(|input| input.0.len()).sum();
        let max = input_bytes_max(body.as_bytes(), input_type);
        assert!(taken == 4 * bytes_each && (taken..=taken + 4 * bytes_each).contains(&max));
    }
    assert_eq!(input_bytes_max(b"{\"input\": \"a,b,c\"}", Strings), 18);
}
