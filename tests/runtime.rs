//! The containers in the box against a server played by the test, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::collections::VecDeque;
use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use clipper::domain::{InputType, ModelId, ModelName, ModelVersion};
use clipper::runtime::exec::{self, ExecOptions};
use clipper::runtime::launch::PYTHON_RUNNER;
use clipper::runtime::noop::NoopModel;
use clipper::runtime::onnx::{OnnxError, OnnxModel};
use clipper::runtime::{BatchModel, ContainerOptions, run_until};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use zeromq::prelude::*;
use zeromq::{RouterSocket, ZmqMessage};

/// Far above what any step takes; only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

fn digits(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits").join(file)
}

#[derive(Deserialize)]
struct HeldOut {
    label: i64,
    image: Vec<f64>,
}

fn held_out() -> Vec<HeldOut> {
    serde_json::from_slice(&std::fs::read(digits("held_out.json")).unwrap()).unwrap()
}

fn doubles(values: &[f64]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn u32_frame(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

fn words(words: impl IntoIterator<Item = u64>) -> Bytes {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// The server's side of the protocol, written from the protocol page and not from the library.
struct Server {
    socket: RouterSocket,
    address: String,
    next_message_id: u32,
}

/// What a container said when it registered.
struct Registered {
    identity: Bytes,
    name: String,
    version: String,
    type_code: String,
}

impl Server {
    async fn start(address: &str) -> Self {
        let mut socket = RouterSocket::new();
        let address = socket.bind(address).await.unwrap().to_string();
        Self { socket, address, next_message_id: 0 }
    }

    async fn receive(&mut self) -> VecDeque<Bytes> {
        let message = timeout(PATIENCE, self.socket.recv()).await.expect("a container speaks");
        message.unwrap().into_vecdeque()
    }

    async fn send(&mut self, frames: Vec<Bytes>) {
        self.socket.send(ZmqMessage::try_from(frames).unwrap()).await.unwrap();
    }

    /// Waits for a heartbeat, asks who that is, and reads the new-container message.
    async fn register(&mut self) -> Registered {
        let mut heartbeat = self.receive().await;
        let identity = heartbeat.pop_front().unwrap();
        assert_eq!(heartbeat, [Bytes::new(), u32_frame(2)]);
        let question =
            vec![identity.clone(), Bytes::new(), u32_frame(3), u32_frame(2), u32_frame(1)];
        self.send(question).await;
        let frames = self.receive().await;
        assert_eq!(frames.len(), 7);
        assert_eq!(frames[0], identity);
        assert_eq!(frames[1], Bytes::new());
        assert_eq!((&frames[2], &frames[6]), (&u32_frame(0), &u32_frame(3)));
        let text = |at: usize| String::from_utf8(frames[at].to_vec()).unwrap();
        Registered { identity, name: text(3), version: text(4), type_code: text(5) }
    }

    /// Sends one batch and reads its answer, with every length checked.
    async fn predict(&mut self, to: &Registered, type_code: u64, inputs: &[Bytes]) -> Vec<String> {
        self.next_message_id += 1;
        let message_id = u32_frame(self.next_message_id);
        let lengths = inputs.iter().map(|input| input.len() as u64);
        let header = words([type_code, inputs.len() as u64].into_iter().chain(lengths));
        let mut frames = vec![
            to.identity.clone(),
            Bytes::new(),
            u32_frame(3),
            u32_frame(1),
            message_id.clone(),
            u32_frame(0),
            words([header.len() as u64]),
            header,
        ];
        frames.extend_from_slice(inputs);
        self.send(frames).await;
        let mut answer = self.receive().await;
        while answer.len() == 3 {
            answer = self.receive().await; // a heartbeat
        }
        let outputs: Vec<Bytes> = answer.drain(6..).collect();
        let lengths = outputs.iter().map(|output| output.len() as u64);
        let header = words([outputs.len() as u64].into_iter().chain(lengths));
        let head = [Bytes::new(), u32_frame(1), message_id, words([header.len() as u64]), header];
        assert_eq!(answer.range(1..).cloned().collect::<Vec<_>>(), head);
        outputs.iter().map(|output| String::from_utf8(output.to_vec()).unwrap()).collect()
    }
}

fn options(server: &Server) -> ContainerOptions {
    let name = ModelName::parse("digits").unwrap();
    let id = ModelId::new(name, ModelVersion::parse("1").unwrap());
    ContainerOptions::new(id, server.address.clone())
}

/// Runs a container beside `script` until the script is done.
async fn beside<T>(
    options: ContainerOptions,
    model: impl BatchModel,
    script: impl Future<Output = T>,
) -> T {
    tokio::select! {
        ended = run_until(options, model, std::future::pending()) => panic!("ended: {ended:?}"),
        result = script => result,
    }
}

#[tokio::test]
async fn held_out_digits_are_recognised_over_the_wire() {
    let mut server = Server::start("tcp://127.0.0.1:0").await;
    let model = OnnxModel::load(&digits("digits.onnx"), Some(InputType::Doubles), None).unwrap();
    let options = options(&server);
    beside(options, model, async {
        let container = server.register().await;
        assert_eq!((container.name.as_str(), container.version.as_str()), ("digits", "1"));
        assert_eq!(container.type_code, "3");

        let images = held_out();
        assert!(images.len() >= 20);
        let mut alone = Vec::new();
        for image in &images {
            alone.extend(server.predict(&container, 3, &[doubles(&image.image)]).await);
        }
        let labels = images.iter().map(|image| image.label.to_string());
        let right = labels.zip(&alone).filter(|(label, output)| label == *output).count();
        println!("{right} of {} held-out digits right", images.len());
        assert!(right * 20 >= images.len() * 19, "{right} of {}", images.len());

        // A batch answers as its inputs do one by one, in their order.
        let inputs: Vec<Bytes> = images.iter().map(|image| doubles(&image.image)).collect();
        for size in [3, 64] {
            let batch: Vec<Bytes> = inputs.iter().cycle().take(size).cloned().collect();
            let expected: Vec<String> = alone.iter().cycle().take(size).cloned().collect();
            assert_eq!(server.predict(&container, 3, &batch).await, expected);
        }
    })
    .await;
}

#[tokio::test]
async fn an_input_of_a_wrong_length_spoils_only_itself() {
    let mut server = Server::start("tcp://127.0.0.1:0").await;
    let model = OnnxModel::load(&digits("digits.onnx"), Some(InputType::Doubles), None).unwrap();
    let options = options(&server);
    beside(options, model, async {
        let container = server.register().await;
        let image = doubles(&held_out()[0].image);
        let good = server.predict(&container, 3, std::slice::from_ref(&image)).await;
        let short = doubles(&[1.0, 2.0]);
        let batch = [image.clone(), short, Bytes::new(), image];
        let outputs = server.predict(&container, 3, &batch).await;
        assert_eq!((&outputs[0], &outputs[3]), (&good[0], &good[0]));
        let error: Value = serde_json::from_str(&outputs[1]).unwrap();
        assert_eq!(error["error"], "expected 64 doubles, got 2 (16 bytes)");
        assert!(outputs[2].contains("got 0"), "{}", outputs[2]);

        // Inputs of another type than the container announced are answered, not guessed at.
        let outputs = server.predict(&container, 2, &[Bytes::from(vec![0; 256])]).await;
        assert!(outputs[0].contains("takes doubles, not floats"), "{}", outputs[0]);
        assert_eq!(server.predict(&container, 3, &[]).await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn a_container_comes_back_after_its_server() {
    let mut server = Server::start("tcp://127.0.0.1:0").await;
    let address = server.address.clone();
    let model = NoopModel {
        input_type: InputType::Integers,
        output: "ok".to_owned(),
        sleep: Duration::ZERO,
    };
    let options = options(&server);
    beside(options, model, async {
        for _ in 0..3 {
            let container = server.register().await;
            assert_eq!(container.type_code, "1");
            let outputs = server.predict(&container, 1, &[Bytes::from_static(b"1234")]).await;
            assert_eq!(outputs, ["ok"]);
            drop(server.socket.close().await);
            // The port may stay taken for a moment after its socket is closed.
            server = timeout(PATIENCE, async {
                loop {
                    let mut socket = RouterSocket::new();
                    if socket.bind(&address).await.is_ok() {
                        let address = address.clone();
                        break Server { socket, address, next_message_id: 0 };
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await
            .expect("the port is free again");
        }
    })
    .await;
}

#[tokio::test]
async fn broken_messages_cost_only_the_connection() {
    let mut server = Server::start("tcp://127.0.0.1:0").await;
    let model = NoopModel {
        input_type: InputType::Strings,
        output: "ok".to_owned(),
        sleep: Duration::ZERO,
    };
    let options = options(&server);
    beside(options, model, async {
        let lying = words([4, 1 << 40]);
        let broken = [
            vec![Bytes::new(), u32_frame(2), u32_frame(2), u32_frame(0)],
            vec![Bytes::from_static(b"junk")],
            vec![
                Bytes::new(),
                u32_frame(3),
                u32_frame(1),
                u32_frame(1),
                u32_frame(0),
                words([16]),
                lying,
            ],
        ];
        for mut frames in broken {
            let container = server.register().await;
            frames.insert(0, container.identity);
            server.send(frames).await;
        }
        let container = server.register().await;
        assert_eq!(server.predict(&container, 4, &[Bytes::from_static(b"x")]).await, ["ok"]);
    })
    .await;
}

#[test]
fn files_that_are_no_model_are_refused_with_a_text() {
    let load = |path: &Path| OnnxModel::load(path, None, None).err().expect("refused");
    let missing = digits("missing.onnx");
    assert!(matches!(load(&missing), OnnxError::Read { .. }));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    let whole = std::fs::read(digits("digits.onnx")).unwrap();
    std::fs::write(&file, b"this is no model").unwrap();
    assert!(load(&file).to_string().contains("is not a valid ONNX model"));
    for cut in [0, 1, 100, whole.len() / 2, whole.len() - 100] {
        std::fs::write(&file, &whole[..cut]).unwrap();
        load(&file);
    }
}

#[test]
fn another_output_is_chosen_by_its_name() {
    let path = digits("digits.onnx");
    let mut model =
        OnnxModel::load(&path, Some(InputType::Doubles), Some("probabilities")).unwrap();
    let image = &held_out()[0];
    let output = model.predict(&[doubles(&image.image)]).remove(0);
    let probabilities: Vec<f64> = serde_json::from_str(&output).unwrap();
    assert_eq!(probabilities.len(), 10);
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-3, "{output}");

    let error = OnnxModel::load(&path, None, Some("nonsense")).err().unwrap().to_string();
    assert!(error.contains("label, probabilities"), "{error}");
    assert_eq!(OnnxModel::load(&path, None, None).unwrap().input_type(), InputType::Floats);
}

/// An interpreter with pyzmq and numpy.
fn python() -> OsString {
    std::env::var_os("CLIPPER_TEST_PYTHON").expect(
        "set CLIPPER_TEST_PYTHON to a Python 3.9+ that has pyzmq and numpy, for example: \
         python3 -m venv .venv && .venv/bin/pip install pyzmq numpy && \
         export CLIPPER_TEST_PYTHON=$PWD/.venv/bin/python",
    )
}

fn python_container(function: &str, input_type: &str, address: &str) -> Command {
    let port = address.rsplit_once(':').unwrap().1;
    let mut command = Command::new(python());
    command
        .args(["-u", "-c", PYTHON_RUNNER, function])
        .env("CLIPPER_MODEL_NAME", "py")
        .env("CLIPPER_MODEL_VERSION", "2")
        .env("CLIPPER_PORT", port)
        .env("CLIPPER_INPUT_TYPE", input_type)
        .env("CLIPPER_LIFELINE", "stdin")
        .stdin(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn ended(child: &mut Child) -> std::process::ExitStatus {
    // `wait` would close the lifeline.
    let lifeline = child.stdin.take();
    let status = timeout(PATIENCE, child.wait()).await.expect("the container ends").unwrap();
    drop(lifeline);
    status
}

const PYTHON_MODEL: &str = r#"
import helper
import numpy

def total(inputs):
    if any(len(one) == 0 for one in inputs):
        raise RuntimeError("an empty one")
    if len(inputs) == 7:
        return ["too few"]
    return [numpy.float64(helper.total(one)) for one in inputs]

def describe(inputs):
    return [{"kind": type(one).__name__, "length": numpy.int64(len(one))} for one in inputs]

def echo(inputs):
    return inputs
"#;

fn python_folder() -> (tempfile::TempDir, impl Fn(&str) -> String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.py");
    std::fs::write(&file, PYTHON_MODEL).unwrap();
    std::fs::write(folder.path().join("helper.py"), "def total(x):\n    return x.sum()\n").unwrap();
    (folder, move |name: &str| format!("{}:{name}", file.display()))
}

#[tokio::test]
async fn a_python_function_answers_and_its_exceptions_are_answers() {
    let mut server = Server::start("tcp://127.0.0.1:0").await;
    let (_folder, function) = python_folder();
    let mut child =
        python_container(&function("total"), "doubles", &server.address).spawn().unwrap();
    let container = server.register().await;
    assert_eq!((container.name.as_str(), container.version.as_str()), ("py", "2"));
    assert_eq!(container.type_code, "3");

    let one = doubles(&[1.5, 2.0]);
    assert_eq!(server.predict(&container, 3, std::slice::from_ref(&one)).await, ["3.5"]);
    let outputs = server.predict(&container, 3, &[one.clone(), Bytes::new()]).await;
    assert_eq!(outputs, vec![r#"{"error": "RuntimeError: an empty one"}"#; 2]);
    let outputs = server.predict(&container, 3, &vec![one.clone(); 7]).await;
    assert!(outputs.iter().all(|output| output.contains("1 outputs for 7 inputs")), "{outputs:?}");
    // Not a whole number of doubles: that input alone is an error.
    let outputs = server.predict(&container, 3, &[Bytes::from_static(b"123"), one]).await;
    assert!(outputs[0].contains("error"), "{outputs:?}");
    assert_eq!(outputs[1], "3.5");

    // The server's end of stdin closes: so does the container.
    drop(child.stdin.take());
    assert!(ended(&mut child).await.success());
}

#[tokio::test]
async fn a_python_function_gets_each_input_type_as_what_it_is() {
    let (_folder, function) = python_folder();
    let cases = [
        ("bytes", 0, r#"{"kind": "bytes", "length": 8}"#),
        ("integers", 1, r#"{"kind": "ndarray", "length": 2}"#),
        ("floats", 2, r#"{"kind": "ndarray", "length": 2}"#),
        ("strings", 4, r#"{"kind": "str", "length": 8}"#),
    ];
    for (input_type, code, expected) in cases {
        let mut server = Server::start("tcp://127.0.0.1:0").await;
        let mut child =
            python_container(&function("describe"), input_type, &server.address).spawn().unwrap();
        let container = server.register().await;
        assert_eq!(container.type_code, code.to_string());
        let outputs = server.predict(&container, code, &[Bytes::from_static(b"12345678")]).await;
        assert_eq!(outputs, [expected]);
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM).unwrap();
        assert!(ended(&mut child).await.success(), "SIGTERM is a clean end");
    }
}

#[tokio::test]
async fn a_python_container_comes_back_after_its_server() {
    let (_folder, function) = python_folder();
    let mut server = Server::start("tcp://127.0.0.1:0").await;
    let address = server.address.clone();
    let _child = python_container(&function("echo"), "strings", &address).spawn().unwrap();
    for _ in 0..2 {
        let container = server.register().await;
        let outputs = server.predict(&container, 4, &[Bytes::from("é{}")]).await;
        assert_eq!(outputs, ["é{}"]);
        drop(server.socket.close().await);
        server = Server::start(&address).await;
    }
}

#[tokio::test]
async fn a_python_function_that_cannot_be_imported_is_named() {
    let (folder, function) = python_folder();
    let broken = folder.path().join("broken.py");
    std::fs::write(&broken, "import no_such_module\n").unwrap();
    let missing = folder.path().join("missing.py");
    let cases = [
        (format!("{}:f", broken.display()), "no_such_module"),
        (format!("{}:f", missing.display()), "missing.py"),
        (function("no_such_function"), "no_such_function"),
        ("model.py".to_owned(), "FILE.py:function"),
    ];
    for (function, expected) in cases {
        let mut command = python_container(&function, "doubles", "tcp://127.0.0.1:1");
        command.env_remove("CLIPPER_LIFELINE");
        let output = timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn a_program_runs_in_a_group_of_its_own_and_its_exit_code_is_passed_on() {
    let run = |script: &str| {
        let command = ["sh", "-c", script].map(OsString::from).to_vec();
        let grace = Duration::from_secs(1);
        async move { exec::run(&ExecOptions { command, grace, lifeline: false }).await }
    };
    assert_eq!(run("exit 7").await.unwrap(), 7);
    assert_eq!(run("kill -9 $$").await.unwrap(), 128 + 9);
    // What the program leaves behind ends as well.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    run(&format!("sleep 600 & echo $! > {}", file.display())).await.unwrap();
    let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    timeout(PATIENCE, gone(pid)).await.expect("the program's own child is gone");
    let nothing = vec![OsString::from("/no/such/program")];
    let grace = Duration::from_secs(1);
    let error = exec::run(&ExecOptions { command: nothing, grace, lifeline: false }).await;
    assert!(error.unwrap_err().to_string().contains("/no/such/program"));
}

/// Waits until a process is dead: not there, or only there to be reaped.
async fn gone(pid: i32) {
    while std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The process that [`container_process`] starts: this test binary again.
#[test]
#[ignore = "run by other tests as a process of its own"]
fn container_process_body() {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(subcommand)]
        container: clipper::runtime::ContainerCommand,
    }
    let arguments = std::env::var("CONTAINER_ARGUMENTS").unwrap();
    let cli = <Cli as clap::Parser>::parse_from(arguments.split('\n'));
    let code = clipper::runtime::run_cli(cli.container);
    println!("\nended with {code:?}");
}

fn container_process(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["container_process_body", "--exact", "--ignored", "--nocapture"])
        .env("CONTAINER_ARGUMENTS", format!("container\n{}", arguments.join("\n")))
        .env("CLIPPER_LIFELINE", "stdin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_container_process_ends_with_its_server_even_inside_a_call() {
    let mut server = Server::start("tcp://127.0.0.1:0").await;
    let connect = format!("--connect={}", server.address);
    let mut child = container_process(&[
        "noop",
        "--name=slow",
        "--version=1",
        "--input-type=bytes",
        "--sleep-us=600000000",
        &connect,
    ])
    .spawn()
    .unwrap();
    let container = server.register().await;
    let frames = vec![
        container.identity,
        Bytes::new(),
        u32_frame(3),
        u32_frame(1),
        u32_frame(1),
        u32_frame(0),
        words([24]),
        words([0, 1, 1]),
        Bytes::from_static(b"x"),
    ];
    server.send(frames).await;
    drop(child.stdin.take());
    assert!(ended(&mut child).await.success());
}

#[tokio::test]
async fn a_container_process_ends_cleanly_on_sigterm() {
    let mut server = Server::start("tcp://127.0.0.1:0").await;
    let connect = format!("--connect={}", server.address);
    let model = format!("--model={}", digits("digits.onnx").display());
    let mut child =
        container_process(&["onnx", "--name=d", "--version=1", &model, &connect]).spawn().unwrap();
    assert_eq!(server.register().await.type_code, "2");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
    assert!(ended(&mut child).await.success());
}

#[tokio::test]
async fn a_wrapped_program_ends_with_the_server() {
    // It ignores SIGTERM, so only the SIGKILL after the grace ends it and its own child.
    let script = "trap '' TERM; sleep 600 & echo started $! $$; wait; sleep 600";
    let mut child =
        container_process(&["exec", "--grace-ms=50", "--", "sh", "-c", script]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let started = timeout(PATIENCE, async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it starts");
            if let Some(at) = line.find("started ") {
                return line[at + 8..].to_owned();
            }
        }
    });
    let pids = started.await.expect("it starts");
    drop(child.stdin.take());
    assert!(ended(&mut child).await.success());
    for pid in pids.split(' ') {
        timeout(PATIENCE, gone(pid.parse().unwrap())).await.expect("it is dead");
    }
}
