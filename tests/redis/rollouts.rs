//! Rollouts of several frontends: one decides, another takes over; whatever ends, no step is taken
//! twice, none is lost, and no query fails.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::signal::Signal;
use parking_lot::RwLock;
use serde_json::{Value, json};

use crate::redis::frontends::model;
use crate::redis::harness::{Clipper, Container, Redis, get, now, post, until, until_true};
use crate::support::StopAtEnd;

const ENV: [(&str, &str); 2] =
    [("CLIPPER_ROLLOUTS__LOOK_INTERVAL_MS", "20"), ("CLIPPER_ROLLOUTS__LEASE_MS", "300")];

/// A frontend with a container of each version.
struct Frontend {
    clipper: Clipper,
    _containers: [Container; 2],
}

impl Frontend {
    fn start(redis: &Redis, dir: &Path) -> Self {
        let clipper = Clipper::start(&redis.url(), dir, &ENV);
        let containers = [clipper.container("m", "1", "1"), clipper.container("m", "2", "2")];
        let frontend = Self { clipper, _containers: containers };
        until_true("both versions serve", || {
            let page = get(frontend.clipper.metrics, "/metrics").1;
            let served = |version: &str| {
                page.contains(&format!("clipper_replicas{{model=\"m\",version=\"{version}\"}} 1\n"))
            };
            served("1") && served("2")
        });
        frontend
    }
}

/// The application, its model and both versions, known to everybody.
fn register(clipper: &Clipper) {
    clipper.done(
        "add_app",
        &json!({"name": "a", "input_type": "doubles", "default_output": "0",
                "latency_slo_micros": 20_000_000, "cache": false}),
    );
    for version in ["2", "1"] {
        clipper.done("add_model", &model("m", version));
    }
    clipper.done("add_model_links", &json!({"app_name": "a", "model_names": ["m"]}));
}

/// The hold of each step.
const HOLD_MS: u64 = 800;

fn start(clipper: &Clipper, steps: &Value, guards: &[&str]) {
    let body = json!({"app_name": "a", "from": "m:1", "to": "m:2", "steps": steps,
        "hold_ms": HOLD_MS, "guards": guards, "min_queries": 10});
    clipper.done("start_rollout", &body);
}

fn rollout(clipper: &Clipper) -> Value {
    serde_json::from_str(&clipper.done("get_rollout", &json!({"app_name": "a"}))).unwrap()
}

/// Queries to whichever frontends there are, until told to stop. Each answer is one of a version.
fn drive(frontends: &[RwLock<Option<Frontend>>], ended: &AtomicBool, answered: &AtomicU64) {
    let mut turn = 0;
    while !ended.load(Relaxed) {
        turn += 1;
        let frontend = frontends[turn % frontends.len()].read();
        let Some(frontend) = frontend.as_ref() else { continue };
        let body = format!("{{\"input\": [{turn}.5]}}");
        let (status, text) = post(frontend.clipper.query, "/a/predict", &body);
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["default"], false, "{answer}");
        assert!(answer["output"] == 1 || answer["output"] == 2, "{answer}");
        answered.fetch_add(1, Relaxed);
    }
}

/// The steps in the table, as anybody sees them: each is one more than the one before.
fn steps_of(journal: &Path) -> Vec<u64> {
    let output = std::process::Command::new(crate::binary())
        .args(["journal", "list", "--json", "--data-dir"])
        .arg(journal)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // One's own change is an event of the rollout, another's is the application's row.
    let rollouts = text.lines().filter_map(|line| {
        let event = &serde_json::from_str::<Value>(line).unwrap()["event"];
        let rollout = event.get("rollout").or_else(|| event["app"].get("rollout"))?;
        Some(rollout["step"].as_u64().unwrap() * 2 + u64::from(rollout.get("end").is_some()))
    });
    rollouts.collect()
}

/// No step came back, and the last one promoted it.
fn every_step_was_taken_once(journal: &Path) {
    let steps = steps_of(journal);
    assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
    assert_eq!(steps.last(), Some(&7), "{steps:?}");
}

/// Frontends that know the application, one for each folder.
fn frontends(redis: &Redis, folders: &[PathBuf]) -> Vec<RwLock<Option<Frontend>>> {
    let first = Clipper::start(&redis.url(), &folders[0], &ENV);
    register(&first);
    drop(first);
    let start = |folder: &PathBuf| RwLock::new(Some(Frontend::start(redis, folder)));
    folders.iter().map(start).collect()
}

/// What a frontend shows of the rollout; none of one that was killed.
fn shown(frontend: &RwLock<Option<Frontend>>) -> Option<Value> {
    frontend.read().as_ref().map(|frontend| rollout(&frontend.clipper))
}

