//! Changes of metadata: what a user is told, and what changes by it.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::e2e::support::http::{call, get};
use crate::e2e::support::server::Server;
use crate::e2e::support::{children_of, eventually, python};

const MODELS: &str = "\
import time

def cats(inputs):
    return ['cat' for _ in inputs]

def dogs(inputs):
    return ['dog' for _ in inputs]

def slow(inputs):
    time.sleep(0.2)
    return [1 for _ in inputs]

def large(inputs):
    return ['x' * (3 << 20) for _ in inputs]

def tree(inputs):
    # Cost in proportion, as of a tree ensemble.
    time.sleep(0.0002 * len(inputs))
    return [float(one.sum()) for one in inputs]

def picky(inputs):
    if any(len(one) not in (2, 3) for one in inputs):
        raise ValueError('two or three numbers, please')
    return [len(one) for one in inputs]

def clock(inputs):
    return [time.monotonic_ns() for _ in inputs]
";

fn clipper(server: &Server, folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(crate::binary());
    let url = format!("http://{}", server.management);
    command.current_dir(folder).args(words).env("CLIPPER_MANAGEMENT_URL", url);
    command.output().unwrap()
}

fn says(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn deploy(server: &Server, folder: &Path, words: &[&str]) -> Output {
    let python = python().into_string().unwrap();
    clipper(server, folder, &[&["deploy", "--python", &python], words].concat())
}

/// What a command that has to succeed says.
fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", says(output));
    says(output)
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", says(output));
    says(output)
}

/// A folder with `pricing.py`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pricing.py"), MODELS).unwrap();
    folder
}

const NEW: [&str; 4] = ["--slo-ms", "30000", "--default-output", "-1"];

fn ask(server: &Server, app: &str, input: u32) -> Value {
    let answer = server.predict(app, &json!({"input": [input]}));
    assert!(!answer.is_default(), "{answer:?}");
    answer.output().clone()
}

fn application(server: &Server, name: &str) -> Value {
    serde_json::from_str(&server.manage("get_application", &json!({"name": name}))).unwrap()
}

fn current(server: &Server, model: &str) -> Option<String> {
    let all = server.manage("get_all_models", &json!({"verbose": true}));
    let all: Vec<Value> = serde_json::from_str(&all).unwrap();
    let is_it = |m: &&Value| m["model_name"] == model && m["is_current_version"] == true;
    all.iter().find(is_it).map(|m| m["model_version"].as_str().unwrap().to_owned())
}

#[test]
fn line_18_a_deployment_never_changes_what_another_application_answers() {
    let (server, folder) = (Server::start(), folder());
    let deploy = |words: &[&str]| deploy(&server, folder.path(), &[words, &NEW].concat());
    done(&deploy(&["pricing.py:cats", "--app", "teamA"]));
    // Two functions of one file are two models.
    assert!(done(&deploy(&["pricing.py:dogs", "--app", "teamB"])).contains("pricing-dogs:1"));
    assert_eq!((ask(&server, "teamA", 1), ask(&server, "teamB", 1)), (json!("cat"), json!("dog")));
    // Another file of the same name, and a name that is said.
    std::fs::create_dir(folder.path().join("b")).unwrap();
    std::fs::write(folder.path().join("b/pricing-dogs.py"), MODELS).unwrap();
    for words in [
        ["b/pricing-dogs.py:cats", "--app", "teamC", "--name", "pricing-dogs"],
        ["pricing.py:dogs", "--app", "teamC", "--name", "pricing"],
    ] {
        let why = refused(&deploy(&words));
        for part in ["'teamC'", "'team", "--name", "clipper admin links add"] {
            assert!(why.contains(part), "{part}: {why}");
        }
    }
    assert_eq!((ask(&server, "teamA", 2), ask(&server, "teamB", 2)), (json!("cat"), json!("dog")));
    assert_eq!(application(&server, "teamC"), json!({}), "nothing was registered");
    // Its own next version is as before.
    assert!(done(&deploy(&["pricing.py:dogs", "--app", "teamA"])).contains("pricing:2 answers"));
}

