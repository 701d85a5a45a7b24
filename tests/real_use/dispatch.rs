//! Queries between arrival and answer: duplicate work, fair shares, abandoned work, poison, hangs.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::e2e::support::container::Container;
use crate::e2e::support::server::{Prediction, Server};
use crate::e2e::support::{eventually, http};

/// A latency objective that no test reaches, microseconds.
const GENEROUS_SLO_US: u64 = 25_000_000;

fn ask(server: &Server, app: &str, input: f64) -> Prediction {
    server.predict(app, &json!({"input": [input]}))
}

/// Asks on a thread of its own.
fn asking(server: &Server, app: &str, body: &Value) -> thread::JoinHandle<Value> {
    let (addr, path, body) = (server.query, format!("/{app}/predict"), body.to_string());
    thread::spawn(move || {
        let answer = http::call(addr, "POST", &path, body.as_bytes()).unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    })
}

#[test]
fn line_01_a_long_inference_is_not_a_hang() {
    let server = Server::with_config("[rpc]\nsilence_timeout_ms = 1000\n");
    server.serve("m", "doubles", GENEROUS_SLO_US);
    let _slow = Container::serving(&server, "m", &["--idle-ms", "200", "--slow-ms", "4000"]);
    let answer = ask(&server, "m", 1.5);
    assert!(!answer.is_default(), "{answer:?}");
    assert!(server.connections_ended("silent") < 1.0);
}

#[test]
fn line_01_a_replica_that_hangs_is_given_up_when_nobody_waits_any_more() {
    let config = "[rpc]\nsilence_timeout_ms = 1000\n[serving]\nanswer_margin_us = 0\n";
    let server = Server::with_config(config);
    server.serve("m", "doubles", 3_000_000);
    let slow = ["--idle-ms", "200", "--slow-ms", "3600000", "--slow-from", "1000"];
    let _hangs = Container::serving(&server, "m", &slow);
    let asked = Instant::now();
    assert!(ask(&server, "m", 1000.0).is_default());
    eventually("it is given up", || server.connections_ended("hung") > 0.0);
    assert!(asked.elapsed() >= Duration::from_secs(3), "somebody waited until then");
    server.says("computed for longer than anybody waited (the latest objective of its batch)");
    server.await_replicas("m", 0);
    let _next = Container::serving(&server, "m", &slow);
    assert!(!ask(&server, "m", 1.0).is_default());
}

#[test]
fn line_02_an_input_that_kills_replicas_is_answered_with_its_reason() {
    let server = Server::start();
    server.serve("m", "doubles", GENEROUS_SLO_US);
    let mut doomed: Vec<_> =
        (0..2).map(|_| Container::serving(&server, "m", &["--how", "exit"])).collect();
    let killer = ask(&server, "m", 7.5);
    assert!(killer.explanation().contains("2 replicas have failed on this input"), "{killer:?}");
    doomed.iter_mut().for_each(Container::await_end);
    server.await_replicas("m", 0);
    let mut spared = Container::serving(&server, "m", &["--how", "exit"]);
    let again = ask(&server, "m", 7.5);
    assert!(again.explanation().contains("failed on this input"), "{again:?}");
    let poisonous = "clipper_queue_poisonous_total{model=\"m\",version=\"1\"}";
    eventually("it is counted", || server.sample(poisonous) > 0.0);
    assert_eq!(spared.counted("inputs"), 0, "it never saw the input");
    spared.answer("right");
    assert!(!ask(&server, "m", 8.5).is_default(), "others are served");
}

