//! Policy state in a tree of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ::sled::Tree;
use parking_lot::RwLock;

use super::chunks::UNSYNCED_BYTES;
use super::files::Files;

use crate::store::error::StoreError;
use crate::store::journal::panic_text;
use crate::store::policy_state::{Put, SoftTable};

/// A longer value would make a page that sled does not write inline (see [`super::chunks`]). Only a
/// default output of that length makes one, and then nothing is lost: it is what the application
/// answers anyway.
const VALUE_MAX_BYTES: usize = 4096;

/// The policy state's tree, exchanged when the engine is opened again.
pub(super) struct PolicyTable {
    tree: RwLock<Option<(Tree, Files)>>,
    entries: AtomicUsize,
    /// Bytes written since the last sync.
    unsynced: AtomicUsize,
    /// Something has been stored since the last flush.
    pub(super) dirty: AtomicBool,
}

impl PolicyTable {
    pub(super) fn new(tree: Tree, files: &Files) -> Self {
        Self {
            entries: AtomicUsize::new(tree.len()),
            tree: RwLock::new(Some((tree, files.clone()))),
            unsynced: AtomicUsize::new(0),
            dirty: AtomicBool::new(false),
        }
    }

    /// Lets go of the tree, so that the engine can be closed; calls fail until [`Self::attach`].
    pub(super) fn detach(&self) {
        *self.tree.write() = None;
    }

    /// Takes the tree of a newly opened engine.
    pub(super) fn attach(&self, tree: Tree, files: &Files) {
        self.entries.store(tree.len(), Ordering::Relaxed);
        *self.tree.write() = Some((tree, files.clone()));
    }

    /// Notes that something is stored, and syncs before it is too much.
    fn wrote(&self, bytes: usize) -> Result<(), StoreError> {
        self.dirty.store(true, Ordering::Relaxed);
        if self.unsynced.fetch_add(bytes, Ordering::Relaxed) + bytes < UNSYNCED_BYTES {
            return Ok(());
        }
        self.unsynced.store(0, Ordering::Relaxed);
        self.with_files(|tree, files| {
            tree.flush()?;
            Ok(files.sync()?)
        })
    }

    fn with<T>(&self, job: impl FnOnce(&Tree) -> ::sled::Result<T>) -> Result<T, StoreError> {
        self.with_files(|tree, _| job(tree))
    }

    fn with_files<T>(
        &self,
        job: impl FnOnce(&Tree, &Files) -> ::sled::Result<T>,
    ) -> Result<T, StoreError> {
        let failed = |e: &str| StoreError::Write { reason: e.to_owned() };
        let open = self.tree.read();
        let (tree, files) = open.as_ref().ok_or_else(|| failed("the store has failed"))?;
        match catch_unwind(AssertUnwindSafe(|| job(tree, files))) {
            Ok(result) => result.map_err(|e| failed(&e.to_string())),
            Err(panic) => Err(failed(panic_text(&*panic))),
        }
    }
}

impl SoftTable for PolicyTable {
    fn get(&self, key: &str) -> Result<Option<String>, StoreError> {
        let value = self.with(|tree| tree.get(key))?;
        Ok(value.map(|v| String::from_utf8_lossy(&v).into_owned()))
    }

    fn put(&self, key: &str, value: &str, max: usize) -> Result<Put, StoreError> {
        if value.len() > VALUE_MAX_BYTES {
            return Ok(Put::Full);
        }
        let put = self.put_if_absent(key, value, max)?;
        if put == Put::Present && self.get(key)?.as_deref() != Some(value) {
            self.with(|tree| tree.insert(key, value))?;
            self.wrote(key.len() + value.len())?;
        }
        Ok(put)
    }

    fn remove(&self, key: &str) -> Result<(), StoreError> {
        if self.with(|tree| tree.remove(key))?.is_some() {
            self.entries.fetch_sub(1, Ordering::Relaxed);
            self.wrote(key.len())?;
        }
        Ok(())
    }

    fn remove_prefix(&self, prefix: &str) -> Result<(), StoreError> {
        self.with(|tree| {
            for key in tree.scan_prefix(prefix).keys() {
                if tree.remove(key?)?.is_some() {
                    self.entries.fetch_sub(1, Ordering::Relaxed);
                }
            }
            Ok(())
        })
    }

    fn all(&self) -> Result<Vec<(String, String)>, StoreError> {
        let text = |bytes: ::sled::IVec| String::from_utf8_lossy(&bytes).into_owned();
        self.with(|tree| {
            tree.iter().map(|entry| entry.map(|(key, value)| (text(key), text(value)))).collect()
        })
    }

    fn put_if_absent(&self, key: &str, value: &str, max: usize) -> Result<Put, StoreError> {
        if self.with(|tree| tree.contains_key(key))? {
            return Ok(Put::Present);
        }
        if value.len() > VALUE_MAX_BYTES {
            return Ok(Put::Full);
        }
        if self.entries.fetch_add(1, Ordering::Relaxed) >= max {
            self.entries.fetch_sub(1, Ordering::Relaxed);
            return Ok(Put::Full);
        }
        let stored = self.with(|t| t.compare_and_swap(key, None::<&[u8]>, Some(value)));
        match stored {
            Ok(Ok(())) => {
                self.wrote(key.len() + value.len())?;
                Ok(Put::Stored)
            }
            other => {
                self.entries.fetch_sub(1, Ordering::Relaxed);
                other.map(|_| Put::Present)
            }
        }
    }
}
