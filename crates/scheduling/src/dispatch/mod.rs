//! Who computes which query when: one pure state machine for one model version (invariant S1).
//!
//! [`Dispatcher::on`] takes an [`Event`] and the time and says what to do, as [`Action`]s. It does
//! no IO and reads no clock, so that the simulation beside this crate runs it through years of
//! faults from a seed. It alone owns what follows from events: the queue, which replicas there are
//! and what each of them has been sent, second attempts, the figures that queries are admitted by,
//! what has been learned of latencies, inputs that kill replicas, and when a replica hangs.
//!
//! - [`queue`]: what waits, by deadline and fair between applications.
//! - [`replicas`]: which replica is next. [`assignment`]: what one has been sent.
//! - [`sending`]: batches are made and sent. [`ending`]: they are answered, or fail.
//! - [`hedge`]: second attempts at what takes suspiciously long. [`busy`]: when a replica hangs.
//! - [`poison`]: inputs that have killed replicas.

mod assignment;
mod busy;
mod ending;
mod hedge;
mod poison;
mod query;
mod queue;
mod replicas;
mod sending;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use clipper_clock::Instant;
use clipper_domain::{BatchSize, ReplicaId};
use smallvec::SmallVec;

pub use self::busy::BusyLimits;
pub use self::query::Query;
pub use self::queue::{AppId, Share};

use self::hedge::{HedgeBudget, Hedges};
use self::poison::{Known, PoisonList};
use self::query::Entries;
use self::queue::FairQueue;
use self::replicas::Replicas;
use crate::batch::Objective;
use crate::gather::Concurrency;
use crate::latency::LatencyCurve;
use crate::load::{Asking, Load, Round};
use crate::ticket::DefaultReason;

/// Names a batch among those of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

/// Queries of one request.
#[derive(Debug)]
pub struct Arrival<Q> {
    /// Of whom.
    pub share: Share,
    /// When they are due. For one that has come before, with a later deadline, this one counts.
    pub deadline: Instant,
    /// At least one.
    pub queries: SmallVec<[Q; 1]>,
}

/// What a replica has been sent by an earlier dispatcher and has not answered.
#[derive(Debug)]
pub struct Unanswered<Q> {
    /// Its name.
    pub batch: BatchId,
    /// At least one.
    pub queries: Arc<[Q]>,
}

/// What has happened.
#[derive(Debug)]
pub enum Event<'a, Q> {
    /// Queries have come; they are taken out.
    Arrived(&'a mut Vec<Arrival<Q>>),
    /// A replica takes batches from now on.
    Joined {
        /// Which; one that had the same name has left.
        replica: ReplicaId,
        /// In the order in which they were sent, at most two.
        unanswered: Vec<Unanswered<Q>>,
    },
    /// A replica is gone.
    Left {
        /// Which.
        replica: ReplicaId,
        /// Why.
        cause: Departure,
    },
    /// A replica has answered a batch, and each of its queries was told the answer.
    Done {
        /// Which.
        replica: ReplicaId,
        /// Which of its batches.
        batch: BatchId,
    },
    /// A time that [`Action::Wake`] has named has come, or any other.
    Time,
}

/// Why a replica is gone.
#[derive(Debug, Clone)]
pub enum Departure {
    /// It was told to go: what it had is nobody's fault.
    Orderly(Arc<str>),
    /// It died or hung: perhaps by what it had. In words.
    Died(Arc<str>),
    /// It broke a rule: perhaps with what it had, but that is not held against the input.
    Broke(Arc<str>),
    /// Its answer was larger than the limit with this name and value allows.
    AnswerTooLarge(Arc<str>),
}

/// What to do.
#[derive(Debug)]
pub enum Action<Q> {
    /// Give a replica a batch.
    Send {
        /// Which.
        replica: ReplicaId,
        /// The name that its answer has to have.
        batch: BatchId,
        /// In the order of their outputs.
        queries: Arc<[Q]>,
    },
    /// End a query without an answer of the model.
    Resolve {
        /// Which.
        query: Q,
        /// Why.
        reason: DefaultReason,
    },
    /// A replica hangs and has left the dispatcher: close its connection.
    GiveUp {
        /// Which.
        replica: ReplicaId,
        /// Why.
        why: Arc<str>,
    },
    /// Come back with [`Event::Time`] at this time. Replaces what was said before.
    Wake(Instant),
    /// Show this to whoever admits queries.
    Publish(Arc<Load>),
    /// Count something.
    Count(Count),
}

/// What is counted, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// So many queries that arrived together waited so long until a replica began with them.
    Waited(usize, Duration),
    /// A replica has answered a batch of so many queries in this time.
    Answered(ReplicaId, usize, Duration),
    /// Nobody waited for so many queries any more, or they had no time left.
    Skipped(usize),
    /// So many queries were queued again after their replica failed.
    Retried(usize),
    /// So many queries go to a second replica because their first one is slow.
    Hedged(usize),
    /// So many queries were refused because their input kills replicas.
    Poisonous(usize),
}

/// What a dispatcher keeps within.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Queries of a batch.
    pub batch_size: BatchSize,
    /// No batch is larger, whatever `batch_size` says.
    pub batch_max: usize,
    /// Queries waiting.
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

