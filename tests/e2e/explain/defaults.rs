//! Why the default output was answered.

use std::thread;

use serde_json::{Value, json};

use super::{PATIENT_US, SHORT_US, ask, causes, explain, serve_one_by_one};
use crate::e2e::choosing;
use crate::e2e::support::container::Container;
use crate::e2e::support::eventually;
use crate::e2e::support::server::Server;

/// That a default output was answered for this reason, which is the main cause.
fn defaulted(explained: &Value, reason: &str, cause: &str) {
    assert_eq!(explained["outcome"], reason, "{explained}");
    assert_eq!(explained["default"]["reason"], reason, "{explained}");
    assert_eq!(explained["because"][0]["cause"], cause, "{explained}");
    assert_eq!(explained["because"][0]["text"], explained["default"]["explanation"]);
}

#[test]
fn nobody_is_there_to_answer() {
    let server = Server::start();
    server.add_app("a", "doubles", "-1", PATIENT_US);
    let explained = explain(&server, "a", 1.0);
    defaulted(&explained, "no_replica", "unlinked");
    assert_eq!(explained["models"], json!([]));
    server.serve("m", "doubles", PATIENT_US);
    let explained = explain(&server, "m", 1.0);
    defaulted(&explained, "no_replica", "no_replica");
    let model = &explained["models"][0];
    assert_eq!(
        (&model["model"], &model["version"], &model["used"]),
        (&json!("m"), &json!("1"), &json!(false))
    );
    assert_eq!(model["attempts"], json!([]));
}

#[test]
fn it_was_late_at_a_replica_and_in_the_queue() {
    let server = Server::start();
    serve_one_by_one(&server, "m", SHORT_US);
    let container = Container::serving(&server, "m", &["--how", "hold"]);
    let query = server.query;
    let first = thread::spawn(move || ask(query, "m", 1.0));
    container.await_input(&json!([1.0]));
    let behind = explain(&server, "m", 2.0);
    defaulted(&behind, "late", "late");
    assert_eq!(causes(&behind)[1], "queue", "{behind}");
    assert_eq!(behind["models"][0]["replica"], Value::Null);
    let first = first.join().unwrap()["explain"].take();
    defaulted(&first, "late", "late");
    assert!(causes(&first).contains(&"cold"), "it was the first batch: {first}");
    let attempt = &first["models"][0]["attempts"][0];
    assert_eq!((&attempt["end"], &attempt["took_ms"]), (&json!("unanswered"), &Value::Null));
}

#[test]
fn the_queue_was_full() {
    let server = Server::with_config("[serving]\nmodel_queue_max = 1\n");
    serve_one_by_one(&server, "m", SHORT_US);
    let container = Container::serving(&server, "m", &["--how", "hold"]);
    let query = server.query;
    let mut waiting = vec![thread::spawn(move || ask(query, "m", 1.0))];
    container.await_input(&json!([1.0]));
    waiting.push(thread::spawn(move || ask(query, "m", 2.0)));
    let depth = "clipper_queue_depth{model=\"m\",version=\"1\"}";
    eventually("a query waits", || server.sample(depth) > 0.0);
    let explained = explain(&server, "m", 3.0);
    defaulted(&explained, "shed", "shed");
    for asked in waiting {
        defaulted(&asked.join().unwrap()["explain"], "late", "late");
    }
}

#[test]
fn the_replica_failed() {
    let server = Server::with_config("[serving]\nattempts_max = 1\n");
    server.serve("m", "doubles", PATIENT_US);
    let _container = Container::serving(&server, "m", &["--how", "fewer"]);
    let explained = explain(&server, "m", 1.0);
    defaulted(&explained, "failed", "failed");
    let attempts = explained["models"][0]["attempts"].as_array().unwrap();
    assert_eq!((attempts.len(), &attempts[0]["end"]), (1, &json!("failed")), "{explained}");
}

#[test]
fn the_input_kills_replicas() {
    let server = Server::start();
    server.serve("m", "doubles", PATIENT_US);
    let _containers =
        [(); 2].map(|()| Container::serving(&server, "m", &["--how", "exit", "--quiet"]));
    let explained = explain(&server, "m", 13.0);
    defaulted(&explained, "failed", "poisoned");
    let attempts = explained["models"][0]["attempts"].as_array().unwrap();
    let kinds: Vec<_> = attempts.iter().map(|attempt| &attempt["kind"]).collect();
    assert_eq!(kinds, [&json!("first"), &json!("retry")], "{explained}");
    assert!(causes(&explained).contains(&"retry"), "{explained}");
    eventually("the dead are gone", || server.replicas("m") < 1.0);
    // It is remembered, and refused at once.
    let _third = Container::serving(&server, "m", &[]);
    let again = explain(&server, "m", 13.0);
    defaulted(&again, "failed", "poisoned");
    assert_eq!(again["models"][0]["attempts"], json!([]));
    assert_eq!(explain(&server, "m", 14.0)["outcome"], "prediction");
}

#[test]
fn the_model_answered_with_an_error() {
    let server = Server::start();
    server.serve("m", "doubles", PATIENT_US);
    let options = ["--extensions", "1", "--how", "an error"];
    let _container = Container::serving(&server, "m", &options);
    let explained = explain(&server, "m", 1.0);
    defaulted(&explained, "model_error", "model_error");
    assert_eq!(explained["models"][0]["attempts"][0]["end"], "answered");
}

#[test]
fn the_policy_was_not_sure_enough() {
    let policy = "name = \"majority\"\nmin_confidence = 0.9";
    let server = choosing::server(policy, &["1", "2", "2"]);
    let explained = explain(&server, "a", 1.0);
    defaulted(&explained, "doubtful", "doubtful");
    assert_eq!(explained["policy"]["name"], "majority");
    assert!((explained["policy"]["confidence"].as_f64().unwrap() - 0.667).abs() < 0.01);
    let models = explained["models"].as_array().unwrap();
    assert_eq!(models.len(), 3);
    for model in models {
        assert_eq!((&model["outcome"], &model["used"]), (&json!("prediction"), &json!(false)));
        assert!((model["weight"].as_f64().unwrap() - 1.0 / 3.0).abs() < 0.01, "{explained}");
    }
}
