//! What an application's policy does can be seen: metrics of each model, `clipper top`, and how
//! long an ensemble waits.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::e2e::choosing::{predict, server, update};
use crate::e2e::support::container::Container;
use crate::e2e::support::server::Server;
use crate::e2e::support::{eventually, http};
use crate::e2e::top::top;

fn of_model(server: &Server, metric: &str, model: &str) -> f64 {
    server.sample(&format!("clipper_policy_{metric}{{app=\"a\",model=\"{model}\"}}"))
}

#[test]
fn each_model_of_a_policy_is_counted() {
    let server = server("name = \"exp4\"", &["1", "2", "2"]);
    for n in 0..10 {
        let answer = predict(&server, &json!({"input": [n]}));
        assert_eq!(answer["output"], 2);
        update(&server, &json!({"query_id": answer["query_id"], "label": 2}));
    }
    eventually("all feedback counts", || of_model(&server, "judged_total", "m0") >= 10.0);
    let seen = |model: &str| -> Vec<f64> {
        ["asked_total", "left_out_total", "compared_total", "agreed_total", "loss_total"]
            .map(|metric| of_model(&server, metric, model))
            .to_vec()
    };
    assert_eq!(seen("m0"), [10.0, 0.0, 10.0, 0.0, 10.0]);
    assert_eq!(seen("m2"), [10.0, 0.0, 10.0, 10.0, 0.0]);
    let weights = ["m0", "m1", "m2"].map(|model| of_model(&server, "weight", model));
    assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-3, "{weights:?}");
    assert!(weights[0] < 0.01 && weights[1] > 0.4, "{weights:?}");
    // The first answer was a vote of two of three, later ones are surer.
    let up_to = |bound: &str| {
        server.sample(&format!("clipper_policy_confidence_bucket{{app=\"a\",le=\"{bound}\"}}"))
    };
    let counted = ["0.6", "1"].map(up_to).to_vec();
    assert_eq!(counted, [0.0, 10.0]);
    assert!(up_to("0.7") >= 1.0);
    // An application without a policy has none of these.
    server.manage("delete_model_links", &json!({"app_name": "a", "model_names": ["m1", "m2"]}));
    let usual = json!({"app_name": "a", "policy": "DefaultOutputSelectionPolicy"});
    server.manage("set_policy", &usual);
    let page = http::get(server.metrics, "/metrics");
    assert!(!page.text().contains("\nclipper_policy_weight{"), "{}", page.text());
}

#[test]
fn top_shows_an_applications_models_with_their_weights() {
    let server = server("name = \"weighted\"\nweights = { m0 = 3, m1 = 1 }", &["1", "2"]);
    predict(&server, &json!({"input": [1.0]}));
    let shown = |option: &str| {
        String::from_utf8(top(&server, &[option, "--interval", "0.2"]).stdout).unwrap()
    };
    let view: Value = serde_json::from_str(&shown("--json")).unwrap();
    let app = &view["applications"][0];
    assert_eq!(app["policy"], "weighted");
    let weights: Vec<&Value> = [0, 1].map(|n| &app["choices"][n]["weight"]).to_vec();
    assert_eq!(weights, [&json!(0.75), &json!(0.25)]);
    let text = shown("--once");
    let line = |model: &str| {
        let start = ["a        weighted  ", model, " "].concat();
        text.lines().find(|line| line.starts_with(&start)).expect(&text).to_owned()
    };
    assert!(line("m0").contains("75 %") && line("m1").contains("25 %"), "{text}");
}

#[test]
fn an_ensemble_answers_before_its_deadline_and_one_model_has_all_the_time() {
    let margins = "[serving]\nensemble_margin_us = 1000000\nanswer_margin_us = 0\n";
    let server = Server::with_config(margins);
    let objective = Duration::from_secs(5);
    let mut containers = Vec::new();
    for (model, how) in [("fast", "right"), ("slow", "hold")] {
        server.add_model(model, "1", "doubles");
        let mut container = Container::serving(&server, model, &["--output", "7"]);
        container.answer(how);
        containers.push(container);
    }
    server.add_app("both", "doubles", "-1", 5_000_000);
    server.manage("set_policy", &json!({"app_name": "both", "policy": "majority"}));
    let both = json!({"app_name": "both", "model_names": ["fast", "slow"]});
    server.manage("add_model_links", &both);
    let asked = Instant::now();
    let answer = server.predict("both", &json!({"input": [1.0]}));
    let took = asked.elapsed();
    assert_eq!((answer.output(), answer.is_default()), (&json!(7), false));
    // A tenth of the objective before the deadline.
    assert!(took < objective, "{took:?}");
    // Nobody has answered: there is nothing to combine before the deadline.
    let set = json!({"app_name": "both", "policy": "fixed", "parameters": {"model": "slow"}});
    server.manage("set_policy", &set);
    let asked = Instant::now();
    let answer = server.predict("both", &json!({"input": [2.0]}));
    let took = asked.elapsed();
    assert!(answer.is_default() && took >= objective, "{took:?}");
}
