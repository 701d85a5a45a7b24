//! The state machine: its state, how it takes events in, and what it keeps others informed of.

use std::sync::Arc;
use std::time::Duration;

use clipper_clock::Instant;
use clipper_domain::{BatchSize, ReplicaId};

use super::action::{Action, Count};
use super::busy::BusyLimits;
use super::event::{Arrival, Departure, Event, Unanswered};
use super::hedge::{HedgeBudget, Hedges};
use super::poison::{Known, PoisonList};
use super::query::{Query, QueryKey, QueryTable};
use super::queue::FairQueue;
use super::replicas::Replicas;
use crate::batch::Objective;
use crate::gather::{self, Concurrency};
use crate::latency::LatencyCurve;
use crate::load::{Asking, Load, Round};
use crate::share::Share;
use crate::ticket::DefaultReason;
use crate::trace::TraceStep;

/// What a dispatcher keeps within.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Queries of a batch.
    pub batch_size: BatchSize,
    /// No batch is larger, whatever `batch_size` says.
    pub batch_max: usize,
    pub queue_max: usize,
    /// How often a query is tried, the first time included. Once more if it was always tried
    /// together with others, to find out whether it is the one that kills.
    pub attempts_max: u32,
    /// Share of the replicas' time for hedges.
    pub hedge_share: f64,
    /// Replica time for hedges at once.
    pub hedge_burst: Duration,
    /// How long inputs that have killed replicas are remembered.
    pub poison_keep: Duration,
    /// How many of them.
    pub poison_max: usize,
    /// How long a replica may compute.
    pub busy: BusyLimits,
}

#[derive(Debug)]
pub struct Dispatcher<Q> {
    pub(super) limits: Limits,
    pub(super) entries: QueryTable<Q>,
    pub(super) queue: FairQueue,
    pub(super) replicas: Replicas,
    pub(super) objective: Objective,
    pub(super) concurrency: Concurrency,
    pub(super) gathering: Option<Gathering>,
    /// How long the batch that is sent next has waited for others.
    pub(super) gathered: Duration,
    pub(super) hedges: Hedges,
    pub(super) hedge_budget: HedgeBudget,
    pub(super) poison: PoisonList,
    pub(super) curve: LatencyCurve,
    pub(super) round: Round,
    pub(super) published: Arc<Load>,
    /// Answers were too large: batches are limited until then.
    pub(super) limited_until: Option<Instant>,
    pub(super) limited_times: u32,
    /// Queries sent and not answered.
    pub(super) in_flight: usize,
    pub(super) next_batch: u64,
    pub(super) wake: Option<Instant>,
    pub(super) actions: Vec<Action<Q>>,
}

/// A small batch waits for more queries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gathering {
    pub until: Instant,
    /// So many had come.
    pub waiting: usize,
}

impl Gathering {
    /// How long it has waited.
    pub fn so_far(self, now: Instant) -> Duration {
        gather::WAIT.saturating_sub(self.until.saturating_duration_since(now))
    }
}

impl<Q: Query> Dispatcher<Q> {
    /// A dispatcher without replicas, which start to learn from `curve`. `seed` decides draws.
    #[must_use]
    pub fn new(limits: Limits, curve: LatencyCurve, seed: u64) -> Self {
        let hedge_budget = HedgeBudget::new(limits.hedge_share, limits.hedge_burst);
        let poison = PoisonList::new(limits.poison_keep, limits.poison_max);
        Self {
            limits,
            entries: QueryTable::new(),
            queue: FairQueue::new(),
            replicas: Replicas::new(seed),
            objective: Objective::default(),
            concurrency: Concurrency::default(),
            gathering: None,
            gathered: Duration::ZERO,
            hedges: Hedges::default(),
            hedge_budget,
            poison,
            published: Arc::new(Load { curve: curve.clone(), ..Load::default() }),
            curve,
            round: Round::default(),
            limited_until: None,
            limited_times: 0,
            in_flight: 0,
            next_batch: 0,
            wake: None,
            actions: Vec::new(),
        }
    }

