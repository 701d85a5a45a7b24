//! What feedback teaches, on several frontends that share a Redis, and after kill -9.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::redis::frontends::{app, model};
use crate::redis::harness::{Clipper, Container, Http, Redis, now, post, until_true};

const APP: &str = "digits";

fn set_up(clipper: &Clipper) {
    clipper.done("add_app", &app(APP));
    clipper.done("set_policy", &json!({"app_name": APP, "policy": "majority"}));
    for name in ["m", "n"] {
        clipper.done("add_model", &model(name, "1"));
    }
    clipper.done("add_model_links", &json!({"app_name": APP, "model_names": ["m", "n"]}));
}

/// A frontend with a container of each model.
struct Frontend {
    clipper: Clipper,
    _containers: [Container; 2],
}

impl Frontend {
    fn start(url: &str, dir: &Path) -> Self {
        let clipper = Clipper::start(url, dir, &[]);
        Self::serving(clipper)
    }

    fn serving(clipper: Clipper) -> Self {
        let containers = [("m", "1"), ("n", "2")].map(|(m, out)| clipper.container(m, "1", out));
        Self { clipper, _containers: containers }
    }

    /// Both models answer.
    fn serve(&self) {
        let asked = || self.clipper.predict(APP).1;
        until_true("both models answer", || asked()["confidence"] == 0.5);
    }

    /// So many queries of a user, and the ids of their answers.
    fn ask(&self, uid: i64, count: usize) -> Vec<u64> {
        let mut http = Http::open(self.clipper.query);
        let body = json!({"uid": uid, "input_batch": vec![[1.0]; count]}).to_string();
        let (status, text) = http.call("POST", "/digits/predict", &body);
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        let answers = answer["batch_predictions"].as_array().unwrap();
        answers.iter().map(|answer| answer["query_id"].as_u64().unwrap()).collect()
    }

    /// A list of feedback about them, all of it taken.
    fn judge(&self, ids: &[u64]) {
        let items: Vec<Value> = ids.iter().map(|id| json!({"query_id": id, "label": 1})).collect();
        let body = json!({"feedback": items}).to_string();
        let (status, text) = post(self.clipper.query, "/digits/update", &body);
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, &told["learned"]), (200, &json!(ids.len())), "{text}");
    }

    /// States that were written to the disk.
    fn saved(&self) -> f64 {
        self.clipper.metric("clipper_policy_states_saved_total")
    }

    fn rounds(&self, uid: i64) -> u64 {
        let state = self.clipper.done("get_state", &json!({"app_name": APP, "uid": uid}));
        let state: Value = serde_json::from_str(&state).unwrap();
        state["epochs"]["0"]["n"].as_u64().unwrap_or(0)
    }
}

#[test]
fn frontends_come_to_the_sum_of_what_each_was_told() {
    let mut redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let (dir_a, dir_b) = (dir.path().join("a"), dir.path().join("b"));
    let clipper = Clipper::start(&redis.url(), &dir_a, &[]);
    set_up(&clipper);
    let a = Frontend::serving(clipper);
    let b = Frontend::start(&redis.url(), &dir_b);
    let both = [&a, &b];
    for frontend in both {
        frontend.serve();
    }
    // The default policy's rows stay as they were.
    let row = r#"digits:0:0 string ["{\"y_hat\":\"0\"}"]"#;
    until_true("only the default policy's row is there", || redis.dump(1) == [row]);
    for (frontend, uid, count) in [(&a, 7, 30), (&b, 7, 20), (&b, 8, 5), (&a, 0, 10)] {
        frontend.judge(&frontend.ask(uid, count));
    }
    let has = |frontend: &Frontend, uid, rounds| frontend.rounds(uid) == rounds;
    for (uid, rounds) in [(0, 65), (7, 50), (8, 5)] {
        until_true("both have the sum", || both.iter().all(|f| has(f, uid, rounds)));
    }
    let fields: Vec<String> = redis.db(1).run(&["HKEYS", "digits:7:sums"]);
    assert_eq!(fields.len(), 2, "one of each frontend");
    // Redis is away: each goes on by itself, and tells later.
    redis.kill();
    let saved = a.saved();
    a.judge(&a.ask(7, 3));
    b.judge(&b.ask(7, 4));
    until_true("it counts", || has(&a, 7, 53) && has(&b, 7, 54));
    // One of them dies meanwhile, once that is on its disk: user 7's state and everybody's.
    until_true("it is on the disk", || a.saved() >= saved + 2.0);
    a.clipper.kill();
    redis.run();
    let a = Frontend::start(&redis.url(), &dir_a);
    for (uid, rounds) in [(0, 72), (7, 57), (8, 5)] {
        until_true("both have the sum", || has(&a, uid, rounds) && has(&b, uid, rounds));
    }
    // A third one, which nobody has told anything, knows it too.
    let c = Frontend::start(&redis.url(), &dir.path().join("c"));
    until_true("it has read it", || has(&c, 7, 57) && has(&c, 0, 72));
    c.clipper.done("delete_app", &json!({"name": APP}));
    until_true("gone with its application", || redis.dump(1).is_empty());
}

