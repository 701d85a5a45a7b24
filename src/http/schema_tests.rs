//! What bodies are refused for, and in which words.

use proptest::prelude::{ProptestConfig, proptest};

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_body_gets_an_answer_and_only_json_objects_pass(
        body in "\\{?(\"a\":)?[{}\\[\\]:,\" 01a\\\\ue.\n-]{0,24}",
    ) {
        let is_object = serde_json::from_str::<serde::de::IgnoredAny>(&body).is_ok()
            && body.trim_start().starts_with('{');
        match Object::parse(body.as_bytes()) {
            Ok(_) => assert!(is_object, "{body}"),
            Err(SchemaError::Syntax(phrase)) => {
                assert!(!is_object, "{body}: {phrase}");
                let offset = phrase.split_once("(offset ").unwrap().1.trim_end_matches(')');
                assert!(offset.parse::<usize>().unwrap() <= body.len(), "{body}: {phrase}");
                assert!(!phrase.starts_with("Invalid JSON."), "{body}: {phrase}");
            }
            Err(error) => assert_eq!(error, SchemaError::NotAnObject, "{body}"),
        }
    }
}

fn refusal(body: &[u8]) -> String {
    Object::parse(body).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn syntax_errors_read_as_the_originals_parser_puts_them() {
    let cases: [(&str, &str, usize); 19] = [
        ("", "The document is empty.", 0),
        ("{", NAME, 1),
        ("{\"name\": ", INVALID_VALUE, 9),
        ("nope", INVALID_VALUE, 1),
        ("{\"input\": [NaN]}", INVALID_VALUE, 11),
        ("{\"a\"", COLON, 4),
        ("{\"a\" 1}", COLON, 5),
        ("{\"a\": \"b\"", OBJECT_COMMA, 9),
        ("{\"a\": [1]", OBJECT_COMMA, 9),
        ("{\"a\": 1 \"b\": 2}", OBJECT_COMMA, 8),
        ("{\"a\": 1,}", NAME, 8),
        ("{a: 1}", NAME, 1),
        ("{\"a\": [1,]}", INVALID_VALUE, 9),
        ("{\"a\": [1 2]}", ARRAY_COMMA, 9),
        ("[1", ARRAY_COMMA, 2),
        ("{\"a\": \"b", "Missing a closing quotation mark in string.", 8),
        ("{\"a\": 1} x", "The document root must not be followed by other values.", 9),
        ("{\n\"a\": 1\n,\n}", NAME, 11),
        ("{\"a\": \"\\x\"}", "Invalid escape character in string.", 8),
    ];
    for (body, phrase, offset) in cases {
        let expected = format!("JSON parse error: {phrase} (offset {offset})\n");
        assert_eq!(refusal(body.as_bytes()), expected, "{body}");
    }
    let huge: serde_json::Error = serde_json::from_str::<f64>("1e999").unwrap_err();
    assert_eq!(
        rapidjson_phrase(&huge, b"1e999"),
        "Number too big to be stored in double. (offset 0)"
    );
}

#[test]
fn bodies_made_to_hurt_are_refused() {
    assert_eq!(
        refusal(b"{\"a\": \"\xff\"}"),
        "JSON parse error: Invalid UTF-8 encoding. (offset 7)\n"
    );
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    let expected = "JSON parse error: Nested deeper than 128 levels. (offset 128)\n";
    assert_eq!(refusal(deep.as_bytes()), expected);
    let brackets_in_text = format!("{{\"a\": \"{}\\\"[\"}}", "[".repeat(500));
    assert!(Object::parse(brackets_in_text.as_bytes()).is_ok());
    let wide = format!("{{{}}}", vec!["\"a\":1"; MEMBERS_MAX + 1].join(","));
    assert!(refusal(wide.as_bytes()).contains("Too many members"), "{}", refusal(wide.as_bytes()));
    for body in ["[1]", "3", "\"x\"", "null"] {
        assert_eq!(refusal(body.as_bytes()), "Can only get key-value pair from an object");
    }
}

#[test]
fn members_are_typed_as_the_original_types_them() {
    let body = br#"{"s": "a\u00e9", "b": true, "i": -7, "f": 1.0, "l": ["x", "y"], "s": 1,
        "big": 3000000000, "mixed": ["x", null], "bad": "\ud800"}"#;
    let object = Object::parse(body).unwrap();
    assert_eq!(object.string("s").unwrap(), "aé");
    assert!(object.bool("b").unwrap());
    assert_eq!(object.int("i"), Ok(-7));
    assert_eq!(object.strings("l").unwrap(), ["x", "y"]);
    assert_eq!(object.integer("big"), Ok(3_000_000_000));
    let texts = [
        (
            object.int("big").unwrap_err(),
            "Type mismatch! JSON key big expected a whole number of 32 bits but found \
             3000000000",
        ),
        (
            object.int("f").unwrap_err(),
            "Type mismatch! JSON key f expected a whole number of 32 bits but found 1.0",
        ),
        (
            object.int("s").unwrap_err(),
            "Type mismatch! JSON key s expected type Number but found type String",
        ),
        (
            object.bool("i").unwrap_err(),
            "Type mismatch! JSON key i expected type bool but found type Number",
        ),
        (
            object.strings("mixed").unwrap_err(),
            "Type mismatch! JSON key mixed, element 1, expected type String but found type Null",
        ),
        (object.string("none").unwrap_err(), "JSON object does not have required key: none"),
    ];
    for (error, text) in texts {
        assert_eq!(error.to_string(), text);
    }
    assert!(object.string("bad").unwrap_err().to_string().contains("surrogate"));
}
