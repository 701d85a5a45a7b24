//! What the management frontend answers about applications, models and replicas, as its callers
//! read it too. The order of the members is the original's; what the original does not know is left
//! out where it is the default.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::access::{AccessKey, KnownBy, Role};
use crate::app::{AppSpec, OnModelError, PolicyParameters, Weight, cached, is_cached};
use crate::ids::{AppName, Label, ModelId, ModelName, ModelVersion, ReplicaId};
use crate::limits::Limits;
use crate::model::ModelSpec;
use crate::rollout::Rollout;
use crate::rollout::progress::{LiveProgress, RolloutDescription};
use crate::signature::Signature;
use crate::tensor::InputType;

/// An application, in the answers of `get_application` and `get_all_applications`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppDescription {
    pub input_type: InputType,
    /// Sent when no model answers in time.
    pub default_output: String,
    pub latency_slo_micros: u32,
    pub name: String,
    /// The models that it queries.
    pub linked_models: Vec<String>,
    #[serde(default, skip_serializing_if = "OnModelError::is_default")]
    pub on_model_error: OnModelError,
    #[serde(default = "cached", skip_serializing_if = "is_cached")]
    pub cache: bool,
    /// Which policy chooses among its models, unless it is the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_parameters: Option<PolicyParameters>,
    /// Its part of a model that it shares with others.
    #[serde(default, skip_serializing_if = "Weight::is_default")]
    pub weight: Weight,
    /// How much its clients may ask for, all together.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// The one that runs, or ran last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Box<RolloutDescription>>,
}

impl AppDescription {
    #[must_use]
    pub fn of<'m>(
        app: &AppSpec,
        linked: impl Iterator<Item = &'m ModelName>,
        live: impl FnOnce(&Rollout) -> Option<LiveProgress>,
    ) -> Self {
        let chooses = !app.has_default_policy();
        let rollout = app.rollout.as_deref();
        let shown = |it| Box::new(RolloutDescription::of(app.name.as_str(), it, live(it)));
        Self {
            input_type: app.input_type,
            default_output: app.default_output.clone(),
            latency_slo_micros: app.latency_slo.as_micros(),
            name: AppName::as_str(&app.name).to_owned(),
            linked_models: linked.map(|model| model.as_str().to_owned()).collect(),
            on_model_error: app.on_model_error,
            cache: app.cache,
            policy: chooses.then(|| app.policy.clone()),
            policy_parameters: chooses.then(|| app.policy_parameters.clone()),
            weight: app.weight,
            limits: app.limits,
            rollout: rollout.map(shown),
        }
    }
}

/// A model version, in the answers of `get_model` and `get_all_models`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelDescription {
    pub model_name: String,
    pub model_version: String,
    pub input_type: InputType,
    pub labels: Vec<String>,
    /// The image or runtime that serves it.
    pub container_name: String,
    /// Where its data came from.
    pub model_data_path: String,
    /// Whether queries go to it.
    pub is_current_version: bool,
    #[serde(default = "cached", skip_serializing_if = "is_cached")]
    pub cache: bool,
    /// Of type tensors, where it was said at the registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Arc<Signature>>,
}

impl ModelDescription {
    #[must_use]
    pub fn of(model: &ModelSpec, current: Option<&ModelVersion>) -> Self {
        Self {
            model_name: model.id.name.as_str().to_owned(),
            model_version: model.id.version.as_str().to_owned(),
            input_type: model.input_type,
            labels: model.labels.iter().map(|label| Label::as_str(label).to_owned()).collect(),
            container_name: model.container_name.clone(),
            model_data_path: model.model_data_path.clone(),
            is_current_version: current == Some(&model.id.version),
            cache: model.cache,
            signature: model.signature.clone(),
        }
    }
}

/// A connected replica, in the answers of `get_container` and `get_all_containers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaDescription {
    /// `NAME:VERSION`.
    pub model_id: String,
    pub model_name: String,
    pub model_version: String,
    pub model_replica_id: u32,
    pub input_type: InputType,
}

impl ReplicaDescription {
    #[must_use]
    pub fn of(model: &ModelId, replica: ReplicaId, input_type: InputType) -> Self {
        Self {
            model_id: model.to_string(),
            model_name: model.name.as_str().to_owned(),
            model_version: model.version.as_str().to_owned(),
            model_replica_id: replica.0,
            input_type,
        }
    }
}

/// A key, in the answers of `get_all_keys`. Nobody can tell its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDescription {
    pub name: String,
    pub role: Role,
    /// The applications, or for a container the models, that it is for.
    pub app: String,
    /// Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    pub is_expired: bool,
    /// Until when the secret before the last is good, too; Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_secret_until_ms: Option<u64>,
    /// How much its holder may ask for.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// Whether it comes from a file or the environment.
    pub is_listed: bool,
    #[serde(default, skip_serializing_if = "KnownBy::is_secret")]
    pub known_by: KnownBy,
}

impl KeyDescription {
    #[must_use]
    pub fn of(key: &AccessKey, now_ms: u64, is_listed: bool) -> Self {
        let previous = key.previous.filter(|previous| previous.until_ms > now_ms);
        Self {
            name: key.name.as_str().to_owned(),
            role: key.role,
            app: key.only.as_str().to_owned(),
            expires_at_ms: key.expires_at_ms,
            is_expired: key.expires_at_ms.is_some_and(|at| at <= now_ms),
            old_secret_until_ms: previous.map(|previous| previous.until_ms),
            limits: key.limits,
            is_listed,
            known_by: key.known_by,
        }
    }
}

/// The answer of `add_key` and `rotate_key`, the only one that has the secret, if there is one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSecret {
    #[serde(flatten)]
    pub key: KeyDescription,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// The body of every refusal but 400, which is plain text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The kind of error, as in docs/errors.md.
    pub error: String,
    /// What happened, for a person.
    pub cause: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_servers_that_know_less_are_read() {
        let app = r#"{"input_type": "doubles", "default_output": "0", "latency_slo_micros": 20000,
            "name": "a", "linked_models": []}"#;
        let app: AppDescription = serde_json::from_str(app).unwrap();
        assert!(app.cache && app.on_model_error == OnModelError::Default);
        let text = serde_json::to_string(&app).unwrap();
        assert_eq!(
            text,
            "{\"input_type\":\"doubles\",\"default_output\":\"0\",\"latency_slo_micros\":20000,\
             \"name\":\"a\",\"linked_models\":[]}"
        );
    }
}
