//! What a plan says of itself; the plan with its commands is [`crate::command::Plan`].

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::difference::{Became, FieldChange, fields};

/// What a step is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thing {
    Application,
    Policy,
    Links,
    Rollout,
    /// A version of one.
    Model,
    CurrentVersion,
    Replicas,
}

impl Thing {
    /// As people read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Policy => "policy of",
            Self::Links => "links of",
            Self::Rollout => "rollout of",
            Self::Model => "model",
            Self::CurrentVersion => "current version of",
            Self::Replicas => "replicas of",
        }
    }
}

/// What a step says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepDescription {
    pub kind: Became,
    pub thing: Thing,
    /// Of an application or model, or `NAME:VERSION`.
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

/// A step that is not allowed, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedDescription {
    #[serde(flatten)]
    pub step: StepDescription,
    pub why: String,
}

/// The answer of `/admin/apply` and `/admin/rollback`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanDescription {
    /// The last event of the state that it was made on.
    pub base: u64,
    pub steps: Vec<StepDescription>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedDescription>,
    /// Steps that were carried out; of a plan that is only shown, none.
    pub done: usize,
    /// Why the rest was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl PlanDescription {
    /// Whether it is all there already.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.refused.is_empty()
    }
}

/// The members in which two values differ, but for `passed_over`.
#[must_use]
pub fn changed_fields<T: Serialize>(
    before: Option<&T>,
    after: Option<&T>,
    passed_over: &[&str],
) -> Vec<FieldChange> {
    let members = |value: Option<&T>| match value.map(serde_json::to_value) {
        Some(Ok(Value::Object(members))) => members,
        _ => Map::new(),
    };
    let mut changes = fields(&members(before), &members(after));
    changes.retain(|change| !passed_over.contains(&change.field.as_str()));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_differ_are_told_with_what_they_were_and_will_be() {
        let before = serde_json::json!({"a": 1, "b": "x", "c": true, "name": "n"});
        let after = serde_json::json!({"a": 2, "b": "x", "d": [], "name": "m"});
        let changes = changed_fields(Some(&before), Some(&after), &["name"]);
        let told = serde_json::json!([
            {"field": "a", "before": 1, "after": 2},
            {"field": "c", "before": true},
            {"field": "d", "after": []},
        ]);
        assert_eq!(serde_json::to_value(&changes).unwrap(), told);
        assert_eq!(changed_fields(Some(&before), None, &[]).len(), 4);
    }
}
