//! What users' feedback left with an application's selection policy: soft state beside the journal.
//!
//! Not synced by each call: a power cut may lose the last second of it, and the policy then starts
//! again from its initial state. The owner of feedback forgets what a deleted application has left.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::StoreError;
use clipper_domain::AppName;

/// A bounded table of texts, kept by a storage engine. Calls are short but may touch the disk.
pub trait SoftTable: Send + Sync {
    /// The value of `key`.
    fn get(&self, key: &str) -> Result<Option<String>, StoreError>;

    /// Stores `value`, over another if there is one, if less than `max` other entries exist.
    fn put(&self, key: &str, value: &str, max: usize) -> Result<Put, StoreError>;

    /// As [`Self::put`], of what changes often and much: quicker where a log takes it first. It
    /// lasts after [`Self::flush`] all the same.
    fn put_by_log(&self, key: &str, value: &str, max: usize) -> Result<Put, StoreError> {
        self.put(key, value, max)
    }

    /// Moves some of what the log has to where it belongs; true if there is more. May take as long
    /// as the engine does.
    fn settle(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn entries(&self) -> usize;

    /// Removes what is there.
    fn remove(&self, key: &str) -> Result<(), StoreError>;

    /// Removes every entry whose key starts so.
    fn remove_prefix(&self, prefix: &str) -> Result<(), StoreError>;

    /// Shows all keys and values.
    fn each(&self, visit: &mut dyn FnMut(&str, &str)) -> Result<(), StoreError>;

    /// Some of the entries after a key, by key, about so many bytes of them: none only where none
    /// is left. What changes meanwhile may be there or not.
    fn page(&self, after: Option<&str>, bytes: usize) -> Result<Vec<(String, String)>, StoreError>;

    /// What was stored before is on the disk when this returns.
    fn flush(&self) -> Result<(), StoreError>;

    /// Stores `value` if there is none and less than `max` entries exist.
    fn put_if_absent(&self, key: &str, value: &str, max: usize) -> Result<Put, StoreError>;
}

/// What became of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    Stored,
    /// Another value was there and stays.
    Present,
    /// Not stored: `journal.policy_state_max_entries` are in use.
    Full,
    /// Not stored: longer than `journal.policy_state_max_bytes`.
    TooLong,
}

/// Policy state of all users; clones share it, any thread may call.
#[derive(Clone)]
pub struct PolicyStateStore {
    table: Arc<dyn SoftTable>,
    max_entries: usize,
    max_bytes: usize,
}

impl fmt::Debug for PolicyStateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyStateStore")
            .field("max_entries", &self.max_entries)
            .finish_non_exhaustive()
    }
}

impl PolicyStateStore {
    /// At most `max_entries` entries of `max_bytes` each in `table`.
    #[must_use]
    pub fn new(table: Arc<dyn SoftTable>, max_entries: usize, max_bytes: usize) -> Self {
        Self { table, max_entries, max_bytes }
    }

    /// The state of a user of an application; `None` if there is none or it cannot be read
    /// (logged).
    #[must_use]
    pub fn get(&self, app: &AppName, uid: i64) -> Option<String> {
        self.read(&key(app, uid))
    }

    /// What is kept of what feedback has left with a user; as [`Self::get`].
    #[must_use]
    pub fn learned(&self, app: &AppName, uid: i64) -> Option<String> {
        self.read(&learned_key(app, uid))
    }

    fn read(&self, key: &str) -> Option<String> {
        self.table.get(key).unwrap_or_else(|error| {
            tracing::warn!(%key, %error, "policy state cannot be read");
            None
        })
    }

    /// Forgets all users of an application.
    ///
    /// # Errors
    /// The engine's.
    pub fn forget(&self, app: &AppName) -> Result<(), StoreError> {
        let prefix = prefix(app);
        self.table.remove_prefix(&prefix)?;
        self.table.remove_prefix(&format!("{LEARNED}{prefix}"))
    }

