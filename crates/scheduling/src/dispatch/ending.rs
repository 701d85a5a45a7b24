//! Batches are answered, take too long, or fail with their replica.

use std::sync::Arc;

use clipper_clock::Instant;
use clipper_domain::ReplicaId;

use super::action::{Action, Count};
use super::assignment::SentBatch;
use super::dispatcher::Dispatcher;
use super::event::Departure;
use super::query::{Query, QueryKey, QueryState};
use crate::batch_id::BatchId;
use crate::share::{AppId, Class, Share, Tenant};
use crate::ticket::DefaultReason;
use crate::trace::TraceStep;

/// What becomes of a query whose replica is gone.
enum Fate {
    /// Another replica has it, or it waits already.
    Elsewhere,
    /// It is tried again, until then.
    Retry(Instant),
    End(DefaultReason),
}

/// How a batch failed.
#[derive(Clone, Copy)]
enum BatchFailure<'a> {
    /// Nobody had begun with it, or nobody is to blame.
    Innocent(&'a Arc<str>),
    /// Its replica died with it.
    Deadly(&'a Arc<str>),
    /// Its replica broke a rule.
    Broken(&'a Arc<str>),
    /// Its answer was too large.
    TooLarge(&'a Arc<str>),
}

impl BatchFailure<'_> {
    fn why(&self) -> &Arc<str> {
        match self {
            Self::Innocent(why) | Self::Deadly(why) | Self::Broken(why) | Self::TooLarge(why) => {
                why
            }
        }
    }
}

/// What is said about a query of a failed batch.
enum QueryVerdict {
    /// It may be tried again.
    Retry,
    /// It has been tried often enough.
    Fail(Arc<str>),
    /// It is the cause.
    Poison(Arc<str>),
}

/// One death may be chance.
const DEATHS_MIN: u32 = 2;

impl<Q: Query> Dispatcher<Q> {
    /// Of whom queries are that an earlier dispatcher has sent.
    pub(super) const NOBODY: Share =
        Share { app: AppId(0), weight: 1, tenant: Tenant::NOBODY, class: Class::Normal };

    pub(super) fn done(&mut self, id: ReplicaId, batch: BatchId, now: Instant) {
        let Some(replica) = self.replicas.get_mut(id) else { return };
        let busy = replica.busy(self.limits.busy);
        let Some(answered) = replica.assignments.answered(batch, now, busy) else { return };
        replica.has_answered = true;
        let queries = answered.batch.queries.len();
        self.in_flight -= queries;
        if let Some(began) = answered.began {
            let latency = now.saturating_duration_since(began);
            self.hedge_budget.settle(&answered.batch.hedges, latency / batch_len(queries));
            if !replica.is_lane {
                replica.record(queries, latency);
                self.curve.clone_from(replica.controller.curve());
                self.hedge_budget.earn(latency);
            }
            self.actions.push(Action::Count(Count::Answered(id, queries, latency)));
        }
        if replica.assignments.is_idle() {
            self.replicas.add_idle(id);
        }
        if answered.has_next_begun {
            self.begun(id, true, now);
        }
        for key in answered.batch.queries {
            self.end_answered(key);
        }
        self.learn_round();
    }

    /// A query that was answered: by the first of its replicas, others follow in vain.
    fn end_answered(&mut self, key: QueryKey) {
        let Some(entry) = self.entries.remove(key) else { return };
        if entry.is_waiting {
            self.queue.forget(entry.share, entry.objective);
        }
        self.poison.clear(entry.query.fingerprint());
    }

    pub(super) fn left(&mut self, id: ReplicaId, cause: &Departure, now: Instant) {
        let Some(replica) = self.replicas.leave(id) else { return };
        let (running, ahead) = replica.assignments.end();
        let (failure, why) = match cause {
            Departure::Orderly(why) => (BatchFailure::Innocent(why), why),
            Departure::Died(why) => (BatchFailure::Deadly(why), why),
            Departure::Broke(why) => (BatchFailure::Broken(why), why),
            Departure::AnswerTooLarge(why) => (BatchFailure::TooLarge(why), why),
        };
        if let Some(running) = running {
            if let Departure::AnswerTooLarge(_) = cause {
                self.limit_batches(running.queries.len() / 2, now);
            }
            self.fail(&running, failure, now);
        }
        if let Some(ahead) = ahead {
            self.fail(&ahead, BatchFailure::Innocent(why), now);
        }
        self.learn_round();
    }

    /// No batch is larger for a while, which is longer each time.
    fn limit_batches(&mut self, batch_max: usize, now: Instant) {
        const DOUBLINGS_MAX: u32 = 10;
        let keep = self.limits.poison_keep * (1 << self.limited_times.min(DOUBLINGS_MAX));
        self.limited_times += 1;
        self.replicas.limit_batches(batch_max);
        self.limited_until = Some(now + keep);
    }

    fn fail(&mut self, batch: &SentBatch, failure: BatchFailure<'_>, now: Instant) {
        self.in_flight -= batch.queries.len();
        let mut retried = 0;
        for key in &batch.queries {
            if let Some(entry) = self.entries.get(*key) {
                entry.query.note_step(TraceStep::Failed(batch.id), now);
            }
            match self.fate(*key, batch.queries.len(), failure, now) {
                Fate::Elsewhere => {}
                Fate::Retry(deadline) => {
                    self.enqueue(*key, deadline);
                    retried += 1;
                }
                Fate::End(reason) => {
                    if let Some(entry) = self.entries.remove(*key) {
                        self.resolve(entry.query, reason);
                    }
                }
            }
        }
        self.count_some(Count::Retried, retried);
    }

    /// What becomes of one query of a failed batch of `company`.
    fn fate(
        &mut self,
        key: QueryKey,
        company: usize,
        failure: BatchFailure<'_>,
        now: Instant,
    ) -> Fate {
        let attempts_max = self.limits.attempts_max;
        // It may have been answered by another replica.
        let Some(entry) = self.entries.get_mut(key) else { return Fate::Elsewhere };
        entry.assigned -= 1;
        let verdict = match failure {
            BatchFailure::Innocent(why) if entry.attempts > attempts_max => {
                QueryVerdict::Fail(Arc::clone(why))
            }
            BatchFailure::Innocent(_) => QueryVerdict::Retry,
            BatchFailure::Deadly(why) => blame(entry, company, attempts_max, why),
            BatchFailure::Broken(why) => match blame(entry, company, attempts_max, why) {
                QueryVerdict::Poison(_) => QueryVerdict::Fail(Arc::clone(why)),
                verdict => verdict,
            },
            BatchFailure::TooLarge(why) => split(entry, company, why),
        };
        let (fingerprint, deaths) = (entry.query.fingerprint(), entry.deaths);
        let is_broken = matches!(failure, BatchFailure::Broken(_));
        match verdict {
            QueryVerdict::Retry | QueryVerdict::Fail(_) if deaths == 0 || is_broken => {}
            QueryVerdict::Poison(ref why) => {
                entry.query.note_step(TraceStep::Poisonous, now);
                self.poison.note(fingerprint, deaths, Some(Arc::clone(why)), now);
            }
            _ => self.poison.note(fingerprint, deaths, None, now),
        }
        let ends = match verdict {
            QueryVerdict::Fail(why) | QueryVerdict::Poison(why) => Some(why),
            QueryVerdict::Retry => entry.query.has_begun().then(|| Arc::clone(failure.why())),
        };
        if let Some(why) = ends {
            if std::mem::take(&mut entry.is_waiting) {
                self.queue.forget(entry.share, entry.objective);
            }
            return Fate::End(DefaultReason::Failed(why));
        }
        if entry.assigned > 0 || entry.is_waiting {
            return Fate::Elsewhere;
        }
        entry.is_hedging = false;
        entry.query.put_back();
        match entry.query.awaited_until(now) {
            Some(deadline) => Fate::Retry(deadline),
            None => Fate::End(DefaultReason::Late),
        }
    }

    /// Batches that take suspiciously long may be given to another replica as well.
    pub(super) fn suspect(&mut self, now: Instant) {
        for key in self.replicas.suspects(now) {
            let Some(entry) = self.entries.get_mut(key) else { continue };
            let tries = entry.attempts.max(1) < self.limits.attempts_max;
            let is_placed = entry.is_waiting || entry.is_hedging || entry.assigned > 1;
            if is_placed || !tries || entry.query.is_streamed() {
                continue;
            }
            let Some(deadline) = entry.query.awaited_until(now) else { continue };
            entry.is_hedging = true;
            self.hedges.add(key, deadline, entry.objective);
        }
    }

    /// Lets hedges into the queue: those whose deadline is near, and others as long as they do not
    /// take the last idle replica; all within the budget. Whether there were any.
    pub(super) fn promote_hedges(&mut self, now: Instant) -> bool {
        if self.hedges.next_urgent().is_none() {
            return false;
        }
        let entries = &self.entries;
        self.hedges.retain(|key| entries.get(key).is_some_and(|entry| entry.is_hedging));
        let has_spare = self.replicas.idle() > 1 && self.queue.len() == 0;
        let objective = self.objective.tightest();
        let more = if has_spare { self.replicas.smallest_idle_batch(objective) } else { 0 };
        // Those that need a batch of their own would take more than one replica.
        let entries = &self.entries;
        let fits = |key| entries.get(key).is_some_and(|entry| entry.batch_max >= more);
        let keys = self.hedges.take(now, more, fits);
        let n = keys.len().min(self.replicas.smallest_batch(objective)).max(1);
        let each = self.curve.mean(n) / batch_len(n);
        let each = self.curve.is_known().then_some(each);
        let mut hedged = 0;
        for key in keys {
            let Some(entry) = self.entries.get_mut(key) else { continue };
            entry.is_hedging = false;
            let Some(deadline) = entry.query.awaited_until(now) else { continue };
            let cost = each.unwrap_or_else(|| entry.objective / 2);
            if self.hedge_budget.spend(cost) {
                entry.hedge_cost = cost;
                self.enqueue(key, deadline);
                hedged += 1;
            }
        }
        self.count_some(Count::Hedged, hedged);
        hedged > 0
    }

    /// Gives up replicas that compute although nobody waits for it any more.
    pub(super) fn give_up_hung(&mut self, now: Instant) {
        for id in self.replicas.hung(now) {
            let Some(replica) = self.replicas.get_mut(id) else { continue };
            let queries = replica.assignments.running().into_iter().flat_map(|b| &b.queries);
            // Later queries may have joined.
            let awaited =
                queries.filter_map(|key| self.entries.get(*key)?.query.awaited_until(now));
            if let Some(deadline) = awaited.max() {
                let busy = replica.busy(self.limits.busy);
                replica.assignments.extend(deadline, busy);
            }
            if replica.assignments.hung_from().is_none_or(|hung_from| hung_from > now) {
                continue;
            }
            let why: Arc<str> = replica.assignments.why_hung(replica.busy(self.limits.busy)).into();
            self.actions.push(Action::GiveUp { replica: id, why: Arc::clone(&why) });
            self.left(id, &Departure::Died(why), now);
        }
    }

    pub(super) fn drop_overdue(&mut self, now: Instant) {
        let mut skipped = 0;
        while let Some((_, key)) = self.queue.pop_overdue(now, |key| self.entries.is_waiting(key)) {
            let Some(entry) = self.entries.get(key) else { continue };
            // A later query may have joined it.
            if let Some(later) = entry.query.awaited_until(now) {
                let (share, objective) = (entry.share, entry.objective);
                self.queue.push(share, later, key, objective, false);
                continue;
            }
            self.end_waiting(key, DefaultReason::Late);
            skipped += 1;
        }
        self.count_some(Count::Skipped, skipped);
    }
}

/// How many queries a batch has, to divide its time by.
fn batch_len(queries: usize) -> u32 {
    u32::try_from(queries.max(1)).unwrap_or(u32::MAX)
}

/// A replica has died with this query in a batch of `company`. Once it is clear that the query is
/// the cause, or when it was tried often enough, it ends.
fn blame<Q>(
    entry: &mut QueryState<Q>,
    company: usize,
    attempts_max: u32,
    why: &Arc<str>,
) -> QueryVerdict {
    entry.deaths += 1;
    let deaths = entry.deaths;
    if company == 1 && deaths >= attempts_max.max(DEATHS_MIN) {
        let why = format!("{why}; {deaths} replicas have failed on this input");
        return QueryVerdict::Poison(why.into());
    }
    if entry.attempts > attempts_max {
        QueryVerdict::Fail(Arc::clone(why))
    } else if deaths < attempts_max {
        entry.batch_max = company.div_ceil(2);
        QueryVerdict::Retry
    } else if attempts_max > 1 {
        // Once more, alone: in company it may have died of another one.
        entry.batch_max = 1;
        QueryVerdict::Retry
    } else {
        QueryVerdict::Fail(Arc::clone(why))
    }
}

/// The answer that this query was part of was too large. If it was alone, it ends.
fn split<Q>(entry: &mut QueryState<Q>, company: usize, why: &Arc<str>) -> QueryVerdict {
    // It was no attempt at this query: a smaller batch is something else.
    entry.attempts = entry.attempts.saturating_sub(1);
    entry.batch_max = (company / 2).max(1);
    if company == 1 { QueryVerdict::Poison(Arc::clone(why)) } else { QueryVerdict::Retry }
}
