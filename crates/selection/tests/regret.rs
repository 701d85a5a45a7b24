//! Policies lose no more than theory allows. A million rounds, and another library's figures:
//! `cargo run --release -p clipper_selection --example regret -- --help`.

#[path = "../examples/regret/game.rs"]
mod game;
#[path = "../examples/regret/play.rs"]
mod play;

use play::report;

#[test]
fn no_policy_is_over_its_bound() {
    for seed in 1..4 {
        let mut is_within = true;
        let table = report(10_000, seed, &mut is_within);
        assert!(is_within, "{table}");
    }
}
