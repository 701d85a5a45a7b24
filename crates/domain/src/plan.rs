//! What a plan says of itself; the plan with its commands is [`crate::command::Plan`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What becomes of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    Added,
    Changed,
    Removed,
}

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

/// One member of a thing; without a value before or after, it was or will not be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    pub field: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// What a step says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepDescription {
    pub kind: StepKind,
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
    from: Option<&T>,
    to: Option<&T>,
    passed_over: &[&str],
) -> Vec<FieldChange> {
    let members = |value: Option<&T>| match value.map(serde_json::to_value) {
        Some(Ok(Value::Object(members))) => members,
        _ => Map::new(),
    };
    let (mut from, mut to) = (members(from), members(to));
    let names: BTreeSet<String> = from.keys().chain(to.keys()).cloned().collect();
    let names = names.into_iter().filter(|name| !passed_over.contains(&name.as_str()));
    let change = |field: String| {
        let (from, to) = (from.remove(&field), to.remove(&field));
        (from != to).then_some(FieldChange { field, from, to })
    };
    names.filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_differ_are_told_with_what_they_were_and_will_be() {
        let before = serde_json::json!({"a": 1, "b": "x", "c": true, "name": "n"});
        let after = serde_json::json!({"a": 2, "b": "x", "d": [], "name": "m"});
        let changes = changed_fields(Some(&before), Some(&after), &["name"]);
        let text = serde_json::to_string(&changes).unwrap();
        assert_eq!(
            text,
            r#"[{"field":"a","from":1,"to":2},{"field":"c","from":true},{"field":"d","to":[]}]"#
        );
        assert_eq!(changed_fields(Some(&before), None, &[]).len(), 4);
    }
}
