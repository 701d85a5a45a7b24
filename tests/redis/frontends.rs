//! Several frontends on one Redis.

use std::collections::BTreeSet;
use std::sync::{Arc, Barrier};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::redis::harness::{Clipper, Redis, post, until_true};
use crate::redis::size;

fn two(redis: &Redis) -> ([Clipper; 2], Arc<tempfile::TempDir>) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let start =
        |name: &str| Clipper::start(&redis.url(), &dir.path().join(name), &[]).keeping(&dir);
    ([start("a"), start("b")], dir)
}

pub(super) fn app(name: &str) -> Value {
    json!({"name": name, "input_type": "doubles", "default_output": "0",
        "latency_slo_micros": 5_000_000})
}

pub(super) fn model(name: &str, version: &str) -> Value {
    json!({"model_name": name, "model_version": version, "input_type": "doubles", "labels": [],
        "container_name": "c", "model_data_path": "/m", "batch_size": -1})
}

#[test]
fn of_two_simultaneous_commands_one_succeeds() {
    let redis = Redis::start();
    let (clippers, _dir) = two(&redis);
    for n in 0..50 {
        let name = format!("app{n}");
        let start = Barrier::new(2);
        let answers = std::thread::scope(|scope| {
            let threads = clippers.each_ref().map(|clipper| {
                let (name, start) = (&name, &start);
                scope.spawn(move || {
                    start.wait();
                    clipper.admin("add_app", &app(name))
                })
            });
            threads.map(|thread| thread.join().unwrap())
        });
        let statuses: BTreeSet<u16> = answers.iter().map(|a| a.0).collect();
        assert_eq!(statuses, BTreeSet::from([200, 400]), "{answers:?}");
        let refused = answers.iter().find(|a| a.0 == 400).unwrap();
        assert!(refused.1.contains(&format!("application '{name}' already exists")), "{refused:?}");
        // Either frontend knows at once what the other has acknowledged.
        let link = json!({"app_name": name, "model_names": ["none"]});
        for clipper in &clippers {
            let (_, text) = clipper.admin("add_model_links", &link);
            assert_eq!(text, "No model with name 'none' exists.");
        }
    }
}

#[test]
fn a_link_and_a_version_that_do_not_suit_each_other_never_both_succeed() {
    let redis = Redis::start();
    let (clippers, _dir) = two(&redis);
    let rounds = 50;
    for n in 0..rounds {
        clippers[0].done("add_app", &app(&format!("app{n}")));
        clippers[0].done("add_model", &model(&format!("m{n}"), "1"));
    }
    let mut linked = 0;
    for n in 0..rounds {
        let mut ints = model(&format!("m{n}"), "2");
        ints["input_type"] = json!("ints");
        let link = json!({"app_name": format!("app{n}"), "model_names": [format!("m{n}")]});
        let start = Barrier::new(2);
        let [linking, adding] = std::thread::scope(|scope| {
            let send = |clipper: &'static str, body| (clipper, body);
            let jobs = [send("add_model_links", &link), send("add_model", &ints)];
            let threads = [0, 1].map(|at: usize| {
                let ((operation, body), clipper, start) = (jobs[at], &clippers[at], &start);
                scope.spawn(move || {
                    start.wait();
                    clipper.admin(operation, body)
                })
            });
            threads.map(|thread| thread.join().unwrap())
        });
        let statuses = BTreeSet::from([linking.0, adding.0]);
        assert_eq!(statuses, BTreeSet::from([200, 400]), "{linking:?} {adding:?}");
        linked += u32::from(linking.0 == 200);
    }
    println!("{linked} of {rounds} times the link was first");
}

