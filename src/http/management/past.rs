//! What looks into the journal's past work on.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::actors::apps::feedback::FeedbackQueue;
use crate::priority::Looking;
use crate::store::history::History;
use crate::store::policy_state::PolicyStateStore;
use clipper_config::JournalConfig;

/// The journal's past, and the threads that look into it: their own, so that nobody else waits.
#[derive(Debug, Clone)]
pub struct Past {
    pub history: History,
    pub threads: Looking,
    pub limits: JournalConfig,
    /// Places of those that look.
    pub looks: Arc<Semaphore>,
    /// Places of those that follow.
    pub followers: Arc<Semaphore>,
    pub states: PolicyStateStore,
    /// Has what `states` gets next.
    pub feedback: FeedbackQueue,
    /// The one place of who makes a backup.
    pub backups: Arc<Semaphore>,
}

impl Past {
    #[must_use]
    pub fn new(
        (history, states): (History, PolicyStateStore),
        feedback: FeedbackQueue,
        threads: Looking,
        limits: JournalConfig,
    ) -> Self {
        let looks = Arc::new(Semaphore::new(limits.looks_max));
        let followers = Arc::new(Semaphore::new(limits.followers_max));
        let backups = Arc::new(Semaphore::new(1));
        Self { history, threads, limits, looks, followers, states, feedback, backups }
    }

    /// A place for a question, until it is answered; why there is none.
    pub(super) fn look(&self) -> Result<OwnedSemaphorePermit, String> {
        let max = self.limits.looks_max;
        let full = |_| format!("{max} look into the past already (journal.looks_max)");
        Arc::clone(&self.looks).try_acquire_owned().map_err(full)
    }
}
