//! The Open Inference Protocol as it stands on the wire, and what hostile clients make of it.
//!
//! Triton's own client is in `tests/system/test_triton_client.py`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::support::http::{Answer, Connection, get};
use crate::support::served::{Process, Served};

const SLO_US: u32 = 20_000_000;
const INFER: &str = "/v2/models/m/infer";

/// Application `m` over doubles, whose model `m` answers 7; model `alone` without an application.
fn start(config: &str) -> (Served, [Process; 2], Arc<tempfile::TempDir>) {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let config = format!("[serving]\ndirect_slo_micros = {SLO_US}\n{config}");
    let server = Served::start(&config, folder.path()).keeping(&folder);
    server.add_linked("m", SLO_US);
    server.admin("/admin/add_model", &crate::support::served::model("alone"));
    let replicas = ["m", "alone"].map(|model| server.noop(model));
    server.await_replicas("m", 1);
    server.await_replicas("alone", 1);
    (server, replicas, folder)
}

fn request(path: &str, headers: &[(&str, String)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("POST {path} HTTP/1.1\r\nHost: test\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn post(addr: SocketAddr, path: &str, headers: &[(&str, String)], body: &[u8]) -> Answer {
    let mut connection = Connection::open(addr);
    connection.send(&request(path, headers, body));
    connection.answer("POST").expect("an answer")
}

fn infer(server: &Served, body: &Value) -> Answer {
    post(server.query, INFER, &[], body.to_string().as_bytes())
}

/// JSON, then binary.
fn infer_binary(server: &Served, json: &Value, binary: &[u8]) -> Answer {
    let mut body = json.to_string().into_bytes();
    let length = ("Inference-Header-Content-Length", body.len().to_string());
    body.extend_from_slice(binary);
    post(server.query, INFER, &[length], &body)
}

fn page(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("JSON: {}", answer.text()))
}

fn error(answer: &Answer) -> String {
    let page = page(answer);
    let members = page.as_object().unwrap();
    assert_eq!(members.len(), 2, "{page}");
    assert_eq!(page["request_id"].as_str(), answer.header("x-request-id"), "{page}");
    page["error"].as_str().unwrap().to_owned()
}

fn doubles(data: &Value, shape: &Value) -> Value {
    json!({"inputs": [{"name": "input", "shape": shape, "datatype": "FP64", "data": data}]})
}

fn sized(datatype: &str, shape: &Value, size: u64) -> Value {
    json!({"inputs": [{"name": "input", "shape": shape, "datatype": datatype,
        "parameters": {"binary_data_size": size}}]})
}

#[test]
fn an_answer_has_the_protocols_form() {
    let (server, _replicas, _folder) = start("");
    let answer = infer(&server, &doubles(&json!([[1, 2], [3, 4]]), &json!([2, 2])));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let expected = json!({"model_name": "m", "model_version": "1", "outputs": [
        {"name": "output", "datatype": "BYTES", "shape": [2, 1], "data": ["7", "7"]}]});
    assert_eq!(page(&answer), expected);
    let mut body = sized("FP64", &json!([1, 2]), 16);
    body["parameters"] = json!({"binary_data_output": true});
    body["id"] = json!("x");
    let answer = infer_binary(&server, &body, &[0; 16]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let length = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    let (json, binary) = answer.body.split_at(length);
    let json: Value = serde_json::from_slice(json).unwrap();
    assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], json!(5));
    assert_eq!((&json["id"], binary), (&json!("x"), &b"\x01\0\0\x007"[..]));
}

#[test]
fn the_pages_have_the_protocols_form() {
    let (server, _replicas, _folder) = start("");
    let of = |path: &str| {
        let answer = get(server.query, path);
        (answer.status, page(&answer))
    };
    assert_eq!(of("/v2/health/live"), (200, json!({"live": true})));
    assert_eq!(of("/v2/health/ready"), (200, json!({"ready": true, "live": true})));
    assert_eq!(of("/v2/models"), (200, json!({"models": ["m", "alone"]})));
    assert_eq!(of("/v2/models/alone/ready"), (200, json!({"name": "alone", "ready": true})));
    let (status, config) = of("/v2/models/alone/versions/1/config");
    assert_eq!(status, 200);
    assert_eq!(config["parameters"]["latency_slo_micros"]["string_value"], SLO_US.to_string());
    let (status, index) = of("/v2/repository/index");
    assert_eq!((status, &index["error"]), (405, &json!("GET is not one of: POST, OPTIONS")));
    for body in ["", "{}", "{\"ready\": true}"] {
        let answer = post(server.query, "/v2/repository/index", &[], body.as_bytes());
        let expected = json!([
            {"name": "m", "version": "1", "state": "READY", "reason": ""},
            {"name": "alone", "version": "1", "state": "READY", "reason": ""}]);
        assert_eq!((answer.status, page(&answer)), (200, expected));
    }
    for path in ["/v2/logging", "/v2/trace/setting", "/v2/systemsharedmemory/status", "/v2/x"] {
        let answer = get(server.query, path);
        assert!(answer.status == 404 && error(&answer).contains("There is no "), "{path}");
    }
    assert_eq!(of("/v2/models/missing").0, 404);
    assert_eq!(get(server.query, INFER).status, 405);
}

