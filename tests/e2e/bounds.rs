//! What models may start, use and see: `[deploy]`, the limits of `[containers]` and the fence.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::admin_cli::text;
use super::deploy::{deploy, deployed, folder, leftovers};
use super::support::python;
use super::support::server::Server;
use crate::support::served::{Http, Served, until};

/// A model whose inputs say what it tries; it answers what came of it.
const MODEL: &str = r#"
import json, os, resource, socket, time

def predict(inputs):
    return [json.dumps(tried(*json.loads(one))) for one in inputs]

def tried(what, *rest):
    try:
        return ["done", globals()[what](*rest)]
    except (OSError, MemoryError) as why:
        return ["refused", type(why).__name__, getattr(why, "errno", None)]

def allocate(mib):
    return len(bytearray(mib << 20)) >> 20

def files(number):
    held = []
    try:
        for _ in range(number):
            held.append(open("/dev/null"))
        return number
    finally:
        for file in held:
            file.close()

def limits():
    names = ("RLIMIT_AS", "RLIMIT_NOFILE", "RLIMIT_CPU")
    return [resource.getrlimit(getattr(resource, name))[1] for name in names]

def spin():
    while True:
        pass

def read(path):
    return len(open(path, "rb").read())

def write(path):
    return open(path, "w").write("x")

def connect(port):
    socket.create_connection(("127.0.0.1", port), 60).close()

def signal(pid):
    os.kill(pid, 0)

def environment():
    return dict(os.environ)
"#;

/// A configuration whose model `m` does what it is asked to.
fn trying(folder: &Path, settings: &str, of_model: &str) -> String {
    let file = folder.join("model.py");
    std::fs::write(&file, MODEL).unwrap();
    format!(
        "{settings}\n[[application]]\nname = 'm'\ninput_type = 'strings'\n\
         default_output = '\"default\"'\nlatency_slo_micros = 30000000\nmodel = 'm'\n\
         [[model]]\nname = 'm'\nversion = '1'\ninput_type = 'strings'\nbatch_size = 1\n\
         cache = false\n[model.container]\nruntime = 'python'\nfunction = '{}:predict'\n\
         python = '{}'\n[model.process]\n{of_model}\n",
        file.display(),
        python().into_string().unwrap()
    )
}

/// What comes of it when the model tries this.
fn tries(server: &Served, what: &Value) -> Value {
    let input = json!({"input": what.to_string()}).to_string();
    let (_, body) = Http::new(server.query).request("POST", "/m/predict", &input).unwrap();
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["default"], json!(false), "{what}: {body}");
    answer["output"].clone()
}

#[test]
fn a_child_uses_no_more_than_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let all = "[containers]\nopen_files_max = 1000\ncpu_seconds_max = 4\n";
    let own = format!("open_files_max = 64\naddress_space_max_bytes = {}\n", 8_u64 << 30);
    let server = Served::start(&trying(dir.path(), all, &own), dir.path());
    server.await_replicas("m", 1);
    assert_eq!(tries(&server, &json!(["limits"])), json!(["done", [8_u64 << 30, 64, 4]]));
    assert_eq!(tries(&server, &json!(["files", 20])), json!(["done", 20]));
    assert_eq!(tries(&server, &json!(["files", 80])), json!(["refused", "OSError", 24]));
    assert_eq!(tries(&server, &json!(["allocate", 16])), json!(["done", 16]));
    let refused = json!(["refused", "MemoryError", null]);
    assert_eq!(tries(&server, &json!(["allocate", 9_000])), refused);
    // It is killed for its CPU time, and another takes its place.
    let spin = json!({"input": json!(["spin"]).to_string()}).to_string();
    let (_, body) = Http::new(server.query).request("POST", "/m/predict", &spin).unwrap();
    assert!(body.contains("\"default\":true"), "{body}");
    // 128 and SIGXCPU, or SIGKILL of a kernel that saw it late.
    until("it is seen", || {
        let told = "is started again: exit status: 1";
        server.log().iter().any(|line| line.contains(told)).then_some(())
    });
    until("another answers", || {
        let input = json!({"input": json!(["allocate", 1]).to_string()}).to_string();
        let (_, body) = Http::new(server.query).request("POST", "/m/predict", &input).ok()?;
        body.contains("\"done\"").then_some(())
    });
}

