//! Bodies and answers that are large: nobody else is late, and memory is bounded.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::http::{GENEROUS_SLO_US, connect, head_of, numbers, post, start};
use crate::support::served::{Http, Process, Served, until};
use crate::support::{is_full, size};

#[test]
fn line_09a_large_bodies_of_others_delay_nobody() {
    let (server, _folder) = start("");
    server.add_linked("quick", 50_000);
    server.add_linked("large", GENEROUS_SLO_US);
    let _container = server.noop("quick");
    server.await_replicas("quick", 1);
    let stop = Arc::new(AtomicBool::new(false));
    let body = numbers(8_000_000);
    let (query, stopped) = (server.query, Arc::clone(&stop));
    let client = std::thread::spawn(move || {
        let (mut http, mut sent) = (Http::new(query), 0);
        while !stopped.load(Ordering::Relaxed) {
            let (status, text) = http.request("POST", "/large/predict", &body).unwrap();
            assert_eq!(status, 200, "{text}");
            sent += 1;
        }
        sent
    });
    let mut http = Http::new(server.query);
    let mut took = Vec::new();
    for n in 0..300 {
        let start = Instant::now();
        let body = format!("{{\"input\":[{n}]}}");
        let (status, text) = http.request("POST", "/quick/predict", &body).unwrap();
        took.push(start.elapsed());
        assert_eq!(status, 200, "{text}");
    }
    stop.store(true, Ordering::Relaxed);
    let sent = client.join().unwrap();
    took.sort();
    println!("beside {sent} bodies of 8 MB: median {:?}, longest {:?}", took[150], took[299]);
    assert!(sent > 0);
    // Not on the workers: each body takes far longer than a tick of a worker's watchdog otherwise.
    assert!(server.metric("clipper_thread_stalls_total{thread=\"http\"}") < 1.0);
    let (status, text) = post(server.query, "/large/predict", &format!("{}x", numbers(2_000_000)));
    assert!(status == 400 && text.contains("JSON parse error"), "{text}");
}

#[test]
fn line_09a_a_body_that_is_not_parsed_within_its_objective_is_refused_then() {
    let (server, _folder) = start("");
    // No machine parses 15 MB in 2 ms.
    server.add_linked("hasty", 2_000);
    server.add_linked("m", GENEROUS_SLO_US);
    let _container = server.noop("m");
    server.await_replicas("m", 1);
    let body = numbers(15_000_000);
    let (status, text) = post(server.query, "/hasty/predict", &body);
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("not parsed within the latency objective"), "{text}");
    let rejected = "clipper_requests_rejected_total{app=\"hasty\"}";
    until("it is counted", || (server.metric(rejected) >= 1.0).then_some(()));
    let body = body.replace("{\"input\":", "");
    let tensor = format!(
        "{{\"inputs\":[{{\"name\":\"x\",\"shape\":[1,{}],\"datatype\":\"FP64\",\"data\":{}}}]}}",
        body.matches(',').count() + 1,
        body.trim_end_matches('}'),
    );
    let (status, text) = post(server.query, "/v2/models/hasty/infer", &tensor);
    assert_eq!(status, 503, "{text}");
    let (status, text) = post(server.query, "/m/predict", "{\"input\":[1.0]}");
    assert!(status == 200 && text.contains("\"default\":false"), "{text}");
}

#[test]
fn line_09b_a_long_answer_is_streamed_within_a_limit() {
    let (server, _folder) = start("[http]\nanswer_max_bytes = 30000000\nquery_workers = 1\n");
    server.add_linked("m", GENEROUS_SLO_US);
    let _container = long_outputs(&server, 64 << 10);
    let batch = |n: usize| format!("{{\"input_batch\":[{}]}}", vec!["[1.5]"; n].join(","));
    let (status, text) = post(server.query, "/m/predict", &batch(1_000));
    assert_eq!(status, 413, "{text}");
    assert!(text.contains("http.answer_max_bytes"), "{text}");
    let before = server.resident_mb();
    let body = batch(400);
    let mut client = connect(server.query);
    client.write_all(format!("{}{body}", head_of("/m/predict", body.len())).as_bytes()).unwrap();
    until("it is being sent", || (server.metric("clipper_http_answer_bytes") > 26e6).then_some(()));
    let held = server.resident_mb() - before;
    assert!(held < 12.0, "{held} MB for an answer of 26 MB");
    let mut taken = 0;
    let mut some = vec![0; 64 << 10];
    while taken < 400 * (64 << 10) {
        let n = client.read(&mut some).unwrap();
        assert!(n > 0);
        taken += n;
    }
    until("it has been sent", || (server.metric("clipper_http_answer_bytes") < 1.0).then_some(()));
}

