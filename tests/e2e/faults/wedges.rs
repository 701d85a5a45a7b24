//! Cases after which the original lives on but is broken for good.

use std::time::{Duration, Instant};

use serde_json::json;

use super::crashes::is_dropped;
use super::{GENEROUS_SLO_US, ask, scene, served_by_a_good_container};
use crate::e2e::support::bystander::Bystander;
use crate::e2e::support::container::{Container, type_code};
use crate::e2e::support::http;
use crate::e2e::support::server::Server;
use crate::e2e::support::{eventually, within};

#[test]
fn an_empty_input_leaves_its_replica_serving() {
    let server = Server::start();
    let bystander = Bystander::start(&server);
    let cases = [
        ("doubles", json!([]), json!([1.5]), 400),
        ("bytes", json!(""), json!("eA=="), 400),
        // No characters are a text, too.
        ("strings", json!(""), json!("x"), 200),
    ];
    for (input_type, empty, good, status) in cases {
        server.serve(input_type, input_type, GENEROUS_SLO_US);
        let options = ["--type-code", type_code(input_type), "--output", "1"];
        let mut container = Container::serving(&server, input_type, &options);
        let alone = server.predict(input_type, &json!({"input": empty}));
        assert_eq!(alone.status, status, "{alone:?}");
        let among = server.predict(input_type, &json!({"input_batch": [good, empty]}));
        assert_eq!(among.status, status, "{among:?}");
        for _ in 0..2 {
            let later = server.predict(input_type, &json!({"input": good}));
            assert_eq!((later.output(), later.is_default()), (&json!(1), false), "{later:?}");
        }
        assert_eq!(container.counted("inputs"), if status == 400 { 1 } else { 2 });
    }
    bystander.was_served(&server);
}

#[test]
fn an_objective_of_one_microsecond_defaults_and_wedges_nothing() {
    let (server, bystander) = scene();
    let _container = Container::serving(&server, "m", &["--quiet"]);
    server.add_app("hasty", "doubles", "-1", 1);
    server.link("hasty", "m");
    let mut late = 0;
    for number in 0..100 {
        let hasty = server.predict("hasty", &json!({"input": [number]}));
        assert_eq!(hasty.status, 200, "{hasty:?}");
        // What is there by the time that anybody looks is an answer, however late that is.
        let is_late = hasty.is_default() && hasty.explanation().contains("latency SLO");
        assert!(is_late || !hasty.is_default(), "{hasty:?}");
        late += u32::from(is_late);
        let patient = ask(&server, f64::from(number) + 0.5);
        assert!(!patient.is_default(), "{patient:?}");
    }
    assert!(late > 0, "a microsecond is too little");
    bystander.was_served(&server);
}

#[test]
fn an_answer_of_a_single_frame_hurts_only_its_connection() {
    is_dropped("single frame", "protocol", "");
}

#[test]
fn an_answer_without_its_delimiter_hurts_only_its_connection() {
    is_dropped("no delimiter", "protocol", "");
}

#[test]
fn an_answer_with_extra_frames_hurts_only_its_connection() {
    is_dropped("extra frames", "protocol", "frames");
}

