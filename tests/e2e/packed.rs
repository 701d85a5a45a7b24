//! Compressed bodies of requests, wherever a body is taken: read as what they are inflated to,
//! within the limits, and refused where they are something else.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use clipper_grpc::Code;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};

use super::access::{self, clipper, made, with_key};
use super::quotas::called;
use super::support::http::{Answer, Connection};
use crate::support::served::{Process, Served, until};

const SLO_US: u32 = 20_000_000;
const ENCODINGS: [&str; 3] = ["gzip", "deflate", "zstd"];

fn packed(encoding: &str, text: &[u8]) -> Vec<u8> {
    match encoding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd::encode_all(text, 3).unwrap(),
    }
}

/// Application `m` over doubles, whose model `m` answers 7.
fn start(config: &str) -> (Served, Process, Arc<tempfile::TempDir>) {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let server = Served::start(config, folder.path()).keeping(&folder);
    server.add_linked("m", SLO_US);
    let replica = server.noop("m");
    server.await_replicas("m", 1);
    (server, replica, folder)
}

fn send(connection: &mut Connection, path: &str, headers: &str, body: &[u8]) -> Answer {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n{headers}\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    connection.send(&[head.as_bytes(), body].concat());
    connection.answer("POST").expect("an answer")
}

fn post(addr: SocketAddr, path: &str, encoding: &str, body: &[u8]) -> Answer {
    let headers = format!("Content-Encoding: {encoding}\r\n");
    send(&mut Connection::open(addr), path, &headers, body)
}

fn infer(n: u32) -> Value {
    json!({"inputs": [{"name": "input", "shape": [1, 1], "datatype": "FP64", "data": [n]}]})
}

