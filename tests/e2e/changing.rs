//! What is there changes while it serves: queries under way keep what they began with.

use serde_json::{Value, json};

use crate::e2e::admin_cli::{clipper, text};
use crate::e2e::support::container::Container;
use crate::e2e::support::eventually;
use crate::e2e::support::server::Server;

/// Longer than any test lasts.
const SLO_US: u64 = 60_000_000;

fn run(server: &Server, words: &[&str]) -> (Option<i32>, String) {
    let output = clipper(&format!("http://{}", server.management), words);
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn a_version_changes_its_batches_and_cache_while_it_serves() {
    let server = Server::start();
    server.serve("m", "doubles", SLO_US);
    let mut container = Container::serving(&server, "m", &["--how", "hold"]);
    let listed = server.containers();
    let sizes =
        |container: &mut Container| (container.counted("batches"), container.counted("inputs"));
    std::thread::scope(|scope| {
        let under_way = scope.spawn(|| server.predict("m", &json!({"input": [1.0]})));
        container.await_input(&json!([1.0]));
        let body = json!({"model_name": "m", "model_version": "1", "batch_size": 2, "cache": false,
            "labels": ["night"]});
        let done = server.manage("update_model", &body);
        assert_eq!(done, "Successfully updated model with name 'm' and version '1'");
        container.answer("right");
        let answer = under_way.join().unwrap();
        assert!(!answer.is_default(), "{answer:?}");
    });
    let (batches, inputs) = sizes(&mut container);
    // Batches of two from now on, and nothing comes from the cache.
    let eight = json!({"input_batch": [[1.0], [1.0], [2.0], [2.0], [3.0], [3.0], [4.0], [4.0]]});
    assert_eq!(server.predict("m", &eight).status, 200);
    let (after, seen) = sizes(&mut container);
    assert_eq!(seen - inputs, 8, "every input is computed anew");
    assert!(after - batches >= 4, "{} batches", after - batches);
    assert_eq!(server.containers(), listed, "its containers stay");
    let model: Value = serde_json::from_str(
        &server.manage("get_model", &json!({"model_name": "m", "model_version": "1"})),
    )
    .unwrap();
    assert_eq!((&model["labels"], &model["cache"]), (&json!(["night"]), &json!(false)));
    // What it takes and gives is another version's business.
    let body = json!({"model_name": "m", "model_version": "1", "input_type": "strings"});
    assert_eq!(server.admin("update_model", &body).status, 400);
    let nothing = json!({"model_name": "m", "model_version": "1"});
    assert!(server.admin("update_model", &nothing).text().contains("nothing to change"));
    let unknown = json!({"model_name": "m", "model_version": "7", "cache": true});
    assert!(server.admin("update_model", &unknown).text().contains("does not exist"));
    // The change is in the journal, and there after a restart.
    let server = server.restart();
    let model = server.manage("get_model", &json!({"model_name": "m", "model_version": "1"}));
    assert!(model.contains("night"), "{model}");
}

#[test]
fn the_command_line_changes_and_asks_for_what_depends() {
    let server = Server::start();
    server.serve("a", "doubles", SLO_US);
    let (code, said) = run(&server, &["admin", "models", "update", "a", "1", "--batch-size", "4"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(run(&server, &["admin", "models", "update", "a", "1"]).0, Some(2));
    let policy = ["admin", "apps", "update", "a", "--slo-ms", "30", "--policy", "exp3"];
    let (code, said) = run(&server, &[&policy[..], &["--parameter", "explore=0.2"]].concat());
    assert_eq!(code, Some(0), "{said}");
    let app = server.manage("get_application", &json!({"name": "a"}));
    let app: Value = serde_json::from_str(&app).unwrap();
    assert_eq!(app["policy_parameters"], json!({"explore": 0.2}));
    assert_eq!(app["latency_slo_micros"], json!(30_000));
    let delete = ["admin", "models", "delete", "a", "1"];
    let (code, said) = run(&server, &delete);
    assert!(code == Some(1) && said.contains("--dependent a"), "{said}");
    let (code, said) = run(&server, &[&delete[..], &["--dependent", "b"]].concat());
    assert!(code == Some(1) && said.contains("'a'"), "{said}");
    let (code, said) = run(&server, &[&delete[..], &["--dependent", "a"]].concat());
    assert_eq!(code, Some(0), "{said}");
    eventually("it is gone", || {
        server.manage("get_all_models", &json!({"verbose": false})) == "[]"
    });
}
