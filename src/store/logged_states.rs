//! Soft state that changes often and much, before a table that takes it slowly.
//!
//! The engine may write little between two syncs, so a burst of a hundred thousand users' states
//! would wait for hundreds of them. Here they wait for one: they are in memory and in a
//! [`StateLog`] until [`LoggedStates::settle`] has put them into the table, some at a time.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::error::StoreError;
use super::policy_state::{Put, SoftTable};
use super::state_log::{StateChange, StateLog};

/// As long as the log may get before whoever adds to it has to wait for the table.
const LOG_MAX_BYTES: u64 = 16 << 20;

/// Put into the table at a time: one sync of the engine.
const SETTLED_BYTES: usize = 96 << 10;
/// Copied while those who keep feedback wait, bytes.
const COPIED_AT_ONCE: usize = 16 << 10;

/// See the module's text. Any thread may call.
pub struct LoggedStates {
    table: Arc<dyn SoftTable>,
    log: Mutex<StateLog>,
    /// What the log has and the table has not.
    unsettled: RwLock<Unsettled>,
    /// Held by who moves values into the table, or removes them from it.
    moving: Mutex<()>,
}

#[derive(Default)]
struct Unsettled {
    values: BTreeMap<String, UnsettledValue>,
    /// Those of them that have no older value in the table.
    new: usize,
}

struct UnsettledValue {
    text: String,
    is_new: bool,
}

impl Unsettled {
    fn remove(&mut self, key: &str) {
        if let Some(value) = self.values.remove(key) {
            self.new -= usize::from(value.is_new);
        }
    }

    fn remove_prefix(&mut self, prefix: &str) -> usize {
        let from = self.values.range(prefix.to_owned()..).map(|(key, _)| key);
        let keys: Vec<String> = from.take_while(|key| key.starts_with(prefix)).cloned().collect();
        for key in &keys {
            self.remove(key);
        }
        keys.len()
    }

    /// Those after a key, one at least and no more than so many bytes, and whether these are all.
    fn page(&self, after: Option<&str>, bytes: usize) -> (Vec<(String, String)>, bool) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut left, mut taken) = (bytes, Vec::new());
        for (key, value) in self.values.range::<str, _>((from, Bound::Unbounded)) {
            let size = key.len() + value.text.len();
            if !taken.is_empty() && size > left {
                return (taken, false);
            }
            left = left.saturating_sub(size);
            taken.push((key.clone(), value.text.clone()));
        }
        (taken, true)
    }
}

impl LoggedStates {
    /// Before `table`, with the log in `directory` and what an earlier process has left in it.
    ///
    /// # Errors
    /// The log's.
    pub fn open(table: Arc<dyn SoftTable>, directory: &Path) -> Result<Self, StoreError> {
        let (log, changes) = StateLog::open(directory).map_err(failed)?;
        let mut unsettled = Unsettled::default();
        for change in changes {
            match change {
                StateChange::Put(key, text) => {
                    let is_new = table.get(&key)?.is_none();
                    unsettled.remove(&key);
                    unsettled.new += usize::from(is_new);
                    unsettled.values.insert(key, UnsettledValue { text, is_new });
                }
                StateChange::Remove(key) => {
                    unsettled.remove(&key);
                    table.remove(&key)?;
                }
                StateChange::RemovePrefix(prefix) => {
                    unsettled.remove_prefix(&prefix);
                    table.remove_prefix(&prefix)?;
                }
            }
        }
        let (log, unsettled) = (Mutex::new(log), RwLock::new(unsettled));
        Ok(Self { table, log, unsettled, moving: Mutex::new(()) })
    }

    /// Puts some of what the log has into the table; false once that was all.
    ///
    /// # Errors
    /// The table's; nothing is lost.
    pub fn settle(&self) -> Result<bool, StoreError> {
        let _alone = self.moving.lock();
        let (some, _) = self.unsettled.read().page(None, SETTLED_BYTES);
        for (key, text) in &some {
            // There was room for it when it came.
            self.table.put(key, text, usize::MAX)?;
        }
        if !some.is_empty() {
            self.table.flush()?;
        }
        let mut unsettled = self.unsettled.write();
        for (key, text) in &some {
            let is_newest = unsettled.values.get(key).is_some_and(|value| value.text == *text);
            if is_newest {
                unsettled.remove(key);
            } else if let Some(value) = unsettled.values.get_mut(key) {
                let was_new = std::mem::replace(&mut value.is_new, false);
                unsettled.new -= usize::from(was_new);
            }
        }
        let is_empty = unsettled.values.is_empty();
        if is_empty {
            self.log.lock().empty().map_err(failed)?;
        }
        Ok(!is_empty)
    }

