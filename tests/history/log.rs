//! A bad change at night: found by `log`, understood by `blame` and `diff`, on a running server.

use std::process::Command;

use serde_json::{Value, json};

use super::{clipper, done, set_slo, stop, told};
use crate::support::served::{Http, Served, app};

fn change(server: &Served, line: &str, reason: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    done(server, &[&words[..], &["--reason", reason]].concat());
}

/// What a verb prints that is refused.
fn refused(server: &Served, args: &[&str]) -> String {
    let output = clipper(server, args);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// Two applications, a model, and a change that nobody wants: events 1 to 7.
fn night(server: &Served) {
    let add = "admin apps add digits --input-type doubles --default-output -1 --slo-ms 100";
    change(server, add, "first");
    change(server, "admin models add m 1 --input-type doubles", "first");
    change(server, "admin links add digits m", "first");
    server.admin("/admin/add_app", &app("other", 20_000));
    change(server, "admin apps update digits --slo-ms 1", "save money");
    set_slo(server, "other", 30_000);
}

#[test]
fn a_bad_change_is_found_and_understood_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    night(&server);
    let log = done(&server, &["journal", "log", "--app", "digits", "-n", "1"]);
    assert!(log.starts_with("       6  application digits changed\n"), "{log}");
    assert!(log.contains("from 127.0.0.1, why: \"save money\""), "{log}");
    let all = done(&server, &["journal", "log", "--json"]);
    let all: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        all.iter().map(|e| e["seq"].as_u64().unwrap()).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7]
    );
    assert_eq!(
        (&all[3]["what"], &all[3]["model"]),
        (&json!("application digits linked to model m"), &json!("m"))
    );
    let of_model = done(&server, &["journal", "log", "--model", "m", "--since", "3"]);
    assert_eq!(of_model.lines().count(), 4, "{of_model}");
    let nobody = done(&server, &["journal", "log", "--who", "nobody"]);
    assert_eq!(nobody, "");
    let local = done(&server, &["journal", "log", "--who", "127.0.0.1", "--since", "1h"]);
    assert_eq!(local.lines().count(), 14, "{local}");

    let blame = told(&server, &["journal", "blame", "digits"]);
    let of = |field: &str| {
        let fields = blame["fields"].as_array().unwrap();
        fields.iter().find(|found| found["field"] == field).unwrap().clone()
    };
    assert_eq!(
        (&of("latency_slo_micros")["by"]["seq"], &of("latency_slo_micros")["value"]),
        (&json!(6), &json!(1_000))
    );
    assert_eq!(of("latency_slo_micros")["by"]["why"], "save money");
    assert_eq!(of("linked_models")["by"]["seq"], 4);
    assert_eq!(of("default_output")["by"]["seq"], 1);
    let text = done(&server, &["journal", "blame", "digits"]);
    assert!(text.contains("latency_slo_micros: 1000\n    event 6, "), "{text}");
    assert!(refused(&server, &["journal", "blame", "nothing"]).contains("does not exist"));

    let text = done(&server, &["journal", "diff", "5..6"]);
    let expected = "from event 5 to event 6\n~ application digits changed\n    \
                    latency_slo_micros: 100000 -> 1000\n";
    assert_eq!(text, expected);
    let diff = told(&server, &["journal", "diff", "0.."]);
    assert_eq!((&diff["from"], &diff["to"]), (&json!(0), &json!(7)));
    assert_eq!(diff["entries"].as_array().unwrap().len(), 4);
    let state = told(&server, &["journal", "state", "--at", "5"]);
    assert_eq!(
        (&state["seq"], &state["catalog"]["apps"]["digits"]["latency_slo"]),
        (&json!(5), &json!(100_000))
    );
    // Between two changes by the clock.
    let at = told_at(&all[5]);
    let then = told(&server, &["journal", "state", "--at", &at]);
    assert!(then["seq"].as_u64().unwrap() >= 6, "{then}");
    assert_eq!(told(&server, &["journal", "diff", "now..now"])["entries"], json!([]));
    for (args, why) in [
        (["journal", "state", "--at", "8"], "keeps events 1 to 7"),
        (["journal", "state", "--at", "yesterday"], "no point of the journal"),
        (["journal", "log", "--since", "soon"], "no point of the journal"),
    ] {
        assert!(refused(&server, &args).contains(why), "{args:?}");
    }
    // A start knows the same.
    stop(server);
    let server = Served::start("", folder.path());
    assert_eq!(told(&server, &["journal", "blame", "digits"])["fields"], blame["fields"]);
    assert_eq!(told(&server, &["journal", "state", "--at", "5"]), state);
}

/// When an entry was recorded.
fn told_at(entry: &Value) -> String {
    entry["at"].as_str().unwrap().to_owned()
}

