//! What a key of the role `operate` may not have started, by whatever endpoint, and what ends with
//! the key of who asked for it on the management port.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::access::{post, with_key};
use super::support::{children_of, eventually};
use crate::support::served::{PATIENCE, Served, app, until};

fn secret(name: &str) -> String {
    format!("{name}-{}", "0123456789abcdef".repeat(2))
}

/// A server with a key of each of these roles.
fn guarded(config: &str, folder: &Path) -> Served {
    let mut command = Command::new(crate::binary());
    let keys = ["admin", "operate"].map(|role| format!("{role} {role} {}", secret(role)));
    command.env("CLIPPER_KEYS", keys.join(";"));
    Served::start_by(command, config, folder)
}

/// Model `m`, and a program that serves it.
fn wanted(program: Option<&str>) -> Value {
    let mut model = json!({"name": "m", "version": "1", "input_type": "doubles"});
    if let Some(script) = program {
        let command = ["sh", "-c", script];
        model["container"] = json!({"runtime": "command", "command": command, "replicas": 1});
    }
    json!({ "model": [model] })
}

/// The built-in container, as any program.
fn noop() -> String {
    let clipper = crate::binary();
    format!(
        "exec '{clipper}' container noop --name=$CLIPPER_MODEL_NAME \
         --version=$CLIPPER_MODEL_VERSION --connect=tcp://$CLIPPER_IP:$CLIPPER_PORT"
    )
}

#[test]
fn a_key_of_the_role_operate_has_no_programs_started_by_a_plan_or_a_rollback() {
    let folder = tempfile::tempdir().unwrap();
    let server = guarded("[access]\nopen_metrics = true\n", folder.path());
    let ask = |role: &str, path: &str, body: &Value| {
        post(server.management, path, Some(&secret(role)), body)
    };
    let refused = |path: &str, body: &Value| {
        let (status, told) = ask("operate", path, body);
        assert!(status == 403 && told.contains("of role operate starts no programs"), "{told}");
    };
    let done = |role: &str, path: &str, body: &Value| -> Value {
        let (status, told) = ask(role, path, body);
        assert_eq!(status, 200, "{role} {path}: {told}");
        serde_json::from_str(&told).unwrap()
    };
    done("operate", "/admin/apply", &wanted(None));
    let program = wanted(Some(&noop()));
    refused("/admin/apply", &program);
    let mut plan = program.clone();
    plan["dry_run"] = json!(true);
    let steps = done("operate", "/admin/apply", &plan)["steps"].to_string();
    assert!(steps.contains("replicas"), "a plan starts nothing: {steps}");
    assert_eq!(done("operate", "/admin/get_all_containers", &json!({"verbose": false})), json!([]));

    done("admin", "/admin/apply", &program);
    server.await_replicas("m", 1);
    // Another one in its place.
    refused("/admin/apply", &wanted(Some("exec sleep 600")));
    plan["model"] = json!([]);
    let with_program = done("operate", "/admin/apply", &plan)["base"].clone();
    let mut without = wanted(None);
    without["prune"] = json!(true);
    done("operate", "/admin/apply", &without);
    let back = json!({"to": with_program.to_string()});
    refused("/admin/rollback", &back);
    done("admin", "/admin/rollback", &back);
    server.await_replicas("m", 1);
}

#[test]
fn what_may_not_be_deployed_is_not_applied_either() {
    for (config, why) in [
        ("[management]\ndeploy = \"off\"\n", "management.deploy = \\\"off\\\""),
        ("[deploy]\nallow = [\"python\"]\n", "deploy.allow"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let server = guarded(config, folder.path());
        let body = wanted(Some(&noop()));
        let (status, told) = post(server.management, "/admin/apply", Some(&secret("admin")), &body);
        assert!(status == 403 && told.contains(why), "{status} {told}");
    }
}

/// An answer that has begun: what is left to read, and what has been read.
fn begin(addr: SocketAddr, request: &str, name: &str, body: &str) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let headers = with_key(Some(&secret(name)));
    let head = format!(
        "{request} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}Content-Length: \
         {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    while !text.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&piece[..read]);
    }
    (stream, text)
}