/// The objective of those who must not be late, and what an answer may take beyond it.
const SLO: Duration = Duration::from_millis(50);
const LATE: Duration = Duration::from_millis(60);

/// How many there are, the middle and the longest of them, and how many are late.
fn figures(took: Mutex<Vec<Duration>>) -> (usize, Duration, Duration, usize) {
    let mut took = took.into_inner().unwrap();
    took.sort();
    let late = took.iter().filter(|time| **time > LATE).count();
    (took.len(), took[took.len() / 2], *took.last().unwrap(), late)
}

/// Asks this application with so many numbers, with pauses of so many milliseconds; once at least,
/// however little time the machine has.
fn ask_until(
    end: Instant,
    query: SocketAddr,
    (app, numbers, pause_ms): (&str, usize, u64),
    took: &Mutex<Vec<Duration>>,
) {
    let (mut http, rest) = (Http::new(query), ",0.25".repeat(numbers - 1));
    for n in 1.. {
        let body = format!("{{\"input\":[{n}{rest}]}}");
        let start = Instant::now();
        let (status, text) = http.request("POST", &format!("/{app}/predict"), &body).unwrap();
        took.lock().unwrap().push(start.elapsed());
        assert!(status == 200 || status == 503, "{status} {text}");
        if Instant::now() >= end {
            return;
        }
        std::thread::sleep(Duration::from_millis(pause_ms));
    }
}

/// Clients of large bodies, each with its own, beside three applications of others: one of single
/// inputs, one of bodies that are parsed aside too, one that gives feedback and asks for lists.
/// Only the full size asserts times, which other work on a machine stretches.
#[test]
fn line_09a_four_clients_of_large_bodies_delay_nobody() {
    let time = Duration::from_millis(size("CLIPPER_TEST_LARGE_BODIES_MS", 2_000, 60_000) as u64);
    let (server, _folder) = start("[http]\nquery_workers = 2\n");
    for name in ["quick", "medium"] {
        server.add_linked(name, u32::try_from(SLO.as_micros()).unwrap());
    }
    server.add_linked("large", GENEROUS_SLO_US);
    let _replicas = ["quick", "medium", "large"].map(|name| server.noop(name));
    for name in ["quick", "medium", "large"] {
        server.await_replicas(name, 1);
    }
    let bodies: Vec<String> = (0..4)
        .map(|client| numbers(16_000_000).replace(":[0.1", &format!(":[{client}.1")))
        .collect();
    let before = server.resident_mb();
    let end = Instant::now() + time;
    let (sent, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let took = Mutex::new(Vec::new());
    let medium_took = Mutex::new(Vec::new());
    let query = server.query;
    std::thread::scope(|scope| {
        for body in &bodies {
            let (sent, refused) = (&sent, &refused);
            scope.spawn(move || {
                let mut http = Http::new(query);
                loop {
                    match http.request("POST", "/large/predict", body).unwrap() {
                        (200, _) => sent.fetch_add(1, Ordering::Relaxed),
                        (503, _) => refused.fetch_add(1, Ordering::Relaxed),
                        (status, text) => panic!("{status} {text}"),
                    };
                    if Instant::now() >= end {
                        return;
                    }
                }
            });
        }
        scope.spawn(|| ask_until(end, query, ("quick", 1, 1), &took));
        // Parsed aside, too: it must not wait behind the large ones. A debug build takes longer.
        let elements = if cfg!(debug_assertions) { 8_000 } else { 40_000 };
        let medium_took = &medium_took;
        scope.spawn(move || ask_until(end, query, ("medium", elements, 50), medium_took));
    });
    let peak = server.peak_mb();
    let (all, median, longest, late) = figures(took);
    let (medium, medium_median, medium_longest, medium_late) = figures(medium_took);
    let stalls = server.metric("clipper_thread_stalls_total{thread=\"http\"}");
    println!(
        "beside {} bodies of 16 MB from 4 clients ({} refused): {late} of {all} later than SLO + \
         10 ms, median {median:?}, longest {longest:?}; of bodies of {} KB {medium_late} of \
         {medium}, median {medium_median:?}, longest {medium_longest:?}; memory {before:.0} MB \
         before, at most {peak:.0} MB; {stalls} stalls",
        sent.load(Ordering::Relaxed),
        refused.load(Ordering::Relaxed),
        if cfg!(debug_assertions) { 40 } else { 200 },
    );
    assert!(sent.load(Ordering::Relaxed) > 0);
    // Of 256 MB a release has 16 before; a debug build has more of its own.
    assert!(peak - before < 240.0, "{before} MB before, {peak} MB");
    if is_full() {
        assert!(stalls < 1.0, "{stalls} stalls");
        assert_eq!((late, medium_late), (0, 0), "answers later than SLO + 10 ms");
    }
}

#[test]
fn line_09a_a_body_of_short_numbers_takes_the_room_of_its_inputs() {
    let (server, _folder) = start("[http]\nbodies_max_bytes = 20000000\n");
    server.add_linked("m", GENEROUS_SLO_US);
    let body = |numbers: usize| format!("{{\"input\":[1{}]}}", ",1".repeat(numbers - 1));
    // 4 MB of text, 16 MB of doubles.
    let (status, text) = post(server.query, "/m/predict", &body(2_000_000));
    assert_eq!(status, 200, "{text}");
    // 6 MB of text, 24 MB of doubles.
    let (status, text) = post(server.query, "/m/predict", &body(3_000_000));
    assert!(status == 503 && text.contains("http.bodies_max_bytes"), "{status} {text}");
    until("all is given back", || (server.metric("clipper_http_body_bytes") < 1.0).then_some(()));
}

#[test]
fn line_09a_large_bodies_of_operators_delay_nobody() {
    let (server, _folder) = start("");
    server.add_linked("m", GENEROUS_SLO_US);
    let names = vec!["\"m\""; 3_000_000].join(",");
    let links = format!("{{\"app_name\":\"nobody\",\"model_names\":[{names}]}}");
    let nonsense = format!("{{\"app_name\":[{names}]");
    let stop = AtomicBool::new(false);
    let took = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut http = Http::new(server.management);
            while !stop.load(Ordering::Relaxed) {
                for body in [&links, &nonsense] {
                    let (status, text) =
                        http.request("POST", "/admin/add_model_links", body).unwrap();
                    assert_eq!(status, 400, "{text}");
                }
                let (status, _) = http.request("POST", "/admin/deploy_model", &links).unwrap();
                assert_eq!(status, 400);
            }
        });
        let mut http = Http::new(server.management);
        let mut took: Vec<Duration> = (0..100)
            .map(|_| {
                let start = Instant::now();
                let (status, text) =
                    http.request("POST", "/admin/get_application", "{\"name\":\"m\"}").unwrap();
                assert_eq!(status, 200, "{text}");
                start.elapsed()
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        took.sort();
        took
    });
    println!("beside management bodies of 12 MB: median {:?}, longest {:?}", took[50], took[99]);
    let log = server.log();
    let told = log.iter().filter(|line| line.contains("management request failed")).count();
    assert!(told < 100, "{told} lines");
}

