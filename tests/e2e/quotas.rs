//! How much holders of keys and clients of applications may ask for, over every protocol.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use clipper_grpc::client::Client;
use clipper_grpc::{Code, Status, framed};
use clipper_oip::grpc::{InferTensor, ModelInferRequest};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::access::{clipper, made, post, send, with_key};
use super::support::http::{Answer, Connection};
use crate::support::served::{Process, Served, until};
use crate::support::signals::signal;

/// So long nobody has to wait for an answer while a container stands still.
const SLO_US: u32 = 300_000_000;

/// A container that stands still keeps its place, and so does a request that is sent by halves.
const CONFIG: &str = "[rpc]\nsilence_timeout_ms = 300000\nbusy_max_ms = 300000\n\
                      [http]\nclient_request_timeout_ms = 300000\nrequest_timeout_ms = 300000\n";

/// A server with an application `a` and its model, a container of it, and the key of an admin.
struct Guarded {
    server: Served,
    container: Process,
    root: String,
}

impl Guarded {
    fn start(folder: &Path) -> Self {
        // Its keys are made later, and are no part of its log at any level.
        let mut command = Command::new(crate::binary());
        command.env("CLIPPER_LOG", "trace");
        let server = Served::start_by(command, CONFIG, folder);
        server.add_linked("a", SLO_US);
        let container = server.noop("a");
        server.await_replicas("a", 1);
        let add = ["key", "add", "root", "--role", "admin", "--json"];
        let root = made(&clipper(&server, None, &add));
        Self { server, container, root }
    }

    /// A key of the role predict, by flags of `clipper key add`.
    fn key(&self, name: &str, limits: &[&str]) -> String {
        let add = ["key", "add", name, "--role", "predict", "--json"];
        made(&clipper(&self.server, Some(&self.root), &[&add[..], limits].concat()))
    }

    fn manage(&self, path: &str, body: &Value) {
        let (status, text) = post(self.server.management, path, Some(&self.root), body);
        assert_eq!(status, 200, "{text}");
    }

