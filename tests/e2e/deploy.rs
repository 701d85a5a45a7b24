//! `clipper deploy`: what works is served, also after a restart; what does not leaves nothing.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::e2e::admin_cli::text;
use crate::e2e::support::http::{Connection, get};
use crate::e2e::support::server::Server;
use crate::e2e::support::{children_of, descendants_of, eventually, is_running, python};
use crate::support::signals::signal;

const MODELS: &str = "\
import os

def one(inputs):
    return [1 for _ in inputs]

def two(inputs):
    return [2 for _ in inputs]

def total(inputs):
    return [float(one.sum()) for one in inputs]

def short(inputs):
    return [1]

def picky(inputs):
    if any(len(one) != 3 for one in inputs):
        raise ValueError('three numbers, please')
    return [7 for _ in inputs]

def dies(inputs):
    print('this is the end', flush=True)
    os._exit(3)
";

/// A model without the package: it speaks the protocol over pyzmq and answers `outputs`, made of
/// `inputs`.
fn model_on_pyzmq(outputs: &str) -> String {
    format!(
        "\
import os, struct, zmq
socket = zmq.Context().socket(zmq.DEALER)
socket.connect('tcp://%s:%s' % (os.environ['CLIPPER_IP'], os.environ['CLIPPER_PORT']))
u32 = lambda n: struct.pack('<I', n)
u64 = lambda *n: struct.pack('<%dQ' % len(n), *n)
socket.send_multipart([b'', u32(2)])
while True:
    frames = socket.recv_multipart()
    if frames[2] == u32(2) and frames[3] == u32(1):
        me = [os.environ[k].encode() for k in ('CLIPPER_MODEL_NAME', 'CLIPPER_MODEL_VERSION')]
        socket.send_multipart([b'', u32(0)] + me + [b'3', u32(3)])
    if frames[2] == u32(1):
        inputs = frames[7:]
        outputs = {outputs}
        header = u64(len(outputs), *map(len, outputs))
        socket.send_multipart([b'', u32(1), frames[3], u64(len(header)), header] + outputs)
"
    )
}

fn digits() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits/digits.onnx")
}

/// A folder with models, good and bad, that deployments name by relative paths.
pub(super) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    let onnx = std::fs::read(digits()).unwrap();
    write("good.onnx", &onnx);
    write("corrupt.onnx", &onnx[..onnx.len() / 2]);
    write("models.py", MODELS.as_bytes());
    write("broken.py", b"raise RuntimeError('no weights here')\n");
    let alone = "import os\ntry:\n    os.mkdir(__file__ + '.lock')\nexcept FileExistsError:\n    \
                 raise SystemExit('there is one already')\nf = lambda inputs: inputs\n";
    write("alone.py", alone.as_bytes());
    write("leaves.py", b"import sys\nsys.exit('I would rather not')\n");
    // One output too many.
    write("miscounts.py", model_on_pyzmq("[b'1'] * (len(inputs) + 1)").as_bytes());
    folder
}

fn command(server: &Server, folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(crate::binary());
    command.current_dir(folder).arg("deploy").arg("--url");
    command.arg(format!("http://{}", server.management));
    // Before the words, as a --command takes everything that follows.
    command.arg("--python").arg(python()).args(words);
    command
}

pub(super) fn deploy(server: &Server, folder: &Path, words: &[&str]) -> Output {
    command(server, folder, words).output().unwrap()
}

/// A deployment that has to succeed; what it says.
pub(super) fn deployed(server: &Server, folder: &Path, words: &[&str]) -> String {
    let output = deploy(server, folder, words);
    let says = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{words:?}: {says}");
    says
}

/// Everything that a half-done deployment could have left.
pub(super) fn leftovers(server: &Server) -> Vec<String> {
    let ask = |endpoint| {
        let list = server.manage(endpoint, &json!({"verbose": true}));
        serde_json::from_str::<Vec<Value>>(&list).unwrap()
    };
    let listed = ["get_all_models", "get_all_applications", "get_all_containers"].map(ask);
    let processes = children_of(server.pid()).into_iter().map(|pid| format!("process {pid}"));
    listed.concat().iter().map(Value::to_string).chain(processes).collect()
}

