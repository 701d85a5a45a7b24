//! What the dispatcher says has to be done.

use std::sync::Arc;
use std::time::Duration;

use clipper_clock::Instant;
use clipper_domain::ReplicaId;

use crate::batch_id::BatchId;
use crate::load::Load;
use crate::ticket::DefaultReason;

#[derive(Debug)]
pub enum Action<Q> {
    /// Give a replica a batch.
    Send {
        replica: ReplicaId,
        /// The name that its answer has to have.
        batch: BatchId,
        /// In the order of their outputs.
        queries: Arc<[Q]>,
    },
    /// End a query without an answer of the model.
    Resolve {
        query: Q,
        reason: DefaultReason,
    },
    /// A replica hangs and has left the dispatcher: close its connection.
    GiveUp {
        replica: ReplicaId,
        why: Arc<str>,
    },
    /// Come back with [`Event::Time`](super::Event::Time) at this time. Replaces what was said
    /// before.
    Wake(Instant),
    /// Show this to whoever admits queries.
    Publish(Arc<Load>),
    Count(Count),
}

/// What is counted, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// So many queries that arrived together waited so long until a replica began with them.
    Waited(usize, Duration),
    /// A replica has answered a batch of so many queries in this time.
    Answered(ReplicaId, usize, Duration),
    /// Nobody waited for so many queries any more, or they had no time left.
    Skipped(usize),
    /// So many queries were queued again after their replica failed.
    Retried(usize),
    /// So many queries go to a second replica because their first one is slow.
    Hedged(usize),
    /// So many queries were refused because their input kills replicas.
    Poisonous(usize),
}