#[test]
fn an_unasked_answer_is_ignored_and_counted() {
    let (server, bystander) = scene();
    let mut container = Container::serving(&server, "m", &[]);
    let id = 7_u32.to_le_bytes();
    let header = [1_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat();
    let frames: [&[u8]; 6] = [b"", &1_u32.to_le_bytes(), &id, &16_u64.to_le_bytes(), &header, b"9"];
    container.send(&frames);
    await_stray_answers(&server, 1);
    assert_eq!(ask(&server, 1.5).output(), &json!([1.5]));
    bystander.was_served(&server);
}

#[test]
fn a_duplicate_answer_is_ignored_and_counted() {
    stray_answers("twice");
}

#[test]
fn an_answer_with_an_unknown_message_id_is_ignored_and_counted() {
    stray_answers("unknown id first");
}

fn stray_answers(how: &str) {
    let (server, bystander) = scene();
    let _container = Container::serving(&server, "m", &["--how", how]);
    for number in 0..20 {
        let prediction = ask(&server, f64::from(number) + 0.5);
        assert_eq!(prediction.output(), &json!([f64::from(number) + 0.5]), "{prediction:?}");
        assert!(!prediction.is_default());
    }
    await_stray_answers(&server, 20);
    assert_eq!(server.containers().len(), 2, "both replicas are still there");
    bystander.was_served(&server);
}

fn await_stray_answers(server: &Server, n: u32) {
    let name = "clipper_stray_answers_total{model=\"m\",version=\"1\"}";
    eventually("all stray answers are counted", || server.sample(name) >= f64::from(n));
}

#[test]
fn a_killed_container_is_noticed_at_once() {
    let (server, bystander) = scene();
    let mut container = Container::serving(&server, "m", &["--how", "hold"]);
    let addr = server.query;
    let client = std::thread::spawn(move || {
        let body = json!({"input": [1.5]}).to_string();
        http::call(addr, "POST", "/m/predict", body.as_bytes()).unwrap()
    });
    container.await_input(&json!([1.5]));
    let killed = Instant::now();
    container.kill();
    // The closed connection says it: no wait for the silence limit of 30 s.
    let took = within(Duration::from_secs(5), "the replica is gone", || {
        server.containers() == ["bystander:1:0"]
    });
    println!("kill -9 of a container was noticed after {took:?}");
    let after = ask(&server, 2.5);
    assert!(after.is_default(), "{after:?}");
    assert_eq!(after.explanation(), "No connected models found for query");
    // What it had goes to the next replica, as there is time.
    served_by_a_good_container(&server, 3.5);
    let answer = client.join().unwrap();
    assert!(answer.text().contains("\"output\":[1.5],\"default\":false"), "{}", answer.text());
    println!("its query was answered {:?} after the kill", killed.elapsed());
    bystander.was_served(&server);
}

#[test]
fn with_another_replica_a_killed_container_costs_no_answer() {
    let (server, bystander) = scene();
    let mut doomed = Container::serving(&server, "m", &["--how", "hold"]);
    let addr = server.query;
    let client = std::thread::spawn(move || {
        let body = json!({"input": [1.5]}).to_string();
        http::call(addr, "POST", "/m/predict", body.as_bytes()).unwrap()
    });
    doomed.await_input(&json!([1.5]));
    let _other = Container::serving(&server, "m", &[]);
    doomed.kill();
    let answer = client.join().unwrap();
    assert!(answer.text().contains("\"output\":[1.5],\"default\":false"), "{}", answer.text());
    let retried = "clipper_queue_retried_total{model=\"m\",version=\"1\"}";
    assert!((server.sample(retried) - 1.0).abs() < 0.5);
    bystander.was_served(&server);
}

#[test]
fn a_container_that_exits_in_the_middle_of_a_batch_is_replaced_by_the_next() {
    let (server, bystander) = scene();
    let mut exits = Container::serving(&server, "m", &["--how", "exit"]);
    let addr = server.query;
    let client = std::thread::spawn(move || {
        let body = json!({"input": [1.5]}).to_string();
        http::call(addr, "POST", "/m/predict", body.as_bytes()).unwrap()
    });
    exits.await_end();
    server.await_replicas("m", 0);
    served_by_a_good_container(&server, 2.5);
    assert_eq!(client.join().unwrap().status, 200);
    bystander.was_served(&server);
}

#[test]
fn a_container_that_never_answers_costs_the_objective_and_no_more() {
    let server = Server::start();
    let bystander = Bystander::start(&server);
    server.serve("m", "doubles", 50_000);
    let mut silent = Container::serving(&server, "m", &["--how", "hold"]);
    for number in 0..5 {
        let late = ask(&server, f64::from(number));
        assert!(late.is_default(), "{late:?}");
        assert!(late.explanation().contains("specified latency SLO"), "{late:?}");
    }
    // It answers at last: the replica serves again.
    silent.answer("right");
    eventually("the replica serves again", || !ask(&server, 99.5).is_default());
    bystander.was_served(&server);
}

#[test]
fn an_output_that_is_no_text_is_a_default_with_the_reason() {
    let (server, bystander) = scene();
    let mut container = Container::serving(&server, "m", &["--how", "not utf-8"]);
    let prediction = ask(&server, 1.5);
    assert!(prediction.is_default(), "{prediction:?}");
    assert!(prediction.explanation().contains("not UTF-8"), "{prediction:?}");
    container.answer("right");
    assert_eq!(ask(&server, 1.5).output(), &json!([1.5]));
    bystander.was_served(&server);
}
