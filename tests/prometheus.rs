//! What the server does for Prometheus: the file of targets, and the objectives.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::support::served::{Served, until};

/// Something on a port that answers every request with `page`.
fn page_server(page: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let head = BufReader::new(stream.try_clone().unwrap()).lines();
            let _ = head.map_while(Result::ok).find(String::is_empty);
            let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{page}");
        }
    });
    port
}

fn config(path: &Path, port: u16) -> String {
    format!(
        "[metrics]\nfile_sd_path = '{}'\ncontainer_port = {port}\nprobe_interval_ms = 20\n",
        path.display()
    )
}

fn targets_are(path: &PathBuf, expected: &str) {
    let what = format!("{} has {expected}", path.display());
    until(&what, || {
        let text = std::fs::read_to_string(path).unwrap();
        // Whole at any time.
        let _: serde_json::Value = serde_json::from_str(&text).unwrap();
        (text.trim() == expected).then_some(())
    });
}

#[test]
fn a_container_that_joins_is_a_target_until_it_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/for/it/targets.json");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "of an earlier server").unwrap();
    let port = page_server("# TYPE clipper_mc_pred_total counter\nclipper_mc_pred_total 7\n");
    let server = Served::start(&config(&path, port), folder.path());
    targets_are(&path, "[]");

    server.add_linked("live", 100_000);
    let container = server.noop("live");
    let labels = r#""labels":{"model":"live","version":"1","replica":"0"}"#;
    let target = format!(r#"[{{"targets":["127.0.0.1:{port}"],{labels}}}]"#);
    targets_are(&path, &target);
    drop(container);
    targets_are(&path, "[]");
    let _another = server.noop("live");
    targets_are(&path, &target.replace(r#""replica":"0""#, r#""replica":"1""#));
    let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn other_pages_are_no_targets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("targets.json");
    let port = page_server("clipper_replicas{model=\"live\",version=\"1\"} 1\n");
    let server = Served::start(&config(&path, port), folder.path());
    server.add_linked("live", 100_000);
    let _container = server.noop("live");
    server.await_replicas("live", 1);
    // Far more often than it is asked at most.
    for _ in 0..50 {
        std::thread::sleep(std::time::Duration::from_millis(10));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[]\n");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_the_first_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let out = std::process::Command::new(crate::binary())
        .args(["serve", "--query-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0"])
        .args(["--metrics-addr", "127.0.0.1:0", "--rpc-addr", "tcp://127.0.0.1:0"])
        .args(["--grpc-addr", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path().join("data"))
        .env("CLIPPER_METRICS__FILE_SD_PATH", folder.path().join("file/targets.json"))
        .output()
        .unwrap();
    assert!(!out.status.success());
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("metrics.file_sd_path: cannot write"), "{said}");
}

#[test]
fn objectives_are_metrics_while_their_application_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    server.add_linked("live", 20_500);
    let sample = "clipper_application_objective_seconds{app=\"live\"}";
    until("the objective", || (server.metric(sample) > 0.0).then_some(()));
    assert!((server.metric(sample) - 0.0205).abs() < 1e-9, "{}", server.metric(sample));
    server.admin("/admin/delete_app", &serde_json::json!({ "name": "live" }));
    until("no objective", || (server.metric(sample) <= 0.0).then_some(()));
}
