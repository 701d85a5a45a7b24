//! How what feedback leaves is kept: saved soon, and the least recently used users by the store
//! alone.

use std::collections::BTreeSet;
use std::sync::Arc;

#[cfg(test)]
use crate::actors::plane::learned_states::LearnedLimits;
use crate::actors::plane::learned_states::{LearnedStates, UserOf};
use crate::metrics::{Metrics, Unsaved};
use clipper_domain::AppName;
use clipper_selection::shared::Part;

/// Keeps what feedback leaves. Its calls may take as long as a disk does.
pub trait FeedbackLog: Send + Sync {
    /// Records that user `uid` of `app` gave feedback; `initial` is the policy's state before any.
    fn record(&self, app: &AppName, uid: i64, initial: &str);

    /// Keeps what feedback has left with a user, over what was kept before.
    ///
    /// # Errors
    /// Why not; it is in the log.
    fn save(&self, _app: &AppName, _uid: i64, _own: &Part) -> Result<(), Unsaved> {
        Ok(())
    }

    /// What was saved of a user.
    fn load(&self, _app: &AppName, _uid: i64) -> Option<Part> {
        None
    }

    /// What was saved before is on the disk when this returns; false if that failed, with the
    /// reason in the log.
    fn flush(&self) -> bool {
        true
    }

    /// Moves some of what was saved to where it is kept for long; true if there is more.
    fn settle(&self) -> bool {
        false
    }

    /// Forgets all users of an application.
    fn forget(&self, _app: &AppName) {}

    /// The applications that something is kept of.
    fn apps(&self) -> BTreeSet<AppName> {
        BTreeSet::new()
    }
}

/// What is in memory, and what keeps it.
#[derive(Clone)]
pub struct Keeping {
    pub log: Arc<dyn FeedbackLog>,
    pub learned: Arc<LearnedStates>,
    pub metrics: Arc<Metrics>,
    /// Other frontends are to hear of it.
    pub is_shared: bool,
}

impl Keeping {
    /// With little room, for tests.
    #[cfg(test)]
    pub(crate) fn of(log: Arc<dyn FeedbackLog>) -> Self {
        let limits = LearnedLimits { users: 3, users_in_sum: 10, window: 10 };
        let learned = Arc::new(LearnedStates::new(limits));
        Self { log, learned, metrics: Metrics::new(), is_shared: false }
    }

    /// Saves these users' states, brings back who was asked about, and lets those leave memory who
    /// are too many and saved. Tells who is to be saved again.
    pub(super) fn save(&self, changed: BTreeSet<UserOf>) -> BTreeSet<UserOf> {
        let mut failed = BTreeSet::new();
        let mut saved = BTreeSet::new();
        for user in changed {
            let Some(own) = self.learned.of(&user.0).own_part(user.1) else { continue };
            match self.log.save(&user.0, user.1, &own) {
                Ok(()) => {
                    saved.insert(user);
                }
                Err(why) => {
                    self.metrics.policy_states.unsaved(why);
                    if why == Unsaved::Failed {
                        failed.insert(user);
                    } else {
                        self.learned.stay(user);
                    }
                }
            }
        }
        if !self.log.flush() {
            self.metrics.policy_states.unsaved(Unsaved::Failed);
            failed.extend(saved);
            return failed;
        }
        self.metrics.policy_states.saved(saved.len());
        if self.is_shared {
            self.learned.tell_of(saved.iter().cloned());
        }
        self.learned.leave(&saved);
        self.load(self.learned.take_wanted());
        let leaving = self.learned.too_many();
        let leaving: Vec<UserOf> = leaving.into_iter().filter(|u| !failed.contains(u)).collect();
        let left = self.learned.drop_saved(&leaving);
        self.metrics.policy_states.users(left, self.learned.users());
        failed
    }

    /// Brings users back into memory.
    pub(super) fn load(&self, users: impl IntoIterator<Item = UserOf>) {
        for (app, uid) in users {
            if self.learned.of(&app).knows(uid) {
                continue;
            }
            if let Some(own) = self.log.load(&app, uid) {
                self.learned.bring_back(&app, uid, own);
            }
            if self.is_shared {
                self.learned.ask_for((app, uid));
            }
        }
    }
}
