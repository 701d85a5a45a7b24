//! The recorded admin requests leave the tables in the original's form.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::redis::golden_setup::{BEFORE, Step};
use crate::redis::harness::{Clipper, Http, Redis, until_true};

/// What the original answered otherwise on purpose or by fault, with our status.
const OTHERWISE: &[(&str, u16)] = &[
    ("add_app odd chars in name", 400),
    ("add_model missing batch_size", 200),
    ("update label int", 200),
];

#[derive(Deserialize)]
struct Exchange {
    name: String,
    method: String,
    port: u16,
    path: String,
    request_body: Option<String>,
    status: Option<u16>,
}

/// The tables by number and key, as the protocol describes them.
#[derive(Default)]
struct Expected(BTreeMap<(i64, String), Row>);

enum Row {
    Hash(Vec<String>),
    Text(String),
    Set(BTreeSet<String>),
}

fn text(body: &Value, name: &str) -> String {
    match &body[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn texts(body: &Value, name: &str) -> Vec<String> {
    body[name].as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect()
}

/// The long form of an input type.
fn long(spelling: &str) -> String {
    let lower = spelling.to_lowercase();
    let forms = ["bytes", "integers", "floats", "doubles", "strings"];
    forms.iter().find(|form| form.starts_with(&lower[..1])).unwrap().to_string()
}

fn hash(fields: &[(&str, String)]) -> Row {
    Row::Hash(fields.iter().flat_map(|(name, value)| [name.to_string(), value.clone()]).collect())
}

impl Expected {
    /// What an acknowledged request does to the tables.
    fn follow(&mut self, path: &str, body: &str) {
        let Ok(body) = serde_json::from_str::<Value>(body) else { return };
        let t = |name: &str| text(&body, name);
        match path.trim_end_matches('/').rsplit('/').next().unwrap() {
            "add_app" => {
                let row = hash(&[
                    ("input_type", long(&t("input_type"))),
                    ("policy", "DefaultOutputSelectionPolicy".to_owned()),
                    ("default_output", t("default_output")),
                    ("latency_slo_micros", t("latency_slo_micros")),
                ]);
                self.0.insert((5, t("name")), row);
                self.learn(&t("name"), "0");
            }
            // The original leaves the links, which a new application of that name would inherit.
            "delete_app" => {
                let (name, users) = (t("name"), format!("{}:", t("name")));
                self.0.retain(|(table, key), _| match table {
                    5 | 7 => *key != name,
                    1 => !key.starts_with(&users),
                    _ => true,
                });
            }
            "update" => self.learn(path.split('/').nth(1).unwrap(), &t("uid")),
            "add_model" => self.add_model(&body),
            "set_model_version" => self.select(&t("model_name"), t("model_version")),
            "delete_versioned_model" => {
                self.0.remove(&(2, format!("{}:{}", t("model_name"), t("model_version"))));
            }
            "add_model_links" => {
                let key = (7, t("app_name"));
                let row = self.0.entry(key).or_insert_with(|| Row::Set(BTreeSet::new()));
                if let Row::Set(set) = row {
                    set.extend(texts(&body, "model_names"));
                }
            }
            "delete_model_links" => self.unlink(t("app_name"), &texts(&body, "model_names")),
            _ => {}
        }
    }

    fn add_model(&mut self, body: &Value) {
        let t = |name: &str| text(body, name);
        let row = hash(&[
            ("model_name", t("model_name")),
            ("model_version", t("model_version")),
            ("load", "0.000000".to_owned()),
            ("input_type", long(&t("input_type"))),
            ("labels", texts(body, "labels").join(",")),
            ("container_name", t("container_name")),
            ("model_data_path", t("model_data_path")),
            ("batch_size", body.get("batch_size").map_or("-1".to_owned(), ToString::to_string)),
            ("valid", String::new()),
        ]);
        self.0.insert((2, format!("{}:{}", t("model_name"), t("model_version"))), row);
        self.select(&t("model_name"), t("model_version"));
    }

    /// The default policy's state of a user; it stays as it was first.
    fn learn(&mut self, app: &str, uid: &str) {
        let Some(Row::Hash(fields)) = self.0.get(&(5, app.to_owned())) else { return };
        let state = format!(r#"{{"y_hat":{}}}"#, Value::from(fields[5].clone()));
        self.0.entry((1, format!("{app}:{uid}:0"))).or_insert(Row::Text(state));
    }

    fn select(&mut self, model: &str, version: String) {
        self.0.insert((6, format!("CURRENT_MODEL_VERSION:{model}")), Row::Text(version));
    }

    fn unlink(&mut self, app: String, models: &[String]) {
        let key = (7, app);
        let Some(Row::Set(set)) = self.0.get_mut(&key) else { return };
        set.retain(|model| !models.contains(model));
        if set.is_empty() {
            self.0.remove(&key);
        }
    }

    /// In the form of [`Redis::dump`].
    fn dump(&self, table: i64) -> Vec<String> {
        let rows = self.0.iter().filter(|((number, _), _)| *number == table);
        rows.map(|((_, key), row)| match row {
            Row::Hash(values) => format!("{key} hash {values:?}"),
            Row::Text(value) => format!("{key} string {:?}", [value]),
            Row::Set(members) => {
                format!("{key} set {:?}", members.iter().collect::<Vec<_>>())
            }
        })
        .collect()
    }
}

#[test]
fn the_recorded_requests_leave_the_originals_tables() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let clipper = Clipper::start(&redis.url(), dir.path(), &[]);
    let mut expected = Expected::default();
    let (mut compared, mut learnt) = (0, false);
    for line in include_str!("../e2e/golden/exchanges.jsonl").lines() {
        let exchange: Exchange = serde_json::from_str(line).unwrap();
        let steps = BEFORE.iter().filter(|(name, _)| *name == exchange.name);
        for step in steps.flat_map(|(_, steps)| *steps) {
            if let Step::Post { path, body } = step {
                let (status, answer) = Http::open(clipper.management).call("POST", path, body);
                assert_eq!(status, 200, "{path} {body}: {answer}");
                expected.follow(path, body);
            }
        }
        let update = exchange.path.trim_end_matches('/').ends_with("/update");
        if exchange.port != 1338 && !update {
            continue;
        }
        let body = exchange.request_body.as_deref().unwrap_or_default();
        let port = if update { clipper.query } else { clipper.management };
        let (status, answer) = Http::open(port).call(&exchange.method, &exchange.path, body);
        let otherwise = OTHERWISE.iter().find(|(name, _)| *name == exchange.name);
        if let Some(wanted) = otherwise.map(|o| o.1).or(exchange.status) {
            assert_eq!(status, wanted, "{}: {answer}", exchange.name);
        }
        if status == 200 {
            expected.follow(&exchange.path, body);
        }
        // What a query leaves there is told to others a moment later.
        until_true("the learnt state", || redis.dump(1) == expected.dump(1));
        learnt |= !redis.dump(1).is_empty();
        for table in [2, 3, 5, 6, 7] {
            let dump = redis.dump(table);
            assert_eq!(dump, expected.dump(table), "table {table} after {}", exchange.name);
        }
        compared += 1;
    }
    assert!(compared > 80, "{compared}");
    assert!(learnt, "some update leaves state");
    let reserved = redis.dump(4);
    assert!(reserved.iter().all(|line| line.starts_with("clipper:")), "{reserved:?}");
    println!("{compared} requests, tables compared after each");
}