#[test]
fn a_server_that_is_named_is_asked_whatever_journal_lies_in_the_current_folder() {
    let folder = tempfile::tempdir().unwrap();
    let other = Served::start("", folder.path());
    other.admin("/admin/add_app", &app("other", 20_000));
    stop(other);
    let elsewhere = tempfile::tempdir().unwrap();
    let server = Served::start("", elsewhere.path());
    let state = |named: bool| {
        let mut command = Command::new(crate::binary());
        command.current_dir(folder.path()).args(["journal", "state", "--json"]);
        if named {
            command.env("CLIPPER_MANAGEMENT_URL", format!("http://{}", server.management));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!(state(true)["catalog"]["apps"], json!({}));
    assert_eq!(state(false)["catalog"]["apps"]["other"]["latency_slo"], 20_000);
}

#[test]
fn what_compaction_forgot_is_said_and_the_rest_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[journal]\nsnapshot_every_events = 10\nkeep_events = 30\n";
    let server = Served::start(config, folder.path());
    server.admin("/admin/add_app", &app("digits", 20_000));
    for n in 0..100 {
        set_slo(&server, "digits", 30_000 + n);
    }
    server.says("events of the journal are not kept any more");
    let page = |body: &Value| -> Value {
        let (_, text) = Http::new(server.management)
            .request("POST", "/admin/journal/log", &body.to_string())
            .unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let all = page(&json!({"limit": 1_000}));
    let forgotten = all["forgotten"].as_u64().unwrap();
    assert!((40..=70).contains(&forgotten), "{forgotten}");
    assert_eq!(all["entries"][0]["seq"], forgotten + 1);
    assert_eq!(all["entries"].as_array().unwrap().len() as u64, 101 - forgotten);
    let text = done(&server, &["journal", "log", "-n", "1000"]);
    assert!(text.starts_with(&format!("Events up to {forgotten} are not kept any more.\n")));
    // Pages join without a gap.
    let (mut seqs, mut after) = (Vec::new(), 0);
    while let Some(next) = {
        let page = page(&json!({"after": after, "limit": 7}));
        let entries = page["entries"].as_array().unwrap();
        seqs.extend(entries.iter().map(|entry| entry["seq"].as_u64().unwrap()));
        page["next"].as_u64()
    } {
        after = next;
    }
    assert_eq!(seqs, (forgotten + 1..=101).collect::<Vec<_>>());
    // The oldest state that is known is the one before the oldest event.
    let slo = |at: u64| {
        let state = told(&server, &["journal", "state", "--at", &at.to_string()]);
        state["catalog"]["apps"]["digits"]["latency_slo"].as_u64().unwrap()
    };
    assert_eq!(
        [forgotten, forgotten + 1, 101].map(slo),
        [forgotten, forgotten + 1, 101].map(|at| 29_998 + at)
    );
    let before = (forgotten - 1).to_string();
    let kept = format!("keeps events {} to 101", forgotten + 1);
    assert!(refused(&server, &["journal", "state", "--at", &before]).contains(&kept));
    assert!(refused(&server, &["journal", "state", "--at", "30d"]).contains(&kept));
    let blame = done(&server, &["journal", "blame", "digits"]);
    let unknown =
        format!("default_output: \"-1.0\"\n    before event {}, by unknown", forgotten + 1);
    assert!(blame.contains(&unknown), "{blame}");
    assert!(blame.contains("latency_slo_micros: 30099\n    event 101, "), "{blame}");
    server.kill_9();
    let server = Served::start(config, folder.path());
    assert_eq!(done(&server, &["journal", "blame", "digits"]), blame);
}

#[test]
fn whoever_may_look_sees_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    let root = told(&server, &["key", "add", "root", "--role", "admin"]);
    let secret = root["secret"].as_str().unwrap().to_owned();
    let eye = told(&server, &["key", "add", "eye", "--role", "observe", "--key", &secret]);
    let eye = eye["secret"].as_str().unwrap().to_owned();
    stop(server);
    let data = folder.path().join("data");
    let hashes: Vec<String> = super::listed(&data)
        .iter()
        .map(|event| event["event"]["key"]["hash"].as_str().unwrap().to_owned())
        .collect();
    let server = Served::start("", folder.path());
    for args in [
        &["journal", "log", "--json"][..],
        &["journal", "diff", "0..", "--json"],
        &["journal", "state", "--at", "1", "--json"],
        &["journal", "state", "--at", "now", "--json"],
    ] {
        let text = done(&server, &[args, &["--key", &eye]].concat());
        assert!(text.contains("root"), "{args:?}: {text}");
        for hash in &hashes {
            assert!(!text.contains(hash.as_str()), "{args:?}: {text}");
        }
    }
    assert!(refused(&server, &["journal", "log"]).contains("asks for a key"));
}
