//! What has happened to a query on its way through its model: facts for whoever explains its
//! answer. The dispatcher and the replicas leave them with its flight ([`super::notes`]); words are
//! made of them by [`super::explain`].

use std::time::Duration;

use clipper_clock::Instant;
use clipper_domain::ReplicaId;
use clipper_domain::explain::{AttemptEnd, AttemptKind, BatchReason};
use smallvec::SmallVec;

use super::batch_id::BatchId;

/// One thing that happens to a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceStep {
    /// Its model's dispatcher has taken it in.
    Queued,
    /// A replica is sent a batch with it.
    Sent(SentTo),
    /// The replica begins with that batch, which it was sent ahead.
    Began(BatchId),
    /// The replica is gone before it has answered the batch.
    Failed(BatchId),
    /// This replica has answered the batch, which it computed for so long, if it says so.
    Answered(BatchId, ReplicaId, Option<Duration>),
    /// Its input has killed replicas.
    Poisonous,
}

/// A batch with a query, and to whom it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentTo {
    pub batch: BatchId,
    pub replica: ReplicaId,
    /// In the batch, this one included.
    pub queries: u32,
    pub reason: BatchReason,
    /// How long it waited for others to come.
    pub gathered: Duration,
    /// How long the replica is expected to take, if anything is known of it.
    pub expected: Option<Duration>,
    /// It has answered nothing before.
    pub is_cold: bool,
    /// It begins at once.
    pub begins: bool,
}

/// A replica was sent a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub kind: AttemptKind,
    pub to: SentTo,
    pub sent: Instant,
    /// When the replica began; none while another batch is before this one.
    pub began: Option<Instant>,
    pub ended: Option<(Instant, AttemptEnd)>,
    /// How long the container says that it computed.
    pub computed: Option<Duration>,
}

impl Attempt {
    fn is_of(&self, batch: BatchId) -> bool {
        self.to.batch == batch && self.ended.is_none()
    }
}

/// All of it so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryTrace {
    /// When its model's dispatcher took it in.
    pub queued: Option<Instant>,
    /// In the order in which they were sent.
    pub attempts: SmallVec<[Attempt; 1]>,
    pub is_poisonous: bool,
}

/// A query that kills replica after replica is stopped long before; what is beyond is not kept.
const ATTEMPTS_MAX: usize = 16;

impl QueryTrace {
    pub fn note(&mut self, step: TraceStep, now: Instant) {
        match step {
            TraceStep::Queued => self.queued = self.queued.or(Some(now)),
            TraceStep::Sent(to) if self.attempts.len() < ATTEMPTS_MAX => {
                let kind = match self.attempts.last() {
                    None => AttemptKind::First,
                    Some(_) if self.attempts.iter().any(|it| it.ended.is_none()) => {
                        AttemptKind::Hedge
                    }
                    Some(_) => AttemptKind::Retry,
                };
                let began = to.begins.then_some(now);
                self.attempts.push(Attempt {
                    kind,
                    to,
                    sent: now,
                    began,
                    ended: None,
                    computed: None,
                });
            }
            TraceStep::Sent(_) => {}
            TraceStep::Began(batch) => {
                if let Some(attempt) = self.open(batch) {
                    attempt.began = attempt.began.or(Some(now));
                }
            }
            TraceStep::Failed(batch) => {
                if let Some(attempt) = self.open(batch) {
                    attempt.ended = Some((now, AttemptEnd::Failed));
                }
            }
            TraceStep::Answered(batch, replica, computed) => {
                let is_first = self.answered().is_none();
                if let Some(attempt) = self.open(batch) {
                    let end = if is_first { AttemptEnd::Answered } else { AttemptEnd::Outrun };
                    // Its name in the dispatcher may be that of a lane.
                    attempt.to.replica = replica;
                    attempt.ended = Some((now, end));
                    attempt.computed = computed;
                }
            }
            TraceStep::Poisonous => self.is_poisonous = true,
        }
    }

    fn open(&mut self, batch: BatchId) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find(|attempt| attempt.is_of(batch))
    }

    /// The attempt that was answered first.
    #[must_use]
    pub fn answered(&self) -> Option<&Attempt> {
        let answered =
            |attempt: &&Attempt| attempt.ended.is_some_and(|(_, end)| end == AttemptEnd::Answered);
        self.attempts.iter().find(answered)
    }

    /// The attempt that it was answered by, or else the last one: what it was waited for.
    #[must_use]
    pub fn decisive(&self) -> Option<&Attempt> {
        self.answered().or_else(|| self.attempts.last())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipper_clock as clock;

    fn to(batch: u64, replica: u32) -> SentTo {
        SentTo {
            batch: BatchId(batch),
            replica: ReplicaId(replica),
            queries: 1,
            reason: BatchReason::AllWaiting,
            gathered: Duration::ZERO,
            expected: None,
            is_cold: false,
            begins: true,
        }
    }

    #[test]
    fn attempts_are_told_apart_by_what_was_before_them() {
        let now = clock::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut trace = QueryTrace::default();
        trace.note(TraceStep::Queued, at(1));
        trace.note(TraceStep::Sent(to(7, 0)), at(2));
        trace.note(TraceStep::Failed(BatchId(7)), at(3));
        trace.note(TraceStep::Sent(to(8, 1)), at(4));
        trace.note(TraceStep::Sent(SentTo { begins: false, ..to(9, 2) }), at(5));
        trace.note(TraceStep::Began(BatchId(9)), at(6));
        trace.note(TraceStep::Answered(BatchId(9), ReplicaId(2), None), at(7));
        trace.note(TraceStep::Answered(BatchId(8), ReplicaId(1), None), at(8));
        let kinds: Vec<_> = trace.attempts.iter().map(|it| it.kind).collect();
        assert_eq!(kinds, [AttemptKind::First, AttemptKind::Retry, AttemptKind::Hedge]);
        let ends: Vec<_> = trace.attempts.iter().map(|it| it.ended).collect();
        let ended = |ms, end| Some((at(ms), end));
        assert_eq!(
            ends,
            [
                ended(3, AttemptEnd::Failed),
                ended(8, AttemptEnd::Outrun),
                ended(7, AttemptEnd::Answered)
            ]
        );
        assert_eq!(trace.decisive().and_then(|it| it.began), Some(at(6)));
        assert_eq!(trace.queued, Some(at(1)));
    }

    #[test]
    fn no_query_keeps_more_attempts_than_a_few() {
        let (now, mut trace) = (clock::now(), QueryTrace::default());
        for batch in 0..100 {
            trace.note(TraceStep::Sent(to(batch, 0)), now);
            trace.note(TraceStep::Failed(BatchId(batch)), now);
        }
        assert_eq!(trace.attempts.len(), ATTEMPTS_MAX);
    }
}
