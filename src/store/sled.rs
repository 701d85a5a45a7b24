//! The log and the policy state on sled: the only file that names sled.
//!
//! Trees: `journal` (event number, big-endian, to record), `snapshots` (the same), `cut` (records of the last
//! cut), `policy_state`. sled 0.34 panics on some damaged files and refuses everything after a failed write;
//! so opening is guarded, and a failed log is opened again by the next load.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::RwLock;
use sled::{Batch, Db, IVec, Tree};

use super::error::StoreError;
use super::event::Event;
use super::journal::{Change, Cut, EventLog, OpenReport, panic_text};
use super::policy_state::{PolicyStateStore, Put, SoftTable, prefix};
use super::projection::Catalog;
use super::record::{self, RecordError, VERSION};
use super::replay::{Replay, Snapshot, replay};
use super::scan::{Fault, Scan, scan};
use crate::config::JournalConfig;

/// The store's directory within the data directory.
const DIRECTORY: &str = "journal";
/// sled's data file within it.
const DATA_FILE: &str = "db";
/// Snapshots kept: if the newest is damaged, the one before serves.
const SNAPSHOTS_KEPT: usize = 2;
/// sled lets go of its lock a moment after the last handle is dropped.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// What to do about a journal with a fault that is not a torn tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFault {
    /// Answer an error and change nothing.
    Refuse,
    /// Cut the journal at the fault: the operator's decision.
    Repair,
}

/// Everything a store holds, unchanged.
#[derive(Debug)]
pub struct Contents {
    /// Good snapshots, ascending.
    pub snapshots: Vec<Snapshot>,
    /// Damaged snapshots.
    pub bad_snapshots: Vec<u64>,
    /// The events and the first fault.
    pub scan: Scan,
    records: Vec<(IVec, IVec)>,
}

struct Engine {
    db: Db,
    journal: Tree,
    snapshots: Tree,
    cut: Tree,
}

/// [`EventLog`] on sled.
pub struct SledLog {
    directory: PathBuf,
    config: JournalConfig,
    engine: Option<Engine>,
    table: Arc<PolicyTable>,
    /// A write failed or panicked: the engine has to be opened again before anything else.
    failed: bool,
}

impl SledLog {
    /// Opens or creates the store in `data_dir`; a torn tail is cut and reported.
    ///
    /// # Errors
    /// Every variant of [`StoreError`] that names the directory or an event; nothing has changed then.
    pub fn open(data_dir: &Path, config: &JournalConfig) -> Result<(Self, OpenReport), StoreError> {
        Self::open_with(data_dir, config, OnFault::Refuse)
    }

    /// As [`Self::open`]; with [`OnFault::Repair`] the journal is cut wherever its first fault is.
    pub fn open_with(
        data_dir: &Path,
        config: &JournalConfig,
        on_fault: OnFault,
    ) -> Result<(Self, OpenReport), StoreError> {
        let directory = data_dir.join(DIRECTORY);
        let (engine, policy) = Engine::open(&directory, config)?;
        let report = guarded(&directory, || engine.recover(on_fault))?;
        let table = Arc::new(PolicyTable {
            entries: AtomicUsize::new(policy.len()),
            tree: RwLock::new(Some(policy)),
            dirty: AtomicBool::new(false),
        });
        let config = config.clone();
        Ok((Self { directory, config, engine: Some(engine), table, failed: false }, report))
    }

    /// Reads a store without changing it.
    ///
    /// # Errors
    /// `NotThere`, `InUse`, or what the engine or another release's record says.
    pub fn inspect(data_dir: &Path, config: &JournalConfig) -> Result<Contents, StoreError> {
        let directory = data_dir.join(DIRECTORY);
        if !directory.join(DATA_FILE).is_file() {
            return Err(StoreError::NotThere { path: directory });
        }
        let (engine, _) = Engine::open(&directory, config)?;
        guarded(&directory, || engine.contents())
    }

    /// The policy state kept in the same store.
    #[must_use]
    pub fn policy_state(&self) -> PolicyStateStore {
        PolicyStateStore::new(self.table.clone(), self.config.policy_state_max_entries)
    }

    fn engine(&self) -> Result<&Engine, StoreError> {
        let closed = || StoreError::NotWritten { reason: "the store has failed".to_owned() };
        self.engine.as_ref().filter(|_| !self.failed).ok_or_else(closed)
    }

