//! Random changes of the metadata over few names, so that they meet each other's results; and what
//! a server has, to compare.

use rand::Rng as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

/// A management request: its operation and body, to status and text.
pub type Ask<'a> = &'a dyn Fn(&str, &Value) -> (u16, String);

/// One of all verbs that change what is served. Many are refused.
pub fn any_change(random: &mut SmallRng) -> (&'static str, Value) {
    let mut one_of = |names: &[&'static str]| names[random.random_range(0..names.len())];
    let (app, model) = (one_of(&["a", "b", "c"]), one_of(&["m", "n", "o"]));
    let (version, input_type) = (one_of(&["1", "2", "3"]), one_of(&["doubles", "strings"]));
    let version_of = json!({"model_name": model, "model_version": version});
    let links = json!({"app_name": app, "model_names": [model]});
    let number = random.random_range(1..1_000);
    match random.random_range(0..13) {
        0 | 1 => (
            "add_app",
            json!({"name": app, "input_type": input_type, "default_output": number.to_string(),
                "latency_slo_micros": number}),
        ),
        2 => ("update_app", json!({"name": app, "latency_slo_micros": number, "weight": 3})),
        3 => ("delete_app", json!({"name": app})),
        4 | 5 => (
            "add_model",
            json!({"model_name": model, "model_version": version, "input_type": input_type,
                "labels": [], "container_name": "c", "model_data_path": "/m", "batch_size": -1,
                "make_current": number % 3 > 0}),
        ),
        6 => {
            let mut body = version_of;
            body["batch_size"] = json!(number);
            body["labels"] = json!([format!("l{number}")]);
            ("update_model", body)
        }
        7 => ("set_model_version", version_of),
        8 => ("delete_versioned_model", version_of),
        9 | 10 => ("add_model_links", links),
        11 => ("delete_model_links", links),
        _ => {
            let policy = ["exp3", "majority", "DefaultOutputSelectionPolicy"][number % 3];
            ("set_policy", json!({"app_name": app, "policy": policy}))
        }
    }
}

/// What it has, as a file declares it.
pub fn exported(ask: Ask<'_>) -> String {
    let (status, text) = ask("export", &json!({}));
    assert_eq!(status, 200, "{text}");
    text
}

/// The last event that it has.
pub fn last_event(ask: Ask<'_>) -> u64 {
    let (status, text) = ask("apply", &json!({"dry_run": true}));
    assert_eq!(status, 200, "{text}");
    serde_json::from_str::<Value>(&text).unwrap()["base"].as_u64().unwrap()
}
