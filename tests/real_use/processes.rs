//! Child processes: their start, their end, and what comes of those that do not serve.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::served::{Http, Served, until};
use crate::support::signals::signal;

/// A model that does to itself what real ones have done, one kind of harm for each input.
const MODEL: &str = r#"
import json, os, subprocess, sys, time

def predict(inputs):
    return [one_of(one) for one in inputs]

def link(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return "gone"

def one_of(one):
    if one == "hang":
        while True:
            pass
    if one.startswith("exit"):
        os._exit(7)
    if one == "pid":
        return str(os.getpid())
    if one == "about":
        return json.dumps({
            "environment": dict(os.environ),
            "files": [link(fd) for fd in os.listdir("/proc/self/fd")],
            "pipes": [link(fd) for fd in (0, 1, 2)],
            "directory": os.getcwd(),
            "command": open(f"/proc/{os.getppid()}/cmdline").read(),
        })
    return "fine"
"#;

/// The start of a file whose import starts a helper and says its number.
const HELPER: &str = "
import subprocess, sys
helper = subprocess.Popen(['sleep', '1000'], start_new_session='apart' in sys.argv[0:0])
open(__file__ + '.pid', 'w').write(str(helper.pid))
";

pub(super) fn python() -> String {
    std::env::var("CLIPPER_TEST_PYTHON").expect("a Python with pyzmq and numpy")
}

/// Settings, then an application and a model `m` over strings, served by `container`.
pub(super) fn config(settings: &str, container: &str) -> String {
    format!(
        "{settings}\n[[application]]\nname = 'm'\ninput_type = 'strings'\n\
         default_output = 'default'\nlatency_slo_micros = 20000000\nmodel = 'm'\n\
         [[model]]\nname = 'm'\nversion = '1'\ninput_type = 'strings'\nbatch_size = 1\n\
         [model.container]\n{container}\n"
    )
}

/// A server whose model is this Python file's `predict`.
pub(super) fn python_server(folder: &Path, settings: &str, replicas: u32, model: &str) -> Served {
    Served::start(&python_config(folder, settings, replicas, model), folder)
}

pub(super) fn python_config(folder: &Path, settings: &str, replicas: u32, model: &str) -> String {
    let file = folder.join("model.py");
    std::fs::write(&file, model).unwrap();
    let container = format!(
        "runtime = 'python'\nfunction = '{}:predict'\npython = '{}'\nreplicas = {replicas}",
        file.display(),
        python()
    );
    config(settings, &container)
}

/// The model's answer; `None` where it was the default.
pub(super) fn ask(server: &Served, input: &str) -> Option<String> {
    let body = json!({ "input": input }).to_string();
    let (_, text) = Http::new(server.query).request("POST", "/m/predict", &body).ok()?;
    let answer: serde_json::Value = serde_json::from_str(&text).ok()?;
    let is_default = answer["default"].as_bool()?;
    let output = &answer["output"];
    (!is_default).then(|| output.as_str().map_or_else(|| output.to_string(), str::to_owned))
}

/// Asks what no cache knows until the model answers.
pub(super) fn await_answer(server: &Served) {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    until("a healthy query is answered", || {
        ask(server, &format!("fresh {}", ASKED.fetch_add(1, Ordering::Relaxed)))
    });
}

pub(super) fn is_running(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

fn pid_in(file: &Path) -> i32 {
    until("the process says its number", || std::fs::read_to_string(file).ok()?.trim().parse().ok())
}

#[test]
fn line_01_a_process_whose_connection_is_given_up_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "[rpc]\nsilence_timeout_ms = 1500\n[serving]\nattempts_max = 2";
    let server = python_server(folder.path(), settings, 2, MODEL);
    server.await_replicas("m", 2);
    let before = ask(&server, "pid").expect("an answer").parse().unwrap();
    assert_eq!(ask(&server, "hang"), None);
    until("the hung processes are gone", || (!is_running(before)).then_some(()));
    await_answer(&server);
    server.await_replicas("m", 2);
}

#[test]
fn line_02_deaths_after_serving_do_not_use_up_the_budget_of_starts() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "[containers]\nrestart_budget = 1\nrestart_backoff_initial_ms = 10";
    let server = python_server(folder.path(), settings, 1, MODEL);
    for death in 0..4 {
        await_answer(&server);
        assert_eq!(ask(&server, &format!("exit {death}")), None);
    }
    await_answer(&server);
}

