//! Rollbacks by either of two frontends, through the shared tables.

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::redis::harness::{Clipper, Redis, until_true};
use crate::support::random_changes::{any_change, exported, last_event};
use crate::support::size;

#[test]
fn random_changes_by_two_frontends_are_undone_by_either() {
    let changes = size("CLIPPER_UNDO_CHANGES", 200, 10_000);
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    // None of the points is forgotten.
    let keep = [("CLIPPER_JOURNAL__KEEP_EVENTS", "1000000")];
    let start = |name: &str| Clipper::start(&redis.url(), &dir.path().join(name), &keep);
    let clippers = [start("a"), start("b")];
    let ask = |at: usize| {
        let clipper = &clippers[at];
        move |operation: &str, body: &Value| clipper.admin(operation, body)
    };
    let settled = || {
        until_true("both have the same", || exported(&ask(0)) == exported(&ask(1)));
        ([last_event(&ask(0)), last_event(&ask(1))], exported(&ask(0)))
    };
    let mut random = SmallRng::seed_from_u64(16);
    // Each frontend counts its events by itself.
    let mut points = vec![settled()];
    let (mut made, mut undone, mut late) = (0, 0, 0);
    while made < changes {
        let (operation, body) = any_change(&mut random);
        let at = random.random_range(0..2);
        made += usize::from(ask(at)(operation, &body).0 == 200);
        if random.random_range(0..10) > 0 {
            continue;
        }
        points.push(settled());
        if random.random_range(0..3) == 0 {
            let (seqs, state) = points[random.random_range(0..points.len())].clone();
            let body = json!({"to": seqs[at].to_string()});
            let (status, text) = ask(at)("rollback", &body);
            // What the other has done may not have come here yet: then it is planned again.
            let (status, text) = if status == 409 {
                late += 1;
                settled();
                ask(at)("rollback", &body)
            } else {
                (status, text)
            };
            assert_eq!(status, 200, "to {}: {text}", seqs[at]);
            assert_eq!(exported(&ask(at)), state, "to {}", seqs[at]);
            undone += 1;
            points.push(settled());
            assert_eq!(points.last().unwrap().1, state);
        }
    }
    println!("{made} changes, {undone} rollbacks, {late} planned again");
    assert!(undone > 0);
}
