//! Dispatchers that are wrong on purpose: the real one with its events or actions falsified, or
//! with other limits than it was given. The simulation has to catch each of them.

use std::time::Duration;

use clipper_clock::Instant;
use clipper_domain::{BatchSize, ReplicaId};
use clipper_scheduling::dispatch::{
    Action, Arrival, BatchId, Departure, Dispatcher, Event, Limits,
};
use clipper_scheduling::latency::LatencyCurve;
use clipper_scheduling::share::{AppId, Share};
use clipper_scheduling::ticket::DefaultReason;

use crate::query::SimQuery;

macro_rules! mutations {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// What is wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutation { $($(#[doc = $doc])+ $name),+ }
        impl Mutation {
            /// All of them, with what they do.
            pub const ALL: &[(Self, &str)] = &[$((Self::$name, concat!($($doc),+))),+];
        }
    };
}

mutations! {
    /// a gone replica is not noticed
    LosesReplicaLeft,
    /// every fifth answer is not noticed
    LosesBatchDone,
    /// one query of each larger request is lost
    LosesArrival,
    /// a replica that joins is not noticed
    LosesReplicaJoined,
    /// resolved queries are resolved again
    AnswersTwice,
    /// queries are not resolved
    LosesAnswers,
    /// what was just sent is resolved as late
    AnswersEarly,
    /// a batch goes to two replicas
    SendsTwice,
    /// a batch goes to a replica that has left
    SendsToDeparted,
    /// a batch goes to the replica that had the last one
    SendsToBusy,
    /// all batches have one name
    ReusesBatchIds,
    /// an answer is booked to another replica
    ConfusesReplicas,
    /// it never wants to be woken
    ForgetsToWake,
    /// it is woken too late
    WakesLate,
    /// a hung replica is given up without a word
    LosesGiveUp,
    /// a replica that computes for ever is kept
    NeverGivesUp,
    /// a replica that is slower than an objective is given up
    GivesUpEarly,
    /// whatever limit a hung replica has reached, its deadline is said
    NamesWrongLimit,
    /// work is done twice without a budget
    HedgesWithoutBudget,
    /// queries are tried without end
    RetriesWithoutBudget,
    /// nothing is remembered of deadly inputs
    ForgetsPoison,
    /// a batch whose answer was too large is sent again as it was
    RepeatsTooLarge,
    /// the queue has no limit
    QueuesWithoutLimit,
    /// batches are larger than allowed
    SendsLargerBatches,
    /// those who ask most get most
    IsUnfair,
    /// work that nobody waits for is done
    SendsAbandoned,
    /// places of ended queries are not given back
    LeaksPlaces,
    /// an answer that has begun to go out is begun again
    RepeatsBegun,
}

/// A dispatcher, wrong or not.
pub struct Mutant {
    inner: Dispatcher<SimQuery>,
    mutation: Option<Mutation>,
    count: u64,
    departed: Option<ReplicaId>,
    last_sent: Option<ReplicaId>,
}

impl Mutant {
    pub fn new(mut limits: Limits, seed: u64, mutation: Option<Mutation>) -> Self {
        let hour = Duration::from_secs(3_600);
        match mutation {
            Some(Mutation::HedgesWithoutBudget) => limits.hedge_burst = hour,
            Some(Mutation::RetriesWithoutBudget) => limits.attempts_max = 50,
            Some(Mutation::ForgetsPoison) => limits.poison_max = 0,
            Some(Mutation::NeverGivesUp) => (limits.busy.min, limits.busy.max) = (hour, hour),
            Some(Mutation::GivesUpEarly) => limits.busy.min = Duration::ZERO,
            Some(Mutation::QueuesWithoutLimit) => limits.queue_max = usize::MAX,
            Some(Mutation::SendsLargerBatches) => {
                (limits.batch_size, limits.batch_max) = (BatchSize::Adaptive, 10_000);
            }
            _ => {}
        }
        let inner = Dispatcher::new(limits, LatencyCurve::default(), seed);
        Self { inner, mutation, count: 0, departed: None, last_sent: None }
    }

    pub fn unfinished(&self) -> usize {
        self.inner.unfinished()
    }

    pub fn into_waiting(self) -> Vec<Arrival<SimQuery>> {
        self.inner.into_waiting().collect()
    }

