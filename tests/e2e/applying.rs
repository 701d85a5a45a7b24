//! A running server is made what a file says: planned, shown, made, waited for.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::e2e::admin_cli::{clipper, text};
use crate::e2e::support::server::Server;
use crate::e2e::support::{config_of_noop, eventually};
use crate::support::signals::signal;

fn run(server: &Server, words: &[&str]) -> (Option<i32>, String) {
    let output = clipper(&format!("http://{}", server.management), words);
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

fn apply(server: &Server, file: &Path, more: &[&str]) -> (Option<i32>, String) {
    run(server, &[&["apply", "-f", file.to_str().unwrap()], more].concat())
}

fn exported(server: &Server) -> String {
    let (code, text) = run(server, &["export", "--file", "-"]);
    assert_eq!(code, Some(0), "{text}");
    text
}

#[test]
fn a_file_is_applied_once_and_an_export_makes_an_equal_server() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    let file = folder.path().join("wanted.toml");
    std::fs::write(&file, config_of_noop(-1, 0, 2)).unwrap();
    let (code, said) = apply(&server, &file, &["--dry-run"]);
    assert_eq!(code, Some(4), "{said}");
    for line in ["+ application m: ", "+ model m:1: ", "+ replicas of m:1: count 2", "5 added"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_eq!(server.manage("get_all_applications", &json!({"verbose": false})), "[]");
    // Nobody is there to say yes.
    let (code, said) = apply(&server, &file, &[]);
    assert!(code == Some(1) && said.contains("--yes"), "{said}");
    let (code, said) = apply(&server, &file, &["--yes"]);
    assert_eq!(code, Some(0), "{said}");
    // It has waited.
    assert_eq!(server.containers().len(), 2);
    assert_eq!(server.predict("m", &json!({"input": [1]})).output(), &json!(42));
    let before = server.containers();
    for more in [&["--yes"][..], &["--dry-run"], &["--yes", "--prune"]] {
        let (code, said) = apply(&server, &file, more);
        assert!(code == Some(0) && said.contains("Nothing to do"), "{said}");
    }
    assert_eq!(server.containers(), before);
    // An edit is a change of what was edited, while it serves.
    std::fs::write(&file, config_of_noop(8, 0, 1)).unwrap();
    let (code, said) = apply(&server, &file, &["--yes", "--json"]);
    let plan: Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!((code, &plan["done"]), (Some(0), &json!(2)), "{said}");
    eventually("one of two goes", || server.containers().len() == 1);
    let copy = folder.path().join("copy.toml");
    let (code, said) = run(&server, &["export", "--file", copy.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    let other = Server::start();
    let (code, said) = apply(&other, &copy, &["--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(exported(&other), exported(&server));
    // The same after a restart.
    assert_eq!(exported(&server.restart()), exported(&other));
}

#[test]
fn what_is_not_named_stays_or_is_pruned_and_an_old_plan_is_refused() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    server.serve("a", "doubles", 20_000);
    server.serve("b", "doubles", 20_000);
    let app = json!({"name": "a", "input_type": "doubles", "default_output": "-1",
        "latency_slo_micros": 50_000, "model": "a"});
    let body = json!({"application": [app], "dry_run": true});
    let plan: Value = serde_json::from_str(&server.manage("apply", &body)).unwrap();
    assert_eq!(plan["steps"].as_array().unwrap().len(), 1, "{plan}");
    assert_eq!(plan["steps"][0]["fields"][0]["after"], json!(50_000), "{plan}");
    // Somebody else is faster.
    server.manage("update_app", &json!({"name": "b", "cache": false}));
    let late = json!({"application": body["application"], "base": plan["base"]});
    let answer = server.admin("apply", &late);
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("make the plan again"), "{}", answer.text());
    server.manage("apply", &json!({"application": body["application"]}));
    let listed =
        |server: &Server| server.manage("get_all_applications", &json!({"verbose": false}));
    assert_eq!(listed(&server), "[\"a\",\"b\"]");
    let file = folder.path().join("wanted.toml");
    std::fs::write(
        &file,
        "[[application]]\nname = \"a\"\ninput_type = \"doubles\"\ndefault_output = \"-1\"\n\
         latency_slo_micros = 50000\nmodel = \"a\"\n\
         [[model]]\nname = \"a\"\nversion = \"1\"\ninput_type = \"doubles\"\n",
    )
    .unwrap();
    let (code, said) = apply(&server, &file, &["--prune", "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("- application b") && said.contains("- model b:1"), "{said}");
    assert_eq!(listed(&server), "[\"a\"]");
    // What cannot be is said, and nothing is changed.
    let text = std::fs::read_to_string(&file).unwrap().replace("doubles", "strings");
    std::fs::write(&file, text).unwrap();
    let before = exported(&server);
    let (code, said) = apply(&server, &file, &["--yes"]);
    assert!(code == Some(1) && said.contains("'a:1'") && said.contains("--prune"), "{said}");
    assert_eq!(exported(&server), before);
    // A file that is wrong is not sent.
    std::fs::write(&file, "[[application]]\nname = 7\n").unwrap();
    let (code, said) = apply(&server, &file, &["--yes"]);
    assert!(code == Some(1) && said.contains("wanted.toml:2"), "{said}");
}

#[test]
fn a_config_file_is_read_again_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clipper.toml");
    let write = |size, replicas, more: &str| {
        let text = config_of_noop(size, 0, replicas) + more;
        std::fs::write(&file, text).unwrap();
    };
    write(-1, 1, "");
    let mut without_terminal = Command::new("setsid");
    // Who runs the tests under nohup hands an ignored HUP on, which a server leaves ignored.
    without_terminal.args(["env", "--default-signal=HUP"]);
    without_terminal.arg(crate::binary());
    let server = crate::support::served::Served::start_by(
        without_terminal,
        &std::fs::read_to_string(&file).unwrap(),
        folder.path(),
    );
    server.await_replicas("m", 1);
    let again = "the config file was read again";
    write(
        8,
        2,
        "\n[[application]]\nname = \"b\"\ninput_type = \"doubles\"\ndefault_output = \"0\"\n\
                 latency_slo_micros = 7\n[http]\nbacklog = 9\n",
    );
    signal(server.pid(), Signal::SIGHUP);
    server.says(again);
    server.await_replicas("m", 2);
    server.says("take effect at a restart");
    let log = server.log().join("\n");
    assert!(log.contains("add application b") && log.contains("update model m:1"), "{log}");
    // One that is wrong changes nothing, and the server goes on.
    std::fs::write(&file, "[[application]]\nname = 7\n").unwrap();
    signal(server.pid(), Signal::SIGHUP);
    server.says("everything stays as it is");
    server.await_replicas("m", 2);
    signal(server.pid(), Signal::SIGTERM);
    assert!(server.exit_status().success());
}

/// As above, where the server looks at the file by itself.
#[test]
fn a_config_file_that_changes_is_read_again_if_it_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clipper.toml");
    let followed = config_of_noop(-1, 0, 1) + "\n[management]\nfollow_config_ms = 20\n";
    let server = crate::support::served::Served::start(&followed, folder.path());
    server.await_replicas("m", 1);
    let more = "[[application]]\nname = \"b\"\ninput_type = \"doubles\"\ndefault_output = \"0\"\n\
                latency_slo_micros = 7\n";
    // Replaced as a whole, as editors and deployments do.
    let aside = folder.path().join("aside");
    std::fs::write(&aside, format!("{followed}{more}")).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    server.says("add application b");
    server.says("the config file was read again");
    // Written in its place; what is wrong changes nothing.
    std::fs::write(&file, "[[application]]\nname = 7\n").unwrap();
    server.says("everything stays as it is");
    std::fs::write(&file, format!("{followed}{}", more.replace("= 7", "= 9"))).unwrap();
    server.says("update application b");
    server.await_replicas("m", 1);
}
