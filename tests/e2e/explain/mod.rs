//! What `explain` says: for each reason of a default output and each way to be slow that it is
//! named, and that the times add up to the latency that the server has measured.

mod defaults;
mod forms;
mod headers;
mod kept;
mod slow;
mod streams;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getres};
use serde_json::{Value, json};

use crate::e2e::support::http::call;
use crate::e2e::support::server::Server;

/// Far above what a healthy server needs, so that nothing is late by the machine's fault.
const PATIENT_US: u64 = 20_000_000;
/// For queries that are to be late.
const SHORT_US: u64 = 500_000;

/// The step of the clock by which the kernel notes when bytes came, 1 to 10 ms: where a machine's
/// core was taken away, that clock is late, and a time of arrival early by a step.
fn kernel_tick() -> Duration {
    clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).unwrap().into()
}

/// Asks application `app` one input; the whole answer.
fn ask(query: SocketAddr, app: &str, input: f64) -> Value {
    let asked = Instant::now();
    let body = json!({"input": [input]}).to_string();
    let path = format!("/{app}/predict?explain=1");
    let answer = call(query, "POST", &path, body.as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    let explained = &answer["explain"];
    adds_up(explained);
    let seen_ms = (asked.elapsed() + kernel_tick()).as_secs_f64() * 1e3;
    assert!(explained["latency_ms"].as_f64().unwrap() <= seen_ms, "{seen_ms}: {explained}");
    answer
}

/// [`ask`], what is explained of it.
fn explain(server: &Server, app: &str, input: f64) -> Value {
    ask(server.query, app, input)["explain"].take()
}

/// That the times add up, within 5 % of the latency: those of the query and of each model.
fn adds_up(explained: &Value) {
    let latency = explained["latency_ms"].as_f64().unwrap_or_else(|| panic!("{explained}"));
    let models = explained["models"].as_array().unwrap();
    let times = models.iter().map(|model| &model["times_ms"]).chain([&explained["times_ms"]]);
    for times in times {
        let sum: f64 = times.as_object().unwrap().values().filter_map(Value::as_f64).sum();
        assert!((sum - latency).abs() <= latency * 0.05 + 0.01, "{sum}: {explained}");
    }
}

/// The causes, the main one first.
fn causes(explained: &Value) -> Vec<&str> {
    let because = explained["because"].as_array().unwrap();
    for cause in because {
        assert!(!cause["text"].as_str().unwrap().is_empty(), "{explained}");
    }
    because.iter().map(|because| because["cause"].as_str().unwrap()).collect()
}

/// Model `name` whose batches are of one query, with an application of its name.
fn serve_one_by_one(server: &Server, name: &str, slo_us: u64) {
    server.add_app(name, "doubles", "-1", slo_us);
    server.manage(
        "add_model",
        &json!({"model_name": name, "model_version": "1", "input_type": "doubles", "labels": [],
                "container_name": "test", "model_data_path": "", "batch_size": 1}),
    );
    server.link(name, name);
}
