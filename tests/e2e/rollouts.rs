//! Rollouts with real containers: a good version is promoted, each kind of a bad one is rolled back
//! with the evidence.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use serde_json::{Value, json};

use crate::e2e::admin_cli::{clipper, text};
use crate::e2e::support::container::Container;
use crate::e2e::support::eventually;
use crate::e2e::support::http::Client;
use crate::e2e::support::server::Server;
use crate::e2e::top::top;

/// Guards are looked at often.
const CONFIG: &str = "[rollouts]\nlook_interval_ms = 20\n";

/// Application `a`, its model `m` in version 1, and version 2 waiting.
struct Setting {
    server: Server,
    _old: Container,
    new: Container,
    /// Inputs so far: none is answered from the cache.
    next: AtomicU64,
}

fn setting(slo_us: u64, policy: Option<Value>, old: &[&str], new: &[&str]) -> Setting {
    let server = Server::with_config(CONFIG);
    server.add_app("a", "doubles", "-1", slo_us);
    server.add_model("m", "1", "doubles");
    if let Some(policy) = policy {
        server.manage("set_policy", &policy);
    }
    server.link("a", "m");
    let of = |version: &str, options: &[&str]| {
        let options =
            [&["--version", version, "--extensions", "1", "--quiet", "--idle-ms", "200"], options]
                .concat();
        let before = server.containers().len();
        let container = Container::spawn(&server, "m", &options);
        eventually("the container serves", || server.containers().len() > before);
        container
    };
    let old = of("1", old);
    server.manage(
        "add_model",
        &json!({"model_name": "m", "model_version": "2", "input_type": "doubles", "labels": [],
                "container_name": "test", "model_data_path": "", "batch_size": -1,
                "make_current": false}),
    );
    let new = of("2", new);
    let setting = Setting { server, _old: old, new, next: AtomicU64::new(0) };
    eventually("both versions serve", || {
        let replicas = |version: &str| {
            let name = format!("clipper_replicas{{model=\"m\",version=\"{version}\"}}");
            setting.server.sample(&name)
        };
        replicas("1") > 0.0 && replicas("2") > 0.0
    });
    setting
}

impl Setting {
    fn start(&self, kind: &str, steps: Value, guards: &[&str]) {
        let mut body = json!({"app_name": "a", "from": "m:1", "to": "m:2", "kind": kind,
            "hold_ms": 100, "guards": guards, "min_queries": 40});
        body["steps"] = steps;
        self.server.manage("start_rollout", &body);
    }

    fn rollout(&self) -> Value {
        let text = self.server.manage("get_rollout", &json!({"app_name": "a"}));
        serde_json::from_str(&text).unwrap()
    }

    /// An input: a place from 0 to 999, each as often, and a number of its own.
    fn input(&self) -> Value {
        let n = self.next.fetch_add(1, Relaxed);
        json!([(n * 617) % 1_000, n])
    }

