//! Policies lose no more than theory allows. A million rounds, and other libraries' figures:
//! `cargo run --release -p clipper_selection --example regret -- --help`.

#[path = "../examples/regret/game.rs"]
mod game;
#[path = "../examples/regret/play.rs"]
mod play;
#[path = "../examples/regret/table.rs"]
mod table;

use table::Table;

#[test]
fn no_policy_is_over_its_bound() {
    let table = Table::of(10_000, 3, 1, |_, _| None);
    assert!(table.is_within(), "{table}");
}
