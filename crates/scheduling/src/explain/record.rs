//! What is known of a query that has been answered: facts.

use std::sync::Arc;
use std::time::Duration;

use clipper_clock::Instant;
use clipper_domain::explain::CacheUse;
use clipper_domain::{AppName, ModelId, ReplicaId, RequestId};
use smallvec::SmallVec;

use crate::query_context::AttemptOf;
use crate::ticket::DefaultReason;
use crate::trace::{Attempt, QueryTrace};

/// What is known of a query that has been answered.
#[derive(Debug, Clone)]
pub struct QueryRecord {
    pub query_id: u64,
    /// Of its request.
    pub request_id: Option<RequestId>,
    pub app: AppName,
    /// When its request had arrived.
    pub arrived: Instant,
    /// From then until it was answered.
    pub latency: Duration,
    pub objective: Duration,
    /// Of a default output.
    pub default: Option<DefaultReason>,
    /// The policy's name.
    pub policy: Arc<str>,
    pub confidence: Option<f64>,
    pub models: SmallVec<[ModelRecord; 1]>,
}

/// The same of a model that was asked.
#[derive(Debug, Clone)]
pub struct ModelRecord {
    pub model: ModelId,
    /// By which its replicas know the query, and its own serial number.
    pub of: (u64, u64),
    pub weight: Option<f64>,
    /// Its output is the answer, or part of it.
    pub used: bool,
    /// Why it has no output.
    pub default: Option<DefaultReason>,
    pub cache: CacheUse,
    pub trace: QueryTrace,
}

impl ModelRecord {
    /// One of its attempts, as the containers were told of it.
    #[must_use]
    pub fn attempt(&self, attempt: &Attempt) -> AttemptOf {
        let (query_id, model) = self.of;
        AttemptOf { query_id, model, batch: attempt.to.batch }
    }
}

/// Lanes of a container have names from the other end, which say nothing to anybody.
pub(super) fn number(replica: ReplicaId) -> Option<u32> {
    (replica.0 <= u32::MAX / 2).then_some(replica.0)
}
