//! What took the time.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{PATIENT_US, adds_up, ask, causes, explain, serve_one_by_one};
use crate::e2e::support::container::Container;
use crate::e2e::support::server::Server;
use crate::e2e::support::{config_of_noop, eventually};

/// Long beside everything that is not to be the cause.
const LONG: Duration = Duration::from_millis(300);
const LONG_MS: &str = "300";

/// Queries after which it is known how long a replica takes.
fn warm_up(server: &Server) {
    for input in 0..20 {
        assert_eq!(explain(server, "m", f64::from(input))["outcome"], "prediction");
    }
}

#[test]
fn it_waited_in_the_queue() {
    let server = Server::start();
    serve_one_by_one(&server, "m", PATIENT_US);
    let mut container = Container::serving(&server, "m", &["--how", "hold"]);
    let query = server.query;
    let first = thread::spawn(move || ask(query, "m", 1.0));
    container.await_input(&json!([1.0]));
    let second = thread::spawn(move || ask(query, "m", 2.0));
    let depth = "clipper_queue_depth{model=\"m\",version=\"1\"}";
    eventually("a query waits", || server.sample(depth) > 0.0);
    thread::sleep(LONG);
    container.answer("right");
    let second = second.join().unwrap()["explain"].take();
    assert_eq!(causes(&second)[0], "queue", "{second}");
    assert!(second["times_ms"]["queue"].as_f64().unwrap() >= 300.0, "{second}");
    assert_eq!(second["models"][0]["batch"]["queries"], 1);
    first.join().unwrap();
}

#[test]
fn its_batch_gathered() {
    let server = Server::with_config(&config_of_noop(-1, 5_000, 1));
    server.await_replicas("m", 1);
    let query = server.query;
    let mut input = 0.0;
    eventually("a batch waits for more", || {
        let clients: Vec<_> = (0..8)
            .map(|client| {
                input += 1.0;
                let first = input * 1e3 + f64::from(client) * 1e2;
                thread::spawn(move || {
                    let asked = (0..20).map(|n| ask(query, "m", first + f64::from(n)));
                    asked.map(|mut answer| answer["explain"].take()).collect::<Vec<Value>>()
                })
            })
            .collect();
        let all: Vec<Value> =
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        let gathered = |explained: &&Value| causes(explained).contains(&"gathering");
        let batch = |explained: &Value| explained["models"][0]["batch"]["reason"] == "gathered";
        all.iter().filter(gathered).any(batch)
    });
}

#[test]
fn its_replica_was_slower_than_usual() {
    let server = Server::start();
    server.serve("m", "doubles", PATIENT_US);
    let options = ["--slow-from", "100", "--slow-ms", LONG_MS];
    let _container = Container::serving(&server, "m", &options);
    warm_up(&server);
    let usual = explain(&server, "m", 50.0);
    assert!(!causes(&usual).contains(&"slow_replica"), "{usual}");
    let slow = explain(&server, "m", 100.0);
    assert_eq!(causes(&slow)[0], "slow_replica", "{slow}");
    assert!(slow["times_ms"]["container"].as_f64().unwrap() >= 300.0, "{slow}");
}

#[test]
fn it_was_the_first_of_a_cold_replica() {
    let server = Server::start();
    server.serve("m", "doubles", PATIENT_US);
    let _container = Container::serving(&server, "m", &["--slow-ms", LONG_MS]);
    let cold = explain(&server, "m", 1.0);
    assert_eq!(causes(&cold)[0], "cold", "{cold}");
    let warm = explain(&server, "m", 2.0);
    assert_eq!(causes(&warm)[0], "model", "{warm}");
}

#[test]
fn a_second_replica_was_asked() {
    let server = Server::start();
    server.serve("m", "doubles", 2_000_000);
    let mut containers = [(); 2].map(|()| Container::serving(&server, "m", &["--quiet"]));
    warm_up(&server);
    containers[0].answer("hold");
    let mut input = 100.0;
    let mut hedged = Value::Null;
    eventually("a query is hedged", || {
        input += 1.0;
        hedged = explain(&server, "m", input);
        causes(&hedged).contains(&"hedge")
    });
    assert_eq!((&hedged["outcome"], causes(&hedged)[0]), (&json!("prediction"), "hedge"));
    let attempts = hedged["models"][0]["attempts"].as_array().unwrap();
    let ends: Vec<_> = attempts.iter().map(|it| (&it["kind"], &it["end"])).collect();
    let (first, hedge) = (json!("first"), json!("hedge"));
    assert_eq!(ends, [(&first, &json!("unanswered")), (&hedge, &json!("answered"))], "{hedged}");
    assert_ne!(attempts[0]["replica"], attempts[1]["replica"]);
}

