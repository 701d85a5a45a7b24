//! `clipper journal` on the journal of a real server, while it runs and afterwards.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::signals::signal;

const CONFIG: &str = r#"
[http]
query_addr = "127.0.0.1:0"
management_addr = "127.0.0.1:0"
metrics_addr = "127.0.0.1:0"
[grpc]
addr = "127.0.0.1:0"
[rpc]
addr = "tcp://127.0.0.1:0"
[[application]]
name = "digits"
input_type = "doubles"
default_output = "-1"
latency_slo_micros = 100000
model = "m"
[[model]]
name = "m"
version = "1"
input_type = "doubles"
batch_size = 8
"#;

/// A server that is killed with its test.
struct Server(Child);

impl Server {
    /// Starts one in `folder` and waits until it listens.
    fn start(folder: &Path) -> Self {
        let mut child = clipper(folder)
            .args(["serve", "--config", "c.toml"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = lines.any(|line| line.unwrap().contains("listening"));
        assert!(listening, "the server ended before it listened");
        // The rest is read and dropped, so that the server never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }

    fn stop(mut self) {
        signal(self.0.id(), Signal::SIGTERM);
        assert_eq!(self.0.wait().unwrap().code(), Some(0), "SIGTERM ends it cleanly");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn clipper(folder: &Path) -> Command {
    let mut command = Command::new(crate::binary());
    command.env_clear().current_dir(folder);
    command
}

fn journal(folder: &Path, args: &[&str]) -> Output {
    clipper(folder).arg("journal").args(args).output().unwrap()
}

fn stdout(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_a_server_wrote_can_be_listed_verified_and_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("c.toml"), CONFIG).unwrap();
    let server = Server::start(folder);
    let refused = journal(folder, &["list"]);
    assert_eq!(refused.status.code(), Some(1));
    let reason = String::from_utf8(refused.stderr).unwrap();
    assert!(reason.contains("in use"), "{reason}");
    server.stop();

    let listed = stdout(journal(folder, &["list", "--json"]));
    let events: Vec<Value> =
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2, 3, 4], "{listed}");
    assert!(events.iter().all(|event| event["origin"] == "bootstrap"), "{listed}");
    let some = stdout(journal(folder, &["list", "--from", "2", "--limit", "2"]));
    assert_eq!(some.lines().count(), 2, "{some}");

    let verified = stdout(journal(folder, &["verify"]));
    assert!(verified.ends_with("clean\n") && verified.starts_with("4 events"), "{verified}");
    let verified: Value =
        serde_json::from_str(&stdout(journal(folder, &["verify", "--json"]))).unwrap();
    assert_eq!((&verified["events"], &verified["fault"]), (&4.into(), &Value::Null));

    let state = stdout(journal(folder, &["state"]));
    let lines: Vec<&str> = state.lines().collect();
    assert_eq!(lines[0], "after event 4");
    assert_eq!(lines[1], "application digits: doubles, 100000 us, default \"-1\", model m");
    assert_eq!(lines[2], "model m:1: doubles, batches of 8, current");
    let first = stdout(journal(folder, &["state", "--at", "1", "--json"]));
    let first: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(first["seq"], 1);
    assert_eq!(journal(folder, &["state", "--at", "99"]).status.code(), Some(1));
}

#[test]
fn a_data_directory_without_a_journal_is_a_failure_and_stays_empty() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["list", "verify", "state"] {
        let output = journal(folder.path(), &[command, "--data-dir", "nothing"]);
        assert_eq!(output.status.code(), Some(1), "{command}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