/// A container whose outputs have so many bytes.
fn long_outputs(server: &Served, bytes: usize) -> Process {
    let output = format!("\"{}\"", "x".repeat(bytes));
    let container = std::process::Command::new(crate::binary())
        .args(["container", "noop", "--name", "m", "--version", "1", "--output", &output])
        .args(["--connect", &format!("tcp://{}", server.rpc)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let container = Process(container.unwrap());
    server.await_replicas("m", 1);
    container
}

/// Inputs that all differ.
fn different(inputs: usize) -> String {
    let list: Vec<String> = (0..inputs).map(|n| format!("[{n}.5]")).collect();
    format!("{{\"input_batch\":[{}]}}", list.join(","))
}

#[test]
fn line_09b_different_outputs_are_bounded_before_they_are_an_answer() {
    let config = "[http]\nanswer_max_bytes = 8000000\nanswers_max_bytes = 12000000\n\
                  [serving]\ncache_max_bytes = 0\n";
    let (server, _folder) = start(config);
    server.add_linked("m", GENEROUS_SLO_US);
    let _container = long_outputs(&server, 64 << 10);
    post(server.query, "/m/predict", &different(10));
    let before = server.peak_mb();
    // 65 MB of outputs.
    let (status, text) = post(server.query, "/m/predict", &different(1_000));
    assert!(status == 413 && text.contains("http.answer_max_bytes = 8000000"), "{text}");
    let held = server.peak_mb() - before;
    println!("{held:.0} MB for a request whose outputs are 65 MB, at a limit of 8 MB");
    assert!(held < 35.0, "{held} MB");
    until("all is given back", || (server.metric("clipper_http_answer_bytes") < 1.0).then_some(()));
    // One that is not over its own limit, and whose client does not read.
    let body = different(110);
    let mut client = connect(server.query);
    client.write_all(format!("{}{body}", head_of("/m/predict", body.len())).as_bytes()).unwrap();
    until("it is being sent", || (server.metric("clipper_http_answer_bytes") > 7e6).then_some(()));
    let (status, text) = post(server.query, "/m/predict", &different(110));
    assert!(status == 503 && text.contains("http.answers_max_bytes = 12000000"), "{text}");
    drop(client);
    until("the room is given back", || {
        let (status, _) = post(server.query, "/m/predict", &different(110));
        (status == 200).then_some(())
    });
}
