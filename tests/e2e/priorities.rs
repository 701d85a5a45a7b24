//! `priority` of requests of the Open Inference Protocol, over both protocols: what is asked for by
//! a high one goes before what waits, within what its application has of the model.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, TryRecvError};

use clipper_grpc::client::Client;
use clipper_grpc::{Code, framed};
use clipper_oip::grpc::{InferTensor, ModelInferRequest, ModelInferResponse, ParameterChoice};
use prost::Message as _;
use serde_json::{Value, json};

use super::support::http::call;
use crate::support::served::{PATIENCE, Process, Served, app, until};

/// Far above what is asked at first takes, so that a slow machine changes nothing.
const SLO_US: u32 = 25_000_000;
/// A batch of one query takes so long.
const QUERY_MS: u64 = 200;

const HIGH: u64 = 1;
const LOW: u64 = 2;

/// More than can be answered in time: what is beyond that gets the default output at once.
const FLOOD: u64 = 300;
/// Of high priority.
const FEW: u64 = 20;

#[derive(Debug, Clone, Copy)]
enum Protocol {
    Rest,
    Grpc,
}

/// Model `a` with one replica, and applications `a` and `b` before it.
fn served(folder: &Path) -> (Served, Process) {
    let server = Served::start("", folder);
    server.add_linked("a", SLO_US);
    server.admin("/admin/add_app", &app("b", SLO_US));
    server.admin("/admin/add_model_links", &json!({"app_name": "b", "model_names": ["a"]}));
    let child = Command::new(crate::binary())
        .args(["container", "noop", "--name", "a", "--version", "1", "--output", "7"])
        .args(["--connect", &format!("tcp://{}", server.rpc)])
        .arg(format!("--sleep-us={}", QUERY_MS * 1_000))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let container = Process(child);
    server.await_replicas("a", 1);
    // Now it is known how long a query takes.
    for n in 0..3 {
        ask(&server, Protocol::Rest, ("a", 0), (1_000 + n, 1)).recv_timeout(PATIENCE).unwrap();
    }
    (server, container)
}

/// Asks for so many rows, each another one, `first` and those after it. What is got when all of
/// them are answered: how many have an output.
fn ask(
    server: &Served,
    protocol: Protocol,
    (app, priority): (&'static str, u64),
    (first, rows): (u64, u64),
) -> Receiver<usize> {
    let (tell, told) = mpsc::channel();
    let values: Vec<f64> = (first..first + rows).map(|n| n as f64).collect();
    let (query, grpc) = (server.query, server.grpc.unwrap());
    std::thread::spawn(move || {
        let texts = match protocol {
            Protocol::Rest => over_rest(query, (app, priority), &values),
            Protocol::Grpc => over_grpc(grpc, (app, priority), &values),
        };
        // The test may have seen enough.
        let _ = tell.send(texts.iter().filter(|text| *text == "7").count());
    });
    told
}

fn over_rest(addr: SocketAddr, (app, priority): (&str, u64), values: &[f64]) -> Vec<String> {
    let rows = json!({"name": "input", "datatype": "FP64", "shape": [values.len(), 1],
        "data": values});
    let parameters = json!({"priority": priority, "default": true});
    let body = json!({"inputs": [rows], "parameters": parameters}).to_string();
    let answer = call(addr, "POST", &format!("/v2/models/{app}/infer"), body.as_bytes());
    let answer: Value = serde_json::from_slice(&answer.unwrap().body).unwrap();
    serde_json::from_value(answer["outputs"][0]["data"].clone()).unwrap()
}

fn over_grpc(addr: SocketAddr, (app, priority): (&str, u64), values: &[f64]) -> Vec<String> {
    let input = InferTensor {
        name: "input".to_owned(),
        datatype: "FP64".to_owned(),
        shape: vec![i64::try_from(values.len()).unwrap(), 1],
        ..InferTensor::default()
    };
    let request = ModelInferRequest {
        model_name: app.to_owned(),
        inputs: vec![input],
        raw_input_contents: vec![values.iter().flat_map(|value| value.to_le_bytes()).collect()],
        parameters: [
            ("priority".to_owned(), ParameterChoice::Uint64(priority).into()),
            ("default".to_owned(), ParameterChoice::Bool(true).into()),
        ]
        .into(),
        ..ModelInferRequest::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (status, answer) = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let path = "/inference.GRPCInferenceService/ModelInfer";
        let (mut client, connection) = Client::open(stream, "test", path, None).await.unwrap();
        tokio::spawn(connection);
        client.call(framed(&request)).await.unwrap()
    });
    assert_eq!(status.code, Code::Ok, "{}", status.message);
    let answer = ModelInferResponse::decode(answer).unwrap();
    let mut texts = Vec::new();
    let mut rest = &answer.raw_output_contents[0][..];
    while let Some((length, text)) = rest.split_first_chunk() {
        let (text, behind) = text.split_at(u32::from_le_bytes(*length) as usize);
        texts.push(String::from_utf8(text.to_vec()).unwrap());
        rest = behind;
    }
    texts
}

impl Served {
    fn answered(&self) -> f64 {
        self.metric("clipper_model_predictions_total{model=\"a\",version=\"1\"}")
    }

    /// Waits until so many queries stand in the queue of the model.
    fn await_queue(&self, queries: f64) {
        until("the queue is long", || {
            let depth = self.metric("clipper_queue_depth{model=\"a\",version=\"1\"}");
            (depth >= queries).then_some(())
        });
    }
}

fn waits(asked: &Receiver<usize>) -> bool {
    matches!(asked.try_recv(), Err(TryRecvError::Empty))
}

#[test]
fn a_high_priority_overtakes_low_ones_that_wait_over_both_protocols() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _container) = served(folder.path());
    let low = ask(&server, Protocol::Rest, ("a", LOW), (0, FLOOD));
    server.await_queue(40.0);
    for (protocol, first) in [(Protocol::Rest, 10_000), (Protocol::Grpc, 20_000)] {
        let high = ask(&server, protocol, ("a", HIGH), (first, FEW));
        let answered = high.recv_timeout(PATIENCE).unwrap();
        assert_eq!(answered as u64, FEW, "{protocol:?}: each of them has an output");
        assert!(waits(&low), "{protocol:?}: what came before waits");
        server.await_queue(10.0);
    }
}

#[test]
fn a_priority_takes_nothing_from_others_and_a_low_one_has_its_part() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _container) = served(folder.path());
    // Another application has half of the model, whatever the priority is.
    let other = ask(&server, Protocol::Rest, ("b", 0), (0, FLOOD));
    server.await_queue(40.0);
    let before = server.answered();
    let high = ask(&server, Protocol::Grpc, ("a", HIGH), (10_000, FEW));
    assert_eq!(high.recv_timeout(PATIENCE).unwrap() as u64, FEW);
    let of_both = server.answered() - before;
    assert!(waits(&other) && of_both >= 1.5 * FEW as f64, "{of_both} for {FEW}");
    // High ones are not all that the replica computes while a low one waits.
    let high = ask(&server, Protocol::Rest, ("a", HIGH), (20_000, FLOOD));
    server.await_queue(60.0);
    let low = ask(&server, Protocol::Rest, ("a", LOW), (30_000, 1));
    assert_eq!(low.recv_timeout(PATIENCE).unwrap(), 1, "it has an output");
    assert!(waits(&high), "what came before waits");
}
