//! Containers as processes of their own: the Python runner, the wrapper for any program, and the
//! ways in which all of them end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use clipper_container::exec::{self, ExecOptions};
use clipper_container::python;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use zeromq::prelude::*;

use crate::support::container_server::{PATIENCE, Server, doubles, u32_frame, words};
use crate::support::signals::signal;

/// An interpreter with pyzmq and numpy.
fn interpreter() -> OsString {
    std::env::var_os("CLIPPER_TEST_PYTHON").expect(
        "set CLIPPER_TEST_PYTHON to a Python 3.9+ that has pyzmq and numpy, for example: \
         python3 -m venv .venv && .venv/bin/pip install pyzmq numpy && \
         export CLIPPER_TEST_PYTHON=$PWD/.venv/bin/python",
    )
}

/// Starts the package as the server does.
fn python_container(function: &str, input_type: &str, address: &str) -> Command {
    static PARENT: OnceLock<tempfile::TempDir> = OnceLock::new();
    static PACKAGE: OnceLock<PathBuf> = OnceLock::new();
    let parent = PARENT.get_or_init(|| tempfile::tempdir().unwrap());
    let package = PACKAGE.get_or_init(|| python::install(parent.path()).unwrap());
    let port = address.rsplit_once(':').unwrap().1;
    let mut command = Command::new(interpreter());
    command
        .args(python::arguments(package, function.into()))
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
    if any(one[0] == 13 for one in inputs):
        return ["too", "many"] * len(inputs)
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
    let mut server = Server::start().await;
    let (_folder, function) = python_folder();
    let mut child =
        python_container(&function("total"), "doubles", &server.address).spawn().unwrap();
    let container = server.register().await;
    assert_eq!((container.name.as_str(), container.version.as_str()), ("py", "2"));
    assert_eq!(container.type_code, "3");

    let one = doubles(&[1.5, 2.0]);
    assert_eq!(server.predict(&container, 3, std::slice::from_ref(&one)).await, ["3.5"]);
    let outputs = server.predict(&container, 3, &[one.clone(), Bytes::new()]).await;
    assert_eq!(outputs, ["3.5", r#"{"error": "an empty one", "type": "RuntimeError"}"#]);
    let mut batch = vec![one.clone(); 7];
    batch[4] = doubles(&[13.0]);
    let outputs = server.predict(&container, 3, &batch).await;
    assert!(outputs.iter().all(|output| output.contains("14 outputs for 7 inputs")), "{outputs:?}");
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
        let mut server = Server::start().await;
        let mut child =
            python_container(&function("describe"), input_type, &server.address).spawn().unwrap();
        let container = server.register().await;
        assert_eq!(container.type_code, code.to_string());
        let outputs = server.predict(&container, code, &[Bytes::from_static(b"12345678")]).await;
        assert_eq!(outputs, [expected]);
        signal(child.id().unwrap(), nix::sys::signal::SIGTERM);
        assert!(ended(&mut child).await.success(), "SIGTERM is a clean end");
    }
}

#[tokio::test]
async fn a_python_container_comes_back_after_its_server() {
    let (_folder, function) = python_folder();
    let mut server = Server::start().await;
    let address = server.address.clone();
    let _child = python_container(&function("echo"), "strings", &address).spawn().unwrap();
    for _ in 0..2 {
        let container = server.register().await;
        let outputs = server.predict(&container, 4, &[Bytes::from("é{}")]).await;
        assert_eq!(outputs, ["é{}"]);
        drop(server.socket.close().await);
        server = Server::start_at(&address).await;
    }
}

#[tokio::test]
async fn a_python_function_that_cannot_be_imported_is_named() {
    let (folder, function) = python_folder();
    let broken = folder.path().join("broken.py");
    std::fs::write(&broken, "import no_such_module\n").unwrap();
    let missing = folder.path().join("missing.py");
    let cases = [
        (format!("{}:f", broken.display()), 3, "no_such_module"),
        (format!("{}:f", missing.display()), 1, "missing.py"),
        (function("no_such_function"), 1, "no_such_function"),
        (function("total").replace(":total", ""), 1, "model.py:FUNCTION"),
    ];
    for (function, code, expected) in cases {
        let mut command = python_container(&function, "doubles", "tcp://127.0.0.1:1");
        command.env_remove("CLIPPER_LIFELINE");
        let output = timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{text}");
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
        container: clipper::cli::container::ContainerCommand,
    }
    let arguments = std::env::var("CONTAINER_ARGUMENTS").unwrap();
    let cli = <Cli as clap::Parser>::parse_from(arguments.split('\n'));
    let code = clipper::cli::container::run_cli(cli.container);
    println!("\nended with {code:?}");
}

fn container_process(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["runtime_processes::container_process_body", "--exact", "--ignored", "--nocapture"])
        .env("CONTAINER_ARGUMENTS", format!("container\n{}", arguments.join("\n")))
        .env("CLIPPER_LIFELINE", "stdin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_container_process_ends_with_its_server_even_inside_a_call() {
    let mut server = Server::start().await;
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
    let mut server = Server::start().await;
    let connect = format!("--connect={}", server.address);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits/digits.onnx");
    let model = format!("--model={}", model.display());
    let mut child =
        container_process(&["onnx", "--name=d", "--version=1", &model, &connect]).spawn().unwrap();
    assert_eq!(server.register().await.type_code, "2");
    signal(child.id().unwrap(), nix::sys::signal::SIGTERM);
    assert!(ended(&mut child).await.success());
}

#[tokio::test]
async fn a_wrapped_program_ends_with_the_server() {
    // It ignores SIGTERM, so only the SIGKILL after the grace ends it and its own child.
    let script = "trap '' TERM; sleep 600 & echo started $! $$; wait; sleep 600";
    let mut child =
        container_process(&["exec", "--grace-ms=50", "--", "sh", "-c", script]).spawn().unwrap();
    let (pids, _output) = printed(&mut child, "started ").await;
    drop(child.stdin.take());
    assert!(ended(&mut child).await.success());
    for pid in pids.split(' ') {
        timeout(PATIENCE, gone(pid.parse().unwrap())).await.expect("it is dead");
    }
}

#[tokio::test]
async fn a_wrapped_program_can_notice_that_its_wrapper_was_killed() {
    let script = "echo started $$; cat";
    let mut child = container_process(&["exec", "--", "sh", "-c", script]).spawn().unwrap();
    let (pid, _output) = printed(&mut child, "started ").await;
    let lifeline = child.stdin.take();
    child.kill().await.unwrap();
    timeout(PATIENCE, gone(pid.parse().unwrap())).await.expect("it is dead");
    drop(lifeline);
}

/// What stands behind `prefix` on the first line of `child`'s output that has it, and the rest of
/// the output, which has to stay open.
async fn printed(child: &mut Child, prefix: &str) -> (String, Lines<BufReader<ChildStdout>>) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let search = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("more output");
            if let Some(at) = line.find(prefix) {
                return line[at + prefix.len()..].to_owned();
            }
        }
    };
    let found = timeout(PATIENCE, search).await.expect("the output comes");
    (found, lines)
}
