//! The recorded exchanges of both ports against the real binary with real containers, and the page
//! that is made of it.

use std::collections::HashMap;

use super::replay::{self, Row, Targets, World, replay, table};
use crate::e2e::support::container::{Container, type_code};
use crate::e2e::support::eventually;
use crate::e2e::support::server::Server;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/compatibility.md");
const WRITE_PAGE: &str = "CLIPPER_WRITE_DOCS";
const INTRODUCTION: &str = "\
# Compatible with the original

Requests to the original server were recorded with its answers, in one session. A test sends the
same requests to `clipper`, with containers on stock pyzmq, and judges each answer: **same** (status
and body; only query ids may differ), or **better** on purpose, for the reason given. Nothing may be
different otherwise.

Two differences hold everywhere. A body that is plain text says `Content-Type: text/plain`, where
the original said `application/json`. Other headers, as `Date`, are not compared.

This page is written by the test, and the test fails when it is out of date. To write it:

    CLIPPER_WRITE_DOCS=1 cargo test --test all golden::real

";

struct RealContainers<'a> {
    server: &'a Server,
    containers: HashMap<String, Container>,
}

impl World for RealContainers<'_> {
    fn connect(&mut self, model: &str, version: &str, input_type: &str, output: &str) {
        let options = ["--version", version, "--type-code", type_code(input_type)];
        let options = [&options[..], &["--output", output]].concat();
        let container = Container::serving(self.server, model, &options);
        self.containers.insert(model.to_owned(), container);
    }

    fn freeze(&mut self, model: &str) {
        self.containers.get_mut(model).unwrap().answer("hold");
    }

    fn thaw(&mut self, model: &str) {
        self.containers.get_mut(model).unwrap().answer("right");
        let batches = |kind: &str| {
            let labels = format!("{{model=\"{model}\",version=\"1\"}}");
            self.server.sample(&format!("clipper_model_batch_size_{kind}{labels}"))
        };
        let sent = self.containers.get_mut(model).unwrap().counted("batches");
        let sent = f64::from(u32::try_from(sent).unwrap());
        eventually("the held answers are there", || batches("count") >= sent);
    }
}

/// Sessions at most: one in which a busy machine made a container late says nothing.
const SESSIONS: usize = 3;

/// All exchanges in a row, with a new server.
fn session() -> Vec<Row> {
    let server = Server::start();
    let mut world = RealContainers { server: &server, containers: HashMap::new() };
    let targets = Targets { management: server.management, query: Some(server.query) };
    replay(&targets, &mut world)
}

#[test]
fn every_exchange_is_answered_as_recorded_or_better() {
    let mut rows = session();
    for _ in 1..SESSIONS {
        if !rows.iter().any(Row::is_late) {
            break;
        }
        rows = session();
    }
    let table = table(&rows);
    println!("{table}");
    assert_eq!(rows.len(), replay::exchanges().len(), "every recorded exchange was replayed");
    assert!(!table.contains("| different"), "{table}");

    let page = format!("{INTRODUCTION}{table}");
    if std::env::var_os(WRITE_PAGE).is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let current = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(current == page, "docs/compatibility.md is out of date; its text says how to write it");
}
