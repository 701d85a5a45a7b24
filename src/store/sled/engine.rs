//! One opened sled database: its trees, what they hold, and how damage is dealt with.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ::sled::{Batch, Db, IVec, Tree};

use crate::config::JournalConfig;
use crate::store::error::StoreError;
use crate::store::head::Head;
use crate::store::journal::{Cut, OpenReport, panic_text};
use crate::store::record::{self, RecordError, VERSION};
use crate::store::replay::{Snapshot, replay};
use crate::store::scan::{Fault, Scan, scan};

/// The store's directory within the data directory.
const DIRECTORY: &str = "journal";
/// sled's data file within it.
const DATA_FILE: &str = "db";
/// Snapshots kept: if the newest is damaged, the one before serves.
const SNAPSHOTS_KEPT: usize = 2;
/// sled lets go of its lock a moment after the last handle is dropped.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Where the store of `data_dir` is.
pub(super) fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join(DIRECTORY)
}

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
    /// The last event known to have been acknowledged.
    pub acknowledged: u64,
    records: Vec<(IVec, IVec)>,
}

impl Contents {
    /// Where the good records are that go on from a snapshot of event `base`.
    fn good_after(&self, base: u64) -> Result<Range<usize>, StoreError> {
        let start = self.records.partition_point(|(k, _)| k.as_ref() <= &base.to_be_bytes()[..]);
        let events = scan(self.records.get(start..).unwrap_or_default())?.events;
        let goes_on = events.first().is_some_and(|e| e.seq == base + 1);
        Ok(start..start + if goes_on { events.len() } else { 0 })
    }

    /// What the engine lost: acknowledged events that are not even there as damaged records.
    #[must_use]
    pub fn lost(&self) -> Option<StoreError> {
        let last_key = self.records.last().map(|(k, _)| <[u8; 8]>::try_from(&**k));
        let last_record = last_key.and_then(Result::ok).map_or(0, u64::from_be_bytes);
        let last = self.snapshots.last().map_or(0, |s| s.seq).max(last_record);
        let (from, to) = (last + 1, self.acknowledged);
        (from <= to).then_some(StoreError::Lost { from, to })
    }
}

/// The handles. Dropping the last one lets go of the directory.
pub(super) struct Engine {
    pub(super) db: Db,
    pub(super) head: Head,
    pub(super) journal: Tree,
    pub(super) snapshots: Tree,
    pub(super) cut: Tree,
}

impl Engine {
    /// As [`Self::open`], but creates nothing.
    pub(super) fn open_existing(
        directory: &Path,
        config: &JournalConfig,
    ) -> Result<(Self, Tree), StoreError> {
        if !directory.join(DATA_FILE).is_file() {
            return Err(StoreError::NotThere { path: directory.to_path_buf() });
        }
        Self::open(directory, config)
    }

    /// Opens or creates the database and the tree of policy state; all it holds is then durable.
    pub(super) fn open(
        directory: &Path,
        config: &JournalConfig,
    ) -> Result<(Self, Tree), StoreError> {
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
        // What a killed process wrote but did not flush is served from now on, so it must last; and
        // sled does not sync the directory entries of the files it creates.
        let sync = |path: &Path| File::open(path).and_then(|f| f.sync_all()).map_err(not_open);
        sync(&directory.join(DATA_FILE))?;
        sync(directory)?;
        directory.parent().map_or(Ok(()), sync)?;
        Ok(opened)
    }

    fn open_once(directory: &Path, config: &JournalConfig) -> Result<(Self, Tree), StoreError> {
        let trees = || {
            let db = ::sled::Config::new()
                .path(directory)
                .cache_capacity(config.page_cache_bytes)
                .flush_every_ms(None)
                .open()?;
            let journal = db.open_tree("journal")?;
            let snapshots = db.open_tree("snapshots")?;
            let cut = db.open_tree("cut")?;
            let policy = db.open_tree("policy_state")?;
            let head = Head::open(directory)?;
            Ok((Self { db, head, journal, snapshots, cut }, policy))
        };
        trees().map_err(|e| open_error(directory, &e))
    }

    /// Reads and checks everything.
    pub(super) fn contents(&self) -> Result<Contents, StoreError> {
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
        let (scan, acknowledged) = (scan(&records)?, self.head.read());
        Ok(Contents { snapshots, bad_snapshots, scan, acknowledged, records })
    }

