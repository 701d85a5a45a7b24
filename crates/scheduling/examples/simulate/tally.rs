//! What is remembered of a run, to judge what follows.

use std::collections::BTreeMap;
use std::time::Duration;

use clipper_clock::Instant;
use clipper_scheduling::dispatch::Limits;
use clipper_scheduling::share::Share;

use crate::query::SimQuery;
use crate::replica::SimReplica;
use crate::scenario::{Kind, Scenario, Step};
use crate::violation::{Checked, Violation};

/// The timer's step, and the wait for a fuller batch.
pub const TICK: Duration = Duration::from_millis(2);

/// What is remembered for the checks.
#[derive(Debug)]
pub struct Tally {
    pub limits: Limits,
    /// The timer may be late by so much.
    pub slack: Duration,
    pub kills: BTreeMap<u8, u32>,
    pub worked: Duration,
    pub hedged: Duration,
    /// When two replicas were idle.
    pub two_idle: Option<Instant>,
    pub is_restarted: bool,
    pub asked: [usize; 4],
    pub in_time: [usize; 4],
    shares: Vec<Share>,
}

impl Tally {
    pub fn new(scenario: &Scenario) -> Self {
        let stalls = scenario.steps.iter().map(|(_, step)| match step {
            Step::Stall(time) => *time,
            _ => Duration::ZERO,
        });
        Self {
            limits: scenario.limits.clone(),
            shares: scenario.shares.clone(),
            slack: TICK + stalls.sum::<Duration>(),
            kills: BTreeMap::new(),
            worked: Duration::ZERO,
            hedged: Duration::ZERO,
            two_idle: None,
            is_restarted: false,
            asked: [0; 4],
            in_time: [0; 4],
        }
    }

    pub fn asked(&mut self, app: usize, queries: usize) {
        self.asked[app] += queries;
    }

    pub fn answered(&mut self, query: &SimQuery, now: Instant) {
        if now <= query.deadline {
            let caller = self.shares.iter().position(|share| share.is_same(&query.share));
            self.in_time[caller.unwrap_or(0)] += 1;
        }
    }

    pub fn worked(&mut self, time: Duration) {
        self.worked += time;
    }

    pub fn restarted(&mut self) {
        self.is_restarted = true;
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