#[test]
fn line_03_long_queries_are_not_computed_twice_beside_short_ones() {
    let server = Server::start();
    server.serve("short", "doubles", 100_000);
    server.add_app("long", "doubles", "-1", 4_000_000);
    server.link("long", "short");
    let slow = ["--slow-ms", "800", "--slow-from", "1000"];
    let replicas: Vec<_> = (0..2).map(|_| Container::serving(&server, "short", &slow)).collect();
    for warm in 0..20 {
        ask(&server, "short", f64::from(warm));
    }
    let long = 6;
    let mut next = 100.0;
    for number in 0..long {
        let one = asking(&server, "long", &json!({"input": [f64::from(1000 + number)]}));
        while !one.is_finished() {
            next += 1.0;
            ask(&server, "short", next % 900.0 + 0.5);
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(one.join().unwrap()["default"], false);
    }
    let inputs = replicas.iter().flat_map(Container::inputs);
    let computed = inputs.filter(|input| input[0].as_f64().unwrap() >= 1000.0).count();
    assert!(computed <= 7, "6 long queries were computed {computed} times");
}

#[test]
fn line_04_an_application_that_asks_little_is_served_beside_one_that_floods() {
    let server = Server::start();
    server.serve("greedy", "doubles", 500_000);
    server.add_app("modest", "doubles", "-1", 500_000);
    server.link("modest", "greedy");
    let _replica = Container::serving(&server, "greedy", &["--input-ms", "10", "--quiet"]);
    for warm in 0..30 {
        ask(&server, "greedy", f64::from(warm) + 0.25);
    }
    let end = Instant::now() + Duration::from_secs(8);
    let addr = server.query;
    let greedy = thread::spawn(move || {
        let mut next = 1_000;
        while Instant::now() < end {
            let batch: Vec<_> = (0..100).map(|n| [next + n]).collect();
            next += 100;
            let body = json!({ "input_batch": batch }).to_string();
            assert_eq!(
                http::call(addr, "POST", "/greedy/predict", body.as_bytes()).unwrap().status,
                200
            );
        }
    });
    let (mut asked, mut in_time) = (0, 0);
    while Instant::now() < end {
        asked += 1;
        in_time += i32::from(!ask(&server, "modest", f64::from(asked) + 0.5).is_default());
        thread::sleep(Duration::from_millis(100));
    }
    greedy.join().unwrap();
    assert!(in_time * 10 >= asked * 6, "{in_time} of {asked}");
}

#[test]
fn line_04_a_larger_weight_is_a_larger_part_of_a_shared_model() {
    let server = Server::start();
    server.serve("heavy", "doubles", 500_000);
    server.manage("update_app", &json!({"name": "heavy", "weight": 4}));
    server.add_app("light", "doubles", "-1", 500_000);
    server.link("light", "heavy");
    let shown = server.manage("get_application", &json!({"name": "heavy"}));
    assert!(shown.contains("\"weight\":4"), "{shown}");
    let shown = server.manage("get_application", &json!({"name": "light"}));
    assert!(!shown.contains("weight"), "{shown}");
    let refused = server.admin("update_app", &json!({"name": "light", "weight": 101}));
    assert!(refused.status == 400 && refused.text().contains("1 to 100"), "{}", refused.text());
    let _replica = Container::serving(&server, "heavy", &["--input-ms", "10", "--quiet"]);
    for warm in 0..30 {
        ask(&server, "heavy", f64::from(warm) + 0.25);
    }
    let end = Instant::now() + Duration::from_secs(8);
    let flood = |app: &'static str, first: u32| {
        let addr = server.query;
        thread::spawn(move || {
            let (mut next, mut answered) = (first, 0);
            while Instant::now() < end {
                let batch: Vec<_> = (0..30).map(|n| [next + n]).collect();
                next += 30;
                let body = json!({ "input_batch": batch }).to_string();
                let path = format!("/{app}/predict");
                let answer = http::call(addr, "POST", &path, body.as_bytes()).unwrap();
                answered += answer.text().matches("\"default\":false").count();
            }
            answered
        })
    };
    // Several clients of each, so that queries of both wait all the time.
    let clients = |app, first: u32| {
        let floods: Vec<_> = (0..4).map(|n| flood(app, first + n * 100_000_000)).collect();
        move || floods.into_iter().map(|flood| flood.join().unwrap()).sum::<usize>()
    };
    let (heavy, light) = (clients("heavy", 1_000), clients("light", 1_000_000_000));
    let (heavy, light) = (heavy(), light());
    println!("weight 4: {heavy} answered, weight 1: {light}");
    assert!(light > 0 && 2 * heavy > 3 * light, "{heavy} beside {light}");
}