    fn metric(&self, sample: &str) -> f64 {
        let key = with_key(Some(&self.root));
        let page = send(self.server.metrics, "GET", "/metrics", &key, "").text();
        let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    fn stop_container(&self) {
        signal(self.container.0.id(), Signal::SIGSTOP);
    }

    fn go_on(&self) {
        signal(self.container.0.id(), Signal::SIGCONT);
    }

    /// A query of its own, over each protocol: what comes of it in terms of HTTP.
    fn asked(&self, protocol: Protocol, key: &str, input: u32) -> (u16, String) {
        let (path, body) = match protocol {
            Protocol::Predict => ("/a/predict", json!({"input": [input]})),
            Protocol::V2 => ("/v2/models/a/infer", infer(input)),
            Protocol::Generate => ("/v2/models/a/generate", json!({"input": [input]})),
            Protocol::Grpc => return self.called(key, input),
        };
        let answer = post_to(self.server.query, path, key, &body);
        if answer.status == 429 {
            let wait: u32 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!(wait >= 1);
        }
        (answer.status, answer.text())
    }

    fn called(&self, key: &str, input: u32) -> (u16, String) {
        let status = call(self.server.grpc.unwrap(), key, input);
        match status.code {
            Code::Ok => (200, String::new()),
            Code::ResourceExhausted => {
                assert!(status.retry_after.is_some_and(|after| after.as_secs() >= 1));
                (429, status.message)
            }
            other => panic!("{other}: {}", status.message),
        }
    }

    /// Asks until the answer is of this status.
    fn until(&self, status: u16, protocol: Protocol, key: &str) -> String {
        let mut input = 0;
        until(&format!("{status} over {protocol:?}"), || {
            input += 1;
            let (found, text) = self.asked(protocol, key, input);
            assert!([200, 429].contains(&found), "{found} {text}");
            (found == status).then_some(text)
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Protocol {
    Predict,
    V2,
    Generate,
    Grpc,
}

const PROTOCOLS: [Protocol; 4] =
    [Protocol::Predict, Protocol::V2, Protocol::Generate, Protocol::Grpc];

fn infer(input: u32) -> Value {
    let input = json!({"name": "input", "datatype": "FP64", "shape": [1, 1], "data": [input]});
    json!({"inputs": [input]})
}

fn post_to(addr: SocketAddr, path: &str, key: &str, body: &Value) -> Answer {
    send(addr, "POST", path, &with_key(Some(key)), &body.to_string())
}

pub(super) fn call(addr: SocketAddr, key: &str, input: u32) -> Status {
    let tensor = InferTensor {
        name: "input".to_owned(),
        datatype: "FP64".to_owned(),
        shape: vec![1, 1],
        ..InferTensor::default()
    };
    let request = ModelInferRequest {
        model_name: "a".to_owned(),
        inputs: vec![tensor],
        raw_input_contents: vec![Bytes::copy_from_slice(&f64::from(input).to_le_bytes())],
        ..ModelInferRequest::default()
    };
    called(addr, key, framed(&request), None)
}

/// What a call of `ModelInfer` with the message in this frame comes to.
pub(super) fn called(
    addr: SocketAddr,
    key: &str,
    frame: Bytes,
    encoding: Option<&'static str>,
) -> Status {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let path = "/inference.GRPCInferenceService/ModelInfer";
        let (client, connection) = Client::open(stream, "test", path, None).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.with_key(Some(key));
        if let Some(encoding) = encoding {
            client.metadata.insert("grpc-encoding", encoding.parse().unwrap());
        }
        client.call(frame).await.unwrap().0
    })
}

/// Begins a request whose answer is read later.
fn begin(addr: SocketAddr, path: &str, key: &str, accept: &str, body: &Value) -> Connection {
    let mut connection = Connection::open(addr);
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{}{accept}Content-Length: \
         {}\r\n\r\n{body}",
        with_key(Some(key)),
        body.len()
    );
    connection.send(head.as_bytes());
    connection
}

#[test]
fn a_rate_is_refused_beyond_it_and_recovers_over_every_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let guarded = Guarded::start(folder.path());
    for (at, protocol) in PROTOCOLS.into_iter().enumerate() {
        let name = format!("team-{at}");
        let key = guarded.key(&name, &["--rate", "1", "--burst", "2"]);
        let told = guarded.until(429, protocol, &key);
        let whose = format!("Key '{name}' may make 1 queries a second (rate): try again in 1 s");
        assert!(told.contains(&whose), "{protocol:?}: {told}");
        guarded.until(200, protocol, &key);
        let refused = format!("clipper_key_limits_refused_total{{key=\"{name}\",limit=\"rate\"}}");
        assert!(guarded.metric(&refused) >= 1.0, "{protocol:?}");
        assert!(
            guarded.metric(&format!("clipper_key_limits_queries_total{{key=\"{name}\"}}")) >= 2.0
        );
    }
    assert_eq!(guarded.asked(Protocol::Predict, &guarded.root, 1).0, 200, "others have none");
}

#[test]
fn queries_under_way_are_limited_over_every_protocol_until_they_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let guarded = Guarded::start(folder.path());
    let key = guarded.key("team", &["--concurrent", "2"]);
    let other = guarded.key("other", &["--concurrent", "1"]);
    guarded.stop_container();
    let query = guarded.server.query;
    let mut waiting = begin(query, "/a/predict", &key, "", &json!({"input": [1.5]}));
    let events = "Accept: text/event-stream\r\n";
    let mut pieces = begin(query, "/a/predict", &key, events, &json!({"input": [2.5]}));
    until("two are under way", || {
        let under_way = guarded.metric("clipper_key_limits_concurrent{key=\"team\"}");
        ((under_way - 2.0).abs() < 0.5).then_some(())
    });
    for protocol in PROTOCOLS {
        let (status, told) = guarded.asked(protocol, &key, 9);
        assert_eq!(status, 429, "{protocol:?}: {told}");
        let whose = "Key 'team' may have 2 queries under way (concurrent): try again in 1 s";
        assert!(told.contains(whose), "{protocol:?}: {told}");
    }
    // A list that is longer never fits; what another key has does not matter.
    let list = post_to(query, "/a/predict", &other, &json!({"input_batch": [[3.5], [4.5]]}));
    assert_eq!(list.status, 413, "{}", list.text());
    assert!(list.text().contains("this request alone has more"), "{}", list.text());
    guarded.go_on();
    assert_eq!(waiting.answer("POST").unwrap().status, 200);
    assert_eq!(pieces.answer("POST").unwrap().status, 200);
    for protocol in PROTOCOLS {
        guarded.until(200, protocol, &key);
    }
    until("none is under way", || {
        let under_way = guarded.metric("clipper_key_limits_concurrent{key=\"team\"}");
        (under_way < 0.5).then_some(())
    });
}

