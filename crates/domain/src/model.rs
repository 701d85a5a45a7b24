//! What a model version is.

use std::num::NonZeroU32;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Label, ModelId};
use crate::signature::Signature;
use crate::tensor::InputType;

/// How many queries one message to a replica may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub enum BatchSize {
    /// Chosen by the server; `-1` in requests and tables.
    Adaptive,
    /// Never more than this.
    Fixed(NonZeroU32),
}

impl BatchSize {
    /// Reads the number of requests and tables: positive, or -1 for adaptive, as an `i32`.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        if number == -1 {
            return Some(Self::Adaptive);
        }
        let number = u32::try_from(i32::try_from(number).ok()?).ok()?;
        NonZeroU32::new(number).map(Self::Fixed)
    }
}

/// A number that is no batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("batch size must be positive or -1, not {0}")]
pub struct InvalidBatchSize(i64);

impl TryFrom<i64> for BatchSize {
    type Error = InvalidBatchSize;
    fn try_from(number: i64) -> Result<Self, InvalidBatchSize> {
        Self::from_number(number).ok_or(InvalidBatchSize(number))
    }
}

impl From<BatchSize> for i64 {
    fn from(size: BatchSize) -> i64 {
        match size {
            BatchSize::Adaptive => -1,
            BatchSize::Fixed(n) => i64::from(n.get()),
        }
    }
}

/// The definition of one model version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSpec {
    pub id: ModelId,
    /// What its inputs are made of.
    pub input_type: InputType,
    /// Free labels of the operator.
    pub labels: Vec<Label>,
    /// The image or runtime that serves it; information only.
    pub container_name: String,
    /// Where its data came from; information only.
    pub model_data_path: String,
    /// Batch size of its replicas.
    pub batch_size: BatchSize,
    /// Whether its outputs may answer later equal queries.
    #[serde(default = "super::app::cached", skip_serializing_if = "super::app::is_cached")]
    pub cache: bool,
    /// Of type tensors: what goes in and comes out, where that was said at the registration.
    /// Otherwise its containers say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Arc<Signature>>,
}

impl ModelSpec {
    /// Whether both are the same version with the same inputs and outputs; all else may change.
    #[must_use]
    pub fn serves_as(&self, other: &Self) -> bool {
        let is_same = self.id == other.id && self.input_type == other.input_type;
        is_same && self.signature == other.signature
    }
}

/// A change of a version; what is `None` stays as it is. What it takes and gives cannot change:
/// other versions are for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelUpdate {
    pub id: ModelId,
    pub batch_size: Option<BatchSize>,
    pub labels: Option<Vec<Label>>,
    /// Whether its outputs may answer later equal queries.
    pub cache: Option<bool>,
    pub container_name: Option<String>,
    pub model_data_path: Option<String>,
}

impl ModelUpdate {
    /// A change of nothing yet.
    #[must_use]
    pub fn of(id: ModelId) -> Self {
        Self {
            id,
            batch_size: None,
            labels: None,
            cache: None,
            container_name: None,
            model_data_path: None,
        }
    }

    /// What makes one definition of a version another.
    #[must_use]
    pub fn between(from: &ModelSpec, to: &ModelSpec) -> Self {
        let text = |from: &String, to: &String| (from != to).then(|| to.clone());
        Self {
            id: to.id.clone(),
            batch_size: (from.batch_size != to.batch_size).then_some(to.batch_size),
            labels: (from.labels != to.labels).then(|| to.labels.clone()),
            cache: (from.cache != to.cache).then_some(to.cache),
            container_name: text(&from.container_name, &to.container_name),
            model_data_path: text(&from.model_data_path, &to.model_data_path),
        }
    }

    /// Whether it changes nothing whatever the version is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::of(self.id.clone())
    }

    /// The definition after the change.
    #[must_use]
    pub fn applied_to(&self, model: &ModelSpec) -> ModelSpec {
        let text = |new: &Option<String>, old: &String| new.as_ref().unwrap_or(old).clone();
        ModelSpec {
            batch_size: self.batch_size.unwrap_or(model.batch_size),
            labels: self.labels.as_ref().unwrap_or(&model.labels).clone(),
            cache: self.cache.unwrap_or(model.cache),
            container_name: text(&self.container_name, &model.container_name),
            model_data_path: text(&self.model_data_path, &model.model_data_path),
            ..model.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A definition as the journal of earlier releases has it.
    const OLD: &str = concat!(
        r#"{"id":{"name":"m","version":"1"},"input_type":"doubles","labels":[],"#,
        r#""container_name":"c","model_data_path":"p","batch_size":-1}"#
    );

    #[test]
    fn what_was_written_before_there_were_signatures_is_read_and_written_alike() {
        let spec: ModelSpec = serde_json::from_str(OLD).unwrap();
        assert_eq!(spec.signature, None);
        assert_eq!(serde_json::to_string(&spec).unwrap(), OLD);
        let tensor = r#"{"name":"x","datatype":"FP32","shape":[-1]}"#;
        let both = format!(r#"{{"inputs":[{tensor}],"outputs":[{tensor}]}}"#);
        let signature = Signature::parse(both.as_bytes()).unwrap();
        let signed = ModelSpec {
            input_type: InputType::Tensors,
            signature: Some(Arc::new(signature)),
            ..spec.clone()
        };
        let text = serde_json::to_string(&signed).unwrap();
        assert_eq!(serde_json::from_str::<ModelSpec>(&text).unwrap(), signed);
        assert!(!signed.serves_as(&ModelSpec { signature: None, ..signed.clone() }));
    }
}
