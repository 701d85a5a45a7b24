//! What comes of a rollout's queries on this server: counted by those that answer them, read by the
//! one that decides. As much memory as the plan has guards.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use clipper_domain::rollout::Rollout;
use clipper_domain::rollout::guard::{Guard, LatencyBound};
use clipper_domain::rollout::plan::RolloutPlan;
use clipper_domain::rollout::progress::LiveProgress;
use clipper_scheduling::ticket::{Answer, DefaultReason};
use clipper_selection::rollout::pairs::LossPairs;
use clipper_selection::rollout::split::Side;
use clipper_selection::rollout::sums::{GuardSums, RolloutSums, millionths};

#[derive(Debug, Default)]
struct OutcomeCount {
    seen: AtomicU64,
    /// Millionths.
    bad: AtomicU64,
}

#[derive(Debug)]
pub struct RolloutOutcomes {
    pub id: u64,
    pub plan: RolloutPlan,
    exposed: AtomicU64,
    /// In the order of the plan's guards.
    counts: Vec<OutcomeCount>,
    losses: Mutex<LossPairs>,
    suspended: AtomicBool,
    progress: Mutex<Option<LiveProgress>>,
}

impl RolloutOutcomes {
    #[must_use]
    pub fn new(rollout: &Rollout) -> Self {
        Self {
            id: rollout.id,
            plan: rollout.plan.clone(),
            exposed: AtomicU64::new(0),
            counts: rollout.plan.guards.iter().map(|_| OutcomeCount::default()).collect(),
            losses: Mutex::default(),
            suspended: AtomicBool::new(false),
            progress: Mutex::default(),
        }
    }

    /// The new version gets no more queries from here, though the metadata may not say so yet.
    pub fn suspend(&self) {
        self.suspended.store(true, Relaxed);
    }

    /// Whether it gets none.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.suspended.load(Relaxed)
    }

    /// A request that the new version answered after `latency`, or a copy of one. How many queries
    /// it had.
    pub fn answered<'a>(
        &self,
        answers: impl IntoIterator<Item = &'a Answer, IntoIter: Clone>,
        latency: Duration,
    ) -> usize {
        let answers = answers.into_iter();
        let asked = answers.clone().count();
        if asked == 0 {
            return 0;
        }
        self.exposed.fetch_add(asked as u64, Relaxed);
        for (guard, count) in self.plan.guards.iter().zip(&self.counts) {
            let bad = match guard {
                Guard::Errors(_) => answers.clone().filter(|answer| has_failed(answer)).count(),
                Guard::Latency { bound: LatencyBound::Micros(micros), .. }
                    if latency > Duration::from_micros(u64::from(*micros)) =>
                {
                    asked
                }
                Guard::Latency { .. } => {
                    answers.clone().filter(|answer| has_been_late(answer)).count()
                }
                Guard::Disagreement(_) | Guard::Loss => continue,
            };
            count.add(bad, asked);
        }
        asked
    }

    /// Of so many queries that both versions answered, so many got different answers.
    pub fn compared(&self, queries: usize, different: usize) {
        for (guard, count) in self.plan.guards.iter().zip(&self.counts) {
            if matches!(guard, Guard::Disagreement(_)) && queries > 0 {
                count.add(different, queries);
            }
        }
    }

    /// Feedback judged an output of one of the versions.
    pub fn judged(&self, side: Side, loss: f64) {
        if self.plan.guards.contains(&Guard::Loss) {
            self.losses.lock().add(side, loss);
        }
    }

    /// Everything that was counted here.
    #[must_use]
    pub fn sums(&self) -> RolloutSums {
        let sums = |(guard, count): (&Guard, &OutcomeCount)| match guard {
            Guard::Loss => self.losses.lock().sums().clone(),
            _ => GuardSums {
                // Read first: what comes meanwhile is counted as good at most.
                bad: count.bad.load(Relaxed),
                seen: count.seen.load(Relaxed),
                ..GuardSums::default()
            },
        };
        RolloutSums {
            exposed: self.exposed.load(Relaxed),
            guards: self.plan.guards.iter().zip(&self.counts).map(sums).collect(),
        }
    }

    pub fn show(&self, progress: LiveProgress) {
        *self.progress.lock() = Some(progress);
    }

    /// How it stood when it was last looked at.
    #[must_use]
    pub fn progress(&self) -> Option<LiveProgress> {
        self.progress.lock().clone()
    }
}

impl OutcomeCount {
    fn add(&self, bad: usize, of: usize) {
        self.seen.fetch_add(1, Relaxed);
        if bad > 0 {
            self.bad.fetch_add(millionths(bad as f64 / of as f64), Relaxed);
        }
    }
}

/// The version gave no output although it had the time.
fn has_failed(answer: &Answer) -> bool {
    match answer {
        Answer::Output(_) | Answer::Default(DefaultReason::Doubtful(_)) => false,
        Answer::Default(reason) => !is_late(reason),
    }
}

fn has_been_late(answer: &Answer) -> bool {
    matches!(answer, Answer::Default(reason) if is_late(reason))
}

fn is_late(reason: &DefaultReason) -> bool {
    matches!(reason, DefaultReason::Late | DefaultReason::Shed(_))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::samples;
    use clipper_scheduling::output::Output;

    #[test]
    fn answers_are_bad_for_the_guards_that_they_concern() {
        let mut rollout = samples::rollout(1, "m:1", "m:2");
        rollout.plan.guards = ["errors<1%", "p99<slo", "p90<5ms", "disagreement<2%"]
            .map(|guard| Guard::parse(guard).unwrap())
            .to_vec();
        let outcomes = RolloutOutcomes::new(&rollout);
        let bad = || -> Vec<u64> { outcomes.sums().guards.iter().map(|sums| sums.bad).collect() };
        let failed = Answer::Default(DefaultReason::Failed(Arc::from("x")));
        let output = Answer::Output(Output::null());
        outcomes.answered(std::slice::from_ref(&output), Duration::from_millis(1));
        assert_eq!(bad(), [0, 0, 0, 0]);
        outcomes.answered(&[failed, output.clone()], Duration::from_millis(1));
        assert_eq!(bad(), [500_000, 0, 0, 0]);
        outcomes.answered(&[Answer::Default(DefaultReason::Late)], Duration::from_millis(9));
        assert_eq!(bad(), [500_000, 1_000_000, 1_000_000, 0]);
        outcomes.answered(&[output], Duration::from_millis(6));
        outcomes.compared(4, 1);
        outcomes.compared(0, 0);
        assert_eq!(bad(), [500_000, 1_000_000, 2_000_000, 250_000]);
        let sums = outcomes.sums();
        assert_eq!((sums.exposed, sums.guards[0].seen, sums.guards[3].seen), (5, 4, 1));
    }
}
