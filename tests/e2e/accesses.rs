//! The access log: what its lines say, which requests have one, and that nobody waits for it.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use super::access::{clipper, made};
use super::quotas::call;
use super::support::http::{Answer, Connection};
use crate::support::served::{Http, Process, Served, app, until};

const SLO_US: u32 = 20_000_000;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Application `m` over doubles, whose model `m` answers 7; `nobody` has no model.
fn start(settings: &str, folder: &Path) -> (Served, Process) {
    let file = folder.join("access.log");
    let config = format!("[access_log]\nfile = '{}'\n{settings}\n", file.display());
    serve(Served::start(&config, folder))
}

fn serve(server: Served) -> (Served, Process) {
    server.add_linked("m", SLO_US);
    server.admin("/admin/add_app", &app("nobody", SLO_US));
    let replica = server.noop("m");
    server.await_replicas("m", 1);
    (server, replica)
}

fn send(server: &Served, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut connection = Connection::open(server.query);
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.send(head.as_bytes());
    connection.answer(method).expect("an answer")
}

fn text(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("access.log")).unwrap_or_default()
}

/// The line of the request with this id.
fn line(folder: &Path, id: &str) -> Value {
    until("a line", || {
        let text = text(folder);
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.into_iter().find(|line| line["request_id"] == json!(id))
    })
}

fn id(name: &str) -> String {
    format!("X-Request-Id: {name}\r\n")
}

#[test]
fn a_line_says_who_asked_for_what_and_what_came_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "mode = 'all'\ntrusted_proxies = ['127.0.0.1']";
    let (server, _replica) = start(settings, folder.path());
    let body = json!({"input": [1.0]}).to_string();
    let headers = format!(
        "{}X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\ntraceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n",
        id("good")
    );
    let answer = send(&server, "POST", "/m/predict?token=hidden", &headers, &body);
    assert_eq!(answer.status, 200);
    let told = line(folder.path(), "good");
    for (field, expected) in [
        ("port", json!("query")),
        ("address", json!("192.0.2.7")),
        ("method", json!("POST")),
        ("path", json!("/m/predict")),
        ("status", json!(200)),
        ("bytes_in", json!(body.len())),
        ("bytes_out", json!(answer.body.len())),
        ("trace_id", json!(TRACE)),
        ("app", json!("m")),
        ("outcome", json!("prediction")),
        ("queries", json!(1)),
        ("defaults", json!(0)),
    ] {
        assert_eq!(told[field], expected, "{field}: {told}");
    }
    assert!(told["time"].as_str().unwrap().ends_with('Z'), "{told}");
    assert!(told["duration_us"].as_u64().unwrap() > 0 && told.get("key").is_none(), "{told}");
    // Default outputs and errors, over both protocols.
    send(&server, "POST", "/nobody/predict", &id("default"), &body);
    let told = line(folder.path(), "default");
    assert_eq!((&told["outcome"], &told["defaults"]), (&json!("no_replica"), &json!(1)));
    assert!(told["reason"].as_str().unwrap().contains("not linked"), "{told}");
    let rows = json!({"inputs": [{"name": "input", "shape": [2, 1], "datatype": "FP64",
        "data": [1, 2]}]});
    send(&server, "POST", "/v2/models/m/infer", &id("v2"), &rows.to_string());
    let told = line(folder.path(), "v2");
    assert_eq!((&told["app"], &told["queries"]), (&json!("m"), &json!(2)));
    send(&server, "POST", "/v2/models/nobody/infer", &id("none"), &rows.to_string());
    let told = line(folder.path(), "none");
    assert_eq!((&told["status"], &told["outcome"]), (&json!(503), &json!("no_replica")));
    assert_eq!(told["error"], json!("no_prediction"));
    send(&server, "POST", "/m/predict", &id("wrong"), "[");
    let told = line(folder.path(), "wrong");
    assert_eq!((&told["status"], &told["error"]), (&json!(400), &json!("json")));
    send(&server, "GET", "/no/such/path", &id("path"), "");
    assert_eq!(line(folder.path(), "path")["error"], json!("not_found"));
    // A long answer has its line when it has been sent.
    let long = json!({"input_batch": vec![[1.0]; 9_000]}).to_string();
    let answer = send(&server, "POST", "/m/predict", &id("long"), &long);
    let told = line(folder.path(), "long");
    assert!(answer.body.len() > 64 << 10);
    assert_eq!(told["bytes_out"], json!(answer.body.len()));
    assert!(told.get("cut").is_none(), "{told}");
    assert!(!text(folder.path()).contains("hidden"));
}