#[test]
fn line_02_failing_starts_are_tried_again_and_an_operator_can_hasten_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "[containers]\nrestart_budget = 0\nfailing_start_pause_ms = 86400000";
    let server = python_server(folder.path(), settings, 1, "raise SystemExit(3)");
    until("the failing is told", || {
        server.log().iter().any(|line| line.contains("failed to start 1 times")).then_some(())
    });
    std::fs::write(folder.path().join("model.py"), MODEL).unwrap();
    let restart = |what: &[&str]| {
        let url = format!("http://{}", server.management);
        let mut command = Command::new(crate::binary());
        command.args(["admin", "--url", &url, "replicas", "restart"]).args(what);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (done, text) = restart(&["m:1"]);
    assert!(done && text.contains("1 replica"), "{text}");
    await_answer(&server);
    let before = ask(&server, "pid").expect("an answer");
    assert!(restart(&[]).0);
    until("another process answers", || {
        let body = json!({"model_name": "m"}).to_string();
        let _ = Http::new(server.management).request("POST", "/admin/restart_replicas", &body);
        // The cache may still have the old answer; the process itself must go.
        (!is_running(before.parse().unwrap())).then_some(())
    });
    await_answer(&server);
    assert!(!restart(&["other"]).0, "a model without replicas of this server is refused");
}

#[test]
fn line_06_a_helper_that_was_started_at_import_ends_with_its_model() {
    for apart in ["False", "True"] {
        let folder = tempfile::tempdir().unwrap();
        let helper = HELPER.replace("'apart' in sys.argv[0:0]", apart);
        let mut server = python_server(folder.path(), "", 1, &format!("{helper}\n{MODEL}"));
        await_answer(&server);
        let helper = pid_in(&folder.path().join("model.py.pid"));
        assert!(is_running(helper));
        signal(server.pid(), Signal::SIGTERM);
        until("the server ends", || (!server.is_up()).then_some(()));
        assert!(!is_running(helper), "a helper in a session of its own: {apart}");
    }
}

#[test]
fn line_06_children_start_with_what_is_documented_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let config = python_config(folder.path(), "", 2, MODEL);
    let inherited_file = folder.path().join("inherited");
    std::fs::write(&inherited_file, "").unwrap();
    let mut shell = Command::new("sh");
    shell
        .args([
            "-c",
            "exec 9<\"$0\"; exec \"$@\"",
            inherited_file.to_str().unwrap(),
            crate::binary(),
        ])
        .env("SECRET_TOKEN", "secret")
        .env("CLIPPER_LOG", "info")
        .env("LC_TIME", "C");
    let server = Served::start_by(shell, &config, folder.path());
    server.await_replicas("m", 2);
    let text = until("it tells", || ask(&server, "about"));
    let about: serde_json::Value = serde_json::from_str(&text).unwrap();
    let environment = about["environment"].as_object().unwrap();
    assert!(!environment.contains_key("SECRET_TOKEN") && !environment.contains_key("CLIPPER_LOG"));
    assert!(environment.contains_key("PATH") && environment.contains_key("LC_TIME"));
    let number = environment["CLIPPER_REPLICA"].as_str().unwrap();
    assert!(["0", "1"].contains(&number), "{number}");
    for pipe in about["pipes"].as_array().unwrap() {
        assert!(pipe.as_str().unwrap().starts_with("pipe:"), "{pipe}");
    }
    let files = about["files"].as_array().unwrap();
    assert!(!files.contains(&json!(inherited_file)), "inherited: {files:?}");
    let own = std::fs::read_link(format!("/proc/{}/cwd", server.pid())).unwrap();
    assert_eq!(about["directory"].as_str(), own.to_str());
    let command = about["command"].as_str().unwrap();
    assert!(command.len() < 1_000 && command.contains("model.py:predict"), "{command}");
}

