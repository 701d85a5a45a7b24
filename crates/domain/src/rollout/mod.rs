//! A rollout: one application's queries move from one version of a model to another, step by step,
//! while guards look at what the new version does.

pub mod guard;
pub mod percent;
pub mod plan;
pub mod progress;

use std::fmt;

use serde::{Deserialize, Serialize};

use self::guard::{Guard, LatencyBound};
use self::percent::Percent;
use self::plan::{PlanError, RolloutKind, RolloutPlan};
use crate::ids::{ModelId, ModelName, ModelVersion};

/// What a guard had seen when it was broken. Parts are in millionths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub guard: Guard,
    /// What it has looked at of the new version.
    pub seen: u64,
    /// The part of it that was bad, or its mean loss.
    pub value_millionths: u64,
    /// What that had to stay below, or not above.
    pub bound_millionths: u64,
    /// Queries that the new version had answered.
    pub exposed: u64,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |millionths: u64| millionths as f64 / 1e4;
        let Self { guard, seen, value_millionths, bound_millionths, exposed } = self;
        let (value, bound) = (percent(*value_millionths), percent(*bound_millionths));
        let what = guard.measure();
        write!(
            f,
            "{guard}: {what} {value:.2}% of {seen} against {bound:.2}%, after {exposed} queries of \
             the new version"
        )
    }
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum RolloutEnd {
    /// The new version is the current one.
    Promoted,
    /// A shadow's guards held to the end; the old version is still the current one.
    Passed,
    /// A guard was broken: the old version answers everything.
    RolledBack { evidence: Evidence },
    /// Ended by an operator, or because what it needs is gone.
    Aborted { reason: String },
}

impl RolloutEnd {
    /// As users read it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::Passed => "passed",
            Self::RolledBack { .. } => "rolled_back",
            Self::Aborted { .. } => "aborted",
        }
    }
}

/// A rollout as the metadata has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Names it among all rollouts of its application.
    pub id: u64,
    pub plan: RolloutPlan,
    /// The step that it is at, counted from 0.
    pub step: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<RolloutEnd>,
}

impl Rollout {
    /// At its first step.
    #[must_use]
    pub fn new(id: u64, plan: RolloutPlan) -> Self {
        Self { id, plan, step: 0, end: None }
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.end.is_none()
    }

    /// The part of the queries that its step is for.
    #[must_use]
    pub fn percent(&self) -> Percent {
        let step = usize::try_from(self.step).unwrap_or(usize::MAX);
        let steps = &self.plan.steps;
        steps.get(step).or(steps.last()).copied().unwrap_or(Percent::ALL)
    }

    /// Whether no step is left.
    #[must_use]
    pub fn is_last_step(&self) -> bool {
        u64::from(self.step) + 1 >= self.plan.steps.len() as u64
    }

    /// The model whose versions it is about.
    #[must_use]
    pub fn model(&self) -> &ModelName {
        &self.plan.from.name
    }

    /// Why it cannot go on as the metadata is.
    #[must_use]
    pub fn obstacle(
        &self,
        current: Option<&ModelVersion>,
        has_new: bool,
        is_linked: bool,
    ) -> Option<String> {
        let RolloutPlan { from, to, .. } = &self.plan;
        if !is_linked {
            return Some(format!("the application is not linked to model {} any more", from.name));
        }
        if !has_new {
            return Some(format!("model {to} is not registered any more"));
        }
        (current != Some(&from.version)).then(|| match current {
            Some(version) => format!("version {version} of the model was made the current one"),
            None => "the model has no current version any more".to_owned(),
        })
    }
}

/// Why a rollout was not started, moved or ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RolloutRefusal {
    /// One at a time.
    #[error("A rollout from {from} to {to} is running; promote or abort it first")]
    Running { from: ModelId, to: ModelId },
    #[error("No rollout is running")]
    NotRunning,
    /// Somebody else was first.
    #[error("The rollout is not where it was: it is at step {0}")]
    Moved(u32),
    #[error("from: the current version of the model is {0}")]
    FromIsNotCurrent(String),
    #[error("to: model {0} is not registered")]
    NoSuchVersion(ModelId),
    #[error("to: model {to} takes {found}, and the application takes {wanted}")]
    InputType { to: ModelId, found: &'static str, wanted: &'static str },
    /// Requests would be read by that of the other version.
    #[error("to: model {to} has another signature: {difference}")]
    Signature { to: ModelId, difference: String },
    #[error("from: the application is not linked to model {0}")]
    NotLinked(ModelName),
    /// A guard that this application gives nothing to look at.
    #[error("guards: {0}")]
    Guard(String),
    #[error("{0}")]
    Plan(#[from] PlanError),
}

/// Whether every guard has something to look at, where queries are answered within `objective`
/// microseconds, and feedback judges answers or not.
///
/// # Errors
/// What is missing.
pub fn check_guards(
    plan: &RolloutPlan,
    objective: u32,
    is_judged: bool,
) -> Result<(), RolloutRefusal> {
    for guard in &plan.guards {
        match guard {
            Guard::Loss if plan.kind == RolloutKind::Shadow => {
                let why = format!("{guard}: feedback judges no answers of a shadow");
                return Err(RolloutRefusal::Guard(why));
            }
            Guard::Loss if !is_judged => {
                let why = format!(
                    "{guard} needs feedback that judges answers, which the default policy does \
                     not take; set the policy 'fixed', or another one, first"
                );
                return Err(RolloutRefusal::Guard(why));
            }
            Guard::Latency { bound: LatencyBound::Micros(micros), .. } if *micros > objective => {
                let why = format!(
                    "{guard} is above the application's latency objective of {objective} us, \
                     after which every query is answered"
                );
                return Err(RolloutRefusal::Guard(why));
            }
            _ => {}
        }
    }
    Ok(())
}
