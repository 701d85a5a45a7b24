//! Connections and bodies that take more than their share.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::served::{Http, PATIENCE, Served, until};
use crate::support::signals::signal;
use crate::support::size;

pub const GENEROUS_SLO_US: u32 = 20_000_000;

pub fn start(config: &str) -> (Served, Arc<tempfile::TempDir>) {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    (Served::start(config, folder.path()).keeping(&folder), folder)
}

pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Everything until the server closes; what was there where it resets the connection.
pub fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

pub fn post(addr: SocketAddr, path: &str, body: &str) -> (u16, String) {
    Http::new(addr).request("POST", path, body).unwrap()
}

pub fn head_of(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n")
}

/// A body of about so many bytes, all numbers.
pub fn numbers(bytes: usize) -> String {
    let list = vec!["0.1234567"; bytes / 10].join(",");
    format!("{{\"input\":[{list}]}}")
}

fn ended(server: &Served, reason: &str) -> f64 {
    server.metric(&format!(
        "clipper_http_connections_ended_total{{frontend=\"query\",reason=\"{reason}\"}}"
    ))
}

fn errors(server: &Served, error: &str) -> f64 {
    server.metric(&format!("clipper_http_errors_total{{error=\"{error}\",frontend=\"query\"}}"))
        + server
            .metric(&format!("clipper_http_errors_total{{frontend=\"query\",error=\"{error}\"}}"))
}

#[test]
fn line_09_bodies_that_drip_have_a_bound_in_sum_and_others_are_served() {
    let (server, _folder) = start("");
    server.add_linked("m", GENEROUS_SLO_US);
    let before = server.resident_mb();
    let part = vec![b' '; 15_600_000];
    let mut drippers: Vec<TcpStream> = Vec::new();
    let mut refused = 0;
    let uploads = size("CLIPPER_TEST_DRIPPERS", 20, 100);
    for _ in 0..uploads {
        let mut dripper = connect(server.query);
        let _ = dripper.write_all(head_of("/m/predict", 16_000_000).as_bytes());
        if dripper.write_all(&part).is_err() {
            refused += 1;
        }
        drippers.push(dripper);
    }
    until("the bodies are held", || {
        (server.metric("clipper_http_body_bytes") > 45e6).then_some(())
    });
    let held = server.resident_mb() - before;
    assert!(held < 200.0, "{held} MB for {uploads} bodies of 15.6 MB");
    until("the others are refused", || (errors(&server, "overloaded") >= 10.0).then_some(()));
    let (status, text) = post(server.query, "/m/predict", &numbers(8_000_000));
    assert_eq!(status, 503, "a large body has no room: {text}");
    assert!(text.contains("http.bodies_max_bytes"), "{text}");
    let (status, _) = post(server.query, "/m/predict", "{\"input\":[1.5]}");
    assert_eq!(status, 200, "a small one has");
    drop(drippers);
    until("what they held is given back", || {
        (server.metric("clipper_http_body_bytes") < 1.0).then_some(())
    });
    let (status, text) = post(server.query, "/m/predict", &numbers(1_000_000));
    assert_eq!(status, 200, "{text}");
    println!("{refused} of {uploads} were cut off while sending; {held:.0} MB were held");
}

#[test]
fn line_09_a_whole_request_has_a_deadline_and_not_only_a_pause() {
    let (server, _folder) = start("[http]\nrequest_timeout_ms = 1500\n");
    server.add_linked("m", GENEROUS_SLO_US);
    let mut dripper = connect(server.query);
    dripper.write_all(head_of("/m/predict", 10_000).as_bytes()).unwrap();
    let start = Instant::now();
    while dripper.write_all(b" ").is_ok() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
        dripper.set_nonblocking(true).unwrap();
        let answered = dripper.peek(&mut [0]).is_ok();
        dripper.set_nonblocking(false).unwrap();
        if answered {
            break;
        }
    }
    let answer = rest(dripper);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("http.request_timeout_ms"), "{answer}");
}

