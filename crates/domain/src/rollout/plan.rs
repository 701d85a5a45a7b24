//! What a rollout is asked to do.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::guard::Guard;
use super::percent::Percent;
use crate::ids::ModelId;

/// The most steps.
pub const STEPS_MAX: usize = 32;
/// The most guards.
pub const GUARDS_MAX: usize = 8;
/// The longest hold of a step, milliseconds: thirty days.
pub const HOLD_MAX_MS: u64 = 30 * 24 * 3_600_000;
/// Queries of the new version that each guard looks at before a step is left, unless said.
pub const MIN_QUERIES: u64 = 500;

/// Whom the new version answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RolloutKind {
    /// Nobody: it gets copies of queries, and its answers are only looked at.
    Shadow,
    /// A growing part of the queries; at the end all of them.
    Canary,
    /// A part of the users, who stay with it; which version stays is an operator's to say.
    Ab,
}

impl RolloutKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Canary => "canary",
            Self::Ab => "ab",
        }
    }

    /// Reads a name.
    ///
    /// # Errors
    /// It is none of these names.
    pub fn parse(name: &str) -> Result<Self, PlanError> {
        match name {
            "shadow" => Ok(Self::Shadow),
            "canary" => Ok(Self::Canary),
            "ab" => Ok(Self::Ab),
            other => Err(PlanError::Kind(other.chars().take(60).collect())),
        }
    }
}

impl fmt::Display for RolloutKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The plan of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutPlan {
    pub kind: RolloutKind,
    pub from: ModelId,
    pub to: ModelId,
    /// The parts of the queries, rising.
    pub steps: Vec<Percent>,
    /// How long each step lasts at least, milliseconds.
    pub hold_ms: u64,
    #[serde(default)]
    pub guards: Vec<Guard>,
    /// So much each guard looks at before a step is left.
    pub min_queries: u64,
}

/// What is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("kind: expected shadow, canary or ab, not '{0}'")]
    Kind(String),
    #[error("to: {to} is not another version of the model of {from}")]
    OtherModel { from: ModelId, to: ModelId },
    #[error("to: it is the same version as from, {0}")]
    SameVersion(ModelId),
    #[error("steps: expected 1 to {STEPS_MAX} percentages, each above the one before")]
    Steps,
    #[error("hold_ms: expected at most {HOLD_MAX_MS}, not {0}")]
    Hold(u64),
    #[error("guards: at most {GUARDS_MAX} are looked at, not {0}")]
    TooManyGuards(usize),
    #[error("guards: '{0}' is there twice")]
    Twice(Guard),
    #[error("min_queries: expected 1 to 1000000000, not {0}")]
    MinQueries(u64),
}

impl RolloutPlan {
    /// Whether it can be carried out at all.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), PlanError> {
        let Self { from, to, steps, hold_ms, guards, min_queries, .. } = self;
        if from == to {
            return Err(PlanError::SameVersion(from.clone()));
        }
        if from.name != to.name {
            return Err(PlanError::OtherModel { from: from.clone(), to: to.clone() });
        }
        let rises = steps.windows(2).all(|pair| pair[0] < pair[1]);
        if !rises || steps.is_empty() || steps.len() > STEPS_MAX {
            return Err(PlanError::Steps);
        }
        if *hold_ms > HOLD_MAX_MS {
            return Err(PlanError::Hold(*hold_ms));
        }
        if guards.len() > GUARDS_MAX {
            return Err(PlanError::TooManyGuards(guards.len()));
        }
        for (at, guard) in guards.iter().enumerate() {
            if guards[..at].contains(guard) {
                return Err(PlanError::Twice(*guard));
            }
        }
        if !(1..=1_000_000_000).contains(min_queries) {
            return Err(PlanError::MinQueries(*min_queries));
        }
        Ok(())
    }

    /// Whether some queries are asked of both versions, to compare what they say.
    #[must_use]
    pub fn compares(&self) -> bool {
        self.guards.iter().any(|guard| matches!(guard, Guard::Disagreement(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(from: &str, to: &str, steps: &[f64]) -> RolloutPlan {
        RolloutPlan {
            kind: RolloutKind::Canary,
            from: ModelId::parse(from).unwrap(),
            to: ModelId::parse(to).unwrap(),
            steps: steps.iter().map(|step| Percent::try_from(*step).unwrap()).collect(),
            hold_ms: 1_000,
            guards: vec![Guard::Loss],
            min_queries: MIN_QUERIES,
        }
    }

    #[test]
    fn a_plan_that_cannot_be_carried_out_names_its_field() {
        assert_eq!(plan("m:1", "m:2", &[1.0, 5.0, 100.0]).check(), Ok(()));
        let twice = RolloutPlan { guards: vec![Guard::Loss; 2], ..plan("m:1", "m:2", &[1.0]) };
        let never = RolloutPlan { min_queries: 0, ..plan("m:1", "m:2", &[1.0]) };
        let long = RolloutPlan { hold_ms: HOLD_MAX_MS + 1, ..plan("m:1", "m:2", &[1.0]) };
        let cases = [
            (plan("m:1", "m:1", &[1.0]), "to: it is the same version"),
            (plan("m:1", "n:2", &[1.0]), "to: n:2 is not another version"),
            (plan("m:1", "m:2", &[]), "steps: expected"),
            (plan("m:1", "m:2", &[5.0, 5.0]), "steps: expected"),
            (twice, "guards: 'loss<=baseline' is there twice"),
            (never, "min_queries: expected"),
            (long, "hold_ms: expected"),
        ];
        for (plan, expected) in cases {
            let error = plan.check().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