#[test]
fn what_does_not_work_says_why_and_leaves_nothing() {
    const NEW: [&str; 6] = ["--app", "a", "--slo-ms", "1000", "--default-output", "-1"];
    let (mut server, folder) = (Server::start(), folder());
    let python = python().into_string().unwrap();
    let cases: [(&[&str], &str); 10] = [
        (&["corrupt.onnx"], "is not a valid ONNX model"),
        (&["broken.py:f"], "RuntimeError: no weights here"),
        (&["leaves.py:f"], "I would rather not"),
        (&["models.py:nothing"], "has no function 'nothing'"),
        (&["models.py:short"], "1 outputs for 3 inputs"),
        (&["models.py:picky", "--example", "[1]"], "three numbers, please"),
        (&["models.py:dies"], "this is the end"),
        (&["alone.py:f", "--replicas", "3"], "there is one already"),
        (&["--name", "m", "--command", &python, "miscounts.py"], "2 outputs to 1 inputs"),
        (
            &["--name", "m", "--timeout", "1", "--command", "sleep", "1000"],
            "no container connected as",
        ),
    ];
    for (words, cause) in cases {
        let started = Instant::now();
        let output = deploy(&server, folder.path(), &[&NEW, words].concat());
        let (out, says) = (text(&output.stdout), text(&output.stderr));
        println!("{words:?} in {:?}:\n{says}", started.elapsed());
        assert_eq!((output.status.code(), &*out), (Some(1), ""), "{words:?}: {says}");
        let first = says.lines().find(|line| line.starts_with("Not deployed: "));
        assert!(says.contains(cause), "{words:?}: {says}");
        assert!(first.is_some() && says.ends_with("Nothing was registered.\n"), "{says}");
        assert!(started.elapsed() < Duration::from_secs(60), "{words:?}");
        assert_eq!(leftovers(&server), [""; 0], "{words:?}");
    }
    assert!(server.terminate().success());
    assert_eq!(journal(&server, &["list"]), "");
}

#[test]
fn a_good_model_is_served_and_is_back_after_a_crash() {
    let (server, folder) = (Server::start(), folder());
    let words = ["good.onnx", "--app", "digits", "--slo-ms", "30000", "--default-output", "-1"];
    let says = deployed(&server, folder.path(), &[&words[..], &["--replicas", "2"]].concat());
    assert!(says.contains("2 of 2 replicas connected"), "{says}");
    assert!(says.contains("good:1 answers for application 'digits'"), "{says}");
    assert_eq!(server.containers().len(), 2);
    let ask = |server: &Server, pixel: u32| {
        let mut image = vec![0; 64];
        image[20] = pixel;
        let answer = server.predict("digits", &json!({"input": image}));
        assert!(!answer.is_default(), "{answer:?}");
        answer.output().clone()
    };
    let told = ask(&server, 1);
    let server = server.restart();
    server.await_replicas("good", 2);
    assert_eq!(ask(&server, 1), told);
    // They are kept alive like any other replica.
    let replica = *descendants_of(server.pid()).first().expect("a child process");
    signal(replica, Signal::SIGKILL);
    eventually("it is gone", || !is_running(replica));
    eventually("another has come", || children_of(server.pid()).len() == 2);
    server.await_replicas("good", 2);
    // And end with their version, for good.
    server.manage("delete_versioned_model", &json!({"model_name": "good", "model_version": "1"}));
    eventually("its processes have ended", || children_of(server.pid()).is_empty());
    let mut server = server.restart();
    assert_eq!(children_of(server.pid()), [0; 0]);
    server.terminate();
    let state = journal(&server, &["state", "--at", "5"]);
    let file = folder.path().join("good.onnx");
    let planned = format!("replicas of good:1: 2 by onnx, {}\n", file.display());
    assert!(state.ends_with(&planned), "{state}");
    assert!(!journal(&server, &["state"]).contains("replicas"));
}

