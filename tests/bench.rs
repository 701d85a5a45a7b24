//! The load generator against servers whose behaviour is known.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clipper_domain::InputType;
use clipper_scheduling::parse::predict_body;
use clipper_tools::bench::inputs::{Choice, InputPlan, InputSource, Protocol, Template};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::Value;

use crate::support::ports::free_addr;

const PREDICTION: &str = r#"{"query_id":1,"output":7,"default":false}"#;
const LATE: &str =
    r#"{"query_id":1,"output":0,"default":true,"default_explanation":"No replica answered"}"#;

/// A server with a thread per connection; `answer` maps the number of a request to the status and
/// body of its response; status 0 hangs up.
fn server(answer: impl Fn(u64) -> (u16, &'static str) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (answer, count) = (Arc::new(answer), Arc::new(AtomicU64::new(0)));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                while read_request(&mut stream).is_some() {
                    let (status, body) = answer(count.fetch_add(1, Ordering::Relaxed));
                    if status == 0 {
                        return;
                    }
                    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}", body.len());
                    if stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

/// The body of one request.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            if body.len() == len.parse::<usize>().unwrap() {
                return Some(body.to_owned());
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
        }
    }
}

fn bench(addr: SocketAddr, args: &[&str]) -> Output {
    Command::new(crate::binary())
        .args(["bench", "--app", "a", "--url", &format!("http://{addr}")])
        .args(["--warmup", "0", "--duration", "0.5"])
        .args(args)
        .output()
        .unwrap()
}

fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {output:?}"))
}

#[test]
fn outcomes_are_counted_apart() {
    let addr = server(|n| match n % 4 {
        0 | 1 => (200, PREDICTION),
        2 => (200, LATE),
        _ => (503, "{}"),
    });
    let output = bench(addr, &["--connections", "3", "--json"]);
    assert_eq!(output.status.code(), Some(1), "503s are errors");
    let report = report(&output);
    let count = |pointer: &str| report.pointer(pointer).unwrap().as_u64().unwrap();
    let requests = count("/requests");
    let (good, late) = (count("/predictions"), count("/defaults/No replica answered"));
    let refused = count("/http_errors/503");
    assert_eq!(good + late + refused, requests);
    assert!(requests >= 8 && good.abs_diff(requests / 2) <= 2, "{report}");
    assert!(late.abs_diff(requests / 4) <= 2, "{report}");
    assert_eq!(report["failures"], serde_json::json!({}));
}

/// A server that stands still once makes every request late that was meant to start meanwhile,
/// also those that found no connection.
#[test]
fn a_stall_counts_for_every_request_that_it_kept_waiting() {
    let addr = server(|n| {
        if n == 10 {
            #[allow(clippy::disallowed_methods, reason = "stands for a server that stalls")]
            std::thread::sleep(Duration::from_millis(300));
        }
        (200, PREDICTION)
    });
    let args = ["--rate", "200", "--constant", "--connections", "1", "--slo-ms", "100", "--json"];
    let report = report(&bench(addr, &args));
    assert_eq!(report["requests"], 100);
    // 60 requests start during the stall; those of its last 100 ms may still be in time.
    let share = report["share_in_time"].as_f64().unwrap();
    assert!(share <= 0.62, "{report}");
    assert!(report["latency"]["p50_ms"].as_f64().unwrap() < 300.0);
    assert!(report["latency"]["max_ms"].as_f64().unwrap() >= 295.0);
}

#[test]
fn a_server_that_hangs_or_hangs_up_is_a_failure_and_the_run_ends() {
    let addr = server(|n| {
        if n % 2 == 1 {
            return (0, "");
        }
        #[allow(clippy::disallowed_methods, reason = "stands for a server that hangs")]
        std::thread::sleep(Duration::from_mins(1));
        (200, PREDICTION)
    });
    let args = ["--connections", "2", "--timeout", "0.2", "--json"];
    let report = report(&bench(addr, &args));
    assert!(report["failures"]["timeout"].as_u64().unwrap() > 0, "{report}");
    assert!(report["failures"]["connection"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["predictions"], 0);
}

#[test]
fn no_server_is_one_clear_error() {
    let addr = free_addr();
    let output = bench(addr, &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&format!("cannot connect to {addr}")), "{text}");
}

#[test]
fn people_get_a_table_and_a_plot() {
    let addr = server(|_| (200, PREDICTION));
    let output = bench(addr, &["--threads", "2"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["goodput", "p99.9", "99.99 %", "####"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn the_server_reads_every_body_and_no_two_inputs_are_the_same() {
    for input_type in InputType::FLAT {
        for (len, batch) in [(9, None), (9, Some(1)), (10, Some(7)), (784, None)] {
            let choice = Choice::Unique;
            let protocol = Protocol::Predict;
            let plan = InputPlan { protocol, input_type, len, batch, choice };
            let template = Template::new(&plan);
            let source = InputSource::new(&plan, 3);
            let mut rng = SmallRng::seed_from_u64(1);
            let mut body = template.body.clone();
            let mut seen = HashSet::new();
            for _ in 0..200 {
                template.fill(&mut body, || source.next(&mut rng));
                let read = predict_body(&body, input_type, 100).unwrap();
                assert_eq!(read.inputs.len() as u64, plan.per_request());
                for input in read.inputs {
                    let bytes = input.0.to_vec();
                    assert!(seen.insert(bytes), "{}", String::from_utf8_lossy(&body));
                }
            }
        }
    }
}
