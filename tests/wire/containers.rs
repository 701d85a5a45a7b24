//! Keys and encryption of the port for containers: stock pyzmq, our containers, hostile peers.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::served::{Http, PATIENCE, Process, Served, until};

/// A pair of keys by the command line: the file of the secret one, the secret one, the public one.
struct Pair {
    file: PathBuf,
    secret: String,
    public: String,
}

fn pair(dir: &Path) -> Pair {
    let made = Command::new(crate::binary()).args(["cert", "curve"]).arg(dir).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap().trim().to_owned();
    Pair { file: dir.join("curve.key"), secret: read("curve.key"), public: read("curve.pub") }
}

fn python() -> String {
    std::env::var("CLIPPER_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// A container of ours with these variables.
fn noop(server: &Served, model: &str, env: &[(&str, &str)]) -> Process {
    let mut command = Command::new(crate::binary());
    command
        .args(["container", "noop", "--name", model, "--version", "1", "--output", "7"])
        .args(["--connect", &format!("tcp://{}", server.rpc)])
        .envs(env.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Process(command.spawn().unwrap())
}

/// One of the Python package, whose sockets are libzmq's.
fn pyzmq(server: &Served, dir: &Path, model: &str, env: &[(&str, &str)]) -> Process {
    let file = dir.join("model.py");
    std::fs::write(&file, "def predict(xs):\n    return ['7' for _ in xs]\n").unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/src");
    let mut command = Command::new(python());
    command
        .args(["-m", "clipper_serving", "serve"])
        .arg(format!("{}:predict", file.display()))
        .args(["--name", model, "--version", "1", "--input-type", "doubles"])
        .args(["--port", &server.rpc.port().to_string(), "--metrics-port", "0"])
        .env("PYTHONPATH", source)
        .envs(env.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Process(command.spawn().unwrap())
}

fn answers(server: &Served, app: &str) {
    let mut client = Http::new(server.query);
    let (path, mut n) = (format!("/{app}/predict"), 0);
    until("the model answers", || {
        n += 1;
        let (_, text) = client.request("POST", &path, &format!("{{\"input\": [{n}]}}")).unwrap();
        (text.contains("\"output\":7") && text.contains("\"default\":false")).then_some(())
    });
}

#[test]
fn encrypted_connections_carry_batches_of_pyzmq_and_of_our_containers() {
    let dir = tempfile::tempdir().unwrap();
    let (server_keys, own) = (pair(&dir.path().join("s")), pair(&dir.path().join("c")));
    let config = format!("[rpc]\ncurve_key = \"{}\"\n", server_keys.file.display());
    let server = Served::start(&config, dir.path());
    server.says(&server_keys.public.replace('"', "\\\""));
    let env = [
        ("CLIPPER_RPC_SERVER_KEY", server_keys.public.as_str()),
        ("CLIPPER_RPC_SECRET_KEY", own.secret.as_str()),
    ];
    for (name, container) in [
        ("ours", noop(&server, "ours", &env)),
        ("zmq", pyzmq(&server, dir.path(), "zmq", &env)),
        ("null", noop(&server, "null", &[])),
    ] {
        server.add_linked(name, 1_000_000);
        server.await_replicas(name, 1);
        answers(&server, name);
        drop(container);
        server.await_replicas(name, 0);
    }
    // Of another server.
    let wrong = [("CLIPPER_RPC_SERVER_KEY", own.public.as_str()), env[1]];
    let _one = noop(&server, "ours", &wrong);
    until("it is refused", || (server.ended("denied") >= 1.0).then_some(()));
    let _two = pyzmq(&server, dir.path(), "zmq", &wrong);
    until("it is refused", || (server.ended("denied") >= 2.0).then_some(()));
}

#[test]
fn hostile_handshakes_of_curve_end_and_hurt_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let keys = pair(&dir.path().join("s"));
    let config =
        format!("[rpc]\nhandshake_timeout_ms = 1000\ncurve_key = \"{}\"\n", keys.file.display());
    let mut server = Served::start(&config, dir.path());
    let mut greeting = vec![0; 64];
    greeting[0] = 0xff;
    greeting[8] = 1;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[12..17].copy_from_slice(b"CURVE");
    let mut hello = vec![4, 200];
    hello.extend(b"\x05HELLO\x01\x00");
    hello.extend([7; 192]);
    let mut long = vec![6];
    long.extend(u64::MAX.to_be_bytes());
    for rest in [&hello[..], &hello[..100], &long, b"\x04\x05\x05READ", b"\x00\x00", b""] {
        let mut stream = TcpStream::connect(server.rpc).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&greeting).unwrap();
        stream.write_all(rest).unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        assert!(all.len() < 1_000, "{}", all.len());
    }
    assert!(server.ended("denied") >= 1.0 && server.ended("handshake_timeout") >= 2.0);
    assert!(server.is_up());
}

#[test]
fn a_key_is_for_its_models_and_ends_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let (server_keys, own) = (pair(&dir.path().join("s")), pair(&dir.path().join("c")));
    let secret = "5d0c".repeat(16);
    let (file, next) = (dir.path().join("keys"), dir.path().join("keys.new"));
    let lines =
        format!("vision container {secret} v-*\nencoder container curve:{} enc\n", own.public);
    std::fs::write(&file, &lines).unwrap();
    let config = format!(
        "[rpc]\nkeys = \"{}\"\nnull_from = []\ncurve_key = \"{}\"\n\
         [[application]]\nname = \"child\"\ninput_type = \"doubles\"\ndefault_output = \"-1\"\n\
         latency_slo_micros = 1000000\nmodel = \"child\"\n\
         [[model]]\nname = \"child\"\nversion = \"1\"\ninput_type = \"doubles\"\n\
         [model.container]\nruntime = \"command\"\n\
         command = [\"sh\", \"-c\", \"exec {} container noop --name child --version 1 --output 7 \
         --connect tcp://$CLIPPER_IP:$CLIPPER_PORT\"]\n",
        file.display(),
        server_keys.file.display(),
        crate::binary()
    );
    let server = Served::start(&config, dir.path());
    // The server's own replica has a key that nobody gave it.
    server.await_replicas("child", 1);
    answers(&server, "child");
    for name in ["v-1", "enc", "other"] {
        server.add_linked(name, 1_000_000);
    }
    let named = |secret| [("CLIPPER_RPC_KEY_NAME", "vision"), ("CLIPPER_RPC_KEY", secret)];
    let good = named(secret.as_str());
    let one = noop(&server, "v-1", &good);
    server.await_replicas("v-1", 1);
    answers(&server, "v-1");
    drop(one);
    server.await_replicas("v-1", 0);
    let _two = pyzmq(&server, dir.path(), "v-1", &good);
    server.await_replicas("v-1", 1);
    let curve = [
        ("CLIPPER_RPC_SERVER_KEY", server_keys.public.as_str()),
        ("CLIPPER_RPC_SECRET_KEY", own.secret.as_str()),
    ];
    let _three = pyzmq(&server, dir.path(), "enc", &curve);
    server.await_replicas("enc", 1);
    answers(&server, "enc");
    let wrong_secret = "0".repeat(64);
    for (model, env) in [
        ("other", &good[..]),
        ("v-1", &named(wrong_secret.as_str())[..]),
        ("other", &curve[..]),
        ("other", &[][..]),
    ] {
        let before = server.ended("denied");
        let _ours = noop(&server, model, env);
        until("it is refused", || (server.ended("denied") > before).then_some(()));
        let before = server.ended("denied");
        let _theirs = pyzmq(&server, dir.path(), model, env);
        until("it is refused", || (server.ended("denied") > before).then_some(()));
    }
    server.await_replicas("other", 0);
    server.says("key 'vision' is for 'v-*' only, not for other:1");
    // Without the line of one of them.
    let before = server.ended("denied");
    std::fs::write(&next, lines.lines().nth(1).unwrap()).unwrap();
    std::fs::rename(&next, &file).unwrap();
    server.await_replicas("v-1", 0);
    assert!(server.ended("denied") > before);
    server.await_replicas("enc", 1);
    let log = server.log().join("\n");
    assert!(!log.contains(&secret) && !log.contains(&own.secret));
}
