//! Policies at work: which models are asked, what their answers become, what feedback teaches.

use serde_json::{Value, json};

use crate::e2e::support::container::Container;
use crate::e2e::support::eventually;
use crate::e2e::support::http::{Connection, call};
use crate::e2e::support::server::Server;

/// Application `a` under a policy, with models that always answer the same: `m0` to `m4`.
pub(super) fn config(policy: &str, outputs: &[&str]) -> String {
    let clipper = crate::binary();
    let names: Vec<String> = (0..outputs.len()).map(|n| format!("\"m{n}\"")).collect();
    let mut text = format!(
        "[[application]]\nname = \"a\"\ninput_type = \"doubles\"\ndefault_output = \"-1\"\n\
         latency_slo_micros = 20000000\nmodels = [{}]\n[application.policy]\n{policy}\n",
        names.join(", ")
    );
    for (n, output) in outputs.iter().enumerate() {
        let script = format!(
            "exec '{clipper}' container noop --name=$CLIPPER_MODEL_NAME \
             --version=$CLIPPER_MODEL_VERSION --connect=tcp://$CLIPPER_IP:$CLIPPER_PORT \
             --output='{output}'"
        );
        text += &["\n[[model]]\nname = \"m", &n.to_string(), "\"\nversion = \"1\"\n"].concat();
        text += "input_type = \"doubles\"\n[model.container]\nruntime = \"command\"\n";
        text += &["command = [\"sh\", \"-c\", \"", &script, "\"]\n"].concat();
    }
    text
}

pub(super) fn server(policy: &str, outputs: &[&str]) -> Server {
    let server = Server::with_config(&config(policy, outputs));
    for n in 0..outputs.len() {
        eventually("every model is served", || server.replicas(&format!("m{n}")) > 0.0);
    }
    server
}

pub(super) fn predict(server: &Server, body: &Value) -> Value {
    let answer = call(server.query, "POST", "/a/predict", body.to_string().as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

pub(super) fn update(server: &Server, body: &Value) -> (u16, String) {
    let answer = call(server.query, "POST", "/a/update", body.to_string().as_bytes()).unwrap();
    (answer.status, answer.text())
}

/// What feedback has left with a user.
fn state(server: &Server, uid: i64) -> Value {
    let text = server.manage("get_state", &json!({"app_name": "a", "uid": uid}));
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))
}

fn judged(state: &Value, model: &str) -> u64 {
    state["epochs"]["0"]["arms"][model]["n"].as_u64().unwrap_or(0)
}

#[test]
fn a_vote_says_how_many_agree() {
    let server = server("name = \"majority\"", &["1", "2", "2"]);
    let answer = predict(&server, &json!({"input": [1.0]}));
    assert_eq!((&answer["output"], &answer["default"]), (&json!(2), &json!(false)));
    assert_eq!(answer["confidence"], 0.6667);
    let batch = predict(&server, &json!({"input_batch": [[1.0], [2.0], [3.0]]}));
    for answer in batch["batch_predictions"].as_array().unwrap() {
        assert_eq!((&answer["output"], &answer["confidence"]), (&json!(2), &json!(0.6667)));
    }
    let set = json!({"app_name": "a", "policy": "majority", "parameters": {"min_confidence": 0.9}});
    server.manage("set_policy", &set);
    let answer = predict(&server, &json!({"input": [1.0]}));
    assert_eq!((&answer["output"], &answer["default"]), (&json!(-1), &json!(true)));
    let why = answer["default_explanation"].as_str().unwrap();
    assert!(why.contains("0.667") && why.contains("min_confidence, 0.9"), "{why}");
    // A version that is asked for is asked alone, of the first model.
    let answer = predict(&server, &json!({"input": [1.0], "version": "1"}));
    assert_eq!((&answer["output"], answer.get("confidence")), (&json!(1), None));
    // Under the default policy there is one model, and no word of confidence.
    server.manage("delete_model_links", &json!({"app_name": "a", "model_names": ["m1", "m2"]}));
    let set = json!({"app_name": "a", "policy": "DefaultOutputSelectionPolicy"});
    server.manage("set_policy", &set);
    let answer = predict(&server, &json!({"input": [1.0]}));
    assert_eq!((&answer["output"], answer.get("confidence")), (&json!(1), None));
}

