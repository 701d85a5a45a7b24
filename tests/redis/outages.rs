//! Redis dies, freezes, forgets; predictions go on and nothing acknowledged is lost.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::forms::write_dump;
use crate::harness::{Clipper, Container, Http, Redis, now, pause, until, until_true};
use crate::size;

const APP: &str = "input_type doubles policy p default_output 0 latency_slo_micros 5000000";

/// Predictions a second in each of the tests.
const LOAD: u32 = 500;

/// Asks for predictions of `digits` until told to stop; every one has to be the model's.
struct Load {
    stop: AtomicBool,
    asked: AtomicUsize,
}

impl Load {
    fn during<T>(clippers: &[&Clipper], work: impl FnOnce() -> T) -> T {
        let load = Self { stop: AtomicBool::new(false), asked: AtomicUsize::new(0) };
        std::thread::scope(|scope| {
            let clients: Vec<_> = clippers.iter().map(|c| scope.spawn(|| load.run(c))).collect();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            load.stop.store(true, Ordering::Relaxed);
            for client in clients {
                client.join().unwrap();
            }
            assert!(load.asked.load(Ordering::Relaxed) > 0);
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn run(&self, clipper: &Clipper) {
        let mut http = Http::open(clipper.query);
        let start = now();
        let mut n = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let body = format!(r#"{{"input": [{n}.0]}}"#);
            let (status, answer) = http.call("POST", "/digits/predict", &body);
            assert!(status == 200 && answer.contains(r#""default":false"#), "{status} {answer}");
            self.asked.fetch_add(1, Ordering::Relaxed);
            n += 1;
            let due = Duration::from_secs(1) * n / LOAD;
            if let Some(early) = due.checked_sub(start.elapsed()) {
                pause(early);
            }
        }
    }
}

struct Site {
    redis: Redis,
    clippers: Vec<Clipper>,
    _replicas: Vec<Container>,
    dir: tempfile::TempDir,
}

fn site(frontends: usize, env: &[(&str, &str)]) -> Site {
    let redis = Redis::start();
    write_dump(&redis);
    let dir = tempfile::tempdir().unwrap();
    let start = |n| Clipper::start(&redis.url(), &dir.path().join(format!("{n}")), env);
    let clippers: Vec<Clipper> = (0..frontends).map(start).collect();
    let replicas = clippers.iter().map(|c| c.container("net", "1", "7")).collect();
    for clipper in &clippers {
        until_true("a prediction", || clipper.predict("digits").1["output"] == 7);
    }
    Site { redis, clippers, _replicas: replicas, dir }
}

/// Time from Redis' return until all frontends tell `condition`.
fn caught_up(clippers: &[Clipper], condition: impl Fn(&Clipper) -> bool) -> Duration {
    let start = now();
    until_true("caught up", || clippers.iter().all(|c| c.connected() && condition(c)));
    start.elapsed()
}

fn knows(clipper: &Clipper, app: &str) -> bool {
    clipper.catalog()[0].as_array().unwrap().iter().any(|a| a["name"] == app)
}

fn rounds(round: impl FnMut(usize)) {
    (0..size("CLIPPER_TEST_ROUNDS", 1)).for_each(round);
}

fn killed_and_back(frontends: usize) {
    let mut site = site(frontends, &[]);
    let clippers = std::mem::take(&mut site.clippers);
    let redis = &mut site.redis;
    let loaded: Vec<&Clipper> = clippers.iter().collect();
    Load::during(&loaded, || {
        rounds(|n| {
            redis.kill();
            until_true("noticed", || clippers.iter().all(|c| !c.connected()));
            let (status, text) = clippers[0].admin("delete_app", &json!({"name": "digits"}));
            assert_eq!(status, 503, "{text}");
            assert!(text.contains("nothing was written: Redis is away"), "{text}");
            redis.run();
            // Others are faster than the reconnection.
            redis.db(5).tell(&format!("HMSET while-away{n} {APP}"));
            let took = caught_up(&clippers, |c| knows(c, &format!("while-away{n}")));
            println!("{frontends} frontends, kept and changed: equal after {took:?}");
            assert!(knows(&clippers[0], "digits"));
        });
    });
}

#[test]
fn killed_and_back_with_its_data_and_changes_by_others() {
    killed_and_back(1);
}

#[test]
fn killed_and_back_with_two_frontends() {
    killed_and_back(2);
}

fn lost_and_restored(frontends: usize) {
    let mut site = site(frontends, &[]);
    let clippers = std::mem::take(&mut site.clippers);
    let redis = &mut site.redis;
    let loaded: Vec<&Clipper> = clippers.iter().collect();
    let before = redis.catalog();
    Load::during(&loaded, || {
        rounds(|_| {
            redis.kill();
            redis.forget();
            redis.run();
            let took = caught_up(&clippers, |_| redis.catalog() == before);
            println!("{frontends} frontends, lost: restored after {took:?}");
        });
    });
    let loud = |c: &&Clipper| c.logged("Redis has LOST its data");
    assert!(clippers.iter().filter(loud).count() >= 1);
    // The tables are followed, and deletions are deletions.
    redis.db(5).tell("DEL digits");
    until_true("gone", || clippers.iter().all(|c| !c.serves("digits")));
}

#[test]
fn lost_data_is_restored() {
    lost_and_restored(1);
}

#[test]
fn lost_data_is_restored_by_one_of_two_frontends() {
    lost_and_restored(2);
}

#[test]
fn what_is_there_again_is_not_overwritten_by_a_restore() {
    let mut site = site(1, &[]);
    site.redis.kill();
    until_true("noticed", || !site.clippers[0].connected());
    site.redis.forget();
    let clipper = site.clippers.pop().unwrap();
    clipper.stop();
    site.redis.run();
    site.redis.db(5).tell(&format!("HMSET digits {APP}"));
    let clipper = Clipper::start(&site.redis.url(), &site.dir.path().join("0"), &[]);
    let [apps, models] = clipper.catalog();
    assert_eq!(apps[0]["default_output"], "0", "the operator's, not the journal's -1");
    assert_eq!(models.as_array().unwrap().len(), 2, "the journal's");
}

#[test]
fn lost_data_is_adopted_if_the_operator_says_so() {
    let mut site = site(1, &[("CLIPPER_REDIS__ON_DATA_LOSS", "adopt")]);
    let clipper = site.clippers.pop().unwrap();
    site.redis.kill();
    site.redis.forget();
    site.redis.run();
    until_true("gone", || !clipper.serves("digits"));
    until_true("connected", || clipper.connected());
    assert_eq!(clipper.catalog(), [json!([]), json!([])]);
}

#[test]
fn emptied_tables_of_a_running_server_are_the_truth() {
    let mut site = site(1, &[]);
    let clipper = site.clippers.pop().unwrap();
    site.redis.db(0).tell("FLUSHALL");
    until_true("gone", || !clipper.serves("digits"));
    until_true("connected", || clipper.connected());
    assert_eq!(site.redis.catalog().concat(), Vec::<String>::new());
}

#[test]
fn without_redis_the_journal_is_served_from_the_start() {
    let mut site = site(1, &[]);
    site.clippers.pop().unwrap().kill();
    site.redis.kill();
    let start = now();
    let clipper = Clipper::start(&site.redis.url(), &site.dir.path().join("0"), &[]);
    println!("ready without Redis after {:?}", start.elapsed());
    assert!(!clipper.connected());
    let _replica = clipper.container("net", "1", "7");
    until_true("a prediction", || clipper.predict("digits").1["output"] == 7);
    let stranger = Clipper::start(&site.redis.url(), &site.dir.path().join("stranger"), &[]);
    let _other = stranger.container("net", "1", "8");
    let (status, text) = clipper.admin("delete_app", &json!({"name": "digits"}));
    assert_eq!((status, text.contains("Redis is away")), (503, true), "{text}");
    site.redis.run();
    until_true("connected", || clipper.connected());
    until_true("both replicas have rows", || site.redis.dump(3).len() == 2);
    clipper.done("delete_app", &json!({"name": "digits"}));
}

#[test]
fn a_frozen_redis_delays_no_prediction() {
    let mut site = site(1, &[]);
    let clipper = site.clippers.pop().unwrap();
    let frozen = Duration::from_millis(size("CLIPPER_TEST_FREEZE_MS", 3_000) as u64);
    Load::during(&[&clipper], || {
        site.redis.signal(Signal::SIGSTOP);
        let start = now();
        let mut n = 0;
        while start.elapsed() < frozen {
            let asked = now();
            let (status, text) = clipper.admin("delete_app", &json!({"name": "digits"}));
            assert_eq!(status, 503, "{text}");
            assert!(text.contains("nothing was written"), "{text}");
            assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
            n += 1;
            pause(Duration::from_millis(100));
        }
        println!("{n} commands refused while frozen");
        site.redis.signal(Signal::SIGCONT);
        let took = caught_up(std::slice::from_ref(&clipper), |_| true);
        println!("following again after {took:?}");
    });
    assert!(clipper.serves("digits"), "what was refused has not happened");
    let row = until("the row", || site.redis.dump(5).pop());
    assert!(row.starts_with("digits hash"), "{row}");
}
