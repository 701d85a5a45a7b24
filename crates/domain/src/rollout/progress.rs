//! How a rollout stands, as `/admin/get_rollout` and `clipper rollout status` show it.

use serde::{Deserialize, Serialize};

use super::guard::Guard;
use super::percent::Percent;
use super::plan::RolloutKind;
use super::{Rollout, RolloutEnd};

/// What one guard sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuardProgress {
    pub guard: Guard,
    /// What it has looked at of the new version.
    pub seen: u64,
    /// The part of it that was bad, or its mean loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// What that has to stay below, or not above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<f64>,
    /// From 0 to 1: how near the evidence is to a rollback.
    pub alarm: f64,
}

/// What one server knows beside the metadata.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveProgress {
    /// Queries that the new version has answered, or copies that it got.
    pub exposed: u64,
    pub guards: Vec<GuardProgress>,
    /// Whether this server decides; with Redis, one of several does.
    pub decides: bool,
    /// What the next step waits for.
    pub waits_for: String,
}

/// A rollout, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutDescription {
    pub app_name: String,
    pub id: u64,
    pub kind: RolloutKind,
    pub from: String,
    pub to: String,
    /// `running`, or how it ended.
    pub state: String,
    /// From 1.
    pub step: u32,
    pub steps: Vec<Percent>,
    pub percent: Percent,
    pub hold_ms: u64,
    pub min_queries: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<RolloutEnd>,
    /// In words, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    #[serde(flatten)]
    pub live: LiveProgress,
}

impl RolloutDescription {
    #[must_use]
    pub fn of(app: &str, rollout: &Rollout, live: Option<LiveProgress>) -> Self {
        let plan = &rollout.plan;
        let unseen = || LiveProgress {
            guards: plan.guards.iter().map(|guard| GuardProgress::unseen(*guard)).collect(),
            ..LiveProgress::default()
        };
        let why = match &rollout.end {
            Some(RolloutEnd::RolledBack { evidence }) => Some(evidence.to_string()),
            Some(RolloutEnd::Aborted { reason }) => Some(reason.clone()),
            Some(RolloutEnd::Promoted | RolloutEnd::Passed) | None => None,
        };
        Self {
            app_name: app.to_owned(),
            id: rollout.id,
            kind: plan.kind,
            from: plan.from.to_string(),
            to: plan.to.to_string(),
            state: rollout.end.as_ref().map_or("running", RolloutEnd::name).to_owned(),
            step: rollout.step + 1,
            steps: plan.steps.clone(),
            percent: rollout.percent(),
            hold_ms: plan.hold_ms,
            min_queries: plan.min_queries,
            end: rollout.end.clone(),
            why,
            live: live.unwrap_or_else(unseen),
        }
    }
}

impl GuardProgress {
    /// Before it has looked at anything.
    #[must_use]
    pub fn unseen(guard: Guard) -> Self {
        Self { guard, seen: 0, value: None, bound: guard.bound(), alarm: 0.0 }
    }
}