    /// Makes the entry `key` as the shared table has it; `None`: it has none.
    ///
    /// # Errors
    /// The engine's.
    pub fn follow(&self, key: &str, value: Option<&str>) -> Result<(), StoreError> {
        match value {
            Some(value) if value.len() > self.max_bytes => Ok(()),
            Some(value) => self.table.put(key, value, self.max_entries).map(drop),
            None => self.table.remove(key),
        }
    }

    /// Stores a value, over another if there is one.
    ///
    /// # Errors
    /// The engine's.
    pub fn replace(&self, key: &str, value: &str) -> Result<Put, StoreError> {
        if value.len() > self.max_bytes {
            return Ok(Put::TooLong);
        }
        self.table.put_by_log(key, value, self.max_entries)
    }

    /// As of [`SoftTable::settle`].
    ///
    /// # Errors
    /// The engine's; nothing is lost.
    pub fn settle(&self) -> Result<bool, StoreError> {
        self.table.settle()
    }

    /// Shows everything that is kept: keys and values, `max_entries` at most.
    ///
    /// # Errors
    /// The engine's.
    pub fn each(&self, mut visit: impl FnMut(&str, &str)) -> Result<(), StoreError> {
        self.table.each(&mut visit)
    }

    /// Some of the entries after a key, as of [`SoftTable::page`].
    ///
    /// # Errors
    /// The engine's.
    pub fn page(
        &self,
        after: Option<&str>,
        bytes: usize,
    ) -> Result<Vec<(String, String)>, StoreError> {
        self.table.page(after, bytes)
    }

    /// What was stored before survives the end of this process, and of the machine, when this
    /// returns.
    ///
    /// # Errors
    /// The engine's.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.table.flush()
    }

    /// Stores the state of a user who has none yet.
    ///
    /// # Errors
    /// The engine's; the entry is then not there, or lost soon.
    pub fn put_if_absent(&self, app: &AppName, uid: i64, value: &str) -> Result<Put, StoreError> {
        if value.len() > self.max_bytes {
            return Ok(Put::TooLong);
        }
        self.table.put_if_absent(&key(app, uid), value, self.max_entries)
    }
}

/// The state of the default policy, to the byte as the original writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultPolicyState {
    /// The output that it answers by default.
    pub y_hat: String,
}

impl DefaultPolicyState {
    /// The JSON of a state with this output.
    #[must_use]
    pub fn text(y_hat: &str) -> String {
        // A text cannot fail to be written.
        serde_json::to_string(&Self { y_hat: y_hat.to_owned() }).unwrap_or_default()
    }
}

/// The key of the original's Redis table 1.
#[must_use]
pub fn key(app: &AppName, uid: i64) -> String {
    format!("{app}:{uid}:0")
}

/// What the keys of what policies have learned start with. No name has a `/`, so they are nobody's
/// entries of the shared table.
const LEARNED: &str = "learned/";

/// The key of what a policy has learned from a user; of this server alone.
#[must_use]
pub fn learned_key(app: &AppName, uid: i64) -> String {
    format!("{LEARNED}{}", key(app, uid))
}

/// Whose [`learned_key`] it is.
#[must_use]
pub fn learned_of(key: &str) -> Option<(AppName, i64)> {
    let mut parts = key.strip_prefix(LEARNED)?.split(':');
    let (app, uid) = (parts.next()?, parts.next()?);
    Some((AppName::parse(app).ok()?, uid.parse().ok()?))
}

/// The application that a key is about, of either kind.
#[must_use]
pub fn owner_of(key: &str) -> Option<&str> {
    app_of(key.strip_prefix(LEARNED).unwrap_or(key))
}

/// The application of a key.
#[must_use]
pub fn app_of(key: &str) -> Option<&str> {
    key.split_once(':').map(|(app, _)| app)
}

/// What the keys of all users of `app` start with. Names hold no `:`, so no other application's key
/// does.
fn prefix(app: &AppName) -> String {
    format!("{app}:")
}
