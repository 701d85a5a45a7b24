//! The metric table: every name, kind, unit and label in one place, and the handles that hot paths keep.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{AppName, ModelId, ReplicaId};

/// How a query ended, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A model's output.
    Prediction,
    /// The default output: no connected replica.
    NoReplica,
    /// The default output: the deadline passed.
    Late,
    /// The default output: the model's queue was full or could not make the deadline.
    Shed,
    /// The default output: the model failed on this query.
    Failed,
}

/// All metrics of the process.
#[derive(Debug, Default)]
pub struct Metrics {}

/// Handles of one application, resolved once.
#[derive(Debug, Default)]
pub struct AppMetrics {}

/// Handles of one model version, resolved once.
#[derive(Debug, Default)]
pub struct ModelMetrics {}

/// Why a container connection ended or was refused, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RpcEnd {
    /// Too many connections.
    Limit,
    /// Not ZMTP, or a ZMTP rule broken.
    Zmtp,
    /// Not a Clipper message, or one out of turn.
    Protocol,
    /// No new-container message in time.
    HandshakeTimeout,
    /// RPC version missing or not 3.
    RpcVersion,
    /// The container's input type is not its model's.
    InputType,
    /// A model name or version that cannot be one.
    Name,
    /// The peer closed the connection.
    Closed,
    /// Silent for too long.
    Silent,
    /// Did not read; its write queue was full.
    Stuck,
    /// Wrong number of outputs.
    OutputCount,
    /// Its model version was retired.
    Retired,
    /// The connection's actor panicked.
    Panicked,
    /// Orderly shutdown of the server.
    Shutdown,
}

impl Metrics {
    /// An empty table.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Handles of an application, made on first use.
    #[must_use]
    pub fn app(&self, _name: &AppName) -> Arc<AppMetrics> {
        Arc::default()
    }

    /// Forgets a deleted application's series.
    pub fn remove_app(&self, _name: &AppName) {}

    /// Handles of a model version, made on first use.
    #[must_use]
    pub fn model(&self, _id: &ModelId) -> Arc<ModelMetrics> {
        Arc::default()
    }

    /// Forgets a retired model version's series.
    pub fn remove_model(&self, _id: &ModelId) {}

    /// Counts the end or refusal of a container connection.
    pub fn rpc_ended(&self, _why: RpcEnd) {}

    /// Sets the number of open container connections.
    pub fn set_rpc_connections(&self, _open: usize) {}

    /// Counts a restart of an actor by its parent.
    pub fn actor_restarted(&self, _actor: &'static str) {}

    /// Counts a start of a child process.
    pub fn child_started(&self, _id: &ModelId) {}

    /// Counts a command acknowledged (`true`) or refused.
    pub fn admin_command(&self, _acknowledged: bool) {}
}

impl AppMetrics {
    /// One answered query and the time from arrival to answer.
    pub fn answered(&self, _outcome: Outcome, _latency: Duration) {}

    /// One request refused with a 4xx.
    pub fn rejected(&self) {}
}

impl ModelMetrics {
    /// One look-up in the prediction cache.
    pub fn cache_lookup(&self, _hit: bool) {}

    /// One batch answered by a replica: its size, and the time from send to answer.
    pub fn batch_answered(&self, _replica: ReplicaId, _size: usize, _latency: Duration) {}

    /// Time one query spent in the queue.
    pub fn queued(&self, _wait: Duration) {}

    /// Queries skipped at dequeue: expired, or nobody waits any more.
    pub fn skipped(&self, _queries: usize) {}

    /// Queries put back into the queue after their replica died or hung.
    pub fn retried(&self, _queries: usize) {}

    /// Queries waiting now.
    pub fn set_queue_depth(&self, _queries: usize) {}

    /// Replicas connected now.
    pub fn set_replicas(&self, _replicas: usize) {}

    /// An answer with an unknown or repeated message id; ignored.
    pub fn stray_answer(&self) {}
}
