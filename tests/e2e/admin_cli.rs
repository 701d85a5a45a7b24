//! `clipper admin` and `clipper completions`, as an operator and a script use them.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::e2e::support::eventually;
use crate::e2e::support::server::Server;
use crate::support::ports::free_addr;

/// `clipper` with `line` as its words, against `url`.
pub fn clipper(url: &str, line: &[&str]) -> Output {
    let mut command = Command::new(crate::binary());
    command.args(line).env("CLIPPER_MANAGEMENT_URL", url).output().unwrap()
}

fn url(server: &Server) -> String {
    format!("http://{}", server.management)
}

/// What a successful verb prints.
fn done(server: &Server, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = clipper(&url(server), &words);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{line}: {out}{err}");
    out
}

/// What a refused verb says.
fn refused(server: &Server, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = clipper(&url(server), &words);
    assert_eq!(output.status.code(), Some(1), "{line}: {}", text(&output.stdout));
    text(&output.stderr)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The cells of a table, line by line.
fn cells(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn every_verb_does_what_it_says() {
    let server = Server::start();
    assert!(done(&server, "admin ping").contains("ready"));
    assert_eq!(done(&server, "admin apps list"), "No applications.\n");
    done(&server, "admin apps add a --input-type doubles --default-output -1 --slo-ms 20.5");
    done(&server, "admin models add m 1 --input-type doubles --label x --label y");
    done(&server, "admin models add m 2 --input-type doubles");
    done(&server, "admin links add a m");
    let apps = done(&server, "admin apps list");
    assert_eq!(cells(&apps)[1], ["a", "doubles", "20.5", "ms", "-1", "m"]);
    assert_eq!(cells(&done(&server, "admin links list"))[1], ["a", "m"]);
    let app: Value = serde_json::from_str(&done(&server, "admin apps show a --json")).unwrap();
    assert_eq!(
        (&app["latency_slo_micros"], &app["default_output"]),
        (&json!(20_500), &json!("-1"))
    );
    assert!(done(&server, "admin models show m").contains("model_version       2"));
    done(&server, "admin models set-version m 1");
    assert!(done(&server, "admin models show m").contains("labels              x, y"));
    assert_eq!(done(&server, "admin state a --uid 3"), "-1\n");
    let rows = done(&server, "admin models list");
    assert_eq!(cells(&rows)[1][..5], ["m", "1", "yes", "doubles", "0"]);
    assert_eq!(cells(&rows).len(), 3, "{rows}");
    assert!(done(&server, "admin containers list").starts_with("No replica"));
    assert_eq!(done(&server, "admin containers list --json"), "[]\n");
    assert!(done(&server, "admin metrics --prometheus").contains("# TYPE clipper_"));
    done(&server, "admin links remove a m");
    done(&server, "admin models delete m 1");
    done(&server, "admin apps delete a");
    assert_eq!(done(&server, "admin links list"), "No links.\n");
    assert!(!done(&server, "admin models list --json").contains("\"1\""));
}

#[test]
fn a_refusal_says_what_to_do_and_has_its_exit_code() {
    let server = Server::start();
    assert!(refused(&server, "admin apps show digits").contains("There is none yet"));
    server.serve("digits", "doubles", 20_000);
    assert!(refused(&server, "admin apps show digit").contains("Did you mean 'digits'?"));
    assert!(refused(&server, "admin links add digits digitz").contains("Did you mean 'digits'?"));
    assert!(refused(&server, "admin models show digitz").contains("Did you mean 'digits'?"));
    assert!(refused(&server, "admin models set-version digits 9").contains("'digits:1'"));
    assert!(refused(&server, "admin containers show digits 1 0").contains("There is none yet"));
    let double = "admin apps add digits --input-type d --default-output 0 --slo-ms 1";
    assert!(refused(&server, double).contains("already exists"));
    let query = format!("http://{}", server.query);
    let elsewhere = clipper(&query, &["admin", "apps", "list"]);
    assert_eq!(elsewhere.status.code(), Some(1));
    let says = text(&elsewhere.stderr);
    assert!(says.contains("managed at another port") && says.contains("1338"), "{says}");
}

#[test]
fn a_server_that_is_not_there_is_told_apart() {
    let nobody = free_addr();
    let output = clipper(&format!("http://{nobody}"), &["admin", "models", "list"]);
    let says = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{says}");
    for part in [&nobody.to_string(), "clipper serve", "--url", "CLIPPER_MANAGEMENT_URL"] {
        assert!(says.contains(part), "{part}: {says}");
    }
    // A port that takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let words = ["admin", "ping", "--request-timeout", "0.2"];
    let output = clipper(&url, &words);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let output = clipper("https://nobody.invalid", &["admin", "ping"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let output = clipper("ftp://h", &["admin", "ping"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(clipper(&url, &["admin", "apps"]).status.code(), Some(2));
}

#[test]
fn a_watch_shows_what_changes() {
    use std::io::{BufRead, BufReader};
    let server = Server::start();
    let mut watch = Command::new(crate::binary())
        .args(["admin", "apps", "list", "--json", "--watch", "0.05", "--url", &url(&server)])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.next().unwrap(), "[]");
    server.add_app("a", "doubles", "-1", 1000);
    eventually("the watch shows it", || lines.next().unwrap().contains("\"a\""));
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn shells_can_complete_it() {
    for (shell, part) in
        [("bash", "complete -F"), ("zsh", "#compdef clipper"), ("fish", "complete")]
    {
        let output = clipper("", &["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = text(&output.stdout);
        assert!(script.contains(part) && script.contains("set-version"), "{shell}");
    }
}