/// Where bodies are taken, with one that is good there.
fn places(server: &Served) -> [(SocketAddr, &'static str, Value); 7] {
    let (query, management) = (server.query, server.management);
    [
        (query, "/m/predict", json!({"input": [1.0]})),
        (query, "/m/update", json!({"uid": 0, "input": [1.0], "label": 7.0})),
        (query, "/v2/models/m/infer", infer(1)),
        (query, "/v2/repository/index", json!({"ready": true})),
        (management, "/admin/get_application", json!({"name": "m"})),
        (management, "/admin/journal/log", json!({})),
        (management, "/admin/predict/m", json!({"input": [1.0]})),
    ]
}

/// An answer without what differs from query to query.
fn said(answer: &Answer) -> String {
    let text = answer.text();
    let Ok(mut page) = serde_json::from_str::<Value>(&text) else { return text };
    if let Some(members) = page.as_object_mut() {
        members.remove("query_id");
    }
    page.to_string()
}

#[test]
fn a_compressed_body_is_read_as_what_it_holds_wherever_one_is_taken() {
    let (server, _replica, _folder) = start("");
    for (addr, path, body) in places(&server) {
        let body = body.to_string();
        let plain = send(&mut Connection::open(addr), path, "", body.as_bytes());
        assert_eq!(plain.status, 200, "{path}: {}", plain.text());
        for encoding in ENCODINGS {
            let answer = post(addr, path, encoding, &packed(encoding, body.as_bytes()));
            assert_eq!(answer.status, 200, "{path} {encoding}: {}", answer.text());
            assert_eq!(said(&answer), said(&plain), "{path} {encoding}");
        }
    }
    // A change, and a deployment that is refused for what it asks for.
    let app = crate::support::served::app("other", SLO_US).to_string();
    let answer = post(server.management, "/admin/add_app", "zstd", &packed("zstd", app.as_bytes()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let deploy = packed("gzip", b"{\"model_name\": 7}");
    let answer = post(server.management, "/admin/deploy_model", "gzip", &deploy);
    assert!(answer.text().contains("model_name"), "{}", answer.text());
    // One that is parsed apart, and counted until it is answered.
    let long = json!({"input_batch": vec![[1.0]; 5_000]}).to_string();
    for encoding in ENCODINGS {
        let answer = post(server.query, "/m/predict", encoding, &packed(encoding, long.as_bytes()));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.text().matches("\"output\":7").count(), 5_000);
    }
    until("nothing is held", || (server.metric("clipper_http_body_bytes") < 0.5).then_some(()));
}

#[test]
fn an_encoding_that_is_not_read_is_refused_with_those_that_are() {
    let (server, _replica, _folder) = start("");
    for (addr, path, body) in places(&server) {
        let body = body.to_string();
        let mut connection = Connection::open(addr);
        for headers in [
            "Content-Encoding: br\r\n",
            "Content-Encoding: gzip, zstd\r\n",
            "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n",
        ] {
            let answer = send(&mut connection, path, headers, body.as_bytes());
            assert_eq!(answer.status, 415, "{path}: {}", answer.text());
            assert_eq!(answer.header("accept-encoding"), Some("gzip, deflate, zstd"));
            assert!(answer.text().contains("gzip, deflate, zstd"), "{}", answer.text());
        }
        // The connection goes on.
        let answer = send(&mut connection, path, "Content-Encoding: identity\r\n", body.as_bytes());
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        for encoding in ENCODINGS {
            let cut = packed(encoding, body.as_bytes());
            for wrong in [&b"{}"[..], &cut[..cut.len() / 2], b""] {
                let answer = post(addr, path, encoding, wrong);
                assert_eq!(answer.status, 400, "{path} {encoding}: {}", answer.text());
            }
        }
    }
}

#[test]
fn a_bomb_ends_at_the_limit_and_nobody_else_notices() {
    let (server, _replica, _folder) = start("");
    let blanks = vec![b' '; 64 << 20];
    let bombs = ENCODINGS.map(|encoding| (encoding, packed(encoding, &blanks)));
    drop(blanks);
    let (before, stop) = (server.resident_mb(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for (encoding, bomb) in &bombs {
            let (server, stop) = (&server, &stop);
            assert!(bomb.len() < 1 << 20, "{encoding}: {}", bomb.len());
            scope.spawn(move || {
                let mut was_too_large = false;
                while !stop.load(Ordering::SeqCst) || !was_too_large {
                    for (addr, path, _) in places(server) {
                        let answer = post(addr, path, encoding, bomb);
                        let text = answer.text();
                        assert!([413, 503].contains(&answer.status), "{path}: {text}");
                        assert!(text.contains("http."), "{path}: {text}");
                        was_too_large |= answer.status == 413;
                    }
                }
            });
        }
        let mut connection = Connection::open(server.query);
        for n in 0..100 {
            let body = json!({"input": [n]}).to_string();
            let answer = send(&mut connection, "/m/predict", "", body.as_bytes());
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        stop.store(true, Ordering::SeqCst);
    });
    let more = server.peak_mb() - before;
    assert!(more < 200.0, "{more} MB");
}

#[test]
fn what_a_body_is_inflated_to_counts_in_sum_and_for_its_key() {
    let limits = "[http]\nbody_max_bytes = 1000000\nbodies_max_bytes = 1100000\n";
    let (server, _replica, _folder) = start(limits);
    let of = |bytes: usize| format!("{{\"input\":[{}1]}}", " ".repeat(bytes)).into_bytes();
    let answer = post(server.query, "/m/predict", "gzip", &packed("gzip", &of(1_100_000)));
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(answer.text().contains("http.body_max_bytes = 1000000"), "{}", answer.text());
    // One that is on its way holds the most of what all may take.
    let mut slow = Connection::open(server.query);
    let body = of(900_000);
    let head =
        format!("POST /m/predict HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
    slow.send(&[head.as_bytes(), &body[..800_000]].concat());
    until("it is counted", || (server.metric("clipper_http_body_bytes") > 7e5).then_some(()));
    let answer = post(server.query, "/m/predict", "zstd", &packed("zstd", &of(500_000)));
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("http.bodies_max_bytes = 1100000"), "{}", answer.text());
    slow.send(&body[800_000..]);
    assert_eq!(slow.answer("POST").unwrap().status, 200);
    let root = made(&clipper(&server, None, &["key", "add", "r", "--role", "admin", "--json"]));
    let add = ["key", "add", "team", "--role", "predict", "--json", "--body-bytes", "1KiB"];
    let key = made(&clipper(&server, Some(&root), &add));
    let headers = format!("Content-Encoding: gzip\r\nAuthorization: Bearer {key}\r\n");
    for (_, path, body) in &places(&server)[..3] {
        let padded = format!("{body}{}", " ".repeat(1_100));
        let body = packed("gzip", padded.as_bytes());
        let answer = send(&mut Connection::open(server.query), path, &headers, &body);
        assert_eq!(answer.status, 413, "{path}: {}", answer.text());
        assert!(answer.text().contains("(body_bytes)"), "{path}: {}", answer.text());
    }
}

/// The frame of a message over gRPC that is compressed.
fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    Bytes::from([&[1], &length[..], message].concat())
}

#[test]
fn what_comes_of_a_body_costs_its_key_also_if_it_is_broken_or_endless() {
    let (server, _replica, _folder) = start("");
    let root = made(&clipper(&server, None, &["key", "add", "r", "--role", "admin", "--json"]));
    let add = ["key", "add", "team", "--role", "predict", "--json", "--body-bytes", "50KiB"];
    let key = made(&clipper(&server, Some(&root), &add));
    let refused = || {
        let page = access::send(server.metrics, "GET", "/metrics", &with_key(Some(&root)), "");
        let page = page.text();
        let sample = "clipper_key_limits_refused_total{key=\"team\",limit=\"body_bytes\"} ";
        let value = page.lines().find_map(|line| line.strip_prefix(sample));
        value.map_or(0.0, |value| value.parse::<f64>().unwrap())
    };
    // None of them is a request, and what is wrong with them is seen last.
    let blanks = vec![b' '; 60_000];
    let mut broken = packed("gzip", &blanks);
    let checksum = broken.len() - 8;
    broken[checksum] ^= 1;
    let bomb = packed("zstd", &vec![b' '; 64 << 20]);
    assert!(bomb.len() < 40_000, "{}", bomb.len());
    let bodies = [("deflate", packed("deflate", &blanks)), ("gzip", broken), ("zstd", bomb)];
    let mut expected = 0.0;
    for (encoding, body) in &bodies {
        let headers = format!("Content-Encoding: {encoding}\r\n{}", with_key(Some(&key)));
        for path in ["/m/predict", "/m/update", "/v2/models/m/infer", "/v2/models/m/generate"] {
            let answer = send(&mut Connection::open(server.query), path, &headers, body);
            assert_eq!(answer.status, 413, "{path} {encoding}: {}", answer.text());
            assert!(answer.text().contains("Key 'team' may have bodies of 51200"), "{path}");
        }
        let status = called(server.grpc.unwrap(), &key, framed(body), Some(encoding));
        assert_eq!(status.code, Code::ResourceExhausted, "{encoding}: {status}");
        assert!(status.message.contains("Key 'team' may have bodies of 51200"), "{status}");
        expected += 5.0;
        assert!((refused() - expected).abs() < 0.5, "{encoding}: {}", refused());
    }
    // They have given back what they took.
    let whole = json!({"input": [1.0]}).to_string() + &" ".repeat(51_000);
    let headers = format!("Content-Encoding: gzip\r\n{}", with_key(Some(&key)));
    let body = packed("gzip", whole.as_bytes());
    let answer = send(&mut Connection::open(server.query), "/m/predict", &headers, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
}