#[test]
fn line_09_the_limit_of_connections_is_one_and_drippers_give_way() {
    let (server, _folder) = start("[http]\nconnections_max = 50\nquery_workers = 2\n");
    server.add_linked("m", GENEROUS_SLO_US);
    let mut drippers: Vec<TcpStream> = Vec::new();
    for _ in 0..150 {
        let mut dripper = connect(server.query);
        // The earlier ones give way to the later.
        let _ = dripper.write_all(b"POST /m/predict HTTP/1.1\r\nHost: t");
        drippers.push(dripper);
    }
    until("all have been accepted", || {
        let gone = ["gave_way", "gave_way_idle", "refused"].map(|reason| ended(&server, reason));
        let gone: f64 = gone.iter().sum();
        (gone >= 100.0).then_some(())
    });
    assert!(server.metric("clipper_http_connections{frontend=\"query\"}") <= 50.0);
    for _ in 0..20 {
        let (status, text) = post(server.query, "/m/predict", "{\"input\":[1.5]}");
        assert_eq!(status, 200, "{text}");
    }
}

#[test]
fn line_09c_pipelined_requests_that_nobody_reads_cost_nothing_and_end() {
    let (server, _folder) = start("[http]\nwrite_timeout_ms = 8000\n");
    let request = b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n";
    let many: Vec<u8> = request.iter().copied().cycle().take(request.len() * 60_000).collect();
    let many = Arc::new(many);
    let before = server.resident_mb();
    let connections = size("CLIPPER_TEST_UNREAD", 10, 30);
    let streams: Vec<TcpStream> = (0..connections).map(|_| connect(server.query)).collect();
    for stream in &streams {
        let (mut stream, many) = (stream.try_clone().unwrap(), Arc::clone(&many));
        std::thread::spawn(move || drop(stream.write_all(&many)));
    }
    // Once it has taken what it takes.
    let share = until("nothing spins", || {
        let (ticks, start) = (server.cpu_ticks(), Instant::now());
        std::thread::sleep(Duration::from_secs(1));
        let share = (server.cpu_ticks() - ticks) as f64 / 100.0 / start.elapsed().as_secs_f64();
        let all_are_open = ended(&server, "write_timeout") < 1.0;
        assert!(all_are_open, "it spins until the end: {share} of a core");
        (share < 0.25).then_some(share)
    });
    let held = server.resident_mb() - before;
    println!("{share:.2} of a core, {held:.0} MB for {connections} connections that are not read");
    assert!(held < 60.0, "{held} MB");
    until("they end", || (ended(&server, "write_timeout") >= connections as f64).then_some(()));
    assert_eq!(Http::new(server.query).request("GET", "/livez", "").unwrap().0, 200);
}

#[test]
fn line_09c_pipelined_requests_that_are_read_are_all_answered() {
    let (server, _folder) = start("");
    let mut stream = connect(server.query);
    let request = b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut writer = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for _ in 0..5_000 {
            writer.write_all(request).unwrap();
        }
    });
    let (mut answers, mut buffer) = (0, Vec::new());
    while answers < 5_000 {
        let mut some = [0; 16 << 10];
        let n = stream.read(&mut some).unwrap();
        assert!(n > 0, "closed after {answers} answers");
        buffer.extend_from_slice(&some[..n]);
        while let Some(at) = buffer.windows(13).position(|w| w == b"{\"live\":true}") {
            buffer.drain(..at + 13);
            answers += 1;
        }
    }
    sender.join().unwrap();
}

