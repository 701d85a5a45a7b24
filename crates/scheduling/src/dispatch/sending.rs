//! Queries become batches, and batches go to replicas.

use std::time::Duration;

use clipper_clock::Instant;
use clipper_domain::ReplicaId;
use clipper_domain::explain::BatchReason;

use super::action::{Action, Count};
use super::assignment::{Assignments, SentBatch};
use super::dispatcher::{Dispatcher, Gathering};
use super::event::Unanswered;
use super::hedge::HedgesSent;
use super::query::{Query, QueryKey};
use super::replicas::Replica;
use crate::batch::BatchController;
use crate::batch_id::BatchId;
use crate::gather;
use crate::latency::LatencyCurve;
use crate::run::Run;
use crate::ticket::DefaultReason;
use crate::trace::{SentTo, TraceStep};

/// Queries that have been taken out of the queue for one batch.
struct TakenQueries<Q> {
    queries: Vec<Q>,
    keys: Vec<QueryKey>,
    deadline: Instant,
    hedges: HedgesSent,
    /// Why it is not more of them.
    reason: BatchReason,
}

impl<Q: Query> Dispatcher<Q> {
    /// Whether enough queries wait for a batch that is worth its price. If not, it will be sent
    /// when they do, or after a short wait.
    pub(super) fn has_gathered(&mut self, now: Instant) -> bool {
        let waiting = self.queue.len();
        if waiting == 0 {
            self.gathering = None;
            return false;
        }
        let Some(replica) = self.replicas.any_idle() else {
            self.gathering = None;
            return true;
        };
        self.gathered = self.gathering.map_or(Duration::ZERO, |gathering| gathering.so_far(now));
        let objective = self.objective.tightest();
        let limit = self.replicas.batch_limit(replica, objective);
        let curve = replica.controller.curve();
        if waiting >= self.concurrency.worth_gathering(limit, curve, objective)
            || !self.concurrency.is_busy(self.replicas.len(), curve, now)
        {
            self.gathering = None;
            return true;
        }
        match self.gathering {
            Some(gathering) if gathering.until <= now => {
                if waiting <= gathering.waiting {
                    self.concurrency.stayed_away();
                }
                self.gathering = None;
                true
            }
            Some(_) => false,
            None => {
                self.gathering = Some(Gathering { until: now + gather::WAIT, waiting });
                false
            }
        }
    }

    /// Gives batches to replicas that are idle, or about to be if there is a full batch for them,
    /// or one that waiting would not make much fuller.
    pub(super) fn dispatch(&mut self, now: Instant) {
        let round = self.round;
        let is_overloaded =
            self.queue.is_overloaded(|ahead, deadline| round.can_make_it(ahead, now, deadline));
        loop {
            let objective = self.objective.tightest();
            let idle = self.replicas.pick_idle().map(|id| (id, now));
            let (waiting, most) = (self.queue.len(), self.concurrency.most());
            let ending = || self.replicas.ending(now, waiting, most, objective);
            let Some((id, begins)) = idle.or_else(ending) else { break };
            let Some(replica) = self.replicas.get(id) else { continue };
            let limit = self.replicas.batch_limit(replica, objective);
            // A guess for a size that was never tried is no reason to give a query up.
            let curve = replica.controller.curve();
            let expected = curve.mean(limit.min(self.queue.len()).min(curve.explored));
            let taken = self.take(limit, begins + expected, is_overloaded, now);
            if taken.queries.is_empty() {
                if idle.is_some() {
                    self.replicas.add_idle(id);
                }
                break;
            }
            self.send(id, taken, now);
        }
    }

    /// Up to `limit` queries that somebody still waits for. Those that would be late if they were
    /// answered at `end` are given up as long as others can use the place.
    fn take(&mut self, limit: usize, end: Instant, fair: bool, now: Instant) -> TakenQueries<Q> {
        let room = limit.min(self.queue.len());
        let (queries, keys) = (Vec::with_capacity(room), Vec::with_capacity(room));
        let hedges = HedgesSent::default();
        let reason = BatchReason::Full;
        let mut taken = TakenQueries { queries, keys, deadline: now, hedges, reason };
        let (mut limit, mut skipped) = (limit, 0);
        while taken.keys.len() < limit {
            let Some((due, key)) = self.queue.pop(fair, |key| self.entries.is_waiting(key)) else {
                taken.reason = BatchReason::AllWaiting;
                break;
            };
            let Some(entry) = self.entries.get_mut(key) else { continue };
            let (share, objective) = (entry.share, entry.objective);
            if entry.batch_max <= taken.keys.len() {
                // It needs a smaller batch than this one already is.
                self.queue.push(share, due, key, objective, false);
                taken.reason = BatchReason::Limited;
                break;
            }
            if entry.assigned > 0 {
                if self.hedge_budget.is_overdrawn() {
                    // Those before it have cost more than they were expected to.
                    self.end_waiting(key, DefaultReason::Late);
                    continue;
                }
                taken.hedges.n += 1;
                taken.hedges.expected += entry.hedge_cost;
            }
            let until = entry.query.take(now);
            let others_wait = self.queue.len() > 1;
            let reason = match until {
                None => DefaultReason::Late,
                Some(until) if until < end && others_wait => DefaultReason::overtaken(),
                Some(until) => {
                    if entry.batch_max < limit {
                        limit = entry.batch_max;
                        taken.reason = BatchReason::Limited;
                    }
                    entry.is_waiting = false;
                    entry.assigned += 1;
                    taken.queries.push(entry.query.clone());
                    taken.keys.push(key);
                    taken.deadline = taken.deadline.max(until);
                    self.objective.saw(objective);
                    self.queue.charge(share);
                    self.queue.forget(share, objective);
                    continue;
                }
            };
            skipped += 1;
            self.end_waiting(key, reason);
        }
        self.count_some(Count::Skipped, skipped);
        taken
    }

