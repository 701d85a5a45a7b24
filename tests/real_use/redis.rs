//! Redis that changes its role, evicts, is shared with others.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Instant;

use serde_json::{Value, json};

use crate::redis::harness::{Clipper, PATIENCE, Redis, get, pause, until, until_true};
use crate::support::size;

const APP: &str = "input_type doubles policy p default_output 0 latency_slo_micros 5000000";

fn app(name: &str) -> Value {
    json!({"name": name, "input_type": "doubles", "default_output": "-1",
        "latency_slo_micros": 5_000_000})
}

fn apps(clipper: &Clipper) -> usize {
    clipper.catalog()[0].as_array().unwrap().len()
}

fn start(url: &str, dir: &Path) -> Clipper {
    Clipper::start(url, dir, &[])
}

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().parse().unwrap()
}

/// An address that leads elsewhere from one moment to the next; connections stay where they are.
struct StableAddress {
    url: String,
    target: Arc<Mutex<u16>>,
}

impl StableAddress {
    fn to(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let target = Arc::new(Mutex::new(port_of(&redis.url())));
        let now = Arc::clone(&target);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let port = *now.lock().unwrap();
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let ends = [(&client, &server), (&server, &client)];
                for (from, to) in ends.map(|(a, b)| (a.try_clone(), b.try_clone())) {
                    let (mut from, mut to) = (from.unwrap(), to.unwrap());
                    std::thread::spawn(move || {
                        let mut bytes = [0; 16 << 10];
                        while let Ok(n @ 1..) = from.read(&mut bytes) {
                            if to.write_all(&bytes[..n]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        Self { url, target }
    }

    fn lead_to(&self, redis: &Redis) {
        *self.target.lock().unwrap() = port_of(&redis.url());
    }
}

/// `replica` has what `primary` has, and takes its place.
fn fail_over(primary: &Redis, replica: &Redis) {
    let (old, new) = (port_of(&primary.url()), port_of(&replica.url()));
    replica.db(0).tell(&format!("REPLICAOF 127.0.0.1 {old}"));
    until_true("the replica has everything", || {
        let info: String = replica.db(0).ask("INFO replication");
        info.contains("master_link_status:up") && replica.catalog() == primary.catalog()
    });
    replica.db(0).tell("REPLICAOF NO ONE");
    primary.db(0).tell(&format!("REPLICAOF 127.0.0.1 {new}"));
}

#[test]
fn line_12_a_changed_role_is_a_fault_of_the_connection() {
    let (first, second) = (Redis::start(), Redis::start());
    let address = StableAddress::to(&first);
    let dir = tempfile::tempdir().unwrap();
    let clipper = start(&address.url, dir.path());
    clipper.done("add_app", &app("before"));
    fail_over(&first, &second);
    // The address still leads to what is a replica now: honest, and refused with the reason.
    until_true("the changed role is noticed", || !clipper.connected());
    let (status, text) = clipper.admin("add_app", &app("early"));
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("nothing was written") && text.contains("READONLY"), "{text}");
    assert!(clipper.serves("before"));
    address.lead_to(&second);
    until_true("a change succeeds at the new primary", || {
        clipper.admin("add_app", &app("after")).0 == 200
    });
    assert!(clipper.connected() && apps(&clipper) == 2);
    assert_eq!(second.dump(5).len(), 2);
}

#[test]
fn line_12_sentinels_tell_where_the_primary_is() {
    let (first, second) = (Redis::start(), Redis::start());
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("sentinel.conf");
    let port = crate::support::ports::free_port();
    let text = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor them 127.0.0.1 {} 1\n",
        port_of(&first.url())
    );
    std::fs::write(&config, text).unwrap();
    let mut sentinel = std::process::Command::new("redis-server");
    sentinel.arg(&config).arg("--sentinel").stdout(std::process::Stdio::null());
    let _sentinel = crate::support::served::Process(sentinel.spawn().unwrap());
    until_true("the sentinel answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let url = format!("redis+sentinel://127.0.0.1:{port}/them");
    let clipper = start(&url, &dir.path().join("data"));
    clipper.done("add_app", &app("before"));
    fail_over(&first, &second);
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
    let mut sentinel = client.get_connection().unwrap();
    for words in [
        vec!["REMOVE".to_owned(), "them".to_owned()],
        ["MONITOR", "them", "127.0.0.1", &port_of(&second.url()).to_string(), "1"]
            .map(str::to_owned)
            .to_vec(),
    ] {
        redis::cmd("SENTINEL").arg(words).query::<()>(&mut sentinel).unwrap();
    }
    until_true("a change succeeds at the new primary", || {
        clipper.admin("add_app", &app("after")).0 == 200
    });
    assert_eq!(second.dump(5).len(), 2);
}

#[test]
fn line_13_evicted_and_expired_entries_are_restored() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    redis.db(0).tell("CONFIG SET maxmemory-policy allkeys-lru");
    let clipper = start(&redis.url(), dir.path());
    clipper.says("Redis may evict entries of the tables");
    assert!(clipper.metric("clipper_redis_may_evict") > 0.5);
    for n in 0..20 {
        clipper.done("add_app", &app(&format!("a{n}")));
    }
    redis.db(5).tell("PEXPIRE a3 1");
    // Nothing fits any more: every key goes, the marker too.
    redis.db(0).tell("CONFIG SET maxmemory 1");
    until_true("all is evicted", || {
        let _: Result<String, _> = redis::cmd("SET")
            .arg("x")
            .arg("y")
            .query(&mut redis::Client::open(redis.url()).unwrap().get_connection().unwrap());
        redis.dump(5).is_empty()
    });
    redis.db(0).tell("CONFIG SET maxmemory 0");
    until_true("all is written back", || redis.dump(5).len() == 20 && !redis.dump(4).is_empty());
    assert_eq!(apps(&clipper), 20);
    assert!(clipper.metric("clipper_redis_restored_total") >= 20.0);
    assert!(!clipper.logged("emptied by somebody"));
    // What somebody deletes is deleted all the same.
    redis.db(5).tell("DEL a4");
    until_true("deleted", || apps(&clipper) == 19);
}

#[test]
fn line_13_a_policy_that_evicts_nothing_is_no_warning() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let clipper = start(&redis.url(), dir.path());
    assert!(!clipper.logged("Redis may evict") && clipper.metric("clipper_redis_may_evict") < 0.5);
}

fn fill(redis: &Redis, db: i64, count: usize, prefix: &str) {
    let client = redis::Client::open(format!("{}/{db}", redis.url())).unwrap();
    let mut connection = client.get_connection().unwrap();
    for first in (0..count).step_by(5_000) {
        let mut pipeline = redis::pipe();
        for n in first..count.min(first + 5_000) {
            pipeline.cmd("SET").arg(format!("{prefix}{n}")).arg("x").ignore();
        }
        pipeline.query::<()>(&mut connection).unwrap();
    }
}

#[test]
fn line_14_keys_of_others_cost_nothing_beyond_their_notice() {
    let redis = Redis::start_with(&["--appendonly", "no"]);
    redis.db(5).tell(&format!("HMSET ours {APP}"));
    let foreign = size("CLIPPER_TEST_FOREIGN", 10_000, 100_000);
    for (db, count) in [(2, foreign / 2), (5, foreign)] {
        fill(&redis, db, count, "theirs");
    }
    let dir = tempfile::tempdir().unwrap();
    let clipper = start(&redis.url(), dir.path());
    let about = |line: &String| line.contains("passed over");
    let lines = clipper.log.lock().iter().filter(|line| about(line)).cloned().collect::<Vec<_>>();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    // Short-lived keys come and go, and so do changes.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (url, stopped) = (redis.url(), &stop);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let client = redis::Client::open(format!("{url}/5")).unwrap();
            let mut connection = client.get_connection().unwrap();
            for n in 0.. {
                if stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                let mut set = redis::cmd("SET");
                set.arg(format!("session{n}")).arg("x").arg("PX").arg(300);
                set.query::<()>(&mut connection).unwrap();
                std::thread::park_timeout(std::time::Duration::from_millis(5));
            }
        });
        let events = clipper.metric("clipper_redis_failures_total");
        let (used, since) = (clipper.cpu_seconds(), Instant::now());
        for n in 0..9 {
            clipper.done("add_app", &app(&format!("a{n}")));
            // At least one pulse between two changes.
            std::thread::park_timeout(std::time::Duration::from_millis(300));
        }
        let share = (clipper.cpu_seconds() - used) / since.elapsed().as_secs_f64();
        let failures = clipper.metric("clipper_redis_failures_total") - events;
        println!(
            "{foreign} foreign keys in database 5, {} in 2, 200 short-lived ones a second: 9 of 9 \
             changes made, {share:.3} of a core, {failures} connections failed",
            foreign / 2
        );
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(apps(&clipper), 10);
    let lines = clipper.log.lock().iter().filter(|line| about(line)).count();
    assert_eq!(lines, 1);
}

