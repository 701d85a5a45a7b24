//! The gRPC port as strangers use it, frame by frame.
//!
//! Clients that behave are in `tests/system/test_triton_grpc.py`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clipper_grpc::client::Client;
use clipper_grpc::{Code, HeaderMap, PREFACE, Status, framed};
use clipper_oip::grpc::{InferTensor, ModelInferRequest, ModelInferResponse, OfModel};
use prost::Message as _;

use crate::support::served::{Process, Served, until};

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const LIVE: &str = "/inference.GRPCInferenceService/ServerLive";
const PATIENCE: Duration = Duration::from_secs(30);

// Types and flags of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn start(config: &str) -> (Served, Process, Arc<tempfile::TempDir>) {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let server = Served::start(config, folder.path()).keeping(&folder);
    server.add_linked("m", 20_000_000);
    let replica = server.noop("m");
    server.await_replicas("m", 1);
    (server, replica, folder)
}

fn port(server: &Served) -> SocketAddr {
    server.grpc.expect("it is on")
}

/// Makes one call, whose frame is as it is.
fn call(addr: SocketAddr, path: &str, frame: Bytes) -> (Status, Bytes) {
    call_with(addr, path, HeaderMap::new(), frame)
}

fn call_with(addr: SocketAddr, path: &str, metadata: HeaderMap, frame: Bytes) -> (Status, Bytes) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let opened = Client::open(stream, "test", path, None).await;
        let (mut client, connection) = opened.unwrap();
        client.metadata = metadata;
        tokio::spawn(connection);
        tokio::time::timeout(PATIENCE, client.call(frame)).await.unwrap().unwrap()
    })
}

fn request() -> ModelInferRequest {
    let input = InferTensor {
        name: "input".to_owned(),
        datatype: "FP64".to_owned(),
        shape: vec![1, 1],
        ..InferTensor::default()
    };
    ModelInferRequest {
        model_name: "m".to_owned(),
        inputs: vec![input],
        raw_input_contents: vec![Bytes::from_static(&[0; 8])],
        ..ModelInferRequest::default()
    }
}

/// As over HTTP: `choosing.rs`.
#[test]
fn calls_with_the_same_metadata_stay_with_one_model() {
    let policy = "name = \"weighted\"\nsticky = \"header:x-session\"\nweights = { m0 = 1, m1 = 1 }";
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start(&super::choosing::config(policy, &["0", "1"]), folder.path());
    for model in ["m0", "m1"] {
        server.await_replicas(model, 1);
    }
    let output = |session: &str| {
        let mut metadata = HeaderMap::new();
        metadata.insert("x-session", session.parse().unwrap());
        let request = ModelInferRequest { model_name: "a".to_owned(), ..request() };
        let (status, answer) = call_with(port(&server), INFER, metadata, framed(&request));
        assert_eq!(status, Status::ok());
        ModelInferResponse::decode(answer).unwrap().raw_output_contents
    };
    let of = |n: u32| output(&format!("f{n}"));
    let first: Vec<Vec<Bytes>> = (0..30).map(of).collect();
    let kinds: std::collections::HashSet<&Vec<Bytes>> = first.iter().collect();
    assert_eq!(kinds.len(), 2, "{kinds:?}");
    assert_eq!((0..30).map(of).collect::<Vec<_>>(), first);
}

fn is_answered(addr: SocketAddr) {
    let (status, answer) = call(addr, INFER, framed(&request()));
    assert_eq!(status, Status::ok());
    let answer = ModelInferResponse::decode(answer).unwrap();
    assert_eq!(answer.raw_output_contents.len(), 1);
}

fn ended(server: &Served, why: &str) -> f64 {
    let name = "clipper_http_connections_ended_total";
    server.metric(&format!("{name}{{frontend=\"grpc\",reason=\"{why}\"}}"))
}

/// A connection by hand.
struct Raw(TcpStream);

