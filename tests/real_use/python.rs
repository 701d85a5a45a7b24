//! Python models: one program for all of them, and what a newcomer is told.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::e2e::support::server::Server;
use crate::e2e::support::{descendants_of, eventually, is_running, python};
use crate::support::signals::signal;

/// An application and a model `m` for `input_type`, whose container runs `function`.
fn config(folder: &Path, input_type: &str, source: &str) -> String {
    std::fs::write(folder.join("model.py"), source).unwrap();
    let (folder, python) = (folder.display(), python());
    let python = python.to_string_lossy();
    format!(
        "[[application]]\nname = \"m\"\ninput_type = \"{input_type}\"\ndefault_output = \"-1\"\n\
         latency_slo_micros = 30000000\nmodel = \"m\"\n\n\
         [[model]]\nname = \"m\"\nversion = \"1\"\ninput_type = \"{input_type}\"\n\
         [model.container]\nruntime = \"python\"\nfunction = '{folder}/model.py:predict'\n\
         python = '{python}'\n"
    )
}

/// The package's own command line, as a user starts it.
struct Package(Child);

impl Package {
    fn serving(server: &Server, folder: &Path, model: &str) -> Self {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/python/src");
        let child = Command::new(python())
            .args(["-m", "clipper_serving", "serve", "model.py:predict", "--metrics-port=0"])
            .args(["--name", model, "--version", "1", "--input-type", "strings"])
            .current_dir(folder)
            .env("PYTHONPATH", source)
            .env("CLIPPER_PORT", server.rpc.rsplit(':').next().unwrap())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Package {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers each input, a Python expression, with its value; `2:` before it makes it the whole
/// result of a batch.
const EVALUATES: &str = "\
import numpy as np

def predict(inputs):
    if inputs[0].startswith('2:'):
        return eval(inputs[0][2:])
    return [eval(one) for one in inputs]
";

/// The rows of the table of docs/python-models.md whose first column is called `heading`.
fn table(heading: &str) -> Vec<(String, String)> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/python-models.md");
    let page = std::fs::read_to_string(page).unwrap();
    let start = page.lines().position(|line| line.starts_with(&format!("| {heading} |"))).unwrap();
    let rows = page.lines().skip(start + 2).take_while(|line| line.starts_with('|'));
    let plain = |cell: &str| cell.trim().trim_matches('`').to_owned();
    rows.map(|row| row.trim_matches(['|', ' ']).split_once(" | ").unwrap())
        .map(|(first, second)| (plain(first), plain(second)))
        .collect()
}

/// The answer's output, or why there is none.
fn answer(body: &Value) -> Result<Value, String> {
    match body["default"].as_bool() {
        Some(false) => Ok(body["output"].clone()),
        _ => Err(body["default_explanation"].to_string()),
    }
}

fn check_row(server: &Server, app: &str, input: &str, expected: &str) {
    let found = answer(&server.predict(app, &json!({"input": input})).body);
    match (expected.strip_prefix("error: "), found) {
        (Some(part), Err(why)) => assert!(why.contains(part), "{app}: {input} gives {why}"),
        (None, Ok(output)) => {
            let expected: Value = serde_json::from_str(expected).unwrap();
            assert_eq!(output, expected, "{app}: {input}");
        }
        (_, found) => panic!("{app}: {input} gives {found:?} and not {expected}"),
    }
}

#[test]
fn line_23_a_function_answers_alike_in_the_box_and_in_the_package() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with_config(&config(folder.path(), "strings", EVALUATES));
    server.serve("package", "strings", 30_000_000);
    let _package = Package::serving(&server, folder.path(), "package");
    server.await_replicas("m", 1);
    server.await_replicas("package", 1);
    for app in ["m", "package"] {
        for (expression, expected) in table("output") {
            check_row(&server, app, &expression, &expected);
        }
        // A batch of one: what is a list of two for two inputs is the wrong number here.
        for (expression, expected) in table("result") {
            if let Some(part) = expected.strip_prefix("error: a single") {
                let expected = format!("error: a single{part}");
                check_row(&server, app, &format!("2:{expression}"), &expected);
            }
        }
        check_row(&server, app, "2:(n for n in ['one'])", "\"one\"");
        check_row(&server, app, "2:np.array([np.nan])", "null");
        check_row(&server, app, "2:{1}", "error: no order");
        check_row(&server, app, "2:None", "error: nothing (None)");
        check_row(&server, app, "2:[1, 2, 3]", "error: 3 outputs");
    }
}

#[test]
fn line_23_a_process_list_shows_a_short_command() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with_config(&config(folder.path(), "strings", EVALUATES));
    server.await_replicas("m", 1);
    let lines: Vec<String> = descendants_of(server.pid())
        .iter()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok())
        .filter(|line| line.contains("model.py"))
        .collect();
    assert!(!lines.is_empty());
    assert!(lines.iter().all(|line| line.len() < 400 && !line.contains('\n')), "{lines:?}");
}