/// How late whoever waits for a timer and a sync on this machine gets them.
struct Lateness {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Lateness {
    fn measured_in(dir: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, path) = (Arc::clone(&stop), dir.join("lateness"));
        let thread = std::thread::spawn(move || {
            let pause_for = Duration::from_millis(10);
            let mut worst = Duration::ZERO;
            while !stopped.load(Relaxed) {
                let start = now();
                crate::redis::harness::pause(pause_for);
                std::fs::File::create(&path).unwrap().write_all(&[0; 4096]).unwrap();
                std::fs::File::open(&path).unwrap().sync_all().unwrap();
                worst = worst.max(start.elapsed().saturating_sub(pause_for));
            }
            worst
        });
        Self { stop, thread }
    }

    fn worst(self) -> Duration {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn kill_9_loses_at_most_the_last_second_of_acknowledged_feedback() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let dirs = [dir.path().join("a"), dir.path().join("b")];
    let clipper = Clipper::start(&redis.url(), &dirs[0], &[]);
    set_up(&clipper);
    clipper.stop();
    let mut sum = 0;
    for round in 0..3_u64 {
        let [a, b] = dirs.each_ref().map(|dir| Frontend::start(&redis.url(), dir));
        for frontend in [&a, &b] {
            frontend.serve();
            until_true("what was kept is there", || frontend.rounds(0) == sum);
        }
        let lateness = Lateness::measured_in(dir.path());
        // Acknowledged, one by one, until the kill.
        let ids = [a.ask(7, 400), b.ask(7, 400)];
        let mut acknowledged = Vec::new();
        let until = now() + Duration::from_millis(1_500 + 300 * round);
        let mut ids = ids[0].iter().zip(&ids[1]);
        while now() < until
            && let Some((of_a, of_b)) = ids.next()
        {
            a.judge(&[*of_a]);
            b.judge(&[*of_b]);
            acknowledged.push(now());
            crate::redis::harness::pause(Duration::from_millis(5));
        }
        let killed = now();
        a.clipper.kill();
        let late = lateness.worst();
        // Stops by itself: all is kept.
        b.clipper.stop();
        let a = Frontend::start(&redis.url(), &dirs[0]);
        let all = sum + 2 * acknowledged.len() as u64;
        let b = Frontend::start(&redis.url(), &dirs[1]);
        until_true("both say the same", || a.rounds(0) == b.rounds(0));
        sum = a.rounds(0);
        assert!(sum <= all, "{sum} of {all}: something counted twice");
        let lost = usize::try_from(all - sum).unwrap();
        assert!(lost <= acknowledged.len(), "what the one that stopped had is there");
        let oldest = acknowledged.get(acknowledged.len() - lost);
        let oldest = oldest.map_or(Duration::ZERO, |oldest| killed - *oldest);
        println!("kill -9 lost {lost} of the last {oldest:?}; this machine was {late:?} late");
        // The timer of the save, its thread and its sync may each be as late as the slowest such
        // wait here, which a machine that nothing else uses has none of.
        assert!(oldest <= Duration::from_secs(1) + 3 * late, "{oldest:?}, {late:?} late");
        for frontend in [a, b] {
            frontend.clipper.stop();
        }
    }
}