#[test]
fn bodies_under_way_are_limited_in_sum_and_each_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let guarded = Guarded::start(folder.path());
    let key = guarded.key("team", &["--body-bytes", "1KiB"]);
    let query = guarded.server.query;
    let long = format!("{{\"input\":[{}1]}}", " ".repeat(1_100));
    for path in ["/a/predict", "/v2/models/a/infer", "/v2/models/a/generate"] {
        let answer = send(query, "POST", path, &with_key(Some(&key)), &long);
        let told = answer.text();
        assert_eq!(answer.status, 413, "{path}: {told}");
        assert!(told.contains("Key 'team'") && told.contains("1024 bytes"), "{path}: {told}");
    }
    // One that is on its way.
    let body = format!("{{\"input\":[{}1]}}", " ".repeat(1_007));
    let head = format!(
        "POST /a/predict HTTP/1.1\r\nHost: test\r\n{}Content-Length: {}\r\n\r\n",
        with_key(Some(&key)),
        body.len()
    );
    let (first, rest) = body.split_at(10);
    // It may meet a query that is being answered, and be refused for it: then another body.
    let mut connection = until("it is under way", || {
        let mut connection = Connection::open(query);
        connection.send(format!("{head}{first}").as_bytes());
        let mut others = (0..50).map(|_| guarded.asked(Protocol::Predict, &key, 1).0);
        others.any(|status| status == 429).then_some(connection)
    });
    for protocol in PROTOCOLS {
        let told = guarded.until(429, protocol, &key);
        assert!(told.contains("(body_bytes): try again in 1 s"), "{protocol:?}: {told}");
    }
    connection.send(rest.as_bytes());
    assert_eq!(connection.answer("POST").unwrap().status, 200);
    for protocol in PROTOCOLS {
        guarded.until(200, protocol, &key);
    }
}

#[test]
fn each_query_of_a_list_and_each_message_of_feedback_counts() {
    let folder = tempfile::tempdir().unwrap();
    let guarded = Guarded::start(folder.path());
    let (query, body) = (guarded.server.query, json!({"input": [1.0], "uid": 0, "label": 1.0}));
    let key = guarded.key("team", &["--rate", "1", "--burst", "50"]);
    let list = |n: usize| json!({"input_batch": vec![[1.0]; n]});
    let long = post_to(query, "/a/predict", &key, &list(51));
    assert_eq!(long.status, 413);
    assert!(long.text().contains("50 queries at once (burst)"), "{}", long.text());
    assert_eq!(post_to(query, "/a/predict", &key, &list(50)).status, 200);
    // A query a second has come back by now, not 49.
    assert_eq!(post_to(query, "/a/predict", &key, &list(49)).status, 429);
    let rows = vec![1.0; 49];
    let rows = json!({"name": "input", "datatype": "FP64", "shape": [49, 1], "data": rows});
    let rows = post_to(query, "/v2/models/a/infer", &key, &json!({"inputs": [rows]}));
    assert_eq!(rows.status, 429, "{}", rows.text());
    until("feedback is refused", || {
        let answer = post_to(query, "/a/update", &key, &body);
        assert!([200, 429].contains(&answer.status), "{}", answer.text());
        (answer.status == 429).then_some(())
    });
}

#[test]
fn all_clients_of_an_application_share_its_limits_with_and_without_keys() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[[application]]\nname = \"a\"\ninput_type = \"doubles\"\ndefault_output = \
                  \"-1\"\nlatency_slo_micros = 1000000\n[application.limits]\nrate = 1\n\
                  burst = 3\n";
    let server = Served::start(config, folder.path());
    let ask = || {
        let (status, told) = post(server.query, "/a/predict", None, &json!({"input": [1.0]}));
        assert!([200, 429].contains(&status), "{told}");
        (status == 429).then_some(told)
    };
    let told = until("it is refused", ask);
    assert!(told.contains("Application 'a' may make 1 queries a second (rate)"), "{told}");
    until("it recovers", || ask().is_none().then_some(()));
    let refused = "clipper_app_limits_refused_total{app=\"a\",limit=\"rate\"}";
    assert!(server.metric(refused) >= 1.0);
    // Other limits from now on, by the command, the request and the command again.
    let limit = ["admin", "apps", "limit", "a", "--concurrent", "5", "--priority", "low"];
    assert!(clipper(&server, None, &limit).status.success());
    let shown = || {
        let show = clipper(&server, None, &["admin", "apps", "show", "a", "--json"]);
        serde_json::from_slice::<Value>(&show.stdout).unwrap()["limits"].clone()
    };
    assert_eq!(shown(), json!({"concurrent": 5, "priority": "low"}));
    (0..20).for_each(|_| assert_eq!(ask(), None));
    let (status, told) = post(
        server.management,
        "/admin/update_app",
        None,
        &json!({"name": "a", "limits": {"rates": 5}}),
    );
    assert!(status == 400 && told.contains("there is none with name 'rates'"), "{told}");
    assert!(clipper(&server, None, &["admin", "apps", "limit", "a"]).status.success());
    assert_eq!(shown(), Value::Null);
    server.admin("/admin/delete_app", &json!({"name": "a"}));
    assert_eq!(server.metric(refused).to_bits(), 0.0_f64.to_bits());
}

