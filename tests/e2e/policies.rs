//! Applications with policies that choose: how they are set, shown, kept and refused.

use serde_json::{Value, json};

use crate::e2e::admin_cli::{clipper, text};
use crate::e2e::support::http::call;
use crate::e2e::support::server::Server;

fn application(server: &Server, name: &str) -> Value {
    serde_json::from_str(&server.manage("get_application", &json!({"name": name}))).unwrap()
}

fn refusal(server: &Server, endpoint: &str, body: &Value) -> String {
    let answer = server.admin(endpoint, body);
    assert_eq!(answer.status, 400, "{endpoint} {body}: {}", answer.text());
    answer.text()
}

/// Application `a` and models `m`, `n`, `o` of doubles, `s` of strings.
fn server() -> Server {
    let server = Server::start();
    server.add_app("a", "doubles", "-1", 20_000_000);
    for model in ["m", "n", "o"] {
        server.add_model(model, "1", "doubles");
    }
    server.add_model("s", "1", "strings");
    server
}

#[test]
fn a_policy_allows_several_models_and_survives_a_restart() {
    let server = server();
    let several = json!({"app_name": "a", "model_names": ["m", "n"]});
    assert!(refusal(&server, "add_model_links", &several).contains("at most one model"));
    let before = application(&server, "a");
    assert!(before.get("policy").is_none(), "{before}");
    let set = json!({"app_name": "a", "policy": "exp3", "parameters": {"explore": 0.05}});
    let done = server.manage("set_policy", &set);
    assert_eq!(done, "Successfully set policy of application 'a' to 'exp3'");
    server.manage("add_model_links", &several);
    server.manage("add_model_links", &json!({"app_name": "a", "model_names": ["o"]}));
    let text = refusal(&server, "add_model_links", &json!({"app_name": "a", "model_names": ["s"]}));
    assert!(text.contains("incompatible input_type 'strings'"), "{text}");
    let usual = json!({"app_name": "a", "policy": "DefaultOutputSelectionPolicy"});
    assert!(refusal(&server, "set_policy", &usual).contains("linked to 3"));
    let server = server.restart();
    let after = application(&server, "a");
    assert_eq!(
        (&after["policy"], &after["policy_parameters"], &after["linked_models"]),
        (&json!("exp3"), &json!({"explore": 0.05}), &json!(["m", "n", "o"]))
    );
    let unlink = json!({"app_name": "a", "model_names": ["n", "o"]});
    server.manage("delete_model_links", &unlink);
    server.manage("set_policy", &usual);
    let expected = json!({"linked_models": ["m"]});
    let after = application(&server, "a");
    assert_eq!(after["linked_models"], expected["linked_models"]);
    assert!(after.get("policy").is_none(), "{after}");
}

fn policy_of_a(policy: &str, parameters: Value) -> Value {
    let mut body = json!({"app_name": "a", "policy": policy});
    body["parameters"] = parameters;
    body
}

