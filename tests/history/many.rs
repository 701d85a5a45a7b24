//! A long past: what it takes to be kept and asked. Prints figures.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use clipper::priority::{BACKGROUND, give_way};
use clipper::store::EventLog as _;
use clipper::store::event::{Envelope, Origin};
use clipper::store::projection::Catalog;
use clipper::store::sled::SledLog;
use clipper_config::JournalConfig;
use clipper_domain::{AppName, AppSpec, AppUpdate, Command, DEFAULT_POLICY, InputType, LatencySlo};
use serde_json::{Value, json};

use super::stream::Raw;
use crate::support::served::{Http, Served};

/// Applications whose objectives change again and again.
const APPS: u64 = 200;

fn name(at: u64) -> AppName {
    AppName::parse(&format!("a{}", at % APPS)).unwrap()
}

pub fn command(at: u64) -> Command {
    let latency_slo = LatencySlo::from_micros(10_000 + i64::try_from(at).unwrap()).unwrap();
    if at >= APPS {
        let update = AppUpdate { latency_slo: Some(latency_slo), ..AppUpdate::of(name(at)) };
        return Command::UpdateApp(update);
    }
    let spec = json!({"name": name(at), "input_type": InputType::Doubles, "policy": DEFAULT_POLICY,
        "default_output": "-1", "latency_slo": latency_slo});
    Command::AddApp(serde_json::from_value::<AppSpec>(spec).unwrap())
}

/// A journal of so many events, compacted as a server does.
fn write(data_dir: &Path, events: u64, config: &JournalConfig) {
    let (mut log, _) = SledLog::open(data_dir, config).unwrap();
    log.load(u64::MAX).unwrap();
    let mut catalog = Catalog::default();
    for group in 0..events.div_ceil(500) {
        let seqs = group * 500..events.min((group + 1) * 500);
        let changes: Vec<Vec<Envelope>> = seqs
            .map(|at| {
                let events = catalog.decide(&command(at)).unwrap();
                let envelope = |event| Envelope {
                    seq: at + 1,
                    recorded_at_ms: 1_700_000_000_000 + at * 1_000,
                    author: Origin::Admin.into(),
                    event,
                };
                let change: Vec<Envelope> = events.into_iter().map(envelope).collect();
                for envelope in &change {
                    catalog.fold(&envelope.event);
                }
                change
            })
            .collect();
        log.append(&changes).unwrap();
        log.flush().unwrap();
        if group % 2 == 1 {
            log.snapshot(changes.last().unwrap()[0].seq, &catalog).unwrap();
        }
    }
    log.close().unwrap();
}

fn size_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// The times of some questions, in ms: the middle one and the longest.
fn timed(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() - 1])
}

#[test]
fn a_long_past_is_told_soon() {
    let events = crate::support::size("CLIPPER_TEST_HISTORY", 5_000, 100_000) as u64;
    let folder = tempfile::tempdir().unwrap();
    let config = format!("[journal]\nkeep_events = {events}\n");
    let kept = JournalConfig { keep_events: events, ..JournalConfig::default() };
    let begin = Instant::now();
    write(&folder.path().join("data"), events, &kept);
    println!("{events} events written in {:.1} s", begin.elapsed().as_secs_f64());
    let size = size_of(&folder.path().join("data/journal")) as f64 / 1e6;
    let begin = Instant::now();
    let server = Served::start(&config, folder.path());
    let (start, memory) = (begin.elapsed().as_secs_f64(), server.resident_mb());
    println!("journal {size:.1} MB, start {start:.2} s, {memory:.0} MB resident");
    let mut http = Http::new(server.management);
    let mut ask = |path: &str, body: &Value| -> (Value, f64) {
        let begin = Instant::now();
        let (status, text) = http.request("POST", path, &body.to_string()).unwrap();
        let took = begin.elapsed().as_secs_f64() * 1e3;
        assert_eq!(status, 200, "{text}");
        (serde_json::from_str(&text).unwrap(), took)
    };
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    // Spread over the whole past, the worst places between two snapshots among them.
    for round in 0..20_u64 {
        let at = 1 + (events - 1) * round / 20;
        let (state, took) = ask("/admin/journal/state", &json!({"at": at.to_string()}));
        let last = at - 1;
        let app = &state["catalog"]["apps"][name(last).as_str()];
        assert_eq!((&state["seq"], &app["latency_slo"]), (&json!(at), &json!(10_000 + last)));
        times.entry("state").or_default().push(took);
        let to = events - (events - 1) * round / 40;
        let body = json!({"from": at.to_string(), "to": to.to_string()});
        let (diff, took) = ask("/admin/journal/diff", &body);
        assert_eq!(diff["to"], to);
        times.entry("diff").or_default().push(took);
        let app = name(round * 7);
        let (blame, took) = ask("/admin/journal/blame", &json!({"app": app}));
        let fields = blame["fields"].as_array().unwrap();
        let slo = fields.iter().find(|field| field["field"] == "latency_slo_micros").unwrap();
        assert_eq!(
            slo["by"]["recorded_at_ms"],
            1_699_990_000_000_u64 + slo["value"].as_u64().unwrap() * 1_000
        );
        times.entry("blame").or_default().push(took);
        let (log, took) = ask("/admin/journal/log", &json!({"app": app, "limit": 100}));
        assert!(!log["entries"].as_array().unwrap().is_empty());
        times.entry("log").or_default().push(took);
    }
    for (what, times) in &mut times {
        let (middle, longest) = timed(times);
        println!("{what} {middle:.1} ms, longest {longest:.1}");
        // Far above what any machine needs; the figures are the point.
        assert!(longest < 30_000.0, "{what}");
    }
}

