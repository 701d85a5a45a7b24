//! Of answers that come in pieces, or over a stream.

use serde_json::{Value, json};

use super::{PATIENT_US, adds_up, causes};
use crate::e2e::support::container::Container;
use crate::e2e::support::events::Events;
use crate::e2e::support::http::get;
use crate::e2e::support::server::Server;

fn says(events: &Events, header: &str) -> bool {
    events.head.iter().any(|line| line.eq_ignore_ascii_case(header))
}

/// The names of all events, and the last one's data.
fn all(mut events: Events) -> (Vec<String>, Value) {
    let all: Vec<(String, Value)> = std::iter::from_fn(|| events.next()).collect();
    let last = all.last().map(|(_, data)| data.clone()).unwrap_or_default();
    (all.into_iter().map(|(name, _)| name).collect(), last)
}

#[test]
fn the_last_event_explains_an_answer_in_pieces() {
    let server = Server::start();
    server.serve("m", "doubles", PATIENT_US);
    let body = json!({"input": [1.0]});
    let nobody = Events::post(server.query, "/m/predict?explain=1", &body);
    let (names, explained) = all(nobody);
    assert_eq!(names, ["end", "explain"]);
    assert_eq!(
        (causes(&explained)[0], &explained["outcome"]),
        ("no_replica", &json!("no_replica"))
    );
    let _container = Container::serving(&server, "m", &["--output", "7"]);
    let plain = Events::post(server.query, "/m/predict", &body);
    assert!(says(&plain, "x-clipper-model: m:1"), "{:?}", plain.head);
    assert_eq!(all(plain).0, ["", "end"]);
    let asked = "X-Clipper-Explain: 1\r\nX-Request-Id: mine\r\n";
    let told = Events::post_with(server.query, "/m/predict", asked, &body);
    assert!(says(&told, "x-request-id: mine"), "{:?}", told.head);
    let (names, explained) = all(told);
    assert_eq!(names, ["", "end", "explain"]);
    adds_up(&explained);
    assert_eq!((&explained["request_id"], &explained["app"]), (&json!("mine"), &json!("m")));
    let model = &explained["models"][0];
    assert_eq!((&model["model"], &model["used"]), (&json!("m"), &json!(true)));
    assert_eq!(model["attempts"][0]["end"], "answered", "{explained}");
    let text = get(server.management, "/admin/explain?default&app=m").text();
    let kept: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(kept["queries"][0]["outcome"], "no_replica", "it is kept, too: {text}");
}

#[test]
fn the_open_inference_protocol_says_why_there_is_no_prediction() {
    let server = Server::start();
    server.serve("m", "doubles", PATIENT_US);
    let body = json!({"inputs": [{"name": "input", "shape": [1, 1], "datatype": "FP64",
                                  "data": [1.0]}]});
    let refused = super::forms::post(&server, "/v2/models/m/infer?explain=1", "", &body);
    assert!(refused.status >= 500, "{}", refused.text());
    assert_eq!(refused.header("x-clipper-model"), Some("m:1"));
    let told: Value = serde_json::from_str(refused.header("x-clipper-explain").unwrap()).unwrap();
    assert_eq!(causes(&told), ["no_replica"]);
    let body = json!({"input": [1.0]});
    let path = "/v2/models/m/generate?explain=1";
    let refused = super::forms::post(&server, path, "", &body);
    let told = refused.header("x-clipper-explain").unwrap_or_else(|| panic!("{}", refused.text()));
    let told: Value = serde_json::from_str(told).unwrap();
    assert_eq!(causes(&told), ["no_replica"]);
}
