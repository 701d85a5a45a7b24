//! What is counted of an application's rollouts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const MILLIONTHS: f64 = 1e6;

/// Of one application.
#[derive(Debug, Default)]
pub struct RolloutMetrics {
    step: AtomicU64,
    /// Millionths.
    alarm: AtomicU64,
    exposed: AtomicU64,
    rolled_back: AtomicU64,
}

impl RolloutMetrics {
    /// The step that it is at, from 1; 0 while no rollout runs.
    pub fn set_step(&self, step: u32) {
        self.step.store(u64::from(step), Relaxed);
        if step == 0 {
            self.set_alarm(0.0);
        }
    }

    /// How near the evidence is to a rollback, 0 to 1, by the guard that is nearest.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1 before")]
    pub fn set_alarm(&self, alarm: f64) {
        self.alarm.store((alarm.clamp(0.0, 1.0) * MILLIONTHS) as u64, Relaxed);
    }

    /// The new version has answered queries, or copies of them.
    pub fn exposed(&self, queries: usize) {
        self.exposed.fetch_add(queries as u64, Relaxed);
    }

    /// A guard has ended a rollout.
    pub fn rolled_back(&self) {
        self.rolled_back.fetch_add(1, Relaxed);
    }

    /// The step, the alarm, the queries exposed and the rollouts rolled back; none before the first
    /// rollout.
    pub(super) fn numbers(&self) -> Option<[f64; 4]> {
        let numbers = [&self.step, &self.alarm, &self.exposed, &self.rolled_back];
        let [step, alarm, exposed, rolled_back] = numbers.map(|number| number.load(Relaxed) as f64);
        let numbers = [step, alarm / MILLIONTHS, exposed, rolled_back];
        numbers.iter().any(|number| *number > 0.0).then_some(numbers)
    }
}