#[test]
fn an_application_called_v2_stays_reachable() {
    let (server, _replicas, _folder) = start("");
    server.add_linked("v2", SLO_US);
    let _replica = server.noop("v2");
    server.await_replicas("v2", 1);
    let answer = post(server.query, "/v2/predict", &[], b"{\"input\": [1.5]}");
    assert_eq!((answer.status, page(&answer)["output"].clone()), (200, json!(7)));
    let body = doubles(&json!([1]), &json!([1, 1])).to_string();
    let answer = post(server.query, "/v2/models/v2/infer", &[], body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_model_by_itself_follows_its_versions() {
    let (server, replicas, _folder) = start("");
    let body = doubles(&json!([1]), &json!([1, 1])).to_string();
    let ask = |path: &str| post(server.query, path, &[], body.as_bytes());
    assert_eq!(ask("/v2/models/alone/infer").status, 200);
    let gone = json!({"model_name": "alone", "model_version": "1"});
    drop(replicas);
    server.await_replicas("alone", 0);
    let answer = ask("/v2/models/alone/infer");
    // The output of before is in the cache; another input has nobody to answer it.
    assert_eq!(answer.status, 200, "{}", answer.text());
    let other = doubles(&json!([2]), &json!([1, 1])).to_string();
    let answer = post(server.query, "/v2/models/alone/infer", &[], other.as_bytes());
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(error(&answer).contains("No connected models"));
    server.admin("/admin/delete_versioned_model", &gone);
    let is_gone = || (ask("/v2/models/alone/infer").status == 404).then_some(());
    crate::support::served::until("the model is gone", is_gone);
    server.admin("/admin/add_model", &crate::support::served::model("alone"));
    let _again = server.noop("alone");
    server.await_replicas("alone", 1);
    let is_back = || (ask("/v2/models/alone/versions/1/infer").status == 200).then_some(());
    crate::support::served::until("it is served again", is_back);
}

#[test]
fn an_application_of_several_models_names_no_version() {
    let (server, _replicas, _folder) = start("");
    server.admin("/admin/set_policy", &json!({"app_name": "m", "policy": "exp3"}));
    server.admin("/admin/add_model_links", &json!({"app_name": "m", "model_names": ["alone"]}));
    let of = |path: &str| {
        let answer = get(server.query, path);
        (answer.status, page(&answer))
    };
    let (status, metadata) = of("/v2/models/m");
    assert_eq!((status, &metadata["versions"]), (200, &json!([])));
    assert_eq!(of("/v2/models/m/ready").0, 200);
    let (status, refusal) = of("/v2/models/m/versions/1");
    assert_eq!(status, 400, "{refusal}");
    let (_, counted) = of("/v2/models/m/stats");
    let names: Vec<&Value> =
        counted["model_stats"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["alone", "m"]);
    let answer = post(server.query, "/v2/repository/index", &[], b"");
    let first = json!({"name": "m", "state": "READY", "reason": ""});
    assert_eq!(page(&answer)[0], first);
    let answer = infer(&server, &doubles(&json!([1]), &json!([1, 1])));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(page(&answer).get("model_version"), None);
}

/// A request that lies, and a part of what it is told.
type Lie = (Vec<(&'static str, String)>, Vec<u8>, u16, &'static str);

fn lies() -> Vec<Lie> {
    let length = "Inference-Header-Content-Length";
    let plain = |body: Value, status, part| (vec![], body.to_string().into_bytes(), status, part);
    let tailed = |json: Value, tail: &[u8], part| {
        let mut body = json.to_string().into_bytes();
        let header = (length, body.len().to_string());
        body.extend_from_slice(tail);
        (vec![header], body, 400, part)
    };
    let headed = |value: &str, part| {
        let body = doubles(&json!([1]), &json!([1, 1])).to_string().into_bytes();
        (vec![(length, value.to_owned())], body, 400, part)
    };
    let many: Vec<Value> = vec![json!({}); 300_000];
    let deep = format!("{{\"inputs\": {}", "[".repeat(1_000_000)).into_bytes();
    let names = format!("{{\"parameters\": {{\"x\": [{}0]}}}}", "[],".repeat(1_000_000));
    vec![
        (vec![], b"".to_vec(), 400, "request: "),
        (vec![], b"not JSON".to_vec(), 400, "request: "),
        (vec![], deep, 400, "inputs"),
        (vec![], names.into_bytes(), 400, "missing field `inputs`"),
        plain(json!({ "inputs": many }), 400, "inputs"),
        plain(doubles(&json!([1]), &json!([1, 1_u64 << 63])), 400, "inputs[0].shape"),
        plain(doubles(&json!([1]), &json!([u64::MAX, u64::MAX])), 400, "inputs[0].shape"),
        plain(doubles(&json!([1]), &json!([1_u64 << 40, 1])), 413, "inputs[0].shape"),
        plain(doubles(&json!([1]), &json!([1, 1_u64 << 40])), 400, "inputs[0].data"),
        plain(doubles(&json!([1]), &json!([-1, 1])), 400, "inputs[0].shape[0]"),
        plain(doubles(&json!([1]), &json!([0, 1])), 400, "inputs[0].shape"),
        plain(doubles(&json!([1, 2]), &json!([1, 3])), 400, "inputs[0].data"),
        plain(doubles(&json!(["NaN"]), &json!([1, 1])), 400, "inputs[0].data: element 0"),
        plain(sized("FP64", &json!([1, 1]), 8), 400, "binary_data_size"),
        tailed(sized("FP64", &json!([1, 2]), 16), &[0; 15], "binary_data_size"),
        tailed(sized("FP64", &json!([1, 2]), 16), &[0; 17], "1 bytes more"),
        tailed(sized("FP64", &json!([1, 2]), u64::MAX), &[0; 16], "binary_data_size"),
        tailed(sized("FP64", &json!([2, 2]), 16), &[0; 16], "binary_data_size"),
        tailed(sized("FP64", &json!([1, 1_u64 << 61]), 16), &[0; 16], "inputs[0]."),
        tailed(sized("BYTES", &json!([1]), 4), &[255; 4], "inputs[0].datatype"),
        headed("1000", length),
        headed("18446744073709551616", length),
        headed("-1", length),
        headed("3", "request: "),
        (vec![(length, "0".to_owned())], vec![0; 13], 400, "body: "),
    ]
}

#[test]
fn what_lies_is_refused_by_the_field_and_costs_no_memory() {
    let (server, _replicas, _folder) = start("");
    let before = server.resident_mb();
    for _ in 0..3 {
        for (headers, body, status, part) in lies() {
            let answer = post(server.query, INFER, &headers, &body);
            let start = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
            assert_eq!(answer.status, status, "{start}: {}", answer.text());
            assert!(error(&answer).contains(part), "{start}: {}", answer.text());
        }
    }
    let more = server.peak_mb() - before;
    assert!(more < 100.0, "{more} MB");
    assert_eq!(infer(&server, &doubles(&json!([1]), &json!([1, 1]))).status, 200);
}

#[test]
fn texts_with_lengths_that_lie_are_refused() {
    let (server, _replicas, _folder) = start("");
    let texts = json!({"model_name": "texts", "model_version": "1", "input_type": "strings",
        "labels": [], "container_name": "", "model_data_path": "", "batch_size": 1});
    server.admin("/admin/add_model", &texts);
    for (tail, part) in [
        (&b"\xff\xff\xff\xffabc"[..], "element 0 says 4294967295 bytes, but 3 are left"),
        (b"\x01\0\0\0ab", "1 bytes more"),
        (b"\x01\0\0", "element 0 says 4 bytes"),
        (b"\x01\0\0\0\xff", "element 0 is not UTF-8"),
    ] {
        let mut body = sized("BYTES", &json!([1]), tail.len() as u64).to_string().into_bytes();
        let length = ("Inference-Header-Content-Length", body.len().to_string());
        body.extend_from_slice(tail);
        let answer = post(server.query, "/v2/models/texts/infer", &[length], &body);
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(error(&answer).contains(part), "{}", answer.text());
    }
}

/// So many blanks, a thousandth as long.
fn bomb(bytes: usize) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = std::process::Command::new("gzip")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let blanks = vec![b' '; 1 << 20];
        (0..bytes >> 20).for_each(|_| stdin.write_all(&blanks).unwrap());
    });
    let packed = child.wait_with_output().unwrap().stdout;
    writer.join().unwrap();
    packed
}

