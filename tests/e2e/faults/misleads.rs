//! Cases in which the original misleads its users.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{GENEROUS_SLO_US, ask, scene};
use crate::e2e::support::container::Container;
use crate::e2e::support::http::{self, Connection, request};
use crate::e2e::support::server::Server;

#[test]
fn unknown_paths_and_applications_and_wrong_methods_are_404_and_405_in_json() {
    let (server, bystander) = scene();
    let cases = [
        ("POST", "/nothing/here", 404),
        ("POST", "/nobody/predict", 404),
        ("POST", "/nobody/update", 404),
        ("GET", "/", 404),
        ("GET", "/m/predict", 405),
        ("PUT", "/m/update", 405),
        ("DELETE", "/m/predict", 405),
    ];
    for (method, path, status) in cases {
        let answer = http::call(server.query, method, path, b"{\"input\": [1.5]}").unwrap();
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(body["error"].is_string() && body["cause"].is_string(), "{body}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{method} {path}");
    }
    bystander.was_served(&server);
}

#[test]
fn a_bad_input_type_is_400_and_an_upper_case_one_is_taken() {
    let (server, bystander) = scene();
    let app = |name: &str, input_type: &str| {
        json!({"name": name, "input_type": input_type, "default_output": "-1",
               "latency_slo_micros": GENEROUS_SLO_US})
    };
    let refused = server.admin("add_app", &app("tensors", "tensor"));
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("tensor") && refused.text().contains("doubles"));
    server.manage("add_app", &app("loud", "DOUBLES"));
    let loud = server.manage("get_application", &json!({"name": "loud"}));
    assert!(loud.contains("\"input_type\":\"doubles\""), "{loud}");
    server.add_model("loud", "1", "Doubles");
    server.link("loud", "loud");
    bystander.was_served(&server);
}

#[test]
fn a_deleted_application_is_gone_at_once_with_its_links() {
    let (server, bystander) = scene();
    let _container = Container::serving(&server, "m", &[]);
    assert_eq!(ask(&server, 1.5).output(), &json!([1.5]));
    server.manage("delete_app", &json!({"name": "m"}));
    // Every worker: a connection is served by one of them.
    for _ in 0..20 {
        assert_eq!(ask(&server, 1.5).status, 404);
    }
    assert_eq!(server.admin("get_linked_models", &json!({"app_name": "m"})).status, 400);

    server.add_app("m", "strings", "new", 123_456);
    let again: Value =
        serde_json::from_str(&server.manage("get_application", &json!({"name": "m"}))).unwrap();
    let whole = json!({"name": "m", "input_type": "strings", "default_output": "new",
                       "latency_slo_micros": 123_456, "linked_models": []});
    assert_eq!(again, whole);
    for _ in 0..20 {
        assert_eq!(ask(&server, 1.5).status, 400, "it takes strings now");
        let unlinked = server.predict("m", &json!({"input": "x"}));
        assert_eq!(unlinked.output(), &json!("new"), "{unlinked:?}");
        let why = "The application is not linked to a model (POST /admin/add_model_links)";
        assert_eq!(unlinked.explanation(), why);
    }
    bystander.was_served(&server);
}

#[test]
fn whole_numbers_are_doubles_too() {
    let (server, bystander) = scene();
    let _container = Container::serving(&server, "m", &[]);
    let prediction = server.predict("m", &json!({"input": [1, 2]}));
    assert_eq!(prediction.output(), &json!([1.0, 2.0]), "{prediction:?}");
    bystander.was_served(&server);
}

#[test]
fn no_labels_read_back_as_none() {
    let (server, bystander) = scene();
    let model = server.manage("get_model", &json!({"model_name": "m", "model_version": "1"}));
    assert!(model.contains("\"labels\":[]"), "{model}");
    bystander.was_served(&server);
}

#[test]
fn a_default_output_that_parses_as_json_comes_back_as_json() {
    let (server, bystander) = scene();
    let cases = [("-1", json!(-1)), ("none", json!("none")), ("{\"a\": [1]}", json!({"a": [1]}))];
    for (index, (default_output, expected)) in cases.into_iter().enumerate() {
        let app = format!("default{index}");
        server.add_app(&app, "doubles", default_output, GENEROUS_SLO_US);
        let prediction = server.predict(&app, &json!({"input": [1.5]}));
        assert!(prediction.is_default());
        assert_eq!(prediction.output(), &expected);
    }
    bystander.was_served(&server);
}

