//! Cases in which the original's process dies.

use serde_json::json;

use super::{GENEROUS_SLO_US, ask, scene, served_by_a_good_container};
use crate::e2e::support::container::{Container, type_code};
use crate::e2e::support::http;
use crate::e2e::support::{eventually, server::Server};

#[test]
fn a_version_without_a_linked_model_is_400() {
    let (server, bystander) = scene();
    server.add_app("alone", "doubles", "-1", GENEROUS_SLO_US);
    let answer = server.predict("alone", &json!({"version": "1", "input": [1.5]}));
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(answer.body["error"], "Query processing error");
    bystander.was_served(&server);
}

#[test]
fn a_body_of_200_000_nested_arrays_is_400() {
    let (server, bystander) = scene();
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    for body in [deep.clone(), format!("{{\"input\": {deep}}}"), format!("{{\"x\": {deep}}}")] {
        for path in ["/m/predict", "/m/update"] {
            let answer = http::call(server.query, "POST", path, body.as_bytes()).unwrap();
            assert_eq!(answer.status, 400, "{path}: {}", answer.text());
            assert!(answer.body.len() < 10_000, "the answer does not repeat the body");
        }
    }
    bystander.was_served(&server);
}

/// A container that is refused for `reason`, in words that `log` is part of.
fn is_refused(options: &[&str], reason: &str, log: &str) {
    let (server, bystander) = scene();
    let _refused = Container::spawn(&server, "m", options);
    eventually("the container is refused", || server.connections_ended(reason) > 0.0);
    eventually("the log says why", || server.log_line(log).is_some());
    assert_eq!(server.containers(), ["bystander:1:0"]);
    let unserved = ask(&server, 1.5);
    assert_eq!(unserved.explanation(), "No connected models found for query");
    served_by_a_good_container(&server, 2.5);
    bystander.was_served(&server);
}

#[test]
fn a_new_container_message_with_a_non_numeric_input_type_is_refused() {
    is_refused(&["--type-code", "doubles"], "input_type", "not a number from 0 to 4");
}

#[test]
fn a_new_container_message_with_an_unknown_input_type_is_refused() {
    is_refused(&["--type-code", "5"], "input_type", "not a number from 0 to 4");
}

#[test]
fn a_container_whose_input_type_is_not_its_models_is_refused() {
    is_refused(&["--type-code", type_code("strings")], "input_type", "strings");
}

#[test]
fn a_container_with_a_wrong_rpc_version_is_refused() {
    is_refused(&["--rpc-version", "2"], "rpc_version", "version 3 is needed");
}

#[test]
fn a_container_without_an_rpc_version_is_refused() {
    is_refused(&["--rpc-version", "missing"], "rpc_version", "version 3 is needed");
}

/// A replica that answers in a broken way is dropped for `reason`; its queries are tried on another
/// connection of it and then get the default output with the reason.
pub fn is_dropped(how: &str, reason: &str, explanation: &str) {
    let (server, bystander) = scene();
    {
        let _broken = Container::serving(&server, "m", &["--how", how]);
        let prediction = ask(&server, 1.5);
        assert_eq!(prediction.status, 200, "{prediction:?}");
        assert!(prediction.is_default(), "{prediction:?}");
        assert!(prediction.explanation().contains(explanation), "{prediction:?}");
        assert!(server.connections_ended(reason) > 0.0);
        let failed = "clipper_predictions_total{app=\"m\",outcome=\"failed\"}";
        eventually("the reason is counted", || server.sample(failed) > 0.0);
    }
    server.await_replicas("m", 0);
    served_by_a_good_container(&server, 2.5);
    bystander.was_served(&server);
}

#[test]
fn an_answer_with_an_empty_header_ends_its_connection() {
    is_dropped("empty header", "protocol", "header");
}

#[test]
fn an_answer_with_2_to_the_40_outputs_ends_its_connection() {
    is_dropped("huge count", "protocol", "");
}

#[test]
fn fewer_outputs_than_inputs_drop_the_replica() {
    is_dropped("fewer", "output_count", "answered 0 outputs to 1 inputs");
}

#[test]
fn more_outputs_than_inputs_drop_the_replica() {
    is_dropped("more", "output_count", "answered 2 outputs to 1 inputs");
}

#[test]
fn queries_of_a_replica_with_too_few_outputs_are_answered_by_another() {
    let (server, bystander) = scene();
    let mut broken = Container::serving(&server, "m", &["--how", "hold"]);
    let query = |input: f64| {
        let addr = server.query;
        std::thread::spawn(move || {
            let body = json!({"input": [input]}).to_string();
            http::call(addr, "POST", "/m/predict", body.as_bytes()).unwrap()
        })
    };
    let client = query(1.5);
    broken.await_input(&json!([1.5]));
    let _good = Container::serving(&server, "m", &[]);
    broken.answer("fewer");
    let answer = client.join().unwrap();
    assert!(answer.text().contains("\"output\":[1.5],\"default\":false"), "{}", answer.text());
    bystander.was_served(&server);
}

/// One application is deleted and added 20 times as fast as the server acknowledges; afterwards
/// everything acknowledged is true, in the list, in the routes and after a restart.
fn delete_and_add_20_times(mut server: Server) -> Server {
    for round in 0..20 {
        server.manage("delete_app", &json!({"name": "quick"}));
        let gone = server.predict("quick", &json!({"input": [1.5]}));
        assert_eq!(gone.status, 404, "{gone:?}");
        server.add_app("quick", "doubles", &format!("\"{round}\""), GENEROUS_SLO_US);
        let there = server.predict("quick", &json!({"input": [1.5]}));
        assert_eq!(there.output(), &json!(round.to_string()), "{there:?}");
    }
    let quick = server.manage("get_application", &json!({"name": "quick"}));
    assert!(quick.contains("\"linked_models\":[]"), "{quick}");
    server = server.restart();
    assert_eq!(server.manage("get_application", &json!({"name": "quick"})), quick);
    server
}

#[test]
fn quick_deletes_and_adds_of_one_application_are_all_true() {
    let (mut server, bystander) = scene();
    server.add_app("quick", "doubles", "-1", GENEROUS_SLO_US);
    server.link("quick", "m");
    bystander.was_served(&server);
    for _ in 0..4 {
        server = delete_and_add_20_times(server);
    }
}