#[test]
fn what_is_wrong_with_a_policy_is_named_and_changes_nothing() {
    let server = server();
    let set = policy_of_a;
    let given = |member: &str, value: Value| {
        let mut body = json!({"app_name": "a", "policy": "exp3"});
        body[member] = value;
        body
    };
    let cases = [
        (set("best", json!({})), "policy: there is no policy 'best'"),
        (given("policy", json!(5)), "JSON key policy expected type String"),
        (given("app_name", json!(5)), "JSON key app_name expected type String"),
        (given("explore", json!(0.5)), "explore: there is no such member"),
        (given("params", json!({})), "params: there is no such member"),
        (given("parameters", json!([1])), "parameters: it must be an object"),
        (given("parameters", json!(null)), "parameters: it must be an object"),
        (set("exp3", json!({"explore": 7})), "explore: it must be a number from 0 to 1, not 7"),
        (set("exp3", json!({"explore": "0.1"})), "explore: it must be a number"),
        (set("exp3", json!({"expolre": 0.1})), "expolre: the policy has no such parameter"),
        (set("exp3", json!({"learning_rate": 0})), "learning_rate: it must be a number"),
        (set("exp3", json!({"window": 8.5})), "window: it must be a whole number"),
        (set("exp3", json!({"output": "text"})), "output: it must be one of"),
        (set("exp3", json!({"loss": "absolute"})), "loss: outputs that are a label have no such"),
        (set("exp3", json!({"loss_scale": 0})), "loss_scale: it must be a number"),
        (set("exp3", json!({"min_confidence": 0.5})), "min_confidence: the policy has no"),
        (set("majority", json!({"min_confidence": "x"})), "min_confidence: it must be a number"),
        (set("majority", json!({"weights": "best"})), "weights: it must be one of"),
        (set("average", json!({})), "output: labels have no mean"),
        (set("fixed", json!({})), "model: it is missing"),
        (set("fixed", json!({"model": 5})), "model: it must be the name of a model"),
        (set("weighted", json!({})), "weights: it is missing"),
        (set("weighted", json!({"weights": {"m": -1}})), "weights: it must be an object"),
        (set("weighted", json!({"weights": {"m": 0}})), "weights: it must be an object"),
        (set("cascade", json!({"output": "vector"})), "order: it is missing"),
        (set("cascade", json!({"output": "vector", "order": ["m", "m"]})), "order: it must be"),
        (set("ucb1", json!({"alpha": 11})), "alpha: it must be a number"),
        (set("epsilon_greedy", json!({"epsilon": true})), "epsilon: it must be a number"),
        (
            set("DefaultOutputSelectionPolicy", json!({"x": 1})),
            "x: the policy has no such parameter; it has none",
        ),
        (json!({"app_name": "b", "policy": "exp3"}), "Application 'b' does not exist"),
        (json!({"app_name": "a"}), "JSON object does not have required key: policy"),
    ];
    let before = application(&server, "a");
    for (body, expected) in cases {
        let text = refusal(&server, "set_policy", &body);
        assert!(text.contains(expected), "{body}: {text}");
    }
    // A number that JSON cannot hold.
    let huge = br#"{"app_name": "a", "policy": "exp3", "parameters": {"explore": 1e999}}"#;
    let answer = call(server.management, "POST", "/admin/set_policy", huge).unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("parameters: number out of range"), "{}", answer.text());
    assert_eq!(application(&server, "a"), before);
}

#[test]
fn the_command_line_sets_shows_and_lists_policies() {
    let server = server();
    let url = format!("http://{}", server.management);
    let run = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let output = clipper(&url, &words);
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, shown, _) = run("admin policy show a");
    assert!(code == Some(0) && shown.contains("DefaultOutputSelectionPolicy"), "{shown}");
    let (code, _, err) =
        run("admin policy set a weighted weights={\"m\":9,\"n\":1} sticky=uid --json");
    assert_eq!(code, Some(0), "{err}");
    let (code, _, err) = run("admin links add a m n");
    assert_eq!(code, Some(0), "{err}");
    let (_, shown, _) = run("admin policy show a --json");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        shown,
        json!({"policy": "weighted",
            "policy_parameters": {"weights": {"m": 9, "n": 1}, "sticky": "uid"}})
    );
    let (code, _, err) = run("admin policy set a exp3 explore=2");
    assert!(code == Some(1) && err.contains("explore: it must be a number"), "{err}");
    let (_, list, _) = run("admin policy list");
    for part in ["exp4", "cascade", "learning_rate:", "min_confidence:"] {
        assert!(list.contains(part), "{part}: {list}");
    }
}

const CONFIG: &str = r#"
[[application]]
name = "a"
input_type = "doubles"
default_output = "-1"
latency_slo_micros = 20000000
models = ["m", "n"]
[application.policy]
name = "exp3"
explore = 0.05

[[model]]
name = "m"
version = "1"
input_type = "doubles"

[[model]]
name = "n"
version = "1"
input_type = "doubles"
"#;