#[test]
fn a_compressed_bomb_ends_at_the_limit_of_bodies() {
    let (server, _replicas, _folder) = start("");
    let packed = bomb(512 << 20);
    assert!(packed.len() < 2 << 20);
    let before = server.resident_mb();
    let stop = AtomicBool::new(false);
    let headers = [("Content-Encoding", "gzip".to_owned())];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let answer = post(server.query, INFER, &headers, &packed);
                    assert!([413, 503].contains(&answer.status), "{}", answer.text());
                    let text = error(&answer);
                    assert!(text.contains("http.bod"), "{text}");
                }
            });
        }
        for n in 0..100 {
            let answer = infer(&server, &doubles(&json!([n]), &json!([1, 1])));
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        stop.store(true, Ordering::SeqCst);
    });
    let more = server.peak_mb() - before;
    assert!(more < 150.0, "{more} MB");
    for body in [&b"not gzip"[..], &packed[..packed.len() / 2], b""] {
        let answer = post(server.query, INFER, &headers, body);
        // Half of the bomb is over the limit before it is seen to be cut.
        assert!([400, 413].contains(&answer.status), "{}", answer.text());
    }
    let other = [("Content-Encoding", "br".to_owned())];
    let answer = post(server.query, INFER, &other, b"x");
    assert!(answer.status == 415 && error(&answer).contains("gzip, deflate, zstd"));
}

