//! Keys of frontends that share a Redis: good on all of them at once, and at no time in clear.

use std::process::{Command, Output};

use serde_json::Value;

use super::harness::{Clipper, Redis, until_true};

fn clipper(server: &Clipper, key: &str, args: &[&str]) -> Output {
    Command::new(crate::binary())
        .args(args)
        .env("CLIPPER_MANAGEMENT_URL", format!("http://{}", server.management))
        .env("CLIPPER_KEY", key)
        .output()
        .unwrap()
}

fn made(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    made["secret"].as_str().unwrap().to_owned()
}

fn is_let_in(server: &Clipper, key: &str) -> bool {
    clipper(server, key, &["admin", "apps", "list"]).status.success()
}

#[test]
fn a_key_is_good_on_every_frontend_until_it_is_revoked_on_one() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let dirs = ["a", "b"].map(|name| folder.path().join(name));
    let [a, b] = dirs.each_ref().map(|dir| Clipper::start(&redis.url(), dir, &[]));
    let root = made(&clipper(&a, "clk_none", &["key", "add", "root", "--role", "admin", "--json"]));
    until_true("the key is asked for on the other", || !is_let_in(&b, "clk_wrong"));
    until_true("and good there", || is_let_in(&b, &root));
    let add = ["key", "add", "eye", "--role", "observe", "--json"];
    let eye = made(&clipper(&b, &root, &add));
    until_true("a key of the other is good here", || is_let_in(&a, &eye));
    let rows = redis.dump(4).join("\n");
    assert!(rows.contains("clipper:key:eye") && !rows.contains(&eye), "{rows}");

    // A table that was emptied opens nothing.
    redis.db(4).tell("FLUSHDB");
    until_true("the frontends go on", || is_let_in(&a, &eye) && is_let_in(&b, &eye));
    assert!(!is_let_in(&a, "clk_wrong") && !is_let_in(&b, "clk_wrong"));

    let revoke = ["key", "revoke", "eye", "--reason", "lost at a train station"];
    assert!(clipper(&a, &root, &revoke).status.success());
    assert!(!is_let_in(&a, &eye));
    until_true("it is no good on the other", || !is_let_in(&b, &eye));
    b.stop();
    let list = Command::new(crate::binary())
        .args(["journal", "list", "--data-dir"])
        .arg(&dirs[1])
        .output()
        .unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let revoked = list.lines().find(|line| line.contains("key_revoked")).unwrap();
    assert!(revoked.contains("frontend") && revoked.contains("key 'root'"), "{list}");
    assert!(revoked.contains("from 127.0.0.1") && revoked.contains("train station"), "{list}");

    // A frontend that comes later learns of all.
    let c = Clipper::start(&redis.url(), &folder.path().join("c"), &[]);
    assert!(!is_let_in(&c, &eye), "what was revoked stays so");
    a.stop();
}
