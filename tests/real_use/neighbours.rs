//! Faults of every kind while queries with tagged inputs are answered, beside neighbours that
//! misbehave: nothing crossed, nothing late, no default without a reason, every replica back.
//!
//! `CLIPPER_CHAOS_FAULTS=300 CLIPPER_CHAOS_REQUESTS=400000 cargo test --release --test all
//! neighbours -- --nocapture` is the full size; only that one asserts times, which a busy machine
//! stretches.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::e2e::support::{descendants_of, is_running, python};
use crate::support::served::{Http, Served, until};
use crate::support::signals::signal;
use crate::support::{StopAtEnd, size};

/// The latency objective, and what an answer may take beyond it.
const SLO: Duration = Duration::from_millis(250);
const LATE: Duration = Duration::from_millis(260);
const REPLICAS: u32 = 4;
const CLIENTS: usize = 16;
/// So many serve when the next fault comes: who answers nobody has no fault to survive.
const SERVE_BEFORE_A_FAULT: f64 = (REPLICAS / 2) as f64;
/// Requests a second of all clients: what two cores answer beside the replicas they restart, and
/// in a quick run few enough that replicas come back between the faults.
const RATES: [f64; 2] = [3_400.0, 600.0];

/// Answers `2 x + 1`; before that it does once what a file with its process's number says, and what
/// some inputs ask for.
const MODEL: &str = r#"
import os, threading, time

ORDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "order-%d" % os.getpid())

def predict(inputs):
    if os.path.exists(ORDER):
        with open(ORDER) as file:
            order = file.read()
        os.remove(ORDER)
        if order == "hang":
            threading.Event().wait()
        time.sleep(int(order) / 1000)
    for x in inputs:
        if x[0] == -7:
            os._exit(7)
        if x[0] == -8:
            threading.Event().wait()
        if x[0] == -9:
            os.write(2, b"\x1b[2J" + b"x" * 20000 + b"\xff\r" * 500)
    return [float(2 * x[0] + 1) for x in inputs]
"#;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    /// Any process below the server, also those that only watch over a replica.
    KillAny,
    /// Stopped for a while, shorter and longer than the objective.
    Freeze,
    /// Stopped for good; the server has to end it.
    Wedge,
    Hang,
    Slow,
    Replace,
    /// A client's input, the number of which says what for; nobody waits for its answer.
    Input(i32),
}

const ENDS_THE_PROCESS: i32 = -7;
const NEVER_ENDS: i32 = -8;
const WRITES_WHAT_IS_NO_TEXT: i32 = -9;

const FAULTS: [Fault; 10] = [
    Fault::Kill,
    Fault::Freeze,
    Fault::Input(ENDS_THE_PROCESS),
    Fault::Slow,
    Fault::Hang,
    Fault::Input(WRITES_WHAT_IS_NO_TEXT),
    Fault::Replace,
    Fault::Wedge,
    Fault::KillAny,
    Fault::Input(NEVER_ENDS),
];

#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    /// By their explanation.
    defaults: Mutex<BTreeMap<String, u64>>,
    crossed: AtomicU64,
    refused: AtomicU64,
    late: AtomicU64,
    slowest_us: AtomicU64,
    faults: AtomicU64,
    stop: AtomicBool,
    /// When the probe was held up, and for how long.
    held_up: Mutex<Vec<(Instant, Duration)>>,
}

impl Seen {
    /// How long the machine was not there for the probe since `then`, in all.
    fn held_up(&self, then: Instant) -> Duration {
        self.held_up.lock().unwrap().iter().filter(|(at, _)| *at >= then).map(|(_, by)| *by).sum()
    }

    /// Prints what came of it, since `started`.
    fn tell(&self, started: Instant, peak_mb: f64) {
        let defaults = self.defaults.lock().unwrap();
        println!(
            "{} faults, {} requests in {:.0?}: {} crossed, {} late (slowest {} us), {} defaults, \
             {} without an answer of status 200; peak {peak_mb:.0} MB",
            self.faults.load(SeqCst),
            self.answered.load(SeqCst),
            started.elapsed(),
            self.crossed.load(SeqCst),
            self.late.load(SeqCst),
            self.slowest_us.load(SeqCst),
            defaults.values().sum::<u64>(),
            self.refused.load(SeqCst),
        );
        for (why, count) in defaults.iter() {
            println!("{count} defaults: {why:?}");
        }
        println!(
            "the machine held up a thread of the highest priority for {:.1?}",
            self.held_up(started)
        );
    }
}

/// The highest priority that there is, for who takes times on the cores of what it measures: an
/// answer that has come must not wait until processes that start let its reader run.
fn come_first() {
    let _ = rustix::process::setpriority_process(None, -20);
}

