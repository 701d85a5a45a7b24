//! Errors of models: from a container of the Python package to the caller, beside containers that
//! have never heard of such a thing.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::e2e::support::bystander::Bystander;
use crate::e2e::support::container::Container;
use crate::e2e::support::eventually;
use crate::e2e::support::python;
use crate::e2e::support::server::Server;

const SLO_US: u64 = 30_000_000;
const MODEL: &str = "\
from clipper_serving import serve

def predict(inputs):
    if any(one[0] == 13 for one in inputs):
        raise ValueError('poisoned')
    return [float(one[0]) for one in inputs]

serve(predict, metrics_port=0)
";
const EXPLANATION: &str = "The model answered with an error: ValueError: poisoned";

/// A container of the Python package for version 1 of model `m`.
struct Package(Child);

impl Package {
    fn serving(server: &Server) -> Self {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/python/src");
        let child = Command::new(python())
            .args(["-c", MODEL])
            .env("PYTHONPATH", source)
            .envs([("CLIPPER_MODEL_NAME", "m"), ("CLIPPER_MODEL_VERSION", "1")])
            .env("CLIPPER_PORT", server.rpc.rsplit(':').next().unwrap())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let container = Self(child);
        server.await_replicas("m", 1);
        container
    }
}

impl Drop for Package {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Application and model `m`, whose batches carry up to 64 queries.
fn register(server: &Server, on_model_error: Option<&str>) {
    let mut app = json!({"name": "m", "input_type": "doubles", "default_output": "-1",
                         "latency_slo_micros": SLO_US});
    if let Some(choice) = on_model_error {
        app["on_model_error"] = json!(choice);
    }
    server.manage("add_app", &app);
    server.manage(
        "add_model",
        &json!({"model_name": "m", "model_version": "1", "input_type": "doubles", "labels": [],
                "container_name": "test", "model_data_path": "", "batch_size": 64}),
    );
    server.link("m", "m");
}

/// Asks for 0 to 63, of which 13 is poisoned.
fn ask_64(server: &Server) -> Vec<Value> {
    let inputs: Vec<[u32; 1]> = (0..64).map(|number| [number]).collect();
    let answer = server.predict("m", &json!({"input_batch": inputs}));
    assert_eq!(answer.status, 200, "{answer:?}");
    let answers = answer.body["batch_predictions"].as_array().unwrap().clone();
    assert_eq!(answers.len(), 64);
    for (number, answer) in (0_u32..).zip(&answers).filter(|(number, _)| *number != 13) {
        let expected = (&json!(f64::from(number)), &json!(false));
        assert_eq!((&answer["output"], &answer["default"]), expected, "{answer}");
    }
    answers
}

fn model_errors(server: &Server) -> (f64, f64) {
    let model = server.sample("clipper_model_errors_total{model=\"m\",version=\"1\"}");
    let app = "clipper_predictions_total{app=\"m\",outcome=\"model_error\"}";
    (model, server.sample(app))
}

#[test]
fn one_poisoned_input_of_64_gets_the_default_and_the_reason() {
    let server = Server::start();
    register(&server, None);
    let _container = Package::serving(&server);
    let answers = ask_64(&server);
    let poisoned = &answers[13];
    assert_eq!((&poisoned["output"], &poisoned["default"]), (&json!(-1), &json!(true)));
    assert_eq!(poisoned["default_explanation"], EXPLANATION);
    assert_eq!(model_errors(&server), (1.0, 1.0));
    // The good outputs are in the cache now, the error is not.
    ask_64(&server);
    assert_eq!(model_errors(&server), (2.0, 2.0));
    let misses = "clipper_cache_lookups_total{model=\"m\",version=\"1\",result=\"miss\"}";
    assert_eq!(server.sample(misses).to_string(), "65");
}

#[test]
fn an_application_may_pass_errors_on() {
    let server = Server::start();
    register(&server, Some("error"));
    let server = server.restart();
    let app = server.manage("get_application", &json!({"name": "m"}));
    let app: Value = serde_json::from_str(&app).unwrap();
    assert_eq!(app["on_model_error"], "error", "{app}");
    let _container = Package::serving(&server);
    let answers = ask_64(&server);
    let (query_id, poisoned) = (&answers[13]["query_id"], &answers[13]);
    let error = json!({"query_id": query_id, "error": "Model error",
                       "cause": "ValueError: poisoned"});
    assert_eq!(poisoned, &error);
    let alone = server.predict("m", &json!({"input": [13]}));
    let error = json!({"error": "Model error", "cause": "ValueError: poisoned"});
    assert_eq!((alone.status, &alone.body), (422, &error));
    assert_eq!(model_errors(&server), (2.0, 2.0));
    // Whatever is not the model's error is still the default output.
    let good = server.predict("m", &json!({"input": [14]}));
    assert_eq!((good.status, good.output()), (200, &json!(14.0)));
}

#[test]
fn a_wrong_choice_is_refused() {
    let server = Server::start();
    let refused = server.admin(
        "add_app",
        &json!({"name": "m", "input_type": "doubles", "default_output": "-1",
                "latency_slo_micros": SLO_US, "on_model_error": "shrug"}),
    );
    assert_eq!(refused.status, 400);
    assert_eq!(refused.text(), "on_model_error must be 'default' or 'error', not 'shrug'");
    assert_eq!(server.admin("get_application", &json!({"name": "m"})).text(), "{}");
}

#[test]
fn original_containers_and_new_ones_serve_one_server() {
    let server = Server::start();
    register(&server, None);
    server.serve("original", "doubles", SLO_US);
    let mut original = Container::serving(&server, "original", &["--output", "{\"error\": 1}"]);
    let _container = Package::serving(&server);
    for number in 0..20 {
        let answer = server.predict("original", &json!({"input": [number]}));
        // What it means by that is its own affair.
        assert_eq!((answer.output(), answer.is_default()), (&json!({"error": 1}), false));
    }
    ask_64(&server);
    assert_eq!(original.counted("registrations"), 1);
    assert_eq!(server.connections_ended("protocol").to_string(), "0");
}

#[test]
fn an_error_is_taken_only_from_a_container_that_has_announced_it() {
    let server = Server::start();
    register(&server, None);
    let announced = Container::serving(&server, "m", &["--extensions", "1", "--how", "an error"]);
    let answer = server.predict("m", &json!({"input": [1]}));
    assert_eq!(answer.explanation(), "The model answered with an error: poisoned");
    drop(announced);
    server.await_replicas("m", 0);
    // A bit that this server does not know is no agreement on errors either.
    for bits in ["0", "2"] {
        let before = server.connections_ended("protocol");
        let options = ["--extensions", bits, "--how", "an error"];
        let stranger = Container::serving(&server, "m", &options);
        let answer = server.predict("m", &json!({"input": [2]}));
        assert!(answer.explanation().starts_with("Replica m:1:"), "{answer:?}");
        eventually("it is cut off", || server.connections_ended("protocol") > before);
        // It would connect again by itself.
        drop(stranger);
        server.await_replicas("m", 0);
    }
}

#[test]
fn a_container_with_broken_errors_is_cut_off_and_harms_nobody() {
    let server = Server::start();
    let bystander = Bystander::start(&server);
    register(&server, None);
    let broken = [
        "an error not utf-8",
        "an error too long",
        "an error without text",
        "an error of another length",
    ];
    for (number, how) in broken.iter().enumerate() {
        let before = server.connections_ended("protocol");
        let container = Container::serving(&server, "m", &["--extensions", "1", "--how", how]);
        let answer = server.predict("m", &json!({"input": [number]}));
        assert!(answer.is_default(), "{how}: {answer:?}");
        assert!(answer.explanation().starts_with("Replica m:1:"), "{how}: {answer:?}");
        eventually("it is cut off", || server.connections_ended("protocol") > before);
        drop(container);
        server.await_replicas("m", 0);
    }
    let _container = Package::serving(&server);
    ask_64(&server);
    bystander.was_served(&server);
}

#[test]
fn a_python_function_that_the_server_runs_fails_on_one_input_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.py");
    let (function, _) = MODEL.split_once("\nserve(").unwrap();
    std::fs::write(&file, function.replace("from clipper_serving import serve", "")).unwrap();
    let server = Server::with_config(&format!(
        "[[application]]\nname = \"m\"\ninput_type = \"doubles\"\ndefault_output = \"-1\"\n\
         latency_slo_micros = {SLO_US}\non_model_error = \"error\"\nmodel = \"m\"\n\n\
         [[model]]\nname = \"m\"\nversion = \"1\"\ninput_type = \"doubles\"\nbatch_size = 64\n\n\
         [model.container]\nruntime = \"python\"\nfunction = '{}:predict'\npython = '{}'\n",
        file.display(),
        python().to_string_lossy()
    ));
    server.await_replicas("m", 1);
    assert_eq!(ask_64(&server)[13]["cause"], "ValueError: poisoned");
}

#[test]
fn an_input_of_a_wrong_length_is_an_error_of_an_onnx_model() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let text = std::fs::read_to_string(format!("{folder}/config/quickstart.toml")).unwrap();
    // Only what is answered counts here, not how soon.
    let text = text.replace("= 100000", "= 30000000").replace("../", &format!("{folder}/"));
    let server = Server::with_config(&text);
    server.await_replicas("digits", 2);
    let answer = server.predict("digits", &json!({"input": [1, 2]}));
    let why = "The model answered with an error: expected 64 ";
    assert!(answer.is_default() && answer.explanation().starts_with(why), "{answer:?}");
}
