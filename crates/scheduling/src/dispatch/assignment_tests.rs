//! Tests of [`super`]: when a batch begins, is suspected, hangs and is answered.

use super::*;

const OBJECTIVE: Duration = Duration::from_millis(100);
const BUSY: BusyLimits = BusyLimits { min: Duration::from_secs(1), max: Duration::from_secs(10) };

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Batches take 10 ms, and 99 of 100 no more than 11.
fn curve() -> LatencyCurve {
    let mut curve = LatencyCurve::default();
    (0..200).for_each(|_| curve.record(1, ms(10)));
    curve
}

fn batch(id: u64, key: u32, deadline: Instant) -> SentBatch {
    let queries = vec![QueryKey::of(key)];
    SentBatch::new(BatchId(id), queries, deadline, &curve(), OBJECTIVE)
}

/// A batch that began at `start`, due 100 ms later.
fn running(start: Instant) -> Assignments {
    let mut assignments = Assignments::default();
    assert!(assignments.push(batch(1, 1, start + OBJECTIVE), start, BUSY));
    assignments
}

#[test]
fn another_batch_may_follow_shortly_before_the_expected_end_and_shortly_after() {
    let start = clipper_clock::now();
    let assignments = running(start);
    assert!(!assignments.is_idle() && Assignments::default().is_idle());
    assert_eq!(Assignments::default().begins(start), Some(start));
    assert_eq!(assignments.ends(), Some(start + ms(10)));
    assert_eq!(assignments.takes_more_from(), Some(start + ms(8)));
    assert_eq!(assignments.begins(start + ms(7)), None);
    assert_eq!(assignments.begins(start + ms(8)), Some(start + ms(10)));
    assert_eq!(assignments.begins(start + ms(11)), Some(start + ms(11)));
    assert_eq!(assignments.begins(start + ms(12)), Some(start + ms(12)));
    assert_eq!(assignments.begins(start + ms(13)), None, "it is late");
}

#[test]
fn nothing_follows_a_second_batch_or_a_suspected_one() {
    let start = clipper_clock::now();
    let mut assignments = running(start);
    let soon = start + ms(9);
    assert!(!assignments.push(batch(2, 2, soon + OBJECTIVE), soon, BUSY), "it waits");
    assert_eq!((assignments.begins(soon), assignments.takes_more_from()), (None, None));
    let mut suspected = Assignments::default();
    let short = SentBatch { patience: ms(9), ..batch(1, 1, start + OBJECTIVE) };
    suspected.push(short, start, BUSY);
    assert_eq!(suspected.suspects(soon).count(), 1);
    assert_eq!(suspected.begins(soon), None);
}

#[test]
fn a_batch_is_suspected_once_with_the_one_behind_it() {
    let start = clipper_clock::now();
    let mut assignments = running(start);
    let from = assignments.suspicious_from().expect("it runs");
    let patience = from - start;
    assert!(patience > ms(30) && patience < ms(34), "three times its p99: {patience:?}");
    assignments.push(batch(2, 2, start + OBJECTIVE), start, BUSY);
    let early = from.checked_sub(ms(1)).expect("after the start");
    assert_eq!(assignments.suspects(early).count(), 0);
    let keys: Vec<_> = assignments.suspects(from).collect();
    assert_eq!(keys, [QueryKey::of(1), QueryKey::of(2)]);
    assert_eq!((assignments.suspects(from).count(), assignments.suspicious_from()), (0, None));
}

#[test]
fn patience_is_never_short_and_half_the_objective_where_nothing_is_known() {
    let start = clipper_clock::now();
    let of = |curve: &LatencyCurve| {
        SentBatch::new(BatchId(1), vec![QueryKey::of(1)], start, curve, OBJECTIVE)
    };
    let mut quick = LatencyCurve::default();
    quick.record(1, Duration::from_micros(10));
    assert_eq!(of(&quick).patience, SUSPICION_MIN);
    let unknown = of(&LatencyCurve::default());
    assert_eq!((unknown.patience, unknown.expected), (ms(50), None));
}

#[test]
fn an_answer_ends_its_batch_and_the_one_behind_it_begins() {
    let start = clipper_clock::now();
    let mut assignments = running(start);
    assert_eq!(assignments.running().map(|batch| batch.id), Some(BatchId(1)));
    let at = start + ms(9);
    assignments.push(batch(2, 2, at + OBJECTIVE), at, BUSY);
    assert!(assignments.answered(BatchId(7), at, BUSY).is_none());
    let first = assignments.answered(BatchId(1), at, BUSY).expect("it ran");
    assert_eq!(
        (first.batch.id, first.began, first.has_next_begun),
        (BatchId(1), Some(start), true)
    );
    assert_eq!(assignments.ends(), Some(at + ms(10)), "the second one has begun");
    let second = assignments.answered(BatchId(2), at, BUSY).expect("it ran");
    assert_eq!((second.began, second.has_next_begun), (Some(at), false));
    assert!(assignments.is_idle());
}

#[test]
fn an_answer_out_of_turn_ends_what_it_names() {
    let start = clipper_clock::now();
    let mut assignments = running(start);
    assignments.push(batch(2, 2, start + OBJECTIVE), start, BUSY);
    let second = assignments.answered(BatchId(2), start, BUSY).expect("it was sent");
    assert_eq!((second.batch.id, second.began, second.has_next_begun), (BatchId(2), None, false));
    assert_eq!(assignments.running().map(|batch| batch.id), Some(BatchId(1)));
    assert!(assignments.answered(BatchId(2), start, BUSY).is_none());
}

#[test]
fn nobody_knows_when_an_adopted_batch_began() {
    let start = clipper_clock::now();
    let mut assignments = Assignments::default();
    let adopted = SentBatch { is_adopted: true, ..batch(1, 1, start + OBJECTIVE) };
    assignments.push(adopted, start, BUSY);
    let answered = assignments.answered(BatchId(1), start + ms(5), BUSY).expect("it was sent");
    assert_eq!(answered.began, None);
}

#[test]
fn a_later_deadline_lets_a_batch_run_longer() {
    let start = clipper_clock::now();
    let mut assignments = running(start);
    assert_eq!(assignments.hung_from(), Some(start + BUSY.min));
    assignments.extend(start + ms(5_000), BUSY);
    assert_eq!(assignments.hung_from(), Some(start + ms(5_000)));
    assignments.extend(start + ms(2_000), BUSY);
    assert_eq!(assignments.hung_from(), Some(start + ms(5_000)), "the latest counts");
    let (running, ahead) = assignments.end();
    assert!(running.is_some() && ahead.is_none());
}
