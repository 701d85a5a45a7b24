//! Rollouts end as they should. More of them, and what docs/rollouts.md shows:
//! `cargo run --release -p clipper_selection --example rollouts`.

#[path = "../examples/rollouts/traffic.rs"]
mod traffic;

use clipper_domain::rollout::RolloutEnd;
use traffic::{report, roll, versions};

#[test]
fn good_versions_are_promoted_and_bad_ones_rolled_back() {
    let report = report(8, 1);
    assert!(report.is_as_promised, "{}", report.table);
}

#[test]
fn what_breaks_a_guard_is_what_is_wrong() {
    let faults = ["errors<1%", "p99<slo", "disagreement<2%", "loss<=baseline"];
    for ((name, version, _), guard) in versions().into_iter().skip(3).zip(faults) {
        let ended = roll(version, 7);
        let RolloutEnd::RolledBack { evidence } = ended.end else { panic!("{name}: {ended:?}") };
        assert_eq!(evidence.guard.to_string(), guard, "{name}");
        assert!(evidence.value_millionths > evidence.bound_millionths, "{evidence}");
    }
}