#[test]
fn what_was_learnt_while_redis_was_away_is_told_later() {
    let mut redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let clipper = Clipper::start(&redis.url(), dir.path(), &[]);
    clipper.done("add_app", &app("digits"));
    redis.kill();
    until_true("noticed", || !clipper.connected());
    let feedback = json!({"uid": 7, "input": [1.0], "label": 1.0});
    let (status, text) = post(clipper.query, "/digits/update", &feedback.to_string());
    assert_eq!(status, 200, "{text}");
    // Not even a restart forgets it.
    clipper.stop();
    redis.run();
    let _clipper = Clipper::start(&redis.url(), dir.path(), &[]);
    let rows = [0, 7].map(|uid| format!(r#"digits:{uid}:0 string ["{{\"y_hat\":\"0\"}}"]"#));
    until_true("told", || redis.dump(1) == rows);
}

fn random_command(random: &mut SmallRng) -> (&'static str, Value) {
    let app_name = format!("a{}", random.random_range(0..6));
    let model_name = format!("m{}", random.random_range(0..4));
    let version = random.random_range(0..4).to_string();
    let versioned = json!({"model_name": model_name, "model_version": version});
    let link = json!({"app_name": app_name, "model_names": [model_name]});
    match random.random_range(0..8) {
        0 | 1 => ("add_app", app(&app_name)),
        2 => ("delete_app", json!({"name": app_name})),
        3 => ("add_model", model(&model_name, &version)),
        4 => ("set_model_version", versioned),
        5 => ("delete_versioned_model", versioned),
        6 => ("add_model_links", link),
        _ => ("delete_model_links", link),
    }
}

#[test]
fn random_commands_leave_frontends_and_tables_equal() {
    let redis = Redis::start();
    let (clippers, dir) = two(&redis);
    let commands = size("CLIPPER_TEST_COMMANDS", 400);
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let acknowledged: usize = std::thread::scope(|scope| {
        let clients = (0..8_u64).map(|client| {
            let clipper = &clippers[usize::try_from(client % 2).unwrap()];
            scope.spawn(move || {
                let mut random = SmallRng::seed_from_u64(seed ^ client);
                let mut acknowledged = 0;
                for n in 0..commands / 8 {
                    let (operation, body) = random_command(&mut random);
                    let (status, text) = clipper.admin(operation, &body);
                    assert!(status == 200 || status == 400, "{operation} {body}: {status} {text}");
                    acknowledged += usize::from(status == 200);
                    // What nobody else touches must be there at once and for good.
                    if n % 10 == 0 {
                        clipper.done("add_app", &app(&format!("own-{client}-{n}")));
                    }
                }
                acknowledged
            })
        });
        let clients: Vec<_> = clients.collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    println!("{acknowledged} of {commands} acknowledged");
    until_true("equal", || clippers[0].catalog() == clippers[1].catalog());
    let shown = clippers[0].catalog();
    for client in 0..8 {
        for n in (0..commands / 8).step_by(10) {
            let name = format!("own-{client}-{n}");
            assert!(shown[0].as_array().unwrap().iter().any(|a| a["name"] == *name), "{name}");
        }
    }
    assert_eq!(redis.shown(), shown, "the tables");
    let conflicts = clippers.each_ref().map(|c| c.metric("clipper_redis_conflicts_total"));
    println!("conflicts {conflicts:?}");
    // A third one, which has no journal, reads the same from the tables.
    let third = Clipper::start(&redis.url(), &dir.path().join("c"), &[]);
    assert_eq!(third.catalog(), shown);
    third.stop();
    clippers.into_iter().for_each(Clipper::stop);
    // And each journal alone tells the same.
    for name in ["a", "b", "c"] {
        let alone = Clipper::start("", &dir.path().join(name), &[]);
        assert_eq!(alone.catalog(), shown, "journal {name}");
        alone.stop();
    }
}

#[test]
fn what_one_frontend_has_learnt_the_others_know() {
    let redis = Redis::start();
    let ([a, b], _dir) = two(&redis);
    a.done("add_app", &app("digits"));
    until_true("served", || b.serves("digits"));
    let feedback = json!({"uid": 7, "input": [1.0], "label": 1.0});
    let (status, text) = post(a.query, "/digits/update", &feedback.to_string());
    assert_eq!(status, 200, "{text}");
    let rows = [0, 7].map(|uid| format!(r#"digits:{uid}:0 string ["{{\"y_hat\":\"0\"}}"]"#));
    until_true("the original's form", || redis.dump(1) == rows);
    let state =
        |clipper: &Clipper| clipper.done("get_state", &json!({"app_name": "digits", "uid": 7}));
    redis.db(1).run::<redis::Value>(&["SET", "digits:7:0", r#"{"y_hat":"9"}"#]);
    until_true("both know", || [&a, &b].map(state) == ["9", "9"]);
    b.done("delete_app", &json!({"name": "digits"}));
    until_true("gone with its application", || redis.dump(1).is_empty());
}

#[test]
fn metadata_moves_from_redis_to_a_journal_and_back() {
    let redis = Redis::start();
    crate::redis::forms::write_dump(&redis);
    let dir = tempfile::tempdir().unwrap();
    let run = |verb: &str, url: &str, more: &[&str]| {
        let output = std::process::Command::new(crate::binary())
            .args([verb, "--redis-url", url, "--data-dir"])
            .arg(dir.path())
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().last().unwrap().to_owned()
    };
    let url = redis.url();
    let would = "5 changes would be imported into the journal";
    assert_eq!(run("import", &url, &["--dry-run"]), would);
    assert_eq!(run("import", &url, &["--dry-run"]), would, "nothing was done");
    assert_eq!(run("import", &url, &[]), "5 changes imported into the journal");
    assert_eq!(run("import", &url, &[]), "0 changes imported into the journal");
    let alone = Clipper::start("", dir.path(), &[]);
    assert_eq!(alone.catalog()[0][0]["linked_models"], json!(["net"]));
    alone.stop();

    let other = Redis::start();
    assert_eq!(
        run("export", &other.url(), &["--dry-run"]),
        "5 changes would be exported into Redis"
    );
    assert_eq!(run("export", &other.url(), &[]), "5 changes exported into Redis");
    assert_eq!(run("export", &other.url(), &[]), "0 changes exported into Redis");
    assert_eq!(other.catalog(), redis.catalog());
    other.db(5).tell("HMSET extra input_type d policy p default_output 0 latency_slo_micros 9");
    other.db(5).tell("HSET digits default_output 5");
    assert_eq!(run("export", &other.url(), &[]), "1 changes exported into Redis");
    assert_eq!(run("export", &other.url(), &["--prune"]), "1 changes exported into Redis");
    assert_eq!(other.catalog(), redis.catalog());
}

#[test]
fn replicas_of_all_frontends_are_listed_and_their_numbers_differ() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        let lease = [("CLIPPER_REDIS__LEASE_MS", "1000")];
        Clipper::start(&redis.url(), &dir.path().join(name), &lease)
    };
    let (a, b) = (start("a"), start("b"));
    a.done("add_model", &model("m", "1"));
    let replicas = [&a, &b, &b].map(|clipper| clipper.container("m", "1", "0"));
    let listed = |clipper: &Clipper| -> Vec<String> {
        let answer = clipper.done("get_all_containers", &json!({"verbose": false}));
        serde_json::from_str(&answer).unwrap()
    };
    until_true("all are listed by both", || listed(&a).len() == 3 && listed(&a) == listed(&b));
    assert_eq!(redis.dump(3).len(), 3);
    // A frontend that dies leaves nothing behind.
    b.kill();
    until_true("its rows are gone", || redis.dump(3).len() == 1 && listed(&a).len() == 1);
    // Nor does one that stops.
    let b = start("b");
    drop(replicas);
    let _again = b.container("m", "1", "0");
    until_true("listed", || listed(&a).len() == 1 && listed(&b).len() == 1);
    b.stop();
    until_true("left", || redis.dump(3).is_empty() && listed(&a).is_empty());
}
