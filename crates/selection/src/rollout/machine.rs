//! Decides about one rollout: it looks at the sums and says what is to be done. Whoever runs it
//! carries that out, and shows it the metadata when they have changed; a step that is asked for
//! again is refused there, so that none is taken twice.

use std::time::Duration;

use clipper_domain::rollout::guard::Guard;
use clipper_domain::rollout::percent::Percent;
use clipper_domain::rollout::plan::RolloutKind;
use clipper_domain::rollout::progress::LiveProgress;
use clipper_domain::rollout::{Rollout, RolloutEnd};

use super::sums::RolloutSums;

/// What happens to a rollout.
#[derive(Debug)]
pub enum RolloutInput<'a> {
    /// The metadata have it like this now.
    Metadata(&'a Rollout),
    /// This server decides, and everybody has seen this. `obstacle`: why it cannot go on.
    Look { sums: &'a RolloutSums, obstacle: Option<String> },
    /// Another server decides, or nobody: the shared tables are away. It stays where it is, and
    /// its hold begins anew.
    StandBy,
}

/// What is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutAction {
    /// Take this step, counted from 0.
    Step(u32),
    End(RolloutEnd),
}

/// When a step began, as far as this server has watched it.
#[derive(Debug, Clone)]
struct WatchedStep {
    since: Duration,
    /// What had been seen by then.
    before: RolloutSums,
}

#[derive(Debug)]
pub struct RolloutMachine {
    rollout: Rollout,
    watched: Option<WatchedStep>,
}

impl RolloutMachine {
    #[must_use]
    pub fn new(rollout: Rollout) -> Self {
        Self { rollout, watched: None }
    }

    #[must_use]
    pub fn rollout(&self) -> &Rollout {
        &self.rollout
    }

    /// Takes note of `input` at `now`, a time that only grows. What to do about it.
    pub fn on(&mut self, input: RolloutInput<'_>, now: Duration) -> Option<RolloutAction> {
        match input {
            RolloutInput::Metadata(rollout) => {
                if self.rollout != *rollout {
                    self.rollout = rollout.clone();
                    self.watched = None;
                }
                None
            }
            RolloutInput::StandBy => {
                self.watched = None;
                None
            }
            RolloutInput::Look { sums, obstacle } => self.look(sums, obstacle, now),
        }
    }

    fn look(
        &mut self,
        sums: &RolloutSums,
        obstacle: Option<String>,
        now: Duration,
    ) -> Option<RolloutAction> {
        if !self.rollout.is_running() {
            return None;
        }
        if let Some(reason) = obstacle {
            return Some(RolloutAction::End(RolloutEnd::Aborted { reason }));
        }
        if let Some(evidence) = sums.broken(&self.rollout.plan) {
            return Some(RolloutAction::End(RolloutEnd::RolledBack { evidence }));
        }
        if self.watched.is_none() {
            self.watched = Some(WatchedStep { since: now, before: sums.clone() });
        }
        if self.waits_for(sums, now).is_some() {
            return None;
        }
        if !self.rollout.is_last_step() {
            return Some(RolloutAction::Step(self.rollout.step + 1));
        }
        match self.rollout.plan.kind {
            RolloutKind::Canary => Some(RolloutAction::End(RolloutEnd::Promoted)),
            RolloutKind::Shadow => Some(RolloutAction::End(RolloutEnd::Passed)),
            RolloutKind::Ab => None,
        }
    }

    /// What the step still waits for.
    fn waits_for(&self, sums: &RolloutSums, now: Duration) -> Option<String> {
        let Some(watched) = &self.watched else {
            return Some("the server that decides".to_owned());
        };
        let plan = &self.rollout.plan;
        let hold = Duration::from_millis(plan.hold_ms);
        let left = (watched.since + hold).saturating_sub(now);
        if !left.is_zero() {
            return Some(format!("{:.1} s of the step's hold", left.as_secs_f64()));
        }
        let wanted = plan.min_queries;
        let missing = |seen: u64, before: u64| wanted.saturating_sub(seen.saturating_sub(before));
        if plan.guards.is_empty() {
            let missing = missing(sums.exposed, watched.before.exposed);
            return (missing > 0).then(|| format!("{missing} queries of the new version"));
        }
        let guards = plan.guards.iter().zip(sums.guards.iter().zip(&watched.before.guards));
        for (guard, (sums, before)) in guards {
            // Beside a version that answers everything there is no baseline.
            if *guard == Guard::Loss && self.rollout.percent() == Percent::ALL {
                continue;
            }
            let missing = missing(sums.seen, before.seen);
            if missing > 0 {
                return Some(format!("{missing} more for {guard} to look at"));
            }
        }
        None
    }

