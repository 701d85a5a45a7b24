//! Keys of containers in the catalog: good on every frontend that shares a Redis, and ended on all
//! of them at once.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::harness::{Clipper, Redis, get, until_true};

/// A command of an admin.
fn clipper(server: &Clipper, key: &str, args: &[&str]) -> Output {
    Command::new(crate::binary())
        .args(args)
        .env("CLIPPER_MANAGEMENT_URL", format!("http://{}", server.management))
        .env("CLIPPER_KEY", key)
        .output()
        .unwrap()
}

fn done(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

struct Container(Child);

impl Container {
    /// One of model `m` whose log goes to a file.
    fn start(server: &Clipper, log: &Path, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(crate::binary());
        command
            .args(["container", "noop", "--name", "m", "--version", "1"])
            .args(["--connect", &server.rpc])
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(File::create(log).unwrap());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A pair of keys of CURVE in a folder: its secret and its public key.
fn pair(dir: &Path) -> [String; 2] {
    let made = Command::new(crate::binary()).args(["cert", "curve"]).arg(dir).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    ["curve.key", "curve.pub"]
        .map(|name| std::fs::read_to_string(dir.join(name)).unwrap().trim().to_owned())
}

/// 0 where there is no such sample yet.
fn sample(server: &Clipper, name: &str) -> f64 {
    let text = get(server.metrics, "/metrics").1;
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.map_or(0.0, |value| value.trim().parse().unwrap())
}

fn replicas(server: &Clipper) -> f64 {
    sample(server, "clipper_replicas{model=\"m\",version=\"1\"}")
}

fn await_replicas(servers: [&Clipper; 2], n: u32) {
    for server in servers {
        until_true(&format!("{n} replicas"), || (replicas(server) - f64::from(n)).abs() < 0.5);
    }
}

#[test]
fn a_key_of_the_catalog_is_good_for_containers_on_every_frontend_until_it_is_revoked_on_one() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let [_, server_public] = pair(&path("server"));
    let [own_secret, own_public] = pair(&path("own"));
    let server_key = path("server").join("curve.key").display().to_string();
    let env = [
        ("CLIPPER_RPC__CURVE_KEY", server_key.as_str()),
        ("CLIPPER_RPC__NULL_FROM", "[]"),
        ("CLIPPER_ACCESS__OPEN_METRICS", "true"),
        ("CLIPPER_LOG__OUTSIDER_LINES_MAX", "100000"),
    ];
    let [a, b] = ["a", "b"].map(|name| Clipper::start(&redis.url(), &path(name), &env));
    a.done("add_model", &crate::support::served::model("m"));
    until_true("the other knows it", || b.catalog()[1][0]["model_name"] == "m");
    let key = |server: &Clipper, root: &str, args: &[&str]| {
        done(&clipper(server, root, &[&["key"], args, &["--json"]].concat()))
    };
    let root = key(&a, "clk_none", &["add", "root", "--role", "admin"]);
    let root = root["secret"].as_str().unwrap();
    let vision = ["add", "vision", "--role", "container", "--only", "m*"];
    let vision = key(&a, root, &vision);
    let vision = vision["secret"].as_str().unwrap();
    until_true("the other has the keys", || clipper(&b, root, &["key", "list"]).status.success());
    let add = ["add", "encoder", "--role", "container", "--only", "m", "--curve", &own_public];
    let encoder = key(&b, root, &add);
    assert_eq!((&encoder["secret"], &encoder["known_by"]), (&json!(null), &json!("curve")));

    let plain = [("CLIPPER_RPC_KEY_NAME", "vision"), ("CLIPPER_RPC_KEY", vision)];
    let curve = [
        ("CLIPPER_RPC_SERVER_KEY", server_public.as_str()),
        ("CLIPPER_RPC_SECRET_KEY", own_secret.as_str()),
    ];
    let log = |name: &str| path(&format!("{name}.log"));
    let _of_vision =
        [("va", &a), ("vb", &b)].map(|(name, server)| Container::start(server, &log(name), &plain));
    await_replicas([&a, &b], 1);
    let _of_encoder =
        [("ea", &a), ("eb", &b)].map(|(name, server)| Container::start(server, &log(name), &curve));
    await_replicas([&a, &b], 2);

    // Those that may not.
    for (name, env) in [
        ("other", &[plain[0], ("CLIPPER_RPC_KEY", root)][..]),
        ("wrong", &[plain[0], ("CLIPPER_RPC_KEY", "clk_wrong")][..]),
        ("none", &[][..]),
    ] {
        let before = denied(&b);
        let _refused = Container::start(&b, &log(name), env);
        until_true("it is refused", || denied(&b) > before);
    }

    let revoked = Instant::now();
    assert!(clipper(&a, root, &["key", "revoke", "vision"]).status.success());
    await_replicas([&a, &b], 1);
    println!("the connections of a secret ended {:?} after it was revoked", revoked.elapsed());
    for name in ["va", "vb"] {
        let text = || std::fs::read_to_string(log(name)).unwrap();
        until_true("its log says why", || text().contains("is no good any more"));
        until_true("and that it is not let in", || text().contains("refuses this container's key"));
    }
    let revoked = Instant::now();
    assert!(clipper(&b, root, &["key", "revoke", "encoder"]).status.success());
    await_replicas([&a, &b], 0);
    println!("those of a pair of keys ended {:?} after it", revoked.elapsed());
    a.says("key 'encoder' is no good any more");
    for server in [&a, &b] {
        assert!(!server.logged(vision) && !server.logged(&own_secret) && !server.logged(root));
    }
}

fn denied(server: &Clipper) -> f64 {
    sample(server, "clipper_rpc_ended_total{reason=\"denied\"}")
}
