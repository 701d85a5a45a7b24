//! The replicas of a model, and which of them gets the next batch.

use std::collections::BTreeMap;
use std::time::Duration;

use clipper_clock::Instant;
use clipper_domain::{BatchSize, ReplicaId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::assignment::Assignments;
use super::busy::BusyLimits;
use super::query::QueryKey;
use crate::batch::BatchController;
use crate::load::{Batches, Round};

#[derive(Debug)]
pub(super) struct Replica {
    /// How large its batches are.
    pub controller: BatchController,
    /// What it has been sent.
    pub assignments: Assignments,
    /// One of several of a container that answers in pieces.
    pub is_lane: bool,
    /// Anything at all.
    pub has_answered: bool,
    /// Its part of a round, until it learns.
    part: Option<RoundPart>,
}

impl Replica {
    pub fn new(controller: BatchController, assignments: Assignments) -> Self {
        Self { controller, assignments, is_lane: false, has_answered: false, part: None }
    }

    /// How long it may compute one batch. Who answers in pieces is given up by the owner of the
    /// connection, which sees them.
    pub fn busy(&self, busy: BusyLimits) -> BusyLimits {
        if self.is_lane { BusyLimits { min: busy.max, ..busy } } else { busy }
    }

    fn batch_limit(&self, objective: Duration, batch_max: usize) -> usize {
        self.controller.limit(objective).min(batch_max)
    }

    /// It has answered a batch.
    pub fn record(&mut self, queries: usize, latency: Duration) {
        self.controller.record(queries, latency);
        self.part = None;
    }
}

/// What one replica adds to a round. With hundreds of them it is not worked out for all after each
/// batch of one.
#[derive(Debug, Clone, Copy)]
struct RoundPart {
    objective: Duration,
    batch_max: usize,
    round: Round,
}

impl RoundPart {
    fn of(replica: &Replica, objective: Duration, batch_max: usize) -> Self {
        let curve = replica.controller.curve();
        let batch = |queries| {
            let (time, spread) = (curve.mean(queries), curve.spread(queries));
            Batches { queries, time, spread }
        };
        let limit = replica.batch_limit(objective, batch_max);
        let in_time = batch(replica.controller.in_time(limit, objective));
        let is_guess = limit > curve.explored;
        let round = Round { full: batch(limit), in_time, ends: None, is_guess };
        Self { objective, batch_max, round }
    }
}

/// All of them. A replica is idle from its arrival or its last answer on, until it is picked.
#[derive(Debug)]
pub(super) struct Replicas {
    all: BTreeMap<ReplicaId, Replica>,
    idle: Vec<ReplicaId>,
    random: SmallRng,
    /// No batch is larger, whatever a controller says.
    batch_max: usize,
}

impl Replicas {
    /// None yet; `seed` decides draws.
    pub fn new(seed: u64) -> Self {
        let random = SmallRng::seed_from_u64(seed);
        Self { all: BTreeMap::new(), idle: Vec::new(), random, batch_max: usize::MAX }
    }

    pub fn join(&mut self, id: ReplicaId, replica: Replica) {
        if replica.assignments.is_idle() {
            self.idle.push(id);
        }
        self.all.insert(id, replica);
    }

    pub fn leave(&mut self, id: ReplicaId) -> Option<Replica> {
        self.idle.retain(|idle| *idle != id);
        self.all.remove(&id)
    }

    pub fn get(&self, id: ReplicaId) -> Option<&Replica> {
        self.all.get(&id)
    }

    pub fn get_mut(&mut self, id: ReplicaId) -> Option<&mut Replica> {
        self.all.get_mut(&id)
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Of the batches of all from now on.
    pub fn set_batch_size(&mut self, size: BatchSize) {
        for replica in self.all.values_mut() {
            replica.controller.set_size(size);
            replica.part = None;
        }
    }

    /// Limits the batches of all, if they are not limited to less already.
    pub fn limit_batches(&mut self, batch_max: usize) {
        self.batch_max = self.batch_max.min(batch_max.max(1));
    }

    /// Controllers alone say how large batches are.
    pub fn lift_limit(&mut self) {
        self.batch_max = usize::MAX;
    }

    /// The most queries of the next batch of a replica.
    pub fn batch_limit(&self, replica: &Replica, objective: Duration) -> usize {
        replica.batch_limit(objective, self.batch_max)
    }

    /// The least of these limits.
    pub fn smallest_batch(&self, objective: Duration) -> usize {
        let limits = self.all.values().map(|replica| self.batch_limit(replica, objective));
        limits.min().unwrap_or(usize::MAX)
    }

    /// The same of those that are idle; 0 if none is.
    pub fn smallest_idle_batch(&self, objective: Duration) -> usize {
        let idle = self.idle.iter().filter_map(|id| self.all.get(id));
        idle.map(|replica| self.batch_limit(replica, objective)).min().unwrap_or(0)
    }

    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// An idle one, if there is any.
    pub fn any_idle(&self) -> Option<&Replica> {
        self.idle.last().and_then(|id| self.all.get(id))
    }

    /// It was picked in vain, or has answered everything.
    pub fn add_idle(&mut self, id: ReplicaId) {
        self.idle.push(id);
    }

    /// Of two idle replicas drawn at random the one that is faster; idle no more.
    pub fn pick_idle(&mut self) -> Option<ReplicaId> {
        let n = self.idle.len();
        if n < 2 {
            return self.idle.pop();
        }
        let drawn = [self.random.random_range(0..n), self.random.random_range(0..n)];
        let time_of_one = |at: &usize| {
            let replica = self.idle.get(*at).and_then(|id| self.all.get(id));
            replica.map(|replica| replica.controller.curve().mean(1))
        };
        let faster = drawn.into_iter().min_by_key(time_of_one)?;
        Some(self.idle.swap_remove(faster))
    }

    /// The one that ends its batch first, if that is soon and a full batch waits for it, or `most`
    /// of those who could; and when it ends.
    pub fn ending(
        &self,
        now: Instant,
        waiting: usize,
        most: usize,
        objective: Duration,
    ) -> Option<(ReplicaId, Instant)> {
        if waiting == 0 {
            return None;
        }
        let ending = self.all.iter().filter_map(|(id, replica)| {
            let begins = replica.assignments.begins(now)?;
            let enough = self.batch_limit(replica, objective).min(most);
            (waiting >= enough).then_some((*id, begins))
        });
        ending.min_by_key(|(_, begins)| *begins)
    }

    /// What they take at once.
    pub fn round(&mut self, objective: Duration) -> Round {
        let batch_max = self.batch_max;
        let mut sum = Round { ends: self.round_ends(), ..Round::default() };
        for replica in self.all.values_mut() {
            let key = (objective, batch_max);
            let part = replica.part.filter(|part| (part.objective, part.batch_max) == key);
            let part = part.unwrap_or_else(|| RoundPart::of(replica, objective, batch_max));
            replica.part = Some(part);
            sum.full = sum.full.and(part.round.full);
            sum.in_time = sum.in_time.and(part.round.in_time);
            sum.is_guess |= part.round.is_guess;
        }
        sum
    }

    /// When the round under way ends; `None` while one is idle.
    pub fn round_ends(&self) -> Option<Instant> {
        let ends = || self.all.values().filter_map(|replica| replica.assignments.ends()).max();
        self.idle.is_empty().then(ends).flatten()
    }

    /// The queries of those that take suspiciously long, each once; none where no other replica
    /// could take them.
    pub fn suspects(&mut self, now: Instant) -> Vec<QueryKey> {
        if self.all.len() < 2 {
            return Vec::new();
        }
        let trusted = |replica: &&mut Replica| !replica.is_lane;
        let suspected = self.all.values_mut().filter(trusted);
        suspected.flat_map(|replica| replica.assignments.suspects(now)).collect()
    }

    /// Those that have computed for too long, as far as deadlines are known.
    pub fn hung(&self, now: Instant) -> Vec<ReplicaId> {
        let is_hung = |replica: &Replica| {
            replica.assignments.hung_from().is_some_and(|hung_from| hung_from <= now)
        };
        self.all.iter().filter(|(_, replica)| is_hung(replica)).map(|(id, _)| *id).collect()
    }

    /// When to ask for [`Self::suspects`], [`Self::hung`] or, if queries wait, [`Self::ending`].
    pub fn next_event(&self, now: Instant, waiting: usize) -> Option<Instant> {
        let several = self.all.len() > 1;
        let busy = self.all.values().filter(|replica| !replica.assignments.is_idle());
        let events = busy.flat_map(|Replica { assignments, is_lane, .. }| {
            let ahead = assignments.takes_more_from().filter(|from| waiting > 0 && *from > now);
            let suspicious = assignments.suspicious_from().filter(|_| several && !is_lane);
            [assignments.hung_from(), suspicious, ahead]
        });
        events.flatten().min()
    }
}

#[cfg(test)]
#[path = "replicas_tests.rs"]
mod choice_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::LatencyCurve;
    use clipper_domain::BatchSize;

    #[test]
    fn a_round_is_the_same_whether_parts_of_it_are_known_or_not() {
        let (short, long) = (Duration::from_millis(20), Duration::from_millis(200));
        let controller = || BatchController::new(BatchSize::Adaptive, 64, LatencyCurve::default());
        let mut replicas = Replicas::new(7);
        for id in 0..3 {
            replicas.join(ReplicaId(id), Replica::new(controller(), Assignments::default()));
        }
        for step in 0..60 {
            let id = ReplicaId(step % 3);
            let (n, latency) = (step as usize % 5 + 1, Duration::from_millis(u64::from(step) + 1));
            replicas.get_mut(id).unwrap().record(n, latency);
            if step == 40 {
                replicas.limit_batches(2);
            }
            // The last one stays: a limit is another question even with the same objective.
            for objective in [long, short, long] {
                let round = replicas.round(objective);
                for replica in replicas.all.values_mut() {
                    replica.part = None;
                }
                assert_eq!(round, replicas.round(objective), "{step}");
            }
        }
        assert!(replicas.round(long).full.queries <= 6);
    }
}