/// The state machine.
#[derive(Debug)]
pub struct Dispatcher<Q> {
    limits: Limits,
    entries: Entries<Q>,
    queue: FairQueue,
    replicas: Replicas,
    objective: Objective,
    concurrency: Concurrency,
    gathering: Option<Gathering>,
    hedges: Hedges,
    hedge_budget: HedgeBudget,
    poison: PoisonList,
    curve: LatencyCurve,
    round: Round,
    published: Arc<Load>,
    /// Answers were too large: batches are limited until then.
    limited_until: Option<Instant>,
    limited_times: u32,
    /// Queries sent and not answered.
    in_flight: usize,
    next_batch: u64,
    wake: Option<Instant>,
    actions: Vec<Action<Q>>,
}

/// A small batch waits for more queries.
#[derive(Debug, Clone, Copy)]
struct Gathering {
    until: Instant,
    /// So many had come.
    waiting: usize,
}

impl<Q: Query> Dispatcher<Q> {
    /// A dispatcher without replicas, which start to learn from `curve`. `seed` decides draws.
    #[must_use]
    pub fn new(limits: Limits, curve: LatencyCurve, seed: u64) -> Self {
        let hedge_budget = HedgeBudget::new(limits.hedge_share, limits.hedge_burst);
        let poison = PoisonList::new(limits.poison_keep, limits.poison_max);
        Self {
            limits,
            entries: Entries::new(),
            queue: FairQueue::new(),
            replicas: Replicas::new(seed),
            objective: Objective::default(),
            concurrency: Concurrency::default(),
            gathering: None,
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

    /// Takes note of an event at `now`. What to do about it, in this order.
    pub fn on(&mut self, event: Event<'_, Q>, now: Instant) -> std::vec::Drain<'_, Action<Q>> {
        match event {
            Event::Arrived(arrivals) => self.arrived(arrivals, now),
            Event::Joined { replica, unanswered } => self.joined(replica, unanswered, now),
            Event::Left { replica, cause } => self.left(replica, &cause, now),
            Event::Done { replica, batch } => self.done(replica, batch, now),
            Event::Time => self.time(now),
        }
        self.promote_hedges(now);
        if self.has_gathered(now) {
            self.dispatch(now);
        }
        self.publish();
        self.set_wake(now);
        self.actions.drain(..)
    }

    /// What the last picture shows.
    #[must_use]
    pub fn load(&self) -> &Arc<Load> {
        &self.published
    }

    /// Whether queries come one at a time.
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

    fn arrived(&mut self, arrivals: &mut Vec<Arrival<Q>>, now: Instant) {
        let mut poisonous = 0;
        for arrival in arrivals.drain(..) {
            let Arrival { share, deadline, queries } = arrival;
            let mut room = self.room(share, deadline, &queries, now);
            for query in queries {
                if let Some(key) = self.entries.find(&query) {
                    self.hasten(key, deadline);
                    continue;
                }
                let known = self.poison.get(query.fingerprint(), now);
                if let Some(Known::Poisonous(why)) = known {
                    poisonous += 1;
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
                    self.admit(query, share, deadline, deaths);
                }
            }
        }
        self.count_some(Count::Poisonous, poisonous);
        self.concurrency.arrived(self.queue.len() + self.in_flight);
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
        let key = self.entries.add(query, share);
        if let Some(entry) = self.entries.get_mut(key) {
            entry.deaths = deaths;
            if deaths >= self.limits.attempts_max {
                entry.batch_max = 1;
            }
        }
        self.enqueue(key, deadline);
    }

    /// A query that waits is wanted earlier by somebody else.
    fn hasten(&mut self, key: query::Key, deadline: Instant) {
        let Some(entry) = self.entries.get(key).filter(|entry| entry.is_waiting) else { return };
        let (share, objective) = (entry.share, entry.objective);
        self.queue.push(share, deadline, key, objective, false);
    }

    fn enqueue(&mut self, key: query::Key, deadline: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let counts = !std::mem::replace(&mut entry.is_waiting, true);
        self.queue.push(entry.share, deadline, key, entry.objective, counts);
    }

    fn joined(&mut self, id: ReplicaId, unanswered: Vec<Unanswered<Q>>, now: Instant) {
        self.left(id, &Departure::Orderly("The replica was replaced".into()), now);
        self.adopt(id, unanswered, now);
        self.learn_round();
    }

    fn time(&mut self, now: Instant) {
        self.wake = None;
        if self.limited_until.is_some_and(|until| until <= now) {
            self.limited_until = None;
            self.replicas.limit_batches(usize::MAX);
            self.learn_round();
        }
        self.give_up_hung(now);
        self.suspect(now);
        self.drop_overdue(now);
    }

    /// What the replicas take at once, after one has come, gone or learned.
    fn learn_round(&mut self) {
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

    fn resolve(&mut self, query: Q, reason: DefaultReason) {
        self.actions.push(Action::Resolve { query, reason });
    }

    fn count_some(&mut self, count: impl Fn(usize) -> Count, n: usize) {
        if n > 0 {
            self.actions.push(Action::Count(count(n)));
        }
    }
}
