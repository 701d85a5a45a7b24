//! A server that stops, alone and behind a load balancer.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::http::{GENEROUS_SLO_US, connect, head_of, post, rest, start};
use crate::support::ports::free_addr;
use crate::support::served::{Http, Process, until};
use crate::support::signals::signal;

#[test]
fn line_08_draining_says_so_and_closes_after_the_delay() {
    let (mut server, _folder) = start("[http]\ndrain_delay_ms = 1500\n");
    server.add_linked("m", GENEROUS_SLO_US);
    let mut kept = Http::new(server.query);
    assert_eq!(kept.request("GET", "/readyz", "").unwrap().0, 200);
    let idle = connect(server.query);
    signal(server.pid(), nix::sys::signal::Signal::SIGTERM);
    until("it is not ready", || {
        (Http::new(server.query).request("GET", "/readyz", "").unwrap().0 == 503).then_some(())
    });
    let body = "{\"input\":[1.5]}";
    let mut stream = connect(server.query);
    stream.write_all(format!("{}{body}", head_of("/m/predict", body.len())).as_bytes()).unwrap();
    let answer = rest(stream).to_lowercase();
    assert!(answer.starts_with("http/1.1 200 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(rest(idle), "", "an idle connection is closed in silence");
    until("it ends", || (!server.is_up()).then_some(()));
}

#[test]
fn line_08_a_query_under_way_does_not_outlive_the_patience_of_a_stop() {
    let (mut server, _folder) = start(
        "[http]\ndrain_delay_ms = 0\nshutdown_timeout_ms = 500\n[serving]\nattempts_max = 1\n",
    );
    server.add_linked("m", GENEROUS_SLO_US);
    let container = server.noop("m");
    server.await_replicas("m", 1);
    signal(container.0.id(), nix::sys::signal::Signal::SIGSTOP);
    let body = "{\"input\":[1.5]}";
    let mut waiting = connect(server.query);
    waiting.write_all(format!("{}{body}", head_of("/m/predict", body.len())).as_bytes()).unwrap();
    until("it is being answered", || {
        (server.metric("clipper_http_connections{frontend=\"query\"}") >= 1.0).then_some(())
    });
    let start = Instant::now();
    signal(server.pid(), nix::sys::signal::Signal::SIGTERM);
    until("it ends", || (!server.is_up()).then_some(()));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

/// nginx with two upstreams, in the foreground. A query can be asked again elsewhere, which nginx
/// does with a POST only where it is told so.
fn balancer(folder: &std::path::Path, upstreams: [SocketAddr; 2]) -> (Process, SocketAddr) {
    let free = free_addr();
    let place = folder.display();
    let [one, other] = upstreams;
    let config = format!(
        "daemon off; master_process off; pid {place}/nginx.pid; error_log {place}/error.log;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; client_body_temp_path {place}/b; proxy_temp_path {place}/p;\n\
         fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;\n\
         upstream clipper {{ server {one} fail_timeout=1s; server {other} fail_timeout=1s;\n\
         keepalive 32; }}\n\
         server {{ listen {free}; keepalive_requests 1000000000;\n\
         location / {{ proxy_pass http://clipper;\n\
         proxy_next_upstream error timeout non_idempotent;\n\
         proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let nginx = ["nginx", "/usr/sbin/nginx"].into_iter().find_map(|program| {
        let mut nginx = std::process::Command::new(program);
        nginx
            .arg("-c")
            .arg(&file)
            .arg("-p")
            .arg(folder)
            .stderr(std::process::Stdio::null())
            .spawn()
            .ok()
    });
    let nginx = Process(nginx.expect("nginx, which scripts/test.sh installs"));
    until("nginx listens", || TcpStream::connect(free).ok());
    (nginx, free)
}

#[test]
fn line_08_a_restart_behind_nginx_costs_no_request() {
    let config = "[http]\ndrain_delay_ms = 1000\n";
    let (mut first, _folder_1) = start(config);
    let (second, _folder_2) = start(config);
    let mut models = Vec::new();
    for server in [&first, &second] {
        server.add_linked("m", GENEROUS_SLO_US);
        models.push(server.noop("m"));
        server.await_replicas("m", 1);
    }
    let folder = tempfile::tempdir().unwrap();
    let (_nginx, front) = balancer(folder.path(), [first.query, second.query]);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let (mut http, mut answered) = (Http::new(front), 0);
                while !stop.load(Ordering::Relaxed) {
                    let body = format!("{{\"input\":[{client}.{answered}]}}");
                    let (status, text) = http.request("POST", "/m/predict", &body).unwrap();
                    assert_eq!(status, 200, "after {answered} answers: {text}");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    signal(first.pid(), nix::sys::signal::Signal::SIGTERM);
    until("the first has stopped", || (!first.is_up()).then_some(()));
    // Some more by the other alone.
    for n in 0..100 {
        let (status, _) = post(front, "/m/predict", &format!("{{\"input\":[9.{n}]}}"));
        assert_eq!(status, 200);
    }
    stop.store(true, Ordering::Relaxed);
    let answered: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    println!("{answered} requests through nginx, none failed");
}
