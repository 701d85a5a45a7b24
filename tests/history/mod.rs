//! Who changed what, when and why, as an operator asks for it.

mod asked;
mod backup;
mod kept;
mod log;
mod many;
mod old;
mod stream;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::served::Served;
use crate::support::signals::signal;

/// A command of the binary against a server.
fn clipper(server: &Served, args: &[&str]) -> Output {
    let mut command = Command::new(crate::binary());
    command.args(args).env("CLIPPER_MANAGEMENT_URL", format!("http://{}", server.management));
    command.output().unwrap()
}

/// What one that succeeds prints.
fn done(server: &Served, args: &[&str]) -> String {
    let output = clipper(server, args);
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {says}");
    String::from_utf8(output.stdout).unwrap()
}

/// A verb of `clipper journal` on a directory that no server has open.
fn offline(data_dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(crate::binary());
    command.env_clear().arg("journal").args(args).arg("--data-dir").arg(data_dir);
    command.output().unwrap()
}

/// Its events as JSON, one a line.
fn listed(data_dir: &Path) -> Vec<Value> {
    let output = offline(data_dir, &["list", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What `clipper ... --json` prints.
fn told(server: &Served, args: &[&str]) -> Value {
    serde_json::from_str(&done(server, &[args, &["--json"]].concat())).unwrap()
}

fn stop(server: Served) {
    signal(server.pid(), nix::sys::signal::Signal::SIGTERM);
    assert!(server.exit_status().success());
}

/// Changes the objective of an application.
fn set_slo(server: &Served, app: &str, micros: u32) {
    let body = serde_json::json!({"name": app, "latency_slo_micros": micros});
    server.admin("/admin/update_app", &body);
}
