//! What a server has learned of its models is still known after a restart.

use serde_json::{Value, json};

use crate::e2e::support::server::Server;
use crate::e2e::support::{config_of_noop, eventually};

const INPUTS: u32 = 128;

fn config() -> String {
    format!("[serving]\nlearned_save_ms = 10\n\n{}", config_of_noop(-1, 5_000, 1))
}

/// How many batches the model gets for one request of [`INPUTS`] new inputs.
fn batches(server: &Server, request: u32) -> f64 {
    let count = || server.sample("clipper_model_batch_size_count{model=\"m\",version=\"1\"}");
    let before = count();
    let inputs: Vec<Value> = (0..INPUTS).map(|n| json!([request, n])).collect();
    let answer = server.predict("m", &json!({"input_batch": inputs}));
    assert_eq!(answer.status, 200, "{answer:?}");
    count() - before
}

#[test]
fn a_restarted_server_knows_its_models_batch_sizes() {
    let mut server = Server::with_config(&config());
    server.await_replicas("m", 1);
    let first = batches(&server, 0);
    assert!(first >= 7.0, "sizes at most double from one query on: {first}");
    batches(&server, 1);
    let file = server.data_dir().join("latency-curves.json");
    eventually("the curve is saved", || file.exists());

    assert!(server.terminate().success());
    let mut server = server.restart();
    server.await_replicas("m", 1);
    let again = batches(&server, 2);
    assert!(again <= 3.0, "{again} batches, {first} when nothing was known");

    server.kill();
    std::fs::write(&file, "{\"m:1\": {\"weight\"").unwrap();
    let server = server.restart();
    server.await_replicas("m", 1);
    server.says("learned latencies cannot be read");
    let damaged = batches(&server, 3);
    assert!(damaged >= 7.0, "a damaged file costs a first start: {damaged}");
}