#[test]
fn line_05a_a_batch_whose_answer_is_too_large_is_split() {
    let server = Server::with_config(
        "[rpc]\nmessage_max_bytes = 100000\nframe_max_bytes = 100000\n\
         [http]\nbody_max_bytes = 100000\n",
    );
    server.add_app("m", "doubles", "-1", GENEROUS_SLO_US);
    server.manage(
        "add_model",
        &json!({"model_name": "m", "model_version": "1", "input_type": "doubles", "labels": [],
                "container_name": "test", "model_data_path": "", "batch_size": 10}),
    );
    server.link("m", "m");
    let output = format!("\"{}\"", "x".repeat(30_000));
    let options = ["--idle-ms", "200", "--output", &output];
    let _replica = Container::serving(&server, "m", &options);
    let batch: Vec<_> = (0..10).map(|n| [f64::from(n)]).collect();
    let answer = asking(&server, "m", &json!({ "input_batch": batch })).join().unwrap();
    let answers = answer["batch_predictions"].as_array().unwrap();
    assert_eq!(answers.len(), 10);
    assert!(answers.iter().all(|answer| answer["default"] == false), "{answer}");
}

#[test]
fn line_05a_one_answer_that_is_too_large_names_the_limit() {
    let server = Server::with_config(
        "[rpc]\nmessage_max_bytes = 100000\nframe_max_bytes = 100000\n\
         [http]\nbody_max_bytes = 100000\n",
    );
    server.serve("m", "doubles", GENEROUS_SLO_US);
    let output = format!("\"{}\"", "x".repeat(120_000));
    let options = ["--idle-ms", "200", "--output", &output];
    let _replica = Container::serving(&server, "m", &options);
    let answer = ask(&server, "m", 1.5);
    // One output is one frame, the limit of which it meets first.
    assert!(answer.explanation().contains("rpc.frame_max_bytes"), "{answer:?}");
}

/// Control messages get through where queries do not: every query is answered once, and every
/// replica that is gone is gone.
#[test]
fn control_is_not_lost_in_a_flood_while_replicas_die() {
    let limits = "[serving]\nmodel_queue_max = 300\nmailbox_max = 2\nbatch_max = 8\n";
    let server = Server::with_config(limits);
    server.serve("m", "doubles", 400_000);
    let options = ["--input-ms", "2", "--quiet"];
    let mut replicas: Vec<_> = (0..4).map(|_| Container::serving(&server, "m", &options)).collect();
    let end = Instant::now() + Duration::from_secs(5);
    let addr = server.query;
    let clients: Vec<_> = (0..8)
        .map(|client| {
            thread::spawn(move || {
                let (mut next, mut answered) = (client * 1_000_000, 0);
                while Instant::now() < end {
                    let batch: Vec<_> = (0..60).map(|n| [next + n]).collect();
                    next += 60;
                    let body = json!({ "input_batch": batch }).to_string();
                    let answer = http::call(addr, "POST", "/m/predict", body.as_bytes()).unwrap();
                    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
                    let answers = answer["batch_predictions"].as_array().unwrap();
                    assert_eq!(answers.len(), 60, "{answer}");
                    answered += answers.len();
                }
                answered
            })
        })
        .collect();
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(700));
        replicas.remove(0).kill();
    }
    let answered: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(answered > 1_000, "{answered}");
    server.await_replicas("m", 1);
    let depth = "clipper_queue_depth{model=\"m\",version=\"1\"}";
    eventually("nothing waits any more", || server.sample(depth) < 0.5);
    assert!(!ask(&server, "m", 0.5).is_default());
}