#[test]
fn line_08c_a_child_that_never_connects_is_ended_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "[containers]\nconnect_timeout_ms = 1500";
    let slow = format!(
        "import os, time\nopen(__file__ + '.pid', 'w').write(str(os.getpid()))\n\
         time.sleep(1000)\n{MODEL}"
    );
    let server = python_server(folder.path(), settings, 1, &slow);
    let pid_file = folder.path().join("model.py.pid");
    let first = pid_in(&pid_file);
    until("the stopped process is ended", || (!is_running(first)).then_some(()));
    until("it is reported", || {
        server.log().iter().any(|line| line.contains("has not connected for 1.5s")).then_some(())
    });
    until("another one is started", || (pid_in(&pid_file) != first).then_some(()));
}

/// A command whose program ignores SIGTERM, as does what it starts in a session of its own.
fn stubborn(folder: &Path) -> String {
    let (program, daemon) = (folder.join("program.pid"), folder.join("daemon.pid"));
    let script = folder.join("run.sh");
    let text = format!(
        "trap '' TERM HUP\n\
         setsid sh -c 'echo $$ > {}; while :; do sleep 1; done' </dev/null &\n\
         echo $$ > {}\nwhile :; do sleep 1; done\n",
        daemon.display(),
        program.display()
    );
    std::fs::write(&script, text).unwrap();
    let settings = "[containers]\nstop_grace_ms = 400";
    config(settings, &format!("runtime = 'command'\ncommand = ['sh', '{}']", script.display()))
}

#[test]
fn line_08d_what_ignores_sigterm_or_left_its_session_ends_with_the_server() {
    for kill_9 in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Served::start(&stubborn(folder.path()), folder.path());
        let pids = ["program.pid", "daemon.pid"].map(|name| pid_in(&folder.path().join(name)));
        if kill_9 {
            server.kill_9();
        } else {
            signal(server.pid(), Signal::SIGTERM);
            until("the server ends", || (!server.is_up()).then_some(()));
        }
        for (name, pid) in ["program", "daemon"].into_iter().zip(pids) {
            until(&format!("the {name} is gone, kill -9: {kill_9}"), || {
                (!is_running(pid)).then_some(())
            });
        }
    }
}

#[test]
fn line_08d_what_a_killed_wrapper_leaves_behind_ends_too() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start(&stubborn(folder.path()), folder.path());
    let pids = ["program.pid", "daemon.pid"].map(|name| pid_in(&folder.path().join(name)));
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pids[0])).unwrap();
    let wrapper = stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    assert_ne!(wrapper, server.pid());
    signal(wrapper, Signal::SIGKILL);
    for pid in pids {
        until("it is gone", || (!is_running(pid)).then_some(()));
    }
}

/// Longest time that the line of the issue grants: an answer again after the giving-up.
#[test]
#[ignore = "a figure that depends on the machine's speed"]
fn line_01_figure_time_to_the_next_answer() {
    let folder = tempfile::tempdir().unwrap();
    let server = python_server(folder.path(), "[rpc]\nsilence_timeout_ms = 1500", 1, MODEL);
    server.await_replicas("m", 1);
    assert_eq!(ask(&server, "hang"), None);
    until("the connection is given up", || {
        server.log().iter().any(|line| line.contains("container process is ended")).then_some(())
    });
    let started = std::time::Instant::now();
    await_answer(&server);
    println!("answered again {:?} after the giving-up", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(5));
}
