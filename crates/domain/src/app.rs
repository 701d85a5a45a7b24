//! What an application is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::AppName;
use crate::limits::Limits;
use crate::rollout::Rollout;
use crate::tensor::InputType;

/// Longest default output, bytes: each answer without a model's output carries it.
pub const DEFAULT_OUTPUT_MAX_BYTES: usize = 64 << 10;

/// A default output of more than [`DEFAULT_OUTPUT_MAX_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The default output has {0} bytes; at most {DEFAULT_OUTPUT_MAX_BYTES} are kept")]
pub struct DefaultOutputTooLong(usize);

/// The text, if it may be a default output.
///
/// # Errors
/// It is too long.
pub fn default_output(text: String) -> Result<String, DefaultOutputTooLong> {
    match text.len() {
        bytes if bytes > DEFAULT_OUTPUT_MAX_BYTES => Err(DefaultOutputTooLong(bytes)),
        _ => Ok(text),
    }
}

/// The policy every application starts with: query the linked model, else the default output.
pub const DEFAULT_POLICY: &str = "DefaultOutputSelectionPolicy";

/// A latency objective in microseconds, 1 to `i32::MAX` (the original stores a C++ `int`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct LatencySlo(u32);

impl LatencySlo {
    /// Accepts 1 to `i32::MAX` microseconds.
    #[must_use]
    pub fn from_micros(micros: i64) -> Option<Self> {
        let micros = i32::try_from(micros).ok().filter(|m| *m > 0)?;
        u32::try_from(micros).ok().map(Self)
    }

    /// The objective in microseconds.
    #[must_use]
    pub fn as_micros(self) -> u32 {
        self.0
    }

    /// The objective as a duration.
    #[must_use]
    pub fn as_duration(self) -> Duration {
        Duration::from_micros(u64::from(self.0))
    }
}

/// A number that is no latency objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("latency_slo_micros must be 1 to {max}, not {0}", max = i32::MAX)]
pub struct InvalidSlo(i64);

impl TryFrom<i64> for LatencySlo {
    type Error = InvalidSlo;
    fn try_from(micros: i64) -> Result<Self, InvalidSlo> {
        Self::from_micros(micros).ok_or(InvalidSlo(micros))
    }
}

impl From<LatencySlo> for i64 {
    fn from(slo: LatencySlo) -> i64 {
        i64::from(slo.0)
    }
}

/// What a caller gets for a query that the model answers with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnModelError {
    /// The default output, with the error as its explanation.
    #[default]
    Default,
    Error,
}

/// A text that is no [`OnModelError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("on_model_error must be 'default' or 'error', not '{0}'")]
pub struct UnknownOnModelError(String);

impl OnModelError {
    /// Its names, as users write them.
    pub const NAMES: &'static [&'static str] = &["default", "error"];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Error => "error",
        }
    }

    /// Reads a name.
    ///
    /// # Errors
    /// It is none of these names.
    pub fn parse(name: &str) -> Result<Self, UnknownOnModelError> {
        match name {
            "default" => Ok(Self::Default),
            "error" => Ok(Self::Error),
            other => Err(UnknownOnModelError(other.to_owned())),
        }
    }

    /// Whether it is what every application has that does not say.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A policy's parameters by name, as users write them.
pub type PolicyParameters = serde_json::Map<String, serde_json::Value>;

/// Which policy chooses among an application's models, and how it is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySpec {
    pub name: String,
    /// What its defaults are not.
    #[serde(default, skip_serializing_if = "PolicyParameters::is_empty")]
    pub parameters: PolicyParameters,
}

impl PolicySpec {
    /// The one that every application starts with.
    #[must_use]
    pub fn usual() -> Self {
        Self { name: DEFAULT_POLICY.to_owned(), parameters: PolicyParameters::new() }
    }
}

/// An application's part, in overload, of the time of a model that it shares with others, compared
/// with their parts: 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Weight(u8);

impl Weight {
    /// The least and the most.
    pub const RANGE: (i64, i64) = (1, 100);

    #[must_use]
    pub fn get(self) -> u32 {
        u32::from(self.0)
    }