/// Sleeps a millisecond at a time, and notes when that takes longer: what an answer was late by
/// then is not the server's.
fn probe(seen: &Seen) {
    come_first();
    while !seen.stop.load(SeqCst) {
        let before = Instant::now();
        std::thread::sleep(Duration::from_millis(1));
        let by = before.elapsed().saturating_sub(Duration::from_millis(1));
        if by > Duration::from_millis(1) {
            seen.held_up.lock().unwrap().push((Instant::now(), by));
        }
    }
}

/// The server, and what ends the reading of its log.
fn start(folder: &Path) -> (Served, Arc<AtomicBool>) {
    std::fs::write(folder.join("chaos.py"), MODEL).unwrap();
    let config = format!(
        "[http]\nquery_workers = 2\n\n[containers]\nrestart_backoff_max_ms = 1000\n\
         connect_timeout_ms = 30000\n\n\
         [rpc]\nsilence_timeout_ms = 3000\n\n\
         [[application]]\nname = \"chaos\"\ninput_type = \"doubles\"\ndefault_output = \"-1\"\n\
         latency_slo_micros = {}\nmodel = \"chaos\"\n\n\
         [[application]]\nname = \"large\"\ninput_type = \"doubles\"\ndefault_output = \"-1\"\n\
         latency_slo_micros = 1000000\n\n\
         [[model]]\nname = \"chaos\"\nversion = \"1\"\ninput_type = \"doubles\"\n\n\
         [model.container]\nruntime = \"python\"\nfunction = \"chaos.py:predict\"\n\
         python = \"{}\"\nreplicas = {REPLICAS}\n",
        SLO.as_micros(),
        python().display(),
    );
    let (log, stderr) = std::io::pipe().unwrap();
    let deaf = Arc::new(AtomicBool::new(false));
    let stop_reading = Arc::clone(&deaf);
    std::thread::spawn(move || {
        let (mut log, mut line) = (BufReader::new(log), Vec::new());
        while !stop_reading.load(SeqCst) && log.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            line.clear();
        }
    });
    (Served::start_unheard(OwnedFd::from(stderr).into(), &config, folder), deaf)
}

/// The processes that hold the model.
fn replicas(server: &Served) -> Vec<u32> {
    let is_model = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains("chaos.py"))
    };
    descendants_of(server.pid()).into_iter().filter(is_model).collect()
}

/// Sends so many requests, and more until `faults` have come.
fn client(
    query: SocketAddr,
    number: usize,
    (requests, faults): (usize, u64),
    rate: f64,
    seen: &Seen,
) {
    come_first();
    let mut http = Http::new(query);
    let pause = Duration::from_secs_f64(CLIENTS as f64 / rate);
    let mut next = Instant::now();
    let goes_on = |n: &usize| {
        let has_failed = seen.stop.load(SeqCst);
        !has_failed && (*n < requests || seen.faults.load(SeqCst) < faults)
    };
    for n in (0..).take_while(goes_on) {
        if let Some(early) = next.checked_duration_since(Instant::now()) {
            std::thread::sleep(early);
        }
        // What was missed while answers took their time is not caught up with: a flood of queries
        // that nobody can answer would keep replicas from starting.
        next = Instant::now().max(next) + pause;
        let tag = (number * 100_000_000 + n) as f64;
        let started = Instant::now();
        let answer = http.request("POST", "/chaos/predict", &format!("{{\"input\":[{tag:.1}]}}"));
        let took = started.elapsed();
        seen.answered.fetch_add(1, SeqCst);
        let Ok((200, body)) = answer else {
            seen.refused.fetch_add(1, SeqCst);
            continue;
        };
        seen.slowest_us.fetch_max(u64::try_from(took.as_micros()).unwrap(), SeqCst);
        if took > LATE {
            seen.late.fetch_add(1, SeqCst);
            println!(
                "late: {took:.1?}, after fault {}; meanwhile the machine held up the probe for \
                 {:.1?}",
                seen.faults.load(SeqCst),
                seen.held_up(started),
            );
        }
        let body: Value = serde_json::from_str(&body).unwrap();
        if body["default"] == true {
            let why = body["default_explanation"].as_str().unwrap_or_default();
            *seen.defaults.lock().unwrap().entry(why.to_owned()).or_default() += 1;
        } else if body["output"].as_f64() != Some(2.0 * tag + 1.0) {
            seen.crossed.fetch_add(1, SeqCst);
        }
    }
}

/// Sends bodies of 15 MB, one after the other.
fn send_large_bodies(query: SocketAddr, seen: &Seen) {
    let body = format!("{{\"input\":[{}1.5]}}", "0.123456789,".repeat(1_300_000));
    let mut http = Http::new(query);
    while !seen.stop.load(SeqCst) {
        let _ = http.request("POST", "/large/predict", &body);
    }
}

