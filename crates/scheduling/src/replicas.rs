//! The replicas of a model as its batcher sees them, and which of them gets the next batch. Pure:
//! generic over how a replica is reached and what a batch carries.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::admission::Round;
use super::batch::BatchController;
use super::lane::Lane;
use clipper_clock::Instant;
use clipper_domain::ReplicaId;

/// One replica.
#[derive(Debug)]
pub struct Replica<C, T> {
    /// Where batches go.
    pub container: C,
    /// How large they are.
    pub controller: BatchController,
    /// What it has been sent.
    pub lane: Lane<T>,
}

/// All of them. A replica is idle from its arrival or its last answer on, until it is picked.
#[derive(Debug)]
pub struct Replicas<C, T> {
    all: BTreeMap<ReplicaId, Replica<C, T>>,
    idle: Vec<ReplicaId>,
    random: SmallRng,
}

impl<C, T: Clone> Replicas<C, T> {
    /// None yet; `seed` decides draws.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { all: BTreeMap::new(), idle: Vec::new(), random: SmallRng::seed_from_u64(seed) }
    }

    /// A new, idle one.
    pub fn join(&mut self, id: ReplicaId, container: C, controller: BatchController) {
        self.all.insert(id, Replica { container, controller, lane: Lane::default() });
        self.idle.push(id);
    }

    /// Forgets one.
    pub fn leave(&mut self, id: ReplicaId) -> Option<Replica<C, T>> {
        self.idle.retain(|idle| *idle != id);
        self.all.remove(&id)
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: ReplicaId) -> Option<&Replica<C, T>> {
        self.all.get(&id)
    }

    /// One of them.
    pub fn get_mut(&mut self, id: ReplicaId) -> Option<&mut Replica<C, T>> {
        self.all.get_mut(&id)
    }

    /// An idle one, if there is any.
    #[must_use]
    pub fn any_idle(&self) -> Option<&Replica<C, T>> {
        self.idle.last().and_then(|id| self.all.get(id))
    }

    /// It was picked in vain, or has answered everything.
    pub fn is_idle_again(&mut self, id: ReplicaId) {
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
    #[must_use]
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
            let begins = replica.lane.begins(now)?;
            (waiting >= replica.controller.limit(objective)).then_some((*id, begins))
        });
        ending.min_by_key(|(_, begins)| *begins)
    }

    /// What they take at once.
    #[must_use]
    pub fn round(&self, objective: Duration) -> Round {
        let mut round = Round { ends: self.round_ends(), ..Round::default() };
        for Replica { controller, .. } in self.all.values() {
            let limit = controller.limit(objective);
            round.queries += limit;
            round.time = round.time.max(controller.curve().mean(limit));
            round.spread = round.spread.max(controller.curve().spread(limit));
        }
        round
    }

    /// When the round under way ends; `None` while one is idle.
    #[must_use]
    pub fn round_ends(&self) -> Option<Instant> {
        let ends = || self.all.values().filter_map(|replica| replica.lane.ends()).max();
        self.idle.is_empty().then(ends).flatten()
    }

    /// The batches of those that take suspiciously long, each once; none where no other replica
    /// could take them.
    pub fn suspects(&mut self, now: Instant) -> Vec<(ReplicaId, T)> {
        if self.all.len() < 2 {
            return Vec::new();
        }
        let mut suspects = Vec::new();
        for (id, replica) in &mut self.all {
            suspects.extend(replica.lane.suspects(now).map(|batch| (*id, batch.clone())));
        }
        suspects
    }

    /// When to ask for [`Self::suspects`] or, if queries wait, for [`Self::ending`].
    #[must_use]
    pub fn next_event(&self, now: Instant, waiting: usize) -> Option<Instant> {
        let lanes = || self.all.values().map(|replica| &replica.lane);
        let several = self.all.len() > 1;
        let suspect = lanes().filter_map(Lane::suspicious_from).min().filter(|_| several);
        let ahead = lanes().filter_map(Lane::takes_more_from).filter(|from| *from > now).min();
        [suspect, ahead.filter(|_| waiting > 0)].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::Batch;
    use crate::latency::LatencyCurve;
    use clipper_clock as clock;
    use clipper_domain::BatchSize;

    const OBJECTIVE: Duration = Duration::from_millis(20);

    fn controller(takes: Duration) -> BatchController {
        let mut controller = BatchController::new(BatchSize::Adaptive, 4, LatencyCurve::default());
        for n in (0..50).map(|i| 1 + i % 4) {
            controller.record(n, takes);
        }
        controller
    }

    /// Replica 0 takes 5 ms for a batch and replica 1 takes 8.
    fn two() -> Replicas<(), char> {
        let mut replicas = Replicas::new(7);
        replicas.join(ReplicaId(0), (), controller(Duration::from_millis(5)));
        replicas.join(ReplicaId(1), (), controller(Duration::from_millis(8)));
        replicas
    }

    fn send(replicas: &mut Replicas<(), char>, id: ReplicaId, content: char, now: Instant) {
        let replica = replicas.get_mut(id).expect("known");
        let batch = Batch::new(content, 4, replica.controller.curve(), OBJECTIVE);
        replica.lane.push(batch, now);
    }

    #[test]
    fn the_faster_of_two_is_drawn_more_often() {
        let mut replicas = two();
        let mut faster = 0;
        for _ in 0..100 {
            let id = replicas.pick_idle().expect("two are idle");
            faster += usize::from(id == ReplicaId(0));
            replicas.is_idle_again(id);
        }
        assert!((60..=90).contains(&faster), "three of four are expected: {faster}");
    }

    #[test]
    fn a_full_batch_goes_ahead_to_the_one_that_ends_first() {
        let (mut replicas, start) = (two(), clock::now());
        for (id, content) in [(ReplicaId(0), 'a'), (ReplicaId(1), 'b')] {
            assert!(replicas.pick_idle().is_some());
            send(&mut replicas, id, content, start);
        }
        assert_eq!(replicas.pick_idle(), None);
        assert_eq!(replicas.ending(start, 4, OBJECTIVE), None, "too early");
        let soon = replicas.next_event(start, 4).expect("the first one ends");
        let (id, begins) = replicas.ending(soon, 4, OBJECTIVE).expect("soon");
        assert_eq!(id, ReplicaId(0));
        assert!(begins > soon && replicas.round_ends() > Some(begins), "the other one ends later");
        assert_eq!(replicas.ending(soon, 3, OBJECTIVE), None, "not full");
        assert_eq!(replicas.round(OBJECTIVE).queries, 8);
    }

    #[test]
    fn a_hanging_replica_is_suspected_only_where_there_is_another() {
        let (mut replicas, start) = (two(), clock::now());
        send(&mut replicas, ReplicaId(0), 'a', start);
        let late = start + Duration::from_secs(1);
        assert_eq!(replicas.suspects(start), []);
        assert_eq!(replicas.suspects(late), [(ReplicaId(0), 'a')]);
        assert!(replicas.leave(ReplicaId(0)).is_some());
        send(&mut replicas, ReplicaId(1), 'b', start);
        assert_eq!((replicas.suspects(late), replicas.next_event(start, 0)), (Vec::new(), None));
    }
}