#[test]
fn it_was_tried_again() {
    let server = Server::start();
    server.serve("m", "doubles", PATIENT_US);
    let options = ["--slow-from", "100", "--slow-ms", LONG_MS, "--quiet"];
    let mut containers = [(); 2].map(|()| Container::serving(&server, "m", &options));
    containers[0].answer("exit");
    let mut input = 100.0;
    let mut retried = Value::Null;
    eventually("a query is tried again", || {
        input += 1.0;
        retried = explain(&server, "m", input);
        causes(&retried).contains(&"retry")
    });
    assert_eq!(retried["outcome"], "prediction");
    let attempts = retried["models"][0]["attempts"].as_array().unwrap();
    let ends: Vec<_> = attempts.iter().map(|it| (&it["kind"], &it["end"])).collect();
    let (first, retry) = (json!("first"), json!("retry"));
    assert_eq!(ends, [(&first, &json!("failed")), (&retry, &json!("answered"))], "{retried}");
}

/// The bit of the extension by which containers say how long they have computed.
const COMPUTED: &str = "64";

#[test]
fn the_container_says_what_of_the_wait_for_it_was_computing() {
    let server = Server::start();
    serve_one_by_one(&server, "m", PATIENT_US);
    let options = ["--extensions", COMPUTED, "--slow-ms", LONG_MS, "--computed-us", "1000"];
    let _container = Container::serving(&server, "m", &options);
    let explained = explain(&server, "m", 1.0);
    let times = &explained["times_ms"];
    assert_eq!(times["container"], 1.0, "{explained}");
    assert!(times["network"].as_f64().unwrap() >= 299.0, "{explained}");
    assert!(causes(&explained).contains(&"network"), "{explained}");
    assert_eq!(explained["models"][0]["times_ms"], *times);
}

#[test]
fn a_container_that_claims_too_much_is_believed_what_was_measured() {
    let server = Server::start();
    serve_one_by_one(&server, "m", PATIENT_US);
    let claim = u64::MAX.to_string();
    let options = ["--extensions", COMPUTED, "--slow-ms", LONG_MS, "--computed-us", &claim];
    let _container = Container::serving(&server, "m", &options);
    let explained = explain(&server, "m", 1.0);
    assert_eq!(explained["times_ms"]["network"], 0.0, "{explained}");
    assert!(explained["times_ms"]["container"].as_f64().unwrap() >= 300.0, "{explained}");
    assert!(!causes(&explained).contains(&"network"), "{explained}");
}

#[test]
fn containers_of_the_box_say_it_and_others_need_not() {
    let server = Server::with_config(&config_of_noop(1, 50_000, 1));
    server.await_replicas("m", 1);
    let times = explain(&server, "m", 1.0)["times_ms"].take();
    assert!(times["container"].as_f64().unwrap() >= 50.0, "{times}");
    assert!(times["network"].is_number(), "{times}");
    serve_one_by_one(&server, "other", PATIENT_US);
    let _container = Container::serving(&server, "other", &[]);
    let explained = explain(&server, "other", 1.0);
    assert!(explained["times_ms"]["network"].is_null(), "{explained}");
}

#[test]
fn a_straggler_was_left_out() {
    let server = Server::start();
    server.add_app("a", "doubles", "-1", 1_000_000);
    server.manage("set_policy", &json!({"app_name": "a", "policy": "majority"}));
    let mut containers = Vec::new();
    for (model, how) in [("m0", "right"), ("m1", "right"), ("m2", "hold")] {
        server.add_model(model, "1", "doubles");
        server.manage("add_model_links", &json!({"app_name": "a", "model_names": [model]}));
        containers.push(Container::serving(&server, model, &["--output", "7", "--how", how]));
    }
    let explained = explain(&server, "a", 1.0);
    assert_eq!(explained["outcome"], "prediction");
    assert!(causes(&explained).contains(&"straggler"), "{explained}");
    let text = explained["because"].to_string();
    assert!(text.contains("m2:1 had not answered in time"), "{explained}");
    let models = explained["models"].as_array().unwrap();
    let late: Vec<_> = models.iter().filter(|model| model["outcome"] == "late").collect();
    assert_eq!((late.len(), &late[0]["model"], &late[0]["used"]), (1, &json!("m2"), &json!(false)));
    adds_up(&explained);
}

#[test]
fn the_cache_had_it_or_an_equal_query_was_under_way() {
    let server = Server::start();
    server.serve("m", "doubles", PATIENT_US);
    let mut container = Container::serving(&server, "m", &["--how", "hold"]);
    let query = server.query;
    let first = thread::spawn(move || ask(query, "m", 1.0));
    container.await_input(&json!([1.0]));
    let second = thread::spawn(move || ask(query, "m", 1.0));
    let joined = "clipper_cache_lookups_total{model=\"m\",version=\"1\",result=\"miss\"}";
    eventually("both have looked", || server.sample(joined) > 1.5);
    thread::sleep(LONG / 10);
    container.answer("right");
    let (first, second) = (first.join().unwrap(), second.join().unwrap());
    assert_eq!(first["explain"]["models"][0]["cache"], "miss");
    assert_eq!(second["explain"]["models"][0]["cache"], "joined", "{second}");
    assert!(causes(&second["explain"]).contains(&"cache"), "{second}");
    let third = explain(&server, "m", 1.0);
    assert_eq!((&third["models"][0]["cache"], causes(&third)), (&json!("hit"), vec!["cache"]));
}
