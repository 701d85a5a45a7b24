//! `clipper top` against a server under load: as a table, as JSON, and in a terminal.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::e2e::support::bystander::Bystander;
use crate::e2e::support::server::Server;
use crate::e2e::support::{eventually, python};

const TERMINAL: &str = include_str!("terminal.py");

fn urls(server: &Server) -> [String; 4] {
    [
        "--query-url".to_owned(),
        format!("http://{}", server.query),
        "--management-url".to_owned(),
        format!("http://{}", server.management),
    ]
}

pub(super) fn top(server: &Server, options: &[&str]) -> Output {
    Command::new(crate::binary()).arg("top").args(urls(server)).args(options).output().unwrap()
}

/// One look of a second.
fn look(server: &Server) -> Value {
    let output = top(server, &["--json", "--interval", "1"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|value| value > 0.0)
}

#[test]
fn json_has_the_numbers_of_a_server_under_load() {
    let server = Server::start();
    server.serve("idle", "doubles", 20_000);
    let bystander = Bystander::start(&server);
    let mut view = Value::Null;
    eventually("a second with queries", || {
        view = look(&server);
        positive(&view["server"]["queries_per_second"])
    });
    let apps = view["applications"].as_array().unwrap();
    let names: Vec<&str> = apps.iter().map(|app| app["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bystander", "idle"]);
    let busy = &apps[0];
    for number in ["queries_per_second", "p50_ms", "p99_ms"] {
        assert!(positive(&busy[number]), "{number}: {busy}");
    }
    assert_eq!((&busy["objective_ms"], &busy["default_share"]), (&json!(30_000.0), &json!(0.0)));
    assert_eq!(busy["linked_models"], json!(["bystander"]));
    assert_eq!((&apps[1]["queries_per_second"], &apps[1]["p99_ms"]), (&json!(0.0), &Value::Null));
    let model = &view["models"][0];
    assert_eq!((&model["model"], &model["version"]), (&json!("bystander"), &json!("1")));
    assert_eq!((&model["current"], &model["replicas"]), (&json!(true), &json!(1.0)));
    assert!(positive(&model["batch_mean"]) && positive(&model["batch_p99_ms"]), "{model}");
    let replica = &view["replicas"][0];
    assert!(positive(&replica["queries_per_second"]), "{replica}");
    assert!(positive(&replica["busy_share"]), "{replica}");
    assert_eq!(view["management_error"], Value::Null);
    bystander.was_served(&server);
}

#[test]
fn a_table_names_applications_models_and_replicas_and_says_why_defaults_went_out() {
    let server = Server::start();
    server.serve("lonely", "doubles", 20_000);
    let bystander = Bystander::start(&server);
    let query = server.query;
    let stop = Arc::new(Mutex::new(false));
    let stopped = Arc::clone(&stop);
    let asking = std::thread::spawn(move || {
        let mut client = crate::e2e::support::http::Client::new(query);
        while !*stopped.lock().unwrap() {
            assert_eq!(client.post("/lonely/predict", b"{\"input\": [1]}").status, 200);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    let mut text = String::new();
    eventually("a second with defaults", || {
        text = String::from_utf8(top(&server, &["--once", "--interval", "1"]).stdout).unwrap();
        text.contains("no_replica")
    });
    println!("{text}");
    *stop.lock().unwrap() = true;
    asking.join().unwrap();
    let row = |start: &str| text.lines().find(|line| line.starts_with(start)).expect(start);
    assert!(row("lonely ").contains("100 %  no_replica "), "{text}");
    assert!(row("bystander ").contains("0 %  - "), "{text}");
    row("bystander:1 * ");
    row("bystander:1:0 ");
    assert!(row("clipper ").contains("1 containers"), "{text}");
    bystander.was_served(&server);
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    let mut server = Server::start();
    server.kill();
    let output = top(&server, &["--once"]);
    assert_eq!(output.status.code(), Some(3));
    let error = String::from_utf8(output.stderr).unwrap();
    let url = format!("http://{}/metrics", server.query);
    assert!(error.contains(&url) && error.contains("refused"), "{error}");
    // Nor can it draw where there is no terminal.
    let output = top(&server, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--once"), "{output:?}");
}

/// `clipper top` in a terminal.
struct Terminal {
    process: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn open(server: &Server) -> Self {
        let mut process = Command::new(python())
            .args(["-u", "-c", TERMINAL, crate::binary(), "top"])
            .args(urls(server))
            .args(["--interval", "0.2"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let keys = process.stdin.take().unwrap();
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut stdout, drawn) = (process.stdout.take().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut some) {
                drawn.lock().unwrap().extend_from_slice(&some[..n]);
            }
        });
        Self { process, keys, screen }
    }

    /// Waits until a word is drawn that was not there since the last call.
    fn await_word(&self, word: &str) {
        eventually(&format!("{word:?} is on the screen"), || {
            let screen = self.screen.lock().unwrap();
            String::from_utf8_lossy(&screen).contains(word)
        });
        self.screen.lock().unwrap().clear();
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_screen_lives_through_a_restart_and_a_resize_and_ends_with_q() {
    let mut server = Server::start();
    server.serve("digits", "doubles", 20_000);
    let mut terminal = Terminal::open(&server);
    terminal.await_word("digits:1");
    terminal.press(b"?");
    terminal.await_word("throughput");
    terminal.press(b"?");
    terminal.await_word("digits:1");
    server.kill();
    terminal.await_word("unreachable");
    let server = server.restart_in_place();
    server.add_app("newcomer", "doubles", "-1", 20_000);
    terminal.await_word("newcomer");
    terminal.press(b"\0");
    // The whole screen is drawn anew.
    terminal.await_word("clipper");
    terminal.press(b"q");
    eventually("it ends", || terminal.process.try_wait().unwrap().is_some());
    assert_eq!(terminal.process.wait().unwrap().code(), Some(0));
    // The terminal is as it was: the alternate screen is left, the cursor is back.
    terminal.await_word("\u{1b}[?1049l");
}
