//! What is counted of an application's rollouts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Of one application.
#[derive(Debug, Default)]
pub struct RolloutMetrics {
    step: AtomicU64,
    exposed: AtomicU64,
    rolled_back: AtomicU64,
}

impl RolloutMetrics {
    /// The step that it is at, from 1; 0 while no rollout runs.
    pub fn set_step(&self, step: u32) {
        self.step.store(u64::from(step), Relaxed);
    }

    /// The new version has answered queries, or copies of them.
    pub fn exposed(&self, queries: usize) {
        self.exposed.fetch_add(queries as u64, Relaxed);
    }

    /// A guard has ended a rollout.
    pub fn rolled_back(&self) {
        self.rolled_back.fetch_add(1, Relaxed);
    }

    /// The step, the queries exposed and the rollouts rolled back; none before the first rollout.
    pub(super) fn numbers(&self) -> Option<[u64; 3]> {
        let numbers = [&self.step, &self.exposed, &self.rolled_back];
        let numbers = numbers.map(|number| number.load(Relaxed));
        numbers.iter().any(|number| *number > 0).then_some(numbers)
    }
}