    /// Puts all of it there.
    ///
    /// # Errors
    /// As of [`Self::settle`].
    pub fn settle_all(&self) -> Result<(), StoreError> {
        while self.settle()? {}
        Ok(())
    }

    fn note(&self, change: &StateChange) {
        self.log.lock().add(change);
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: std::io::Error) -> StoreError {
    StoreError::Write { reason: format!("{}: {error}", super::state_log::FILE) }
}

impl SoftTable for LoggedStates {
    fn get(&self, key: &str) -> Result<Option<String>, StoreError> {
        if let Some(value) = self.unsettled.read().values.get(key) {
            return Ok(Some(value.text.clone()));
        }
        self.table.get(key)
    }

    fn put(&self, key: &str, value: &str, max: usize) -> Result<Put, StoreError> {
        if self.unsettled.read().values.contains_key(key) {
            return self.put_by_log(key, value, max);
        }
        self.table.put(key, value, max.saturating_sub(self.unsettled.read().new))
    }

    fn put_by_log(&self, key: &str, value: &str, max: usize) -> Result<Put, StoreError> {
        if self.log.lock().bytes() > LOG_MAX_BYTES {
            self.settle_all()?;
        }
        let known = self.unsettled.read().values.get(key).map(|known| known.text == value);
        let was_there = known.is_some() || self.table.get(key)?.is_some();
        if known == Some(true) {
            return Ok(Put::Present);
        }
        let mut unsettled = self.unsettled.write();
        if !was_there && self.table.entries() + unsettled.new >= max {
            return Ok(Put::Full);
        }
        let (text, is_new) = (value.to_owned(), !was_there);
        if let Some(known) = unsettled.values.get_mut(key) {
            // New as long as it was.
            known.text = text;
        } else {
            unsettled.new += usize::from(is_new);
            unsettled.values.insert(key.to_owned(), UnsettledValue { text, is_new });
        }
        self.note(&StateChange::Put(key.to_owned(), value.to_owned()));
        Ok(if was_there { Put::Present } else { Put::Stored })
    }

    fn remove(&self, key: &str) -> Result<(), StoreError> {
        let _alone = self.moving.lock();
        let mut unsettled = self.unsettled.write();
        if unsettled.values.contains_key(key) {
            unsettled.remove(key);
            self.note(&StateChange::Remove(key.to_owned()));
        }
        drop(unsettled);
        self.table.remove(key)
    }

    fn remove_prefix(&self, prefix: &str) -> Result<(), StoreError> {
        let _alone = self.moving.lock();
        if self.unsettled.write().remove_prefix(prefix) > 0 {
            self.note(&StateChange::RemovePrefix(prefix.to_owned()));
        }
        self.table.remove_prefix(prefix)
    }

    fn page(&self, after: Option<&str>, bytes: usize) -> Result<Vec<(String, String)>, StoreError> {
        // A copy first, and then the table without the lock: whoever asks may be of low priority,
        // and feedback is acknowledged by who needs that lock. What goes from one to the other
        // meanwhile is in both.
        let (unsettled, is_rest) = self.unsettled.read().page(after, bytes.min(COPIED_AT_ONCE));
        let settled = self.table.page(after, if is_rest { bytes } else { COPIED_AT_ONCE })?;
        // As far as both have come: what is after that is of the next page.
        let copied = unsettled.last().filter(|_| !is_rest).map(|(key, _)| key);
        let end = settled.last().map(|(key, _)| key).into_iter().chain(copied).min().cloned();
        let mut page: BTreeMap<String, String> = settled.into_iter().collect();
        page.extend(unsettled);
        if let Some(end) = end {
            page.retain(|key, _| *key <= end);
        }
        Ok(page.into_iter().collect())
    }

    fn each(&self, visit: &mut dyn FnMut(&str, &str)) -> Result<(), StoreError> {
        let unsettled = self.unsettled.read();
        for (key, value) in &unsettled.values {
            visit(key, &value.text);
        }
        self.table.each(&mut |key, value| {
            if !unsettled.values.contains_key(key) {
                visit(key, value);
            }
        })
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.log.lock().sync().map_err(failed)?;
        self.table.flush()
    }

    /// One that comes seldom, and is the table's at once.
    fn put_if_absent(&self, key: &str, value: &str, max: usize) -> Result<Put, StoreError> {
        if self.unsettled.read().values.contains_key(key) {
            return Ok(Put::Present);
        }
        self.table.put_if_absent(key, value, max.saturating_sub(self.unsettled.read().new))
    }

    fn entries(&self) -> usize {
        self.table.entries() + self.unsettled.read().new
    }

    fn settle(&self) -> Result<bool, StoreError> {
        Self::settle(self)
    }
}

#[cfg(test)]
#[path = "logged_states_tests.rs"]
mod tests;