/// Looks into the past once.
fn look(what: &str, management: SocketAddr, http: &mut Http) {
    let (path, body) = match what {
        "diff" => ("/admin/journal/diff", json!({"from": "2500", "to": "now"})),
        "blame" => ("/admin/journal/blame", json!({"app": "a7"})),
        "backup" => return Raw::post(management, "/admin/journal/backup").all(),
        _ => return Raw::get(management, "/admin/journal/stream?after=0").some(1 << 20),
    };
    let (status, text) = http.request("POST", path, &body.to_string()).unwrap();
    assert_eq!(status, 200, "{text}");
}

/// Who else has the cores in a window.
const NOBODY: usize = 0;
const LOOKERS: usize = 1;
/// A program that has nothing to do with the server: what that costs is the machine's doing.
const ELSEWHERE: usize = 2;

/// Takes three quarters of a core in windows that are for it.
fn compute(busy: &AtomicUsize, over: &AtomicBool) {
    give_way(BACKGROUND);
    while !over.load(Relaxed) {
        let until = Instant::now() + Duration::from_millis(12);
        while busy.load(Relaxed) == ELSEWHERE && Instant::now() < until {
            std::hint::spin_loop();
        }
        std::thread::sleep(Duration::from_millis(4));
    }
}

/// The ratio of what predictions take beside all that looks into the past, to what they take alone,
/// in one run: windows of both, and of one more beside another program, in turn.
#[test]
fn predictions_beside_those_who_look_into_the_past() {
    let seconds = crate::support::size("CLIPPER_TEST_BESIDE", 1, 20);
    let windows = 6 * seconds.min(5);
    let length = Duration::from_secs(seconds as u64) / u32::try_from(windows).unwrap();
    let events = 5_000;
    let folder = tempfile::tempdir().unwrap();
    let kept = JournalConfig { keep_events: events, ..JournalConfig::default() };
    write(&folder.path().join("data"), events, &kept);
    let server = Served::start("[journal]\nkeep_events = 5000\n", folder.path());
    server.add_linked("served", 20_000_000);
    let _container = server.noop("served");
    server.await_replicas("served", 1);
    let busy = AtomicUsize::new(NOBODY);
    let over = AtomicBool::new(false);
    let mut times = [NOBODY, LOOKERS, ELSEWHERE].map(|_| Vec::new());
    std::thread::scope(|scope| {
        for what in ["diff", "blame", "backup", "stream"] {
            let (busy, over, management) = (&busy, &over, server.management);
            scope.spawn(move || {
                let mut http = Http::new(management);
                while !over.load(Relaxed) {
                    if busy.load(Relaxed) == LOOKERS {
                        look(what, management, &mut http);
                    } else {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        scope.spawn(|| compute(&busy, &over));
        let _stop = crate::support::StopAtEnd(&over);
        let mut http = Http::new(server.query);
        for window in 0..windows {
            let others = window % 3;
            busy.store(others, Relaxed);
            let start = Instant::now();
            // A server that has seen others at work does not stay awake for its caller for some
            // 250 ms; that belongs to those who were at work.
            let (settled, until) = (start + length / 3, start + length);
            let mut n = 0.0;
            while Instant::now() < until {
                n += 1.0;
                let body = json!({"input": [n, f64::from(u32::try_from(window).unwrap())]});
                let begin = Instant::now();
                let answer = http.request("POST", "/served/predict", &body.to_string()).unwrap();
                if begin >= settled {
                    times[others].push(begin.elapsed().as_secs_f64() * 1e3);
                }
                assert_eq!(answer.0, 200, "{}", answer.1);
                assert!(answer.1.contains("\"default\":false"), "{}", answer.1);
            }
        }
    });
    let [alone, beside, elsewhere] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], times[times.len() * 99 / 100])
    });
    println!(
        "alone p50 {:.2} ms p99 {:.2}; beside p50 {:.2} p99 {:.2}; beside another program that \
         takes three quarters of a core p50 {:.2} p99 {:.2}; ratios of p99 {:.2} and {:.2}",
        alone.0,
        alone.1,
        beside.0,
        beside.1,
        elsewhere.0,
        elsewhere.1,
        beside.1 / alone.1,
        elsewhere.1 / alone.1
    );
}