#[test]
fn a_line_names_the_key_and_has_no_secret_over_http_and_grpc() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let config =
        format!("[access_log]\nmode = 'all'\nformat = 'text'\nfile = '{}'\n", file.display());
    let (server, _replica) = serve(Served::start(&config, folder.path()));
    let root = made(&clipper(&server, None, &["key", "add", "r", "--role", "admin", "--json"]));
    let add = ["key", "add", "team", "--role", "predict", "--json"];
    let key = made(&clipper(&server, Some(&root), &add));
    let headers = format!("{}Authorization: Bearer {key}\r\n", id("keyed"));
    let body = json!({"input": [1.0]}).to_string();
    assert_eq!(send(&server, "POST", "/m/predict", &headers, &body).status, 200);
    let wrong = format!("{}Authorization: Bearer wrong-{key}\r\n", id("refused"));
    assert_eq!(send(&server, "POST", "/m/predict", &wrong, &body).status, 401);
    let found = |what: &str| {
        until(what, || {
            text(folder.path()).lines().find(|line| line.contains(what)).map(str::to_owned)
        })
    };
    let told = found("request_id=keyed");
    assert!(told.contains(" query POST /m/predict 200 ") && told.contains(" key=team "), "{told}");
    let told = found("request_id=refused");
    assert!(told.contains(" 401 ") && told.ends_with(" error=unauthorized"), "{told}");
    let grpc = server.grpc.unwrap();
    call(grpc, "wrong", 1);
    let told = found("grpc_status=UNAUTHENTICATED");
    assert!(told.contains(" grpc POST /inference.GRPCInferenceService/ModelInfer 200 "), "{told}");
    // There is no model of that name.
    call(grpc, &key, 1);
    let told = found("grpc_status=NOT_FOUND");
    assert!(told.contains(" key=team ") && told.contains(" error=unknown_application"), "{told}");
    assert!(!text(folder.path()).contains(&key));
    assert!(!text(folder.path()).contains(&root));
}

#[test]
fn some_of_what_went_well_has_a_line_and_all_that_did_not() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _replica) = start("mode = 'sampled'\none_in = 1000000000", folder.path());
    let body = json!({"input": [1.0]}).to_string();
    for n in 0..50 {
        send(&server, "POST", "/m/predict", &id(&format!("good-{n}")), &body);
    }
    send(&server, "POST", "/nobody/predict", &id("default"), &body);
    send(&server, "POST", "/m/predict", &id("wrong"), "[");
    assert_eq!(line(folder.path(), "default")["defaults"], json!(1));
    assert_eq!(line(folder.path(), "wrong")["status"], json!(400));
    assert!(!text(folder.path()).contains("good-"), "{}", text(folder.path()));
}

#[test]
fn without_it_there_is_no_line_and_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _replica) = start("", folder.path());
    let body = json!({"input": [1.0]}).to_string();
    assert_eq!(send(&server, "POST", "/m/predict", "", &body).status, 200);
    assert!(!folder.path().join("access.log").exists());
}

/// Predictions go on, and lines are counted that could not be written.
fn loses_lines_alone(server: &Served) {
    let body = json!({"input": [1.0]}).to_string();
    let mut http = Http::new(server.query);
    until("lost lines are counted", || {
        let (status, text) = http.request("POST", "/m/predict", &body).unwrap();
        assert!(status == 200 && text.contains("\"output\":7"), "{text}");
        (server.metric("clipper_access_log_lines_lost_total") > 0.0).then_some(())
    });
}

#[test]
fn a_full_disk_or_a_reader_that_is_gone_costs_lines_and_no_predictions() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[access_log]\nmode = 'all'\nfile = '/dev/full'\n";
    let (server, _replica) = serve(Served::start(config, folder.path()));
    loses_lines_alone(&server);
    let folder = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let config = "[access_log]\nmode = 'all'\n";
    let stderr = Stdio::from(OwnedFd::from(writer));
    let (server, _replica) = serve(Served::start_unheard(stderr, config, folder.path()));
    drop(reader);
    loses_lines_alone(&server);
    // One that nobody reads.
    let folder = tempfile::tempdir().unwrap();
    let (_unread, writer) = std::io::pipe().unwrap();
    let config = "[access_log]\nmode = 'all'\nqueue_max_bytes = 10000\n";
    let stderr = Stdio::from(OwnedFd::from(writer));
    let (server, _replica) = serve(Served::start_unheard(stderr, config, folder.path()));
    loses_lines_alone(&server);
}

#[test]
fn a_file_that_cannot_be_had_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(crate::binary());
    command.args(["serve", "--query-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0"]);
    command.args(["--metrics-addr", "127.0.0.1:0", "--rpc-addr", "tcp://127.0.0.1:0"]);
    command.arg("--data-dir").arg(folder.path());
    command.env("CLIPPER_ACCESS_LOG__MODE", "all");
    command.env("CLIPPER_ACCESS_LOG__FILE", "/dev/null/access.log");
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("access_log.file /dev/null/"), "{told}");
}
