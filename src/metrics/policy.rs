//! What an application's policy does: handles of its models, and what came of feedback.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::RwLock;

use clipper_domain::ModelName;

use super::histogram::Histogram;

/// Models of one application that have series: as many as a policy may choose among, and some that
/// were unlinked. Further ones are not counted.
pub const MODEL_SERIES_MAX: usize = 128;

/// What came of feedback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedbackEnd {
    /// The policy learned from it.
    Learned,
    /// The answer that it is about has left the window.
    Late,
    /// The answer was judged before.
    Double,
    /// There is no such answer, or nothing to learn from it.
    Unknown,
}

impl FeedbackEnd {
    /// Every end, in the order of declaration.
    pub const ALL: [Self; 4] = [Self::Learned, Self::Late, Self::Double, Self::Unknown];

    /// The value of the label `result`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Learned => "learned",
            Self::Late => "late",
            Self::Double => "double",
            Self::Unknown => "unknown",
        }
    }
}

/// Counters of one model under the application's policy.
#[derive(Debug, Default)]
pub struct ChoiceMetrics {
    pub(super) asked: AtomicU64,
    pub(super) left_out: AtomicU64,
    pub(super) judged: AtomicU64,
    /// Millionths.
    pub(super) loss: AtomicU64,
    pub(super) compared: AtomicU64,
    pub(super) agreed: AtomicU64,
}

impl ChoiceMetrics {
    /// The model was asked about one query; `answered`: its output came in time.
    pub fn asked(&self, answered: bool) {
        self.asked.fetch_add(1, Relaxed);
        if !answered {
            self.left_out.fetch_add(1, Relaxed);
        }
    }

    /// Several models gave an output, and one of the outputs was the answer; `agrees`: this
    /// model's was the same.
    pub fn compared(&self, agrees: bool) {
        self.compared.fetch_add(1, Relaxed);
        self.agreed.fetch_add(u64::from(agrees), Relaxed);
    }
}

/// How much each model counts now.
pub trait ModelWeights: std::fmt::Debug + Send + Sync {
    /// They add up to 1.
    fn weights(&self) -> Vec<(ModelName, f64)>;
}

/// In one of these a confidence is counted.
pub(super) const CONFIDENCE_UNIT: f64 = 100.0;

/// Of one application.
#[derive(Debug, Default)]
pub struct PolicyMetrics {
    feedback: [AtomicU64; FeedbackEnd::ALL.len()],
    models: RwLock<BTreeMap<ModelName, Arc<ChoiceMetrics>>>,
    pub(super) confidence: Histogram,
    weights: RwLock<Option<Arc<dyn ModelWeights>>>,
}

impl PolicyMetrics {
    /// One feedback ended so.
    pub fn feedback(&self, end: FeedbackEnd) {
        if let Some(count) = self.feedback.get(end as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// An answer went out of which the policy was so sure, 0 to 1; also one that was too doubtful.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to a hundred")]
    pub fn answered(&self, confidence: f64) {
        self.confidence.record_n((confidence.clamp(0.0, 1.0) * CONFIDENCE_UNIT).round() as u64, 1);
    }

    /// Where the weights of the policy's models are to be asked for; `None` without a policy.
    pub fn set_weights(&self, weights: Option<Arc<dyn ModelWeights>>) {
        *self.weights.write() = weights;
    }

    /// How much each model counts now.
    pub(super) fn weights(&self) -> Vec<(ModelName, f64)> {
        let weights = self.weights.read().clone();
        weights.map(|weights| weights.weights()).unwrap_or_default()
    }

    /// Feedback has judged an output of a model; the loss is 0 to 1.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to a million")]
    pub fn judged(&self, model: &ModelName, loss: f64) {
        if let Some(metrics) = self.model(model) {
            metrics.judged.fetch_add(1, Relaxed);
            metrics.loss.fetch_add((loss.clamp(0.0, 1.0) * 1e6).round() as u64, Relaxed);
        }
    }

    /// How often feedback ended so.
    pub(super) fn feedback_ended(&self, end: FeedbackEnd) -> u64 {
        self.feedback.get(end as usize).map_or(0, |count| count.load(Relaxed))
    }

    pub(super) fn models(&self) -> BTreeMap<ModelName, Arc<ChoiceMetrics>> {
        self.models.read().clone()
    }

    /// The counters of a model; `None`: there are too many.
    pub fn model(&self, model: &ModelName) -> Option<Arc<ChoiceMetrics>> {
        if let Some(metrics) = self.models.read().get(model) {
            return Some(Arc::clone(metrics));
        }
        let mut models = self.models.write();
        if models.len() >= MODEL_SERIES_MAX && !models.contains_key(model) {
            return None;
        }
        Some(Arc::clone(models.entry(model.clone()).or_default()))
    }
}