/// What `clipper journal` says of a server that has stopped.
fn journal(server: &Server, words: &[&str]) -> String {
    let mut command = Command::new(crate::binary());
    let output = command.arg("journal").args(words).arg("--data-dir").arg(server.data_dir());
    let output = output.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_crash_in_the_middle_leaves_nothing() {
    let (server, folder) = (Server::start(), folder());
    let words = ["--app", "a", "--slo-ms", "10", "--name", "m", "--command", "sleep", "1000"];
    let mut command = command(&server, folder.path(), &words);
    let mut client = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // The client hears of it: without that, a server that is gone is one that never answered.
    let mut told = BufReader::new(client.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert!(line.contains("a replica starts"), "{line}");
    eventually("its process runs", || !children_of(server.pid()).is_empty());
    let pids = descendants_of(server.pid());
    let mut server = server.restart();
    told.read_to_string(&mut line).unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(1), "{line}");
    eventually("its process has ended", || !pids.iter().any(|pid| is_running(*pid)));
    assert_eq!(leftovers(&server), [""; 0]);
    server.terminate();
    assert_eq!(journal(&server, &["list"]), "");
}

#[test]
fn a_new_version_takes_over_without_a_failed_query() {
    let (server, folder) = (Server::start(), folder());
    let words = ["models.py:one", "--app", "a", "--slo-ms", "30000"];
    deployed(&server, folder.path(), &words);
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (addr, stop, asked) = (server.query, Arc::clone(&stop), Arc::clone(&asked));
            std::thread::spawn(move || {
                let mut client = crate::e2e::support::http::Client::new(addr);
                let mut outputs = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    // Never the same input, so that no answer comes from the cache.
                    let n = asked.fetch_add(1, Ordering::Relaxed);
                    let answer =
                        client.post("/a/predict", format!("{{\"input\":[{n}]}}").as_bytes());
                    let body: Value = serde_json::from_slice(&answer.body).unwrap();
                    assert_eq!((answer.status, &body["default"]), (200, &json!(false)), "{body}");
                    outputs.push(body["output"].as_i64().unwrap());
                }
                outputs
            })
        })
        .collect();
    let asked_more = |than: u64| asked.load(Ordering::Relaxed) > than + 50;
    eventually("queries flow", || asked_more(0));
    let says = deployed(&server, folder.path(), &["models.py:two", "--app", "a"]);
    assert!(says.contains("models:2 answers"), "{says}");
    let then = asked.load(Ordering::Relaxed);
    eventually("queries flow on", || asked_more(then));
    let broken = deploy(&server, folder.path(), &["broken.py:f", "--app", "a"]);
    assert_eq!(broken.status.code(), Some(1));
    stop.store(true, Ordering::Relaxed);
    let outputs: Vec<Vec<i64>> = clients.into_iter().map(|c| c.join().unwrap()).collect();
    for outputs in &outputs {
        let first_two = outputs.iter().position(|output| *output == 2).expect("the new version");
        assert!(outputs[..first_two].iter().all(|output| *output == 1), "{outputs:?}");
        assert!(outputs[first_two..].iter().all(|output| *output == 2), "{outputs:?}");
    }
    println!("{} queries, none failed", asked.load(Ordering::Relaxed));
    // The old version is still there to go back to.
    let back = json!({"model_name": "models", "model_version": "1"});
    server.manage("set_model_version", &back);
    assert_eq!(server.predict("a", &json!({"input": [0.5]})).output(), &json!(1));
}

#[test]
fn ctrl_c_and_a_stopping_server_leave_nothing() {
    let (mut server, folder) = (Server::start(), folder());
    let words = ["--app", "a", "--slo-ms", "10", "--name", "m", "--command", "sleep", "1000"];
    let start = || {
        let mut command = command(&server, folder.path(), &words);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("its process runs", || !children_of(server.pid()).is_empty());
        child
    };
    let mut client = start();
    let again = deploy(&server, folder.path(), &words);
    assert!(text(&again.stderr).contains("being deployed already"), "{}", text(&again.stderr));
    signal(client.id(), Signal::SIGINT);
    client.wait().unwrap();
    eventually("nothing is left", || leftovers(&server).is_empty());
    let client = start();
    let pids = descendants_of(server.pid());
    assert!(server.terminate().success());
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the server is stopping"), "{}", text(&output.stderr));
    eventually("its process has ended", || !pids.iter().any(|pid| is_running(*pid)));
}

