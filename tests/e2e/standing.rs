//! What goes on for long ends with the key of who asked for it: server-sent events, streams and
//! watches over gRPC, and what a connection remembers of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use clipper_grpc::client::Client;
use clipper_grpc::health::HealthCheckRequest;
use clipper_grpc::{Code, Status, framed};
use clipper_oip::grpc::{InferTensor, ModelInferRequest};
use serde_json::{Value, json};

use super::support::events::Events;
use super::support::python;
use crate::support::served::{Served, until};

/// One piece, and another when there is a file.
const MODEL: &str = "\
import os
from clipper_serving import streams

HERE = os.path.dirname(os.path.abspath(__file__))

@streams(4)
def waits(text):
    try:
        yield 'first'
        while not os.path.exists(os.path.join(HERE, 'go-on')):
            yield None
        yield 'last'
    finally:
        with open(os.path.join(HERE, 'closed'), 'a') as file:
            file.write('x')
";

const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const CHECK: &str = "/grpc.health.v1.Health/Check";

fn secret(name: &str) -> String {
    format!("{name}-{}", "0123456789abcdef".repeat(2))
}

/// Keys of the role `predict` in a file.
fn list(file: &Path, names: &[&str]) {
    let lines = names.iter().map(|name| format!("{name} predict {}\n", secret(name)));
    let next = file.with_extension("next");
    std::fs::write(&next, lines.collect::<String>()).unwrap();
    std::fs::rename(next, file).unwrap();
}

/// Application and model `m`, which answers in pieces, and the file of its keys.
fn served(folder: &Path, names: &[&str]) -> (Served, PathBuf) {
    let (model, keys) = (folder.join("model.py"), folder.join("keys"));
    std::fs::write(&model, MODEL).unwrap();
    list(&keys, names);
    let config = format!(
        "[access]\nkeys_file = \"{}\"\nopen_metrics = true\nopen_health = false\n\
         [[application]]\nname = \"m\"\ninput_type = \"strings\"\ndefault_output = \"none\"\n\
         latency_slo_micros = 20000000\nmodel = \"m\"\n\
         [[model]]\nname = \"m\"\nversion = \"1\"\ninput_type = \"strings\"\n\
         [model.container]\nruntime = \"python\"\nfunction = '{}:waits'\npython = '{}'\n",
        keys.display(),
        model.display(),
        python().to_string_lossy()
    );
    let server = Served::start(&config, folder);
    server.await_replicas("m", 1);
    (server, keys)
}

/// A call that ends when the server ends it.
fn call(addr: SocketAddr, path: &'static str, name: &str, frame: Bytes) -> JoinHandle<Status> {
    let key = secret(name);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
            let (client, connection) = Client::open(stream, "test", path, None).await.unwrap();
            tokio::spawn(connection);
            client.with_key(Some(&key)).call(frame).await.unwrap().0
        })
    })
}

fn request() -> Bytes {
    let input = InferTensor {
        name: "input".to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![1, 1],
        ..InferTensor::default()
    };
    framed(&ModelInferRequest {
        model_name: "m".to_owned(),
        inputs: vec![input],
        raw_input_contents: vec![Bytes::from_static(b"\x01\0\0\0a")],
        ..ModelInferRequest::default()
    })
}

/// Without what the generator yields while it waits.
fn texts(pieces: &[Value]) -> Vec<&str> {
    pieces.iter().filter_map(Value::as_str).collect()
}

fn closed(folder: &Path) -> usize {
    std::fs::read(folder.join("closed")).map_or(0, |text| text.len())
}

#[test]
fn streams_and_watches_end_with_the_key_of_who_asked_and_with_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (server, keys) = served(folder.path(), &["one", "two"]);
    let events = |name: &str| {
        let key = format!("Authorization: Bearer {}\r\n", secret(name));
        let input = json!({"input": "x"});
        let mut events = Events::post_with(server.query, "/m/predict", &key, &input);
        assert_eq!(events.status, 200);
        assert_eq!(events.piece(), json!("first"));
        events
    };
    let (first, second) = (events("one"), events("two"));
    let grpc = server.grpc.unwrap();
    let watch = || framed(&HealthCheckRequest::default());
    let revoked = [call(grpc, STREAM, "one", request()), call(grpc, WATCH, "one", watch())];
    let kept = call(grpc, WATCH, "two", watch());
    let calls = "clipper_http_connections{frontend=\"grpc\"}";
    until("they are open", || (server.metric(calls) >= 3.0).then_some(()));

    list(&keys, &["two"]);
    let changed = Instant::now();
    let (pieces, end) = first.rest();
    assert_eq!((texts(&pieces), &end["end"]), (vec![], &json!("unauthorized")), "{end}");
    let reason = end["reason"].as_str().unwrap();
    assert!(reason.contains("Key 'one' is no good any more"), "{reason}");
    for call in revoked {
        let status = call.join().unwrap();
        // A stream that had not begun by then is not let in.
        assert_eq!(status.code, Code::Unauthenticated, "{}", status.message);
    }
    println!("all ended {:?} after the file was changed", changed.elapsed());
    until("their generators are closed", || (closed(folder.path()) >= 1).then_some(()));
    assert!(!kept.is_finished(), "that of another goes on");
    std::fs::write(folder.path().join("go-on"), "").unwrap();
    let (pieces, end) = second.rest();
    assert_eq!((texts(&pieces), &end["end"]), (vec!["last"], &json!("complete")), "{end}");
    list(&keys, &[]);
    assert_eq!(kept.join().unwrap().code, Code::Unauthenticated);
}

#[test]
fn each_call_of_a_connection_is_its_own_key_s_and_none_outlives_it() {
    let folder = tempfile::tempdir().unwrap();
    let (server, keys) = served(folder.path(), &["one", "two"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.grpc.unwrap()).await.unwrap();
        let (client, connection) = Client::open(stream, "test", CHECK, None).await.unwrap();
        tokio::spawn(connection);
        client
    });
    let code = |name: &str| {
        let mut client = client.clone().with_key(Some(&secret(name)));
        let called = client.call(framed(&HealthCheckRequest::default()));
        runtime.block_on(called).unwrap().0.code
    };
    for name in ["one", "one", "nobody", "one", "two", "nobody", "nobody", "two"] {
        let expected = if name == "nobody" { Code::Unauthenticated } else { Code::Ok };
        assert_eq!(code(name), expected, "{name}");
    }
    list(&keys, &["one"]);
    until("it is no good any more", || (code("two") == Code::Unauthenticated).then_some(()));
    assert_eq!(code("one"), Code::Ok);
}
