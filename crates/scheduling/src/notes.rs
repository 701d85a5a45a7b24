//! What happens to a query, written down on its way: a few plain stores into what the writer has at
//! hand anyway, whether or not anybody will ask. A lock is taken only where a second replica comes
//! in. Whoever explains the answer reads a [`QueryTrace`] out of it.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use std::time::Duration;

use clipper_clock::Instant;
use clipper_domain::ReplicaId;
use clipper_domain::explain::{AttemptEnd, AttemptKind, BatchReason};
use parking_lot::Mutex;

use crate::batch_id::BatchId;
use crate::trace::{Attempt, QueryTrace, SentTo, TraceStep};

/// A duration in whole nanoseconds and one more; 0: none.
#[derive(Debug, Default)]
struct Nanos(AtomicU64);

impl Nanos {
    /// Whoever reads it reads what was stored before as well.
    fn set(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.store(nanos.saturating_add(1), Release);
    }

    fn get(&self) -> Option<Duration> {
        self.0.load(Acquire).checked_sub(1).map(Duration::from_nanos)
    }

    fn is_set(&self) -> bool {
        self.0.load(Relaxed) != 0
    }
}

/// The first replica that was sent the query, which nearly always is the only one. Points in time
/// are counted from the query's arrival.
#[derive(Debug, Default)]
struct FirstAttempt {
    /// Stored after what else is known of the batch.
    sent: Nanos,
    began: Nanos,
    /// Stored after how it ended.
    ended: Nanos,
    end: AtomicU8,
    computed: Nanos,
    batch: AtomicU64,
    replica: AtomicU32,
    queries: AtomicU32,
    gathered: Nanos,
    expected: Nanos,
    reason: AtomicU8,
    is_cold: AtomicBool,
}

/// In the order of their numbers.
const REASONS: [BatchReason; 5] = [
    BatchReason::AllWaiting,
    BatchReason::Full,
    BatchReason::Gathered,
    BatchReason::Limited,
    BatchReason::Ahead,
];
const ENDS: [AttemptEnd; 4] =
    [AttemptEnd::Answered, AttemptEnd::Failed, AttemptEnd::Outrun, AttemptEnd::Unanswered];

impl FirstAttempt {
    fn send(&self, to: &SentTo, at: Duration) {
        self.batch.store(to.batch.0, Relaxed);
        self.replica.store(to.replica.0, Relaxed);
        self.queries.store(to.queries, Relaxed);
        self.gathered.set(to.gathered);
        if let Some(expected) = to.expected {
            self.expected.set(expected);
        }
        self.reason.store(to.reason as u8, Relaxed);
        self.is_cold.store(to.is_cold, Relaxed);
        if to.begins {
            self.began.set(at);
        }
        self.sent.set(at);
    }

    fn is_open(&self, batch: BatchId) -> bool {
        self.sent.is_set() && self.batch.load(Relaxed) == batch.0 && !self.ended.is_set()
    }

    fn begin(&self, at: Duration) {
        if !self.began.is_set() {
            self.began.set(at);
        }
    }

    fn finish(
        &self,
        replica: ReplicaId,
        (end, computed): (AttemptEnd, Option<Duration>),
        at: Duration,
    ) {
        self.replica.store(replica.0, Relaxed);
        if let Some(computed) = computed {
            self.computed.set(computed);
        }
        self.end.store(end as u8, Relaxed);
        self.ended.set(at);
    }

    fn read(&self, arrived: Instant) -> Option<Attempt> {
        let sent = arrived + self.sent.get()?;
        let began = self.began.get().map(|at| arrived + at);
        let ended = self.ended.get().and_then(|at| {
            let end = ENDS.get(usize::from(self.end.load(Relaxed)))?;
            Some((arrived + at, *end))
        });
        let reason = REASONS.get(usize::from(self.reason.load(Relaxed)));
        let to = SentTo {
            batch: BatchId(self.batch.load(Relaxed)),
            replica: ReplicaId(self.replica.load(Relaxed)),
            queries: self.queries.load(Relaxed),
            reason: reason.copied().unwrap_or(BatchReason::AllWaiting),
            gathered: self.gathered.get().unwrap_or_default(),
            expected: self.expected.get(),
            is_cold: self.is_cold.load(Relaxed),
            begins: began == Some(sent),
        };
        let computed = self.computed.get();
        Some(Attempt { kind: AttemptKind::First, to, sent, began, ended, computed })
    }
}

/// What is known of one query.
#[derive(Debug, Default)]
pub(super) struct TraceNotes {
    queued: Nanos,
    first: FirstAttempt,
    is_poisonous: AtomicBool,
    /// Once a second replica was sent it: those after the first one.
    later: OnceLock<Box<Mutex<Vec<Attempt>>>>,
}

