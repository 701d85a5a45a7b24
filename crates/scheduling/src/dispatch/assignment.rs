//! What one replica has been sent and has not answered: the batch that it computes, and at most one
//! behind that.
//!
//! A replica that gets its next batch only after its answer was read stands still meanwhile, a
//! twentieth of the time with a model of 5 ms. So a batch that is full, or has most of those who
//! are known to come, goes out shortly before the one under way is expected to end, and waits in
//! the socket. Not earlier: until it begins, a query with a tighter deadline or a faster replica
//! may turn up.

use std::time::Duration;

use clipper_clock::Instant;

use super::busy::BusyLimits;
use super::hedge::HedgesSent;
use super::query::QueryKey;
use crate::batch_id::BatchId;
use crate::latency::LatencyCurve;

/// A batch under way is suspected of hanging after this many times its learned p99 latency ...
const SUSPICION: u32 = 3;
/// ... but not before this, because a busy machine stalls everybody for some milliseconds.
const SUSPICION_MIN: Duration = Duration::from_millis(10);

/// A batch follows at most so long before the expected end of the one under way: two ticks of the
/// timer that says so. So long after that end the replica is not trusted with another one.
const AHEAD: Duration = Duration::from_millis(2);

/// A batch and what is expected of it once it has begun.
#[derive(Debug)]
pub(super) struct SentBatch {
    pub id: BatchId,
    pub queries: Vec<QueryKey>,
    /// Its expected time, if anything is known of it.
    pub expected: Option<Duration>,
    /// The time after which it is suspected of hanging.
    pub patience: Duration,
    /// The latest deadline of its queries, as far as known.
    pub deadline: Instant,
    /// Somebody else has sent it, nobody knows when.
    pub is_adopted: bool,
    pub hedges: HedgesSent,
}

impl SentBatch {
    /// What `curve` lets expect of a batch of these queries, the tightest of which has this latency
    /// objective.
    pub fn new(
        id: BatchId,
        queries: Vec<QueryKey>,
        deadline: Instant,
        curve: &LatencyCurve,
        objective: Duration,
    ) -> Self {
        let n = queries.len();
        let known = curve.is_known();
        let expected = known.then(|| curve.mean(n));
        let patience =
            if known { (curve.p99(n) * SUSPICION).max(SUSPICION_MIN) } else { objective / 2 };
        let hedges = HedgesSent::default();
        Self { id, queries, expected, patience, deadline, is_adopted: false, hedges }
    }
}

#[derive(Debug)]
struct RunningBatch {
    batch: SentBatch,
    began: Instant,
    is_suspected: bool,
    hung_from: Instant,
}

impl RunningBatch {
    fn new(batch: SentBatch, began: Instant, busy: BusyLimits) -> Self {
        let hung_from = busy.hung_from(began, batch.deadline);
        Self { batch, began, is_suspected: false, hung_from }
    }
}

/// What came of an answer.
#[derive(Debug)]
pub(super) struct Answered {
    pub batch: SentBatch,
    /// When the replica began with it; `None` if it answered out of turn, or that is not known.
    pub began: Option<Instant>,
    /// The one behind it has begun now.
    pub has_next_begun: bool,
}

/// The batches of one replica, in the order in which they were sent.
#[derive(Debug, Default)]
pub(super) struct Assignments {
    running: Option<RunningBatch>,
    ahead: Option<SentBatch>,
}

impl Assignments {
    /// When a batch that is sent at `now` would begin: now, or at the expected end of the one under
    /// way. `None` while no other may be sent.
    pub fn begins(&self, now: Instant) -> Option<Instant> {
        let Some(running) = &self.running else { return Some(now) };
        let end = self.ends()?;
        let due = now + AHEAD >= end && now <= end + AHEAD;
        (due && !running.is_suspected && self.ahead.is_none()).then(|| end.max(now))
    }

    /// Expected end of the batch under way.
    pub fn ends(&self) -> Option<Instant> {
        let running = self.running.as_ref()?;
        running.batch.expected.map(|expected| running.began + expected)
    }

    /// From when on [`Self::begins`] lets another batch follow, if none does yet.
    pub fn takes_more_from(&self) -> Option<Instant> {
        let end = self.ends().filter(|_| self.ahead.is_none());
        end.and_then(|end| end.checked_sub(AHEAD))
    }

    /// Adds a sent batch, for which [`Self::begins`] must have said when. Whether it has begun.
    pub fn push(&mut self, batch: SentBatch, now: Instant, busy: BusyLimits) -> bool {
        let begins = self.running.is_none();
        if begins {
            self.running = Some(RunningBatch::new(batch, now, busy));
        } else {
            self.ahead = Some(batch);
        }
        begins
    }

    /// Whether nothing is unanswered.
    pub fn is_idle(&self) -> bool {
        self.running.is_none()
    }

    /// The batch that the replica computes.
    pub fn running(&self) -> Option<&SentBatch> {
        self.running.as_ref().map(|running| &running.batch)
    }

    /// A batch was answered; the one behind it has begun. `None`: there is no such batch.
    pub fn answered(&mut self, id: BatchId, now: Instant, busy: BusyLimits) -> Option<Answered> {
        if let Some(done) = self.running.take_if(|running| running.batch.id == id) {
            self.running = self.ahead.take().map(|batch| RunningBatch::new(batch, now, busy));
            let has_next_begun = self.running.is_some();
            let began = (!done.batch.is_adopted).then_some(done.began);
            return Some(Answered { batch: done.batch, began, has_next_begun });
        }
        // It may answer in another order.
        let batch = self.ahead.take_if(|batch| batch.id == id)?;
        Some(Answered { batch, began: None, has_next_begun: false })
    }

    /// When to ask [`Self::suspects`].
    pub fn suspicious_from(&self) -> Option<Instant> {
        let running = self.running.as_ref().filter(|running| !running.is_suspected)?;
        Some(running.began + running.batch.patience)
    }

    /// All queries, if the batch under way takes suspiciously long and was not reported yet.
    pub fn suspects(&mut self, now: Instant) -> impl Iterator<Item = QueryKey> + use<'_> {
        let due = self.suspicious_from().is_some_and(|from| from <= now);
        if let Some(running) = self.running.as_mut().filter(|_| due) {
            running.is_suspected = true;
        }
        let running = self.running.as_ref().map(|running| &running.batch);
        let batches = running.into_iter().chain(&self.ahead).filter(move |_| due);
        batches.flat_map(|batch| batch.queries.iter().copied())
    }

    /// From when on the replica hangs, as far as deadlines are known.
    pub fn hung_from(&self) -> Option<Instant> {
        self.running.as_ref().map(|running| running.hung_from)
    }

    /// Why one that hangs does.
    pub fn why_hung(&self, busy: BusyLimits) -> &'static str {
        let running = self.running.as_ref();
        running.map_or("", |running| busy.why_hung(running.began, running.batch.deadline))
    }

    /// Somebody waits until then for the batch under way.
    pub fn extend(&mut self, deadline: Instant, busy: BusyLimits) {
        if let Some(running) = &mut self.running {
            running.batch.deadline = running.batch.deadline.max(deadline);
            running.hung_from = busy.hung_from(running.began, running.batch.deadline);
        }
    }

    /// What runs, and what was to follow.
    pub fn end(self) -> (Option<SentBatch>, Option<SentBatch>) {
        (self.running.map(|running| running.batch), self.ahead)
    }
}

#[cfg(test)]
#[path = "assignment_tests.rs"]
mod tests;
