//! Words of others on the operator's terminal.

use std::process::{Command, Output};

use clipper_domain::printable::is_deceptive;
use serde_json::{Value, json};

use super::http::start;
use crate::support::served::{Http, Served};

/// Clears the screen, turns the direction of writing, and pretends to be a line of its own.
const EVIL: &str = "\u{1b}[2J\u{202e}live\r\n\u{9b}31mOK\u{2066}";

fn run(server: &Served, arguments: &[&str]) -> Output {
    let url = format!("http://{}", server.management);
    Command::new(crate::binary()).args(arguments).args(["--url", &url]).output().unwrap()
}

/// What was printed, all of it; line breaks are the only characters that could deceive.
fn printed(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    let deceptive = |c: &char| is_deceptive(*c) && *c != '\n';
    assert_eq!(text.chars().find(deceptive), None, "{text:?}");
    text
}

#[test]
fn line_11b_admin_prints_no_character_that_deceives() {
    let (server, _folder) = start("");
    server.add_linked("m", 50_000);
    let update = json!({ "name": "m", "default_output": EVIL });
    server.admin("/admin/update_app", &update);
    let model = json!({
        "model_name": "n", "model_version": "1", "input_type": "doubles", "labels": [],
        "container_name": EVIL, "model_data_path": EVIL, "batch_size": 1,
    });
    server.admin("/admin/add_model", &model);
    let escaped = "\\u{1b}[2J\\u{202e}live\\r\\n\\u{9b}31mOK\\u{2066}";
    for arguments in [
        &["admin", "apps", "show", "m"][..],
        &["admin", "apps", "list"],
        &["admin", "models", "show", "n"],
        &["admin", "models", "list"],
    ] {
        let text = printed(&run(&server, arguments));
        assert!(text.contains(escaped), "{arguments:?}: {text}");
    }
    let text = printed(&run(&server, &["admin", "state", "m"]));
    assert!(text.contains("\\u{1b}[2J\\u{202e}live"), "{text}");
    let refused = run(&server, &["admin", "apps", "show", "m\u{202e}"]);
    assert!(!refused.status.success() && printed(&refused).contains("m\\u{202e}"));
    // JSON stays the value that it was.
    for (arguments, member) in [
        (["admin", "apps", "show", "m", "--json"], "default_output"),
        (["admin", "models", "show", "n", "--json"], "model_data_path"),
    ] {
        let text = printed(&run(&server, &arguments));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value[member], EVIL, "{text}");
    }
}

#[test]
fn line_11b_deploy_prints_no_character_that_deceives() {
    let (server, folder) = start("");
    let python = std::env::var("CLIPPER_TEST_PYTHON").expect("a Python with pyzmq and numpy");
    let file = folder.path().join("evil.py");
    let source = format!(
        "EVIL = {}\nprint(EVIL, flush=True)\n\ndef predict(inputs):\n    if inputs[0] == 'die':\n\
         \x20       raise RuntimeError(EVIL)\n    return [EVIL for _ in inputs]\n",
        json!(EVIL)
    );
    std::fs::write(&file, source).unwrap();
    let function = format!("{}:predict", file.display());
    let deploy = |app: &str, example: &str, more: &[&str]| {
        let deployment = [
            &["deploy", &function, "--app", app, "--name", app, "--input-type", "strings"][..],
            &["--slo-ms", "500", "--default-output", "-1", "--python", &python],
            &["--example", example],
            more,
        ];
        run(&server, &deployment.concat())
    };
    let done = deploy("good", "\"live\"", &[]);
    assert!(done.status.success(), "{}", printed(&done));
    assert!(printed(&done).contains("live"), "{}", printed(&done));
    let failed = deploy("bad", "\"die\"", &[]);
    let text = printed(&failed);
    assert!(!failed.status.success() && text.contains("\\u{1b}[2J"), "{text}");
    let failed = deploy("worse", "\"die\"", &["--json"]);
    let last = printed(&failed);
    let last: Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
    assert!(last["cause"].as_str().unwrap().contains("live"), "{last}");
    // The server's own log, as JSON.
    let log = server.log().join("\n");
    assert!(log.contains("live") && !log.contains(|c| is_deceptive(c) && c != '\n'), "{log}");
}

#[test]
fn line_11b_refused_management_requests_write_few_lines() {
    let (server, _folder) = start("");
    let mut http = Http::new(server.management);
    for n in 0..500 {
        let body = format!("{{\"name\": \"{n}\"}}");
        let path = if n % 2 == 0 { "/admin/delete_app" } else { "/admin/deploy_model" };
        assert_eq!(http.request("POST", path, &body).unwrap().0, 400);
    }
    let lines = server.log().iter().filter(|line| line.contains("request failed")).count();
    println!("{lines} lines of 500 refused requests");
    assert!((1..=40).contains(&lines), "{lines} lines");
}
