//! Invariant J1 from outside: the server is killed at random points while changes are made over
//! HTTP. What it acknowledged is there after the restart; what it did not is there whole or not at
//! all.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::e2e::support::http::{Connection, request};
use crate::e2e::support::server::Server;

/// How often the server is killed; `CLIPPER_KILL_ROUNDS` says otherwise.
const ROUNDS: u32 = 20;
const APPS: u32 = 5;
/// The kill comes at most this long after the first change.
const LIFE_MAX_US: u64 = 30_000;

/// Application to its default output and whether it is linked.
type State = BTreeMap<String, (String, bool)>;

fn state_of(server: &Server) -> State {
    let list = server.manage("get_all_applications", &json!({"verbose": true}));
    let list: Vec<Value> = serde_json::from_str(&list).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list.iter()
        .map(|app| {
            let is_linked = app["linked_models"] == json!(["m"]);
            (text(&app["name"]), (text(&app["default_output"]), is_linked))
        })
        .collect()
}

/// A change of one application: it is added, linked, deleted with its link, in this order.
fn change(state: &State, number: u64, random: &mut SmallRng) -> (&'static str, Value, State) {
    let name = format!("app{}", random.random_range(0..APPS));
    let mut after = state.clone();
    match after.get_mut(&name) {
        None => {
            let body = json!({"name": name, "input_type": "doubles", "latency_slo_micros": 1000,
                              "default_output": number.to_string()});
            after.insert(name, (number.to_string(), false));
            ("add_app", body, after)
        }
        Some((_, linked)) if !*linked => {
            *linked = true;
            ("add_model_links", json!({"app_name": name, "model_names": ["m"]}), after)
        }
        Some(_) => {
            after.remove(&name);
            ("delete_app", json!({"name": name}), after)
        }
    }
}

/// Makes changes until the server is gone. Returns how many it acknowledged, what it then has for
/// certain, and what it has if the last change was made without being acknowledged.
fn make_changes(mut connection: Connection, mut state: State, seed: u64) -> (u64, State, State) {
    let mut random = SmallRng::seed_from_u64(seed);
    for number in 0.. {
        let (endpoint, body, after) = change(&state, seed * 1_000_000 + number, &mut random);
        let path = format!("/admin/{endpoint}");
        connection.send(&request("POST", &path, body.to_string().as_bytes()));
        match connection.answer("POST") {
            Some(answer) => assert_eq!(answer.status, 200, "{body}: {}", answer.text()),
            None => return (number, state, after),
        }
        state = after;
    }
    unreachable!("the server is killed")
}

#[test]
fn acknowledged_changes_survive_kill_9_at_any_point() {
    let rounds = std::env::var("CLIPPER_KILL_ROUNDS").map_or(ROUNDS, |r| r.parse().unwrap());
    let mut server = Server::start();
    server.add_model("m", "1", "doubles");
    let (mut state, mut acknowledged, mut unanswered) = (state_of(&server), 0, 0);
    let mut random = SmallRng::seed_from_u64(1);
    for round in 0..rounds {
        // Before the thread begins, which a busy machine may let do so after the kill.
        let (connection, before) = (Connection::open(server.management), state.clone());
        let writer = std::thread::spawn(move || make_changes(connection, before, round.into()));
        // The moment of the kill is what is tried out.
        std::thread::sleep(Duration::from_micros(random.random_range(0..LIFE_MAX_US)));
        server.kill();
        let (changes, certain, possible) = writer.join().unwrap();
        server = server.restart();
        state = state_of(&server);
        assert!(state == certain || state == possible, "{state:?}\n{certain:?}\n{possible:?}");
        acknowledged += changes;
        unanswered += u32::from(state == possible);
    }
    println!(
        "{rounds} kills: all {acknowledged} acknowledged changes there; {unanswered} changes were \
         made without being acknowledged"
    );
}