/// Knocks at the containers' port with garbage, half frames and floods.
fn be_a_stranger(rpc: SocketAddr, seen: &Seen) {
    let mut greeting = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0];
    greeting.extend_from_slice(b"NULL");
    greeting.resize(64, 0);
    let ready: &[u8] = b"\x04\x1b\x05READY\x0bSocket-Type\0\0\0\x06DEALER";
    let mut round = 0_usize;
    while !seen.stop.load(SeqCst) {
        round += 1;
        let Ok(mut stream) = TcpStream::connect(rpc) else { continue };
        let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
        let _ =
            match round % 3 {
                0 => stream.write_all(&vec![0x5a; 100_000]),
                1 => stream.write_all(&greeting),
                _ => stream.write_all(&greeting).and_then(|()| stream.write_all(ready)).and_then(
                    |()| (0..2_000).try_for_each(|_| stream.write_all(b"\x01\0\0\x04\x02\0\0\0")),
                ),
            };
    }
}

/// Asks for something without waiting for what comes of it.
fn poke(query: SocketAddr, input: i32, nth: usize) {
    // Another one each time: of one that is known to kill, nothing is asked again.
    let body = format!("{{\"input\":[{input}.0,{nth}.0]}}");
    let head = format!(
        "POST /chaos/predict HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let Ok(mut stream) = TcpStream::connect(query) else { return };
    let _ = stream.write_all(head.as_bytes());
    // Open for a while: a query whose client has gone is given up.
    std::thread::spawn(move || {
        std::thread::sleep(SLO);
        drop(stream);
    });
}

/// Does `fault` to one of the replicas.
fn inflict(server: &Served, folder: &Path, fault: Fault, nth: usize) {
    let replicas = match fault {
        Fault::KillAny => descendants_of(server.pid()),
        _ => replicas(server),
    };
    let Some(pid) = replicas.get(nth % replicas.len().max(1)).copied() else { return };
    let order = |text: &str| std::fs::write(folder.join(format!("order-{pid}")), text).unwrap();
    // One that has just died by itself takes no signal.
    let send = |what| {
        if is_running(pid) {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()),
                what,
            );
        }
    };
    match fault {
        Fault::Kill | Fault::KillAny => send(Signal::SIGKILL),
        Fault::Input(input) => poke(server.query, input, nth),
        Fault::Freeze => {
            send(Signal::SIGSTOP);
            let pause = if nth.is_multiple_of(2) { 40 } else { 400 };
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(pause));
                if is_running(pid) {
                    signal(pid, Signal::SIGCONT);
                }
            });
        }
        Fault::Wedge => send(Signal::SIGSTOP),
        Fault::Hang => order("hang"),
        Fault::Slow => order("150"),
        Fault::Replace => {
            let address = format!("http://{}", server.management);
            let done = Command::new(crate::binary())
                .args(["admin", "replicas", "restart", "chaos", "--url", &address])
                .output()
                .unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
    }
}

#[test]
fn faults_of_every_kind_cross_nothing_and_lose_nothing() {
    let faults = size("CLIPPER_CHAOS_FAULTS", 2 * FAULTS.len(), 300);
    let requests = size("CLIPPER_CHAOS_REQUESTS", 8_000, 400_000);
    let full = faults >= 300;
    let rate = if full { RATES[0] } else { RATES[1] };
    let folder = tempfile::tempdir().unwrap();
    let (server, deaf) = start(folder.path());
    server.await_replicas("chaos", REPLICAS);
    let seen = Seen::default();
    let started = Instant::now();
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&seen.stop);
        scope.spawn(|| probe(&seen));
        scope.spawn(|| send_large_bodies(server.query, &seen));
        scope.spawn(|| be_a_stranger(server.rpc, &seen));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                scope.spawn({
                    let seen = &seen;
                    let query = server.query;
                    let least = (requests / CLIENTS, faults as u64);
                    move || client(query, n, least, rate, seen)
                })
            })
            .collect();
        for nth in 0..faults {
            let due = seen.answered.load(SeqCst) + (requests / (faults + 1)) as u64;
            until("the load runs", || (seen.answered.load(SeqCst) >= due).then_some(()));
            until("half of the replicas serve", || {
                (server.replicas("chaos") >= SERVE_BEFORE_A_FAULT).then_some(())
            });
            inflict(&server, folder.path(), FAULTS[nth % FAULTS.len()], nth);
            seen.faults.fetch_add(1, SeqCst);
            if nth == faults / 2 {
                deaf.store(true, SeqCst);
            }
        }
        for client in clients {
            client.join().unwrap();
        }
    });
    let ended = Instant::now();
    server.await_replicas("chaos", REPLICAS);
    println!("all replicas were back after {:.1?}", ended.elapsed());
    seen.tell(started, server.peak_mb());
    assert_eq!(seen.crossed.load(SeqCst), 0, "answers of other queries");
    assert_eq!(seen.defaults.lock().unwrap().get(""), None, "defaults without a reason");
    assert_eq!(seen.refused.load(SeqCst), 0, "requests without an answer");
    assert!(server.peak_mb() < 256.0, "{} MB", server.peak_mb());
    if full {
        assert_eq!(seen.late.load(SeqCst), 0, "answers after the objective");
    }
}
