//! Redis servers that want a password or TLS, or do not let their settings be changed.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::redis::forms::write_dump;
use crate::redis::harness::{Clipper, Redis, until_true};
use crate::support::ports::free_port;

#[test]
fn where_notices_cannot_be_turned_on_the_log_says_so_and_changes_arrive_later() {
    let redis = Redis::start_with(&["--rename-command", "CONFIG", ""]);
    write_dump(&redis);
    let dir = tempfile::tempdir().unwrap();
    let often = [("CLIPPER_REDIS__RECONCILE_INTERVAL_MS", "100")];
    let clipper = Clipper::start(&redis.url(), dir.path(), &often);
    clipper.says("let an operator set notify-keyspace-events to KA");
    redis.db(5).tell("HSET digits default_output 5");
    until_true("seen", || clipper.catalog()[0][0]["default_output"] == "5");
    clipper.done("delete_app", &json!({"name": "digits"}));
}

/// A certificate of our own for 127.0.0.1.
fn certificate(dir: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=test", "-keyout", "key.pem"])
        .args(["-out", "cert.pem", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .current_dir(dir)
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{made:?}");
}

#[test]
fn tls_user_and_password() {
    let certificates = tempfile::tempdir().unwrap();
    certificate(certificates.path());
    let file = |name: &str| certificates.path().join(name).display().to_string();
    let (port, key, cert) = (free_port(), file("key.pem"), file("cert.pem"));
    let redis = Redis::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
    ]);
    write_dump(&redis);
    redis.db(0).tell("ACL SETUSER clipper on >secret ~* &* +@all");
    let dir = tempfile::tempdir().unwrap();
    let trusted = [("SSL_CERT_FILE", cert.as_str())];
    let start = |password: &str, env: &[(&str, &str)], name: &str| {
        let url = format!("rediss://clipper:{password}@127.0.0.1:{port}");
        Clipper::start(&url, &dir.path().join(name), env)
    };
    let clipper = start("secret", &trusted, "right");
    assert!(clipper.connected() && clipper.serves("digits"));
    clipper.done("delete_app", &json!({"name": "digits"}));
    let start_away = |password: &str, env: &[(&str, &str)], name: &str| {
        let url = format!("rediss://clipper:{password}@127.0.0.1:{port}");
        Clipper::start_unready(&url, &dir.path().join(name), env)
    };
    let wrong = start_away("wrong", &trusted, "wrong");
    let (status, text) = wrong.admin("delete_app", &json!({"name": "digits"}));
    assert_eq!((status, wrong.connected()), (503, false), "{text}");
    assert!(!text.contains("wrong"), "{text}");
    let untrusting = start_away("secret", &[], "untrusting");
    assert!(!untrusting.connected(), "the certificate is nobody's");
}
