//! Rollbacks by either of two frontends, through the shared tables.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::redis::harness::{Clipper, Redis, pause, until_true};
use crate::support::random_changes::{any_change, exported, last_event};
use crate::support::size;

#[test]
fn random_changes_by_two_frontends_are_undone_by_either() {
    let changes = size("CLIPPER_UNDO_CHANGES", 200, 10_000);
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    // None of the points is forgotten.
    let keep = [("CLIPPER_JOURNAL__KEEP_EVENTS", "1000000")];
    let start = |name: &str| Clipper::start(&redis.url(), &dir.path().join(name), &keep);
    let clippers = [start("a"), start("b")];
    let ask = |at: usize| {
        let clipper = &clippers[at];
        move |operation: &str, body: &Value| clipper.admin(operation, body)
    };
    let settled = || {
        until_true("both have the same", || exported(&ask(0)) == exported(&ask(1)));
        ([last_event(&ask(0)), last_event(&ask(1))], exported(&ask(0)))
    };
    let mut random = SmallRng::seed_from_u64(16);
    // Each frontend counts its events by itself.
    let mut points = vec![settled()];
    let (mut made, mut undone, mut late) = (0, 0, 0);
    while made < changes {
        let (operation, body) = any_change(&mut random);
        let at = random.random_range(0..2);
        made += usize::from(ask(at)(operation, &body).0 == 200);
        if random.random_range(0..10) > 0 {
            continue;
        }
        points.push(settled());
        if random.random_range(0..3) == 0 {
            let (seqs, state) = points[random.random_range(0..points.len())].clone();
            let body = json!({"to": seqs[at].to_string()});
            let (status, text) = ask(at)("rollback", &body);
            // What the other has done may not have come here yet: then it is planned again.
            let (status, text) = if status == 409 {
                late += 1;
                settled();
                ask(at)("rollback", &body)
            } else {
                (status, text)
            };
            assert_eq!(status, 200, "to {}: {text}", seqs[at]);
            assert_eq!(exported(&ask(at)), state, "to {}", seqs[at]);
            undone += 1;
            points.push(settled());
            assert_eq!(points.last().unwrap().1, state);
        }
    }
    println!("{made} changes, {undone} rollbacks, {late} planned again");
    assert!(undone > 0);
}

/// Sends a request and reads what comes of it, which is nothing where the server is killed.
fn send(addr: std::net::SocketAddr, body: &str) -> String {
    let mut answer = String::new();
    let Ok(mut stream) = TcpStream::connect(addr) else { return answer };
    let head = format!(
        "POST /admin/apply HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    if stream.write_all(head.as_bytes()).is_ok() {
        let _ = stream.read_to_string(&mut answer);
    }
    answer
}

/// A frontend that is killed at any point of a plan leaves all of it in the tables or nothing, and
/// the other one never shows a part of it.
#[test]
fn a_plan_of_a_frontend_that_is_killed_is_whole_for_all() {
    let rounds = size("CLIPPER_UNDO_KILLS", 8, 200) as u64;
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let start = |name: &str| Clipper::start(&redis.url(), &dir.path().join(name), &[]);
    let (mut killed, other) = (start("a"), start("b"));
    let of_round = |clipper: &Clipper, round: u64| {
        let [apps, _] = clipper.catalog();
        let is_new = |app: &&Value| app["latency_slo_micros"] == json!(round + 1);
        apps.as_array().unwrap().iter().filter(is_new).count()
    };
    let mut random = SmallRng::seed_from_u64(17);
    let (mut whole, mut none) = (0, 0);
    for round in 0..rounds {
        let app = |n| {
            json!({"name": format!("a{n}"), "input_type": "doubles", "default_output": "-1",
                "latency_slo_micros": round + 1})
        };
        let apps: Vec<Value> = (0..20).map(app).collect();
        let body = json!({"application": apps}).to_string();
        let management = killed.management;
        let sending = std::thread::spawn(move || send(management, &body));
        // The moment of the kill is what is tried out.
        pause(Duration::from_micros(random.random_range(0..40_000)));
        killed.kill();
        let is_acknowledged = sending.join().unwrap().starts_with("HTTP/1.1 200");
        killed = start("a");
        let new = of_round(&killed, round);
        assert!(new == 0 || new == 20, "{new} of 20");
        assert!(!is_acknowledged || new == 20, "acknowledged");
        until_true("the other one has the same", || {
            let seen = of_round(&other, round);
            assert!(seen == 0 || seen == 20, "{seen} of 20 are shown");
            seen == new
        });
        *(if new == 20 { &mut whole } else { &mut none }) += 1;
    }
    println!("{whole} plans whole, {none} not at all");
}
