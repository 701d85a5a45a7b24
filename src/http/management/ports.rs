//! What the management frontend needs of the rest: small enough to be played by a test in memory.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::domain::{Command, CommandError, InputType, ModelId, ReplicaId};
use crate::store::projection::Catalog;

/// Why a command did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The rules forbid it.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// It cannot be stored now. Nothing has changed.
    #[error("{reason}")]
    Unavailable {
        /// What is away, for a person.
        reason: String,
    },
}

/// The metadata: one writer, many readers.
pub trait Metadata: Send + Sync {
    /// Carries out a command; done means durable.
    fn execute(&self, command: Command) -> BoxFuture<'static, Result<(), ChangeError>>;

    /// The metadata as of the last acknowledged command or a later one. Cheap.
    fn catalog(&self) -> Arc<Catalog>;
}

/// A connected replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerInfo {
    /// The model version it serves.
    pub model: ModelId,
    /// Its number.
    pub replica: ReplicaId,
    /// What its inputs are made of.
    pub input_type: InputType,
}

/// The connected replicas.
pub trait Containers: Send + Sync {
    /// All of them, in any order.
    fn list(&self) -> Vec<ContainerInfo>;
}

/// What applications have learnt.
pub trait PolicyStates: Send + Sync {
    /// The output that the stored state of this user gives by default; `None`: nothing is stored.
    fn get(&self, app: &str, uid: i64) -> Option<String>;
}