const USES_THE_PACKAGE: &str = "\
from clipper_serving import container, metrics

@container(name='other', version='9', input_type='bytes')
def predict(inputs):
    metrics.counter('words_total').inc(len(inputs))
    return [f'{one} {type(one).__name__}' for one in inputs]
";

#[test]
fn line_23_the_package_is_there_for_a_model_in_the_box() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with_config(&config(folder.path(), "strings", USES_THE_PACKAGE));
    server.await_replicas("m", 1);
    assert_eq!(server.predict("m", &json!({"input": "a"})).output(), &json!("a str"));
    server.says("metrics on http://127.0.0.1:");
}

#[test]
fn line_26_a_function_of_one_input_is_told_what_it_gets() {
    let folder = tempfile::tempdir().unwrap();
    let source = "def predict(x):\n    return x.sum()\n";
    let server = Server::with_config(&config(folder.path(), "doubles", source));
    server.await_replicas("m", 1);
    let prediction = server.predict("m", &json!({"input": [1]}));
    let why = prediction.explanation();
    assert!(why.contains("'list' object has no attribute 'sum'"), "{why}");
    assert!(why.contains("return [f(x) for x in xs]"), "{why}");
}

const HELPERS: &str = "\
import multiprocessing, subprocess, time

def for_ever():
    while True:
        time.sleep(1)

helper = multiprocessing.get_context('fork').Process(target=for_ever)
helper.start()
other = subprocess.Popen(['sleep', '600'])

def predict(inputs):
    return [[helper.pid, other.pid] for one in inputs]
";

/// What `clipper deploy` says of `model` in a folder with `source` in `model.py`.
fn deploy(server: &Server, source: &str, model: &str, more: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.py"), source).unwrap();
    std::fs::write(folder.path().join("iris.joblib"), "").unwrap();
    let output = Command::new(crate::binary())
        .args(["deploy", model, "--app", "new", "--slo-ms", "9000", "--default-output=-1"])
        .args(more)
        .arg("--python")
        .arg(python())
        .args(["--url", &format!("http://{}", server.management)])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn line_26_a_deployment_that_fails_says_what_helps() {
    let server = Server::start();
    let said = deploy(
        &server,
        "def predict(x):
    return x.sum()
",
        "model.py:predict",
        &[],
    );
    assert!(said.contains("return [f(x) for x in xs]"), "{said}");
    assert!(!said.contains("other inputs than zeros"), "{said}");
    let said = deploy(
        &server,
        "def score(xs):
    return xs
",
        "model.py:predict",
        &[],
    );
    assert!(said.contains("no function 'predict'; it has score"), "{said}");
    let said = deploy(
        &server,
        "import no_such_module
",
        "model.py:predict",
        &[],
    );
    assert!(said.contains("-m pip install no_such_module"), "{said}");
    let said = deploy(&server, "", "iris.joblib", &[]);
    assert!(said.contains("--command python3 -m clipper_serving serve iris.joblib"), "{said}");
    let slow = "import time
time.sleep(600)
";
    let said = deploy(&server, slow, "model.py:predict", &["--timeout", "15"]);
    assert!(said.contains("still loading"), "{said}");
    assert!(said.contains("--timeout"), "{said}");
}

#[test]
fn line_06_helpers_started_at_import_do_not_outlive_a_killed_server() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::with_config(&config(folder.path(), "strings", HELPERS));
    server.await_replicas("m", 1);
    let found = server.predict("m", &json!({"input": "x"})).output().clone();
    let pids: Vec<u32> = serde_json::from_value(found).unwrap();
    assert_eq!(pids.len(), 2);
    server.kill();
    eventually("the helpers are gone", || !pids.iter().any(|pid| is_running(*pid)));
}