    /// One query; its answer is 200.
    fn query(&self, client: &mut Client, uid: i64) -> Value {
        let body = json!({"uid": uid, "input": self.input()});
        let answer = client.post("/a/predict", body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Queries from several clients until the rollout has ended; each answer is shown to `see`.
    fn drive(&self, see: impl Fn(&mut Client, &Value) + Sync) -> Value {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut client = Client::new(self.server.query);
                    while !ended.load(Relaxed) {
                        let answer = self.query(&mut client, 0);
                        see(&mut client, &answer);
                    }
                });
            }
            let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                eventually("the rollout ends", || self.rollout()["state"] != "running");
            }));
            ended.store(true, Relaxed);
            if let Err(panic) = end {
                println!("{}", self.rollout());
                std::panic::resume_unwind(panic);
            }
        });
        self.rollout()
    }

    fn current(&self) -> String {
        let body = json!({"model_name": "m", "model_version": "2"});
        let model: Value = serde_json::from_str(&self.server.manage("get_model", &body)).unwrap();
        if model["is_current_version"] == true { "2" } else { "1" }.to_owned()
    }

    /// It was rolled back because of `guard`, and the old version answers everything.
    fn is_back(&self, rollout: &Value, guard: &str, old: &Value) {
        assert_eq!(rollout["state"], "rolled_back", "{rollout}");
        let evidence = &rollout["end"]["evidence"];
        assert_eq!(evidence["guard"], guard, "{rollout}");
        let number = |name: &str| evidence[name].as_u64().unwrap();
        assert!(number("value_millionths") > number("bound_millionths"), "{rollout}");
        assert!(number("seen") > 0 && number("exposed") > 0, "{rollout}");
        assert!(rollout["why"].as_str().unwrap().starts_with(guard), "{rollout}");
        let sample = |name: &str| self.server.sample(&format!("{name}{{app=\"a\"}}"));
        eventually("the rollback is counted", || {
            sample("clipper_rollout_rolled_back_total") > 0.5
                && sample("clipper_rollout_step") < 0.5
        });
        assert!(sample("clipper_rollout_exposed_total") > 0.0);
        self.server.says("a rollout was rolled back");
        assert_eq!(self.current(), "1");
        let mut client = Client::new(self.server.query);
        for _ in 0..20 {
            assert_eq!(self.query(&mut client, 0)["output"], *old);
        }
    }
}

const LONG_US: u64 = 20_000_000;

#[test]
fn a_good_version_is_promoted_step_by_step_and_no_query_fails() {
    let setting = setting(LONG_US, None, &["--output", "1"], &["--output", "1.0"]);
    let guards = ["errors<1%", "p99<slo", "disagreement<2%"];
    setting.start("canary", json!([5, 25, 100]), &guards);
    let rollout = setting.drive(|_, answer| assert_eq!(answer["default"], false, "{answer}"));
    assert_eq!((&rollout["state"], &rollout["step"]), (&json!("promoted"), &json!(3)));
    assert!(rollout["exposed"].as_u64().unwrap() >= 120, "{rollout}");
    for guard in rollout["guards"].as_array().unwrap() {
        assert!(guard["seen"].as_u64().unwrap() >= 120, "{rollout}");
    }
    assert_eq!(setting.current(), "2");
    // What happened is there after a restart too.
    let server = setting.server.restart();
    let text = server.manage("get_rollout", &json!({"app_name": "a"}));
    let after: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(after["state"], "promoted");
}

#[test]
fn a_server_that_is_killed_goes_on_with_the_step_that_it_was_at() {
    let mut setting = setting(LONG_US, None, &["--output", "1"], &["--output", "1"]);
    setting.start("canary", json!([20, 60, 100]), &["errors<1%", "disagreement<2%"]);
    let mut client = Client::new(setting.server.query);
    for step in 1..=3 {
        eventually("the step is reached", || {
            let answer = setting.query(&mut client, 0);
            assert_eq!(answer["default"], false, "{answer}");
            let rollout = setting.rollout();
            assert_eq!(rollout["state"], "running", "{rollout}");
            rollout["step"] == step
        });
        setting.server = setting.server.restart();
        client = Client::new(setting.server.query);
        assert_eq!(setting.rollout()["step"], step);
        eventually("both versions are back", || setting.server.containers().len() == 2);
    }
    eventually("it is promoted", || {
        setting.query(&mut client, 0);
        setting.rollout()["state"] == "promoted"
    });
}

#[test]
fn a_version_with_errors_is_rolled_back() {
    // Three in ten.
    let new = ["--output", "1", "--error-from", "700"];
    let setting = setting(LONG_US, None, &["--output", "1"], &new);
    setting.start("canary", json!([10, 50, 100]), &["errors<1%", "p99<slo"]);
    let rollout = setting.drive(|_, _| {});
    setting.is_back(&rollout, "errors<1%", &json!(1));
}