    pub fn on(&mut self, mut event: Event<'_, SimQuery>, now: Instant) -> Vec<Action<SimQuery>> {
        self.count += 1;
        if self.falsify(&mut event) {
            return Vec::new();
        }
        let actions: Vec<_> = self.inner.on(event, now).collect();
        if self.mutation.is_none() {
            return actions;
        }
        let mut falsified = Vec::new();
        for action in actions {
            self.act(action, &mut falsified);
        }
        falsified
    }

    /// Whether the event is lost.
    fn falsify(&mut self, event: &mut Event<'_, SimQuery>) -> bool {
        let Some(mutation) = self.mutation else { return false };
        match (mutation, event) {
            (Mutation::LosesReplicaLeft, Event::Left { .. })
            | (Mutation::LosesReplicaJoined, Event::Joined { .. }) => true,
            (Mutation::LosesBatchDone, Event::Done { .. }) => self.count.is_multiple_of(5),
            (Mutation::ConfusesReplicas, Event::Done { replica, .. }) => {
                replica.0 += 1;
                false
            }
            (Mutation::RepeatsTooLarge, Event::Left { cause, .. }) => {
                if let Departure::AnswerTooLarge(why) = cause {
                    *cause = Departure::Orderly(why.clone());
                }
                false
            }
            (Mutation::SendsToDeparted, Event::Left { replica, .. }) => {
                self.departed = Some(*replica);
                false
            }
            (_, Event::Arrived(arrivals)) => {
                Self::falsify_arrivals(mutation, arrivals);
                false
            }
            _ => false,
        }
    }

    fn falsify_arrivals(mutation: Mutation, arrivals: &mut [Arrival<SimQuery>]) {
        for arrival in arrivals {
            match mutation {
                Mutation::LosesArrival if arrival.queries.len() > 1 => {
                    arrival.queries.pop();
                }
                Mutation::IsUnfair => arrival.share = Share::equal(AppId(7)),
                Mutation::SendsAbandoned => {
                    for query in &arrival.queries {
                        query.is_blind.set(true);
                    }
                }
                _ => {}
            }
        }
    }

    fn act(&mut self, action: Action<SimQuery>, out: &mut Vec<Action<SimQuery>>) {
        let mutation = self.mutation;
        match (mutation, action) {
            (Some(Mutation::AnswersTwice), Action::Resolve { query, reason }) => {
                out.push(Action::Resolve { query: query.clone(), reason: reason.clone() });
                out.push(Action::Resolve { query, reason });
            }
            (Some(Mutation::LosesAnswers), Action::Resolve { .. })
            | (Some(Mutation::ForgetsToWake), Action::Wake(_))
            | (Some(Mutation::LosesGiveUp), Action::GiveUp { .. }) => {}
            (Some(Mutation::WakesLate), Action::Wake(at)) => {
                out.push(Action::Wake(at + Duration::from_millis(30)));
            }
            (Some(Mutation::LeaksPlaces), Action::Publish(load)) if load.waiting == 0 => {}
            (Some(Mutation::NamesWrongLimit), Action::GiveUp { replica, .. }) => {
                let why = "it computed for longer than anybody waited (the latest objective of its \
                           batch)";
                out.push(Action::GiveUp { replica, why: why.into() });
            }
            (_, Action::Send { replica, batch, queries }) => {
                self.send(replica, batch, queries, out);
            }
            (_, action) => out.push(action),
        }
    }

    fn send(
        &mut self,
        mut replica: ReplicaId,
        mut batch: BatchId,
        queries: std::sync::Arc<[SimQuery]>,
        out: &mut Vec<Action<SimQuery>>,
    ) {
        let last = self.last_sent.replace(replica);
        match self.mutation {
            Some(Mutation::AnswersEarly) => {
                let query = queries[0].clone();
                out.push(Action::Resolve { query, reason: DefaultReason::Late });
            }
            Some(Mutation::SendsTwice) => {
                let other = last.filter(|last| *last != replica);
                let queries = queries.clone();
                out.extend(other.map(|replica| Action::Send { replica, batch, queries }));
            }
            Some(Mutation::SendsToDeparted) => replica = self.departed.unwrap_or(replica),
            Some(Mutation::SendsToBusy) => replica = last.unwrap_or(replica),
            Some(Mutation::ReusesBatchIds) => batch = BatchId(0),
            _ => {}
        }
        out.push(Action::Send { replica, batch, queries });
    }
}
