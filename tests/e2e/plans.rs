//! Plans as scripts and pipelines meet them: by whom, how large, how they end, what is printed.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use clipper_domain::Role;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::e2e::access::{clipper as by_key, guarded, refused, secret};
use crate::e2e::admin_cli::{clipper, text};
use crate::e2e::support::config_of_noop;
use crate::e2e::support::http::{Connection, request};
use crate::e2e::support::server::Server;
use crate::support::size;

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// What a key may change verb by verb it may apply; programs are started for the role admin alone.
#[test]
fn a_file_with_programs_is_applied_by_the_role_admin_alone() {
    let folder = tempfile::tempdir().unwrap();
    let server = guarded("", folder.path());
    let named = config_of_noop(-1, 0, 1).replace("\"m\"", "\"am\"");
    let (plain, _) = named.split_once("[model.container]").unwrap();
    let [with, without] =
        [("with.toml", named.as_str()), ("without.toml", plain)].map(|(name, text)| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).unwrap();
            file.display().to_string()
        });
    let apply = |role: Role, file: &str, more: &[&str]| {
        by_key(&server, Some(&secret(role)), &[&["apply", "-f", file, "--yes"], more].concat())
    };
    let before = by_key(&server, Some(&secret(Role::Admin)), &["export", "--file", "-"]).stdout;
    assert!(refused(&apply(Role::Observe, &without, &[])).contains("observe"));
    let why = refused(&apply(Role::Operate, &with, &[]));
    assert!(why.contains("replicas of am:1") && why.contains("starts no programs"), "{why}");
    let now = by_key(&server, Some(&secret(Role::Admin)), &["export", "--file", "-"]).stdout;
    assert_eq!(now, before, "none of it was made");
    assert!(succeeded(&apply(Role::Operate, &without, &[])).contains("Done"));
    assert!(succeeded(&apply(Role::Admin, &with, &[])).contains("Done"));
    // Nor does it come back by a rollback to where it ran.
    let gone = ["rollback", "--to", "0", "--yes"];
    succeeded(&by_key(&server, Some(&secret(Role::Admin)), &gone));
    let last =
        succeeded(&by_key(&server, Some(&secret(Role::Admin)), &["journal", "log", "--json"]));
    let planned = last.lines().find(|line| line.contains("replicas_planned")).unwrap();
    let planned: Value = serde_json::from_str(planned).unwrap();
    let to = planned["seq"].to_string();
    let back = ["rollback", "--to", &to, "--yes"];
    let why = refused(&by_key(&server, Some(&secret(Role::Operate)), &back));
    assert!(why.contains("starts no programs"), "{why}");
    succeeded(&by_key(&server, Some(&secret(Role::Admin)), &back));
}

fn apps(count: u64, slo: u64) -> Vec<Value> {
    let app = |n| {
        json!({"name": format!("a{n}"), "input_type": "doubles", "default_output": "-1",
            "latency_slo_micros": slo})
    };
    (0..count).map(app).collect()
}

/// How many applications have an objective.
fn with_slo(server: &Server, slo: u64) -> usize {
    let all = server.manage("get_all_applications", &json!({"verbose": true}));
    let all: Vec<Value> = serde_json::from_str(&all).unwrap();
    all.iter().filter(|app| app["latency_slo_micros"] == json!(slo)).count()
}

/// More steps than one change takes: each part is made whole, whatever happens, and the rest is
/// told and made by applying again.
#[test]
fn a_large_plan_is_made_in_whole_parts_and_the_rest_is_told() {
    let rounds = size("CLIPPER_TEST_LARGE_PLANS", 3, 60) as u64;
    let mut random = SmallRng::seed_from_u64(500);
    let mut server = Server::start();
    let said: Value =
        serde_json::from_str(&server.manage("apply", &json!({"application": apps(1_200, 1)})))
            .unwrap();
    assert_eq!((&said["done"], said.get("failed")), (&json!(1_200), None));
    let mut seen = std::collections::BTreeMap::<usize, u32>::new();
    for round in 2..rounds + 2 {
        let body = json!({"application": apps(1_200, round)});
        let whole = request("POST", "/admin/apply", body.to_string().as_bytes());
        let mut connection = Connection::open(server.management);
        let sending = std::thread::spawn(move || {
            connection.send(&whole);
            connection.answer("POST")
        });
        // The moment of the kill is what is tried out.
        std::thread::sleep(Duration::from_millis(random.random_range(0..800)));
        server.kill();
        let answer = sending.join().unwrap();
        server = server.restart();
        let new = with_slo(&server, round);
        assert!([0, 500, 1_000, 1_200].contains(&new), "{new} of 1,200");
        if answer.is_some_and(|answer| answer.status == 200) {
            assert_eq!(new, 1_200, "acknowledged");
        }
        *seen.entry(new).or_default() += 1;
        let mut rest = body.clone();
        rest["dry_run"] = json!(true);
        let rest: Value = serde_json::from_str(&server.manage("apply", &rest)).unwrap();
        assert_eq!(rest["steps"].as_array().unwrap().len(), 1_200 - new);
        server.manage("apply", &body);
        assert_eq!(with_slo(&server, round), 1_200);
    }
    println!("steps that were there after a kill, and how often: {seen:?}");
}

