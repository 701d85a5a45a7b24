//! What is kept of whoever asked for a change.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{clipper, done, listed, offline, stop};
use crate::support::served::{Served, app};

fn unix_user() -> String {
    let id = Command::new("id").arg("-un").stderr(Stdio::null()).output().unwrap();
    String::from_utf8(id.stdout).unwrap().trim().to_owned()
}

#[test]
fn an_event_has_who_from_where_which_request_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    let add = "admin apps add digits --input-type doubles --default-output -1 --slo-ms 20";
    let add: Vec<&str> = add.split(' ').collect();
    done(&server, &[&add[..], &["--reason", "first try: caf\u{e9}"]].concat());
    let key = done(&server, &["key", "add", "root", "--role", "admin", "--json"]);
    let key: Value = serde_json::from_str(&key).unwrap();
    let secret = key["secret"].as_str().unwrap().to_owned();
    let update = ["admin", "apps", "update", "digits", "--slo-ms", "5", "--key", &secret];
    done(&server, &[&update[..], &["--reason", "too slow"]].concat());
    // A program of somebody else's, which says nothing of itself.
    let body = json!({"name": "digits"}).to_string();
    let head = format!(
        "POST /admin/delete_app HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {secret}\r\nX-Request-Id: r-77\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = crate::e2e::support::http::Connection::open(server.management);
    connection.send(head.as_bytes());
    let answer = connection.answer("POST").unwrap();
    assert_eq!((answer.status, answer.header("x-request-id")), (200, Some("r-77")));
    let two_lines = [&add[..], &["--reason", "a\nb"]].concat();
    assert_eq!(clipper(&server, &two_lines).status.code(), Some(2));
    stop(server);

    let data = folder.path().join("data");
    let events = listed(&data);
    let of = |kind: &str| events.iter().find(|event| event["event"]["kind"] == kind).unwrap();
    let added = of("app_added");
    assert_eq!(added["user"], unix_user());
    assert_eq!(
        (&added["why"], &added["from"]),
        (&json!("first try: caf\u{e9}"), &json!("127.0.0.1"))
    );
    assert_eq!((added["request_id"].as_str().unwrap().len(), added.get("by")), (16, None));
    let changed = of("app_changed");
    assert_eq!((&changed["by"], &changed["why"]), (&json!("root"), &json!("too slow")));
    let deleted = of("app_deleted");
    assert_eq!((&deleted["by"], &deleted["request_id"]), (&json!("root"), &json!("r-77")));
    assert_eq!((deleted.get("why"), deleted.get("user")), (None, None));
    let text = String::from_utf8(offline(&data, &["list"]).stdout).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.contains("key 'root' from 127.0.0.1, why: unknown"), "{last}");
    assert!(text.contains("why: \"too slow\""), "{text}");
}

#[test]
fn the_config_file_is_named_and_a_reason_that_is_too_long_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[[application]]\nname = \"a\"\ninput_type = \"doubles\"\n\
                  default_output = \"-1\"\nlatency_slo_micros = 20000\n";
    let server = Served::start(config, folder.path());
    let body = app("b", 20_000).to_string();
    let head = format!(
        "POST /admin/add_app HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
         X-Clipper-Reason: {}\r\nContent-Length: {}\r\n\r\n{body}",
        "x".repeat(1_025),
        body.len()
    );
    let mut connection = crate::e2e::support::http::Connection::open(server.management);
    connection.send(head.as_bytes());
    let answer = connection.answer("POST").unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("1025 bytes"), "{}", answer.text());
    stop(server);
    let data = folder.path().join("data");
    assert_eq!(listed(&data).len(), 1, "what was refused has changed nothing");
    let text = String::from_utf8(offline(&data, &["list"]).stdout).unwrap();
    assert!(text.contains("bootstrap  config file, why: unknown"), "{text}");
}
