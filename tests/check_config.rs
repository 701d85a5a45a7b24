//! What `clipper check-config` and `clipper serve` say about configurations, as a user sees it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn clipper() -> Command {
    let mut command = Command::new(crate::binary());
    command.env_clear();
    command
}

fn check(text: &str) -> (Output, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("c.toml"), text).unwrap();
    fs::write(folder.path().join("there.onnx"), "").unwrap();
    let output =
        clipper().current_dir(folder.path()).args(["check-config", "c.toml"]).output().unwrap();
    let lines = String::from_utf8(output.stdout.clone()).unwrap();
    (output, lines.lines().map(str::to_owned).collect())
}

/// Asserts that exactly these faults are found: each line must start with the first text and
/// contain the second.
fn faults(text: &str, expected: &[(&str, &str)]) {
    let (output, lines) = check(text);
    assert_eq!(output.status.code(), Some(1), "{lines:#?}");
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, (start, part)) in lines.iter().zip(expected) {
        assert!(line.starts_with(start) && line.contains(part), "{line}\nwanted {start} {part}");
    }
}

const APP: &str = "[[application]]\nname = \"a\"\ninput_type = \"doubles\"\n\
                   default_output = \"0\"\nlatency_slo_micros = 100\n";
const MODEL: &str = "[[model]]\nname = \"m\"\nversion = \"1\"\ninput_type = \"doubles\"\n";

#[test]
fn unknown_keys_get_a_suggestion() {
    faults(
        "redis-url = \"x\"\n[htp]\n[http]\nbody_max_byte = 1\nframes_max = 2\nblue = 3\n\
         [[applications]]\n",
        &[
            ("c.toml:1: redis-url: ", "did you mean redis_url?"),
            ("c.toml:2: htp: ", "did you mean http?"),
            ("c.toml:4: http.body_max_byte: ", "did you mean body_max_bytes?"),
            ("c.toml:5: http.frames_max: ", "did you mean rpc.frames_max?"),
            ("c.toml:6: http.blue: ", "known here: query_addr, "),
            ("c.toml:7: applications: ", "did you mean application?"),
        ],
    );
}

#[test]
fn wrong_types_ranges_and_addresses() {
    faults(
        "data_dir = \"\"\nredis_url = \"http://u:secret@h\"\n[http]\n\
         query_addr = \"localhost:1\"\nbody_max_bytes = \"big\"\nbacklog = 99999999999999999999\n\
         query_workers = -1\nkeep_alive_ms = 1.5\n[rpc]\naddr = \"127.0.0.1:7000\"\n[log]\n\
         format = \"xml\"\nfilter = \"clipper=loud\"\n",
        &[
            ("c.toml:1: data_dir: ", "not empty"),
            ("c.toml:2: redis_url: expected redis://", "HOST"),
            ("c.toml:4: http.query_addr: ", "expected IP:PORT"),
            ("c.toml:5: http.body_max_bytes: ", "1 to 1099511627776, found \"big\""),
            ("c.toml:6: http.backlog: ", "1 to 65535"),
            ("c.toml:7: http.query_workers: ", "0 to 1024, found -1"),
            ("c.toml:8: http.keep_alive_ms: ", "found 1.5"),
            ("c.toml:10: rpc.addr: ", "expected tcp://IP:PORT"),
            ("c.toml:12: log.format: ", "expected one of text, json"),
            ("c.toml:13: log.filter: ", "found \"clipper=loud\""),
        ],
    );
}

#[test]
fn applications_and_models_are_checked_against_each_other() {
    let text = format!(
        "{APP}model = \"n\"\n{APP}model = \"m\"\n[[application]]\nname = \"b,c\"\n\
         input_type = \"double\"\nlatency_slo_micros = 3000000000\nmodel = \"mm\"\n{MODEL}\
         {MODEL}batch_size = 0\nlabels = [\"ok\", \"a:b\"]\n"
    )
    .replacen("doubles", "strings", 2);
    faults(
        &text,
        &[
            ("c.toml:6: application[0].model: ", "no [[model]] is named \"n\""),
            ("c.toml:8: application[1].name: ", "\"a\" exists: line 2"),
            ("c.toml:12: application[1].model: ", "version \"1\" of model \"m\" takes doubles"),
            ("c.toml:12: application[1].model: ", "the application takes strings"),
            ("c.toml:13: application[2].default_output: ", "missing"),
            ("c.toml:14: application[2].name: ", "Contains one of: ',', ':'"),
            ("c.toml:16: application[2].latency_slo_micros: ", "1 to 2147483647, found 3000000000"),
            ("c.toml:17: application[2].model: ", "did you mean \"m\"?"),
            ("c.toml:23: model[1].name: ", "exists: line 19"),
            ("c.toml:26: model[1].batch_size: ", "or -1 for adaptive, found 0"),
            ("c.toml:27: model[1].labels: ", "found \"a:b\""),
        ][..],
    );
}

#[test]
fn line_11c_a_default_output_and_a_weight_have_limits() {
    let long = APP.replace("\"0\"", &format!("{:?}", "x".repeat(70_000)));
    faults(
        &format!("{long}weight = 101\n"),
        &[
            ("c.toml:4: application[0].default_output: ", "at most 65536 bytes, not of 70000"),
            ("c.toml:6: application[0].weight: ", "1 to 100, found 101"),
        ],
    );
    assert_eq!(check(&format!("{APP}weight = 100\n")).0.status.code(), Some(0));
}