/// Of each kind of name that is no entry of its table, or whose entry would be.
#[test]
fn line_14b_a_start_beside_keys_of_others_keeps_none_of_them() {
    let redis = Redis::start_with(&["--appendonly", "no"]);
    redis.db(5).tell(&format!("HMSET ours {APP}"));
    let foreign = size("CLIPPER_TEST_FOREIGN_AT_START", 10_000, 300_000);
    let few = foreign / 10;
    fill(&redis, 5, foreign, "theirs");
    for (db, prefix) in [
        (1, "theirs:0:"),
        (2, "theirs:"),
        (3, "theirs,1,"),
        (4, "theirs"),
        (5, "theirs:"),
        (6, "theirs"),
        (7, "theirs"),
    ] {
        fill(&redis, db, few, prefix);
    }
    let dir = tempfile::tempdir().unwrap();
    let since = Instant::now();
    let clipper =
        Clipper::start(&redis.url(), dir.path(), &[("CLIPPER_REDIS__RECONCILE_INTERVAL_MS", "50")]);
    let (took, resident) = (since.elapsed(), clipper.resident_mib());
    println!(
        "start beside {foreign} foreign keys in database 5 and {few} in each of seven: {took:?}, \
         {resident} MiB"
    );
    // What is no name of ours in databases 4 and 6 is not asked for.
    let passed_over = (foreign + 3 * few) as f64;
    let counted = || clipper.metric("clipper_redis_malformed_entries");
    assert!((counted() - passed_over).abs() < 0.5, "{} of {passed_over}", counted());
    let about = |line: &&String| line.contains("entries in Redis are passed over");
    assert_eq!(clipper.log.lock().iter().filter(about).count(), 1);
    assert_eq!(apps(&clipper), 1);
    // Changes go on beside, also those of others, and while all tables are looked at.
    for n in 0..5 {
        clipper.done("add_app", &app(&format!("a{n}")));
        redis.db(5).tell(&format!("HMSET others{n} {APP}"));
        until_true("followed", || clipper.serves(&format!("others{n}")));
    }
    redis.db(5).tell("DEL theirs1");
    until_true("counted", || (counted() - passed_over + 1.0).abs() < 0.5);
    assert_eq!(clipper.log.lock().iter().filter(about).count(), 1);
}

