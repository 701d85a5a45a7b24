//! Many faults of processes under load, with every answer compared.
//!
//! `CLIPPER_CHAOS_FAULTS=300 cargo test --release --test all real_use::chaos -- --ignored
//! --nocapture` prints figures.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clipper_container::processes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::processes::{await_answer, python_config};
use crate::support::served::{Http, Served};

const REPLICAS: u32 = 3;
const CLIENTS: u32 = 4;
const SLO: Duration = Duration::from_secs(1);
/// Between two faults.
const PAUSE: Duration = Duration::from_millis(250);
/// A stop shorter than the silence that the configuration allows.
const FREEZE: Duration = Duration::from_millis(600);

const MODEL: &str = r#"
import os, time

def predict(inputs):
    return [one_of(one) for one in inputs]

def one_of(one):
    if one.startswith("hang"):
        while True:
            pass
    if one.startswith("exit"):
        os._exit(7)
    if one.startswith("slow"):
        time.sleep(0.4)
    if one.startswith("loud"):
        os.write(2, b"\x1b[2J" + b"x" * 20000 + b"\xff\r" * 500)
    return "of " + one
"#;

/// What the clients have seen.
#[derive(Default)]
struct Seen {
    predictions: AtomicU64,
    defaults: AtomicU64,
    worst_us: AtomicU64,
}

/// Asks tagged questions until told to stop; whatever comes has to be for the question.
fn client(query: SocketAddr, number: u32, stop: &AtomicBool, seen: &Seen) {
    let mut http = Http::new(query);
    let mut n = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let tag = format!("query {n} of {number}");
        let body = json!({ "input": tag }).to_string();
        let asked = Instant::now();
        let (status, text) = http.request("POST", "/m/predict", &body).expect("an answer");
        let took = u64::try_from(asked.elapsed().as_micros()).unwrap();
        seen.worst_us.fetch_max(took, Ordering::Relaxed);
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        if answer["default"] == json!(true) {
            let why = answer["default_explanation"].as_str().unwrap_or_default();
            assert!(!why.is_empty(), "a default without a reason: {text}");
            seen.defaults.fetch_add(1, Ordering::Relaxed);
        } else {
            assert_eq!(answer["output"], json!(format!("of {tag}")), "crossed: {text}");
            seen.predictions.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Asks for something without waiting for what comes of it.
fn poke(query: SocketAddr, input: &str) {
    let body = json!({ "input": input }).to_string();
    let head = format!(
        "POST /m/predict HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    if let Ok(mut stream) = TcpStream::connect(query) {
        let _ = stream.write_all(head.as_bytes());
        // Open until the server has taken it.
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal_to(pid: Pid, signal: Signal) {
    // It may have ended by an earlier fault.
    let _ = kill(pid, signal);
}

/// The fault with this number.
fn fault(server: &Served, number: usize) {
    let own = Pid::from_raw(i32::try_from(server.pid()).unwrap());
    let below = processes::descendants(own);
    let picked = below.get(number * 7 % below.len().max(1)).map(|process| process.pid);
    match (number % 8, picked) {
        (0 | 1, Some(pid)) => signal_to(pid, Signal::SIGKILL),
        (2, Some(pid)) => {
            signal_to(pid, Signal::SIGSTOP);
            std::thread::sleep(FREEZE);
            signal_to(pid, Signal::SIGCONT);
        }
        (3, _) => poke(server.query, &format!("hang {number}")),
        (4, _) => poke(server.query, &format!("exit {number}")),
        (5, _) => poke(server.query, &format!("loud {number}")),
        (6, _) => server.admin("/admin/restart_replicas", &json!({ "model_name": "m" })),
        _ => {
            poke(server.query, &format!("slow {number}"));
            poke(server.query, &"x".repeat(4 << 20));
            if let Ok(mut stranger) = TcpStream::connect(server.rpc) {
                let _ = stranger.write_all(&[b'?'; 4096]);
            }
        }
    }
}

#[test]
#[ignore = "minutes of faults; docs/robustness.md has the command"]
fn faults_of_processes_under_load() {
    let faults: usize =
        std::env::var("CLIPPER_CHAOS_FAULTS").map_or(40, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let settings = "[rpc]\nsilence_timeout_ms = 2000\n\
                    [containers]\nrestart_backoff_initial_ms = 50\nstop_grace_ms = 500";
    let config = python_config(folder.path(), settings, REPLICAS, MODEL)
        .replace("latency_slo_micros = 20000000", "latency_slo_micros = 1000000");
    let (log_reader, log) = std::io::pipe().unwrap();
    let server = Served::start_unheard(OwnedFd::from(log).into(), &config, folder.path());
    server.await_replicas("m", REPLICAS);
    let (stop, seen) = (AtomicBool::new(false), Seen::default());
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (stop, seen, query) = (&stop, &seen, server.query);
            scope.spawn(move || client(query, number, stop, seen));
        }
        let mut log_reader = Some(log_reader);
        for number in 0..faults {
            if number == faults / 2 {
                // Nobody has read the log until now, and nobody can from now on.
                drop(log_reader.take());
            }
            fault(&server, number);
            std::thread::sleep(PAUSE);
        }
        stop.store(true, Ordering::Relaxed);
    });
    await_answer(&server);
    server.await_replicas("m", REPLICAS);
    let worst = Duration::from_micros(seen.worst_us.load(Ordering::Relaxed));
    let peak = server.peak_mb();
    println!(
        "{faults} faults: {} predictions, {} defaults with a reason, none crossed; worst answer \
         {worst:?} with an objective of {SLO:?}; memory peak {peak:.0} MB; {} starts; {} lines \
         lost",
        seen.predictions.load(Ordering::Relaxed),
        seen.defaults.load(Ordering::Relaxed),
        server.metric("clipper_container_starts_total{model=\"m\",version=\"1\"}"),
        server.metric("clipper_log_lines_lost_total"),
    );
    assert!(peak < 256.0, "{peak} MB");
    // Generous: other work on the machine delays the clients too.
    assert!(worst < SLO + Duration::from_secs(1), "{worst:?}");
}
