//! A backup of a running server, and what is made of it.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use super::stream::Raw;
use super::{clipper, done, listed, offline, set_slo, stop, told};
use crate::support::served::{Http, Served, app, until};

fn restore(backup: &Path, data_dir: &Path) -> Output {
    let mut command = Command::new(crate::binary());
    command.env_clear().arg("restore").arg(backup).arg("--data-dir").arg(data_dir).arg("--json");
    command.output().unwrap()
}

fn restored(backup: &Path, data_dir: &Path) -> Value {
    let output = restore(backup, data_dir);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn events_keys_and_policy_state_are_restored() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[journal]\nsnapshot_every_events = 10\nkeep_events = 20\n";
    let server = Served::start(config, folder.path());
    server.add_linked("a", 20_000_000);
    let policy = json!({"app_name": "a", "policy": "exp3", "parameters": {}});
    server.admin("/admin/set_policy", &policy);
    let container = server.noop("a");
    server.await_replicas("a", 1);
    // What users have taught it.
    let mut http = Http::new(server.query);
    for user in 1..=50 {
        let body = json!({"input": [f64::from(user)], "uid": user}).to_string();
        let (status, answer) = http.request("POST", "/a/predict", &body).unwrap();
        assert_eq!(status, 200, "{answer}");
        let update = json!({"input": [f64::from(user)], "label": 7.0, "uid": user}).to_string();
        let (status, answer) = http.request("POST", "/a/update", &update).unwrap();
        assert_eq!(status, 200, "{answer}");
    }
    for n in 0..60 {
        set_slo(&server, "a", 30_000 + n);
    }
    server.says("events of the journal are not kept any more");
    let key = told(&server, &["key", "add", "root", "--role", "admin"]);
    let secret = key["secret"].as_str().unwrap().to_owned();
    let file = folder.path().join("it.backup");
    let path = file.to_str().unwrap();
    let refused = clipper(&server, &["backup", path]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(!file.exists(), "there is none but a whole one");
    let made = told(&server, &["backup", path, "--key", &secret]);
    assert!(made["states"].as_u64().unwrap() >= 50, "{made}");
    drop(container);
    stop(server);

    let elsewhere = folder.path().join("restored/data");
    let told = restored(&file, &elsewhere);
    assert_eq!((&told["last"], &told["states"]), (&made["last"], &made["states"]));
    assert_eq!(listed(&elsewhere), listed(&folder.path().join("data")));
    let verified = offline(&elsewhere, &["verify"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let present = restore(&file, &elsewhere);
    assert!(String::from_utf8_lossy(&present.stderr).contains("a journal in"));
    // The same server, with what it had learned and who may do what.
    let again = Served::start(config, elsewhere.parent().unwrap());
    let shown = super::told(&again, &["admin", "apps", "show", "a", "--key", &secret]);
    assert_eq!(shown["latency_slo_micros"], 30_059);
    let state = done(&again, &["admin", "state", "a", "--uid", "7", "--key", &secret]);
    assert!(state.contains('{'), "{state}");
    let more = json!({"name": "b"}).to_string();
    assert_eq!(
        Http::new(again.management).request("POST", "/admin/delete_app", &more).unwrap().0,
        401
    );
}

#[test]
fn a_damaged_or_cut_file_restores_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    for n in 0..20 {
        server.admin("/admin/add_app", &app(&format!("a{n}"), 20_000));
    }
    let file = folder.path().join("it.backup");
    done(&server, &["backup", file.to_str().unwrap()]);
    let whole = std::fs::read(&file).unwrap();
    let target = folder.path().join("target");
    let wrong = |bytes: &[u8], why: &str| {
        std::fs::write(&file, bytes).unwrap();
        let output = restore(&file, &target);
        let says = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{says}");
        assert!(says.contains(why), "{says}");
        assert!(!target.exists(), "nothing is made");
    };
    for at in [9, whole.len() / 2, whole.len() - 3] {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        wrong(&damaged, "nothing was restored");
    }
    wrong(&whole[..whole.len() - 1], "cut off");
    wrong(b"", "no backup of Clipper");
    wrong(&whole[..4], "no backup of Clipper");
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(restored(&file, &target)["events"], 20);
}

/// As many changes as come while it is made: what is restored is what there was at one moment.
/// A client that does not read its backup keeps its place until the connection ends, and nobody who
/// asks something else waits for it.
#[test]
fn a_backup_that_nobody_reads_ends_and_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("[http]\nwrite_timeout_ms = 1000\n", folder.path());
    let mut large = app("a", 20_000);
    large["default_output"] = json!("x".repeat(60_000));
    server.admin("/admin/add_app", &large);
    // More than buffers of a connection take: each event has the whole definition.
    for n in 0..400 {
        set_slo(&server, "a", 30_000 + n);
    }
    let unread = Raw::post(server.management, "/admin/journal/backup");
    let backup = folder.path().join("whole.backup");
    let file = backup.to_str().unwrap();
    until("its place is taken", || {
        let output = clipper(&server, &["backup", file]);
        let says = String::from_utf8_lossy(&output.stderr).into_owned();
        says.contains("under way already").then_some(())
    });
    assert_eq!(told(&server, &["journal", "diff", "1..2"])["to"], 2);
    assert!(done(&server, &["journal", "log"]).contains("application a changed"));
    set_slo(&server, "a", 7);
    until("its place is free again", || {
        clipper(&server, &["backup", file]).status.success().then_some(())
    });
    drop(unread);
}

#[test]
fn a_backup_during_many_changes_is_a_prefix_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[journal]\nsnapshot_every_events = 200\nkeep_events = 100000\n";
    let server = Served::start(config, folder.path());
    let rounds = crate::support::size("CLIPPER_TEST_BACKUPS", 3, 30);
    let (acknowledged, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut backups = Vec::new();
    std::thread::scope(|scope| {
        for client in 0..8 {
            let (acknowledged, over, management) = (&acknowledged, &over, server.management);
            scope.spawn(move || {
                let mut http = Http::new(management);
                let mut n = 0;
                while !over.load(Ordering::Relaxed) {
                    let body = app(&format!("c{client}x{n}"), 20_000).to_string();
                    let (status, text) = http.request("POST", "/admin/add_app", &body).unwrap();
                    assert_eq!(status, 200, "{text}");
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                    n += 1;
                }
            });
        }
        let _stop = crate::support::StopAtEnd(&over);
        let begin = std::time::Instant::now();
        for round in 0..rounds {
            crate::support::served::until("some changes", || {
                (acknowledged.load(Ordering::SeqCst) > 200 * (round as u64 + 1)).then_some(())
            });
            let before = acknowledged.load(Ordering::SeqCst);
            let file = folder.path().join(format!("{round}.backup"));
            let made = told(&server, &["backup", file.to_str().unwrap()]);
            backups.push((file, before, made["last"].as_u64().unwrap()));
        }
        let changes = acknowledged.load(Ordering::SeqCst);
        let rate = changes as f64 / begin.elapsed().as_secs_f64();
        println!("{rounds} backups during {changes} changes, {rate:.0} a second");
    });
    stop(server);
    let all = listed(&folder.path().join("data"));
    for (at, (file, before, last)) in backups.iter().enumerate() {
        let target = folder.path().join(format!("target{at}"));
        restored(file, &target);
        let events = listed(&target);
        assert_eq!(events.len() as u64, *last);
        assert!(last >= before, "what was acknowledged before it began is in it");
        assert_eq!(events[..], all[..events.len()]);
    }
}