#[test]
fn error_bodies_say_what_they_are() {
    let (server, bystander) = scene();
    let plain = server.admin("add_app", &json!({}));
    assert_eq!(plain.status, 400);
    assert!(plain.header("content-type").unwrap().starts_with("text/plain"));
    let json = http::call(server.query, "POST", "/m/predict", b"{").unwrap();
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert!(serde_json::from_slice::<Value>(&json.body).is_ok(), "{}", json.text());
    bystander.was_served(&server);
}

#[test]
fn pipelined_queries_are_answered_one_by_one_in_order() {
    let (server, bystander) = scene();
    let _container = Container::serving(&server, "m", &[]);
    let mut connection = Connection::open(server.query);
    let bodies = (0..20).map(|number| json!({"input": [f64::from(number) + 0.5]}).to_string());
    let requests: Vec<u8> =
        bodies.flat_map(|body| request("POST", "/m/predict", body.as_bytes())).collect();
    connection.send(&requests);
    for number in 0..20 {
        let answer = connection.answer("POST").expect("each gets its answer");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, &body["output"]), (200, &json!([f64::from(number) + 0.5])));
    }
    bystander.was_served(&server);
}

#[test]
fn connection_close_is_honoured_by_the_query_frontend() {
    let (server, bystander) = scene();
    let _container = Container::serving(&server, "m", &[]);
    let mut closing = Connection::open(server.query);
    closing.send(
        b"POST /m/predict HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 16\r\n\
          \r\n{\"input\": [1.5]}",
    );
    assert_eq!(closing.answer("POST").unwrap().status, 200);
    assert!(closing.is_closed());
    bystander.was_served(&server);
}

#[test]
fn a_container_sees_exactly_the_inputs_that_were_sent() {
    let (server, bystander) = scene();
    let mut container = Container::serving(&server, "m", &["--slow-ms", "2"]);
    let clients = (0..4).map(|client| {
        let addr = server.query;
        std::thread::spawn(move || {
            let mut connection = http::Client::new(addr);
            for number in 0..40 {
                let inputs: Vec<[u32; 3]> =
                    (0..=number % 5).map(|part| [client, number, part]).collect();
                let body = json!({"input_batch": inputs}).to_string();
                assert_eq!(connection.post("/m/predict", body.as_bytes()).status, 200);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.join().unwrap();
    }
    let sent = (0..4_u32).flat_map(|client| {
        (0..40_u32).flat_map(move |number| {
            (0..=number % 5)
                .map(move |part| json!([f64::from(client), f64::from(number), f64::from(part)]))
        })
    });
    let sent: Vec<String> = sent.map(|input| input.to_string()).collect();
    assert_eq!(container.counted("inputs"), sent.len() as u64, "each once, none added");
    let seen: BTreeSet<String> = container.inputs().iter().map(Value::to_string).collect();
    assert_eq!(seen, sent.into_iter().collect::<BTreeSet<_>>());
    bystander.was_served(&server);
}

/// Seconds of processor time that a process has used.
fn cpu_seconds(pid: u32) -> f64 {
    // What Linux shows to programs is in these units on every common machine.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u32 = [11, 12].iter().map(|at| fields[*at].parse::<u32>().unwrap()).sum();
    f64::from(ticks) / TICKS_PER_SECOND
}

#[test]
fn an_idle_server_leaves_the_processor_alone() {
    const SECONDS: u64 = 5;
    // An unoptimised server on a busy machine, measured in ticks of 10 ms, has room below this; one
    // that polls or spins has not.
    const BOUND: f64 = if cfg!(debug_assertions) { 0.05 } else { 0.01 };
    let server = Server::start();
    server.serve("m", "doubles", GENEROUS_SLO_US);
    let _container = Container::serving(&server, "m", &[]);
    assert!(!ask(&server, 1.5).is_default());
    let before = cpu_seconds(server.pid());
    // Not to wait for something: this time is what is measured.
    std::thread::sleep(std::time::Duration::from_secs(SECONDS));
    let share = (cpu_seconds(server.pid()) - before) / f64::from(u32::try_from(SECONDS).unwrap());
    println!("idle, the server takes {:.2} % of a core", share * 100.0);
    assert!(share < BOUND, "{share}");
}

#[test]
fn defaults_are_counted_by_their_reason() {
    let server = Server::start();
    server.serve("m", "doubles", 20_000);
    assert!(ask(&server, 1.5).is_default());
    let container = Container::serving(&server, "m", &["--how", "hold"]);
    assert!(ask(&server, 2.5).is_default());
    let counted = |outcome: &str| {
        server.sample(&format!("clipper_predictions_total{{app=\"m\",outcome=\"{outcome}\"}}"))
    };
    assert_eq!((counted("no_replica"), counted("late")), (1.0, 1.0));
    drop(container);
}
