//! How much a model has to do, and how many more queries can make their deadline behind that.
//! Pure: an immutable picture that the dispatcher draws and that HTTP workers read.
//!
//! The replicas of a model work in rounds: at most one full batch each. A query that is admitted
//! waits for the end of the round under way, for as many rounds as the queries before it fill, and
//! takes part in one of its own.

use std::time::Duration;

use clipper_clock::Instant;
use smallvec::SmallVec;

use crate::latency::LatencyCurve;
use crate::share::Share;

/// Share of the time until a deadline that is not planned with: for the way to the replica and back
/// to the client.
const RESERVE: f64 = 0.08;

/// Classes of objectives: one for each power of two of microseconds.
const CLASSES: usize = 32;

/// A published round time may be so much off before it is published again.
const TOLERANCE: f64 = 0.05;

fn class_of(objective: Duration) -> usize {
    let micros = objective.as_micros().max(1);
    (micros.ilog2() as usize).min(CLASSES - 1)
}

/// Waiting queries by objective. Deadlines decide the order, so those with a much looser objective
/// do not stand before a query, although they came first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectiveCounts([u32; CLASSES]);

impl ObjectiveCounts {
    pub fn add(&mut self, objective: Duration) {
        self.0[class_of(objective)] += 1;
    }

    pub fn remove(&mut self, objective: Duration) {
        let count = &mut self.0[class_of(objective)];
        *count = count.saturating_sub(1);
    }

    /// Queries that stand before one with this objective, about.
    #[must_use]
    pub fn ahead_of(&self, objective: Duration) -> usize {
        self.0[..=class_of(objective)].iter().map(|count| *count as usize).sum()
    }
}

/// What all replicas of a model take at once, and for how long.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Round {
    /// Full batches; of no queries while nothing is known.
    pub full: Batches,
    /// Smaller ones, where full ones take longer than the tightest objective leaves: a fixed size
    /// is the most that may share one.
    pub in_time: Batches,
    /// Expected end of the round under way; `None` while a replica is idle.
    pub ends: Option<Instant>,
    /// Batches are larger than any that was seen: their time is a guess.
    pub is_guess: bool,
}

/// A batch for each replica.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Batches {
    pub queries: usize,
    /// Expected time of the slowest.
    pub time: Duration,
    /// By how much one batch in a hundred exceeds that.
    pub spread: Duration,
}

impl Batches {
    /// These and those of another replica.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            queries: self.queries + other.queries,
            time: self.time.max(other.time),
            spread: self.spread.max(other.spread),
        }
    }

    /// What is answered by so many of them as end within `left`, after `under_way`.
    fn within(self, left: Duration, under_way: Duration) -> usize {
        let left = left.saturating_sub(under_way + self.spread);
        let rounds = left.as_nanos() / self.time.as_nanos().max(1);
        usize::try_from(rounds).unwrap_or(usize::MAX).saturating_mul(self.queries)
    }
}

impl Round {
    /// Queries that can be answered by `deadline`, those that wait already included.
    fn capacity(&self, now: Instant, deadline: Instant) -> usize {
        let under_way = self.ends.map_or(Duration::ZERO, |ends| {
            // A round that is overdue may well take as long again.
            let overdue = now.saturating_duration_since(ends);
            ends.saturating_duration_since(now).max(overdue).min(self.full.time)
        });
        let left = deadline.saturating_duration_since(now).mul_f64(1.0 - RESERVE);
        self.full.within(left, under_way).max(self.in_time.within(left, under_way))
    }

    /// Whether a query that finds `ahead` others before it at `now` can be answered by `deadline`.
    /// Always, if none is before it: somebody has to find out whether the model has become
    /// faster.
    #[must_use]
    pub fn can_make_it(&self, ahead: usize, now: Instant, deadline: Instant) -> bool {
        ahead == 0 || self.full.queries == 0 || ahead < self.capacity(now, deadline)
    }
}

/// What waits of one application, of one who asks it, of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppLoad {
    pub share: Share,
    pub waiting: usize,
}

