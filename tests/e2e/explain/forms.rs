//! How it is asked for, and where it is told.

use serde_json::{Value, json};

use super::{PATIENT_US, adds_up};
use crate::e2e::support::container::Container;
use crate::e2e::support::http::{Answer, Connection};
use crate::e2e::support::server::Server;

pub(super) fn post(server: &Server, path: &str, headers: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let mut connection = Connection::open(server.query);
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n{headers}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.send(head.as_bytes());
    connection.answer("POST").unwrap()
}

#[test]
fn only_who_asks_is_told() {
    let server = Server::start();
    server.serve("m", "doubles", PATIENT_US);
    let _container = Container::serving(&server, "m", &["--output", "7"]);
    let body = json!({"input": [1.0]});
    let plain = post(&server, "/m/predict", "", &body);
    assert_eq!(plain.text(), "{\"query_id\":0,\"output\":7,\"default\":false}");
    let no = post(&server, "/m/predict?explain=0", "X-Clipper-Explain: no\r\n", &body);
    assert_eq!(no.text(), "{\"query_id\":1,\"output\":7,\"default\":false}");
    let asked = post(&server, "/m/predict", "X-Clipper-Explain: 1\r\n", &body);
    let told: Value = serde_json::from_slice(&asked.body).unwrap();
    adds_up(&told["explain"]);
    let start = "{\"query_id\":2,\"output\":7,\"default\":false,\"explain\":{\"query_id\":2,";
    assert!(asked.text().starts_with(start), "{}", asked.text());
    assert_eq!(told["explain"]["app"], "m");
    assert_eq!(told["explain"]["slo_ms"], 20_000.0);
    assert!(told["explain"]["at"].as_str().unwrap().ends_with('Z'), "{told}");
}

#[test]
fn each_query_of_a_batch_is_explained_up_to_a_limit() {
    let server = Server::start();
    server.serve("m", "doubles", PATIENT_US);
    let _container = Container::serving(&server, "m", &["--quiet"]);
    let inputs: Vec<[u32; 1]> = (0..120).map(|n| [n]).collect();
    let body = json!({"input_batch": inputs});
    let answer = post(&server, "/m/predict?explain=1", "", &body);
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    let answers = answer["batch_predictions"].as_array().unwrap();
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer["default"], false, "{answer}");
        assert_eq!(answer.get("explain").is_some(), n < 100, "{n}");
    }
    for answer in &answers[..100] {
        assert_eq!(answer["explain"]["query_id"], answer["query_id"]);
        adds_up(&answer["explain"]);
    }
}

#[test]
fn the_open_inference_protocol_tells_in_a_header() {
    let server = Server::start();
    server.serve("m", "doubles", PATIENT_US);
    let _container = Container::serving(&server, "m", &["--output", "7"]);
    let body = json!({"inputs": [{"name": "input", "shape": [1, 1], "datatype": "FP64",
                                  "data": [1.0]}]});
    let plain = post(&server, "/v2/models/m/infer", "", &body);
    assert_eq!((plain.status, plain.header("x-clipper-explain")), (200, None));
    let asked = post(&server, "/v2/models/m/infer?explain=1", "", &body);
    assert_eq!(asked.status, 200, "{}", asked.text());
    assert_eq!(asked.body, plain.body);
    let told: Value = serde_json::from_str(asked.header("x-clipper-explain").unwrap()).unwrap();
    adds_up(&told);
    assert_eq!(told["models"][0]["cache"], "hit");
}
