//! What the tests stand on: servers, containers, HTTP, waiting.

pub mod bystander;
pub mod container;
pub mod events;
pub mod http;
pub mod server;
pub mod zmtp;

use std::time::{Duration, Instant};

/// Far above what any step takes; only a test that fails waits so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `condition` is there and returns how long that took.
pub fn eventually(what: &str, condition: impl FnMut() -> bool) -> Duration {
    within(PATIENCE, what, condition)
}

/// [`eventually`] with a deadline of its own.
pub fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    started.elapsed()
}

/// Application and model `m`, served by `replicas` native containers that take `sleep_us` for a
/// batch and answer 42. An objective of 20 s, so that no test depends on a machine's speed.
pub fn config_of_noop(batch_size: i32, sleep_us: u32, replicas: u32) -> String {
    let clipper = crate::binary();
    let script = format!(
        "exec '{clipper}' container noop --name=$CLIPPER_MODEL_NAME \
         --version=$CLIPPER_MODEL_VERSION --connect=tcp://$CLIPPER_IP:$CLIPPER_PORT \
         --sleep-us={sleep_us} --output=42"
    );
    format!(
        "[[application]]\nname = \"m\"\ninput_type = \"doubles\"\ndefault_output = \"-1\"\n\
         latency_slo_micros = 20000000\nmodel = \"m\"\n\n\
         [[model]]\nname = \"m\"\nversion = \"1\"\ninput_type = \"doubles\"\n\
         batch_size = {batch_size}\n\n\
         [model.container]\nruntime = \"command\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\n\
         replicas = {replicas}\n"
    )
}

/// An interpreter with pyzmq.
pub fn python() -> std::ffi::OsString {
    std::env::var_os("CLIPPER_TEST_PYTHON").expect(
        "set CLIPPER_TEST_PYTHON to a Python 3.9+ that has pyzmq and numpy, for example: \
         python3 -m venv .venv && .venv/bin/pip install pyzmq numpy && \
         export CLIPPER_TEST_PYTHON=$PWD/.venv/bin/python",
    )
}

/// Is there such a process, other than as a zombie?
pub fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

/// All processes below `pid`.
pub fn descendants_of(pid: u32) -> Vec<u32> {
    let mut found = children_of(pid);
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        found.extend(children_of(pid));
        at += 1;
    }
    found
}

/// The processes whose parent is `pid`; any of its threads may have started one.
pub fn children_of(pid: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let files = threads.flatten().map(|thread| thread.path().join("children"));
    let lists = files.filter_map(|file| std::fs::read_to_string(file).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<_>>())
        .collect()
}
