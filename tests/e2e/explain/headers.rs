//! What headers say of each answer.

use serde_json::{Value, json};

use super::PATIENT_US;
use super::forms::post;
use crate::e2e::choosing;
use crate::e2e::support::container::Container;
use crate::e2e::support::http::{Answer, get};
use crate::e2e::support::server::Server;

const MODEL: &str = "x-clipper-model";
const ID: &str = "x-request-id";

#[test]
fn the_model_that_has_answered_is_named() {
    let server = Server::start();
    server.serve("m 1", "doubles", PATIENT_US);
    let body = json!({"input": [1.0]});
    let default = post(&server, "/m%201/predict", "", &body);
    assert_eq!(default.header(MODEL), Some("m%201:1"), "{}", default.text());
    let _container = Container::serving(&server, "m 1", &["--output", "7"]);
    let answer = post(&server, "/m%201/predict", "", &body);
    assert_eq!(answer.header(MODEL), Some("m%201:1"), "{}", answer.text());
    let v2 = json!({"inputs": [{"name": "input", "shape": [1, 1], "datatype": "FP64",
                                "data": [2.0]}]});
    let answer = post(&server, "/v2/models/m%201/infer", "", &v2);
    assert_eq!((answer.status, answer.header(MODEL)), (200, Some("m%201:1")));
    server.add_app("none", "doubles", "-1", PATIENT_US);
    assert_eq!(post(&server, "/none/predict", "", &body).header(MODEL), None);
}

#[test]
fn of_several_models_those_are_named_whose_output_it_is() {
    let server = choosing::server("name = \"majority\"", &["1", "2", "2"]);
    let answer = post(&server, "/a/predict", "", &json!({"input": [1.0]}));
    let named = answer.header(MODEL).unwrap();
    let some = ["m0:1, m1:1, m2:1", "m1:1", "m2:1"];
    assert!(some.contains(&named), "{named}: {}", answer.text());
}

#[test]
fn every_answer_has_the_id_of_its_request() {
    let server = Server::start();
    server.add_app("none", "doubles", "-1", PATIENT_US);
    let body = json!({"input": [1.0]});
    let given = post(&server, "/none/predict?explain=1", "X-Request-Id: mine/7\r\n", &body);
    assert_eq!(given.header(ID), Some("mine/7"));
    let told: Value = serde_json::from_slice(&given.body).unwrap();
    assert_eq!(told["explain"]["request_id"], "mine/7");
    let made = post(&server, "/none/predict", "", &body);
    let made = made.header(ID).unwrap().to_owned();
    assert_eq!(made.len(), 16);
    let long = format!("X-Request-Id: {}\r\n", "x".repeat(129));
    assert_eq!(post(&server, "/none/predict", &long, &body).header(ID).unwrap().len(), 16);
    let text = get(server.management, "/admin/explain?default").text();
    assert!(text.contains(&made) && text.contains("mine/7"), "{text}");
    for (path, status) in [("/nobody/predict", 404), ("/none/predict", 400)] {
        let error = post(&server, path, "X-Request-Id: wrong\r\n", &json!(7));
        assert_eq!((error.status, error.header(ID)), (status, Some("wrong")), "{path}");
    }
    for addr in [server.query, server.management, server.metrics] {
        assert!(get(addr, "/livez").header(ID).is_some());
    }
}

#[test]
fn an_error_says_which_request_it_is_about_where_its_form_is_ours() {
    let server = Server::start();
    server.add_app("none", "doubles", "-1", PATIENT_US);
    let id = "X-Request-Id: about\r\n";
    // Clients of the original know these: the header has it.
    for path in ["/none/predict", "/none/update", "/nobody/predict"] {
        let error = post(&server, path, id, &json!(7));
        assert_eq!(error.header(ID), Some("about"), "{path}");
        assert!(!error.text().contains("request_id"), "{}", error.text());
    }
    let of = |answer: &Answer| serde_json::from_slice::<Value>(&answer.body).unwrap();
    let error = post(&server, "/v2/models/none/infer", id, &json!(7));
    assert_eq!((error.status, &of(&error)["request_id"]), (400, &json!("about")));
    let error = get(server.management, "/admin/no_such_thing");
    assert_eq!(of(&error)["request_id"].as_str(), error.header(ID), "{}", error.text());
    // Plain text as the original has it.
    let error = server.admin("get_application", &json!({}));
    assert!(error.status == 400 && error.header(ID).is_some(), "{}", error.text());
    assert!(!error.text().contains("request_id"), "{}", error.text());
    let line = server.says("management request failed");
    assert!(line.contains(error.header(ID).unwrap()), "{line}");
}
