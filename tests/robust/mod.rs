//! Attacks on the RPC port of the real server, beside a container and a client that behave.
//!
//! Each case says what becomes of the attacker; for each, the server stays up, the client's answers
//! stay right and quick, memory stays bounded, and a counter and a log line say why the attacker
//! was refused. `CLIPPER_ROBUST_FULL=1` runs the full sizes that `docs/robustness.md` reports; the
//! table is printed with `--nocapture`.

pub mod attacker;
mod cases;
pub mod client;
mod limits;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::support::served::{Served, until};
use cases::CASES;
use client::LiveClient;

/// Short times, so that the cases that wait for them are quick; small tables, so that they fill.
pub const CONFIG: &str = "
[rpc]
handshake_timeout_ms = 1000
pending_handshakes_max = 64
silence_timeout_ms = 3000
";

/// A whole server may take this much more memory after a case: far above what one connection's
/// limits allow to stay behind, far below what the attacks would take without limits.
const MEMORY_MAX_MB: f64 = 100.0;

/// The slowest percentile of the others may be this many times what it was without an attacker,
const P99_RATIO_MAX: u32 = 20;
/// or this long. Asserted in full size only: a busy machine says nothing of it.
const P99_FLOOR: Duration = Duration::from_millis(300);

/// The full sizes, or what fits into a quick run.
#[must_use]
pub fn size(full: usize, quick: usize) -> usize {
    if is_full() { full } else { quick }
}

fn is_full() -> bool {
    std::env::var_os("CLIPPER_ROBUST_FULL").is_some()
}

/// One attack.
pub struct Case {
    /// What is done.
    pub name: &'static str,
    /// The reason that the attacker's connections end for: its metric label and the word in the
    /// log. `None`: they are legitimate and stay.
    pub ends: Option<(&'static str, &'static str)>,
    /// Attacks; says what became of it.
    pub run: fn(&Served) -> String,
}

fn run(case: &Case, server: &mut Served, live: &LiveClient, quiet: Duration) -> Vec<String> {
    let mut faults = Vec::new();
    let memory = server.resident_mb();
    let counted = case.ends.map(|(label, _)| server.ended(label));
    live.window();

    let outcome = match catch_unwind(AssertUnwindSafe(|| (case.run)(server))) {
        Ok(outcome) => outcome,
        Err(panic) => {
            faults.push(format!("{}: {}", case.name, said(&*panic)));
            return faults;
        }
    };

    live.await_answers(100);
    let window = live.window();
    assert!(server.is_up(), "{}: the server ended: {:?}", case.name, server.log().last());
    if !window.wrong.is_empty() {
        faults.push(format!("{}: wrong answers to the live client: {:?}", case.name, window.wrong));
    }
    if is_full() && window.p99 > (quiet * P99_RATIO_MAX).max(P99_FLOOR) {
        faults.push(format!("{}: the live client's p99 became {:?}", case.name, window.p99));
    }
    let memory_after = server.resident_mb();
    if memory_after > memory + MEMORY_MAX_MB {
        faults.push(format!("{}: memory went from {memory} to {memory_after} MB", case.name));
    }
    let mut moved = "-".to_owned();
    if let (Some((label, word)), Some(before)) = (case.ends, counted) {
        let more = until(case.name, || Some(server.ended(label) - before).filter(|n| *n > 0.0));
        moved = format!("{label} +{more}");
        let said = format!("\"reason\":\"{word}\"");
        // A connection that its own peer closes is no news.
        if word != "Closed" {
            server.says(&said);
        }
    }
    println!(
        "| {} | {outcome} | {memory:.0} -> {memory_after:.0} MB | {quiet:.1?} -> {:.1?} \
         ({} answers) | {moved} |",
        case.name, window.p99, window.answers
    );
    faults
}

/// What a case failed with.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked")
}

#[test]
fn the_rpc_port_survives_its_attackers() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Served::start(CONFIG, folder.path());
    server.add_linked("live", 2_000_000);
    let _container = server.noop("live");
    server.await_replicas("live", 1);
    let live = LiveClient::start(server.query, "live");
    // The first answers warm the process up.
    live.await_answers(200);
    live.window();
    live.await_answers(500);
    let quiet = live.window();
    assert!(quiet.wrong.is_empty(), "without an attacker: {:?}", quiet.wrong);

    println!("| case | outcome | memory | others' p99 | counter |\n|---|---|---|---|---|");
    let only = std::env::var("CLIPPER_ROBUST_CASE").unwrap_or_default();
    let chosen = CASES.iter().filter(|case| case.name.contains(&only));
    let faults: Vec<String> =
        chosen.flat_map(|case| run(case, &mut server, &live, quiet.p99)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    server.await_replicas("live", 1);
}