#[test]
fn a_version_that_is_too_slow_is_rolled_back() {
    // A tenth takes one and a half times the objective.
    let new = ["--output", "1", "--slow-ms", "1500", "--slow-from", "900"];
    let setting = setting(1_000_000, None, &["--output", "1"], &new);
    setting.start("canary", json!([10, 50, 100]), &["errors<5%", "p99<slo"]);
    let rollout = setting.drive(|_, _| {});
    setting.is_back(&rollout, "p99<slo", &json!(1));
}

#[test]
fn a_version_that_answers_otherwise_is_rolled_back() {
    let new = ["--output", "1", "--other-from", "800"];
    let setting = setting(LONG_US, None, &["--output", "1"], &new);
    setting.start("canary", json!([10, 50, 100]), &["errors<1%", "disagreement<2%"]);
    let rollout = setting.drive(|_, _| {});
    setting.is_back(&rollout, "disagreement<2%", &json!(1));
}

#[test]
fn a_version_with_more_loss_is_rolled_back() {
    // Right is 1: the old version errs in a tenth, the new one in 19 of 20: that shows before the
    // first step's `min_queries`, however quickly queries come.
    let policy = json!({"app_name": "a", "policy": "fixed", "parameters": {"model": "m"}});
    let setting = setting(
        LONG_US,
        Some(policy),
        &["--output", "1", "--other-from", "900"],
        &["--output", "1", "--other-from", "50"],
    );
    setting.start("canary", json!([20, 50, 90]), &["loss<=baseline"]);
    let rollout = setting.drive(|client, answer| {
        let told = json!({"query_id": answer["query_id"], "label": 1});
        let answer = client.post("/a/update", told.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    });
    assert_eq!(rollout["state"], "rolled_back", "{rollout}");
    assert_eq!(rollout["end"]["evidence"]["guard"], "loss<=baseline", "{rollout}");
    let guard = &rollout["guards"][0];
    assert!(guard["value"].as_f64() > guard["bound"].as_f64(), "{rollout}");
    assert_eq!(setting.current(), "1");
}

#[test]
fn a_shadow_answers_nobody_and_passes_or_not() {
    let new = ["--output", "1", "--other-from", "500"];
    let setting = setting(LONG_US, None, &["--output", "1"], &new);
    setting.start("shadow", json!([50, 100]), &["errors<1%", "p99<slo"]);
    let only_old = |_: &mut Client, answer: &Value| assert_eq!(answer["output"], 1, "{answer}");
    let rollout = setting.drive(only_old);
    assert_eq!(rollout["state"], "passed", "{rollout}");
    assert_eq!(setting.current(), "1");
    setting.start("shadow", json!([100]), &["disagreement<2%"]);
    let rollout = setting.drive(only_old);
    setting.is_back(&rollout, "disagreement<2%", &json!(1));
}

#[test]
fn no_copy_is_made_of_what_the_policy_does_not_ask() {
    let fixed =
        |model: &str| json!({"app_name": "a", "policy": "fixed", "parameters": {"model": model}});
    let setting = setting(LONG_US, Some(fixed("n")), &["--output", "1"], &["--output", "1"]);
    setting.server.add_model("n", "1", "doubles");
    setting.server.link("a", "n");
    let _n = Container::spawn(&setting.server, "n", &["--version", "1", "--output", "3"]);
    eventually("the other model serves", || setting.server.replicas("n") > 0.0);
    setting.start("shadow", json!([100]), &["errors<1%"]);
    let mut client = Client::new(setting.server.query);
    for _ in 0..50 {
        assert_eq!(setting.query(&mut client, 0)["output"], 3);
    }
    let asked = |version: &str| {
        let name = "clipper_model_batch_size_sum";
        setting.server.sample(&format!("{name}{{model=\"m\",version=\"{version}\"}}"))
    };
    assert!(asked("1") < 0.5 && asked("2") < 0.5, "{} {}", asked("1"), asked("2"));
    assert_eq!(setting.rollout()["exposed"], 0);
    setting.server.manage("set_policy", &fixed("m"));
    eventually("its own model is copied", || {
        assert_eq!(setting.query(&mut client, 0)["output"], 1);
        asked("2") > 0.5
    });
}

#[test]
fn users_stay_with_their_version_until_an_operator_ends_the_comparison() {
    let setting = setting(LONG_US, None, &["--output", "1"], &["--output", "2"]);
    setting.start("ab", json!([50]), &["errors<1%"]);
    let mut client = Client::new(setting.server.query);
    let mut all = || -> Vec<Value> {
        (1..40).map(|uid| setting.query(&mut client, uid)["output"].clone()).collect()
    };
    let first = all();
    assert!(first.contains(&json!(1)) && first.contains(&json!(2)), "{first:?}");
    for _ in 0..3 {
        assert_eq!(all(), first);
    }
    eventually("nothing but an operator is waited for", || {
        let waits = setting.rollout()["waits_for"].as_str().unwrap_or_default().to_owned();
        waits == "an operator, to promote or abort it" || {
            all();
            false
        }
    });
    assert_eq!(setting.rollout()["state"], "running");
    setting.server.manage("abort_rollout", &json!({"app_name": "a", "reason": "enough"}));
    let rollout = setting.rollout();
    assert_eq!((&rollout["state"], &rollout["why"]), (&json!("aborted"), &json!("enough")));
    assert!(all().iter().all(|output| *output == 1));
}

#[test]
fn a_version_without_replicas_gets_no_query_and_a_change_by_hand_ends_the_rollout() {
    let mut setting = setting(LONG_US, None, &["--output", "1"], &["--output", "2"]);
    setting.start("canary", json!([100]), &["errors<1%"]);
    setting.new.kill();
    eventually("its replica is gone", || setting.server.containers().len() == 1);
    let mut client = Client::new(setting.server.query);
    for _ in 0..20 {
        let answer = setting.query(&mut client, 0);
        assert!(answer["default"] == false && answer["output"] == 1, "{answer}");
    }
    assert_eq!(setting.rollout()["state"], "running");
    let other = json!({"model_name": "m", "model_version": "2"});
    setting.server.manage("set_model_version", &other);
    eventually("the rollout has ended", || setting.rollout()["state"] == "aborted");
    let why = setting.rollout()["why"].as_str().unwrap().to_owned();
    assert!(why.contains("version 2 of the model was made the current one"), "{why}");
}

#[test]
fn a_rollout_is_seen_with_the_application_and_in_top() {
    let setting = setting(LONG_US, None, &["--output", "1"], &["--output", "1"]);
    setting.start("canary", json!([50, 100]), &["errors<1%"]);
    let mut client = Client::new(setting.server.query);
    // Fewer than each step has to see.
    for _ in 0..20 {
        setting.query(&mut client, 0);
    }
    let seen = |endpoint: &str, body: Value| -> Value {
        serde_json::from_str(&setting.server.manage(endpoint, &body)).unwrap()
    };
    let rollout = || seen("get_application", json!({"name": "a"}))["rollout"].clone();
    eventually("the guard has looked", || rollout()["guards"][0]["seen"].as_u64() > Some(0));
    let shown = rollout();
    let parts = ["kind", "from", "to", "state", "step"].map(|part| shown[part].clone());
    let expected = [json!("canary"), json!("m:1"), json!("m:2"), json!("running"), json!(1)];
    assert_eq!(parts, expected, "{shown}");
    eventually("both say the same", || rollout() == setting.rollout());
    let all = seen("get_all_applications", json!({"verbose": true}));
    assert_eq!(all[0]["rollout"]["id"], shown["id"]);
    let look = |option: &str| {
        let output = top(&setting.server, &[option, "--interval", "0.2"]);
        String::from_utf8(output.stdout).unwrap()
    };
    let view: Value = serde_json::from_str(&look("--json")).unwrap();
    let guard = &view["applications"][0]["rollout"]["guards"][0];
    assert_eq!((&guard["guard"], &guard["alarm"]), (&json!("errors<1%"), &json!(0.0)), "{view}");
    let table = look("--once");
    let lines: Vec<&str> = table.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("ROLLOUT")).expect(&table);
    for part in ["canary", "m:1", "m:2", "running", "1/2", "50%", "errors<1% (0 % of "] {
        assert!(lines[at + 1].contains(part), "{part}: {table}");
    }
    assert!(setting.server.sample("clipper_rollout_alarm{app=\"a\"}") < 1.0);
    setting.server.manage("abort_rollout", &json!({"app_name": "a", "reason": "seen"}));
    assert_eq!((&rollout()["state"], &rollout()["why"]), (&json!("aborted"), &json!("seen")));
    assert!(!look("--once").contains("ROLLOUT"));
}

