//! Redis dies, freezes, forgets; predictions go on and nothing acknowledged is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use parking_lot::Mutex;
use serde_json::json;

use crate::redis::forms::write_dump;
use crate::redis::harness::{
    Clipper, Container, Http, PATIENCE, Redis, now, pause, until, until_true,
};
use crate::redis::size;

const APP: &str = "input_type doubles policy DefaultOutputSelectionPolicy default_output 0 \
                   latency_slo_micros 5000000";

const NO_MODEL: &str = "No connected models found for query";

/// Predictions a second in each of the tests.
const LOAD: u32 = 500;

/// What is promised, and has to be kept.
struct Limits {
    /// The latency objective of the application under load.
    slo: Duration,
    /// How much later than that an answer may reach the client.
    slack: Duration,
    /// Within which the frontends have to equal the tables once Redis is back, reconnection
    /// included.
    catch_up: Duration,
}

/// Those of a machine that does nothing else, if the rounds were asked for; else such that no busy
/// machine fails.
fn limits() -> Limits {
    let [slo, slack, catch_up] = match std::env::var_os("CLIPPER_TEST_ROUNDS") {
        Some(_) => [250, 50, 1_000],
        None => [5_000, 5_000, 60_000],
    }
    .map(Duration::from_millis);
    Limits { slo, slack, catch_up }
}

/// How long the load goes on with Redis away, and again with it back.
const STEADY: Duration = Duration::from_millis(200);

/// What the client may expect of the application under load.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// Every answer is the model's.
    Served,
    /// The application and its model are going or gone: 404 counts too. The default output does
    /// not, but for a query that was under way when its model went.
    Gone,
    /// The application is added again, and its replicas after it: the default output counts too.
    Coming,
}

/// Asks for predictions of `digits` until told to stop; every one has to be the model's, in time.
struct Load {
    stop: AtomicBool,
    phase: Mutex<Phase>,
    times: Mutex<Vec<Duration>>,
}

