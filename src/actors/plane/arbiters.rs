//! Which thread a model runs on.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use actix::ArbiterHandle;

use clipper_domain::ModelId;

/// The threads that models run on. A model stays on one of them: its batcher and all its replicas
/// exchange messages without leaving it.
#[derive(Debug, Clone)]
pub struct DataArbiters(pub Arc<[ArbiterHandle]>);

impl DataArbiters {
    /// The thread of a model version.
    #[must_use]
    pub fn of(&self, id: &ModelId) -> &ArbiterHandle {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let threads = self.0.len() as u64;
        &self.0[usize::try_from(hasher.finish() % threads).unwrap_or(0)]
    }
}
