//! The replicas of a model, and which of them gets the next batch.

use std::collections::BTreeMap;
use std::time::Duration;

use clipper_clock::Instant;
use clipper_domain::ReplicaId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::assignment::Assignments;
use super::query::Key;
use crate::batch::BatchController;
use crate::load::Round;

/// One replica.
#[derive(Debug)]
pub(super) struct Replica {
    /// How large its batches are.
    pub controller: BatchController,
    /// What it has been sent.
    pub assignments: Assignments,
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

    /// A new one.
    pub fn join(&mut self, id: ReplicaId, replica: Replica) {
        if replica.assignments.is_idle() {
            self.idle.push(id);
        }
        self.all.insert(id, replica);
    }

    /// Forgets one.
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

    /// Limits the batches of all; `usize::MAX` lifts that.
    pub fn limit_batches(&mut self, batch_max: usize) {
        self.batch_max = batch_max.max(1);
    }

    /// The most queries of the next batch of a replica.
    pub fn batch_limit(&self, replica: &Replica, objective: Duration) -> usize {
        replica.controller.limit(objective).min(self.batch_max)
    }

    /// The least of these limits.
    pub fn smallest_batch(&self, objective: Duration) -> usize {
        let limits = self.all.values().map(|replica| self.batch_limit(replica, objective));
        limits.min().unwrap_or(usize::MAX)
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
        let (a, b) = (self.random.random_range(0..n), self.random.random_range(0..n));
        let time_of_one = |at: usize| {
            let replica = self.idle.get(at).and_then(|id| self.all.get(id));
            replica.map(|replica| replica.controller.curve().mean(1))
        };
        let faster = if time_of_one(b) < time_of_one(a) { b } else { a };
        Some(self.idle.swap_remove(faster))
    }

    /// The one that ends its batch first, if that is soon and a full batch waits for it; and when
    /// it ends.
    pub fn ending(
        &self,
        now: Instant,
        waiting: usize,
        objective: Duration,
    ) -> Option<(ReplicaId, Instant)> {
        if waiting == 0 {
            return None;
        }
        let ending = self.all.iter().filter_map(|(id, replica)| {
            let begins = replica.assignments.begins(now)?;
            (waiting >= self.batch_limit(replica, objective)).then_some((*id, begins))
        });
        ending.min_by_key(|(_, begins)| *begins)
    }

    /// What they take at once.
    pub fn round(&self, objective: Duration) -> Round {
        let mut round = Round { ends: self.round_ends(), ..Round::default() };
        for replica in self.all.values() {
            let limit = self.batch_limit(replica, objective);
            let curve = replica.controller.curve();
            round.queries += limit;
            round.time = round.time.max(curve.mean(limit));
            round.spread = round.spread.max(curve.spread(limit));
            round.is_guess |= limit > curve.explored;
        }
        round
    }

    /// When the round under way ends; `None` while one is idle.
    pub fn round_ends(&self) -> Option<Instant> {
        let ends = || self.all.values().filter_map(|replica| replica.assignments.ends()).max();
        self.idle.is_empty().then(ends).flatten()
    }

    /// The queries of those that take suspiciously long, each once; none where no other replica
    /// could take them.
    pub fn suspects(&mut self, now: Instant) -> Vec<Key> {
        if self.all.len() < 2 {
            return Vec::new();
        }
        self.all.values_mut().flat_map(|replica| replica.assignments.suspects(now)).collect()
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
        let events = self.all.values().flat_map(|Replica { assignments, .. }| {
            let ahead = assignments.takes_more_from().filter(|from| waiting > 0 && *from > now);
            let suspicious = assignments.suspicious_from().filter(|_| several);
            [assignments.hung_from(), suspicious, ahead]
        });
        events.flatten().min()
    }
}