#[test]
fn the_limits_of_queries_hold_here_too() {
    let (server, _replicas, _folder) = start(
        "request_inputs_max = 10\ninflight_queries_max = 10\n[http]\nbody_max_bytes = 100000\n",
    );
    let rows = |n: usize| doubles(&json!(vec![1.0; n]), &json!([n, 1]));
    assert_eq!(infer(&server, &rows(10)).status, 200);
    let answer = infer(&server, &rows(11));
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(error(&answer).contains("serving.request_inputs_max = 10"));
    let long = rows(1).to_string() + &" ".repeat(100_000);
    let answer = post(server.query, INFER, &[], long.as_bytes());
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(error(&answer).contains("http.body_max_bytes"));
    // While ten rows wait for a slow model, there is no room for an eleventh.
    let mut slow = crate::support::served::model("slow");
    slow["batch_size"] = json!(10);
    server.admin("/admin/add_model", &slow);
    let _replica = Process(
        std::process::Command::new(crate::binary())
            .args(["container", "noop", "--name", "slow", "--version", "1"])
            .args(["--sleep-us", "1500000", "--connect", &format!("tcp://{}", server.rpc)])
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap(),
    );
    server.await_replicas("slow", 1);
    let ten = rows(10).to_string();
    std::thread::scope(|scope| {
        // The one that asks beside them may be in their way, too.
        let waiting = scope.spawn(|| {
            crate::support::served::until("the ten are taken", || {
                let answer = post(server.query, "/v2/models/slow/infer", &[], ten.as_bytes());
                (answer.status != 429).then_some(answer)
            })
        });
        let refused = crate::support::served::until("one is refused", || {
            let answer = infer(&server, &rows(1));
            (answer.status != 200).then_some(answer)
        });
        assert_eq!(refused.status, 429, "{}", refused.text());
        assert!(error(&refused).contains("serving.inflight_queries_max"));
        assert_eq!(refused.header("retry-after"), Some("1"));
        assert_eq!(waiting.join().unwrap().status, 200);
    });
}

#[test]
fn the_load_generator_speaks_it() {
    let (server, _replicas, _folder) = start("");
    let url = format!("http://{}", server.query);
    let bench = |app: &str, protocol: &str, more: &[&str]| {
        std::process::Command::new(crate::binary())
            .args(["bench", "--url", &url, "--app", app, "--protocol", protocol])
            .args(["--duration", "0.3", "--warmup", "0.1", "--connections", "4", "--json"])
            .args(more)
            .output()
            .unwrap()
    };
    for protocol in ["v2", "v2-binary"] {
        for (app, more) in [("m", &["--batch", "3"][..]), ("alone", &[])] {
            let done = bench(app, protocol, more);
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{protocol} {app}: {said}");
            let report: Value = serde_json::from_slice(&done.stdout).unwrap();
            assert!(report["predictions"].as_u64().unwrap() > 0, "{protocol} {app}: {report}");
        }
        let done = bench("missing", protocol, &[]);
        assert!(!done.status.success());
        assert!(String::from_utf8_lossy(&done.stderr).contains("'missing'"));
    }
}
