//! Each input type on its way from JSON to a container on stock pyzmq.

use serde_json::{Value, json};

use crate::e2e::support::container::{Container, type_code};
use crate::e2e::support::server::Server;

const SLO_US: u64 = 30_000_000;

fn served(input_type: &str) -> (Server, Container) {
    let server = Server::start();
    server.serve("m", input_type, SLO_US);
    let options = ["--type-code", type_code(input_type)];
    let container = Container::serving(&server, "m", &options);
    (server, container)
}

/// `sent` reaches the container as `arrives`; the container sends it back as JSON.
fn arrives(input_type: &str, cases: &[(Value, Value)]) {
    let (server, container) = served(input_type);
    let sent: Vec<&Value> = cases.iter().map(|(sent, _)| sent).collect();
    let answer = server.predict("m", &json!({"input_batch": sent}));
    assert_eq!(answer.status, 200, "{answer:?}");
    let expected: Vec<&Value> = cases.iter().map(|(_, arrives)| arrives).collect();
    let outputs = answer.body["batch_predictions"].as_array().unwrap();
    assert_eq!(outputs.iter().map(|p| &p["output"]).collect::<Vec<_>>(), expected);
    assert!(outputs.iter().all(|p| p["default"] == json!(false)));
    for input in expected {
        container.await_input(input);
    }
}

#[test]
fn bytes_arrive_decoded() {
    let cases =
        [(json!("AAECf4D/"), json!([0, 1, 2, 127, 128, 255])), (json!("eA=="), json!([120]))];
    arrives("bytes", &cases);
}

#[test]
fn integers_arrive_as_32_bits() {
    let extremes = json!([i32::MIN, -1, 0, 1, i32::MAX]);
    arrives("integers", &[(extremes.clone(), extremes), (json!([7]), json!([7]))]);
}

#[test]
fn floats_arrive_rounded_to_32_bits() {
    let cases =
        [(json!([0.1, -2]), json!([f64::from(0.1_f32), -2.0])), (json!([3.5]), json!([3.5]))];
    arrives("floats", &cases);
}

#[test]
fn doubles_arrive_exactly() {
    let exact = json!([0.1, 1e-300, -1.797_693_134_862_315_7e308, 5e-324]);
    arrives("doubles", &[(exact.clone(), exact), (json!([1, 2]), json!([1.0, 2.0]))]);
}

#[test]
fn strings_arrive_as_utf_8() {
    let cases = ["x", "Grüße, 世界 \u{1f40d}", "with \"quotes\"\nand\tlines\0"];
    arrives("strings", &cases.map(|text| (json!(text), json!(text))));
}

#[test]
fn an_integer_out_of_range_is_400_and_named() {
    let (server, mut container) = served("integers");
    let answer = server.predict("m", &json!({"input": [1, 2, 2_147_483_648_u32]}));
    assert_eq!(answer.status, 400, "{answer:?}");
    let cause = answer.body["cause"].as_str().unwrap();
    assert!(cause.contains("2147483648") || cause.contains("lement 2"), "{cause}");
    assert_eq!(container.counted("inputs"), 0);
}