#[test]
fn line_15_a_registered_application_has_its_row_in_table_1() {
    let redis = Redis::start();
    let (dir, embedded_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (clipper, embedded) = (start(&redis.url(), dir.path()), start("", embedded_dir.path()));
    for (name, output) in [("digits", "-1"), ("quotes", r#"{"a": "\u00e9\""}"#)] {
        let mut spec = app(name);
        spec["default_output"] = json!(output);
        let state = json!({"app_name": name, "uid": 0});
        for server in [&clipper, &embedded] {
            server.done("add_app", &spec);
            until_true("the state", || server.done("get_state", &state) == output);
        }
        let row: Option<String> = redis.db(1).run(&["GET", &format!("{name}:0:0")]);
        assert_eq!(row.unwrap(), format!(r#"{{"y_hat":{}}}"#, json!(output)));
    }
    clipper.done("delete_app", &json!({"name": "digits"}));
    until_true("it goes with the application", || redis.dump(1).len() == 1);
}

/// The words that docs/redis.md gives to the server's user.
fn documented_permissions() -> Vec<String> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/redis.md"));
    let page = page.unwrap();
    let block = page.split("ACL SETUSER clipper").nth(1).expect("docs/redis.md has the command");
    let block = block.split("```").next().unwrap().replace('\\', " ");
    block.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect()
}

#[test]
fn line_16_the_documented_permissions_are_enough() {
    let redis = Redis::start();
    redis.db(0).tell("CONFIG SET notify-keyspace-events KA");
    let mut words = vec!["ACL".to_owned(), "SETUSER".to_owned(), "clipper".to_owned()];
    words.extend(documented_permissions());
    assert!(words.contains(&"-@all".to_owned()), "{words:?}");
    let password = words.iter().find_map(|word| word.strip_prefix('>')).unwrap().to_owned();
    redis.db(0).run::<redis::Value>(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let url = redis.url().replace("redis://", &format!("redis://clipper:{password}@"));
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (clipper, other) = (start(&url, dir.path()), start(&url, other_dir.path()));
    clipper.done("add_app", &app("digits"));
    let model = json!({"model_name": "net", "model_version": "1", "input_type": "d", "labels": [],
        "container_name": "c", "model_data_path": "/m", "batch_size": -1});
    clipper.done("add_model", &model);
    clipper.done("add_model_links", &json!({"app_name": "digits", "model_names": ["net"]}));
    until_true("the other follows", || other.catalog() == clipper.catalog());
    let _replica = other.container("net", "1", "7");
    until_true("its row", || redis.dump(3).len() == 1);
    until_true("a prediction", || other.predict("digits").1["output"] == 7);
    redis.db(5).tell("HSET digits default_output 5");
    until_true("an operator's change", || clipper.catalog()[0][0]["default_output"] == "5");
    clipper.done("delete_model_links", &json!({"app_name": "digits", "model_names": ["net"]}));
    other.done("delete_versioned_model", &json!({"model_name": "net", "model_version": "1"}));
    for server in [&clipper, &other] {
        for refused in ["NOPERM", "no permissions"] {
            assert!(!server.logged(refused), "{refused}: {:#?}", server.log.lock());
        }
    }
    redis.db(0).tell("FLUSHALL");
    until_true("FLUSHALL is an order", || [&clipper, &other].iter().all(|c| apps(c) == 0));
    clipper.done("add_app", &app("again"));
}

#[test]
fn line_16_flushall_is_an_order_also_where_the_server_tells_nothing_of_itself() {
    let redis = Redis::start();
    redis.db(0).tell("ACL SETUSER clipper on >secret ~* &* +@all -info -config");
    redis.db(0).tell("CONFIG SET notify-keyspace-events KA");
    let url = redis.url().replace("redis://", "redis://clipper:secret@");
    let dir = tempfile::tempdir().unwrap();
    let clipper = start(&url, dir.path());
    clipper.done("add_app", &app("digits"));
    redis.db(0).tell("FLUSHALL");
    until_true("it is gone", || apps(&clipper) == 0);
    assert_eq!(redis.dump(5), [""; 0]);
}

#[test]
fn line_16_without_redis_at_a_first_start_the_server_is_not_ready_and_says_why() {
    let mut redis = Redis::start();
    redis.kill();
    let dir = tempfile::tempdir().unwrap();
    let clipper = Clipper::start_unready(&redis.url(), dir.path(), &[]);
    let body = until("the reason", || {
        let (status, body) = get(clipper.query, "/readyz");
        assert_eq!(status, 503, "{body}");
        body.contains("Redis is away").then_some(body)
    });
    assert!(body.contains("metadata known"), "{body}");
    redis.run();
    until_true("ready", || get(clipper.query, "/readyz").0 == 200);
    clipper.done("add_app", &app("a"));
    clipper.kill();
    // With a journal there is something to serve.
    redis.kill();
    let clipper = Clipper::start(&redis.url(), dir.path(), &[]);
    assert!(clipper.serves("a"));
}

#[test]
fn line_11e_many_links_of_one_application_are_read_in_linear_time() {
    let redis = Redis::start_with(&["--appendonly", "no"]);
    let dir = tempfile::tempdir().unwrap();
    let clipper = start(&redis.url(), dir.path());
    redis.db(5).tell(&format!("HMSET digits {APP}"));
    until_true("served", || clipper.serves("digits"));
    let count = size("CLIPPER_TEST_LINKS", 16_000, 200_000);
    let models: Vec<String> = (0..count).map(|n| format!("m{n}")).collect();
    let started = Instant::now();
    for chunk in models.chunks(1_000) {
        let mut words = vec!["SADD", "digits"];
        words.extend(chunk.iter().map(String::as_str));
        redis.db(7).run::<redis::Value>(&words);
    }
    let mut followed = 0;
    while followed < count {
        assert!(started.elapsed() < PATIENCE * 20, "{followed} of {count} links are followed");
        let linked = clipper.done("get_linked_models", &json!({"app_name": "digits"}));
        followed = serde_json::from_str::<Vec<String>>(&linked).unwrap().len();
        // The answer names them all.
        pause(std::time::Duration::from_millis(200));
    }
    println!("{count} links followed after {:?}", started.elapsed());
    // One that was given up may still be written, so each has a name of its own.
    let mut names = (0..).map(|n| app(&format!("next{n}")));
    until("a change is made", || {
        let next = names.next().unwrap();
        (clipper.admin("add_app", &next).0 == 200).then_some(())
    });
}

#[test]
fn line_17_every_frontend_keeps_the_replicas_that_one_was_asked_for() {
    let redis = Redis::start();
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let lease = ("CLIPPER_REDIS__LEASE_MS", "3000");
    let [asked, other] =
        [0, 1].map(|n: usize| Clipper::start(&redis.url(), dirs[n].path(), &[lease]));
    let exe = crate::binary();
    let script = format!(
        "exec '{exe}' container noop --name=$CLIPPER_MODEL_NAME \
         --version=$CLIPPER_MODEL_VERSION --connect=tcp://$CLIPPER_IP:$CLIPPER_PORT --output=42"
    );
    let deployed = std::process::Command::new(exe)
        .args(["deploy", "--url", &format!("http://{}", asked.management), "--app", "a"])
        .args(["--slo-ms", "5000", "--default-output", "-1", "--name", "m", "--timeout", "20"])
        .args(["--command", "sh", "-c", &script])
        .output()
        .unwrap();
    assert!(deployed.status.success(), "{}", String::from_utf8_lossy(&deployed.stderr));
    let answers = |clipper: &Clipper| clipper.predict("a").1["output"] == 42;
    until_true("both answer", || answers(&asked) && answers(&other));
    // Their number is shared, too; no version is deployed for it.
    for (count, which) in [("3", "m"), ("1", "m:1")] {
        let set = std::process::Command::new(exe)
            .args(["admin", "--url", &format!("http://{}", other.management)])
            .args(["replicas", "set", which, count])
            .output()
            .unwrap();
        assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
        let rows = 2 * count.parse::<usize>().unwrap();
        until_true("each has as many", || redis.dump(3).len() == rows);
        assert_eq!(redis.dump(2).len(), 1);
    }
    let body = json!({"model_name": "m", "num_replicas": 100_000});
    let (status, text) = asked.admin("set_replicas", &body);
    assert!(status == 400 && text.contains("management.deploy_replicas_max"), "{text}");
    assert!(answers(&asked) && answers(&other));
    // One that comes later does too, unless it starts no programs for others.
    let off = [("CLIPPER_MANAGEMENT__DEPLOY", "off"), lease];
    let late = start(&redis.url(), dirs[2].path());
    until_true("the late one answers", || answers(&late));
    late.kill();
    std::fs::remove_dir_all(dirs[2].path().join("journal")).unwrap();
    let without = Clipper::start(&redis.url(), dirs[2].path(), &off);
    assert_eq!(without.predict("a").1["default"], json!(true));
    // Who deploys is told of it, once the other has said that it is there.
    let version = std::cell::Cell::new(1);
    until_true("the server without replicas is named", || {
        version.set(version.get() + 1);
        let deployed = std::process::Command::new(exe)
            .args(["deploy", "--url", &format!("http://{}", asked.management), "--app", "a"])
            .args(["--name", "m", "--version", &version.get().to_string(), "--timeout", "20"])
            .args(["--command", "sh", "-c", &script])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&deployed.stdout).into_owned()
            + &String::from_utf8_lossy(&deployed.stderr);
        assert!(deployed.status.success(), "{said}");
        said.contains("has no replicas of m:") && said.contains("management.deploy is \"off\"")
    });
}