#[test]
fn what_is_wrong_with_a_rollout_is_named_and_changes_nothing() {
    let server = Server::start();
    server.add_app("a", "doubles", "-1", 20_000_000);
    for version in ["2", "1"] {
        server.add_model("m", version, "doubles");
    }
    server.link("a", "m");
    let with = |field: &str, value: Value| {
        let mut body = json!({"app_name": "a", "from": "m:1", "to": "m:2"});
        body[field] = value;
        body
    };
    let cases = [
        (with("from", json!("m")), "from: expected NAME:VERSION"),
        (with("from", json!("m:2")), "to: it is the same version as from"),
        (with("to", json!("m:9")), "to: model m:9 is not registered"),
        (with("to", json!("n:2")), "to: n:2 is not another version of the model"),
        (with("to", json!(2)), "key to expected type String"),
        (with("kind", json!("big")), "kind: expected shadow, canary or ab, not 'big'"),
        (with("steps", json!([5, 1])), "steps: expected 1 to 32 percentages"),
        (with("steps", json!([0])), "steps: expected a list of percentages: expected a percentage"),
        (with("hold_ms", json!(-1)), "hold_ms: expected a whole number of milliseconds"),
        (with("guards", json!(["errors<x"])), "guards: errors: expected a percentage"),
        (with("guards", json!(["p99<30s"])), "guards: p99<30000ms is above the application's"),
        (with("guards", json!(["loss<=baseline"])), "guards: loss<=baseline needs feedback"),
        (with("min_queries", json!(0)), "min_queries: expected 1 to"),
        (with("app_name", json!("b")), "Application 'b' does not exist"),
    ];
    for (body, expected) in cases {
        let answer = server.admin("start_rollout", &body);
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        assert!(answer.text().contains(expected), "{body}: {}", answer.text());
    }
    for verb in ["promote_rollout", "abort_rollout"] {
        let answer = server.admin(verb, &json!({"app_name": "a"}));
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("No rollout is running"), "{}", answer.text());
    }
    assert_eq!(server.manage("get_rollout", &json!({"app_name": "a"})), "{}");
}