impl Load {
    fn during<T>(clippers: &[&Clipper], work: impl FnOnce(&Self) -> T) -> T {
        let phase = Mutex::new(Phase::Served);
        let load = Self { stop: AtomicBool::new(false), phase, times: Mutex::default() };
        let start = now();
        std::thread::scope(|scope| {
            let clients: Vec<_> = clippers.iter().map(|c| scope.spawn(|| load.run(c))).collect();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&load)));
            load.stop.store(true, Ordering::Relaxed);
            for client in clients {
                client.join().unwrap();
            }
            load.report(start.elapsed());
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn run(&self, clipper: &Clipper) {
        let Limits { slo, slack, .. } = limits();
        let mut http = Http::open(clipper.query);
        let start = now();
        let mut n = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let body = format!(r#"{{"input": [{n}.0]}}"#);
            let before = *self.phase.lock();
            let asked = now();
            let (status, answer) = http.call("POST", "/digits/predict", &body);
            let took = asked.elapsed();
            let phases = [before, *self.phase.lock()];
            let predicted = status == 200 && answer.contains(r#""default":false"#);
            let excepted = match status {
                200 => {
                    // Or it came when the model had gone, to a worker that was still to hear so.
                    let under_way = answer.contains("was deleted") || answer.contains(NO_MODEL);
                    phases.contains(&Phase::Coming) || under_way && phases.contains(&Phase::Gone)
                }
                404 => phases != [Phase::Served; 2],
                _ => false,
            };
            assert!(predicted || excepted, "after {took:?}: {status} {answer}");
            assert!(took <= slo + slack, "late: {took:?} {answer}");
            if status == 404 {
                // The server closes the connection after it.
                http = Http::open(clipper.query);
            }
            if predicted {
                self.times.lock().push(took);
            }
            n += 1;
            let due = Duration::from_secs(1) * n / LOAD;
            if let Some(early) = due.checked_sub(start.elapsed()) {
                pause(early);
            }
        }
    }

    fn enter(&self, phase: Phase) {
        *self.phase.lock() = phase;
    }

    fn report(&self, elapsed: Duration) {
        let mut times = std::mem::take(&mut *self.times.lock());
        assert!(!times.is_empty());
        times.sort();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        let rate = times.len() as u128 * 1000 / elapsed.as_millis().max(1);
        let [p50, p99, max] = [50, 99, 100].map(at);
        let count = times.len();
        println!("{count} predictions, {rate}/s, none late: p50 {p50:?} p99 {p99:?} max {max:?}");
    }
}

struct Site {
    redis: Redis,
    clippers: Vec<Clipper>,
    replicas: Vec<Container>,
    dir: tempfile::TempDir,
}

fn fill(redis: &Redis) {
    write_dump(redis);
    redis.db(5).tell(&format!("HSET digits latency_slo_micros {}", limits().slo.as_micros()));
}

fn site(frontends: usize, env: &[(&str, &str)]) -> Site {
    let redis = Redis::start();
    fill(&redis);
    let dir = tempfile::tempdir().unwrap();
    let start = |n| Clipper::start(&redis.url(), &dir.path().join(format!("{n}")), env);
    let clippers: Vec<Clipper> = (0..frontends).map(start).collect();
    let replicas = clippers.iter().map(|c| c.container("net", "1", "7")).collect();
    for clipper in &clippers {
        until_true("a prediction", || clipper.predict("digits").1["output"] == 7);
    }
    Site { redis, clippers, replicas, dir }
}

/// Time from Redis' return until all frontends are connected and tell `condition`.
fn caught_up(clippers: &[Clipper], condition: impl Fn(&Clipper) -> bool) -> Duration {
    let start = now();
    until_true("caught up", || clippers.iter().all(|c| c.connected() && condition(c)));
    let took = start.elapsed();
    assert!(took <= limits().catch_up, "equal to the tables only after {took:?}");
    took
}

/// Runs the rounds; each tells how long it took until the frontends equalled the tables.
fn rounds(what: &str, frontends: usize, round: impl FnMut(usize) -> Duration) {
    let mut times: Vec<Duration> = (0..size("CLIPPER_TEST_ROUNDS", 1)).map(round).collect();
    times.sort();
    let (count, median, max) = (times.len(), times[times.len() / 2], times.last().unwrap());
    println!("{frontends} frontends, {what}, {count} rounds: equal after {median:?}, max {max:?}");
}

fn killed_and_kept(frontends: usize) {
    let mut site = site(frontends, &[]);
    let clippers = std::mem::take(&mut site.clippers);
    let redis = &mut site.redis;
    let loaded: Vec<&Clipper> = clippers.iter().collect();
    let (tables, shown) = (redis.catalog(), redis.shown());
    Load::during(&loaded, |_| {
        rounds("kept", frontends, |_| {
            redis.kill();
            until_true("noticed", || clippers.iter().all(|c| !c.connected()));
            let (status, text) = clippers[0].admin("delete_app", &json!({"name": "digits"}));
            assert_eq!(status, 503, "{text}");
            assert!(text.contains("nothing was written: Redis is away"), "{text}");
            pause(STEADY);
            redis.run();
            let took = caught_up(&clippers, |c| c.catalog() == shown);
            assert_eq!(redis.catalog(), tables);
            pause(STEADY);
            took
        });
    });
}

#[test]
fn killed_and_back_with_its_data() {
    killed_and_kept(1);
}

#[test]
fn killed_and_back_with_its_data_two_frontends() {
    killed_and_kept(2);
}

fn killed_and_changed(frontends: usize) {
    let mut site = site(frontends, &[]);
    let clippers = std::mem::take(&mut site.clippers);
    let redis = &mut site.redis;
    let loaded: Vec<&Clipper> = clippers.iter().collect();
    Load::during(&loaded, |_| {
        rounds("changed meanwhile", frontends, |n| {
            redis.kill();
            until_true("noticed", || clippers.iter().all(|c| !c.connected()));
            redis.run_elsewhere(|redis| {
                redis.db(5).tell(&format!("HMSET while-away{n} {APP}"));
                redis.db(7).tell(&format!("SADD while-away{n} net"));
                redis.db(5).tell(&format!("HSET digits default_output {n}"));
                redis.db(2).tell(&format!("HSET net:2 container_name img:{n}"));
                redis.db(2).tell(&format!(
                    "HMSET other:{n} model_name other model_version {n} load 0.000000 input_type \
                     doubles labels a container_name c model_data_path /m batch_size -1 valid ''"
                ));
                redis.db(6).tell(&format!("SET CURRENT_MODEL_VERSION:other {n}"));
                let Some(before) = n.checked_sub(1) else { return };
                redis.db(5).tell(&format!("DEL while-away{before}"));
                redis.db(7).tell(&format!("DEL while-away{before}"));
                redis.db(2).tell(&format!("DEL other:{before}"));
            });
            redis.run();
            let (tables, shown) = (redis.catalog(), redis.shown());
            let took = caught_up(&clippers, |c| c.catalog() == shown);
            assert_eq!(redis.catalog(), tables, "nobody has changed them");
            pause(STEADY);
            took
        });
    });
}

#[test]
fn killed_and_back_with_other_data() {
    killed_and_changed(1);
}

#[test]
fn killed_and_back_with_other_data_two_frontends() {
    killed_and_changed(2);
}

fn lost_and_restored(frontends: usize) {
    let mut site = site(frontends, &[]);
    let clippers = std::mem::take(&mut site.clippers);
    let redis = &mut site.redis;
    let loaded: Vec<&Clipper> = clippers.iter().collect();
    let (before, shown) = (redis.catalog(), redis.shown());
    Load::during(&loaded, |_| {
        rounds("restored", frontends, |_| {
            redis.kill();
            until_true("noticed", || clippers.iter().all(|c| !c.connected()));
            redis.forget();
            pause(STEADY);
            redis.run();
            let back = |c: &Clipper| redis.catalog() == before && c.catalog() == shown;
            let took = caught_up(&clippers, back);
            pause(STEADY);
            took
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

fn lost_and_adopted(frontends: usize) {
    let mut site = site(frontends, &[("CLIPPER_REDIS__ON_DATA_LOSS", "adopt")]);
    let clippers = std::mem::take(&mut site.clippers);
    let redis = &mut site.redis;
    let replicas = &mut site.replicas;
    let loaded: Vec<&Clipper> = clippers.iter().collect();
    Load::during(&loaded, |load| {
        rounds("adopted", frontends, |_| {
            redis.kill();
            until_true("noticed", || clippers.iter().all(|c| !c.connected()));
            redis.forget();
            pause(STEADY);
            load.enter(Phase::Gone);
            redis.run();
            let took = caught_up(&clippers, |c| c.catalog() == [json!([]), json!([])]);
            assert!(clippers.iter().all(|c| c.predict("digits").0 == 404));
            assert_eq!(redis.catalog().concat(), Vec::<String>::new());
            load.enter(Phase::Coming);
            fill(redis);
            *replicas = clippers.iter().map(|c| c.container("net", "1", "7")).collect();
            // Each HTTP worker hears of it for itself, and connections go to them in turn.
            let serves = |c: &Clipper| (0..8).all(|_| c.predict("digits").1["output"] == 7);
            for clipper in &clippers {
                until_true("served again", || serves(clipper));
            }
            load.enter(Phase::Served);
            pause(STEADY);
            took
        });
    });
}

#[test]
fn lost_data_is_adopted_if_the_operator_says_so() {
    lost_and_adopted(1);
}

#[test]
fn lost_data_is_adopted_by_two_frontends() {
    lost_and_adopted(2);
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
    let fresh = site.dir.path().join("stranger");
    let stranger = Clipper::start_unready(&site.redis.url(), &fresh, &[]);
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
    // A busy machine says nothing of the time.
    let in_full_size = std::env::var_os("CLIPPER_TEST_FREEZE_MS").is_some();
    let soon = if in_full_size { Duration::from_secs(2) } else { PATIENCE };
    Load::during(&[&clipper], |_| {
        site.redis.signal(Signal::SIGSTOP);
        let start = now();
        let mut n = 0;
        while start.elapsed() < frozen {
            let asked = now();
            let (status, text) = clipper.admin("delete_app", &json!({"name": "digits"}));
            assert_eq!(status, 503, "{text}");
            assert!(text.contains("nothing was written"), "{text}");
            assert!(asked.elapsed() < soon, "{:?}", asked.elapsed());
            n += 1;
            pause(Duration::from_millis(100));
        }
        println!("{n} commands refused while frozen");
        site.redis.signal(Signal::SIGCONT);
        let start = now();
        until_true("following again", || clipper.connected());
        println!("following again after {:?}", start.elapsed());
    });
    assert!(clipper.serves("digits"), "what was refused has not happened");
    let row = until("the row", || site.redis.dump(5).pop());
    assert!(row.starts_with("digits hash"), "{row}");
}
