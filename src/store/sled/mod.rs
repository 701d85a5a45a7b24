//! The log and the policy state on sled: only this folder names sled.
//!
//! Trees: `journal` (event number, big-endian, to record), `snapshots` (the same), `cut` (records
//! of the last cut), `policy_state`. [`chunks`] says how records lie in them, [`files`] what makes
//! them last. New records go to [`super::wal`] first, and to sled when they are as many as sled may
//! write between two syncs, or when nothing else is to do. sled 0.34 panics on some damaged files,
//! takes the first damaged byte for the end of its log, and refuses all after a failed write.
//! So calls are guarded, [`super::head`] tells what must be there, and a failed log is opened again
//! by the next load.

mod archive;
mod chunks;
mod engine;
mod files;
mod policy;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use self::archive::SledArchive;
use self::chunks::{UNSYNCED_BYTES, bytes_of};
pub(in crate::store) use self::engine::DIRECTORY;
pub use self::engine::{Contents, OnFault};
use self::engine::{Engine, guarded};
use self::policy::PolicyTable;
use super::error::StoreError;
use super::history::Archive;
use super::history::index::Mark;
use super::journal::{Change, EventLog, OpenReport, check_continues};
use super::logged_states::LoggedStates;
use super::policy_state::PolicyStateStore;
use super::projection::Catalog;
use super::record::{self, RecordError};
use super::replay::{Replay, SnapshotOf, replay};
use super::wal::Numbered;
use clipper_clock as clock;
use clipper_config::JournalConfig;

const DAY_MS: u64 = 86_400_000;

/// [`EventLog`] on sled.
pub struct SledLog {
    directory: PathBuf,
    config: JournalConfig,
    engine: Option<Engine>,
    table: Arc<PolicyTable>,
    logged: Option<Arc<LoggedStates>>,
    last_appended: u64,
    /// Appended, to be written at the next flush.
    appended: Flushed,
    /// What of them is looked for.
    marks: Vec<Mark>,
    archive: Arc<SledArchive>,
    /// A write or a sync failed or panicked: nothing is written before the engine is opened again
    /// and what the disk has is read and checked.
    failed: Option<String>,
    /// What opening it has read, until the first load or write.
    read: Option<Contents>,
}

/// What a flush has to do.
enum Flushed {
    Nothing,
    /// A group for the write-ahead log.
    Group(Vec<Numbered>),
    /// More than that has room for: it is in the engine, not synced.
    InEngine,
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
        let archive = Arc::new(SledArchive::new(&directory, &engine, read.unsettled.clone()));
        let log = Self {
            directory,
            config: config.clone(),
            engine: Some(engine),
            table,
            logged: None,
            last_appended: report.last_seq,
            appended: Flushed::Nothing,
            marks: Vec::new(),
            archive,
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
        guarded(&directory, || engine.contents(usize::MAX))
    }

    /// The journal's past, for any thread. It knows nothing before the first load.
    #[must_use]
    pub fn archive(&self) -> Arc<dyn Archive> {
        Arc::<SledArchive>::clone(&self.archive)
    }

    /// Begins an empty journal with the state after event `seq`, as a snapshot's record has it.
    ///
    /// # Errors
    /// `NotWritten` if it is not empty, or the engine's.
    pub fn begin_at(&mut self, seq: u64, record: &[u8]) -> Result<(), StoreError> {
        if self.last_appended > 0 {
            return Err(StoreError::NotWritten { reason: "the journal is not empty".to_owned() });
        }
        self.write(|engine| {
            engine.keep_snapshot(seq, record)?;
            Ok(engine.head.write_now(seq)?)
        })?;
        self.last_appended = seq;
        Ok(())
    }

    /// The policy state kept in the same store.
    #[must_use]
    pub fn policy_state(&self) -> PolicyStateStore {
        let config = &self.config;
        let (entries, bytes) = (config.policy_state_max_entries, config.policy_state_max_bytes);
        PolicyStateStore::new(self.table.clone(), entries, bytes)
    }

