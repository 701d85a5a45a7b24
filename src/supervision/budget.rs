//! When a parent starts a dead child again. Pure.
//!
//! Actix's own supervisor does not survive a panic, so every parent keeps a factory for its
//! children, hears of their end from `stopped()`, looks for silent deaths now and then, and asks
//! its [`RestartBudget`] what to do.

use std::time::Duration;

use crate::config::ContainersConfig;
use clipper_clock::{Backoff, Instant};

/// What to do about a dead child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start it again after this pause.
    RestartAfter(Duration),
    /// It died too often too quickly; leave it.
    GiveUp,
}

/// Counts quick deaths in a row and spaces restarts exponentially.
#[derive(Debug, Clone)]
pub struct RestartBudget {
    backoff: Backoff,
    quick: Duration,
    allowed: u32,
    in_a_row: u32,
    started: Option<Instant>,
}

impl RestartBudget {
    /// The budget that the configuration gives to actors.
    #[must_use]
    pub fn new(config: &ContainersConfig) -> Self {
        Self {
            backoff: Backoff::from_millis(
                config.restart_backoff_initial_ms,
                config.restart_backoff_max_ms,
            ),
            quick: Duration::from_millis(config.restart_window_ms),
            allowed: config.restart_budget,
            in_a_row: 0,
            started: None,
        }
    }

    /// The child was started.
    pub fn started(&mut self, now: Instant) {
        self.started = Some(now);
    }

    /// The child died.
    pub fn died(&mut self, now: Instant) -> Verdict {
        let lived = self.started.map_or(Duration::ZERO, |started| now - started);
        if lived >= self.quick {
            self.in_a_row = 0;
            self.backoff.reset();
        }
        self.in_a_row += 1;
        if self.in_a_row > self.allowed {
            return Verdict::GiveUp;
        }
        Verdict::RestartAfter(self.backoff.next_pause())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipper_clock as clock;

    fn budget() -> RestartBudget {
        RestartBudget::new(&ContainersConfig {
            restart_backoff_initial_ms: 100,
            restart_backoff_max_ms: 300,
            restart_budget: 4,
            restart_window_ms: 1_000,
            ..ContainersConfig::default()
        })
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_the_budget_ends() {
        let mut budget = budget();
        let now = clock::now();
        let verdicts: Vec<_> = (0..5)
            .map(|_| {
                budget.started(now);
                budget.died(now)
            })
            .collect();
        let pause = |ms| Verdict::RestartAfter(Duration::from_millis(ms));
        assert_eq!(verdicts, [pause(100), pause(200), pause(300), pause(300), Verdict::GiveUp]);
    }

    #[test]
    fn a_long_life_restores_the_budget() {
        let mut budget = budget();
        let now = clock::now();
        for _ in 0..4 {
            budget.started(now);
            let _ = budget.died(now);
        }
        budget.started(now);
        let later = now + Duration::from_secs(2);
        assert_eq!(budget.died(later), Verdict::RestartAfter(Duration::from_millis(100)));
    }
}