const PAGE: &str = "docs/rollouts.md";

/// The commands of a block of the page, continued lines joined.
fn commands(heading: &str) -> Vec<String> {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (_, rest) = page.split_once(heading).unwrap();
    let block = rest.split("```").nth(1).unwrap().trim_start_matches("sh\n");
    let joined = block.replace("\\\n", " ");
    joined.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_pages_commands_do_what_it_says() {
    let server = Server::start();
    server.add_app("digits", "doubles", "-1", 20_000_000);
    for version in ["2", "1"] {
        server.add_model("digits-model", version, "doubles");
    }
    server.link("digits", "digits-model");
    let url = format!("http://{}", server.management);
    let mut printed = String::new();
    for line in commands("## An example") {
        let words: Vec<String> = line.split_whitespace().map(|w| w.replace('\'', "")).collect();
        let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
        let output = clipper(&url, &words);
        printed = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{line}: {}", text(&output.stderr));
    }
    let status: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(status["state"], "promoted", "{status}");
    let output = clipper(&url, &["rollout", "abort", "digits"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("No rollout is running"));
    let output = clipper(&url, &["rollout", "status", "digts"]);
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("digts"));
    let wrong = ["rollout", "start", "a", "--from", "m:1", "--to", "m:2", "--guard", "x<1%"];
    let output = clipper(&url, &wrong);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("'x' cannot be guarded"));
}