#[test]
fn a_child_runs_as_another_user_that_cannot_fork_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let script = "echo \"I am $(id -u):$(id -g):$(id -G)\"; n=0; while [ $n -lt 200 ]; do \
                  sleep 300 & n=$((n+1)); done; echo all of them";
    let config = format!(
        "[containers]\nuser = '54321:54322'\nprocesses_max = 40\n\
         [[model]]\nname = 'm'\nversion = '1'\ninput_type = 'doubles'\n\
         [model.container]\nruntime = 'command'\ncommand = ['/bin/sh', '-c', '''{script}''']\n"
    );
    if !nix::unistd::geteuid().is_root() {
        let file = dir.path().join("clipper.toml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(crate::binary());
        command.args(["serve", "--config"]).arg(&file).arg("--data-dir").arg(dir.path().join("d"));
        let refused = command.output().unwrap();
        assert!(text(&refused.stderr).contains("only a server that runs as root"), "{refused:?}");
        return;
    }
    let server = Served::start(&config, dir.path());
    server.says("I am 54321:54322:54322");
    until("a fork is refused", || {
        let log = server.log();
        log.iter().any(|line| line.to_lowercase().contains("fork")).then_some(())
    });
    assert!(!server.log().iter().any(|line| line.contains("all of them")));
}

/// Whether the kernel can; a program that it confines says so.
fn has_landlock() -> bool {
    let mut command = Command::new(crate::binary());
    command.args(["container", "confined", "--landlock=required", "--", "/bin/true"]);
    command.stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn a_fence_keeps_a_child_from_what_is_not_its_own() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    for folder in ["models", "other", "shared", "tmp", "served"] {
        std::fs::create_dir(path(folder)).unwrap();
    }
    for file in ["models/weights", "other/secret", "shared/weights"] {
        std::fs::write(path(file), "0123456789").unwrap();
    }
    symlink(path("other/secret"), path("models/link")).unwrap();
    let all = format!(
        "[containers]\nlandlock = 'required'\nnetwork = 'server'\nread_paths = ['{}']\n",
        path("shared").display()
    );
    let config = trying(&path("models"), &all, "");
    let mut command = Command::new(crate::binary());
    command.env("TMPDIR", path("tmp")).env("AWS_SECRET_ACCESS_KEY", "not for models");
    if !has_landlock() {
        let server = Served::start_by(command, &config, &path("served"));
        return server.says("this kernel has no Landlock");
    }
    let server = Served::start_by(command, &config, &path("served"));
    server.await_replicas("m", 1);
    let of = |name: &str| path(name).display().to_string();
    for allowed in [
        json!(["read", of("models/weights")]),
        json!(["read", of("shared/weights")]),
        json!(["read", "/etc/passwd"]),
        json!(["write", of("tmp/x")]),
        json!(["read", of("tmp/x")]),
        json!(["connect", server.rpc.port()]),
    ] {
        let came = tries(&server, &allowed);
        assert_eq!(came[0], json!("done"), "{allowed}: {came}");
    }
    let proc = format!("/proc/{}", server.pid());
    for refused in [
        json!(["read", of("other/secret")]),
        json!(["read", of("models/link")]),
        json!(["read", of("served/clipper.toml")]),
        json!(["read", of("served/data/journal/wal")]),
        json!(["read", format!("{proc}/environ")]),
        json!(["read", format!("{proc}/mem")]),
        json!(["write", of("models/x")]),
        json!(["write", of("shared/x")]),
        json!(["write", of("x")]),
        json!(["connect", server.management.port()]),
        json!(["connect", server.query.port()]),
        json!(["signal", server.pid()]),
    ] {
        let came = tries(&server, &refused);
        let is_refused = came[0] == json!("refused") && came[1] == json!("PermissionError");
        assert!(is_refused, "{refused}: {came}");
    }
    let environment = tries(&server, &json!(["environment"])).to_string();
    assert!(environment.contains("CLIPPER_MODEL_NAME"), "{environment}");
    assert!(!environment.contains("not for models"), "{environment}");
}