#[test]
fn numbers_are_pooled() {
    let server = server("name = \"average\"\noutput = \"number\"", &["1", "2.5", "10"]);
    let answer = predict(&server, &json!({"input": [1.0]}));
    assert_eq!((&answer["output"], &answer["confidence"]), (&json!(4.5), &json!(1.0)));
    let set = |policy: &str, parameters: Value| {
        let body = json!({"app_name": "a", "policy": policy, "parameters": parameters});
        server.manage("set_policy", &body);
    };
    set("median", json!({"output": "number"}));
    assert_eq!(predict(&server, &json!({"input": [1.0]}))["output"], 2.5);
    set("average", json!({"output": "number", "weights": {"m0": 1, "m1": 1}}));
    assert_eq!(predict(&server, &json!({"input": [1.0]}))["output"], 1.75);
}

#[test]
fn a_straggler_is_left_out_and_the_confidence_says_so() {
    let server = Server::start();
    server.add_app("a", "doubles", "-1", 1_000_000);
    server.manage("set_policy", &json!({"app_name": "a", "policy": "majority"}));
    let mut containers = Vec::new();
    for (model, how) in [("m0", "right"), ("m1", "right"), ("m2", "hold")] {
        server.add_model(model, "1", "doubles");
        server.manage("add_model_links", &json!({"app_name": "a", "model_names": [model]}));
        let mut container = Container::serving(&server, model, &["--output", "7"]);
        container.answer(how);
        containers.push(container);
    }
    let answer = predict(&server, &json!({"input": [1.0]}));
    assert_eq!((&answer["output"], &answer["default"]), (&json!(7), &json!(false)));
    assert_eq!(answer["confidence"], 0.6667);
    containers[2].await_input(&json!([1.0]));
}

#[test]
fn a_cascade_asks_the_dear_model_where_the_cheap_one_is_unsure() {
    let policy = "name = \"cascade\"\noutput = \"vector\"\norder = [\"m0\", \"m1\"]";
    let server = server(policy, &["[0.6,0.4]", "[0.05,0.95]"]);
    let answer = predict(&server, &json!({"input": [1.0]}));
    assert_eq!((&answer["output"], &answer["confidence"]), (&json!([0.05, 0.95]), &json!(0.95)));
    let parameters = json!({"output": "vector", "order": ["m0", "m1"], "enough": 0.5});
    let set = json!({"app_name": "a", "policy": "cascade", "parameters": parameters});
    server.manage("set_policy", &set);
    let answer = predict(&server, &json!({"input": [1.0]}));
    assert_eq!((&answer["output"], &answer["confidence"]), (&json!([0.6, 0.4]), &json!(0.6)));
}

#[test]
fn a_users_queries_stay_with_one_model() {
    let policy = "name = \"weighted\"\nsticky = \"uid\"\nweights = { m0 = 1, m1 = 1 }";
    let server = server(policy, &["0", "1"]);
    let output =
        |uid: i64| predict(&server, &json!({"uid": uid, "input": [1.0]}))["output"].clone();
    let first: Vec<Value> = (1..30).map(output).collect();
    assert!(first.contains(&json!(0)) && first.contains(&json!(1)), "{first:?}");
    assert_eq!((1..30).map(output).collect::<Vec<_>>(), first);
}

#[test]
fn queries_with_the_same_key_stay_with_one_model() {
    let policy = "name = \"weighted\"\nsticky = \"field:session\"\nweights = { m0 = 1, m1 = 1 }";
    let server = server(policy, &["0", "1"]);
    let output = |session: Value| {
        predict(&server, &json!({"session": session, "input": [1.0]}))["output"].clone()
    };
    let of = |n: u32| output(json!(format!("session {n}")));
    let first: Vec<Value> = (0..30).map(of).collect();
    assert!(first.contains(&json!(0)) && first.contains(&json!(1)), "{first:?}");
    // Also after a restart, which draws by other query ids.
    let server = server.restart();
    for n in 0..2 {
        eventually("every model is served", || server.replicas(&format!("m{n}")) > 0.0);
    }
    let ask = |body: Value| {
        let answer = call(server.query, "POST", "/a/predict", body.to_string().as_bytes()).unwrap();
        (answer.status, answer.text())
    };
    for (n, first) in first.iter().enumerate() {
        let body = json!({"session": format!("session {n}"), "input_batch": [[1.0], [2.0]]});
        let (status, text) = ask(body);
        let answer: Value = serde_json::from_str(&text).unwrap();
        for one in answer["batch_predictions"].as_array().unwrap() {
            assert_eq!((status, &one["output"]), (200, first), "{text}");
        }
    }
    // A number is as good as its text; nothing is a key, and anything else is refused by name.
    let seven = |key: Value| ask(json!({"session": key, "input": [1.0]})).1;
    let output = |text: String| serde_json::from_str::<Value>(&text).unwrap()["output"].clone();
    assert_eq!(output(seven(json!(7))), output(seven(json!("7"))));
    let drawn: Vec<Value> = (0..64).map(|_| output(seven(Value::Null))).collect();
    assert!(drawn.contains(&json!(0)) && drawn.contains(&json!(1)), "{drawn:?}");
    for wrong in [json!(true), json!(["a"]), json!({"a": 1})] {
        let (status, text) = ask(json!({"session": wrong, "input": [1.0]}));
        assert!(status == 400 && text.contains("session: it must be a string"), "{text}");
    }
}

