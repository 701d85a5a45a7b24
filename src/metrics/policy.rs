//! What an application's policy does: handles of its models, and what came of feedback.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::RwLock;

use clipper_domain::ModelName;

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
}

/// Of one application.
#[derive(Debug, Default)]
pub struct PolicyMetrics {
    feedback: [AtomicU64; FeedbackEnd::ALL.len()],
    models: RwLock<BTreeMap<ModelName, Arc<ChoiceMetrics>>>,
}

impl PolicyMetrics {
    /// One feedback ended so.
    pub fn feedback(&self, end: FeedbackEnd) {
        if let Some(count) = self.feedback.get(end as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// A model was asked about one query; `answered`: its output came in time.
    pub fn asked(&self, model: &ModelName, answered: bool) {
        if let Some(metrics) = self.model(model) {
            metrics.asked.fetch_add(1, Relaxed);
            if !answered {
                metrics.left_out.fetch_add(1, Relaxed);
            }
        }
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

    fn model(&self, model: &ModelName) -> Option<Arc<ChoiceMetrics>> {
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