    /// Whether it is what every application has that does not say.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

/// A number that is no weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("weight must be {min} to {max}, not {0}", min = Weight::RANGE.0, max = Weight::RANGE.1)]
pub struct InvalidWeight(i64);

impl TryFrom<i64> for Weight {
    type Error = InvalidWeight;
    fn try_from(number: i64) -> Result<Self, InvalidWeight> {
        let (min, max) = Self::RANGE;
        let weight = u8::try_from(number).ok().filter(|_| (min..=max).contains(&number));
        weight.map(Self).ok_or(InvalidWeight(number))
    }
}

impl From<Weight> for i64 {
    fn from(weight: Weight) -> i64 {
        i64::from(weight.0)
    }
}

/// The definition of one application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSpec {
    pub name: AppName,
    /// What its inputs are made of.
    pub input_type: InputType,
    /// The selection policy's name; [`DEFAULT_POLICY`] unless another was stored.
    pub policy: String,
    /// What is set of its parameters. Records of releases that did not know them lack them.
    #[serde(default, skip_serializing_if = "PolicyParameters::is_empty")]
    pub policy_parameters: PolicyParameters,
    /// The output sent when no model answers in time: JSON if it parses as JSON, else text.
    pub default_output: String,
    /// The objective every answer keeps.
    pub latency_slo: LatencySlo,
    /// What its callers get for a query that the model answers with an error. Records of releases
    /// that did not know it lack it.
    #[serde(default, skip_serializing_if = "OnModelError::is_default")]
    pub on_model_error: OnModelError,
    /// Whether its queries may be answered by what an earlier equal query was answered.
    #[serde(default = "cached", skip_serializing_if = "is_cached")]
    pub cache: bool,
    /// Its part of a model that it shares.
    #[serde(default, skip_serializing_if = "Weight::is_default")]
    pub weight: Weight,
    /// How much its clients may ask for, all together.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// The rollout that is running, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Box<Rollout>>,
}

impl AppSpec {
    /// The rollout that is running.
    #[must_use]
    pub fn running_rollout(&self) -> Option<&Rollout> {
        self.rollout.as_deref().filter(|rollout| rollout.is_running())
    }

    /// Its policy, with its parameters.
    #[must_use]
    pub fn policy_spec(&self) -> PolicySpec {
        PolicySpec { name: self.policy.clone(), parameters: self.policy_parameters.clone() }
    }

    /// Whether it has the policy that every application starts with.
    #[must_use]
    pub fn has_default_policy(&self) -> bool {
        self.policy == DEFAULT_POLICY
    }
}

/// What applications and models have that do not say.
pub(crate) fn cached() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(crate) fn is_cached(cache: &bool) -> bool {
    *cache
}

/// A change of an application's definition; what is `None` stays as it is. Its input type cannot
/// change, because models and clients rely on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppUpdate {
    pub name: AppName,
    /// The output sent when no model answers in time.
    pub default_output: Option<String>,
    pub latency_slo: Option<LatencySlo>,
    /// What its callers get for a query that the model answers with an error.
    pub on_model_error: Option<OnModelError>,
    /// Whether its queries may be answered from the cache.
    pub cache: Option<bool>,
    /// Its part of a model that it shares.
    pub weight: Option<Weight>,
    /// How much its clients may ask for: all of these in place of those before.
    pub limits: Option<Limits>,
    pub policy: Option<PolicySpec>,
}

impl AppUpdate {
    /// A change of nothing yet.
    #[must_use]
    pub fn of(name: AppName) -> Self {
        Self {
            name,
            default_output: None,
            latency_slo: None,
            on_model_error: None,
            cache: None,
            weight: None,
            limits: None,
            policy: None,
        }
    }

    /// What makes one definition of an application another, but for its policy.
    #[must_use]
    pub fn between(from: &AppSpec, to: &AppSpec) -> Self {
        let output = (from.default_output != to.default_output).then(|| to.default_output.clone());
        Self {
            name: to.name.clone(),
            default_output: output,
            latency_slo: (from.latency_slo != to.latency_slo).then_some(to.latency_slo),
            on_model_error: (from.on_model_error != to.on_model_error).then_some(to.on_model_error),
            cache: (from.cache != to.cache).then_some(to.cache),
            weight: (from.weight != to.weight).then_some(to.weight),
            limits: (from.limits != to.limits).then_some(to.limits),
            policy: None,
        }
    }

    /// Whether it changes nothing whatever the application is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::of(self.name.clone())
    }

    /// The definition after the change, but for its policy, which has an event of its own.
    #[must_use]
    pub fn applied_to(&self, app: &AppSpec) -> AppSpec {
        let mut changed = app.clone();
        if let Some(output) = &self.default_output {
            changed.default_output.clone_from(output);
        }
        changed.latency_slo = self.latency_slo.unwrap_or(app.latency_slo);
        changed.on_model_error = self.on_model_error.unwrap_or(app.on_model_error);
        changed.cache = self.cache.unwrap_or(app.cache);
        changed.weight = self.weight.unwrap_or(app.weight);
        changed.limits = self.limits.unwrap_or(app.limits);
        changed
    }
}
