//! The dispatcher in simulation: no violation, and wrong dispatchers are caught. More seeds and
//! traces: `cargo run --release -p clipper_scheduling --example simulate -- --help`.

#[path = "../examples/simulate/checks.rs"]
mod checks;
#[path = "../examples/simulate/mutant.rs"]
mod mutant;
#[path = "../examples/simulate/query.rs"]
mod query;
#[path = "../examples/simulate/scenario.rs"]
mod scenario;
#[path = "../examples/simulate/search.rs"]
mod search;
#[path = "../examples/simulate/world.rs"]
mod world;

use search::{mutants_table, search};

#[test]
fn a_thousand_seeds_without_a_violation() {
    assert!(search(0, 1_000));
}

#[test]
fn each_wrong_dispatcher_is_caught() {
    assert!(mutants_table(10_000));
}
