//! What is said of made-up queries.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::batch_id::BatchId;
use crate::ticket::DefaultReason;
use crate::trace::{QueryTrace, SentTo, TraceStep};
use clipper_clock as clock;
use clipper_domain::explain::{BatchReason, CacheUse, Cause};
use clipper_domain::{AppName, ModelId, ReplicaId};

const REPLICA: ReplicaId = ReplicaId(3);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn to(batch: u64, replica: u32) -> SentTo {
    SentTo {
        batch: BatchId(batch),
        replica: ReplicaId(replica),
        queries: 4,
        reason: BatchReason::Full,
        gathered: Duration::ZERO,
        expected: Some(ms(10)),
        is_cold: false,
        begins: true,
    }
}

/// A query that took `latency` and went through `steps`, each so long after its arrival.
fn record(latency: u64, default: Option<DefaultReason>, steps: &[(u64, TraceStep)]) -> QueryRecord {
    let arrived = clock::now();
    let mut trace = QueryTrace::default();
    for (at, step) in steps {
        trace.note(*step, arrived + ms(*at));
    }
    let model = ModelRecord {
        model: ModelId::parse("m:1").unwrap(),
        of: (7, 1),
        weight: None,
        used: default.is_none(),
        default: default.clone(),
        cache: CacheUse::Miss,
        trace,
    };
    QueryRecord {
        query_id: 7,
        request_id: None,
        app: AppName::parse("a").unwrap(),
        arrived,
        latency: ms(latency),
        objective: ms(100),
        default,
        policy: Arc::from("DefaultSelectionPolicy"),
        confidence: None,
        models: std::iter::once(model).collect(),
    }
}

fn causes(record: &QueryRecord) -> Vec<Cause> {
    record.explained(String::new()).because.iter().map(|because| because.cause).collect()
}

const QUEUED: (u64, TraceStep) = (0, TraceStep::Queued);

fn sent(at: u64, to: SentTo) -> (u64, TraceStep) {
    (at, TraceStep::Sent(to))
}

fn answered(at: u64, batch: u64) -> (u64, TraceStep) {
    (at, TraceStep::Answered(BatchId(batch), REPLICA, None))
}

fn failed(at: u64, batch: u64) -> (u64, TraceStep) {
    (at, TraceStep::Failed(BatchId(batch)))
}

#[test]
fn an_ordinary_query_was_as_fast_as_its_model() {
    let record = record(12, None, &[QUEUED, sent(1, to(1, 3)), answered(11, 1)]);
    assert_eq!(causes(&record), [Cause::Model]);
    let explained = record.explained("then".to_owned());
    let model = &explained.models[0];
    assert_eq!((model.replica, model.batch.as_ref().unwrap().queries), (Some(3), 4));
    let times = explained.times_ms;
    assert_eq!((times.queue, times.container, times.answer), (1.0, 10.0, 1.0));
    assert_eq!(explained.outcome, "prediction");
}

#[test]
fn what_a_container_says_of_its_computing_parts_the_wait_for_it() {
    let explained = |computed: u64| {
        let answered = TraceStep::Answered(BatchId(1), REPLICA, Some(ms(computed)));
        let record = record(12, None, &[QUEUED, sent(1, to(1, 3)), (11, answered)]);
        record.explained(String::new())
    };
    let of = |computed| {
        let times = explained(computed).times_ms;
        assert!((times.sum() - 12.0).abs() < 0.01, "{times:?}");
        (times.network, times.container)
    };
    assert_eq!(of(7), (Some(3.0), 7.0));
    assert_eq!(of(0), (Some(10.0), 0.0));
    assert_eq!(of(500), (Some(0.0), 10.0), "it cannot have computed longer");
    let causes = |computed| {
        let because = explained(computed).because.into_iter().map(|it| it.cause);
        because.collect::<Vec<_>>()
    };
    assert_eq!(causes(7), [Cause::Model, Cause::Network]);
    assert_eq!(causes(2), [Cause::Network, Cause::Model]);
    assert_eq!(causes(10), [Cause::Model]);
}

#[test]
fn each_way_to_be_slow_is_named_first() {
    let warm = to(1, 3);
    let cold = SentTo { is_cold: true, expected: None, ..warm };
    let gathered = SentTo { gathered: ms(9), reason: BatchReason::Gathered, ..warm };
    let queue = record(100, None, &[QUEUED, sent(80, warm), answered(90, 1)]);
    assert_eq!(causes(&queue)[0], Cause::Queue);
    let gathering = record(14, None, &[QUEUED, sent(9, gathered), answered(13, 1)]);
    assert_eq!(causes(&gathering), [Cause::Gathering, Cause::Model]);
    let slow = record(100, None, &[QUEUED, sent(1, warm), answered(99, 1)]);
    assert_eq!(causes(&slow), [Cause::SlowReplica]);
    let cold = record(100, None, &[QUEUED, sent(1, cold), answered(99, 1)]);
    assert_eq!(causes(&cold), [Cause::Cold]);
    let hedge = [QUEUED, sent(1, warm), sent(60, to(2, 4)), answered(69, 2)];
    assert_eq!(causes(&record(70, None, &hedge)), [Cause::Hedge, Cause::Model]);
    let retry = [QUEUED, sent(1, warm), failed(50, 1), sent(60, to(2, 4)), answered(69, 2)];
    assert_eq!(causes(&record(70, None, &retry)), [Cause::Retry, Cause::Model]);
    let answer = record(100, None, &[QUEUED, sent(1, warm), answered(10, 1)]);
    assert_eq!(causes(&answer)[0], Cause::Answer);
    let admission = record(100, None, &[(90, TraceStep::Queued), sent(91, warm), answered(99, 1)]);
    assert_eq!(causes(&admission)[0], Cause::Admission);
}

