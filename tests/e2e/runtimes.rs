//! Containers that the server starts by itself: from a Python function, by any command.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::e2e::support::server::Server;
use crate::e2e::support::{config_of_noop, descendants_of, eventually, is_running, python, within};
use crate::support::signals::signal;

const FUNCTION: &str = "\
import os

def total(inputs):
    return [float(one.sum()) for one in inputs]

def shout(inputs):
    print('asked for', inputs[0])
    return [one.upper() for one in inputs]
";

/// An application and a model `m` with `container` as its table.
fn config(input_type: &str, container: &str) -> String {
    format!(
        "[[application]]\nname = \"m\"\ninput_type = \"{input_type}\"\ndefault_output = \"-1\"\n\
         latency_slo_micros = 30000000\nmodel = \"m\"\n\n\
         [[model]]\nname = \"m\"\nversion = \"1\"\ninput_type = \"{input_type}\"\n\n\
         [model.container]\n{container}\n"
    )
}

fn python_config(folder: &tempfile::TempDir, input_type: &str, function: &str) -> String {
    let file = folder.path().join("model.py");
    std::fs::write(&file, FUNCTION).unwrap();
    let container = format!(
        "runtime = \"python\"\nfunction = '{}:{function}'\npython = '{}'",
        file.display(),
        python().to_string_lossy()
    );
    config(input_type, &container)
}

#[test]
fn a_python_function_serves() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with_config(&python_config(&folder, "doubles", "total"));
    server.await_replicas("m", 1);
    let batch = server.predict("m", &json!({"input_batch": [[1, 2.5], [4]]}));
    let outputs = &batch.body["batch_predictions"];
    assert_eq!((&outputs[0]["output"], &outputs[1]["output"]), (&json!(3.5), &json!(4.0)));
}

#[test]
fn what_a_python_function_prints_is_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with_config(&python_config(&folder, "strings", "shout"));
    server.await_replicas("m", 1);
    let loud = server.predict("m", &json!({"input": "héllo"}));
    assert_eq!(loud.output(), &json!("HÉLLO"), "{loud:?}");
    eventually("the line is there", || server.log_line("asked for héllo").is_some());
}

#[test]
fn any_command_serves() {
    let server = Server::with_config(&config_of_noop(-1, 0, 2));
    server.await_replicas("m", 2);
    let answer = server.predict("m", &json!({"input": [1.5]}));
    assert_eq!((answer.output(), answer.is_default()), (&json!(42), false), "{answer:?}");
}

#[test]
fn a_killed_replica_is_back_under_a_new_number() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with_config(&python_config(&folder, "doubles", "total"));
    server.await_replicas("m", 1);
    assert_eq!(server.containers(), ["m:1:0"]);
    let replica = *descendants_of(server.pid()).first().expect("a child process");
    let killed = Instant::now();
    signal(replica, Signal::SIGKILL);
    // A Python start among others; the restart itself waits 100 ms.
    within(Duration::from_secs(30), "the replica is back", || server.containers() == ["m:1:1"]);
    println!("the Python replica was back {:?} after kill -9", killed.elapsed());
    server.await_replicas("m", 1);
    let answer = server.predict("m", &json!({"input": [1.5, 2]}));
    assert_eq!(answer.output(), &json!(3.5), "{answer:?}");
}

#[test]
fn a_killed_server_leaves_no_orphan() {
    let folder = tempfile::tempdir().unwrap();
    let python = python_config(&folder, "doubles", "total");
    for config in [python, config_of_noop(-1, 0, 2)] {
        let mut server = Server::with_config(&config);
        eventually("the replicas serve", || server.replicas("m") > 0.5);
        let children = descendants_of(server.pid());
        assert!(!children.is_empty());
        server.kill();
        let took = eventually("all children are gone", || {
            !children.iter().any(|child| is_running(*child))
        });
        println!("{} processes below the killed server ended within {took:?}", children.len());
    }
}
