//! What has to hold after every step, judged from outside the dispatcher.

use std::time::Duration;

use clipper_clock::Instant;
use clipper_scheduling::dispatch::{BatchId, BusyLimits};
use clipper_scheduling::share::Class;
use clipper_scheduling::ticket::DefaultReason;

use crate::query::{End, SimQuery};
use crate::replica::SimReplica;
use crate::scenario::Kind;
use crate::tally::{TICK, Tally};
use crate::violation::Checked;
use crate::world::World;

impl World {
    pub fn check(&mut self) -> Checked {
        self.open.retain(|query| query.end.get().is_none());
        let idle_since = self.replicas.values().filter(|replica| replica.batches.is_empty());
        let idle_since = idle_since.map(|replica| replica.idle_since).min();
        let (mut waiting, mut new, slack) = (0, 0, self.tally.slack);
        for query in &self.open {
            if query.assigned.get() > 0 {
                continue;
            }
            waiting += 1;
            new += usize::from(!query.is_sent.get());
            if query.deadline + slack < self.now {
                return Err(self.violation("no answer in time (P1)", format!("{query:?}")));
            }
            let since = idle_since.map(|idle| idle.max(query.waits_since.get()));
            if query.is_awaited(self.now) && since.is_some_and(|since| since + slack < self.now) {
                return Err(self.violation("waits beside an idle replica", format!("{query:?}")));
            }
        }
        if new > self.scenario.limits.queue_max {
            return Err(self.violation("a queue beyond its limit (L1)", format!("{new}")));
        }
        self.check_places(waiting)?;
        for (id, replica) in &self.replicas {
            if let Some(hung_from) = self.hung_from(replica)
                && hung_from + slack < self.now
            {
                return Err(self.violation("keeps a hung replica (C3)", format!("replica {id}")));
            }
        }
        Ok(())
    }

    fn check_places(&self, waiting: usize) -> Checked {
        let (unfinished, open) = (self.dispatcher.unfinished(), self.open.len());
        if unfinished != open {
            let detail = format!("{unfinished} unfinished, {open} open");
            return Err(self.violation("queries are lost or kept", detail));
        }
        let published = self.load.waiting;
        if published < waiting || published > open {
            let detail = format!("{published} published, {waiting} wait, {open} are open");
            return Err(self.violation("places are lost or kept", detail));
        }
        Ok(())
    }

    /// When the replica hangs, by the rule.
    fn hung_from(&self, replica: &SimReplica) -> Option<Instant> {
        let (batch, busy) = (replica.batches.front()?, self.busy_of(replica));
        let began = batch.began?;
        let deadline = batch.queries.iter().map(|query| query.deadline).max()?;
        Some(busy.hung_from(began, deadline))
    }

    fn busy_of(&self, replica: &SimReplica) -> BusyLimits {
        let busy = self.scenario.limits.busy;
        if replica.is_lane { BusyLimits { min: busy.max, ..busy } } else { busy }
    }

    pub fn check_given_up(&mut self, id: u32, why: &str) -> Checked {
        let Some(replica) = self.replicas.get(&id) else {
            return Err(self.violation("gives up a replica that is gone", format!("replica {id}")));
        };
        let Some(batch) = replica.batches.front() else {
            return Err(self.violation("gives up an idle replica", format!("replica {id}")));
        };
        let busy = self.busy_of(replica);
        let is_early = batch.began.is_none_or(|began| {
            let awaited = batch.queries.iter().any(|query| query.is_awaited(self.now));
            self.now < began + busy.min || awaited && self.now < began + busy.max
        });
        if is_early {
            return Err(self.violation("gives up a busy replica (C3)", format!("replica {id}")));
        }
        let deadline = batch.queries.iter().map(|query| query.deadline).max();
        let reached = batch.began.zip(deadline).map(|(began, due)| busy.why_hung(began, due));
        // What another dispatcher has sent is known in part.
        if !self.tally.is_restarted && reached != Some(why) {
            let detail = format!("replica {id}: {why}; not {reached:?}");
            return Err(self.violation("names a limit that was not reached", detail));
        }
        let is_endless = batch.queries.iter().any(|query| query.kind == Kind::Endless);
        if is_endless {
            self.tally.killed(Kind::Endless, self.now - self.start)?;
        }
        Ok(())
    }

    pub fn check_resolved(&self, query: &SimQuery, reason: &DefaultReason) -> Checked {
        match (query.end.get(), reason) {
            (Some(End::Resolved), _) => {
                Err(self.violation("a second answer (P1)", format!("{query:?}")))
            }
            (None, DefaultReason::Late | DefaultReason::Shed(_)) if query.assigned.get() > 0 => {
                Err(self.violation("gives up what a replica has", format!("{query:?}")))
            }
            (None, DefaultReason::Late) if query.is_awaited(self.now) => {
                Err(self.violation("called late too early", format!("{query:?}")))
            }
            _ => Ok(()),
        }
    }

