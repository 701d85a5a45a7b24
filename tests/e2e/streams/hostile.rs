//! Containers that break the rules of answers in pieces.

use serde_json::json;

use crate::e2e::support::bystander::Bystander;
use crate::e2e::support::container::Container;
use crate::e2e::support::events::Events;
use crate::e2e::support::eventually;
use crate::e2e::support::server::Server;

/// Query errors, notices and streams.
const EXTENSIONS: &str = "19";

fn start(slo_us: u64) -> Server {
    let server = Server::start();
    server.serve("m", "doubles", slo_us);
    server
}

fn container(server: &Server, lanes: &str, how: &str) -> Container {
    let options = ["--extensions", EXTENSIONS, "--lanes", lanes, "--how", how];
    Container::serving(server, "m", &options)
}

fn ask(server: &Server) -> Events {
    Events::post(server.query, "/m/predict", &json!({"input": [1.5]}))
}

#[test]
fn pieces_and_their_ends_are_told_as_they_are() {
    let server = start(20_000_000);
    let mut container = container(&server, "2", "pieces");
    for (how, pieces, end) in [
        ("pieces", 2, "complete"),
        ("an end without a piece", 0, "complete"),
        ("pieces and an error", 1, "error"),
        ("a piece and an answer", 2, "complete"),
        // It may also answer at once.
        ("right", 1, "complete"),
        ("pieces of nobody first", 2, "complete"),
        ("more after the end", 2, "complete"),
        ("an error at once", 0, "default"),
        ("a piece not utf-8", 0, "default"),
    ] {
        container.answer(how);
        let (told, ended) = ask(&server).rest();
        assert_eq!((told.len(), &ended["end"]), (pieces, &json!(end)), "{how}: {ended}");
    }
    assert!(server.connections_ended("protocol") < 0.5);
    server.await_replicas("m", 1);
}

#[test]
fn who_breaks_a_rule_is_dropped_and_the_stream_ends_with_a_reason() {
    let server = start(20_000_000);
    let bystander = Bystander::start(&server);
    let mut dropped = 0.0;
    for (how, end) in [
        ("too many pieces", "broken"),
        ("a piece too large", "default"),
        ("a piece without text", "default"),
        ("an end of two errors", "default"),
    ] {
        let _container = container(&server, "2", how);
        let mut events = ask(&server);
        // The end is in the last event; pieces before it may have come.
        let mut last = None;
        while let Some(event) = events.next() {
            last = Some(event);
        }
        let (name, ended) = last.unwrap();
        assert_eq!((name.as_str(), &ended["end"]), ("end", &json!(end)), "{how}: {ended}");
        dropped += 1.0;
        eventually(how, || server.connections_ended("protocol") > dropped - 0.5);
    }
    bystander.was_served(&server);
}

#[test]
fn who_never_says_how_many_it_answers_gets_no_query() {
    let server = start(20_000_000);
    let options = ["--extensions", EXTENSIONS, "--how", "pieces"];
    let mut silent = Container::spawn(&server, "m", &options);
    eventually("it has registered", || silent.counted("registrations") > 0);
    assert!(server.predict("m", &json!({"input": [1.5]})).is_default());
    // Too many, or twice, breaks a rule.
    silent.send(&[b"", b"\x04\0\0\0", b"\xff\xff\xff\xff"]);
    eventually("dropped", || server.connections_ended("protocol") > 0.5);
}

#[test]
fn a_piece_from_who_has_not_announced_any_breaks_a_rule() {
    let server = start(20_000_000);
    let mut plain = Container::serving(&server, "m", &["--extensions", "3"]);
    plain.send(&[b"", b"\x05\0\0\0", b"\0\0\0\0", b"x"]);
    eventually("dropped", || server.connections_ended("protocol") > 0.5);
}

#[test]
fn a_container_that_does_not_end_what_nobody_waits_for_is_given_up() {
    let config = "[rpc]\nsilence_timeout_ms = 500\n";
    let server = Server::with_config(config);
    server.serve("m", "doubles", 200_000);
    let options =
        ["--extensions", EXTENSIONS, "--lanes", "2", "--how", "nothing", "--idle-ms", "50"];
    let _container = Container::serving(&server, "m", &options);
    let (_, end) = ask(&server).rest();
    assert_eq!(end["end"], "default", "{end}");
    eventually("given up", || server.connections_ended("hung") > 0.5);
}