impl Raw {
    fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// With the preface and these settings.
    fn greeted(addr: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut raw = Self::open(addr);
        let _ = raw.0.write_all(PREFACE);
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        raw.send(SETTINGS, 0, 0, &payload);
        raw
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        // The server may have ended it.
        let _ = self.0.write_all(&frame);
    }

    /// Begins a call.
    fn headers(&mut self, stream: u32, path: &str, more: &[(&str, &str)]) {
        let mut block = Vec::new();
        let usual = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "test"),
            (":path", path),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        for (name, value) in usual.iter().chain(more) {
            // A literal that is kept out of the table, with a new name.
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend_from_slice(text.as_bytes());
            }
        }
        self.send(HEADERS, END_HEADERS, stream, &block);
    }

    /// The next frame: its type, flags, stream and payload; `None`: the server has ended it.
    fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::WouldBlock, "nothing came in time");
                return None;
            }
        }
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some((kind, flags, u32::from_be_bytes(stream), payload))
    }

    /// Reads until a frame of this type, for this stream or any.
    fn until(&mut self, kind: u8, stream: Option<u32>) -> Option<(u8, Vec<u8>)> {
        loop {
            let (found, flags, of, payload) = self.frame()?;
            if found == kind && stream.is_none_or(|stream| stream == of) {
                return Some((flags, payload));
            }
        }
    }
}

#[test]
fn what_is_not_http_2_is_told_or_closed_and_nobody_else_notices() {
    let (server, _replica, _folder) = start("");
    let addr = port(&server);
    for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"\x16\x03\x01\x02\0", b"\xff\0\0\0"] {
        let mut raw = Raw::open(addr);
        raw.0.write_all(bytes).unwrap();
        raw.0.shutdown(std::net::Shutdown::Write).unwrap();
        let mut told = String::new();
        raw.0.read_to_string(&mut told).unwrap();
        assert!(told.starts_with("HTTP/1.1 400") && told.contains("gRPC port"), "{told}");
    }
    // Frames that break the rules: data of no stream, a window that overflows, a length that lies.
    for (kind, stream, payload) in
        [(DATA, 1, vec![0; 10]), (8, 0, vec![0x7f, 0xff, 0xff, 0xff]), (SETTINGS, 0, vec![0; 5])]
    {
        let mut raw = Raw::greeted(addr, &[]);
        raw.send(kind, 0, stream, &payload);
        assert!(raw.until(GOAWAY, None).is_some(), "frame {kind}");
        while raw.frame().is_some() {}
    }
    until("all are counted", || (ended(&server, "not_http") >= 6.0).then_some(()));
    is_answered(addr);
}