#[test]
fn the_config_file_sets_a_policy_and_an_edit_of_it_changes_it() {
    let server = Server::with_config(CONFIG);
    let shown = application(&server, "a");
    assert_eq!(
        (&shown["policy"], &shown["policy_parameters"], &shown["linked_models"]),
        (&json!("exp3"), &json!({"explore": 0.05}), &json!(["m", "n"]))
    );
    let file = server.data_dir().parent().unwrap().join("clipper.toml");
    std::fs::write(file, CONFIG.replace("explore = 0.05", "explore = 0.2")).unwrap();
    let server = server.restart();
    assert_eq!(application(&server, "a")["policy_parameters"], json!({"explore": 0.2}));
    // What an operator changes stays, as long as the file says what it said.
    let set = json!({"app_name": "a", "policy": "majority"});
    server.manage("set_policy", &set);
    let server = server.restart();
    assert_eq!(application(&server, "a")["policy"], "majority");
}

#[test]
fn a_wrong_policy_in_the_config_file_is_shown_with_its_line() {
    let check = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        let output = clipper("", &["check-config", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        text_of(&output)
    };
    let says = check(&CONFIG.replace("explore = 0.05", "explore = 5"));
    assert!(says.contains("application[0].policy.explore"), "{says}");
    assert!(says.contains(":10") && says.contains("a number from 0 to 1"), "{says}");
    let says = check(&CONFIG.replace("name = \"exp3\"", "name = \"exp5\""));
    assert!(says.contains("there is no policy 'exp5'"), "{says}");
    let none = CONFIG.replace("[application.policy]\nname = \"exp3\"\nexplore = 0.05\n", "");
    assert!(check(&none).contains("several models need a policy"), "{}", check(&none));
    let unknown = CONFIG.replace("[\"m\", \"n\"]", "[\"m\", \"nn\"]");
    assert!(check(&unknown).contains("no [[model]] is named \"nn\""), "{}", check(&unknown));
}

fn text_of(output: &std::process::Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

const PAGE: &str = "docs/choosing-models.md";
const START: &str = "<!-- from here: written by a test, from crates/selection/src/table.rs -->\n";
const END: &str = "<!-- to here -->\n";

/// Every policy and parameter as the page shows them.
fn tables() -> String {
    use clipper_selection::table::{COMMON, TABLE};
    let rows = |parameters: &[(&str, &str)]| -> Vec<String> {
        parameters.iter().map(|(name, what)| format!("- `{name}`: {what}.")).collect()
    };
    let mut lines = Vec::new();
    for kind in TABLE {
        lines.push(format!("### {}\n\n{}\n", kind.name, kind.summary));
        lines.extend(rows(kind.parameters));
        if !kind.parameters.is_empty() {
            lines.push(String::new());
        }
    }
    lines.push("### Parameters that every policy has\n".to_owned());
    lines.extend(rows(COMMON));
    lines.join("\n") + "\n"
}

#[test]
fn the_page_describes_every_policy() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (head, rest) = page.split_once(START).unwrap();
    let (written, tail) = rest.split_once(END).unwrap();
    if std::env::var_os("CLIPPER_WRITE_DOCS").is_some() {
        std::fs::write(PAGE, format!("{head}{START}\n{}\n{END}{tail}", tables())).unwrap();
        return;
    }
    assert_eq!(written, format!("\n{}\n", tables()), "CLIPPER_WRITE_DOCS=1 writes it");
}

#[test]
fn the_pages_commands_do_what_it_says() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (_, rest) = page.split_once("## Setting a policy").unwrap();
    let block = rest.split("```").nth(1).unwrap();
    let server = Server::start();
    server.add_app("digits", "doubles", "-1", 20_000_000);
    for model in ["svm", "bayes", "tree"] {
        server.add_model(model, "1", "doubles");
    }
    let url = format!("http://{}", server.management);
    let commands: Vec<&str> = block.lines().filter_map(|l| l.strip_prefix("clipper ")).collect();
    assert!(!commands.is_empty());
    for line in commands {
        let words: Vec<&str> = line.split_whitespace().collect();
        let output = clipper(&url, &words);
        assert_eq!(output.status.code(), Some(0), "{line}: {}", text_of(&output));
    }
    let shown = application(&server, "digits");
    assert_eq!(
        (&shown["policy"], &shown["policy_parameters"], &shown["linked_models"]),
        (&json!("exp3"), &json!({"window": 4000}), &json!(["bayes", "svm", "tree"]))
    );
}