    /// Runs a write; whatever ends it but success leaves the log failed, a panic too.
    fn write(&mut self, job: impl FnOnce(&Engine) -> sled::Result<()>) -> Result<(), StoreError> {
        self.engine()?;
        self.failed = true;
        if let Some(engine) = &self.engine {
            job(engine).map_err(|e| StoreError::Write { reason: e.to_string() })?;
        }
        self.failed = false;
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        *self.table.tree.write() = None;
        self.engine = None;
        let (engine, policy) = Engine::open(&self.directory, &self.config)?;
        self.table.entries.store(policy.len(), Ordering::Relaxed);
        *self.table.tree.write() = Some(policy);
        self.engine = Some(engine);
        self.failed = false;
        Ok(())
    }
}

impl EventLog for SledLog {
    fn append(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let mut deleted_apps = Vec::new();
        for change in changes {
            let records = record::encode_change(change)
                .map_err(|e| StoreError::NotWritten { reason: e.to_string() })?;
            for (seq, bytes) in records {
                batch.insert(&seq.to_be_bytes(), bytes);
            }
            deleted_apps.extend(change.iter().filter_map(|e| match &e.event {
                Event::AppDeleted { name } => Some(name.clone()),
                _ => None,
            }));
        }
        self.write(|engine| engine.journal.apply_batch(batch))?;
        for app in deleted_apps {
            if let Err(error) = self.table.remove_prefix(&prefix(&app)) {
                tracing::warn!(%app, %error, "policy state of a deleted application stays");
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.table.dirty.store(false, Ordering::Relaxed);
        self.write(|engine| engine.db.flush().map(drop))
    }

    fn load(&mut self, after: u64) -> Result<Replay, StoreError> {
        if self.failed || self.engine.is_none() {
            self.reopen()?;
        }
        let engine = self.engine()?;
        guarded(&self.directory, || {
            engine.recover(OnFault::Refuse)?;
            let contents = engine.contents()?;
            replay(&contents.snapshots, &contents.scan, after, u64::MAX)
        })
    }

    fn snapshot(&mut self, seq: u64, catalog: &Catalog) -> Result<(), StoreError> {
        let snapshot = Snapshot { seq, catalog: catalog.clone() };
        let bytes = record::encode(0, &snapshot)
            .map_err(|e| StoreError::NotWritten { reason: e.to_string() })?;
        let keep_events = self.config.keep_events;
        self.write(|engine| {
            engine.snapshots.insert(seq.to_be_bytes(), bytes)?;
            engine.db.flush()?;
            engine.compact(seq, keep_events)
        })
    }

    fn idle(&mut self) -> Result<(), StoreError> {
        if self.failed || !self.table.dirty.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.flush()
    }
}

impl Engine {
    fn open(directory: &Path, config: &JournalConfig) -> Result<(Self, Tree), StoreError> {
        let not_open = |e: std::io::Error| StoreError::Open {
            path: directory.to_path_buf(),
            reason: e.to_string(),
        };
        fs::create_dir_all(directory).map_err(not_open)?;
        let mut tries = 0;
        let opened = loop {
            match guarded(directory, || Self::open_once(directory, config)) {
                Err(StoreError::InUse { .. }) if tries < LOCK_TRIES => {
                    tries += 1;
                    thread::park_timeout(LOCK_PAUSE);
                }
                result => break result?,
            }
        };
        // What a killed process wrote but did not flush is served from now on, so it must last; and sled
        // does not sync the directory entries of the files it creates.
        let sync = |path: &Path| File::open(path).and_then(|f| f.sync_all()).map_err(not_open);
        sync(&directory.join(DATA_FILE))?;
        sync(directory)?;
        directory.parent().map_or(Ok(()), sync)?;
        Ok(opened)
    }

    fn open_once(directory: &Path, config: &JournalConfig) -> Result<(Self, Tree), StoreError> {
        let trees = || {
            let db = sled::Config::new()
                .path(directory)
                .cache_capacity(config.page_cache_bytes)
                .flush_every_ms(None)
                .open()?;
            let journal = db.open_tree("journal")?;
            let snapshots = db.open_tree("snapshots")?;
            let cut = db.open_tree("cut")?;
            let policy = db.open_tree("policy_state")?;
            Ok((Self { db, journal, snapshots, cut }, policy))
        };
        trees().map_err(|e| open_error(directory, &e))
    }

    /// Reads and checks everything.
    fn contents(&self) -> Result<Contents, StoreError> {
        let mut snapshots = Vec::new();
        let mut bad_snapshots = Vec::new();
        for (key, value) in read(&self.snapshots)? {
            let seq = <[u8; 8]>::try_from(key.as_ref()).map_or(0, u64::from_be_bytes);
            match record::decode::<Snapshot>(&value) {
                Ok(record) if record.value.seq == seq => snapshots.push(record.value),
                Err(RecordError::Newer(found)) => {
                    return Err(StoreError::NewerFormat { seq, found, known: VERSION });
                }
                Err(RecordError::NotUnderstood(reason)) => {
                    return Err(StoreError::NotUnderstood { seq, reason });
                }
                Ok(_) | Err(_) => bad_snapshots.push(seq),
            }
        }
        let records = read(&self.journal)?;
        Ok(Contents { snapshots, bad_snapshots, scan: scan(&records)?, records })
    }

    /// Cuts a torn tail, or with `Repair` everything from the first fault; refuses other damage.
    fn recover(&self, on_fault: OnFault) -> Result<OpenReport, StoreError> {
        let contents = self.contents()?;
        let base = contents.snapshots.last().map_or(0, |s| s.seq);
        let cut = match &contents.scan.fault {
            Some(Fault { seq, offset, reason, last_valid: Some(last_valid), .. })
                if on_fault == OnFault::Refuse =>
            {
                let (seq, offset, last_valid) = (*seq, *offset, *last_valid);
                return Err(StoreError::Corrupt {
                    seq,
                    offset,
                    reason: reason.clone(),
                    last_valid,
                });
            }
            // The snapshot is ahead of the fault: the history before it would leave a gap.
            Some(fault) if fault.seq <= base => {
                let reason = format!("{}; the snapshot of event {base} goes on", fault.reason);
                Some(self.cut(&contents, 0, reason)?)
            }
            Some(fault) => {
                let from = contents.records.len() - fault.records;
                Some(self.cut(&contents, from, fault.reason.clone())?)
            }
            None => match replay(&contents.snapshots, &contents.scan, u64::MAX, u64::MAX) {
                Err(StoreError::Missing { from, to }) if on_fault == OnFault::Repair => {
                    let reason = format!("events {from} to {to} are missing");
                    Some(self.cut(&contents, 0, reason)?)
                }
                Err(error) => return Err(error),
                Ok(_) => None,
            },
        };
        let contents = if cut.is_some() { self.contents()? } else { contents };
        let replay = replay(&contents.snapshots, &contents.scan, u64::MAX, u64::MAX)?;
        let bad_snapshots = contents.bad_snapshots;
        if !bad_snapshots.is_empty() {
            tracing::warn!(?bad_snapshots, "damaged snapshots of the journal were passed over");
        }
        Ok(OpenReport { last_seq: replay.seq, snapshot_seq: base, bad_snapshots, cut })
    }

    /// Moves the records from index `from` on into the `cut` tree, which then holds this cut alone.
    fn cut(&self, contents: &Contents, from: usize, reason: String) -> Result<Cut, StoreError> {
        let records = contents.records.get(from..).unwrap_or_default();
        let (mut copies, mut removals) = (Batch::default(), Batch::default());
        for (key, value) in records {
            copies.insert(key, value);
            removals.remove(key);
        }
        let moved = || {
            self.cut.clear()?;
            self.cut.apply_batch(copies)?;
            self.db.flush()?;
            self.journal.apply_batch(removals)?;
            self.db.flush().map(drop)
        };
        moved().map_err(|e: sled::Error| StoreError::Write { reason: e.to_string() })?;
        let size = |records: &[(IVec, IVec)]| records.iter().map(|(_, v)| v.len() as u64).sum();
        let before = contents.records.get(..from).unwrap_or_default();
        let seq = match (&contents.scan.fault, records.first()) {
            (Some(fault), _) if from > 0 => fault.seq,
            (_, Some((key, _))) => <[u8; 8]>::try_from(&**key).map_or(0, u64::from_be_bytes),
            _ => 0,
        };
        let cut =
            Cut { seq, offset: size(before), reason, records: records.len(), bytes: size(records) };
        tracing::warn!(
            seq,
            offset = cut.offset,
            records = cut.records,
            bytes = cut.bytes,
            reason = cut.reason,
            "the journal's tail was not whole and has been cut"
        );
        Ok(cut)
    }

    /// Drops old snapshots, and events that neither a kept snapshot nor `keep_events` needs.
    fn compact(&self, newest: u64, keep_events: u64) -> sled::Result<()> {
        let mut kept = Vec::new();
        for entry in self.snapshots.iter().keys().rev() {
            let key = entry?;
            if kept.len() < SNAPSHOTS_KEPT {
                kept.push(key);
            } else {
                self.snapshots.remove(key)?;
            }
        }
        let oldest_kept = kept.get(SNAPSHOTS_KEPT - 1).and_then(|k| <[u8; 8]>::try_from(&**k).ok());
        let Some(oldest_kept) = oldest_kept.map(u64::from_be_bytes) else {
            return Ok(());
        };
        let last_dropped = newest.saturating_sub(keep_events).min(oldest_kept);
        let mut removals = Batch::default();
        for key in self.journal.range(..=last_dropped.to_be_bytes()).keys() {
            removals.remove(key?);
        }
        self.journal.apply_batch(removals)
    }
}

fn read(tree: &Tree) -> Result<Vec<(IVec, IVec)>, StoreError> {
    tree.iter().collect::<Result<_, _>>().map_err(|e| StoreError::Read { reason: e.to_string() })
}

fn open_error(directory: &Path, error: &sled::Error) -> StoreError {
    let path = directory.to_path_buf();
    match error {
        sled::Error::Io(io) if io.to_string().starts_with("could not acquire lock") => {
            StoreError::InUse { path }
        }
        sled::Error::Io(io)
            if !matches!(io.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) =>
        {
            StoreError::Open { path, reason: io.to_string() }
        }
        other => StoreError::EngineDamaged { path, reason: other.to_string() },
    }
}

/// Turns a panic of the engine into an error.
fn guarded<T>(
    directory: &Path,
    job: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| {
        let reason = format!("the engine panicked: {}", panic_text(&*panic));
        Err(StoreError::EngineDamaged { path: directory.to_path_buf(), reason })
    })
}

/// The policy state's tree, exchanged when the engine is opened again.
struct PolicyTable {
    tree: RwLock<Option<Tree>>,
    entries: AtomicUsize,
    dirty: AtomicBool,
}

impl PolicyTable {
    fn with<T>(&self, job: impl FnOnce(&Tree) -> sled::Result<T>) -> Result<T, StoreError> {
        let failed = |e: &str| StoreError::Write { reason: e.to_owned() };
        let tree = self.tree.read();
        let tree = tree.as_ref().ok_or_else(|| failed("the store has failed"))?;
        match catch_unwind(AssertUnwindSafe(|| job(tree))) {
            Ok(result) => result.map_err(|e| failed(&e.to_string())),
            Err(panic) => Err(failed(panic_text(&*panic))),
        }
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
}

impl SoftTable for PolicyTable {
    fn get(&self, key: &str) -> Result<Option<String>, StoreError> {
        let value = self.with(|tree| tree.get(key))?;
        Ok(value.map(|v| String::from_utf8_lossy(&v).into_owned()))
    }

    fn put_if_absent(&self, key: &str, value: &str, max: usize) -> Result<Put, StoreError> {
        if self.with(|tree| tree.contains_key(key))? {
            return Ok(Put::Present);
        }
        if self.entries.fetch_add(1, Ordering::Relaxed) >= max {
            self.entries.fetch_sub(1, Ordering::Relaxed);
            return Ok(Put::Full);
        }
        let stored = self.with(|t| t.compare_and_swap(key, None::<&[u8]>, Some(value)));
        match stored {
            Ok(Ok(())) => {
                self.dirty.store(true, Ordering::Relaxed);
                Ok(Put::Stored)
            }
            other => {
                self.entries.fetch_sub(1, Ordering::Relaxed);
                other.map(|_| Put::Present)
            }
        }
    }
}
