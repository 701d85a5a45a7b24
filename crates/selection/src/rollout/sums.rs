//! What is counted of a rollout. Every part is a sum, so that what several servers have seen adds
//! up, whatever the order.

use clipper_domain::rollout::Evidence;
use clipper_domain::rollout::guard::Guard;
use clipper_domain::rollout::plan::RolloutPlan;
use clipper_domain::rollout::progress::GuardProgress;
use serde::{Deserialize, Serialize};

use super::odds::{STAKES, against_part, limit, mean_of_logs};
use super::split::Side;

const MILLION: f64 = 1e6;

/// Parts of one in millionths.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to a million")]
pub fn millionths(part: f64) -> u64 {
    (part.clamp(0.0, 1.0) * MILLION).round() as u64
}

/// What one guard has looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GuardSums {
    /// Requests to the new version, pairs of answers, or its judged outputs.
    pub seen: u64,
    /// What was bad of them, or their losses, millionths.
    pub bad: u64,
    /// Judged outputs of the old version.
    #[serde(default)]
    pub baseline_seen: u64,
    /// Their losses, millionths.
    #[serde(default)]
    pub baseline_bad: u64,
    /// What each bet on a difference has won, as logarithms; none where counts say it.
    #[serde(default)]
    pub won: Vec<f64>,
}

impl GuardSums {
    /// One more, this much of it bad.
    pub fn count(&mut self, side: Side, bad: f64) {
        let (seen, sum) = match side {
            Side::New => (&mut self.seen, &mut self.bad),
            Side::Old => (&mut self.baseline_seen, &mut self.baseline_bad),
        };
        *seen = seen.saturating_add(1);
        *sum = sum.saturating_add(millionths(bad));
    }

    pub(super) fn win(&mut self, won: &[f64]) {
        self.won.resize(STAKES.len(), 0.0);
        for (sum, won) in self.won.iter_mut().zip(won) {
            *sum += won;
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.seen = self.seen.saturating_add(other.seen);
        self.bad = self.bad.saturating_add(other.bad);
        self.baseline_seen = self.baseline_seen.saturating_add(other.baseline_seen);
        self.baseline_bad = self.baseline_bad.saturating_add(other.baseline_bad);
        if !other.won.is_empty() {
            self.win(&other.won);
        }
    }

    fn value(&self) -> Option<f64> {
        (self.seen > 0).then(|| self.bad as f64 / MILLION / self.seen as f64)
    }

    fn bound(&self, guard: Guard) -> Option<f64> {
        let baseline = self.baseline_bad as f64 / MILLION / self.baseline_seen.max(1) as f64;
        guard.bound().or((self.baseline_seen > 0).then_some(baseline))
    }

    /// The logarithm of the odds against the guard.
    fn odds(&self, guard: Guard) -> f64 {
        match guard.bound() {
            Some(bound) => against_part(bound, self.seen as f64, self.bad as f64 / MILLION),
            None if self.won.is_empty() => 0.0,
            None => mean_of_logs(&self.won),
        }
    }
}

/// Everything that is counted of a rollout, guards in the plan's order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutSums {
    /// Queries that the new version has answered, or copies that it got.
    pub exposed: u64,
    pub guards: Vec<GuardSums>,
}

impl RolloutSums {
    /// Nothing yet.
    #[must_use]
    pub fn none(plan: &RolloutPlan) -> Self {
        Self { exposed: 0, guards: vec![GuardSums::default(); plan.guards.len()] }
    }

    /// Adds what another server has seen of the same rollout.
    pub fn add(&mut self, other: &Self) {
        self.exposed = self.exposed.saturating_add(other.exposed);
        for (own, other) in self.guards.iter_mut().zip(&other.guards) {
            own.add(other);
        }
    }

    /// The first guard that is broken, and why it counts as that.
    #[must_use]
    pub fn broken(&self, plan: &RolloutPlan) -> Option<Evidence> {
        let limit = limit(plan.guards.len());
        let guards = plan.guards.iter().zip(&self.guards);
        let (guard, sums) = guards.into_iter().find(|(guard, sums)| sums.odds(**guard) >= limit)?;
        Some(Evidence {
            guard: *guard,
            seen: sums.seen,
            value_millionths: millionths(sums.value().unwrap_or(0.0)),
            bound_millionths: millionths(sums.bound(*guard).unwrap_or(0.0)),
            exposed: self.exposed,
        })
    }

    /// What each guard sees, for people.
    #[must_use]
    pub fn guards(&self, plan: &RolloutPlan) -> Vec<GuardProgress> {
        let limit = limit(plan.guards.len());
        let progress = |(guard, sums): (&Guard, &GuardSums)| GuardProgress {
            guard: *guard,
            seen: sums.seen,
            value: sums.value(),
            bound: sums.bound(*guard),
            alarm: (sums.odds(*guard) / limit).clamp(0.0, 1.0),
        };
        plan.guards.iter().zip(&self.guards).map(progress).collect()
    }
}