/// The whole of one, on its way.
fn begun(addr: SocketAddr, request: &str, name: &str, body: &str) -> JoinHandle<String> {
    let (mut stream, mut text) = begin(addr, request, name, body);
    std::thread::spawn(move || {
        stream.read_to_end(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    })
}

fn list(file: &Path, names: &[&str]) {
    let role = |name: &str| if name.starts_with("root") { "admin" } else { "observe" };
    let lines = names.iter().map(|name| format!("{name} {} {}\n", role(name), secret(name)));
    let next = file.with_extension("next");
    std::fs::write(&next, lines.collect::<String>()).unwrap();
    std::fs::rename(next, file).unwrap();
}

fn listed(config: &str, folder: &Path, names: &[&str]) -> (Served, PathBuf) {
    let keys = folder.join("keys");
    list(&keys, names);
    let config = format!("{config}[access]\nkeys_file = \"{}\"\n", keys.display());
    (Served::start(&config, folder), keys)
}

#[test]
fn who_follows_the_journal_or_deploys_ends_with_his_key_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let (server, keys) = listed("", folder.path(), &["eye", "other", "root", "second"]);
    let follow = "GET /admin/journal/stream?after=0";
    let revoked = begun(server.management, follow, "eye", "");
    let kept = begun(server.management, follow, "other", "");
    // It never says that it is a container.
    let deployment = json!({"model_name": "m", "model_version": "1", "input_type": "doubles",
        "app_name": "a", "new_app": {"default_output": "-1", "latency_slo_micros": 20_000},
        "runtime": {"runtime": "command", "command": ["sleep", "600"]}});
    let deploy = "POST /admin/deploy_model";
    let deploying = begun(server.management, deploy, "root", &deployment.to_string());
    let started = until("its program runs", || children_of(server.pid()).first().copied());
    list(&keys, &["other", "second"]);
    let text = revoked.join().unwrap();
    assert!(
        text.contains("event: cut") && text.contains("Key 'eye' is no good any more"),
        "{text}"
    );
    let text = deploying.join().unwrap();
    assert!(text.contains("failed") && text.contains("Key 'root' is no good any more"), "{text}");
    eventually("its program is gone", || !super::support::is_running(started));
    assert!(!kept.is_finished(), "that of another goes on");
    let names = |path: &str| {
        let (_, text) =
            post(server.management, path, Some(&secret("other")), &json!({"verbose": false}));
        text
    };
    assert_eq!((names("/admin/get_all_models"), names("/admin/get_all_applications")), {
        ("[]".to_owned(), "[]".to_owned())
    });
    list(&keys, &["second"]);
    assert!(kept.join().unwrap().contains("Key 'other' is no good any more"));
}

#[test]
fn a_download_of_a_backup_ends_with_its_key_even_where_nobody_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing else may end it; and each page that sled writes would be in the log, as numbers.
    let patient = "[http]\nwrite_timeout_ms = 3600000\n[log]\nfilter = \"trace,sled=info\"\n";
    let (server, keys) = listed(patient, folder.path(), &["root", "root-2"]);
    let manage = |path: &str, body: &Value| {
        let (status, told) = post(server.management, path, Some(&secret("root-2")), body);
        assert_eq!(status, 200, "{told}");
    };
    let mut large = app("a", 20_000);
    large["default_output"] = json!("x".repeat(OUTPUT_BYTES));
    manage("/admin/add_app", &large);
    // More than buffers of a connection take: each event has the whole definition.
    for n in 0..CHANGES {
        manage("/admin/update_app", &json!({"name": "a", "latency_slo_micros": 30_000 + n}));
    }
    let begin = |name: &str| begin(server.management, "POST /admin/journal/backup", name, "");
    let status = |name: &str| String::from_utf8_lossy(&begin(name).1[9..12]).into_owned();
    let (mut download, mut read) = begin("root");
    assert!(read.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&read));
    assert_eq!(status("root-2"), "503", "its place is taken");
    list(&keys, &["root-2"]);
    eventually("its key is no good any more", || status("root") == "401");
    eventually("its place is free", || status("root-2") == "200");
    download.read_to_end(&mut read).unwrap();
    let whole = OUTPUT_BYTES * CHANGES as usize;
    assert!(read.len() < whole, "{} bytes of {whole} and more", read.len());
}

/// Of the backup that is downloaded.
const OUTPUT_BYTES: usize = 60_000;
const CHANGES: u32 = 400;