#[test]
fn line_10_an_unused_connection_is_closed_silently_by_keep_alive() {
    let (server, _folder) =
        start("[http]\nkeep_alive_ms = 1500\nclient_request_timeout_ms = 300\n");
    let start = Instant::now();
    let unused = connect(server.query);
    assert_eq!(rest(unused), "", "no answer that nobody asked for");
    assert!(start.elapsed() >= Duration::from_millis(1_400), "{:?}", start.elapsed());
    // One that has been used, too.
    let mut used = connect(server.query);
    used.write_all(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let text = rest(used);
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    // And one that began a request has its 408, also where it is not the first.
    for first in ["", "GET /livez HTTP/1.1\r\nHost: test\r\n\r\n"] {
        let mut slow = connect(server.query);
        slow.write_all(first.as_bytes()).unwrap();
        if !first.is_empty() {
            assert!(slow.read(&mut [0; 1024]).unwrap() > 0);
        }
        slow.write_all(b"GET /livez HT").unwrap();
        let text = rest(slow);
        assert!(text.contains("HTTP/1.1 408 ") && text.contains("Request timeout"), "{text}");
    }
}

#[test]
fn line_11a_what_is_not_http_is_told_so_counted_and_logged_within_bounds() {
    let (server, _folder) = start("");
    let hello = [&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00][..], &[7; 512]].concat();
    let clients = size("CLIPPER_TEST_TLS_CLIENTS", 300, 2_000);
    for _ in 0..clients {
        let mut tls = connect(server.query);
        tls.write_all(&hello).unwrap();
        let answer = rest(tls);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("These bytes are TLS"), "{answer}");
    }
    assert!(ended(&server, "not_http") >= clients as f64);
    assert!(errors(&server, "not_http") >= clients as f64);
    let lines = server.log().len();
    println!("{lines} log lines");
    assert!(lines < 60, "{lines} lines");
    let (status, text) = post(server.query, "/nobody/predict", "{\"input\":[1]}");
    assert_eq!(status, 404, "{text}");
    assert!(errors(&server, "unknown_application") >= 1.0);
    let mut large = connect(server.query);
    let _ = large.write_all(format!("GET /{} HTTP/1.1\r\n", "x".repeat(140_000)).as_bytes());
    let answer = rest(large);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[test]
fn line_11a_head_works_where_get_does() {
    let (server, _folder) = start("");
    until("the server is ready", || {
        let answer = Http::new(server.query).request("GET", "/readyz", "");
        answer.is_ok_and(|(status, _)| status == 200).then_some(())
    });
    let pages = [
        (server.query, "/livez"),
        (server.query, "/readyz"),
        (server.query, "/metrics"),
        (server.management, "/admin/metrics"),
        (server.management, "/admin/ping"),
        (server.metrics, "/metrics"),
    ];
    for (addr, path) in pages {
        let mut stream = connect(addr);
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let answer = rest(stream);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{path}: no body: {answer}");
    }
}

#[test]
fn line_11a_an_unknown_application_does_not_cost_the_connection() {
    let (server, _folder) = start("");
    server.add_linked("m", GENEROUS_SLO_US);
    let mut stream = connect(server.query);
    for path in ["/nobody/predict", "/m/predict"] {
        let body = "{\"input\":[1.5]}";
        stream.write_all(format!("{}{body}", head_of(path, body.len())).as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let n = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..n]).to_lowercase();
        assert!(!answer.contains("connection: close"), "{answer}");
    }
}

#[test]
fn line_26_a_request_at_the_wrong_port_is_told_the_right_one() {
    let (server, _folder) = start("");
    for (addr, path, port) in [
        (server.management, "/m/predict", "1337"),
        (server.management, "/v2/models/m/infer", "1337"),
        (server.query, "/admin/add_app", "1338"),
    ] {
        let (status, text) = post(addr, path, "{}");
        assert!(status == 404 && text.contains(port), "{path}: {status} {text}");
    }
    let (_, text) = post(server.management, "/admin/nothing", "{}");
    assert!(text.contains("Endpoints: POST /admin/add_app"), "{text}");
}