    /// Cuts a torn tail, or with `Repair` everything from the first fault; refuses other damage.
    pub(super) fn recover(&self, on_fault: OnFault) -> Result<(OpenReport, Contents), StoreError> {
        let contents = self.contents()?;
        let lost = contents.lost();
        if let Some(error) = lost.clone().filter(|_| on_fault == OnFault::Refuse) {
            return Err(error);
        }
        let lost_up_to = lost.map(|_| contents.acknowledged);
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
                Some(self.cut(&contents, contents.good_after(base)?, reason)?)
            }
            Some(fault) => {
                let good = contents.records.len() - fault.records;
                Some(self.cut(&contents, 0..good, fault.reason.clone())?)
            }
            None => match replay(&contents.snapshots, &contents.scan, u64::MAX, u64::MAX) {
                Err(StoreError::Missing { from, to }) if on_fault == OnFault::Repair => {
                    let reason = format!("events {from} to {to} are missing");
                    Some(self.cut(&contents, 0..0, reason)?)
                }
                Err(error) => return Err(error),
                Ok(_) => None,
            },
        };
        let contents = if cut.is_some() { self.contents()? } else { contents };
        let last_seq = replay(&contents.snapshots, &contents.scan, u64::MAX, u64::MAX)?.seq;
        if last_seq < contents.acknowledged {
            self.head.write(last_seq);
        }
        let bad_snapshots = contents.bad_snapshots.clone();
        if !bad_snapshots.is_empty() {
            tracing::warn!(?bad_snapshots, "damaged snapshots of the journal were passed over");
        }
        let report = OpenReport { last_seq, snapshot_seq: base, bad_snapshots, cut, lost_up_to };
        Ok((report, contents))
    }

    /// Moves all records but those at `kept` into the `cut` tree, which then holds this cut alone.
    fn cut(
        &self,
        contents: &Contents,
        kept: Range<usize>,
        reason: String,
    ) -> Result<Cut, StoreError> {
        let outside = |(at, record)| (!kept.contains(&at)).then_some(record);
        let records: Vec<_> = contents.records.iter().enumerate().filter_map(outside).collect();
        let (mut copies, mut removals) = (Batch::default(), Batch::default());
        for (key, value) in &records {
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
        moved().map_err(|e: ::sled::Error| StoreError::Write { reason: e.to_string() })?;
        let before = contents.records.get(..kept.end).filter(|_| kept.start == 0);
        let offset = before.unwrap_or_default().iter().map(|(_, v)| v.len() as u64).sum();
        let bytes = records.iter().map(|(_, v)| v.len() as u64).sum();
        let first_key = records.first().and_then(|(k, _)| <[u8; 8]>::try_from(&**k).ok());
        let seq = match &contents.scan.fault {
            Some(fault) if kept.start == 0 && kept.end > 0 => fault.seq,
            _ => first_key.map_or(0, u64::from_be_bytes),
        };
        let cut = Cut { seq, offset, reason, records: records.len(), bytes };
        tracing::warn!(
            seq,
            offset = cut.offset,
            records = cut.records,
            bytes = cut.bytes,
            reason = cut.reason,
            "a part of the journal was not whole and has been cut"
        );
        Ok(cut)
    }

    /// Drops old snapshots, and events that neither a kept snapshot nor `keep_events` needs.
    pub(super) fn compact(&self, newest: u64, keep_events: u64) -> ::sled::Result<()> {
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

fn open_error(directory: &Path, error: &::sled::Error) -> StoreError {
    let path = directory.to_path_buf();
    match error {
        ::sled::Error::Io(io) if io.to_string().starts_with("could not acquire lock") => {
            StoreError::InUse { path }
        }
        ::sled::Error::Io(io)
            if !matches!(io.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) =>
        {
            StoreError::Open { path, reason: io.to_string() }
        }
        other => StoreError::EngineDamaged { path, reason: other.to_string() },
    }
}

/// Turns a panic of the engine into an error.
pub(super) fn guarded<T>(
    directory: &Path,
    job: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| {
        let reason = format!("the engine panicked: {}", panic_text(&*panic));
        Err(StoreError::EngineDamaged { path: directory.to_path_buf(), reason })
    })
}
