//! Who takes a core from whom: threads that look leave theirs to those that answer, and to models;
//! models leave theirs to those that answer.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::e2e::support::http::get;
use crate::e2e::support::server::Server;
use crate::e2e::support::{config_of_noop, descendants_of};

/// The turns of threads that give way, ns.
const LONG_NS: u64 = 20_000_000;

/// What the system says of a thread.
#[derive(Debug)]
struct Thread {
    name: String,
    nice: i32,
    policy: i32,
    /// The length of its turns, ns, where the kernel tells.
    turn_ns: Option<u64>,
}

impl Thread {
    fn read(folder: &Path) -> Option<Self> {
        let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
        let stat = read("stat")?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |at: usize| fields.get(at)?.parse().ok();
        let (nice, policy) = (field(16)?, field(38)?);
        let sched = read("sched").unwrap_or_default();
        let line = sched.lines().find(|line| line.starts_with("se.slice"));
        let turn_ns = line.and_then(|line| line.rsplit(':').next()?.trim().parse().ok());
        Some(Self { name: read("comm")?.trim().to_owned(), nice, policy, turn_ns })
    }

    fn of(pid: u32) -> Vec<Self> {
        let all = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        all.filter_map(|entry| Self::read(&entry.unwrap().path())).collect()
    }
}

#[test]
fn those_that_look_give_way_to_those_that_answer() {
    let server = Server::with_config(&config_of_noop(-1, 0, 1));
    server.await_replicas("m", 1);
    assert_eq!(server.predict("m", &json!({"input": [1.0]})).status, 200);
    assert_eq!(get(server.metrics, "/metrics").status, 200);
    assert_eq!(get(server.management, "/admin/explain").status, 200);
    assert_eq!(server.admin("journal/log", &json!({})).status, 200);
    let own = Thread::read(Path::new("/proc/thread-self")).unwrap();
    let threads = Thread::of(server.pid());
    let named = |name| {
        let thread = threads.iter().find(|thread| thread.name == name);
        thread.unwrap_or_else(|| panic!("no thread '{name}': {threads:#?}"))
    };
    assert_eq!(named("journal-look").policy, nix::libc::SCHED_IDLE);
    for name in ["metrics", "dashboard"] {
        let thread = named(name);
        assert_eq!(thread.nice, own.nice.max(10), "{thread:?}");
        assert_eq!(thread.turn_ns, own.turn_ns.map(|_| LONG_NS), "{thread:?}");
    }
    let answers = |thread: &&Thread| {
        thread.name.starts_with("actix-rt")
            && (thread.nice, thread.policy) == (own.nice, own.policy)
            && thread.turn_ns == own.turn_ns
    };
    assert!(threads.iter().filter(answers).count() >= 3, "{threads:#?}");
    let models = descendants_of(server.pid());
    assert!(models.len() >= 2, "a wrapper and its container: {models:?}");
    for thread in models.into_iter().flat_map(Thread::of) {
        assert_eq!(thread.turn_ns, own.turn_ns, "of a model: {thread:?}");
        assert_eq!(thread.nice, (own.nice + 5).min(19), "of a model: {thread:?}");
    }
}