/// What a container of the package for `model` and `input_type` has logged, once it says `what`.
fn log_of_a_container(server: &Server, model: &str, input_type: &str, what: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.py"), EVALUATES).unwrap();
    let (log, source) =
        (folder.path().join("log"), concat!(env!("CARGO_MANIFEST_DIR"), "/python/src"));
    let child = Command::new(python())
        .args(["-m", "clipper_serving", "serve", "model.py:predict", "--metrics-port=0"])
        .args(["--name", model, "--version", "1", "--input-type", input_type])
        .current_dir(folder.path())
        .env("PYTHONPATH", source)
        .env("CLIPPER_PORT", server.rpc.rsplit(':').next().unwrap())
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let _package = Package(child);
    let mut text = String::new();
    eventually(&format!("the container says {what}"), || {
        text = std::fs::read_to_string(&log).unwrap();
        text.contains(what)
    });
    text
}

#[test]
fn line_24_a_container_logs_what_the_server_thinks_of_it() {
    let server = Server::start();
    server.serve("m", "doubles", 30_000_000);
    let log = log_of_a_container(&server, "unreg", "strings", "WARNING the server says: ");
    assert!(log.contains("unreg"), "{log}");
    assert!(!log.contains("registered as a replica"), "{log}");
    let log = log_of_a_container(&server, "m", "strings", "ERROR the server says: ");
    assert!(log.contains("doubles"), "{log}");
    log_of_a_container(&server, "m", "doubles", "INFO the server says: ");
}

#[test]
fn line_20_a_container_of_other_code_does_not_leave_stale_answers() {
    let folder = tempfile::tempdir().unwrap();
    let source = |n: u32| format!("def predict(inputs):\n    return [{n} for one in inputs]\n");
    let server = Server::with_config(&config(folder.path(), "strings", &source(1)));
    server.await_replicas("m", 1);
    let ask = || server.predict("m", &json!({"input": "x"}));
    assert_eq!(ask().output(), &json!(1));
    std::fs::write(folder.path().join("model.py"), source(2)).unwrap();
    for child in descendants_of(server.pid()) {
        signal(child, nix::sys::signal::Signal::SIGKILL);
    }
    eventually("the new code answers", || ask().output() == &json!(2));
}

#[test]
fn line_25_a_container_copes_with_the_variables_of_a_kubernetes_service() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.py"), EVALUATES).unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/python/src");
    let log = folder.path().join("log");
    let mut child = Command::new(python())
        .args(["-m", "clipper_serving", "serve", "model.py:predict", "--metrics-port=0"])
        .args(["--name", "m", "--version", "1"])
        .current_dir(folder.path())
        .env("PYTHONPATH", source)
        // Nobody is there.
        .env("CLIPPER_IP", "127.0.0.2")
        .env("CLIPPER_PORT", "tcp://10.0.0.1:1337")
        .env("CLIPPER_SERVICE_HOST", "10.0.0.1")
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    eventually("it warns and goes on", || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.contains("CLIPPER_PORT is 'tcp://10.0.0.1:1337'")
            && text.contains("tcp://127.0.0.2:7000: cannot connect")
    });
    signal(child.id(), nix::sys::signal::Signal::SIGTERM);
    assert!(child.wait().unwrap().success());
}