    /// Of batches from now on: those under way keep theirs.
    pub fn set_batch_size(&mut self, size: BatchSize) {
        if self.limits.batch_size != size {
            self.limits.batch_size = size;
            self.replicas.set_batch_size(size);
        }
    }

    /// Takes note of an event at `now`. What to do about it, in this order.
    pub fn on(&mut self, event: Event<'_, Q>, now: Instant) -> std::vec::Drain<'_, Action<Q>> {
        match event {
            Event::Arrived(arrivals) => self.arrived(arrivals, now),
            Event::Joined { replica, unanswered, is_lane } => {
                self.joined(replica, unanswered, is_lane, now);
            }
            Event::Left { replica, cause } => self.left(replica, &cause, now),
            Event::Done { replica, batch } => self.done(replica, batch, now),
            Event::Time => self.time(now),
        }
        let has_hedges = self.promote_hedges(now);
        // A hedge that waited for others would find the spare replica gone, and take the last one.
        if self.has_gathered(now) || has_hedges {
            self.dispatch(now);
        }
        self.gathered = Duration::ZERO;
        self.publish();
        self.set_wake(now);
        self.actions.drain(..)
    }

    /// What the last picture shows.
    #[must_use]
    pub fn load(&self) -> &Arc<Load> {
        &self.published
    }

    /// Whether requests come one at a time.
    #[must_use]
    pub fn has_lone_caller(&self) -> bool {
        self.concurrency.is_one()
    }

    /// Queries that have not ended.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.entries.len()
    }

    /// Gives up: everything that has not ended and that no replica has.
    pub fn into_waiting(mut self) -> impl Iterator<Item = Arrival<Q>> {
        let waiting: Vec<_> = self.entries.drain().filter(|entry| entry.is_waiting).collect();
        waiting.into_iter().map(|entry| {
            let deadline = entry.query.arrived() + entry.objective;
            let queries = std::iter::once(entry.query).collect();
            Arrival { share: entry.share, deadline, queries }
        })
    }

    /// Gives up for good: everything that has not ended, also what a replica has.
    pub fn into_unfinished(mut self) -> impl Iterator<Item = Q> {
        let unfinished: Vec<_> = self.entries.drain().collect();
        unfinished.into_iter().map(|entry| entry.query)
    }

    fn arrived(&mut self, arrivals: &mut Vec<Arrival<Q>>, now: Instant) {
        let (mut poisonous, mut came, requests) = (0, 0, arrivals.len());
        for arrival in arrivals.drain(..) {
            let Arrival { share, deadline, queries } = arrival;
            came += queries.len();
            let mut room = self.room(share, deadline, &queries, now);
            for query in queries {
                if let Some(key) = self.entries.find(&query) {
                    self.hasten(key, deadline);
                    continue;
                }
                let known = self.poison.get(query.fingerprint(), now);
                if let Some(Known::Poisonous(why)) = known {
                    poisonous += 1;
                    query.note_step(TraceStep::Poisonous, now);
                    self.resolve(query, DefaultReason::Failed(why));
                } else if self.queue.len() >= self.limits.queue_max {
                    let why = Arc::from("The queue of the model is full (serving.model_queue_max)");
                    self.resolve(query, DefaultReason::Shed(why));
                } else if room == 0 {
                    self.resolve(query, DefaultReason::overtaken());
                } else {
                    room -= 1;
                    let deaths =
                        if let Some(Known::Suspected(deaths)) = known { deaths } else { 0 };
                    query.note_step(TraceStep::Queued, now);
                    self.admit(query, share, deadline, deaths);
                }
            }
        }
        self.count_some(Count::Poisonous, poisonous);
        let under_way = self.queue.len() + self.in_flight;
        self.concurrency.arrived(requests, came, under_way, now);
    }

