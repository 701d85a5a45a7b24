//! Policy state in a tree of its own.

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ::sled::{Batch, IVec, Tree};
use parking_lot::{Mutex, RwLock};

use super::chunks::UNSYNCED_BYTES;
use super::files::Files;

use crate::store::error::StoreError;
use crate::store::journal::panic_text;
use crate::store::policy_state::{Put, SoftTable};

/// A longer value lies in pieces: else it would make a page that sled does not write inline (see
/// [`super::chunks`]). They follow the first, whose key is theirs up to this byte, which no key
/// has.
const PIECE_BYTES: usize = 4096;
const PIECE_MARK: u8 = 0;

fn is_first(key: &[u8]) -> bool {
    !key.contains(&PIECE_MARK)
}

/// The key of a value's piece.
fn piece_key(key: &str, index: u32) -> Vec<u8> {
    let mut name = key.as_bytes().to_vec();
    if index > 0 {
        name.push(PIECE_MARK);
        name.extend(index.to_be_bytes());
    }
    name
}

/// Whether it is the key of a further piece of the value whose first one has this key.
fn is_of(key: &[u8], first: &[u8]) -> bool {
    key.strip_prefix(first).is_some_and(|rest| rest.first() == Some(&PIECE_MARK))
}

/// The keys of a value's further pieces that are there.
fn further(tree: &Tree, key: &str) -> impl Iterator<Item = ::sled::Result<(IVec, IVec)>> + use<> {
    let mut prefix = key.as_bytes().to_vec();
    prefix.push(PIECE_MARK);
    tree.scan_prefix(prefix)
}

/// What makes `value` that of `key`, whatever it was.
fn replacing(tree: &Tree, key: &str, value: &str) -> ::sled::Result<Batch> {
    let mut batch = Batch::default();
    for entry in further(tree, key) {
        batch.remove(entry?.0);
    }
    if value.is_empty() {
        batch.insert(key, "");
    }
    for (piece, index) in value.as_bytes().chunks(PIECE_BYTES).zip(0_u32..) {
        batch.insert(piece_key(key, index), piece);
    }
    Ok(batch)
}

/// The policy state's tree, exchanged when the engine is opened again.
pub(super) struct PolicyTable {
    tree: RwLock<Option<(Tree, Files)>>,
    entries: AtomicUsize,
    /// Bytes written since the last sync; more than 0 after one that failed.
    unsynced: AtomicUsize,
    /// Held by who syncs: what is written is on the disk once that has ended, not before.
    syncing: Mutex<()>,
    /// Something has been stored that neither a flush of this table nor the journal has synced.
    pub(super) dirty: AtomicBool,
}

impl PolicyTable {
    pub(super) fn new(tree: Tree, files: &Files) -> Self {
        Self {
            entries: AtomicUsize::new(count(&tree)),
            tree: RwLock::new(Some((tree, files.clone()))),
            unsynced: AtomicUsize::new(0),
            syncing: Mutex::new(()),
            dirty: AtomicBool::new(false),
        }
    }

    /// Lets go of the tree, so that the engine can be closed; calls fail until [`Self::attach`].
    pub(super) fn detach(&self) {
        *self.tree.write() = None;
    }

    /// Takes the tree of a newly opened engine.
    pub(super) fn attach(&self, tree: Tree, files: &Files) {
        self.entries.store(count(&tree), Ordering::Relaxed);
        *self.tree.write() = Some((tree, files.clone()));
    }

    /// Notes that something is stored, and syncs before it is too much.
    fn wrote(&self, bytes: usize) -> Result<(), StoreError> {
        self.dirty.store(true, Ordering::Relaxed);
        if self.unsynced.fetch_add(bytes, Ordering::Relaxed) + bytes < UNSYNCED_BYTES {
            return Ok(());
        }
        let _alone = self.syncing.lock();
        self.sync()
    }

    /// The caller holds `syncing`.
    fn sync(&self) -> Result<(), StoreError> {
        // Before: what is written meanwhile needs another one.
        self.unsynced.store(0, Ordering::Relaxed);
        self.dirty.store(false, Ordering::Relaxed);
        let synced = self.with_files(|tree, files| {
            tree.flush()?;
            Ok(files.sync()?)
        });
        if synced.is_err() {
            // The values are in the tree, so that nobody who stores them again writes anything.
            self.unsynced.fetch_add(1, Ordering::Relaxed);
            self.dirty.store(true, Ordering::Relaxed);
        }
        synced
    }