#[test]
fn a_refusal_comes_before_anything_is_started_and_knows_a_way_out() {
    let (server, folder) = (Server::start(), folder());
    let refused = |words: &[&str], part: &str| {
        let output = deploy(&server, folder.path(), words);
        let says = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {says}");
        assert!(says.contains(part), "{words:?}: {says}");
    };
    refused(&["good.onnx", "--app", "digits"], "--slo-ms 20 --default-output -1");
    refused(&["none.onnx", "--app", "digits"], "No such file");
    refused(&["models.py", "--app", "digits"], "models.py:FUNCTION");
    refused(&["--app", "x", "--slo-ms", "9", "--command", "sh"], "needs a --name");
    let new = ["models.py:total", "--app", "sums", "--slo-ms", "30000"];
    deployed(&server, folder.path(), &new);
    refused(&["good.onnx", "--app", "sum"], "Did you mean 'sums'?");
    refused(&["good.onnx", "--app", "sums", "--name", "digits"], "clipper admin links remove");
    refused(&["models.py:one", "--app", "sums", "--version", "1"], "Leave --version out");
    refused(&["models.py:one", "--app", "sums", "--input-type", "strings"], "incompatible");
    refused(&["models.py:one", "--app", "sums", "--example", "\"x\""], "The trial input");
    refused(&["models.py:one", "--app", "sums", "--replicas", "100000"], "deploy_replicas_max");
    let says = deployed(
        &server,
        folder.path(),
        &["models.py:picky", "--app", "sums", "--example", "[1, 2, 3]", "--json"],
    );
    let last: Value = serde_json::from_str(says.lines().last().unwrap()).unwrap();
    let done = json!({"stage": "done", "model": "models:2", "app": "sums", "replicas": 1});
    assert_eq!(last, done);
}

/// Status and text of a raw request to deploy.
fn knock(server: &Server, headers: &str) -> (u16, String) {
    let mut connection = Connection::open(server.management);
    let head = format!("POST /admin/deploy_model HTTP/1.1\r\nHost: x\r\n{headers}");
    connection.send(format!("{head}Content-Length: 2\r\n\r\n{{}}").as_bytes());
    let answer = connection.answer("POST").unwrap();
    (answer.status, answer.text())
}

#[test]
fn no_web_page_deploys_and_an_operator_can_switch_it_off() {
    const JSON: &str = "Content-Type: application/json; charset=utf-8\r\n";
    let server = Server::start();
    let (status, says) = knock(&server, JSON);
    assert_eq!(status, 400, "{says}");
    assert!(says.contains("missing field `model_name`"), "{says}");
    for (headers, part) in [
        ("", "Content-Type: application/json"),
        ("Content-Type: text/plain\r\n", "Content-Type: application/json"),
        (&*format!("{JSON}Origin: http://evil.example\r\n"), "Web pages may not deploy"),
    ] {
        let (status, says) = knock(&server, headers);
        assert!(status == 403 && says.contains(part), "{headers}: {status} {says}");
    }
    let server = Server::with_config("[management]\ndeploy = \"off\"\n");
    let (status, says) = knock(&server, JSON);
    assert!(status == 403 && says.contains("management.deploy"), "{status} {says}");
    let output = deploy(&server, folder().path(), &["good.onnx", "--app", "a", "--slo-ms", "10"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("switched off"), "{}", text(&output.stderr));
    assert_eq!(get(server.management, "/admin/deploy_model").status, 405);
}

#[test]
fn every_command_of_the_page_runs() {
    let (server, folder) = (Server::start(), folder());
    let sum = "[str(sum(struct.unpack('<%dd' % (len(i) // 8), i))).encode() for i in inputs]";
    for (name, bytes) in [
        ("digits.onnx", &*std::fs::read(digits()).unwrap()),
        ("digits-v2.onnx", &*std::fs::read(digits()).unwrap()),
        ("model.py", b"def predict(texts):\n    return [len(text) for text in texts]\n"),
        ("adder.py", model_on_pyzmq(sum).as_bytes()),
    ] {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let clipper = Path::new(crate::binary()).parent().unwrap();
    let python = PathBuf::from(python());
    let mut path = vec![python.parent().unwrap().to_owned(), clipper.to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let page = include_str!("../../docs/deploy.md");
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let commands: Vec<&str> = blocks.flat_map(str::lines).collect();
    assert!(commands.len() > 20, "{commands:?}");
    for line in commands {
        let output = Command::new("sh")
            .args(["-c", line])
            .current_dir(folder.path())
            .env("PATH", std::env::join_paths(&path).unwrap())
            .env("CLIPPER_MANAGEMENT_URL", format!("http://{}", server.management))
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    }
    assert_eq!(server.predict("spam", &json!({"input": "hello"})).output(), &json!(5));
    assert_eq!(server.predict("sums", &json!({"input": [1, 2]})).output(), &json!(3.0));
    assert!(!server.predict("digits", &json!({"input": vec![0; 64]})).is_default());
}
