//! The port by which everybody asks for changes of the metadata, whichever way these are kept.
//!
//! Embedded, the catalog writer carries a change out alone; with Redis, the Redis watcher writes it
//! into the shared tables first. Bootstrap, deployments and the management frontend know only this.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::event::Author;
use clipper_domain::{Command, CommandError};

/// Why a command was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The rules say no; nothing has changed. 400.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// Too many commands wait, or the store fails. 503; the reason says whether it may still be
    /// written.
    #[error("{reason}")]
    Unavailable {
        /// For the caller and the log.
        reason: String,
    },
}

impl ChangeError {
    /// Not now, for this reason.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into() }
    }
}

/// Carries out changes of the metadata. May be called from any thread.
pub trait MetadataWriter: Send + Sync {
    /// Carries out a command. Done means that it is durable and that every actor has applied it, or
    /// is late to and was logged.
    fn execute(
        &self,
        command: Command,
        author: Author,
    ) -> BoxFuture<'static, Result<(), ChangeError>>;

    /// Whether it needs something that may be away at a start and come back, so that a start goes
    /// on without it.
    fn may_be_away(&self) -> bool {
        false
    }
}

/// As everybody holds it.
pub type SharedWriter = Arc<dyn MetadataWriter>;
