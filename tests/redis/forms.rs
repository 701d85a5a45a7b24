//! The tables have the original's form, whoever wrote them.

use serde_json::json;

use crate::redis::harness::{Clipper, Redis, until_true};

/// As `redis.cpp` of the original writes an application, a model, its version and a link.
const DUMP: &[(i64, &str)] = &[
    (
        5,
        "HMSET digits input_type doubles policy DefaultOutputSelectionPolicy default_output -1 \
         latency_slo_micros 5000000",
    ),
    (
        2,
        "HMSET net:1 model_name net model_version 1 load 0.000000 input_type doubles labels a,b \
         container_name img:1 model_data_path /m batch_size -1 valid ''",
    ),
    (
        2,
        "HMSET net:2 model_name net model_version 2 load 0.000000 input_type doubles labels '' \
         container_name img:2 model_data_path /m batch_size 4 valid ''",
    ),
    (6, "SET CURRENT_MODEL_VERSION:net 1"),
    (7, "SADD digits net"),
];

pub fn write_dump(redis: &Redis) {
    for (db, line) in DUMP {
        redis.db(*db).tell(line);
    }
}

#[test]
fn commands_leave_the_originals_form() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let clipper = Clipper::start(&redis.url(), dir.path(), &[]);
    let model = |version: &str, labels: &[&str], container: &str, batch: i32| {
        json!({"model_name": "net", "model_version": version, "input_type": "d",
            "labels": labels, "container_name": container, "model_data_path": "/m",
            "batch_size": batch})
    };
    clipper.done(
        "add_app",
        &json!({"name": "digits", "input_type": "Double", "default_output": "-1",
            "latency_slo_micros": 5_000_000}),
    );
    clipper.done("add_model", &model("2", &[], "img:2", 4));
    clipper.done("add_model", &model("1", &["a", "b"], "img:1", -1));
    clipper.done("add_model_links", &json!({"app_name": "digits", "model_names": ["net"]}));

    let by_hand = Redis::start();
    write_dump(&by_hand);
    // Fields too are in the original's order: HGETALL of a small hash keeps it.
    assert_eq!(redis.catalog(), by_hand.catalog());

    let _replica = clipper.container("net", "1", "7");
    until_true("the replica's row", || !redis.dump(3).is_empty());
    let rows = redis.dump(3);
    let expected = "net,1,0 hash [\"model_id\", \"net:1\", \"model_name\", \"net\", \
        \"model_version\", \"1\", \"model_replica_id\", \"0\", \"zmq_connection_id\", \"0\", \
        \"batch_size\", \"1\", \"input_type\", \"doubles\", \"frontend\", ";
    assert!(rows[0].starts_with(expected), "{rows:?}");

    clipper.done("set_model_version", &json!({"model_name": "net", "model_version": "2"}));
    clipper.done("delete_versioned_model", &json!({"model_name": "net", "model_version": "1"}));
    until_true("the replica's row is gone", || redis.dump(3).is_empty());
    clipper.done("delete_model_links", &json!({"app_name": "digits", "model_names": ["net"]}));
    clipper.done("delete_app", &json!({"name": "digits"}));
    by_hand.db(2).tell("DEL net:1");
    by_hand.db(5).tell("DEL digits");
    by_hand.db(6).tell("SET CURRENT_MODEL_VERSION:net 2");
    by_hand.db(7).tell("DEL digits");
    assert_eq!(redis.catalog(), by_hand.catalog());
    clipper.stop();
}

#[test]
fn what_the_original_does_not_know_of_an_application_is_one_more_field() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let clipper = Clipper::start(&redis.url(), dir.path(), &[]);
    let app = json!({"name": "strict", "input_type": "doubles", "default_output": "-1",
        "latency_slo_micros": 5_000_000, "on_model_error": "error"});
    clipper.done("add_app", &app);
    let by_hand = Redis::start();
    by_hand.db(5).tell(
        "HMSET strict input_type doubles policy DefaultOutputSelectionPolicy default_output -1 \
         latency_slo_micros 5000000 on_model_error error",
    );
    assert_eq!(redis.catalog(), by_hand.catalog());

    // Another frontend takes it over, and a change by hand is followed.
    let other_dir = tempfile::tempdir().unwrap();
    let other = Clipper::start(&redis.url(), other_dir.path(), &[]);
    let shown = |clipper: &Clipper| clipper.catalog()[0][0].clone();
    until_true("it is known", || shown(&other)["on_model_error"] == "error");
    redis.db(5).tell("HDEL strict on_model_error");
    for clipper in [&clipper, &other] {
        until_true("it is followed", || shown(clipper).get("on_model_error").is_none());
        assert_eq!(shown(clipper)["latency_slo_micros"], 5_000_000);
    }
    clipper.stop();
    other.stop();
}