    /// Room for one more entry, if there is any.
    fn enter(&self, max: usize) -> bool {
        let is_room = self.entries.fetch_add(1, Ordering::Relaxed) < max;
        if !is_room {
            self.entries.fetch_sub(1, Ordering::Relaxed);
        }
        is_room
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

/// Values in a tree.
fn count(tree: &Tree) -> usize {
    tree.iter().keys().filter(|key| key.as_ref().is_ok_and(|key| is_first(key))).count()
}

impl SoftTable for PolicyTable {
    fn get(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.with(|tree| {
            let Some(first) = tree.get(key)? else { return Ok(None) };
            let mut value = first.to_vec();
            if first.len() == PIECE_BYTES {
                for entry in further(tree, key) {
                    value.extend_from_slice(&entry?.1);
                }
            }
            Ok(Some(String::from_utf8_lossy(&value).into_owned()))
        })
    }

    fn put(&self, key: &str, value: &str, max: usize) -> Result<Put, StoreError> {
        let before = self.get(key)?;
        if before.as_deref() == Some(value) {
            return Ok(Put::Present);
        }
        if before.is_none() && !self.enter(max) {
            return Ok(Put::Full);
        }
        let lengths = [value.len(), before.as_ref().map_or(0, String::len)];
        self.with(|tree| {
            // Nearly all are short, and nobody looks for further pieces of those.
            if lengths.iter().all(|length| *length < PIECE_BYTES) {
                return tree.insert(key, value).map(drop);
            }
            tree.apply_batch(replacing(tree, key, value)?)
        })?;
        self.wrote(key.len() + value.len())?;
        Ok(if before.is_none() { Put::Stored } else { Put::Present })
    }

    fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    fn remove(&self, key: &str) -> Result<(), StoreError> {
        let was_there = self.with(|tree| {
            let mut batch = Batch::default();
            for entry in further(tree, key) {
                batch.remove(entry?.0);
            }
            batch.remove(key);
            let was_there = tree.contains_key(key)?;
            tree.apply_batch(batch)?;
            Ok(was_there)
        })?;
        if was_there {
            self.entries.fetch_sub(1, Ordering::Relaxed);
            self.wrote(key.len())?;
        }
        Ok(())
    }

    fn remove_prefix(&self, prefix: &str) -> Result<(), StoreError> {
        let removed = self.with(|tree| {
            let mut removed = 0;
            // In order: a value whose first piece is there is whole.
            for key in tree.scan_prefix(prefix).keys() {
                let key = key?;
                if tree.remove(&key)?.is_some() {
                    removed += key.len();
                    if is_first(&key) {
                        self.entries.fetch_sub(1, Ordering::Relaxed);
                    }
                }
            }
            Ok(removed)
        })?;
        if removed == 0 { Ok(()) } else { self.wrote(removed) }
    }

    fn page(&self, after: Option<&str>, bytes: usize) -> Result<Vec<(String, String)>, StoreError> {
        self.with(|tree| {
            let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_bytes()));
            let mut page: Vec<(IVec, Vec<u8>)> = Vec::new();
            let mut left = bytes;
            for entry in tree.range::<&[u8], _>((from, Bound::Unbounded)) {
                let (key, piece) = entry?;
                if !is_first(&key) {
                    // Of one before, or what a crash has left of one.
                    if let Some((first, value)) = page.last_mut()
                        && is_of(&key, first)
                        && !value.is_empty()
                        && value.len().is_multiple_of(PIECE_BYTES)
                    {
                        value.extend_from_slice(&piece);
                    }
                    continue;
                }
                let used = page.last().map_or(0, |(key, value)| key.len() + value.len());
                left = left.saturating_sub(used);
                if left == 0 && !page.is_empty() {
                    break;
                }
                page.push((key, piece.to_vec()));
            }
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok(page.into_iter().map(|(key, value)| (text(&key), text(&value))).collect())
        })
    }

    fn each(&self, visit: &mut dyn FnMut(&str, &str)) -> Result<(), StoreError> {
        self.with(|tree| {
            let mut latest: Option<(IVec, Vec<u8>)> = None;
            let mut tell = |entry: Option<(IVec, Vec<u8>)>| {
                if let Some((key, value)) = entry {
                    visit(&String::from_utf8_lossy(&key), &String::from_utf8_lossy(&value));
                }
            };
            for entry in tree {
                let (key, piece) = entry?;
                match &mut latest {
                    Some((first, value))
                        if is_of(&key, first)
                            && !value.is_empty()
                            && value.len().is_multiple_of(PIECE_BYTES) =>
                    {
                        value.extend_from_slice(&piece);
                    }
                    // Its first piece went in a crash.
                    _ if !is_first(&key) => {}
                    _ => tell(latest.replace((key, piece.to_vec()))),
                }
            }
            tell(latest);
            Ok(())
        })
    }

    fn flush(&self) -> Result<(), StoreError> {
        let _alone = self.syncing.lock();
        if self.unsynced.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        self.sync()
    }

    fn put_if_absent(&self, key: &str, value: &str, max: usize) -> Result<Put, StoreError> {
        if self.with(|tree| tree.contains_key(key))? {
            return Ok(Put::Present);
        }
        self.put(key, value, max)
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