    /// How it stands, for people.
    #[must_use]
    pub fn progress(&self, sums: &RolloutSums, decides: bool, now: Duration) -> LiveProgress {
        let is_left = self.rollout.is_last_step() && self.rollout.plan.kind == RolloutKind::Ab;
        let waits_for = self.waits_for(sums, now);
        LiveProgress {
            exposed: sums.exposed,
            guards: sums.guards(&self.rollout.plan),
            decides,
            waits_for: waits_for.unwrap_or_else(|| {
                if is_left { "an operator, to promote or abort it" } else { "nothing" }.to_owned()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use clipper_domain::ModelId;
    use clipper_domain::rollout::plan::RolloutPlan;

    use super::*;
    use crate::rollout::split::Side;

    fn rollout(kind: RolloutKind) -> Rollout {
        let percent = |number: f64| Percent::try_from(number).unwrap();
        Rollout::new(
            1,
            RolloutPlan {
                kind,
                from: ModelId::parse("m:1").unwrap(),
                to: ModelId::parse("m:2").unwrap(),
                steps: vec![percent(5.0), percent(100.0)],
                hold_ms: 1_000,
                guards: vec![Guard::parse("errors<1%").unwrap(), Guard::Loss],
                min_queries: 10,
            },
        )
    }

    fn sums(seen: u64, bad: u64, judged: u64) -> RolloutSums {
        let mut sums = RolloutSums::none(&rollout(RolloutKind::Canary).plan);
        sums.exposed = seen;
        for n in 0..seen {
            sums.guards[0].count(Side::New, if n < bad { 1.0 } else { 0.0 });
        }
        (0..judged).for_each(|_| sums.guards[1].count(Side::New, 0.0));
        sums
    }

    fn look(machine: &mut RolloutMachine, sums: &RolloutSums, at: u64) -> Option<RolloutAction> {
        machine.on(RolloutInput::Look { sums, obstacle: None }, Duration::from_millis(at))
    }

    fn stepped(machine: &mut RolloutMachine, step: u32) {
        let rollout = Rollout { step, ..machine.rollout().clone() };
        machine.on(RolloutInput::Metadata(&rollout), Duration::ZERO);
    }

    #[test]
    fn a_step_is_taken_when_it_has_held_and_every_guard_has_looked() {
        let mut machine = RolloutMachine::new(rollout(RolloutKind::Canary));
        assert_eq!(look(&mut machine, &sums(0, 0, 0), 0), None);
        assert_eq!(look(&mut machine, &sums(50, 0, 50), 999), None);
        assert_eq!(look(&mut machine, &sums(50, 0, 9), 1_000), None);
        let waits = machine.progress(&sums(50, 0, 9), true, Duration::from_secs(1)).waits_for;
        assert_eq!(waits, "1 more for loss<=baseline to look at");
        assert_eq!(look(&mut machine, &sums(50, 0, 10), 1_000), Some(RolloutAction::Step(1)));
        // Not carried out: it is asked for again.
        assert_eq!(look(&mut machine, &sums(51, 0, 11), 1_001), Some(RolloutAction::Step(1)));
        stepped(&mut machine, 1);
        assert_eq!(look(&mut machine, &sums(51, 0, 11), 1_002), None);
        // Of what was seen before the step nothing counts for it.
        assert_eq!(look(&mut machine, &sums(60, 0, 11), 9_000), None);
        // At 100 % nobody is left to compare losses with.
        let end = look(&mut machine, &sums(61, 0, 11), 9_001);
        assert_eq!(end, Some(RolloutAction::End(RolloutEnd::Promoted)));
    }

    #[test]
    fn a_broken_guard_ends_it_at_once_with_what_was_seen() {
        let mut machine = RolloutMachine::new(rollout(RolloutKind::Canary));
        let action = look(&mut machine, &sums(100, 30, 0), 0);
        let Some(RolloutAction::End(RolloutEnd::RolledBack { evidence })) = action else {
            panic!("{action:?}")
        };
        assert_eq!((evidence.seen, evidence.value_millionths), (100, 300_000));
        assert_eq!((evidence.bound_millionths, evidence.exposed), (10_000, 100));
        let text = evidence.to_string();
        assert!(text.starts_with("errors<1%: errors 30.00% of 100 against 1.00%"), "{text}");
    }

    #[test]
    fn whoever_takes_over_watches_the_whole_hold() {
        let mut machine = RolloutMachine::new(rollout(RolloutKind::Canary));
        assert_eq!(look(&mut machine, &sums(0, 0, 0), 0), None);
        machine.on(RolloutInput::StandBy, Duration::from_millis(500));
        let seen = sums(90, 0, 90);
        assert_eq!(look(&mut machine, &seen, 1_500), None);
        assert_eq!(look(&mut machine, &sums(99, 0, 100), 2_500), None);
        assert_eq!(look(&mut machine, &sums(100, 0, 100), 2_500), Some(RolloutAction::Step(1)));
    }

    #[test]
    fn kinds_end_as_they_are_meant_to() {
        let ends = [
            (RolloutKind::Canary, Some(RolloutAction::End(RolloutEnd::Promoted))),
            (RolloutKind::Shadow, Some(RolloutAction::End(RolloutEnd::Passed))),
            (RolloutKind::Ab, None),
        ];
        for (kind, expected) in ends {
            let mut machine = RolloutMachine::new(rollout(kind));
            stepped(&mut machine, 1);
            assert_eq!(look(&mut machine, &sums(0, 0, 0), 0), None);
            assert_eq!(look(&mut machine, &sums(10, 0, 10), 1_000), expected, "{kind}");
        }
        let mut machine = RolloutMachine::new(rollout(RolloutKind::Canary));
        let input =
            RolloutInput::Look { sums: &sums(0, 0, 0), obstacle: Some("it is gone".to_owned()) };
        let end = RolloutEnd::Aborted { reason: "it is gone".to_owned() };
        assert_eq!(machine.on(input, Duration::ZERO), Some(RolloutAction::End(end)));
    }
}