#[test]
fn a_message_that_lies_is_refused_with_its_reason() {
    let (server, _replica, _folder) = start("[grpc]\nmessage_max_bytes = 65536\n");
    let addr = port(&server);
    let good = framed(&request());
    let with = |change: &dyn Fn(&mut ModelInferRequest)| {
        let mut changed = request();
        change(&mut changed);
        framed(&changed)
    };
    let bytes = |head: &[u8]| Bytes::from([head, &good[5..]].concat());
    let shape = |dims: &'static [i64]| with(&|r| r.inputs[0].shape = dims.to_vec());
    let fields = Bytes::from([&[0, 0, 0, 0x40, 0], &b"\x2a\0".repeat(0x2000)[..]].concat());
    for (frame, code, text) in [
        (Bytes::new(), Code::InvalidArgument, "no message"),
        (bytes(&[0, 0, 0, 0xff, 0]), Code::InvalidArgument, "ends within a message"),
        (bytes(&[0, 0xff, 0xff, 0xff, 0xff]), Code::ResourceExhausted, "grpc.message_max_bytes"),
        (bytes(&[7, 0, 0, 0, 1]), Code::InvalidArgument, "begins with 7"),
        (bytes(&[1, 0, 0, 0, 1]), Code::InvalidArgument, "no encoding"),
        (Bytes::from_static(b"\0\0\0\0\x02\x3a\x7f"), Code::InvalidArgument, "protobuf"),
        (fields, Code::InvalidArgument, "inputs: there are more than 64"),
        (shape(&[1, i64::MAX]), Code::InvalidArgument, "inputs[0].shape"),
        (shape(&[1, -1]), Code::InvalidArgument, "dimension 1 is -1"),
        (shape(&[1 << 40, 1 << 40]), Code::InvalidArgument, "more elements than any request"),
        (shape(&[1, 2]), Code::InvalidArgument, "raw_input_contents[0]: it has 8 bytes"),
        (
            with(&|r| r.model_name = "n\u{202e}\n".repeat(1_000)),
            Code::NotFound,
            "Request for unknown model",
        ),
    ] {
        let (status, _) = call(addr, INFER, frame);
        assert_eq!(status.code, code, "{status}");
        assert!(status.message.contains(text), "{status}");
        assert!(status.message.len() < 2_000 && !status.message.contains('\u{202e}'), "{status}");
    }
    let (status, _) =
        call(addr, "/inference.GRPCInferenceService/Nothing", framed(&OfModel::default()));
    assert_eq!(status.code, Code::Unimplemented);
    is_answered(addr);
}

#[test]
fn clients_that_stall_lose_their_calls_and_connections() {
    let config = "[http]\nwrite_timeout_ms = 300\nclient_request_timeout_ms = 300\n\
                  [grpc]\nkeep_alive_ms = 300\nkeep_alive_timeout_ms = 300\n";
    let (server, _replica, _folder) = start(config);
    let addr = port(&server);
    // No preface.
    let mut silent = Raw::open(addr);
    silent.0.write_all(&PREFACE[..5]).unwrap();
    // The server has sent its settings.
    while silent.frame().is_some() {}
    // No room for an answer: an initial window of 0.
    let mut shut = Raw::greeted(addr, &[(4, 0)]);
    shut.headers(1, LIVE, &[]);
    shut.send(DATA, END_STREAM, 1, &[0; 5]);
    assert!(shut.until(RST_STREAM, Some(1)).is_some());
    // Half a message, and a deadline before the end of another.
    let mut half = Raw::greeted(addr, &[]);
    half.headers(1, LIVE, &[]);
    half.send(DATA, 0, 1, &[0, 0, 0, 0, 9, 1]);
    half.headers(3, LIVE, &[("grpc-timeout", "50m")]);
    for stream in [3, 1] {
        let (flags, _) = half.until(HEADERS, Some(stream)).expect("a status");
        assert_eq!(flags & END_STREAM, END_STREAM, "nothing but the status");
    }
    // Nobody answers the server's pings there.
    while half.frame().is_some() {}
    until("they are counted", || (ended(&server, "write_timeout") >= 2.0).then_some(()));
    is_answered(addr);
}

#[test]
fn floods_of_connections_and_calls_keep_nobody_out() {
    let config = "[grpc]\nconnections_max = 20\nstreams_max = 10\n";
    let (server, _replica, _folder) = start(config);
    let addr = port(&server);
    let before = server.resident_mb();
    let held: Vec<Raw> = (0..100).map(|_| Raw::greeted(addr, &[])).collect();
    is_answered(addr);
    until("most gave way", || (ended(&server, "gave_way_idle") >= 80.0).then_some(()));
    drop(held);
    // Calls that are given up at once, and more of them than there may be.
    for is_reset in [true, false] {
        let mut flood = Raw::greeted(addr, &[]);
        for n in 0..20_000 {
            let stream = 2 * n + 1;
            flood.headers(stream, INFER, &[]);
            if is_reset {
                flood.send(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            }
        }
        is_answered(addr);
    }
    assert!(server.resident_mb() < before + 100.0, "{} MB", server.resident_mb());
}
