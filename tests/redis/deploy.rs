//! Deployments with Redis: the tables tell of the model and its replicas, and every frontend keeps
//! replicas of its own.

use std::process::Command;

use serde_json::json;

use crate::redis::harness::{Clipper, Redis, until_true};

#[test]
fn a_deployment_is_in_the_tables_and_its_replicas_are_back_after_a_restart() {
    let redis = Redis::start();
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let other = Clipper::start(&redis.url(), other_dir.path(), &[]);
    let clipper = Clipper::start(&redis.url(), dir.path(), &[]);
    let exe = crate::binary();
    let script = format!(
        "exec '{exe}' container noop --name=$CLIPPER_MODEL_NAME \
         --version=$CLIPPER_MODEL_VERSION --connect=tcp://$CLIPPER_IP:$CLIPPER_PORT --output=42"
    );
    let deploy = |app: &str, program: &str| {
        let output = Command::new(exe)
            .args(["deploy", "--url", &format!("http://{}", clipper.management), "--app", app])
            .args(["--slo-ms", "5000", "--default-output", "-1", "--name", "m", "--timeout", "20"])
            .args(["--command", "sh", "-c", program])
            .output()
            .unwrap();
        println!("{}", String::from_utf8_lossy(&output.stderr));
        output.status.code()
    };
    assert_eq!(deploy("a", "echo no way; exit 5"), Some(1));
    assert_eq!(redis.catalog().concat(), [""; 0]);
    until_true("no row is left", || redis.dump(3).is_empty());
    assert_eq!(deploy("a", &script), Some(0));
    assert_eq!(redis.catalog().iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1, 1]);
    assert_eq!(clipper.predict("a").1["output"], json!(42));
    until_true("the other frontend knows it", || other.catalog() == clipper.catalog());
    until_true("it keeps replicas of its own", || other.predict("a").1["output"] == json!(42));
    clipper.kill();
    let clipper = Clipper::start(&redis.url(), dir.path(), &[]);
    until_true("its replica is back", || clipper.predict("a").1["default"] == json!(false));
    // Whoever deletes the version ends the replicas.
    other.done("delete_versioned_model", &json!({"model_name": "m", "model_version": "1"}));
    until_true("its row is gone", || redis.dump(3).is_empty());
}