#[test]
fn line_19_a_version_is_registered_without_an_outage() {
    let (server, folder) = (Server::start(), folder());
    server.add_app("a", "doubles", "-1", 30_000_000);
    let model = |version: &str| {
        json!({"model_name": "m", "model_version": version, "input_type": "doubles", "labels": [],
               "container_name": "c", "model_data_path": "", "batch_size": -1})
    };
    server.manage("add_model", &model("1"));
    server.link("a", "m");
    let mut second = model("2");
    second["make_current"] = json!(false);
    server.manage("add_model", &second);
    assert_eq!(current(&server, "m").as_deref(), Some("1"));
    let add = ["admin", "models", "add", "m", "3", "--input-type", "doubles", "--no-switch"];
    done(&clipper(&server, folder.path(), &add));
    assert_eq!(current(&server, "m").as_deref(), Some("1"));
    // Clients of the original do not say, and get what they know.
    server.manage("add_model", &model("4"));
    assert_eq!(current(&server, "m").as_deref(), Some("4"));
    let mut body = model("5");
    body["make_current"] = json!("no");
    let answer = server.admin("add_model", &body);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("\"make_current\" := bool (optional"), "{}", answer.text());
}

#[test]
fn line_19_a_deployment_can_wait_for_its_switch() {
    let (server, folder) = (Server::start(), folder());
    let deploy = |words: &[&str]| deploy(&server, folder.path(), words);
    done(&deploy(&[&["pricing.py:cats", "--app", "a"][..], &NEW].concat()));
    let told = done(&deploy(&["pricing.py:dogs", "--app", "a", "--no-switch"]));
    assert!(told.contains("clipper admin models set-version pricing 2"), "{told}");
    assert_eq!(ask(&server, "a", 1), json!("cat"));
    done(&clipper(&server, folder.path(), &["admin", "models", "set-version", "pricing", "2"]));
    // Its replicas serve already.
    assert_eq!(ask(&server, "a", 1), json!("dog"));
    let why = refused(&deploy(
        &[&["pricing.py:dogs", "--app", "b", "--name", "other", "--no-switch"][..], &NEW].concat(),
    ));
    assert!(why.contains("Deploy without") || why.contains("does not query model"), "{why}");
}