/// The picture of one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Load {
    /// Replicas that take batches.
    pub replicas: usize,
    pub waiting: usize,
    /// The same by objective.
    pub objectives: ObjectiveCounts,
    /// The same by application.
    pub apps: SmallVec<[AppLoad; 2]>,
    /// What the replicas take at once.
    pub round: Round,
    /// What the replica that answered last has learned; where a new one starts.
    pub curve: LatencyCurve,
}

/// Queries that ask to be admitted together.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    pub share: Share,
    pub queries: usize,
    pub objective: Duration,
    /// When they are due.
    pub deadline: Instant,
}

impl Load {
    /// How many of the asking queries can make their deadline behind what waits, and behind `more`
    /// that the picture does not show yet. In the order of deadlines, or, if that is more, with the
    /// fair share of whoever asks their application, and of their class.
    #[must_use]
    pub fn room(&self, asking: &Asking, more: usize, now: Instant) -> usize {
        let Asking { share, queries, objective, deadline } = *asking;
        let ahead = self.objectives.ahead_of(objective) + more;
        if self.round.full.queries == 0 || (queries == 1 && ahead == 0) {
            return queries;
        }
        let capacity = self.round.capacity(now, deadline);
        let mut room = capacity.saturating_sub(ahead).max(self.fair_room(share, capacity));
        if ahead == 0 {
            // Nobody is kept waiting by a round that goes at once, and somebody has to find out
            // whether the model has become faster.
            room = room.max(self.round.full.queries);
        }
        if self.round.is_guess && room > 0 {
            return queries;
        }
        room.min(queries)
    }

    fn fair_room(&self, share: Share, capacity: usize) -> usize {
        if self.apps.is_empty() {
            return 0;
        }
        let (mut own, mut classes) = (0, share.class.weight() as usize);
        let (mut tenants, mut others) = (1, 0);
        for (at, AppLoad { share: other, waiting }) in self.apps.iter().enumerate() {
            let mut before = self.apps.iter().take(at);
            if other.is_same(&share) {
                own = *waiting;
            } else if other.is_of_the_same(&share) {
                classes += other.class.weight() as usize;
            } else if other.app == share.app {
                let is_first = !before.any(|before| before.share.is_of_the_same(other));
                tenants += usize::from(is_first);
            } else if !before.any(|before| before.share.app == other.app) {
                others += other.weight as usize;
            }
        }
        let weight = share.weight.max(1) as usize;
        let of_app = capacity.saturating_mul(weight) / (weight + others);
        let of_tenant = of_app / tenants;
        // Rounded up: the lowest class has a place where whoever asks has one.
        let of_class = of_tenant.saturating_mul(share.class.weight() as usize).div_ceil(classes);
        of_class.saturating_sub(own)
    }

    /// Whether somebody who has the `published` picture may decide otherwise than with this one.
    #[must_use]
    pub fn differs(&self, published: &Self) -> bool {
        let is_off = |a: f64, b: f64| (a - b).abs() > TOLERANCE * a.max(b);
        let takes_other_time = |a: Duration, b: Duration| is_off(a.as_secs_f64(), b.as_secs_f64());
        let (new, old) = (&self.round, &published.round);
        let (full, old_full) = (new.full, old.full);
        let (in_time, old_in_time) = (new.in_time, old.in_time);
        let queues = self.waiting > 0 || published.waiting > 0;
        self.replicas != published.replicas
            || full.queries != old_full.queries
            || new.is_guess != old.is_guess
            || is_off(in_time.queries as f64, old_in_time.queries as f64)
            || takes_other_time(in_time.time, old_in_time.time)
            || self.curve.explored != published.curve.explored
            || takes_other_time(full.time, old_full.time)
            || takes_other_time(full.time + full.spread, old_full.time + old_full.spread)
            || queues
                && (new.ends != old.ends
                    || self.waiting != published.waiting
                    || self.apps != published.apps
                    || self.objectives != published.objectives)
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