#[test]
fn containers_need_a_runtime_its_keys_and_its_files() {
    let model = |version: &str, container: &str| {
        format!(
            "{}[model.container]\n{container}",
            MODEL.replace("\"1\"", &format!("\"{version}\""))
        )
    };
    let text = [
        model("1", "path = \"there.onnx\"\n"),
        model("2", "runtime = \"onnx\"\npath = \"gone.onnx\"\nreplicas = 0\n"),
        model("3", "runtime = \"python\"\nfunction = \"gone.py:f\"\npath = \"x\"\n"),
        model("4", "runtime = \"python\"\nfunction = \"f\"\n"),
        model("5", "runtime = \"command\"\ncommand = []\n"),
        model("6", "runtime = \"onnx\"\npath = \"there.onnx\"\nreplicas = 5000\n"),
    ]
    .concat();
    faults(
        &text,
        &[
            ("c.toml:5: model[0].container.runtime: ", "expected one of onnx, python, command"),
            ("c.toml:13: model[1].container.path: ", "there is no file ./gone.onnx"),
            ("c.toml:14: model[1].container.replicas: ", "found 0"),
            ("c.toml:21: model[2].container.function: ", "there is no file ./gone.py"),
            ("c.toml:22: model[2].container.path: ", "known here: runtime, function, python"),
            ("c.toml:29: model[3].container.function: ", "expected FILE.py:function"),
            ("c.toml:36: model[4].container.command: ", "a list of texts"),
            ("c.toml:44: model[5].container.replicas: ", "rpc.connections_max is 4096"),
        ],
    );
}

#[test]
fn limits_and_addresses_that_contradict_each_other() {
    faults(
        "[http]\nmanagement_addr = \"0.0.0.0:1337\"\nbody_max_bytes = 200000000\n[rpc]\n\
         message_max_bytes = 1000\nframes_max = 100\n[containers]\nrestart_backoff_max_ms = 5\n",
        &[
            ("c.toml:2: http.management_addr: ", "is taken by http.query_addr, 127.0.0.1:1337"),
            ("c.toml:3: http.body_max_bytes: ", "more than http.bodies_max_bytes, 67108864"),
            ("c.toml:3: http.body_max_bytes: ", "more than rpc.frame_max_bytes, 67108864"),
            ("c.toml:5: rpc.message_max_bytes: ", "1000 is less than rpc.frame_max_bytes"),
            ("c.toml:6: rpc.frames_max: ", "100 is less than serving.batch_max, 4103"),
            ("c.toml:8: containers.restart_backoff_max_ms: ", "5 is less than"),
        ],
    );
}

#[test]
fn broken_toml_is_reported_beside_the_rest() {
    faults(
        "[http]\nbacklog =\nkeep_alive_ms = -1\n",
        &[("c.toml:2: not TOML: ", ""), ("c.toml:3: http.keep_alive_ms: ", "found -1")],
    );
}

#[test]
fn a_good_file_is_ok_with_a_summary() {
    let container = "[model.container]\nruntime = \"onnx\"\npath = \"there.onnx\"\nreplicas = 3\n";
    let (output, lines) = check(&format!("{APP}model = \"m\"\n{MODEL}{container}"));
    assert_eq!(output.status.code(), Some(0), "{lines:#?}");
    assert_eq!(lines[..4], ["OK", "applications: a", "models: m:1", "replicas: 3"]);
}

#[test]
fn json_has_file_line_key_and_problem() {
    let folder = tempfile::tempdir().unwrap();
    let json = |text: &str| -> (Option<i32>, serde_json::Value) {
        fs::write(folder.path().join("c.toml"), text).unwrap();
        let output = clipper()
            .current_dir(folder.path())
            .args(["check-config", "--json", "c.toml"])
            .output()
            .unwrap();
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
    };
    let (code, answer) = json("[http]\nbacklog = 0\n");
    assert_eq!((code, &answer["ok"]), (Some(1), &serde_json::json!(false)));
    let fault = &answer["faults"][0];
    assert_eq!((&fault["source"], &fault["line"]), (&"c.toml".into(), &2.into()));
    assert_eq!(fault["key"], "http.backlog");
    assert_eq!(fault["problem"], "expected a whole number of connections, 1 to 65535, found 0");
    let (code, answer) = json("");
    assert_eq!((code, &answer["ok"]), (Some(0), &serde_json::json!(true)));
    assert_eq!(answer["summary"]["query_addr"], "127.0.0.1:1337");
}

#[test]
fn exit_codes_tell_failure_from_wrong_use() {
    let code = |args: &[&str]| clipper().args(args).output().unwrap().status.code();
    assert_eq!(code(&["--version"]), Some(0));
    assert_eq!(code(&["serve", "--help"]), Some(0));
    assert_eq!(code(&[]), Some(2));
    assert_eq!(code(&["sevre"]), Some(2));
    assert_eq!(code(&["serve", "--query-addr", "here"]), Some(2));
    assert_eq!(code(&["serve", "--rpc-addr", "127.0.0.1:7000"]), Some(2));
    assert_eq!(code(&["check-config", "no/such/file.toml"]), Some(1));
}

#[test]
fn serve_reports_every_fault_of_file_and_environment() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    fs::write(&file, "[http]\nbacklog = 0\n").unwrap();
    let output = clipper()
        .args(["serve", "--config"])
        .arg(Path::new(&file))
        .env("CLIPPER_QUERY_ADR", "x")
        .env("CLIPPER_RPC__FRAMES_MAX", "many")
        .env("CLIPPER_MODEL_NAME", "meant for a container")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = stderr.lines().collect();
    // CLIPPER_QUERY_ADR may be somebody else's: no fault, a warning of a server that runs.
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(lines[0].contains("c.toml:2: http.backlog: "), "{stderr}");
    assert!(lines[1].starts_with("CLIPPER_RPC__FRAMES_MAX: rpc.frames_max: "), "{stderr}");
}
