//! How much of the past is kept, and how many may ask for it at once.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use clipper::store::EventLog as _;
use clipper::store::event::{Envelope, Origin};
use clipper::store::projection::Catalog;
use clipper::store::sled::SledLog;
use clipper_config::JournalConfig;
use serde_json::json;

use super::many::command;
use super::{done, told};
use crate::support::served::{Http, PATIENCE, Served, app};

const DAY_MS: u64 = 86_400_000;

/// The last event that is gone of 120, of which the first 60 are three days old, where 10 are kept
/// by their number.
fn forgotten(keep_days: u64) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let config = JournalConfig { keep_events: 10, keep_days, ..JournalConfig::default() };
    let (mut log, _) = SledLog::open(&folder.path().join("data"), &config).unwrap();
    log.load(u64::MAX).unwrap();
    let (mut catalog, now) = (Catalog::default(), clipper_clock::unix_millis());
    for at in 0..120 {
        let recorded_at_ms = if at < 60 { now - 3 * DAY_MS } else { now };
        let mut events = catalog.decide(&command(at)).unwrap();
        let event = events.pop().unwrap();
        catalog.fold(&event);
        log.append(&[vec![Envelope {
            seq: at + 1,
            recorded_at_ms,
            author: Origin::Admin.into(),
            event,
        }]])
        .unwrap();
        if (at + 1) % 20 == 0 {
            log.flush().unwrap();
            log.snapshot(at + 1, &catalog).unwrap();
        }
    }
    log.close().unwrap();
    drop(log);
    let settings = format!("[journal]\nkeep_events = 10\nkeep_days = {keep_days}\n");
    let server = Served::start(&settings, folder.path());
    let page = Http::new(server.management).request("POST", "/admin/journal/log", "{}").unwrap().1;
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    let forgotten = page["forgotten"].as_u64().unwrap();
    // What is kept is told from its beginning.
    assert_eq!(
        told(&server, &["journal", "state", "--at", &forgotten.to_string()])["seq"],
        forgotten
    );
    let text = done(&server, &["journal", "log", "-n", "1000"]);
    assert!(text.starts_with(&format!("Events up to {forgotten} are not kept any more.\n")));
    forgotten
}

#[test]
fn events_of_the_last_days_are_kept_however_many_they_are() {
    assert_eq!(forgotten(0), 100, "the newest of those that stay is a snapshot");
    assert_eq!(forgotten(1), 60);
}

/// A request whose answer is not waited for.
fn ask(addr: std::net::SocketAddr, path: &str, body: &str) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    (&stream).write_all(head.as_bytes()).unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Those who look are few at a time, the others are told to come back; who plans is not kept out.
#[test]
fn those_who_look_into_the_past_are_few_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("[journal]\nlooks_max = 1\n", folder.path());
    server.admin("/admin/add_app", &app("a", 20_000));
    for n in 0..200 {
        super::set_slo(&server, "a", 30_000 + n);
    }
    let body = json!({"from": "0", "to": "now"}).to_string();
    let asked: Vec<TcpStream> =
        (0..64).map(|_| ask(server.management, "/admin/journal/diff", &body)).collect();
    let plan = json!({"to": "1", "dry_run": true}).to_string();
    let planned = answer(ask(server.management, "/admin/rollback", &plan));
    assert!(planned.starts_with("HTTP/1.1 200"), "{planned}");
    let answers: Vec<String> = asked.into_iter().map(answer).collect();
    let (good, rest): (Vec<&String>, Vec<&String>) =
        answers.iter().partition(|answer| answer.starts_with("HTTP/1.1 200"));
    assert!(!good.is_empty());
    for refused in &rest {
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
        let lower = refused.to_lowercase();
        assert!(lower.contains("retry-after:") && refused.contains("looks_max"), "{refused}");
    }
    assert!(!rest.is_empty(), "64 at once");
    // Its place is free again.
    assert!(answer(ask(server.management, "/admin/journal/diff", &body)).contains("200 OK"));
}
