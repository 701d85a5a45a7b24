//! Many applications and models.

use std::path::Path;
use std::time::Duration;

use crate::redis::harness::{Clipper, Redis, now, until_true};
use crate::redis::size;

fn fill(redis: &Redis, entries: usize) {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    for n in 0..entries {
        let mut pipe = redis::pipe();
        pipe.cmd("SELECT").arg(5).cmd("HMSET").arg(format!("app{n}"));
        pipe.arg(&["input_type", "doubles", "policy", "DefaultOutputSelectionPolicy"]);
        pipe.arg(&["default_output", "0", "latency_slo_micros", "100000"]);
        pipe.cmd("SELECT").arg(7).cmd("SADD").arg(format!("app{n}")).arg(format!("model{n}"));
        pipe.cmd("SELECT").arg(6).cmd("SET").arg(format!("CURRENT_MODEL_VERSION:model{n}")).arg(1);
        pipe.cmd("SELECT").arg(2).cmd("HMSET").arg(format!("model{n}:1"));
        pipe.arg("model_name").arg(format!("model{n}")).arg(&["model_version", "1"]);
        pipe.arg(&["load", "0.000000", "input_type", "doubles", "labels", ""]);
        pipe.arg(&["container_name", "c", "model_data_path", "/m", "batch_size", "-1"]);
        pipe.arg(&["valid", ""]);
        pipe.query::<()>(&mut connection).unwrap();
    }
}

/// Limits of a release build with 10,000 of each; asserted where that is asked for.
const READY_COLD: Duration = Duration::from_secs(5);
const READY_WARM: Duration = Duration::from_secs(2);

/// Whether a release build is tested in a size that was asked for.
fn full_size() -> bool {
    let asked = |variable| std::env::var_os(variable).is_some();
    let release = asked("CLIPPER_TEST_BINARY") || !cfg!(debug_assertions);
    release && asked("CLIPPER_TEST_ENTRIES")
}

fn started(redis: &Redis, dir: &Path, entries: usize, what: &str, limit: Duration) {
    let start = now();
    let clipper = Clipper::start(&redis.url(), dir, &[]);
    let took = start.elapsed();
    let memory = clipper.resident_mib();
    println!("{entries} applications, {entries} models, {what}: ready in {took:?}, {memory} MiB");
    assert!(took <= limit || !full_size(), "{what}: {took:?}");
    for step in ["journal replayed", "following the tables", "listening"] {
        let log = clipper.log.lock();
        let line = log.iter().find(|line| line.contains(step)).unwrap();
        println!("  {step}: {}", &line[14..41]);
    }
    let [apps, models] = clipper.catalog();
    assert_eq!(apps.as_array().unwrap().len(), entries);
    assert_eq!(models.as_array().unwrap().len(), entries);
    assert!(clipper.serves(&format!("app{}", entries - 1)));
    clipper.stop();
}

/// With `CLIPPER_TEST_ENTRIES=10000` and a release build as `CLIPPER_TEST_BINARY` this is the cold
/// start that `docs/redis.md` states.
#[test]
fn a_cold_start_reads_everything() {
    let redis = Redis::start();
    let entries = size("CLIPPER_TEST_ENTRIES", 500);
    fill(&redis, entries);
    let dir = tempfile::tempdir().unwrap();
    started(&redis, dir.path(), entries, "no journal", READY_COLD);
    started(&redis, dir.path(), entries, "warm journal", READY_WARM);
}

/// As of an outage of few entries, but told by the log: metrics of so many take seconds.
#[test]
fn an_outage_of_large_tables_is_caught_up_with() {
    let mut redis = Redis::start();
    let entries = size("CLIPPER_TEST_ENTRIES", 500);
    fill(&redis, entries);
    let dir = tempfile::tempdir().unwrap();
    let clipper = Clipper::start(&redis.url(), dir.path(), &[]);
    for (times, lost) in [(2, false), (3, true)] {
        let count = |text: &str| clipper.log.lock().iter().filter(|l| l.contains(text)).count();
        redis.kill();
        until_true("noticed", || count("Redis is away") == times - 1);
        if lost {
            redis.forget();
        }
        redis.run();
        let start = now();
        until_true("followed again", || count("following the tables") == times);
        let took = start.elapsed();
        let what = if lost { "restored" } else { "kept" };
        println!("{entries} applications, {entries} models, {what}: equal after {took:?}");
        assert_eq!([5, 2].map(|n| redis.db(n).ask::<usize>("DBSIZE")), [entries; 2]);
        assert_eq!(clipper.catalog().map(|list| list.as_array().unwrap().len()), [entries; 2]);
    }
}