impl TraceNotes {
    /// A step of a query that had `arrived`.
    pub(super) fn note(&self, step: TraceStep, arrived: Instant, now: Instant) {
        let at = now.saturating_duration_since(arrived);
        let first = &self.first;
        let has_later = self.later.get().is_some();
        match step {
            TraceStep::Queued if self.queued.is_set() => {}
            TraceStep::Queued => self.queued.set(at),
            TraceStep::Poisonous => self.is_poisonous.store(true, Relaxed),
            TraceStep::Sent(to) if !first.sent.is_set() => first.send(&to, at),
            TraceStep::Began(batch) if !has_later && first.is_open(batch) => first.begin(at),
            TraceStep::Failed(batch) if !has_later && first.is_open(batch) => {
                let replica = ReplicaId(first.replica.load(Relaxed));
                first.finish(replica, (AttemptEnd::Failed, None), at);
            }
            TraceStep::Answered(batch, replica, computed) if !has_later && first.is_open(batch) => {
                first.finish(replica, (AttemptEnd::Answered, computed), at);
            }
            step => self.note_with_later(step, arrived, now),
        }
    }

    /// A step that cannot be understood without those attempts that came after the first.
    #[cold]
    fn note_with_later(&self, step: TraceStep, arrived: Instant, now: Instant) {
        if self.later.get().is_none() && !matches!(step, TraceStep::Sent(_)) {
            return;
        }
        let mut later = self.later.get_or_init(Box::default).lock();
        let before = self.first.read(arrived);
        let mut trace = QueryTrace::default();
        trace.attempts.extend(before.iter().chain(&*later).copied());
        trace.note(step, now);
        let Some((first, others)) = trace.attempts.split_first() else { return };
        if before.as_ref() != Some(first) {
            let since = |at: Instant| at.saturating_duration_since(arrived);
            if let Some(began) = first.began {
                self.first.begin(since(began));
            }
            if let Some((ended, end)) = first.ended {
                self.first.finish(first.to.replica, (end, first.computed), since(ended));
            }
        }
        later.clear();
        later.extend_from_slice(others);
    }

    /// All of it so far.
    pub(super) fn read(&self, arrived: Instant) -> QueryTrace {
        let mut trace = QueryTrace {
            queued: self.queued.get().map(|at| arrived + at),
            is_poisonous: self.is_poisonous.load(Relaxed),
            ..QueryTrace::default()
        };
        let later = self.later.get().map(|later| later.lock());
        let later = later.iter().flat_map(|later| later.iter());
        trace.attempts.extend(self.first.read(arrived).iter().chain(later).copied());
        trace
    }
}

#[cfg(test)]
mod tests {
    use clipper_clock as clock;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reasons_and_ends_are_found_by_their_numbers() {
        for reason in REASONS {
            assert_eq!(REASONS[reason as usize], reason);
        }
        for end in ENDS {
            assert_eq!(ENDS[end as usize], end);
        }
    }

    fn sent_to() -> impl Strategy<Value = SentTo> {
        let expected = proptest::option::of(0_u64..1_000);
        ((0_u64..4, 0_u32..3, 1_u32..9), 0..REASONS.len(), expected, any::<[bool; 2]>()).prop_map(
            |((batch, replica, queries), reason, expected, [is_cold, begins])| SentTo {
                batch: BatchId(batch),
                replica: ReplicaId(replica),
                queries,
                reason: REASONS[reason],
                gathered: Duration::from_micros(u64::from(queries)),
                expected: expected.map(Duration::from_millis),
                is_cold,
                begins,
            },
        )
    }

    fn answered((batch, replica): (u64, u32)) -> TraceStep {
        let computed = (replica > 0).then(|| Duration::from_micros(batch));
        TraceStep::Answered(BatchId(batch), ReplicaId(replica), computed)
    }

    fn step() -> impl Strategy<Value = TraceStep> {
        prop_oneof![
            1 => Just(TraceStep::Queued),
            3 => sent_to().prop_map(TraceStep::Sent),
            2 => (0_u64..4).prop_map(|batch| TraceStep::Began(BatchId(batch))),
            1 => (0_u64..4).prop_map(|batch| TraceStep::Failed(BatchId(batch))),
            2 => (0_u64..4, 0_u32..3).prop_map(answered),
            1 => Just(TraceStep::Poisonous),
        ]
    }

    proptest! {
        /// What is read is what the plain list of facts would have.
        #[test]
        fn notes_are_read_as_they_would_have_been_listed(
            steps in proptest::collection::vec((step(), 1_u64..1_000), 0..40),
        ) {
            let arrived = clock::now();
            let (notes, mut list) = (TraceNotes::default(), QueryTrace::default());
            let mut now = arrived;
            for (step, later) in steps {
                now += Duration::from_micros(later);
                notes.note(step, arrived, now);
                list.note(step, now);
                let read = notes.read(arrived);
                prop_assert_eq!(&read.queued, &list.queued);
                prop_assert_eq!(read.is_poisonous, list.is_poisonous);
                prop_assert_eq!(read.attempts.len(), list.attempts.len());
                for (read, listed) in read.attempts.iter().zip(&list.attempts) {
                    // That it began at once is said by when it did.
                    let to = SentTo { begins: read.to.begins, ..listed.to };
                    prop_assert_eq!(*read, Attempt { to, ..*listed });
                }
            }
        }
    }
}
