//! What policies keep of users.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why what feedback has left with a user was not saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsaved {
    /// `journal.policy_state_max_entries` are in use.
    Full,
    /// It is longer than `journal.policy_state_max_bytes`.
    TooLong,
    /// The disk.
    Failed,
}

impl Unsaved {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 3] = [Self::Full, Self::TooLong, Self::Failed];

    /// The value of the label `reason`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::TooLong => "long",
            Self::Failed => "failed",
        }
    }
}

/// Counters of all applications.
#[derive(Debug, Default)]
pub struct PolicyStateMetrics {
    unsaved: [AtomicU64; Unsaved::ALL.len()],
    pub(super) saved: AtomicU64,
    pub(super) users: AtomicU64,
    pub(super) evicted: AtomicU64,
}

impl PolicyStateMetrics {
    /// So many states are on the disk now.
    pub fn saved(&self, states: usize) {
        self.saved.fetch_add(states as u64, Relaxed);
    }

    /// A state was not saved.
    pub fn unsaved(&self, why: Unsaved) {
        if let Some(count) = self.unsaved.get(why as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// How often, for this reason.
    pub(super) fn unsaved_for(&self, why: Unsaved) -> u64 {
        self.unsaved.get(why as usize).map_or(0, |count| count.load(Relaxed))
    }

    /// So many users have left memory; so many are in it.
    pub fn users(&self, evicted: usize, users: usize) {
        self.evicted.fetch_add(evicted as u64, Relaxed);
        self.users.store(users as u64, Relaxed);
    }
}