#[test]
fn line_19_deleting_what_is_queried_takes_a_word_more() {
    let (server, folder) = (Server::start(), folder());
    server.serve("m", "doubles", 1_000_000);
    let delete = |words: &[&str]| {
        clipper(&server, folder.path(), &[&["admin", "models", "delete", "m"], words].concat())
    };
    let why = refused(&delete(&["1"]));
    for part in ["application 'm' queries it", "set-version", "--force"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let guarded = json!({"model_name": "m", "model_version": "1", "force": false});
    assert_eq!(server.admin("delete_versioned_model", &guarded).status, 400);
    assert_eq!(current(&server, "m").as_deref(), Some("1"));
    done(&delete(&["1", "--force"]));
    assert_eq!(current(&server, "m"), None);
    // Clients of the original ask for no guard.
    server.add_model("m", "2", "doubles");
    server.manage("delete_versioned_model", &json!({"model_name": "m", "model_version": "2"}));
}

#[test]
fn line_22_an_application_is_changed_and_stays_so() {
    let (server, folder) = (Server::start(), folder());
    server.serve("a", "doubles", 20_000);
    let update = |words: &[&str]| {
        clipper(&server, folder.path(), &[&["admin", "apps", "update", "a"], words].concat())
    };
    done(&update(&["--slo-ms", "70.5", "--default-output", "none", "--cache", "false"]));
    let wanted = |server: &Server| {
        let app = application(server, "a");
        assert_eq!(app["latency_slo_micros"], 70_500, "{app}");
        assert_eq!((&app["default_output"], &app["cache"]), (&json!("none"), &json!(false)));
        assert_eq!(app["linked_models"], json!(["a"]));
        assert_eq!(server.predict("a", &json!({"input": [1]})).output(), &json!("none"));
        let objective = "clipper_application_objective_seconds{app=\"a\"}";
        assert!((server.sample(objective) - 0.0705).abs() < 1e-9);
    };
    wanted(&server);
    for words in [&["--slo-ms", "0"][..], &["--slo-ms", "0.0001"], &[]] {
        assert_eq!(update(words).status.code(), Some(2), "{words:?}");
    }
    for body in [
        json!({"name": "a"}),
        json!({"name": "a", "latency_slo_micros": 0}),
        json!({"name": "a", "input_type": "strings"}),
        json!({"name": "a", "cache": "no"}),
        json!({"name": "b", "cache": true}),
    ] {
        let answer = server.admin("update_app", &body);
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    }
    wanted(&server.restart());
}

#[test]
fn line_22_a_deployment_changes_the_application_that_is_there() {
    let (server, folder) = (Server::start(), folder());
    let deploy = |words: &[&str]| deploy(&server, folder.path(), words);
    done(&deploy(&[&["pricing.py:cats", "--app", "a"][..], &NEW].concat()));
    done(&deploy(&["pricing.py:dogs", "--app", "a", "--slo-ms", "20000"]));
    assert_eq!(application(&server, "a")["latency_slo_micros"], 20_000_000);
    done(&deploy(&["pricing.py:cats", "--app", "a", "--default-output", "nothing"]));
    let app = application(&server, "a");
    assert_eq!(
        (&app["default_output"], &app["latency_slo_micros"]),
        (&json!("nothing"), &json!(20_000_000))
    );
    let output = deploy(&["pricing.py:cats", "--app", "a", "--slo-ms", "0"]);
    assert_eq!(output.status.code(), Some(2), "{}", says(&output));
    // Slower than its objective: it is said aloud.
    let told = done(&deploy(&["pricing.py:slow", "--app", "a", "--slo-ms", "50"]));
    assert!(told.contains("WARNING: pricing:4 took "), "{told}");
    assert!(told.contains("clipper admin apps update a --slo-ms"), "{told}");
    let told = done(&deploy(&["pricing.py:slow", "--app", "a", "--json"]));
    assert!(told.contains("\"stage\":\"warning\""), "{told}");
}

#[test]
fn line_22_a_config_file_that_was_edited_is_followed_and_an_operator_is_not_overruled() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("clipper.toml");
    let write = |slo_us: u32, default: &str| {
        let text = format!(
            "[[application]]\nname = \"a\"\ninput_type = \"doubles\"\n\
             default_output = \"{default}\"\nlatency_slo_micros = {slo_us}\nmodel = \"m\"\n\
             [[model]]\nname = \"m\"\nversion = \"1\"\ninput_type = \"doubles\"\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    let slo = |server: &Server| application(server, "a")["latency_slo_micros"].clone();
    write(20_000, "-1");
    let server = Server::with_config_file(file.clone());
    assert_eq!(slo(&server), 20_000);
    write(100_000, "none");
    let server = server.restart();
    assert_eq!(slo(&server), 100_000);
    assert_eq!(application(&server, "a")["default_output"], "none");
    assert_eq!(application(&server, "a")["linked_models"], json!(["m"]));
    server.manage("update_app", &json!({"name": "a", "latency_slo_micros": 70_000}));
    let server = server.restart();
    assert_eq!(slo(&server), 70_000);
    server.says("an operator has changed it since");
    write(80_000, "none");
    assert_eq!(slo(&server.restart()), 80_000);
}

#[test]
fn line_26_the_runtime_of_a_model_is_the_one_that_it_has_now() {
    let (dir, models) = (tempfile::tempdir().unwrap(), folder());
    let file = dir.path().join("clipper.toml");
    let python = python().into_string().unwrap();
    let function = format!("{}:cats", models.path().join("pricing.py").display());
    let model = "[[model]]\nname = \"m\"\nversion = \"1\"\ninput_type = \"doubles\"\n";
    std::fs::write(&file, model).unwrap();
    let server = Server::with_config_file(file.clone());
    let list = |server: &Server| done(&clipper(server, dir.path(), &["admin", "models", "list"]));
    assert!(list(&server).contains("external"));
    let container = format!(
        "[model.container]\nruntime = \"python\"\nfunction = \"{function}\"\n\
         python = \"{python}\"\n"
    );
    std::fs::write(&file, format!("{model}{container}")).unwrap();
    let server = server.restart();
    let listed = list(&server);
    assert!(listed.contains("python") && !listed.contains("external"), "{listed}");
    server.await_replicas("m", 1);
}

#[test]
fn line_21_a_long_first_output_is_no_failure() {
    let (server, folder) = (Server::start(), folder());
    let words = [&["pricing.py:large", "--app", "a"][..], &NEW].concat();
    let told = done(&deploy(&server, folder.path(), &words));
    assert!(told.contains("pricing:1 answers"), "{told}");
    assert!(told.len() < 10_000, "{} bytes", told.len());
    let output = ask(&server, "a", 1);
    assert_eq!(output.as_str().unwrap().len(), 3 << 20);
}

#[test]
fn line_21_a_new_version_is_warm_before_queries_come() {
    let (server, folder) = (Server::start(), folder());
    let words = ["pricing.py:tree", "--app", "a", "--slo-ms", "10000", "--default-output", "-1"];
    let told = done(&deploy(&server, folder.path(), &words));
    let line = told.lines().find(|line| line.contains("warmed up")).expect("a line of it");
    let largest = line.split_whitespace().rev().nth(1).unwrap().parse::<u32>().unwrap();
    assert!(largest >= 128, "{line}");
    // It knows its cost: the first request goes out in a few batches, and not one query first.
    let rows: Vec<_> = (0..150).map(|n| [n]).collect();
    let answer = server.predict("a", &json!({"input_batch": rows}));
    let answers = answer.body["batch_predictions"].as_array().unwrap();
    assert_eq!(answers.len(), 150);
    assert!(answers.iter().all(|answer| answer["default"] == false), "{answer:?}");
    let batches = server.sample("clipper_model_batch_size_count{model=\"pricing\",version=\"1\"}");
    assert!(batches <= 3.0, "{batches} batches");
}

#[test]
fn line_21_the_warm_up_is_made_of_all_examples() {
    let (server, folder) = (Server::start(), folder());
    let deploy = |words: &[&str]| deploy(&server, folder.path(), &[words, &NEW].concat());
    let words = ["pricing.py:picky", "--app", "a", "--example", "[1, 2]", "--example", "[1, 2, 3]"];
    let told = done(&deploy(&words));
    assert!(told.contains("warmed up"), "{told}");
    let why = refused(&deploy(&[
        "pricing.py:picky",
        "--app",
        "b",
        "--name",
        "b",
        "--example",
        "[1, 2]",
        "--example",
        "[1]",
    ]));
    assert!(why.contains("two or three numbers"), "{why}");
    let server = Server::with_config("[management]\ndeploy_warm_up_ms = 0\n");
    let words = [&["pricing.py:cats", "--app", "a"][..], &NEW].concat();
    let told = done(&self::deploy(&server, folder.path(), &words));
    assert!(!told.contains("warmed up"), "{told}");
}

#[test]
fn line_20_an_answer_is_kept_unless_that_is_not_wanted() {
    let (server, folder) = (Server::start(), folder());
    let deploy = |words: &[&str]| deploy(&server, folder.path(), &[words, &NEW].concat());
    done(&deploy(&["pricing.py:clock", "--app", "a"]));
    assert_eq!(ask(&server, "a", 1), ask(&server, "a", 1));
    server.manage("update_app", &json!({"name": "a", "cache": false}));
    assert_ne!(ask(&server, "a", 1), ask(&server, "a", 1));
    server.manage("update_app", &json!({"name": "a", "cache": true}));
    assert_eq!(ask(&server, "a", 1), ask(&server, "a", 1));
    // Another application of the same model is not concerned, and a model can say it for all.
    done(&deploy(&["pricing.py:clock", "--app", "a", "--no-cache"]));
    assert_ne!(ask(&server, "a", 1), ask(&server, "a", 1));
    let model = json!({"model_name": "pricing", "model_version": "2"});
    let model: Value = serde_json::from_str(&server.manage("get_model", &model)).unwrap();
    assert_eq!(model["cache"], false);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let table = "name = \"c\"\ninput_type = \"doubles\"\ncache = false\n";
    std::fs::write(
        &file,
        format!(
            "[[application]]\n{table}default_output = \"-1\"\nlatency_slo_micros = 20000\n\
         [[model]]\n{table}version = \"1\"\n"
        ),
    )
    .unwrap();
    let server = Server::with_config_file(file);
    assert_eq!(application(&server, "c")["cache"], false);
}

#[test]
fn line_26_a_batch_size_may_be_left_out() {
    let server = Server::start();
    let body = json!({"model_name": "m", "model_version": "1", "input_type": "doubles",
                      "labels": [], "container_name": "c", "model_data_path": ""});
    server.manage("add_model", &body);
    assert_eq!(current(&server, "m").as_deref(), Some("1"));
    let wrong = json!({"model_name": "m", "model_version": "2", "input_type": "doubles",
        "labels": [], "container_name": "c", "model_data_path": "", "batch_size": "all"});
    let answer = server.admin("add_model", &wrong);
    assert!(answer.text().contains("\"batch_size\" := int (optional"), "{}", answer.text());
}

#[test]
fn line_26_old_versions_end_after_a_deployment() {
    let (server, folder) = (Server::start(), folder());
    let deploy = |words: &[&str]| done(&deploy(&server, folder.path(), words));
    deploy(&[&["pricing.py:cats", "--app", "a"][..], &NEW].concat());
    for _ in 0..3 {
        deploy(&["pricing.py:dogs", "--app", "a"]);
    }
    // The current one, and the one to go back to.
    eventually("two versions have processes", || children_of(server.pid()).len() == 2);
    server.manage("set_model_version", &json!({"model_name": "pricing", "model_version": "3"}));
    assert_eq!(ask(&server, "a", 7), json!("dog"));
    let server = server.restart();
    eventually("the same after a restart", || children_of(server.pid()).len() == 2);
}

#[test]
fn line_26_logs_and_the_journal_are_for_people() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("clipper.toml");
    std::fs::write(
        &file,
        "[[model]]\nname = \"m\"\nversion = \"1\"\ninput_type = \"doubles\"\n\
                           [log]\nformat = \"text\"\n",
    )
    .unwrap();
    let mut server = Server::with_config_file(file);
    let line = server.says("registered from the config file");
    assert!(line.contains("add model m:1") && !line.contains("ModelSpec"), "{line}");
    let answer = call(server.management, "POST", "/admin/add_model", b"{\"model_name\": 1}");
    assert_eq!(answer.unwrap().status, 400);
    let line = server.says("management request failed");
    assert!(line.contains("Type mismatch!") && !line.contains("Schema("), "{line}");
    assert!(server.terminate().success());
    let data = server.data_dir();
    let list =
        clipper(&server, dir.path(), &["journal", "list", "--data-dir", data.to_str().unwrap()]);
    let listed = done(&list);
    let time = listed.split_whitespace().nth(1).unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "{listed}");
}

#[test]
fn issue_10_commands_of_operators_are_counted() {
    let server = Server::start();
    let count = |result: &str| {
        server.sample(&format!("clipper_admin_commands_total{{result=\"{result}\"}}"))
    };
    server.serve("m", "doubles", 1_000_000);
    server.admin("delete_app", &json!({"name": "none"}));
    assert_eq!(count("acknowledged").to_bits(), 3.0_f64.to_bits());
    assert_eq!(count("refused").to_bits(), 1.0_f64.to_bits());
    assert_eq!(get(server.management, "/admin/ping").status, 200, "a question is no command");
    assert_eq!(count("acknowledged").to_bits(), 3.0_f64.to_bits());
}