    /// The same, with a log before it for what feedback changes.
    ///
    /// # Errors
    /// That of the log.
    pub fn logged_policy_state(&mut self) -> Result<PolicyStateStore, StoreError> {
        let config = &self.config;
        let (entries, bytes) = (config.policy_state_max_entries, config.policy_state_max_bytes);
        let logged = Arc::new(LoggedStates::open(self.table.clone(), &self.directory)?);
        self.logged = Some(Arc::clone(&logged));
        Ok(PolicyStateStore::new(logged, entries, bytes))
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

    /// The last event that need not be kept, if `newest` is the newest.
    fn forgettable(&self, newest: u64) -> u64 {
        let by_number = newest.saturating_sub(self.config.keep_events);
        match self.config.keep_days {
            0 => by_number,
            days => {
                let since_ms = clock::unix_millis().saturating_sub(days.saturating_mul(DAY_MS));
                by_number.min(self.archive.by(since_ms))
            }
        }
    }

    fn fail(&mut self, reason: String) -> StoreError {
        self.failed = Some(reason.clone());
        StoreError::Write { reason }
    }

    /// Takes what only the write-ahead log has into the engine, and syncs that: policy state too.
    fn settle(&mut self) -> Result<(), StoreError> {
        self.table.dirty.store(false, Ordering::Relaxed);
        let recent = self.archive.recent();
        self.write(|engine| {
            engine.store([recent.to_vec()])?;
            engine.sync()?;
            engine.wal.begin_again();
            Ok(())
        })?;
        self.archive.drop_recent();
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.table.detach();
        self.archive.detach();
        self.engine = None;
        // The files have it.
        self.archive.drop_recent();
        self.marks.clear();
        self.appended = Flushed::Nothing;
        let (engine, policy) = Engine::open_existing(&self.directory, &self.config)?;
        self.table.attach(policy, &engine.files);
        self.archive.attach(&engine);
        self.engine = Some(engine);
        self.failed = None;
        Ok(())
    }
}

impl EventLog for SledLog {
    fn append(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.engine()?.check_in_place()?;
        let last = check_continues(self.last_appended, changes)?;
        let not_written = |e: RecordError| StoreError::NotWritten { reason: e.to_string() };
        let records: Vec<Vec<Numbered>> = changes
            .iter()
            .map(|c| record::encode_change(c))
            .collect::<Result<_, _>>()
            .map_err(not_written)?;
        let group = records.concat();
        let has_room = |log: &Self| {
            let fits = log.engine.as_ref().is_some_and(|engine| engine.wal.has_room_for(&group));
            fits && log.archive.recent_bytes() + bytes_of(&group) <= UNSYNCED_BYTES
        };
        if !matches!(self.appended, Flushed::Nothing) {
            self.flush()?;
        }
        if !has_room(self) {
            self.settle()?;
        }
        if has_room(self) {
            self.read = None;
            self.appended = Flushed::Group(group);
        } else {
            self.write(|engine| engine.store(records))?;
            self.appended = Flushed::InEngine;
        }
        self.last_appended = last;
        self.marks = changes.iter().flatten().map(Mark::of).collect();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let seq = self.last_appended;
        match std::mem::replace(&mut self.appended, Flushed::Nothing) {
            Flushed::Nothing => return self.engine().map(|_| ()),
            Flushed::Group(group) => {
                self.write(|engine| engine.keep_recent(&group))?;
                self.archive.keep_recent(group);
            }
            Flushed::InEngine => self.settle()?,
        }
        let engine = self.engine()?;
        // Or it is on the disk, and nobody will find it there.
        if let Err(gone) = engine.check_in_place() {
            return Err(self.fail(gone.to_string()));
        }
        engine.head.write(seq);
        self.archive.extend(std::mem::take(&mut self.marks));
        Ok(())
    }

    fn load(&mut self, after: u64) -> Result<Replay, StoreError> {
        if self.failed.is_some() || self.engine.is_none() {
            self.reopen()?;
        }
        let read = self.read.take();
        let engine = self.engine()?;
        let contents = match read {
            Some(contents) => Ok(contents),
            None => guarded(&self.directory, || engine.recover(OnFault::Refuse)).map(|read| read.1),
        };
        // What the engine has in memory then need not be on the disk.
        let contents = contents.inspect_err(|error| self.failed = Some(error.to_string()))?;
        let replay = replay(&contents.snapshots, &contents.scan, after, u64::MAX)?;
        self.archive.load(&contents);
        self.last_appended = replay.seq;
        Ok(replay)
    }

    fn snapshot(&mut self, seq: u64, catalog: &Catalog) -> Result<(), StoreError> {
        self.engine()?.check_in_place()?;
        self.settle()?;
        let bytes = record::encode(0, &SnapshotOf { seq, catalog })
            .map_err(|e| StoreError::NotWritten { reason: e.to_string() })?;
        let wanted = self.forgettable(seq);
        let (max, mut gone) = (self.config.checkpoints_max, 0);
        self.write(|engine| {
            engine.keep_snapshot(seq, &bytes)?;
            gone = engine.compact(wanted, max)?;
            Ok(())
        })?;
        let before = self.archive.forget(gone);
        if gone > before {
            let (from, to) = (before + 1, gone);
            tracing::info!(from, to, "events of the journal are not kept any more");
        }
        Ok(())
    }

    fn idle(&mut self) -> Result<(), StoreError> {
        let is_settled =
            self.archive.recent_bytes() == 0 && !self.table.dirty.load(Ordering::Relaxed);
        if self.failed.is_some() || is_settled { Ok(()) } else { self.settle() }
    }

    fn close(&mut self) -> Result<(), StoreError> {
        if let Some(logged) = &self.logged {
            logged.settle_all()?;
        }
        self.flush()?;
        self.settle()?;
        // A release that does not know the file finds everything in the engine.
        self.write(Engine::empty_recent)
    }
}

#[cfg(test)]
mod tests;
