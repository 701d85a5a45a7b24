//! What the trees hold, read from any thread while the journal's own thread writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::sled::Tree;
use parking_lot::{Mutex, RwLock};

use super::chunks;
use super::engine::{Contents, Engine, guarded};
use crate::store::error::StoreError;
use crate::store::event::Envelope;
use crate::store::history::Archive;
use crate::store::history::index::{Index, Mark};
use crate::store::record;
use crate::store::replay::Snapshot;
use crate::store::wal::Numbered;

/// Records read at a time.
const RUN_MAX: usize = 256;

/// See the module's text.
pub(super) struct SledArchive {
    directory: PathBuf,
    /// Exchanged when the engine is opened again, which waits for those who read: no change is
    /// taken meanwhile, and nobody else needs it.
    trees: RwLock<Option<Trees>>,
    /// In the write-ahead log, and not, or not only, in the engine. Like the index no lock is held
    /// while it is read, since whoever reads may be of low priority and every change needs them.
    recent: Mutex<Arc<Vec<Numbered>>>,
    index: RwLock<Arc<Index>>,
}

struct Trees {
    journal: Tree,
    snapshots: Tree,
}

impl Trees {
    fn of(engine: &Engine) -> Self {
        Self { journal: engine.journal.clone(), snapshots: engine.snapshots.clone() }
    }
}

impl SledArchive {
    pub(super) fn new(directory: &Path, engine: &Engine, recent: Vec<Numbered>) -> Self {
        Self {
            directory: directory.to_path_buf(),
            trees: RwLock::new(Some(Trees::of(engine))),
            recent: Mutex::new(Arc::new(recent)),
            index: RwLock::default(),
        }
    }

    /// Lets go of the trees, so that the engine can be closed; calls fail until [`Self::attach`].
    pub(super) fn detach(&self) {
        *self.trees.write() = None;
    }

    /// Takes the trees of a newly opened engine.
    pub(super) fn attach(&self, engine: &Engine) {
        *self.trees.write() = Some(Trees::of(engine));
    }

    /// Everything was read anew.
    pub(super) fn load(&self, contents: &Contents) {
        let base = contents.snapshots.last().map_or(0, |snapshot| snapshot.seq);
        let events = &contents.scan.events;
        let forgotten = events.first().map_or(base, |first| first.seq - 1);
        *self.recent.lock() = Arc::new(contents.unsettled.clone());
        *self.index.write() = Arc::new(Index::of(forgotten, events));
    }

    /// What only the write-ahead log has.
    pub(super) fn recent(&self) -> Arc<Vec<Numbered>> {
        Arc::clone(&self.recent.lock())
    }

    /// Bytes of that.
    pub(super) fn recent_bytes(&self) -> usize {
        chunks::bytes_of(&self.recent())
    }

    pub(super) fn keep_recent(&self, group: Vec<Numbered>) {
        Arc::make_mut(&mut self.recent.lock()).extend(group);
    }

    /// The engine has it: whoever looks into the log first and into the engine then finds it.
    pub(super) fn drop_recent(&self) {
        *self.recent.lock() = Arc::default();
    }

    /// These events are durable.
    pub(super) fn extend(&self, marks: Vec<Mark>) {
        Arc::make_mut(&mut self.index.write()).extend(marks);
    }

    /// What was forgotten before.
    pub(super) fn forget(&self, up_to: u64) -> u64 {
        let mut index = self.index.write();
        let before = index.forgotten();
        Arc::make_mut(&mut index).forget(up_to);
        before
    }

    /// As it is now: a change that comes while it is looked at is one of a copy.
    fn indexed(&self) -> Arc<Index> {
        Arc::clone(&self.index.read())
    }

    pub(super) fn by(&self, unix_ms: u64) -> u64 {
        self.indexed().by(unix_ms)
    }

    /// The records of events that follow each other, by number.
    fn run(&self, from: u64, to: u64) -> Result<BTreeMap<u64, Vec<u8>>, StoreError> {
        // Before the engine is looked at: what has left it meanwhile is there.
        let is_asked = |(seq, _): &&Numbered| (from..=to).contains(seq);
        let mut found: BTreeMap<u64, Vec<u8>> =
            self.recent().iter().filter(is_asked).cloned().collect();
        self.with(|trees| {
            for record in chunks::records(&trees.journal, from, to) {
                let (seq, record) = record?;
                found.insert(seq, record);
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn with<T>(&self, read: impl FnOnce(&Trees) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let open = self.trees.read();
        let failed = || StoreError::Read { reason: "the store is being opened again".to_owned() };
        let trees = open.as_ref().ok_or_else(failed)?;
        guarded(&self.directory, || read(trees))
    }

    fn not_kept(&self, seq: u64) -> StoreError {
        let index = self.indexed();
        StoreError::NotKept { seq, oldest: index.forgotten() + 1, newest: index.last() }
    }
}

impl Archive for SledArchive {
    fn events(&self, seqs: &[u64], bytes: usize) -> Result<Vec<Envelope>, StoreError> {
        let mut events = Vec::new();
        let (mut rest, mut used) = (seqs, 0);
        while let Some(first) = rest.first().copied().filter(|_| used < bytes) {
            let follows = |(at, seq): (u64, &u64)| first + at == *seq;
            let run = (0..).zip(rest).take(RUN_MAX).take_while(|pair| follows(*pair)).count();
            let (run, others) = rest.split_at(run);
            let mut found = self.run(first, first + run.len() as u64 - 1)?;
            for seq in run {
                let bytes_of_one = found.remove(seq).ok_or_else(|| self.not_kept(*seq))?;
                let record = record::decode::<Envelope>(&bytes_of_one);
                let unreadable = |error: record::RecordError| StoreError::Read {
                    reason: format!("event {seq}: {error}"),
                };
                events.push(record.map_err(unreadable)?.value);
                used += bytes_of_one.len();
                if used >= bytes {
                    break;
                }
            }
            rest = others;
        }
        Ok(events)
    }

    fn checkpoint(&self, seq: u64) -> Result<Option<Snapshot>, StoreError> {
        self.with(|trees| {
            for key in trees.snapshots.range(..=seq.to_be_bytes()).keys().rev() {
                let key = key.map_err(|error| StoreError::Read { reason: error.to_string() })?;
                let Some(at) = chunks::first_of(&key) else { continue };
                let record = chunks::records(&trees.snapshots, at, at).next();
                let Some((_, bytes)) = record.transpose()? else { continue };
                // A damaged one is passed over, as at a start.
                if let Ok(record) = record::decode::<Snapshot>(&bytes)
                    && record.value.seq == at
                {
                    return Ok(Some(record.value));
                }
            }
            Ok(None)
        })
    }

    fn records(&self, from: u64, to: u64) -> Result<Vec<Numbered>, StoreError> {
        let mut found = self.run(from, to)?;
        let record = |seq| Ok((seq, found.remove(&seq).ok_or_else(|| self.not_kept(seq))?));
        (from..=to).map(record).collect()
    }

    fn checkpoints(&self) -> Result<Vec<u64>, StoreError> {
        self.with(|trees| {
            let failed = |error: ::sled::Error| StoreError::Read { reason: error.to_string() };
            let keys = trees.snapshots.iter().keys();
            let seqs = keys.filter_map(|key| key.map(|key| chunks::first_of(&key)).transpose());
            seqs.collect::<Result<_, _>>().map_err(failed)
        })
    }

    fn index(&self, look: &mut dyn FnMut(&Index)) {
        look(&self.indexed());
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