    /// Ends a waiting query without an answer, unless a replica has it: its answer may still come.
    pub(super) fn end_waiting(&mut self, key: QueryKey, reason: DefaultReason) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if std::mem::take(&mut entry.is_waiting) {
            self.queue.forget(entry.share, entry.objective);
        }
        if entry.assigned == 0
            && let Some(entry) = self.entries.remove(key)
        {
            self.resolve(entry.query, reason);
        }
    }

    fn send(&mut self, id: ReplicaId, taken: TakenQueries<Q>, now: Instant) {
        let TakenQueries { queries, keys, deadline, hedges, reason } = taken;
        let Some(replica) = self.replicas.get_mut(id) else { return };
        let batch = BatchId(self.next_batch);
        self.next_batch += 1;
        self.in_flight += keys.len();
        self.concurrency.batch_sent();
        let (curve, objective) = (replica.controller.curve(), self.objective.tightest());
        let mut assignment = SentBatch::new(batch, keys, deadline, curve, objective);
        assignment.hedges = hedges;
        let expected = assignment.expected;
        let begins = replica.assignments.push(assignment, now, replica.busy(self.limits.busy));
        let reason = match reason {
            BatchReason::Full | BatchReason::AllWaiting if !begins => BatchReason::Ahead,
            BatchReason::AllWaiting if !self.gathered.is_zero() => BatchReason::Gathered,
            reason => reason,
        };
        let sent_to = TraceStep::Sent(SentTo {
            batch,
            replica: id,
            queries: u32::try_from(queries.len()).unwrap_or(u32::MAX),
            reason,
            gathered: self.gathered,
            expected,
            is_cold: !replica.has_answered,
            begins,
        });
        for query in &queries {
            query.note_step(sent_to, now);
        }
        self.actions.push(Action::Send { replica: id, batch, queries: queries.into() });
        if begins {
            self.begun(id, false, now);
        }
    }

    /// A replica begins with a batch: its queries wait no more, and this is an attempt.
    /// One that was sent ahead has waited for that.
    pub(super) fn begun(&mut self, id: ReplicaId, was_ahead: bool, now: Instant) {
        let Some(batch) = self.replicas.get(id).and_then(|replica| replica.assignments.running())
        else {
            return;
        };
        // Queries of one request stand one behind the other and are counted together.
        let mut waited = Run::default();
        for key in &batch.queries {
            if let Some(entry) = self.entries.get_mut(*key) {
                entry.attempts += 1;
                if was_ahead {
                    entry.query.note_step(TraceStep::Began(batch.id), now);
                }
                let counted = waited.add(entry.query.arrived());
                self.actions.extend(counted.map(|(arrived, n)| counts_wait(arrived, n, now)));
            }
        }
        self.actions.extend(waited.end().map(|(arrived, n)| counts_wait(arrived, n, now)));
    }

    /// Takes over a replica with what it was sent by another dispatcher.
    pub(super) fn adopt(
        &mut self,
        id: ReplicaId,
        unanswered: Vec<Unanswered<Q>>,
        is_lane: bool,
        now: Instant,
    ) {
        // How long answers in pieces take teaches nothing about when the next one begins.
        let (curve, batch_max) = if is_lane {
            (LatencyCurve::default(), 1)
        } else {
            (self.curve.clone(), self.limits.batch_max)
        };
        let controller = BatchController::new(self.limits.batch_size, batch_max, curve);
        let mut replica = Replica::new(controller, Assignments::default());
        replica.is_lane = is_lane;
        let busy = replica.busy(self.limits.busy);
        for Unanswered { batch, queries } in unanswered {
            let (mut keys, mut deadline) = (Vec::with_capacity(queries.len()), now);
            for query in queries.iter() {
                if query.has_ended() {
                    keys.push(QueryKey::NONE);
                    continue;
                }
                let key = self.entries.find(query);
                let key = key.unwrap_or_else(|| self.entries.add(query.clone(), Self::NOBODY));
                deadline = deadline.max(query.take(now).unwrap_or(now));
                if let Some(entry) = self.entries.get_mut(key) {
                    entry.assigned += 1;
                    entry.attempts = entry.attempts.max(1);
                }
                keys.push(key);
            }
            self.next_batch = self.next_batch.max(batch.0 + 1);
            self.in_flight += keys.len();
            let objective = self.objective.tightest();
            let curve = replica.controller.curve();
            let mut batch = SentBatch::new(batch, keys, deadline, curve, objective);
            batch.is_adopted = true;
            replica.assignments.push(batch, now, busy);
        }
        self.replicas.join(id, replica);
    }
}

fn counts_wait<Q>(arrived: Instant, queries: usize, now: Instant) -> Action<Q> {
    Action::Count(Count::Waited(queries, now.saturating_duration_since(arrived)))
}
