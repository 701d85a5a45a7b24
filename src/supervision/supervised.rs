//! The loop that keeps something running, an actor or a process, within its budget.

use std::time::Duration;

use super::budget::{RestartBudget, Verdict};
use clipper_clock as clock;

/// Something that is to run.
pub(crate) trait Supervised {
    /// Starts it and waits for its end.
    async fn live(&mut self) -> LifeEnd;

    /// It has died, and this is done about it.
    fn died(&mut self, verdict: Verdict);

    /// Waits before it is started again.
    async fn rest(&mut self, pause: Duration) -> Rested;
}

/// How a life has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LifeEnd {
    /// As it was told to; none is to take its place.
    Unwanted,
    Died {
        /// It is known to have done its work.
        has_served: bool,
    },
}

/// How a pause has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rested {
    Enough,
    /// Somebody has looked after it: start it at once, and count from here.
    Forgiven,
    /// None is to take its place any more.
    Unwanted,
}

/// Keeps it running until it is not wanted any more, or given up.
pub(crate) async fn supervise(mut supervised: impl Supervised, mut budget: RestartBudget) {
    loop {
        let started = clock::now();
        let LifeEnd::Died { has_served } = supervised.live().await else { return };
        let verdict = budget.ended(clock::now() - started, has_served);
        supervised.died(verdict);
        let Verdict::Restart { pause, .. } = verdict else { return };
        match supervised.rest(pause).await {
            Rested::Enough => {}
            Rested::Forgiven => budget.forget(),
            Rested::Unwanted => return,
        }
    }
}

#[cfg(test)]
#[path = "supervised_tests.rs"]
mod tests;