    fn room(&self, share: Share, deadline: Instant, queries: &[Q], now: Instant) -> usize {
        let Some(first) = queries.first() else { return 0 };
        let (queries, objective) = (queries.len(), first.objective());
        let ahead = self.queue.objectives().ahead_of(objective);
        if ahead == 0 && queries == 1 {
            return 1;
        }
        let asking = Asking { share, queries, objective, deadline };
        self.picture().room(&asking, 0, now)
    }

    fn admit(&mut self, query: Q, share: Share, deadline: Instant, deaths: u32) {
        let key = self.entries.add(query, self.queue.told_apart(share));
        if let Some(entry) = self.entries.get_mut(key) {
            entry.deaths = deaths;
            if deaths >= self.limits.attempts_max {
                entry.batch_max = 1;
            }
        }
        self.enqueue(key, deadline);
    }

    /// A query that waits is wanted earlier by somebody else.
    fn hasten(&mut self, key: QueryKey, deadline: Instant) {
        let Some(entry) = self.entries.get(key).filter(|entry| entry.is_waiting) else { return };
        let (share, objective) = (entry.share, entry.objective);
        self.queue.push(share, deadline, key, objective, false);
    }

    pub(super) fn enqueue(&mut self, key: QueryKey, deadline: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let counts = !std::mem::replace(&mut entry.is_waiting, true);
        self.queue.push(entry.share, deadline, key, entry.objective, counts);
    }

    fn joined(
        &mut self,
        id: ReplicaId,
        unanswered: Vec<Unanswered<Q>>,
        is_lane: bool,
        now: Instant,
    ) {
        self.left(id, &Departure::Orderly("The replica was replaced".into()), now);
        self.adopt(id, unanswered, is_lane, now);
        self.learn_round();
    }

    fn time(&mut self, now: Instant) {
        self.wake = None;
        if self.limited_until.is_some_and(|until| until <= now) {
            self.limited_until = None;
            self.replicas.lift_limit();
            self.learn_round();
        }
        self.give_up_hung(now);
        self.suspect(now);
        self.drop_overdue(now);
    }

    /// What the replicas take at once, after one has come, gone or learned.
    pub(super) fn learn_round(&mut self) {
        self.round = self.replicas.round(self.objective.tightest());
    }

    fn picture(&self) -> Load {
        Load {
            replicas: self.replicas.len(),
            waiting: self.queue.len(),
            objectives: self.queue.objectives().clone(),
            apps: self.queue.apps(),
            round: Round { ends: self.replicas.round_ends(), ..self.round },
            curve: self.curve.clone(),
        }
    }

    fn publish(&mut self) {
        let picture = self.picture();
        if picture.differs(&self.published) {
            self.published = Arc::new(picture);
            self.actions.push(Action::Publish(Arc::clone(&self.published)));
        }
    }

    /// Asks to come back for the first deadline in the queue, the first batch to be suspected and
    /// the first replica to take a batch ahead, so that nothing waits for an event that may not
    /// come.
    fn set_wake(&mut self, now: Instant) {
        let next = [
            self.queue.next_deadline(),
            self.replicas.next_event(now, self.queue.len()),
            self.gathering.map(|gathering| gathering.until),
            self.hedges.next_urgent(),
            self.limited_until,
        ];
        let Some(due) = next.into_iter().flatten().min() else { return };
        if self.wake.is_none_or(|wake| due < wake) {
            self.wake = Some(due);
            self.actions.push(Action::Wake(due));
        }
    }

    pub(super) fn resolve(&mut self, query: Q, reason: DefaultReason) {
        self.actions.push(Action::Resolve { query, reason });
    }

    pub(super) fn count_some(&mut self, count: impl Fn(usize) -> Count, n: usize) {
        if n > 0 {
            self.actions.push(Action::Count(count(n)));
        }
    }
}
