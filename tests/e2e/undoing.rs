//! What is served becomes what it was, from any state to any other.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::e2e::admin_cli::{clipper, text};
use crate::e2e::support::http::{Connection, request};
use crate::e2e::support::server::Server;
use crate::support::random_changes::{any_change, exported, last_event};
use crate::support::size;

#[test]
fn random_changes_are_undone_to_random_points() {
    let changes = size("CLIPPER_UNDO_CHANGES", 400, 10_000);
    // None of the points is forgotten.
    let server = Server::with_config("[journal]\nkeep_events = 1000000\n");
    let ask = |operation: &str, body: &Value| {
        let answer = server.admin(operation, body);
        (answer.status, answer.text())
    };
    let mut random = SmallRng::seed_from_u64(15);
    let mut points = vec![(last_event(&ask), exported(&ask))];
    let (mut made, mut undone) = (0, 0);
    while made < changes {
        let (operation, body) = any_change(&mut random);
        made += usize::from(ask(operation, &body).0 == 200);
        if random.random_range(0..10) > 0 {
            continue;
        }
        points.push((last_event(&ask), exported(&ask)));
        if random.random_range(0..3) == 0 {
            let (seq, state) = points[random.random_range(0..points.len())].clone();
            let (status, text) = ask("rollback", &json!({"to": seq.to_string()}));
            assert_eq!(status, 200, "to {seq}: {text}");
            assert_eq!(exported(&ask), state, "to {seq}");
            undone += 1;
            // It is an event like any other, and a point to come back to.
            points.push((last_event(&ask), exported(&ask)));
        }
    }
    println!("{made} changes, {undone} rollbacks, {} events", last_event(&ask));
    assert!(undone > 0);
    let state = exported(&ask);
    let server = server.restart();
    let ask = |operation: &str, body: &Value| {
        let answer = server.admin(operation, body);
        (answer.status, answer.text())
    };
    assert_eq!(exported(&ask), state);
}

#[test]
fn a_bad_change_is_found_shown_and_taken_back_and_that_too() {
    let server = Server::start();
    server.serve("a", "doubles", 20_000);
    server.serve("b", "doubles", 20_000);
    let ask = |operation: &str, body: &Value| {
        let answer = server.admin(operation, body);
        (answer.status, answer.text())
    };
    let good = (last_event(&ask), exported(&ask));
    server.manage("update_app", &json!({"name": "a", "latency_slo_micros": 1}));
    server.manage("delete_app", &json!({"name": "b"}));
    let bad = (last_event(&ask), exported(&ask));
    let run = |words: &[&str]| {
        let seq = good.0.to_string();
        let words = [&["rollback", "--to", &seq][..], words].concat();
        let output = clipper(&format!("http://{}", server.management), &words);
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, said) = run(&["--dry-run"]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("~ application a: latency_slo_micros 1 -> 20000"), "{said}");
    assert!(said.contains("+ application b: ") && said.contains("+ links of b: "), "{said}");
    // One application alone.
    let (code, said) = run(&["--app", "a", "--yes"]);
    assert!(code == Some(0) && said.contains("Done: 1 change"), "{said}");
    assert!(exported(&ask).contains("20000") && !exported(&ask).contains("\"b\"\ninput"));
    let (code, said) = run(&["--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(exported(&ask), good.1);
    assert_eq!(run(&["--yes"]).0, Some(0), "nothing is to do");
    // The rollback is undone.
    let (status, said) = ask("rollback", &json!({"to": bad.0.to_string()}));
    assert_eq!(status, 200, "{said}");
    assert_eq!(exported(&ask), bad.1);
    for (body, why) in [
        (json!({"to": "999999"}), "999999"),
        (json!({"to": "soon"}), "soon"),
        (json!({"to": good.0.to_string(), "app_name": "x"}), "'x'"),
    ] {
        let (status, said) = ask("rollback", &body);
        assert!(status == 400 && said.contains(why), "{status} {said}");
    }
}

/// Killed at any point: a plan is made whole or not at all.
#[test]
fn a_plan_survives_kill_9_whole() {
    let rounds = size("CLIPPER_UNDO_KILLS", 10, 200);
    let mut random = SmallRng::seed_from_u64(9);
    let mut server = Server::start();
    let app = |name: String, slo: u64| {
        json!({"name": name, "input_type": "doubles",
        "default_output": "-1", "latency_slo_micros": slo})
    };
    let (mut whole, mut none) = (0, 0);
    for round in 0..rounds as u64 {
        // Twenty applications, all with one objective or all with another.
        let apps: Vec<Value> = (0..20).map(|n| app(format!("a{n}"), round + 1)).collect();
        let body = json!({"application": apps}).to_string();
        let mut connection = Connection::open(server.management);
        let sending = std::thread::spawn(move || {
            connection.send(&request("POST", "/admin/apply", body.as_bytes()));
            connection.answer("POST")
        });
        // The moment of the kill is what is tried out.
        std::thread::sleep(Duration::from_micros(random.random_range(0..20_000)));
        server.kill();
        let answer = sending.join().unwrap();
        server = server.restart();
        let all = server.manage("get_all_applications", &json!({"verbose": true}));
        let all: Vec<Value> = serde_json::from_str(&all).unwrap();
        let new = all.iter().filter(|app| app["latency_slo_micros"] == json!(round + 1)).count();
        assert!(new == 0 || new == 20, "{new} of 20");
        if answer.is_some_and(|answer| answer.status == 200) {
            assert_eq!(new, 20, "acknowledged");
        }
        *(if new == 20 { &mut whole } else { &mut none }) += 1;
    }
    println!("{whole} plans whole, {none} not at all");
}