#[test]
fn whoever_decides_may_be_killed_at_every_step() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let folders = ["a", "b", "c", "d", "e"].map(|name| dir.path().join(name));
    let frontends = frontends(&redis, &folders);
    start(
        &frontends[0].read().as_ref().unwrap().clipper,
        &json!([10, 40, 70, 100]),
        &["errors<1%", "p99<slo"],
    );
    let (ended, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&ended);
        for _ in 0..2 {
            scope.spawn(|| drive(&frontends, &ended, &answered));
        }
        for step in 1..=4 {
            let victim = until("somebody decides at this step", || {
                frontends.iter().find(|frontend| {
                    shown(frontend).is_some_and(|it| {
                        it["decides"] == true && it["step"].as_u64() >= Some(step)
                    })
                })
            });
            // Nobody is in the middle of a query to it.
            let victim = victim.write().take().unwrap();
            victim.clipper.kill();
        }
        until_true("the one that is left has promoted it", || {
            frontends.iter().filter_map(shown).all(|it| it["state"] == "promoted")
        });
    });
    assert!(answered.load(Relaxed) > 100);
    // The killed ones come back and know it too.
    for (frontend, folder) in frontends.iter().zip(&folders) {
        let clipper = match frontend.write().take() {
            Some(alive) => alive.clipper,
            None => Clipper::start(&redis.url(), folder, &ENV),
        };
        until_true("promoted", || rollout(&clipper)["state"] == "promoted");
        clipper.stop();
        every_step_was_taken_once(folder);
    }
}

#[test]
fn while_redis_is_away_a_rollout_stays_where_it_is() {
    let mut redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let folders = ["a", "b"].map(|name| dir.path().join(name));
    let frontends = frontends(&redis, &folders);
    let shown = |at: usize| shown(&frontends[at]).unwrap();
    let connected = |at: usize| frontends[at].read().as_ref().unwrap().clipper.connected();
    start(
        &frontends[0].read().as_ref().unwrap().clipper,
        &json!([20, 40, 60, 100]),
        &["errors<1%", "p99<slo"],
    );
    let (ended, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&ended);
        scope.spawn(|| drive(&frontends, &ended, &answered));
        let held = |redis: &mut Redis, frozen: bool| {
            if frozen {
                redis.signal(Signal::SIGSTOP);
            } else {
                redis.kill();
            }
            until_true("Redis is away", || (0..2).all(|at| !connected(at)));
            let step = [0, 1].map(|at| shown(at)["step"].clone());
            let before = answered.load(Relaxed);
            // Long beyond the hold of a step.
            let since = now();
            until_true("queries go on", || {
                answered.load(Relaxed) > before + 100
                    && since.elapsed() > Duration::from_millis(2 * HOLD_MS)
            });
            let after = [0, 1].map(|at| shown(at)["step"].clone());
            assert_eq!(step, after);
            assert!((0..2).all(|at| shown(at)["decides"] == false));
            if frozen {
                redis.signal(Signal::SIGCONT);
            } else {
                redis.run();
            }
            until_true("Redis is back", || (0..2).all(connected));
        };
        for step in 1..=4 {
            until_true("somebody decides at this step", || {
                (0..2).any(|at| {
                    let it = shown(at);
                    it["decides"] == true && it["step"].as_u64() >= Some(step)
                })
            });
            held(&mut redis, step % 2 == 0);
        }
        until_true("it is promoted everywhere", || {
            (0..2).all(|at| shown(at)["state"] == "promoted")
        });
    });
    for frontend in &frontends {
        frontend.write().take().unwrap().clipper.stop();
    }
    for folder in &folders {
        every_step_was_taken_once(folder);
    }
}

#[test]
fn one_decides_on_what_the_others_have_seen() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let folders = ["a", "b"].map(|name| dir.path().join(name));
    let frontends = frontends(&redis, &folders);
    let all = || frontends.iter().map(|frontend| shown(frontend).unwrap());
    let guards = ["errors<1%", "disagreement<2%"];
    start(&frontends[0].read().as_ref().unwrap().clipper, &json!([50, 100]), &guards);
    let decider = until("somebody decides", || all().position(|it| it["decides"] == true));
    // All queries go to the other one; the versions answer 1 and 2.
    let other = &frontends[1 - decider..][..1];
    let (ended, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&ended);
        scope.spawn(|| drive(other, &ended, &answered));
        until_true("it is rolled back everywhere", || all().all(|it| it["state"] == "rolled_back"));
    });
    for it in all() {
        assert_eq!(it["end"]["evidence"]["guard"], "disagreement<2%", "{it}");
    }
    for frontend in &frontends {
        let frontend = frontend.write().take().unwrap();
        let clipper = &frontend.clipper;
        let counted = "clipper_rollout_rolled_back_total{app=\"a\"}";
        until_true("it is counted", || clipper.metric(counted) > 0.5);
        for _ in 0..20 {
            assert_eq!(clipper.predict("a").1["output"], 1);
        }
    }
}