fn allowing(entries: &[PathBuf], more: &[&str]) -> String {
    let entries = entries.iter().map(|path| path.display().to_string());
    let all: Vec<String> = entries.chain(more.iter().map(|word| (*word).to_owned())).collect();
    format!("[deploy]\nallow = {}\n", json!(all))
}

/// The virtual environment of the tests, and what its interpreter is a link to.
fn environments() -> [PathBuf; 2] {
    let python = PathBuf::from(python());
    let target = std::fs::canonicalize(&python).unwrap();
    [python, target].map(|file| file.parent().unwrap().parent().unwrap().to_owned())
}

#[test]
fn only_what_deploy_allow_names_is_deployed() {
    const NEW: [&str; 6] = ["--app", "a", "--slo-ms", "30000", "--default-output", "-1"];
    let (folder, other) = (folder(), folder());
    let secret = other.path().join("good.onnx");
    symlink(&secret, folder.path().join("escape.onnx")).unwrap();
    symlink(other.path(), folder.path().join("up")).unwrap();
    let [of_tests, behind] = environments();
    let folders = [folder.path().to_owned(), of_tests, behind];
    let server = Server::with_config(&allowing(&folders, &["onnx", "python"]));
    let elsewhere = format!("{} lies in no folder", secret.display());
    for (words, part) in [
        (&["escape.onnx"][..], "leads out of"),
        (&["up/good.onnx"], "leads out of"),
        (&[secret.to_str().unwrap()], &elsewhere),
        (&["--name", "m", "--command", "sh", "-c", "true"], "does not name the runtime command"),
    ] {
        let output = deploy(&server, folder.path(), &[&NEW, words].concat());
        let says = text(&output.stderr);
        assert!(output.status.code() == Some(1) && says.contains(part), "{words:?}: {says}");
        assert!(says.contains("deploy.allow"), "{words:?}: {says}");
        assert_eq!(leftovers(&server), [""; 0], "{words:?}");
    }
    let mut command = Command::new(crate::binary());
    command.args(["deploy", "models.py:one", "--python", "bash"]).args(NEW);
    command.args(["--url", &format!("http://{}", server.management)]).current_dir(folder.path());
    let says = text(&command.output().unwrap().stderr);
    // A name is looked up here first.
    assert!(says.contains("bash lies in no folder"), "{says}");
    deployed(&server, folder.path(), &[&["good.onnx"], &NEW[..]].concat());
    let of_python = ["models.py:one", "--app", "b", "--slo-ms", "30000", "--default-output", "-1"];
    deployed(&server, folder.path(), &of_python);
    // What was deployed before is not started where it is not allowed any more.
    let file = server.data_dir().parent().unwrap().join("clipper.toml");
    std::fs::write(file, allowing(&folders, &["python"])).unwrap();
    let server = server.restart();
    server.await_replicas("models", 1);
    server.says("deploy.allow does not name the runtime onnx");
    assert_eq!(server.containers().len(), 1);
}

#[test]
fn a_program_within_limits_can_be_started_by_hand() {
    let run = |flags: &[&str], script: &str| {
        let mut command = Command::new(crate::binary());
        command.args(["container", "confined"]).args(flags).args(["--", "/bin/sh", "-c", script]);
        let output = command.output().unwrap();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    assert_eq!(run(&["--open-files-max=33"], "ulimit -n"), (true, "33\n".to_owned()));
    assert_eq!(run(&["--cpu-seconds-max=5"], "ulimit -t").1, "5\n");
    let (is_good, says) = run(&["--read=/srv"], "true");
    assert!(!is_good && says.contains("--landlock"), "{says}");
    let (is_good, says) = run(&["--user=nobody"], "true");
    assert!(!is_good && says.contains("UID:GID"), "{says}");
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(dir.path().join("file"), "text").unwrap();
    let file = dir.path().join("file");
    let (is_read, _) = run(&["--landlock=try"], &format!("cat {}", file.display()));
    assert_eq!(is_read, !has_landlock());
    let flag = format!("--read={}", dir.path().display());
    let (is_read, says) = run(&["--landlock=try", &flag], &format!("cat {}", file.display()));
    assert!(is_read && says == "text", "{says}");
}
