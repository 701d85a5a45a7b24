//! When a replica's process is started again. Pure.
//!
//! A process that never served has failed to start: after `containers.restart_budget` of those in
//! a row something is wrong that haste does not mend, and it is tried rarely. One that has served
//! is wanted back soon, however often it dies: what kills it may be a query.

use std::time::Duration;

use clipper_clock::Backoff;

use crate::config::ContainersConfig;

/// What to do after a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Restart {
    /// How long to wait.
    pub(super) pause: Duration,
    /// So many starts in a row have failed; the budget is used up.
    pub(super) failing: Option<u32>,
}

/// How one replica's processes have ended so far.
#[derive(Debug)]
pub(super) struct Restarts {
    after_start: Backoff,
    after_service: Backoff,
    settled: Duration,
    budget: u32,
    rare: Duration,
    failed_starts: u32,
}

impl Restarts {
    pub(super) fn new(config: &ContainersConfig) -> Self {
        let first = config.restart_backoff_initial_ms;
        Self {
            after_start: Backoff::from_millis(first, config.restart_backoff_max_ms),
            after_service: Backoff::from_millis(first, config.served_backoff_max_ms),
            settled: Duration::from_millis(config.restart_window_ms),
            budget: config.restart_budget,
            rare: Duration::from_millis(config.failing_start_pause_ms),
            failed_starts: 0,
        }
    }

    /// A process has ended that lived so long.
    pub(super) fn ended(&mut self, has_served: bool, lived: Duration) -> Restart {
        if has_served {
            self.failed_starts = 0;
            self.after_start.reset();
            if lived >= self.settled {
                self.after_service.reset();
            }
            return Restart { pause: self.after_service.next_pause(), failing: None };
        }
        self.failed_starts = self.failed_starts.saturating_add(1);
        if self.failed_starts > self.budget {
            return Restart { pause: self.rare, failing: Some(self.failed_starts) };
        }
        Restart { pause: self.after_start.next_pause(), failing: None }
    }

    /// Somebody has looked after it: what was does not count any more.
    pub(super) fn forget(&mut self) {
        self.failed_starts = 0;
        self.after_start.reset();
        self.after_service.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restarts() -> Restarts {
        Restarts::new(&ContainersConfig {
            restart_backoff_initial_ms: 100,
            restart_backoff_max_ms: 300,
            served_backoff_max_ms: 200,
            restart_budget: 4,
            restart_window_ms: 1_000,
            failing_start_pause_ms: 5_000,
            ..ContainersConfig::default()
        })
    }

    fn millis(restarts: &mut Restarts, has_served: bool, lived_ms: u64) -> u128 {
        restarts.ended(has_served, Duration::from_millis(lived_ms)).pause.as_millis()
    }

    #[test]
    fn failing_starts_are_tried_rarely_after_their_budget_and_never_given_up() {
        let mut restarts = restarts();
        let pauses: Vec<u128> = (0..7).map(|_| millis(&mut restarts, false, 10)).collect();
        assert_eq!(pauses, [100, 200, 300, 300, 5_000, 5_000, 5_000]);
        assert_eq!(restarts.ended(false, Duration::ZERO).failing, Some(8));
        restarts.forget();
        assert_eq!(millis(&mut restarts, false, 10), 100);
    }

    #[test]
    fn deaths_after_serving_never_use_up_the_budget_of_starts() {
        let mut restarts = restarts();
        for _ in 0..1_000 {
            let restart = restarts.ended(true, Duration::from_millis(10));
            assert!(restart.failing.is_none() && restart.pause <= Duration::from_millis(200));
        }
        assert_eq!(millis(&mut restarts, false, 10), 100, "the starts have their whole budget");
        assert_eq!(millis(&mut restarts, true, 2_000), 100, "a long life begins anew");
    }
}
