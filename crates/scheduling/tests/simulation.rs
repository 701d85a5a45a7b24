//! The dispatcher in simulation: no violation, and wrong dispatchers are caught. More seeds and
//! traces: `cargo run --release -p clipper_scheduling --example simulate -- --help`.

#[path = "../examples/simulate/checks.rs"]
mod checks;
#[path = "../examples/simulate/mutant.rs"]
mod mutant;
#[path = "../examples/simulate/query.rs"]
mod query;
#[path = "../examples/simulate/replica.rs"]
mod replica;
#[path = "../examples/simulate/scenario.rs"]
mod scenario;
#[path = "../examples/simulate/search.rs"]
mod search;
#[path = "../examples/simulate/tally.rs"]
mod tally;
#[path = "../examples/simulate/violation.rs"]
mod violation;
#[path = "../examples/simulate/world.rs"]
mod world;

use search::{mutants_table, search};

/// A thousand, or as many as `CLIPPER_SIMULATION_SEEDS` says: fewer where a run has to be short.
fn seeds() -> u64 {
    let said = std::env::var("CLIPPER_SIMULATION_SEEDS").ok();
    said.and_then(|said| said.parse().ok()).unwrap_or(1_000)
}

#[test]
fn seeds_without_a_violation() {
    assert!(search(0, seeds()));
}

#[test]
fn each_wrong_dispatcher_is_caught() {
    // Some of them need hundreds of seeds: no test for a short run.
    assert!(seeds() < 1_000 || mutants_table(10_000));
}