    pub fn check_sent(&mut self, id: u32, batch: BatchId, queries: &[SimQuery]) -> Checked {
        let limits = &self.scenario.limits;
        let Some(replica) = self.replicas.get(&id) else {
            return Err(self.violation("sends to a replica that is gone (C1)", format!("{id}")));
        };
        if replica.batches.len() > 1 {
            return Err(self.violation("sends more than one batch ahead", format!("{id}")));
        }
        if replica.batches.iter().any(|sent| sent.id == batch) {
            return Err(self.violation("two batches of one name (P3)", format!("{batch:?}")));
        }
        let size_max = match limits.batch_size {
            clipper_domain::BatchSize::Fixed(n) => n.get() as usize,
            clipper_domain::BatchSize::Adaptive => usize::MAX,
        };
        let n = queries.len();
        if n == 0 || n > size_max.min(limits.batch_max) {
            return Err(self.violation("a batch of a wrong size", format!("{n}")));
        }
        if replica.is_lane && (n > 1 || !replica.batches.is_empty()) {
            return Err(self.violation("a lane gets more than one query", format!("{n}")));
        }
        for (at, query) in queries.iter().enumerate() {
            if query.has_begun.get() {
                return Err(self.violation("begins again what has begun", format!("{query:?}")));
            }
            if query.is_streamed && query.assigned.get() > 0 {
                return Err(self.violation("hedges a stream", format!("{query:?}")));
            }
            if !query.is_awaited(self.now) {
                return Err(self.violation("computes what nobody waits for", format!("{query:?}")));
            }
            if query.too_large.get() <= n {
                return Err(self.violation("repeats what was too large", format!("{query:?}")));
            }
            if queries[..at].iter().any(|other| other.id == query.id) {
                return Err(self.violation("a query twice in a batch", format!("{query:?}")));
            }
        }
        self.check_hedges(id, queries)
    }

    fn check_hedges(&mut self, id: u32, queries: &[SimQuery]) -> Checked {
        let hedges = queries.iter().filter(|query| query.assigned.get() > 0).count();
        if hedges == 0 {
            return Ok(());
        }
        let nominal = |n: usize| Duration::from_micros(self.scenario.speed.nominal(n));
        let n = u32::try_from(queries.len()).unwrap_or(1);
        self.tally.hedged += nominal(queries.len()) * u32::try_from(hedges).unwrap_or(1) / n;
        let Tally { limits, worked, hedged, two_idle, .. } = &self.tally;
        let budget = worked.mul_f64(limits.hedge_share) + limits.hedge_burst;
        if *hedged > budget * 4 + nominal(queries.len()) {
            let detail = format!("{hedged:?} of {worked:?}");
            return Err(self.violation("hedges beyond the budget", detail));
        }
        let others = self.replicas.iter().filter(|(other, _)| **other != id);
        let is_last = !others.clone().any(|(_, replica)| replica.batches.is_empty());
        let had_two = two_idle.is_some_and(|at| at + TICK >= self.now);
        let is_far =
            |query: &SimQuery| query.deadline - (query.deadline - query.arrived) / 2 > self.now;
        if hedges == queries.len() && is_last && !had_two && queries.iter().all(is_far) {
            let detail = format!("{queries:?}");
            return Err(self.violation("a hedge takes the last idle replica", detail));
        }
        Ok(())
    }

    /// When nothing more happens.
    pub fn at_end(&mut self) -> Checked {
        let left = self.open.iter().filter(|query| query.assigned.get() == 0).count();
        if left > 0 {
            return Err(self.violation("queries without an answer (P1)", format!("{left}")));
        }
        if !self.scenario.is_contest {
            return Ok(());
        }
        let Tally { asked, in_time, .. } = &self.tally;
        let share = |app: usize| in_time[app] as f64 / asked[app].max(1) as f64;
        let [flood, other] = [0, 1].map(|at| self.scenario.shares[at].class);
        // Of these two one has a seventeenth, less than it asks for, and that much it gets.
        let is_least = (flood, other) == (Class::High, Class::Low);
        let least = if is_least { 0.1 } else { 0.6 };
        if asked[1] > 10 && share(1) < least {
            let detail =
                format!("{:.2} of {} against {:.2} of {}", share(1), asked[1], share(0), asked[0]);
            return Err(self.violation("no fair share (F1)", detail));
        }
        Ok(())
    }
}
