//! What has to hold after every step, judged from outside the dispatcher.

use std::collections::BTreeMap;
use std::time::Duration;

use clipper_clock::Instant;
use clipper_scheduling::dispatch::{BatchId, Limits};
use clipper_scheduling::ticket::DefaultReason;

use crate::query::{End, SimQuery};
use crate::scenario::{Kind, Scenario, Step};
use crate::world::{Checked, SimReplica, World};

/// What did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub what: &'static str,
    pub at: Duration,
    pub detail: String,
}

/// The timer's step, and the wait for a fuller batch.
const TICK: Duration = Duration::from_millis(2);

/// What is remembered for the checks.
#[derive(Debug)]
pub struct Checks {
    limits: Limits,
    /// The timer may be late by so much.
    slack: Duration,
    kills: BTreeMap<u8, u32>,
    worked: Duration,
    hedged: Duration,
    /// When two replicas were idle.
    two_idle: Option<Instant>,
    asked: [usize; 4],
    in_time: [usize; 4],
}

impl Checks {
    pub fn new(scenario: &Scenario) -> Self {
        let stalls = scenario.steps.iter().map(|(_, step)| match step {
            Step::Stall(time) => *time,
            _ => Duration::ZERO,
        });
        Self {
            limits: scenario.limits.clone(),
            slack: TICK + stalls.sum::<Duration>(),
            kills: BTreeMap::new(),
            worked: Duration::ZERO,
            hedged: Duration::ZERO,
            two_idle: None,
            asked: [0; 4],
            in_time: [0; 4],
        }
    }

    pub fn asked(&mut self, app: usize, queries: usize) {
        self.asked[app] += queries;
    }

    pub fn answered(&mut self, query: &SimQuery, now: Instant) {
        if now <= query.deadline {
            self.in_time[usize::try_from(query.share.app.0).unwrap_or(0)] += 1;
        }
    }

    pub fn worked(&mut self, time: Duration) {
        self.worked += time;
    }

    pub fn restarted(&mut self) {
        self.kills.clear();
        self.hedged = Duration::ZERO;
    }

    pub fn before(&mut self, replicas: &BTreeMap<u32, SimReplica>, now: Instant) {
        if replicas.values().filter(|replica| replica.batches.is_empty()).count() > 1 {
            self.two_idle = Some(now);
        }
    }

    pub fn begun(&self, queries: &[SimQuery], violation: Violation) -> Checked {
        let most = self.limits.attempts_max + 1;
        let is_over =
            |query: &&SimQuery| query.begins.get() > most && query.too_large.get() == usize::MAX;
        if queries.iter().any(|query| is_over(&query)) { Err(violation) } else { Ok(()) }
    }

    /// A replica has died of an input of this kind.
    pub fn killed(&mut self, kind: Kind, at: Duration) -> Checked {
        let kills = self.kills.entry(u8::from(kind == Kind::Deadly)).or_default();
        *kills += 1;
        if *kills > self.limits.attempts_max + 2 {
            let detail = format!("{kind:?}: {kills} replicas");
            return Err(Violation { what: "a poisonous input goes on killing", at, detail });
        }
        Ok(())
    }
}

impl World {
    /// After each step.
    pub fn check(&mut self) -> Checked {
        self.open.retain(|query| query.end.get().is_none());
        let idle_since = self.replicas.values().filter(|replica| replica.batches.is_empty());
        let idle_since = idle_since.map(|replica| replica.idle_since).min();
        let (mut waiting, mut new, slack) = (0, 0, self.checks.slack);
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
        let (batch, busy) = (replica.batches.front()?, self.scenario.limits.busy);
        let began = batch.began?;
        let deadline = batch.queries.iter().map(|query| query.deadline).max()?;
        Some(busy.hung_from(began, deadline))
    }

    pub fn check_given_up(&mut self, id: u32) -> Checked {
        let Some(replica) = self.replicas.get(&id) else {
            return Err(self.violation("gives up a replica that is gone", format!("replica {id}")));
        };
        let Some(batch) = replica.batches.front() else {
            return Err(self.violation("gives up an idle replica", format!("replica {id}")));
        };
        let busy = self.scenario.limits.busy;
        let is_early = batch.began.is_none_or(|began| {
            let awaited = batch.queries.iter().any(|query| query.is_awaited(self.now));
            self.now < began + busy.min || awaited && self.now < began + busy.max
        });
        if is_early {
            return Err(self.violation("gives up a busy replica (C3)", format!("replica {id}")));
        }
        let is_endless = batch.queries.iter().any(|query| query.kind == Kind::Endless);
        if is_endless {
            self.checks.killed(Kind::Endless, self.now - self.start)?;
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
        for (at, query) in queries.iter().enumerate() {
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
        self.checks.hedged += nominal(queries.len()) * u32::try_from(hedges).unwrap_or(1) / n;
        let Checks { limits, worked, hedged, two_idle, .. } = &self.checks;
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
        let Checks { asked, in_time, .. } = &self.checks;
        let share = |app: usize| in_time[app] as f64 / asked[app].max(1) as f64;
        if asked[1] > 10 && share(1) < 0.6 {
            let detail =
                format!("{:.2} of {} against {:.2} of {}", share(1), asked[1], share(0), asked[0]);
            return Err(self.violation("no fair share (F1)", detail));
        }
        Ok(())
    }
}