#[test]
fn each_reason_of_a_default_is_named_first() {
    let why = || Arc::from("because");
    let cases = [
        (DefaultReason::Unlinked, Cause::Unlinked),
        (DefaultReason::NoReplica, Cause::NoReplica),
        (DefaultReason::Late, Cause::Late),
        (DefaultReason::Shed(why()), Cause::Shed),
        (DefaultReason::Failed(why()), Cause::Failed),
        (DefaultReason::Model(why()), Cause::ModelError),
        (DefaultReason::Doubtful(why()), Cause::Doubtful),
    ];
    for (reason, cause) in cases {
        let explained = record(50, Some(reason.clone()), &[]).explained(String::new());
        assert_eq!(explained.because[0].cause, cause);
        assert_eq!(explained.because[0].text, reason.to_string());
        assert_eq!(explained.default.unwrap().reason, reason.outcome().label());
    }
    let steps = [QUEUED, sent(1, to(1, 3)), failed(9, 1), (9, TraceStep::Poisonous)];
    let poisoned = record(10, Some(DefaultReason::Failed(why())), &steps);
    assert_eq!(causes(&poisoned)[0], Cause::Poisoned);
}

#[test]
fn a_late_query_says_where_it_was() {
    let late = || Some(DefaultReason::Late);
    assert_eq!(causes(&record(100, late(), &[QUEUED])), [Cause::Late, Cause::Queue]);
    let at_a_replica = [QUEUED, sent(1, to(1, 3))];
    assert_eq!(causes(&record(100, late(), &at_a_replica)), [Cause::Late, Cause::SlowReplica]);
    let after_a_failure = record(100, late(), &[QUEUED, sent(1, to(1, 3)), failed(20, 1)]);
    let explained = after_a_failure.explained(String::new());
    assert_eq!((explained.times_ms.queue, explained.times_ms.container), (80.0 + 1.0, 19.0));
    assert_eq!(causes(&after_a_failure)[1], Cause::Queue);
}

#[test]
fn who_others_did_not_wait_for_is_a_straggler() {
    let mut query = record(90, None, &[QUEUED, sent(1, to(1, 3)), answered(11, 1)]);
    let late = record(90, Some(DefaultReason::Late), &[QUEUED, sent(1, to(1, 4))]);
    query.models.extend(late.models);
    let found = causes(&query);
    assert_eq!(found, [Cause::SlowReplica, Cause::Straggler]);
    let explained = query.explained(String::new());
    assert!(explained.times_ms.container > 80.0, "{explained:?}");
}

#[test]
fn a_model_that_nobody_serves_is_not_what_was_waited_for() {
    let mut query = record(90, None, &[QUEUED, sent(1, to(1, 3)), answered(88, 1)]);
    query.models.extend(record(90, Some(DefaultReason::NoReplica), &[]).models);
    assert_eq!(causes(&query), [Cause::SlowReplica]);
    assert!(query.explained(String::new()).times_ms.container > 80.0);
}

#[test]
fn times_add_up_whatever_has_happened() {
    let mut random = SmallRng::seed_from_u64(16);
    for _ in 0..2_000 {
        let latency = random.random_range(0..200);
        let mut at: Vec<u64> = (0..7).map(|_| random.random_range(0..300)).collect();
        if random.random_bool(0.5) {
            at.sort_unstable();
        }
        let ahead = SentTo { begins: random.random_bool(0.5), ..to(2, 4) };
        let steps = [
            (at[0], TraceStep::Queued),
            sent(at[1], to(1, 3)),
            if random.random_bool(0.5) { failed(at[2], 1) } else { answered(at[2], 1) },
            sent(at[3], ahead),
            (at[4], TraceStep::Began(BatchId(2))),
            answered(at[5], 2),
        ];
        let steps = &steps[..random.random_range(0..=steps.len())];
        let reason = random.random_bool(0.3).then_some(DefaultReason::Late);
        let explained = record(latency, reason, steps).explained(String::new());
        let sum = explained.times_ms.sum();
        assert!((sum - explained.latency_ms).abs() < 0.01, "{explained:?}");
    }
}