/// The answer to a request with one more header.
fn with_header(server: &Server, path: &str, header: &str, body: &Value) -> Value {
    let body = body.to_string();
    let mut connection = Connection::open(server.query);
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{header}\r\nContent-Length: {length}");
    connection.send(format!("{head}\r\n\r\n{body}").as_bytes());
    let answer = connection.answer("POST").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn requests_with_the_same_header_stay_with_one_model() {
    let policy = "name = \"weighted\"\nsticky = \"header:X-Session\"\nweights = { m0 = 1, m1 = 1 }";
    let server = server(policy, &["0", "1"]);
    let output = |header: &str| {
        with_header(&server, "/a/predict", header, &json!({"input": [1.0]}))["output"].clone()
    };
    let of = |n: u32| output(&format!("x-session: f{n}"));
    let first: Vec<Value> = (0..30).map(of).collect();
    assert!(first.contains(&json!(0)) && first.contains(&json!(1)), "{first:?}");
    assert_eq!((0..30).map(of).collect::<Vec<_>>(), first);
    // Likewise over the other protocol, in several inputs, and in a body that is parsed elsewhere.
    let v2 =
        json!({"inputs": [{"name": "input", "datatype": "FP64", "shape": [1, 1], "data": [1]}]});
    let batch = json!({"input_batch": vec![[1.0]; 3]});
    let long = json!({"input_batch": vec![vec![0.25; 100]; 900]});
    for (n, first) in first.iter().enumerate().take(10) {
        let header = format!("X-SESSION: f{n}");
        let answer = with_header(&server, "/v2/models/a/infer", &header, &v2);
        let given = &answer["outputs"][0]["data"][0];
        let given = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
        assert_eq!(given.parse::<f64>().ok(), first.as_f64(), "{answer}");
        for body in [&batch, &long] {
            let answer = with_header(&server, "/a/predict", &header, body);
            let given = answer["batch_predictions"].as_array().unwrap();
            assert!(given.iter().all(|one| one["output"] == *first), "{n}: {first}");
        }
    }
    // Without it, or without a text in it, each is drawn.
    for header in ["x-other: 1", "x-session:"] {
        let drawn: Vec<Value> = (0..64).map(|_| output(header)).collect();
        assert!(drawn.contains(&json!(0)) && drawn.contains(&json!(1)), "{drawn:?}");
    }
    // Nor under a policy that goes by something else.
    let set = json!({"app_name": "a", "policy": "weighted", "parameters": {"weights": {"m1": 1}}});
    server.manage("set_policy", &set);
    assert!((0..30).all(|n| of(n) == 1));
}

/// The errors of feedback name all that it may say.
#[test]
fn the_schema_of_feedback_is_whole() {
    let server = server("name = \"exp4\"", &["0", "1"]);
    for body in [json!({"uid": 1}), json!({"query_id": 1}), json!({"uid": "x"}), json!([])] {
        let (status, text) = update(&server, &body);
        assert_eq!(status, 400, "{text}");
        for member in
            ["\"uid\"", "\"input\"", "\"query_id\"", "\"label\"", "\"loss\"", "\"feedback\""]
        {
            assert!(text.contains(member), "{member} of {text}");
        }
    }
}

#[test]
fn feedback_moves_queries_to_the_model_that_is_right() {
    let server = server("name = \"exp3\"\nlearning_rate = 0.5", &["0", "1", "2"]);
    let round = || {
        let answer = predict(&server, &json!({"input": [1.0]}));
        let told = update(&server, &json!({"query_id": answer["query_id"], "label": 1}));
        assert_eq!(told, (200, "Feedback received? 1".to_owned()));
        answer["output"] == 1
    };
    let early = (0..150).filter(|_| round()).count();
    let right = (0..40).filter(|_| round()).count();
    assert!(right > 30, "{right} of 40, before {early} of 150");
    assert_eq!(state(&server, 0)["epochs"]["0"]["n"], 190);
}

#[test]
fn feedback_that_goes_with_no_answer_is_harmless() {
    let server = server("name = \"exp4\"", &["0", "1"]);
    let answer = predict(&server, &json!({"uid": 5, "input": [1.0]}));
    let about = |label: Value| json!({"query_id": answer["query_id"], "label": label});
    assert_eq!(update(&server, &about(json!(1))).0, 200);
    let after = state(&server, 0);
    assert_eq!((judged(&after, "m0"), judged(&after, "m1")), (1, 1));
    assert_eq!(after["epochs"]["0"]["arms"]["m0"]["loss"], 1_000_000);
    assert_eq!(after["epochs"]["0"]["arms"]["m1"]["loss"], 0);
    // What the user asked counts for the user too.
    assert_eq!(judged(&state(&server, 5), "m0"), 1);
    // Double, unknown.
    for body in [about(json!(1)), json!({"query_id": 999_999, "label": 1})] {
        assert_eq!(update(&server, &body).0, 200);
    }
    assert_eq!(state(&server, 0), after);
    // As the original sends it: the latest answer to that input; then what the cache has.
    predict(&server, &json!({"input": [2.0]}));
    for judgements in [2, 3] {
        assert_eq!(update(&server, &json!({"uid": 0, "input": [2.0], "label": 0})).0, 200);
        assert_eq!(judged(&state(&server, 0), "m0"), judgements);
    }
    // Wrong ones are refused by the field's name.
    let cases = [
        (json!({"query_id": 1, "label": [1]}), "label"),
        (json!({"query_id": 1, "loss": 2}), "loss"),
        (json!({"query_id": 1}), "label"),
        (json!({"query_id": -1, "label": 1}), "query_id"),
        (json!({"input": [1.0], "label": 1}), "uid"),
    ];
    let before = state(&server, 0);
    for (body, field) in cases {
        let (status, text) = update(&server, &body);
        assert!(status == 400 && text.contains(field), "{body}: {status} {text}");
    }
    // What is no output of the models is no label either.
    let answer = predict(&server, &json!({"input": [3.0]}));
    let numbers = json!({"app_name": "a", "policy": "average", "parameters": {"output": "number"}});
    server.manage("set_policy", &numbers);
    for label in [json!("cat"), json!(true)] {
        let about = [
            json!({"query_id": answer["query_id"], "label": label}),
            json!({"uid": 0, "input": [3.0], "label": label}),
            json!({"feedback": [{"query_id": answer["query_id"], "label": label}]}),
        ];
        for body in about {
            let (status, text) = update(&server, &body);
            assert!(status == 400 && text.contains("label: it must be a number"), "{body}: {text}");
        }
    }
    assert_eq!(state(&server, 0), before);
}

#[test]
fn what_was_learned_is_there_after_a_restart() {
    let mut server = server("name = \"exp4\"", &["0", "1"]);
    for n in 0..20 {
        let answer = predict(&server, &json!({"uid": n % 3, "input": [n]}));
        assert_eq!(update(&server, &json!({"query_id": answer["query_id"], "loss": 1})).0, 200);
    }
    let before: Vec<Value> = (0..3).map(|uid| state(&server, uid)).collect();
    assert_eq!(before[0]["epochs"]["0"]["n"], 20);
    server.terminate();
    server = server.restart();
    assert_eq!((0..3).map(|uid| state(&server, uid)).collect::<Vec<_>>(), before);
    // It leaves with its application.
    server.manage("delete_app", &json!({"name": "a"}));
    server.add_app("a", "doubles", "-1", 20_000_000);
    server.manage("set_policy", &json!({"app_name": "a", "policy": "exp4"}));
    eventually("it is forgotten", || state(&server, 0)["epochs"] == json!({}));
}

/// A list of feedback about these answers: all of them were wrong.
fn all_wrong(server: &Server, ids: &[Value]) {
    let items: Vec<Value> = ids.iter().map(|id| json!({"query_id": id, "label": 0})).collect();
    let (status, said) = told(server, &items);
    assert_eq!((status, &said["learned"]), (200, &json!(ids.len())), "{said}");
}

fn saved(server: &Server) -> f64 {
    server.sample("clipper_policy_states_saved_total")
}

/// On the disk it lies in pieces of 4 KiB.
#[test]
fn a_state_in_pieces_is_there_after_kill_9() {
    let mut server = server("name = \"exp4\"\nwindow = 8", &["1"; 12]);
    let ask = |n: u32| predict(&server, &json!({"input": [n]}))["query_id"].clone();
    let ids: Vec<Value> = (0..8).map(ask).collect();
    all_wrong(&server, &ids);
    let before = state(&server, 0);
    assert!(before.to_string().len() > 4_096, "{before}");
    eventually("it is on the disk", || saved(&server) > 0.5);
    server.kill();
    server = server.restart();
    assert_eq!(state(&server, 0), before);
}

#[test]
fn users_beyond_the_bound_lose_nothing_by_kill_9() {
    const USERS: i64 = 40;
    let bounded = "name = \"exp4\"\n[serving]\npolicy_users_max = 5\n\
                   [journal]\npolicy_state_flush_ms = 20\n";
    let mut server = server(bounded, &["0", "1"]);
    let both = |uid: i64| {
        let body = json!({"uid": uid, "input_batch": [[uid], [uid + USERS]]});
        let answers = predict(&server, &body)["batch_predictions"].clone();
        [0, 1].map(|n| answers[n]["query_id"].clone())
    };
    let ids: Vec<Value> = (1..=USERS).flat_map(both).collect();
    all_wrong(&server, &ids);
    eventually("they are on the disk", || saved(&server) > 40.5);
    eventually("five have room", || server.sample("clipper_policy_users") < 6.5);
    assert!(server.sample("clipper_policy_users_evicted_total") > 34.5);
    for killed in [false, true] {
        for uid in 1..=USERS {
            // Also who has left memory, whose predictions go by everybody's until they are back.
            assert_eq!(state(&server, uid)["epochs"]["0"]["n"], 2, "user {uid}");
        }
        // Who never gave any goes by everybody's.
        assert_eq!(state(&server, 999)["epochs"]["0"]["n"], 2 * USERS);
        assert_eq!(state(&server, 0)["epochs"]["0"]["n"], 2 * USERS);
        if !killed {
            server.kill();
            server = server.restart();
        }
    }
}

fn told(server: &Server, items: &[Value]) -> (u16, Value) {
    let (status, text) = update(server, &json!({"feedback": items}));
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

#[test]
fn of_a_list_of_feedback_each_is_judged_by_itself() {
    let server = server("name = \"majority\"\noutput = \"label\"", &["0", "1"]);
    let id = |uid: i64| predict(&server, &json!({"uid": uid, "input": [1.0]}))["query_id"].clone();
    let (first, second) = (id(3), id(0));
    let items = [
        json!({"query_id": first, "label": 0}),
        json!({"query_id": first, "label": 0}),
        json!({"query_id": 1_000_000, "label": 0}),
        json!({"query_id": second, "label": [7]}),
        json!({"label": 0}),
        json!(7),
        json!({"query_id": second, "loss": 0.5}),
    ];
    let (status, said) = told(&server, &items);
    assert_eq!(status, 200, "{said}");
    let counts = ["taken", "learned", "late", "double", "unknown"].map(|key| said[key].clone());
    assert_eq!(counts, [4, 2, 0, 1, 1].map(|n| json!(n)), "{said}");
    let refused = said["refused"].as_array().unwrap();
    let refused: Vec<_> = refused.iter().map(|it| (&it["index"], it["cause"].as_str())).collect();
    assert_eq!(refused.iter().map(|it| it.0.clone()).collect::<Vec<_>>(), [3, 4, 5]);
    let causes = ["label", "key: uid", "an object"];
    for ((_, cause), expected) in refused.iter().zip(causes) {
        assert!(cause.unwrap().contains(expected), "{refused:?}");
    }
    assert_eq!((judged(&state(&server, 3), "m0"), judged(&state(&server, 0), "m0")), (1, 2));
    // Nothing of it taken; and no list at all.
    let (status, said) = told(&server, &[json!({"query_id": first})]);
    assert_eq!((status, &said["taken"]), (400, &json!(0)), "{said}");
    let (status, text) = update(&server, &json!({"feedback": 7}));
    assert!(status == 400 && text.contains("feedback: it must be a list"), "{text}");
    let many = vec![json!(7); 10_001];
    let (status, text) = update(&server, &json!({"feedback": many}));
    assert!(status == 413 && text.contains("serving.request_inputs_max"), "{status} {text}");
}

#[test]
fn feedback_about_an_input_that_nobody_remembers_asks_the_models() {
    let server = server("name = \"majority\"", &["0", "1"]);
    let told = update(&server, &json!({"uid": 9, "input": [42.0], "label": 1}));
    assert_eq!(told, (200, "Feedback received? 1".to_owned()));
    let state = state(&server, 9);
    assert_eq!((judged(&state, "m0"), judged(&state, "m1")), (1, 1));
}
