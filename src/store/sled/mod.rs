//! The log and the policy state on sled: only this folder names sled.
//!
//! Trees: `journal` (event number, big-endian, to record), `snapshots` (the same), `cut` (records
//! of the last cut), `policy_state`. [`chunks`] says how records lie in them, [`files`] what makes
//! them last. sled 0.34 panics on some damaged files, takes the first
//! damaged byte for the end of its log, and refuses everything after a failed write. So calls are
//! guarded, [`super::head`] tells what must be there, and a failed log is opened again by the next
//! load.

mod chunks;
mod engine;
mod files;
mod policy;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ::sled::Batch;

use self::chunks::UNSYNCED_BYTES;
pub use self::engine::{Contents, OnFault};
use self::engine::{Engine, guarded};
use self::policy::PolicyTable;
use super::error::StoreError;
use super::journal::{Change, EventLog, OpenReport, check_continues};
use super::policy_state::PolicyStateStore;
use super::projection::Catalog;
use super::record;
use super::replay::{Replay, SnapshotOf, replay};
use crate::config::JournalConfig;

/// [`EventLog`] on sled.
pub struct SledLog {
    directory: PathBuf,
    config: JournalConfig,
    engine: Option<Engine>,
    table: Arc<PolicyTable>,
    last_appended: u64,
    /// A write or a sync failed or panicked: nothing is written before the engine is opened again
    /// and what the disk has is read and checked.
    failed: Option<String>,
    /// What opening it has read, until the first load or write.
    read: Option<Contents>,
}

impl SledLog {
    /// Opens or creates the store in `data_dir`; a torn tail is cut and reported.
    ///
    /// # Errors
    /// Every variant of [`StoreError`] that names the directory or an event; nothing has changed
    /// then.
    pub fn open(data_dir: &Path, config: &JournalConfig) -> Result<(Self, OpenReport), StoreError> {
        Self::open_with(data_dir, config, OnFault::Refuse)
    }

    /// As [`Self::open`]; with [`OnFault::Repair`] the journal is cut wherever its first fault is.
    pub fn open_with(
        data_dir: &Path,
        config: &JournalConfig,
        on_fault: OnFault,
    ) -> Result<(Self, OpenReport), StoreError> {
        let directory = engine::directory(data_dir);
        let (engine, policy) = Engine::open(&directory, config)?;
        let (report, read) = guarded(&directory, || engine.recover(on_fault))?;
        let table = Arc::new(PolicyTable::new(policy, &engine.files));
        let log = Self {
            directory,
            config: config.clone(),
            engine: Some(engine),
            table,
            last_appended: report.last_seq,
            failed: None,
            read: Some(read),
        };
        Ok((log, report))
    }

    /// Reads a store without changing it.
    ///
    /// # Errors
    /// `NotThere`, `InUse`, or what the engine or another release's record says.
    pub fn inspect(data_dir: &Path, config: &JournalConfig) -> Result<Contents, StoreError> {
        let directory = engine::directory(data_dir);
        let (engine, _) = Engine::open_existing(&directory, config)?;
        guarded(&directory, || engine.contents())
    }

    /// The policy state kept in the same store.
    #[must_use]
    pub fn policy_state(&self) -> PolicyStateStore {
        PolicyStateStore::new(self.table.clone(), self.config.policy_state_max_entries)
    }

    fn engine(&self) -> Result<&Engine, StoreError> {
        if let Some(reason) = &self.failed {
            return Err(StoreError::Failed { reason: reason.clone() });
        }
        let closed = || StoreError::Failed { reason: "it could not be opened again".to_owned() };
        self.engine.as_ref().ok_or_else(closed)
    }

    /// Runs a write; whatever ends it but success leaves the log failed, a panic too.
    fn write(&mut self, job: impl FnOnce(&Engine) -> ::sled::Result<()>) -> Result<(), StoreError> {
        self.engine()?;
        self.read = None;
        self.failed = Some("a write panicked".to_owned());
        if let Some(engine) = &self.engine {
            job(engine).map_err(|error| self.fail(error.to_string()))?;
        }
        self.failed = None;
        Ok(())
    }

    fn fail(&mut self, reason: String) -> StoreError {
        self.failed = Some(reason.clone());
        StoreError::Write { reason }
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.table.detach();
        self.engine = None;
        let (engine, policy) = Engine::open_existing(&self.directory, &self.config)?;
        self.table.attach(policy, &engine.files);
        self.engine = Some(engine);
        self.failed = None;
        Ok(())
    }
}

impl EventLog for SledLog {
    fn append(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.engine()?;
        self.engine()?.files.check_in_place()?;
        let last = check_continues(self.last_appended, changes)?;
        let (mut batches, mut bytes) = (vec![Batch::default()], 0);
        for change in changes {
            let records = record::encode_change(change)
                .map_err(|e| StoreError::NotWritten { reason: e.to_string() })?;
            let size: usize = records.iter().map(|(_, record)| record.len()).sum();
            if bytes > 0 && bytes + size > UNSYNCED_BYTES {
                batches.push(Batch::default());
                bytes = 0;
            }
            bytes += size;
            for (seq, record) in records {
                if let Some(batch) = batches.last_mut() {
                    chunks::insert(batch, seq, &record);
                }
            }
        }
        self.write(|engine| {
            let more = batches.len() - 1;
            for (at, batch) in batches.into_iter().enumerate() {
                engine.journal.apply_batch(batch)?;
                if at < more {
                    engine.sync()?;
                }
            }
            Ok(())
        })?;
        self.last_appended = last;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.table.dirty.store(false, Ordering::Relaxed);
        let seq = self.last_appended;
        self.write(Engine::sync)?;
        let engine = self.engine()?;
        // Or it is on the disk, and nobody will find it there.
        if let Err(gone) = engine.files.check_in_place() {
            return Err(self.fail(gone.to_string()));
        }
        engine.head.write(seq);
        Ok(())
    }

    fn load(&mut self, after: u64) -> Result<Replay, StoreError> {
        if self.failed.is_some() || self.engine.is_none() {
            self.reopen()?;
        }
        let read = self.read.take();
        let engine = self.engine()?;
        let replay = guarded(&self.directory, || {
            let contents = match read {
                Some(contents) => contents,
                None => engine.recover(OnFault::Refuse)?.1,
            };
            replay(&contents.snapshots, &contents.scan, after, u64::MAX)
        })?;
        self.last_appended = replay.seq;
        Ok(replay)
    }

    fn snapshot(&mut self, seq: u64, catalog: &Catalog) -> Result<(), StoreError> {
        self.engine()?.files.check_in_place()?;
        let bytes = record::encode(0, &SnapshotOf { seq, catalog })
            .map_err(|e| StoreError::NotWritten { reason: e.to_string() })?;
        let keep_events = self.config.keep_events;
        self.write(|engine| {
            engine.keep_snapshot(seq, &bytes)?;
            engine.compact(seq, keep_events)
        })
    }

    fn idle(&mut self) -> Result<(), StoreError> {
        if self.failed.is_some() || !self.table.dirty.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.flush()
    }
}

#[cfg(test)]
mod tests;
