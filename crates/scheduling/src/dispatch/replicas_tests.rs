//! Tests of [`super`]: who gets the next batch.

use std::num::NonZeroU32;

use clipper_domain::BatchSize;

use super::super::assignment::SentBatch;
use super::super::busy::BusyLimits;
use super::*;
use crate::batch_id::BatchId;
use crate::latency::LatencyCurve;

const OBJECTIVE: Duration = Duration::from_millis(100);
const BUSY: BusyLimits = BusyLimits { min: Duration::from_secs(1), max: Duration::from_secs(10) };

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn curve(each: Duration) -> LatencyCurve {
    let mut curve = LatencyCurve::default();
    (0..200).for_each(|_| curve.record(1, each));
    curve
}

/// One that takes so long for a query, `size` of them at once.
fn replica(size: u32, each: Duration) -> Replica {
    let size = BatchSize::Fixed(NonZeroU32::new(size).expect("not zero"));
    Replica::new(BatchController::new(size, 100, curve(each)), Assignments::default())
}

/// Those with these times for a query, numbered from 0.
fn replicas(size: u32, each: &[Duration]) -> Replicas {
    let mut replicas = Replicas::new(7);
    for (id, each) in (0..).zip(each) {
        replicas.join(ReplicaId(id), replica(size, *each));
    }
    replicas
}

/// A batch goes to a replica that was picked.
fn send(replicas: &mut Replicas, id: u32, key: u32, now: Instant) {
    let replica = replicas.get_mut(ReplicaId(id)).expect("it is there");
    let queries = vec![QueryKey::of(key)];
    let curve = replica.controller.curve();
    let batch = SentBatch::new(BatchId(key.into()), queries, now + OBJECTIVE, curve, OBJECTIVE);
    replica.assignments.push(batch, now, BUSY);
}

/// All are picked and sent a batch.
fn all_busy(replicas: &mut Replicas, now: Instant) {
    while let Some(id) = replicas.pick_idle() {
        send(replicas, id.0, id.0, now);
    }
}

#[test]
fn each_idle_replica_is_picked_once() {
    let mut three = replicas(1, &[ms(10); 3]);
    assert_eq!((three.len(), three.idle()), (3, 3));
    let mut picked: Vec<_> = std::iter::from_fn(|| three.pick_idle()).collect();
    picked.sort_unstable();
    assert_eq!(picked, [ReplicaId(0), ReplicaId(1), ReplicaId(2)]);
    assert!(three.idle() == 0 && three.any_idle().is_none());
    three.add_idle(ReplicaId(1));
    assert!(three.any_idle().is_some());
    assert_eq!(three.pick_idle(), Some(ReplicaId(1)));
}

#[test]
fn of_two_idle_replicas_the_faster_one_is_picked_more_often() {
    let mut two = replicas(1, &[ms(10), ms(20)]);
    let mut fast = 0;
    for _ in 0..400 {
        let id = two.pick_idle().expect("both are idle");
        fast += u32::from(id == ReplicaId(0));
        two.add_idle(id);
    }
    assert!((270..330).contains(&fast), "three of four draws see it: {fast}");
}

#[test]
fn one_that_leaves_is_idle_no_more() {
    let mut two = replicas(1, &[ms(10); 2]);
    assert!(two.leave(ReplicaId(0)).is_some() && two.leave(ReplicaId(0)).is_none());
    assert_eq!((two.len(), two.idle()), (1, 1));
    assert!(two.get(ReplicaId(0)).is_none());
    assert_eq!(two.pick_idle(), Some(ReplicaId(1)));
}

#[test]
fn batches_are_no_larger_than_the_limit_of_all() {
    let mut two = replicas(8, &[ms(10); 2]);
    let limit = |two: &Replicas| {
        let one = two.get(ReplicaId(0)).expect("it is there");
        (two.batch_limit(one, OBJECTIVE), two.smallest_batch(OBJECTIVE))
    };
    two.join(ReplicaId(2), replica(3, ms(10)));
    assert_eq!(limit(&two), (8, 3));
    two.limit_batches(5);
    assert_eq!(limit(&two), (5, 3));
    two.limit_batches(0);
    assert_eq!(limit(&two), (1, 1));
    assert_eq!(Replicas::new(7).smallest_batch(OBJECTIVE), usize::MAX);
}