#[test]
fn a_dump_of_the_original_is_served_unchanged() {
    let redis = Redis::start();
    write_dump(&redis);
    redis.db(1).tell(r#"SET digits:7:0 {"y_hat":"0.5"}"#);
    redis.db(3).tell(
        "HMSET net,2,4 model_id net:2 model_name net model_version 2 model_replica_id 4 \
         zmq_connection_id 3 batch_size 1 input_type doubles",
    );
    let tables = [1, 2, 5, 6, 7].map(|table| redis.dump(table));
    let row = redis.dump(3);
    let dir = tempfile::tempdir().unwrap();
    let clipper = Clipper::start(&redis.url(), dir.path(), &[]);
    let _replica = clipper.container("net", "1", "7");
    until_true("a prediction", || clipper.predict("digits").1["output"] == 7);
    let [apps, models] = clipper.catalog();
    assert_eq!(
        apps,
        json!([{"input_type": "doubles", "default_output": "-1", "latency_slo_micros": 5_000_000,
            "name": "digits", "linked_models": ["net"]}])
    );
    let current = |n: usize| models[n]["is_current_version"].as_bool();
    assert_eq!((current(0), current(1)), (Some(true), Some(false)), "{models}");
    assert_eq!(models[1]["labels"], json!([]));
    let state = clipper.done("get_state", &json!({"app_name": "digits", "uid": 7}));
    assert_eq!(state, "0.5");
    let replicas = clipper.done("get_all_containers", &json!({"verbose": false}));
    let replicas: Vec<String> = serde_json::from_str(&replicas).unwrap();
    assert_eq!(replicas.len(), 2, "{replicas:?}");
    assert!(replicas.contains(&"net:2:4".to_owned()), "{replicas:?}");
    assert_eq!([1, 2, 5, 6, 7].map(|table| redis.dump(table)), tables);
    until_true("the row of the replica", || redis.dump(3).len() == 2);
    assert!(redis.dump(3).contains(&row[0]), "{:?}", redis.dump(3));
    assert!(redis.dump(4).iter().all(|line| line.starts_with("clipper:")));
}

#[test]
fn tables_may_be_counted_from_another_database_and_reached_by_a_unix_socket() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let url = format!("redis+unix://{}?db=8", redis.socket().display());
    let clipper = Clipper::start(&url, dir.path(), &[]);
    redis
        .db(13)
        .tell("HMSET a input_type doubles policy p default_output 0 latency_slo_micros 1000000");
    until_true("served", || clipper.serves("a"));
    clipper.done("delete_app", &json!({"name": "a"}));
    assert!(redis.dump(13).is_empty());
}

#[test]
fn malformed_entries_are_passed_over_and_heal() {
    let redis = Redis::start();
    write_dump(&redis);
    let mut apps = redis.db(5);
    apps.tell("HMSET half input_type doubles policy p default_output 0");
    apps.tell("SET text x");
    redis.db(2).tell("HMSET odd model_name odd");
    redis.db(7).tell("SET half net");
    let dir = tempfile::tempdir().unwrap();
    let clipper = Clipper::start(&redis.url(), dir.path(), &[]);
    assert!(clipper.serves("digits"));
    assert!(!clipper.serves("half"));
    assert!((clipper.metric("clipper_redis_malformed_entries") - 4.0).abs() < 0.1);
    clipper.says("it has no field latency_slo_micros");
    apps.tell("HSET half latency_slo_micros 5000000");
    until_true("healed", || clipper.serves("half"));
    apps.tell("HSET digits latency_slo_micros soon");
    until_true("passed over", || !clipper.serves("digits"));
    apps.tell("HSET digits latency_slo_micros 5000000");
    until_true("healed", || clipper.serves("digits"));
    redis.db(7).tell("DEL half");
    apps.tell("DEL text");
    redis.db(2).tell("DEL odd");
    until_true("all gone", || clipper.metric("clipper_redis_malformed_entries") < 0.5);
}

/// Readers of the original take the fields they know by name.
#[test]
fn a_policy_is_a_field_of_the_originals_and_one_more() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let clipper = Clipper::start(&redis.url(), dir.path(), &[]);
    write_dump(&redis);
    let row = || redis.db(5).ask::<Vec<String>>("HGETALL digits");
    let before = row();
    until_true("it is followed", || clipper.serves("digits"));
    let set = |policy: &str, parameters: serde_json::Value| {
        clipper.done(
            "set_policy",
            &json!({"app_name": "digits", "policy": policy, "parameters": parameters}),
        );
    };
    set("exp3", json!({"explore": 0.5}));
    let mut expected = before.clone();
    expected[3] = "exp3".to_owned();
    expected.extend(["policy_parameters".to_owned(), "{\"explore\":0.5}".to_owned()]);
    assert_eq!(row(), expected);
    // Another frontend's change is followed.
    redis.db(5).tell("HMSET digits policy_parameters {\"explore\":0.25}");
    let shown = || clipper.done("get_application", &json!({"name": "digits"}));
    until_true("its change is followed", || shown().contains("0.25"));
    set("DefaultOutputSelectionPolicy", json!({}));
    assert_eq!(row(), before);
    assert!(!shown().contains("policy"), "{}", shown());
}