#[test]
fn limits_of_applications_are_applied_and_exported_and_what_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    let wanted = |limits: Value| {
        json!({"application": [{"name": "a", "input_type": "doubles", "default_output": "-1",
            "latency_slo_micros": 1_000_000, "limits": limits}]})
    };
    let apply = |limits: Value| post(server.management, "/admin/apply", None, &wanted(limits));
    for (limits, why) in [
        (json!({"rates": 5}), "unknown field `rates`"),
        (json!({"burst": 5}), "burst says how many queries"),
        (json!({"rate": 0}), "rate must be 1 to 1000000, not 0"),
        (json!({"concurrent": 2_000_000_000}), "concurrent must be 1 to 1000000"),
        (json!({"priority": "highest"}), "unknown variant `highest`"),
    ] {
        let (status, told) = apply(limits);
        assert!(status == 400 && told.contains(why), "{why}: {status} {told}");
    }
    assert_eq!(apply(json!({"rate": 1, "burst": 3, "priority": "low"})).0, 200);
    let (_, exported) = post(server.management, "/admin/export", None, &json!({}));
    for line in ["[application.limits]", "rate = 1", "burst = 3", "priority = \"low\""] {
        assert!(exported.contains(line), "{line}: {exported}");
    }
    let ask = || post(server.query, "/a/predict", None, &json!({"input": [1.0]})).0;
    until("it is limited", || (ask() == 429).then_some(()));
    let (_, plan) = apply(json!({}));
    assert!(plan.contains("limits"), "{plan}");
    (0..20).for_each(|_| assert_eq!(ask(), 200));
}

#[test]
fn limits_of_keys_are_kept_shown_changed_and_end_with_their_key() {
    let folder = tempfile::tempdir().unwrap();
    let guarded = Guarded::start(folder.path());
    let limits = ["--rate", "100", "--burst", "200", "--body-bytes", "1MiB", "--priority", "low"];
    let key = guarded.key("team", &limits);
    let list = |guarded: &Guarded| {
        let listed = clipper(&guarded.server, Some(&guarded.root), &["key", "list"]);
        String::from_utf8(listed.stdout).unwrap()
    };
    assert!(list(&guarded).contains("100/s, burst 200, bodies of 1048576, low"));
    guarded.manage("/admin/limit_key", &json!({"name": "team", "limits": {"rate": 1}}));
    guarded.until(429, Protocol::Predict, &key);
    let Guarded { server, container, root } = guarded;
    server.kill_9();
    drop(container);

    let server = Served::start(CONFIG, folder.path());
    let container = server.noop("a");
    let guarded = Guarded { server, container, root };
    assert!(list(&guarded).contains("1/s"), "{}", list(&guarded));
    guarded.until(429, Protocol::Predict, &key);
    let told = clipper(&guarded.server, Some(&guarded.root), &["key", "limit", "team"]);
    let says = String::from_utf8(told.stdout).unwrap();
    assert!(says.contains("Key 'team' has no limits now"), "{says}");
    for _ in 0..20 {
        assert_eq!(guarded.asked(Protocol::Predict, &key, 1).0, 200);
    }
    let sample = "clipper_key_limits_queries_total{key=\"team\"}";
    assert_eq!(guarded.metric(sample).to_bits(), 0.0_f64.to_bits(), "its series ends");
    let none = ["key", "limit", "root", "--rate", "5", "--burst", "0"];
    assert!(!clipper(&guarded.server, Some(&guarded.root), &none).status.success());
    guarded.server.kill_9();
    let journal = Command::new(crate::binary())
        .args(["journal", "list", "--data-dir"])
        .arg(folder.path().join("data"))
        .output()
        .unwrap();
    let journal = String::from_utf8(journal.stdout).unwrap();
    assert_eq!(journal.matches("key_limited").count(), 2, "{journal}");
}