#[test]
fn line_05_queries_of_clients_that_have_closed_are_abandoned() {
    let (server, _folder) = start("[serving]\ncache_max_bytes = 0\n");
    server.add_linked("m", GENEROUS_SLO_US);
    let container = server.noop("m");
    server.await_replicas("m", 1);
    // It takes its first queries and never answers.
    signal(container.0.id(), nix::sys::signal::Signal::SIGSTOP);
    let clients: Vec<TcpStream> = (0..30)
        .map(|n| {
            let body = format!("{{\"input\":[{n}]}}");
            let mut client = connect(server.query);
            client
                .write_all(format!("{}{body}", head_of("/m/predict", body.len())).as_bytes())
                .unwrap();
            client
        })
        .collect();
    until("they wait", || {
        (server.metric("clipper_http_connections{frontend=\"query\"}") >= 30.0).then_some(())
    });
    // FIN, as from a client that closes in good order.
    for client in &clients {
        client.shutdown(Shutdown::Write).unwrap();
    }
    until("they are noticed", || (ended(&server, "abandoned") >= 30.0).then_some(()));
    signal(container.0.id(), nix::sys::signal::Signal::SIGCONT);
    let (status, text) = post(server.query, "/m/predict", "{\"input\":[99]}");
    assert!(status == 200 && text.contains("\"default\":false"), "{text}");
    let skipped = server.metric("clipper_queue_skipped_total{model=\"m\",version=\"1\"}");
    assert!(skipped >= 25.0, "{skipped} of 30 skipped");
}

#[test]
fn line_11c_a_default_output_has_a_limit() {
    let (server, _folder) = start("");
    let body = serde_json::json!({
        "name": "m", "input_type": "doubles", "default_output": "x".repeat(70_000),
        "latency_slo_micros": 1000,
    });
    let (status, text) = post(server.management, "/admin/add_app", &body.to_string());
    assert!(status == 400 && text.contains("at most 65536"), "{status} {text}");
}

/// Reads a page to its end and forgets it; its bytes.
fn page_bytes(addr: SocketAddr, accept: &str) -> usize {
    let mut stream = connect(addr);
    let head = format!("GET /metrics HTTP/1.1\r\nHost: t\r\nAccept: {accept}\r\n");
    stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
    let (mut bytes, mut some) = (0, vec![0; 1 << 20]);
    loop {
        let n = stream.read(&mut some).unwrap();
        if n == 0 {
            return bytes;
        }
        assert!(bytes > 0 || some.starts_with(b"HTTP/1.1 200 "));
        bytes += n;
    }
}

#[test]
fn line_11c_a_large_page_of_metrics_is_sent_while_it_is_made() {
    let (server, _folder) = start("");
    let applications = size("CLIPPER_TEST_APPLICATIONS", 1_500, 100_000);
    std::thread::scope(|scope| {
        for client in 0..16 {
            let mut http = Http::new(server.management);
            scope.spawn(move || {
                for n in (client..applications).step_by(16) {
                    let body = serde_json::json!({
                        "name": format!("application-{n}-with-a-long-name-{}", "x".repeat(20)),
                        "input_type": "doubles", "default_output": "0", "latency_slo_micros": 1000,
                    });
                    let added = http.request("POST", "/admin/add_app", &body.to_string());
                    assert_eq!(added.unwrap().0, 200);
                }
            });
        }
    });
    let before = server.resident_mb();
    for (addr, accept, least) in [
        (server.metrics, "text/plain", 4_000 * applications),
        (server.query, "application/json", 300 * applications),
    ] {
        // Of the changes, and of the page before.
        server.forget_peak();
        let start = Instant::now();
        let bytes = page_bytes(addr, accept);
        let held = server.peak_mb() - before;
        println!(
            "a page of {} MB of {applications} applications took {held:.0} MB and {:.1?}; the \
             server has {before:.0} MB",
            bytes / 1_000_000,
            start.elapsed()
        );
        assert!(bytes > least, "{bytes} bytes");
        assert!(held < 40.0 + 0.001 * applications as f64, "{held} MB for {bytes} bytes");
    }
}