/// Somebody else changes something between two parts of a plan: the rest is not made on a state
/// that it was not planned for, and that is said.
#[test]
fn a_large_plan_stops_where_somebody_else_has_been() {
    let server = Server::start();
    server.add_app("other", "doubles", "0", 1);
    let management = server.management;
    let over = std::sync::atomic::AtomicBool::new(false);
    let (mut stopped, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = Connection::open(management);
            let mut random = SmallRng::seed_from_u64(501);
            let mut n = 2;
            while !over.load(Ordering::Relaxed) {
                let body = json!({"name": "other", "latency_slo_micros": n}).to_string();
                connection.send(&request("POST", "/admin/update_app", body.as_bytes()));
                assert_eq!(connection.answer("POST").unwrap().status, 200);
                n += 1;
                // Another one comes at any point of a plan.
                std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
            }
        });
        let _stop = crate::support::StopAtEnd(&over);
        for slo in 1..40 {
            let answer = server.admin("apply", &json!({"application": apps(1_200, slo)}));
            if answer.status == 409 {
                refused += 1;
                continue;
            }
            let said: Value = serde_json::from_str(&answer.text()).unwrap();
            let done = usize::try_from(said["done"].as_u64().unwrap()).unwrap();
            assert!(with_slo(&server, slo) >= done);
            if done < said["steps"].as_array().unwrap().len() {
                let why = said["failed"].as_str().unwrap();
                assert!(done % 500 == 0 && why.contains("make the plan again"), "{done}: {why}");
                stopped += 1;
                break;
            }
        }
    });
    println!("{refused} plans refused at once, {stopped} after a part");
    assert!(refused + stopped > 0);
}

fn with<'a>(verb: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [verb, more].concat()
}

/// A misspelt member would prune all that is there, or take back more than was meant.
#[test]
fn members_that_nobody_knows_are_refused() {
    let server = Server::start();
    server.add_app("a", "doubles", "0", 1);
    server.add_app("b", "doubles", "0", 1);
    for (verb, body, unknown) in [
        ("apply", json!({"applications": apps(3, 1), "prune": true}), "applications"),
        ("rollback", json!({"to": "0", "app": "a"}), "app"),
        ("journal/log", json!({"application": "a"}), "application"),
        ("journal/diff", json!({"from": "0", "to": "1", "until": "2"}), "until"),
    ] {
        let answer = server.admin(verb, &body);
        let text = answer.text();
        assert!(answer.status == 400 && text.contains("unknown key: "), "{verb}: {text}");
        assert!(text.contains(&format!("unknown key: {unknown}")), "{verb}: {text}");
    }
    assert_eq!(server.manage("get_all_applications", &json!({"verbose": false})), "[\"a\",\"b\"]");
}

fn run(url: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let output = clipper(url, args);
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn exit_codes_are_fit_for_pipelines() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    let url = format!("http://{}", server.management);
    let file = folder.path().join("wanted.toml");
    let path = file.to_str().unwrap();
    let app = "[[application]]\nname = \"a\"\ninput_type = \"doubles\"\ndefault_output = \"0\"\n\
               latency_slo_micros = 5\n";
    std::fs::write(&file, app).unwrap();
    for verb in [&["apply", "-f", path][..], &["rollback", "--to", "0"]] {
        // Nobody is there to be asked, not even with --json.
        for more in [&[][..], &["--json"]] {
            let (code, _, said) = run(&url, &with(verb, more));
            assert!(code == Some(1) && said.contains("--yes"), "{verb:?} {more:?}: {said}");
        }
        let (code, plan, said) = run(&url, &with(verb, &["--dry-run", "--json"]));
        assert_eq!(code, Some(4), "{verb:?}: {said}");
        let plan: Value = serde_json::from_str(&plan).unwrap();
        assert_eq!((&plan["done"], &plan["steps"][0]["name"]), (&json!(0), &json!("a")));
        assert_eq!(run(&url, &with(verb, &["--yes"])).0, Some(0), "{verb:?}");
        // Nothing to do is no failure, however it is asked.
        for more in [&[][..], &["--yes"], &["--dry-run"], &["--json"]] {
            assert_eq!(run(&url, &with(verb, more)).0, Some(0), "{verb:?} {more:?}");
        }
        assert_eq!(run(&url, &with(verb, &["--nonsense"])).0, Some(2));
        assert_eq!(run("http://127.0.0.1:1", &with(verb, &["--yes"])).0, Some(3));
    }
    // What it says of itself goes to stdout, why it failed to stderr.
    let (code, out, said) = run(&url, &["rollback", "--to", "999", "--yes"]);
    assert!(code == Some(1) && out.is_empty() && said.contains("999"), "{out} {said}");
}