#[test]
fn the_one_that_ends_first_gets_a_full_batch_ahead() {
    let now = clipper_clock::now();
    let mut two = replicas(4, &[ms(20), ms(10)]);
    all_busy(&mut two, now);
    let within = |two: &Replicas, after, waiting, most| {
        two.ending(now + ms(after), waiting, most, OBJECTIVE)
    };
    let ending = |two: &Replicas, after, waiting| within(two, after, waiting, 100);
    assert_eq!(ending(&two, 5, 4), None, "too early");
    assert_eq!(ending(&two, 9, 4), Some((ReplicaId(1), now + ms(10))));
    assert_eq!(ending(&two, 9, 3), None, "no full batch");
    assert_eq!(ending(&two, 9, 0), None);
    assert_eq!(ending(&two, 19, 4), Some((ReplicaId(0), now + ms(20))));
    assert_eq!(within(&two, 9, 2, 3), None, "others may come");
    assert_eq!(within(&two, 9, 3, 3), Some((ReplicaId(1), now + ms(10))), "most are there");
    assert_eq!(within(&two, 9, 0, 1), None);
}

#[test]
fn a_round_is_as_long_as_its_slowest_batch() {
    let now = clipper_clock::now();
    let mut two = replicas(1, &[ms(10), ms(20)]);
    let round = two.round(OBJECTIVE);
    assert_eq!((round.full.queries, round.ends, round.is_guess), (2, None, false));
    assert!(round.full.time > ms(19) && round.full.time < ms(21), "{:?}", round.full.time);
    let spread = curve(ms(20)).spread(1);
    assert_eq!(round.full.spread, spread);
    two.join(ReplicaId(2), replica(4, ms(1)));
    let round = two.round(OBJECTIVE);
    assert_eq!((round.full.queries, round.is_guess), (6, true), "four were never tried");
    all_busy(&mut two, now);
    let ends = two.round(OBJECTIVE).ends.expect("all are busy") - now;
    assert!(ends > ms(19) && ends < ms(21), "the last of them: {ends:?}");
    two.add_idle(ReplicaId(0));
    assert_eq!(two.round_ends(), None);
}

#[test]
fn a_single_replica_is_never_suspected_and_of_several_each_batch_once() {
    let now = clipper_clock::now();
    let late = now + ms(500);
    let mut one = replicas(1, &[ms(10)]);
    all_busy(&mut one, now);
    assert_eq!(one.suspects(late), []);
    let mut two = replicas(1, &[ms(10); 2]);
    all_busy(&mut two, now);
    assert_eq!(two.suspects(now + ms(20)), []);
    assert_eq!(two.suspects(late).len(), 2);
    assert_eq!(two.suspects(late), []);
}

#[test]
fn one_hangs_from_its_limit_on() {
    let now = clipper_clock::now();
    let mut two = replicas(1, &[ms(10); 2]);
    let id = two.pick_idle().expect("both are idle");
    send(&mut two, id.0, 1, now);
    assert_eq!(two.hung(now + ms(999)), []);
    assert_eq!(two.hung(now + ms(1_000)), [id]);
}

#[test]
fn the_next_event_is_the_first_of_what_may_happen() {
    let now = clipper_clock::now();
    let mut one = replicas(1, &[ms(10)]);
    assert_eq!(one.next_event(now, 5), None, "it is idle");
    all_busy(&mut one, now);
    assert_eq!(one.next_event(now, 1), Some(now + ms(8)), "it takes one ahead");
    assert_eq!(one.next_event(now + ms(8), 1), Some(now + BUSY.min), "it may already");
    assert_eq!(one.next_event(now, 0), Some(now + BUSY.min), "nothing waits");
    let mut two = replicas(1, &[ms(10); 2]);
    all_busy(&mut two, now);
    let suspicious = two.next_event(now, 0).expect("both are busy") - now;
    assert!(suspicious > ms(30) && suspicious < ms(34), "{suspicious:?}");
}
