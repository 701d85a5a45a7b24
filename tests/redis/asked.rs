//! Who changed what, where several write into the tables.

use serde_json::{Value, json};

use super::forms::write_dump;
use super::harness::{Clipper, Redis, until};

/// The newest event of an application, once it has this origin.
fn newest(clipper: &Clipper, app: &str, origin: &str) -> Value {
    until(&format!("an event of {app} by {origin}"), || {
        let page = clipper.done("journal/log", &json!({"app": app, "limit": 1}));
        let page: Value = serde_json::from_str(&page).unwrap();
        let entry = page["entries"].get(0)?.clone();
        (entry["origin"] == origin).then_some(entry)
    })
}

#[test]
fn whoever_is_connected_and_wrote_last_is_named_by_address() {
    let redis = Redis::start();
    write_dump(&redis);
    let folder = tempfile::tempdir().unwrap();
    let clipper = Clipper::start(&redis.url(), folder.path(), &[]);
    let found = newest(&clipper, "digits", "redis");
    assert_eq!((found.get("from"), found["who"].as_str()), (None, Some("unknown")), "long ago");
    let mut operator = redis.db(5);
    operator.tell("HSET digits default_output 5");
    let changed = until("the change", || {
        let entry = newest(&clipper, "digits", "redis");
        (entry["seq"] != found["seq"]).then_some(entry)
    });
    assert!(changed["from"].as_str().unwrap().starts_with("127.0.0.1:"), "{changed}");
    assert_eq!(changed.get("why"), None);
}

#[test]
fn another_frontend_knows_who_asked_this_one_and_why() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let [a, b] =
        ["a", "b"].map(|name| Clipper::start(&redis.url(), &folder.path().join(name), &[]));
    let mut command = std::process::Command::new(crate::binary());
    command.env("CLIPPER_MANAGEMENT_URL", format!("http://{}", a.management));
    command.args(["admin", "apps", "add", "x", "--input-type", "doubles", "--default-output", "1"]);
    command.args(["--slo-ms", "20", "--reason", "because"]);
    assert!(command.status().unwrap().success());
    let there = newest(&b, "x", "frontend");
    let here = newest(&a, "x", "admin");
    for member in ["user", "from", "request_id", "why"] {
        assert!(here[member].is_string(), "{here}");
        assert_eq!(here[member], there[member]);
    }
    let place = there["via"].as_str().unwrap();
    assert!(place.contains('('), "the frontend that was asked: {place}");
}
