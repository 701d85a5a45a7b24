//! How the server hears signals, starts and stops.

use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::served::{Http, Served, app, until};
use crate::support::signals::signal;

/// Waits for the end; `None` only in a failing test.
fn ended(child: &mut Child) -> std::process::ExitStatus {
    until("the process ends", || child.try_wait().unwrap())
}

/// `clipper serve` on free ports, run by a shell that first does `before`.
fn serve_after(before: &str, config: &str, folder: &Path) -> Child {
    let file = folder.join("clipper.toml");
    std::fs::write(&file, config).unwrap();
    let script = format!("{before}; exec \"$@\"");
    Command::new("sh")
        .args(["-c", &script, "sh", crate::binary(), "serve", "--query-addr", "127.0.0.1:0"])
        .args(["--management-addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0"])
        .args(["--grpc-addr", "127.0.0.1:0"])
        .args(["--rpc-addr", "tcp://127.0.0.1:0", "--config"])
        .arg(&file)
        .arg("--data-dir")
        .arg(folder.join("data"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn line_07_a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh", crate::binary()]);
    let server = Served::start_by(shell, "", folder.path());
    for _ in 0..20 {
        signal(server.pid(), Signal::SIGHUP);
        let (status, _) = Http::new(server.management).request("GET", "/readyz", "").unwrap();
        assert!([200, 503].contains(&status), "{status}");
    }
    signal(server.pid(), Signal::SIGTERM);
    assert!(server.exit_status().success());
}

/// A server that has been ready.
fn ready(config: &str, folder: &Path) -> Served {
    let server = Served::start(config, folder);
    until("it is ready", || {
        let (status, _) = Http::new(server.query).request("GET", "/readyz", "").unwrap();
        (status == 200).then_some(())
    });
    server
}

#[test]
fn line_07_a_second_signal_ends_the_server_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "[http]\nshutdown_timeout_ms = 86400000\ndrain_delay_ms = 86400000";
    let mut server = ready(settings, folder.path());
    signal(server.pid(), Signal::SIGTERM);
    until("it says that it stops", || {
        server.log().iter().any(|line| line.contains("stopping")).then_some(())
    });
    assert!(server.is_up(), "it drains");
    signal(server.pid(), Signal::SIGTERM);
    assert_eq!(server.exit_status().code(), Some(128 + 15));
}

#[test]
fn line_07_too_few_files_are_a_reason_not_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = serve_after("ulimit -n 32", "", folder.path());
    assert_eq!(ended(&mut child).code(), Some(1));
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("may open 32 files"), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn line_07_a_start_that_never_completes_can_be_stopped() {
    // A Redis that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "redis_url = 'redis://{}'\n[redis]\nconnect_timeout_ms = 86400000\n\
         command_timeout_ms = 86400000",
        silent.local_addr().unwrap()
    );
    let mut child = serve_after("true", &config, folder.path());
    let _asked = silent.accept().unwrap();
    signal(child.id(), Signal::SIGTERM);
    assert!(ended(&mut child).success());
}

#[test]
fn line_08_whoever_is_told_that_it_is_ready_is_not_cut_off() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let server = ready("", folder.path());
        signal(server.pid(), Signal::SIGTERM);
        server.says("stopping: in-flight queries finish first");
        assert!(server.exit_status().success());
    }
}

#[test]
fn line_08_a_stopping_server_says_so_before_it_closes() {
    let folder = tempfile::tempdir().unwrap();
    let server = ready("[http]\ndrain_delay_ms = 4000", folder.path());
    let mut kept_alive = Http::new(server.query);
    signal(server.pid(), Signal::SIGTERM);
    until("it is not ready", || {
        (kept_alive.request("GET", "/readyz", "").unwrap().0 == 503).then_some(())
    });
    let (status, _) = Http::new(server.query).request("GET", "/livez", "").unwrap();
    assert_eq!(status, 200, "new connections are served while it drains");
    assert!(server.exit_status().success());
}

#[test]
fn line_08b_a_full_disk_under_the_log_does_not_keep_a_server_from_changes_or_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let server = Served::start_unheard(full.into(), "", folder.path());
    server.admin("/admin/add_app", &app("a", 100_000));
    until("lost lines are counted", || {
        (server.metric("clipper_log_lines_lost_total") > 0.0).then_some(())
    });
    signal(server.pid(), Signal::SIGTERM);
    assert!(server.exit_status().success());
}