/// Registered is not serving: who waits is told which replicas are missing.
#[test]
fn apply_waits_for_replicas_and_says_which_do_not_come() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    let url = format!("http://{}", server.management);
    let file = folder.path().join("wanted.toml");
    // A container that never connects.
    let good = config_of_noop(-1, 0, 2);
    let from = good.find("exec '").unwrap();
    let to = good[from..].find("\"]").unwrap() + from;
    let never = [&good[..from], "sleep 1000", &good[to..]].concat();
    std::fs::write(&file, &never).unwrap();
    let path = file.to_str().unwrap();
    let (code, _, said) = run(&url, &["apply", "-f", path, "--yes", "--timeout", "1"]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("0 of 2 replicas of m:1"), "{said}");
    // It is registered all the same; nobody waits with 0.
    assert_eq!(run(&url, &["apply", "-f", path, "--dry-run"]).0, Some(0));
    assert_eq!(run(&url, &["apply", "-f", path, "--yes", "--timeout", "0"]).0, Some(0));
    assert_eq!(run(&url, &["apply", "-f", path, "--yes", "--timeout", "1"]).0, Some(5));
    // Others that do come, and again those that do not: replicas of before do not count.
    std::fs::write(&file, good).unwrap();
    assert_eq!(run(&url, &["apply", "-f", path, "--yes"]).0, Some(0));
    assert_eq!(server.containers().len(), 2);
    std::fs::write(&file, never).unwrap();
    let (code, _, said) = run(&url, &["apply", "-f", path, "--yes", "--timeout", "2"]);
    assert!(code == Some(5) && said.contains("of 2 replicas of m:1"), "{code:?} {said}");
}

/// What a program prints in a terminal of its own.
fn in_terminal(url: &str, args: &[&str], no_colour: Option<&str>) -> String {
    let mut command = Command::new(crate::e2e::support::python());
    command.args(["-c", include_str!("terminal.py")]).arg(crate::binary()).args(args);
    command.env("CLIPPER_MANAGEMENT_URL", url).env_remove("NO_COLOR");
    command.envs(no_colour.map(|value| ("NO_COLOR", value)));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(b"n\n");
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.wait().unwrap();
    out
}

#[test]
fn a_plan_has_colours_on_a_terminal_alone() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    server.add_app("gone", "doubles", "0", 1);
    let url = format!("http://{}", server.management);
    let file: &Path = &folder.path().join("wanted.toml");
    let app = "[[application]]\nname = \"a\"\ninput_type = \"doubles\"\ndefault_output = \"0\"\n\
               latency_slo_micros = 5\n";
    std::fs::write(file, app).unwrap();
    let args = ["apply", "-f", file.to_str().unwrap(), "--prune"];
    let (green, red) = ("\u{1b}[32m+ application a", "\u{1b}[31m- application gone");
    let shown = in_terminal(&url, &args, None);
    assert!(shown.contains(green) && shown.contains(red), "{shown}");
    // It asks, and no means no.
    assert!(shown.contains("Make 2 changes? [y/N]"), "{shown}");
    assert!(in_terminal(&url, &args, Some("")).contains(green), "an empty one says nothing");
    let shown = in_terminal(&url, &args, Some("1"));
    assert!(!shown.contains('\u{1b}') && shown.contains("+ application a"), "{shown}");
    let piped = clipper(&url, &[&args[..], &["--dry-run"]].concat());
    assert_eq!(piped.status.code(), Some(4));
    assert!(!text(&piped.stdout).contains('\u{1b}'));
}
