//! Which queries are still known: `GET /admin/explain` and `clipper explain`.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::{PATIENT_US, adds_up};
use crate::e2e::support::container::Container;
use crate::e2e::support::http::{Client, get};
use crate::e2e::support::server::Server;

fn kept(server: &Server, parameters: &str) -> Vec<Value> {
    let answer = get(server.management, &format!("/admin/explain{parameters}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut answer: Value = serde_json::from_slice(&answer.body).unwrap();
    let Value::Array(queries) = answer["queries"].take() else { panic!("{answer}") };
    queries.iter().for_each(adds_up);
    queries
}

fn ids(queries: &[Value]) -> Vec<u64> {
    queries.iter().map(|query| query["query_id"].as_u64().unwrap()).collect()
}

fn clipper(server: &Server, args: &[&str]) -> (bool, String) {
    let url = format!("http://{}", server.management);
    let mut command = Command::new(crate::binary());
    let output = command.arg("explain").args(args).args(["--url", &url]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// Applications `fast` and `slow` of one model, whose inputs from 100 on take a second; `none` has
/// no model.
fn server() -> (Server, Container) {
    let server = Server::with_config("[explain]\nsamples_per_second = 2\n");
    server.serve("m", "doubles", PATIENT_US);
    server.add_app("slow", "doubles", "-1", 2_000_000);
    server.link("slow", "m");
    server.add_app("none", "doubles", "-1", PATIENT_US);
    let options = ["--slow-from", "100", "--slow-ms", "1000", "--quiet"];
    let container = Container::serving(&server, "m", &options);
    (server, container)
}

#[test]
fn the_slow_and_the_defaulted_are_kept_beside_a_sample() {
    let (server, _container) = server();
    // Query 0 is slow, 1 gets the default output, and so on.
    server.predict("slow", &json!({"input": [100.0]}));
    server.predict("none", &json!({"input": [1.0]}));
    for input in 0..40 {
        server.predict("m", &json!({"input": [input]}));
    }
    let slow = kept(&server, "?slow");
    assert_eq!((ids(&slow), &slow[0]["kept_as"]), (vec![0], &json!("slow")));
    assert_eq!(slow[0]["app"], "slow");
    let defaults = kept(&server, "?default");
    assert_eq!((ids(&defaults), &defaults[0]["kept_as"]), (vec![1], &json!("default")));
    assert_eq!(defaults[0]["because"][0]["cause"], "unlinked");
    assert_eq!(ids(&kept(&server, "?query_id=1")), [1]);
    let all = kept(&server, "?limit=100");
    let samples = all.iter().filter(|query| query["kept_as"] == "sample").count();
    assert!((1..40).contains(&samples), "{samples}");
    let ids = ids(&all);
    assert!(ids.is_sorted_by(|a, b| a > b), "the newest first: {ids:?}");
    assert!(kept(&server, "?app=m").iter().all(|query| query["app"] == "m"));
    assert!(kept(&server, "?default&app=m").is_empty());
    for wrong in ["?slow&default", "?limit=201", "?who=me"] {
        let answer = get(server.management, &format!("/admin/explain{wrong}"));
        assert_eq!(answer.status, 400, "{wrong}");
    }
}

#[test]
fn the_command_line_says_why() {
    let (server, _container) = server();
    server.predict("slow", &json!({"input": [100.0]}));
    server.predict("none", &json!({"input": [1.0]}));
    let (found, text) = clipper(&server, &["0"]);
    assert!(found && text.starts_with("query 0 of slow, "), "{text}");
    for part in ["(slow)", "[cold]", "m:1, used, not in the cache", "first, replica 0, began"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (found, text) = clipper(&server, &["--default", "--app", "none"]);
    assert!(found && text.contains("no_replica in") && text.contains("[unlinked]"), "{text}");
    let (found, text) = clipper(&server, &["--slow", "--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert!(found && json["queries"][0]["query_id"] == 0, "{text}");
    let (found, text) = clipper(&server, &["99"]);
    assert!(!found && text.contains("No such query is known"), "{text}");
}

/// Readers hold no prediction up and see whole queries, whatever happens meanwhile.
#[test]
fn readers_and_a_flood_of_defaults_leave_each_other_alone() {
    let server = Server::with_config("[explain]\nqueries_max = 100\nmax_bytes = 65536\n");
    server.add_app("none", "doubles", "-1", PATIENT_US);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, addr) = (Arc::clone(&stop), server.query);
            thread::spawn(move || {
                let mut client = Client::new(addr);
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(client.post("/none/predict", b"{\"input\":[1.0]}").status, 200);
                }
            })
        })
        .collect();
    for _ in 0..50 {
        let found = kept(&server, "?default&limit=200");
        assert!(found.len() <= 200, "{}", found.len());
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().unwrap();
    }
    assert!(!kept(&server, "?default").is_empty());
}

#[test]
fn nothing_is_kept_where_nobody_wants_it() {
    let server = Server::with_config("[explain]\nqueries_max = 0\n");
    server.add_app("none", "doubles", "-1", PATIENT_US);
    server.predict("none", &json!({"input": [1.0]}));
    assert!(kept(&server, "").is_empty());
}
