//! When something that has ended is started again. Pure.
//!
//! What never served has failed to start: after a number of those in a row something is wrong that
//! haste does not mend. An actor is given up then, as it may do harm each time; a process is tried
//! rarely. What has served is wanted back soon, however often it dies: what kills it may be a
//! query.

use std::time::Duration;

use clipper_clock::Backoff;
use clipper_config::ContainersConfig;

/// What to do about a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Restart {
        pause: Duration,
        /// So many starts in a row have failed; the budget is used up.
        failing: Option<u32>,
    },
    /// It failed too often in a row; leave it.
    GiveUp,
}

/// Counts failed starts in a row and spaces restarts exponentially.
#[derive(Debug, Clone)]
pub struct RestartBudget {
    after_start: Backoff,
    after_service: Backoff,
    settled: Duration,
    allowed: u32,
    kind: BudgetKind,
    failed_starts: u32,
}

#[derive(Debug, Clone, Copy)]
enum BudgetKind {
    /// Has served if it has lived long enough to settle.
    Actor,
    /// Is tried at this pause when its budget is used up.
    Process(Duration),
}

impl RestartBudget {
    #[must_use]
    pub fn for_actor(config: &ContainersConfig) -> Self {
        Self::new(config, config.restart_backoff_max_ms, BudgetKind::Actor)
    }

    /// For one replica's processes.
    #[must_use]
    pub fn for_process(config: &ContainersConfig) -> Self {
        let rarely = Duration::from_millis(config.failing_start_pause_ms);
        Self::new(config, config.served_backoff_max_ms, BudgetKind::Process(rarely))
    }

    fn new(config: &ContainersConfig, served_max_ms: u64, kind: BudgetKind) -> Self {
        let first = config.restart_backoff_initial_ms;
        Self {
            after_start: Backoff::from_millis(first, config.restart_backoff_max_ms),
            after_service: Backoff::from_millis(first, served_max_ms),
            settled: Duration::from_millis(config.restart_window_ms),
            allowed: config.restart_budget,
            kind,
            failed_starts: 0,
        }
    }

    /// It has ended after this time. `has_served`: it is known to have done its work.
    pub fn ended(&mut self, lived: Duration, has_served: bool) -> Verdict {
        let has_settled = lived >= self.settled;
        if has_served || has_settled && matches!(self.kind, BudgetKind::Actor) {
            self.failed_starts = 0;
            self.after_start.reset();
            if has_settled {
                self.after_service.reset();
            }
            return Verdict::Restart { pause: self.after_service.next_pause(), failing: None };
        }
        self.failed_starts = self.failed_starts.saturating_add(1);
        match self.kind {
            _ if self.failed_starts <= self.allowed => {
                Verdict::Restart { pause: self.after_start.next_pause(), failing: None }
            }
            BudgetKind::Actor => Verdict::GiveUp,
            BudgetKind::Process(rarely) => {
                Verdict::Restart { pause: rarely, failing: Some(self.failed_starts) }
            }
        }
    }

    /// Somebody has looked after it: what was does not count any more.
    pub fn forget(&mut self) {
        self.failed_starts = 0;
        self.after_start.reset();
        self.after_service.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ContainersConfig {
        ContainersConfig {
            restart_backoff_initial_ms: 100,
            restart_backoff_max_ms: 300,
            served_backoff_max_ms: 200,
            restart_budget: 4,
            restart_window_ms: 1_000,
            failing_start_pause_ms: 5_000,
            ..ContainersConfig::default()
        }
    }

    /// The pause; `None` if it is given up.
    fn millis(budget: &mut RestartBudget, lived_ms: u64, has_served: bool) -> Option<u128> {
        match budget.ended(Duration::from_millis(lived_ms), has_served) {
            Verdict::Restart { pause, .. } => Some(pause.as_millis()),
            Verdict::GiveUp => None,
        }
    }

    #[test]
    fn an_actors_pauses_double_up_to_the_longest_and_the_budget_ends() {
        let mut budget = RestartBudget::for_actor(&config());
        let pauses: Vec<_> = (0..5).map(|_| millis(&mut budget, 0, false)).collect();
        assert_eq!(pauses, [Some(100), Some(200), Some(300), Some(300), None]);
    }

    #[test]
    fn a_long_life_restores_an_actors_budget() {
        let mut budget = RestartBudget::for_actor(&config());
        for _ in 0..4 {
            let _ = millis(&mut budget, 0, false);
        }
        assert_eq!(millis(&mut budget, 2_000, false), Some(100));
        assert_eq!(millis(&mut budget, 0, false), Some(100), "the starts have their whole budget");
    }

    #[test]
    fn failing_starts_are_tried_rarely_after_their_budget_and_never_given_up() {
        let mut budget = RestartBudget::for_process(&config());
        let pauses: Vec<_> = (0..7).filter_map(|_| millis(&mut budget, 2_000, false)).collect();
        assert_eq!(pauses, [100, 200, 300, 300, 5_000, 5_000, 5_000]);
        let verdict = budget.ended(Duration::ZERO, false);
        assert!(matches!(verdict, Verdict::Restart { failing: Some(8), .. }), "{verdict:?}");
        budget.forget();
        assert_eq!(millis(&mut budget, 10, false), Some(100));
    }

    #[test]
    fn deaths_after_serving_never_use_up_the_budget_of_starts() {
        let mut budget = RestartBudget::for_process(&config());
        for _ in 0..1_000 {
            let verdict = budget.ended(Duration::from_millis(10), true);
            let Verdict::Restart { pause, failing: None } = verdict else { panic!("{verdict:?}") };
            assert!(pause <= Duration::from_millis(200));
        }
        assert_eq!(millis(&mut budget, 10, false), Some(100), "the starts have their whole budget");
        assert_eq!(millis(&mut budget, 2_000, true), Some(100), "a long life begins anew");
    }
}
