//! What looks into the journal's past work on.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::actors::apps::feedback::FeedbackQueue;
use crate::config::JournalConfig;
use crate::http::parsing::Parsing;
use crate::store::history::History;
use crate::store::policy_state::PolicyStateStore;

/// The journal's past, and the threads that look into it: their own, so that nobody else waits.
#[derive(Debug, Clone)]
pub struct Past {
    pub history: History,
    pub threads: Parsing,
    pub limits: JournalConfig,
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
        threads: Parsing,
        limits: JournalConfig,
    ) -> Self {
        let followers = Arc::new(Semaphore::new(limits.followers_max));
        let backups = Arc::new(Semaphore::new(1));
        Self { history, threads, limits, followers, states, feedback, backups }
    }
}
