//! One opened sled database: its trees, what they hold, and how damage is dealt with.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ::sled::{Batch, Db, IVec, Tree};

use super::chunks::{self, Stored, UNSYNCED_BYTES, UNSYNCED_ENTRIES};
use super::files::{DATA_FILE, Files};
use crate::store::durable::create_directory;
use crate::store::error::StoreError;
use crate::store::head::{Acknowledged, Head};
use crate::store::history::retention::{Forgotten, NEWEST_KEPT, forgotten};
use crate::store::journal::{Cut, OpenReport, panic_text};
use crate::store::record::{self, RecordError, VERSION};
use crate::store::replay::{Snapshot, replay};
use crate::store::scan::{Fault, Scan, scan};
use crate::store::wal::{self, Numbered, Place, Recent, Wal};
use clipper_config::JournalConfig;

/// The store's directory within the data directory.
pub(in crate::store) const DIRECTORY: &str = "journal";
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
    pub bad_snapshots: Vec<u64>,
    /// The events and the first fault.
    pub scan: Scan,
    /// What is known of the last acknowledged event.
    pub acknowledged: Acknowledged,
    records: Vec<Stored>,
    /// The last of the records, which only the write-ahead log has.
    pub(super) unsettled: Vec<Numbered>,
    /// Where the write-ahead log ends.
    end: Place,
}

impl Contents {
    /// Where the good records are that go on from a snapshot of event `base`.
    fn good_after(&self, base: u64) -> Result<Range<usize>, StoreError> {
        let start = self.records.partition_point(|(k, _)| k.as_slice() <= &base.to_be_bytes()[..]);
        let events = scan(self.records.get(start..).unwrap_or_default())?.events;
        let goes_on = events.first().is_some_and(|e| e.seq == base + 1);
        Ok(start..start + if goes_on { events.len() } else { 0 })
    }

    /// The last event there is, be it a damaged record.
    fn last(&self) -> u64 {
        last_of(&self.snapshots, &self.records)
    }

    /// What the engine lost: acknowledged events that are not even there as damaged records. An
    /// error too if nobody knows.
    #[must_use]
    pub fn lost(&self) -> Option<StoreError> {
        let last = self.last();
        match &self.acknowledged {
            Acknowledged::UpTo(to) if *to > last => {
                Some(StoreError::Lost { from: last + 1, to: *to })
            }
            Acknowledged::UpTo(_) => None,
            Acknowledged::Unknown(reason) => {
                Some(StoreError::Unwitnessed { reason: reason.clone(), last })
            }
        }
    }
}

fn last_of(snapshots: &[Snapshot], records: &[Stored]) -> u64 {
    let last_key = records.last().map(|(k, _)| <[u8; 8]>::try_from(chunks::number_of(k)));
    let last_record = last_key.and_then(Result::ok).map_or(0, u64::from_be_bytes);
    snapshots.last().map_or(0, |s| s.seq).max(last_record)
}

/// The handles. Dropping the last one lets go of the directory.
pub(super) struct Engine {
    pub(super) db: Db,
    pub(super) files: Files,
    pub(super) wal: Wal,
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
        create_directory(directory).map_err(|error| StoreError::Open {
            path: directory.to_path_buf(),
            reason: error.to_string(),
        })?;
        let mut tries = 0;
        loop {
            match guarded(directory, || Self::open_once(directory, config)) {
                Err(StoreError::InUse { .. }) if tries < LOCK_TRIES => {
                    tries += 1;
                    thread::park_timeout(LOCK_PAUSE);
                }
                result => return result,
            }
        }
    }

    fn open_once(directory: &Path, config: &JournalConfig) -> Result<(Self, Tree), StoreError> {
        let trees = || {
            Files::settle(directory)?;
            // Before the files with events: beside them it is never missing by itself.
            let is_empty = directory.join(DATA_FILE).metadata().map_or(0, |m| m.len()) == 0;
            let fresh = is_empty && !directory.join(wal::FILE).exists();
            let head = Head::open(directory, fresh)?;
            let db = ::sled::Config::new()
                .path(directory)
                .cache_capacity(config.page_cache_bytes)
                .flush_every_ms(None)
                .open()?;
            let journal = db.open_tree("journal")?;
            let snapshots = db.open_tree("snapshots")?;
            let cut = db.open_tree("cut")?;
            let policy = db.open_tree("policy_state")?;
            let wal = Wal::open(directory)?;
            let files = Files::open(directory)?;
            Ok((Self { db, files, wal, head, journal, snapshots, cut }, policy))
        };
        trees().map_err(|e| open_error(directory, &e))
    }

    /// Whether who opens the directory anew finds these files.
    pub(super) fn check_in_place(&self) -> Result<(), StoreError> {
        self.files.check_in_place(self.wal.identity())
    }

    /// Writes a group of changes to the write-ahead log, on the disk when this returns.
    pub(super) fn keep_recent(&self, records: &[Numbered]) -> ::sled::Result<()> {
        self.wal.write(records)?;
        Ok(self.files.outcome(self.wal.sync())?)
    }

    /// Nothing that the write-ahead log holds is read again.
    pub(super) fn empty_recent(&self) -> ::sled::Result<()> {
        self.wal.empty()?;
        Ok(self.files.outcome(self.wal.sync())?)
    }

    /// Takes changes into the engine, each whole or not at all; syncs between as often as
    /// [`UNSYNCED_BYTES`] wants, but not the last ones.
    pub(super) fn store(
        &self,
        changes: impl IntoIterator<Item = Vec<Numbered>>,
    ) -> ::sled::Result<()> {
        let (mut batch, mut bytes) = (Batch::default(), 0);
        for change in changes {
            let size = chunks::bytes_of(&change);
            if bytes > 0 && bytes + size > UNSYNCED_BYTES {
                self.journal.apply_batch(std::mem::take(&mut batch))?;
                self.sync()?;
                bytes = 0;
            }
            bytes += size;
            for (seq, record) in change {
                chunks::insert(&mut batch, seq, &record);
            }
        }
        self.journal.apply_batch(batch)
    }

    /// All that was written before is on the disk when this returns.
    pub(super) fn sync(&self) -> ::sled::Result<()> {
        self.db.flush()?;
        Ok(self.files.sync()?)
    }

    /// Reads and checks everything, of snapshots as many as are asked for.
    pub(super) fn contents(&self, snapshots_max: usize) -> Result<Contents, StoreError> {
        let mut snapshots = Vec::new();
        let mut bad_snapshots = Vec::new();
        // What a cut left of one that was being written or removed lacks the first piece.
        for seq in self.snapshot_seqs().map_err(|error| read_error(&error))?.into_iter().rev() {
            if snapshots.len() >= snapshots_max {
                break;
            }
            let record = chunks::records(&self.snapshots, seq, seq).next();
            let Some((_, value)) = record.transpose()? else { continue };
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
        snapshots.reverse();
        bad_snapshots.reverse();
        let mut records = chunks::read(&self.journal)?;
        let read = |error: std::io::Error| StoreError::Read { reason: error.to_string() };
        let Recent { records: mut unsettled, end } = self.wal.read().map_err(read)?;
        let last = last_of(&snapshots, &records);
        unsettled.retain(|(seq, _)| *seq > last);
        let stored = |(seq, record): &Numbered| (seq.to_be_bytes().to_vec(), record.clone());
        records.extend(unsettled.iter().map(stored));
        let (scan, acknowledged) = (scan(&records)?, self.head.read());
        Ok(Contents { snapshots, bad_snapshots, scan, acknowledged, records, unsettled, end })
    }

    /// Cuts a torn tail, or with `Repair` everything from the first fault; refuses other damage.
    pub(super) fn recover(&self, on_fault: OnFault) -> Result<(OpenReport, Contents), StoreError> {
        let contents = self.contents(NEWEST_KEPT)?;
        let lost = contents.lost();
        if let Some(error) = lost.clone().filter(|_| on_fault == OnFault::Refuse) {
            return Err(error);
        }
        let lost_up_to = match lost {
            Some(StoreError::Lost { to, .. }) => Some(to),
            _ => None,
        };
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
        let contents = if cut.is_some() { self.contents(NEWEST_KEPT)? } else { contents };
        let last_seq = replay(&contents.snapshots, &contents.scan, u64::MAX, u64::MAX)?.seq;
        let known = match contents.acknowledged {
            Acknowledged::UpTo(seq) => seq <= last_seq,
            Acknowledged::Unknown(_) => false,
        };
        if !known {
            let failed = |e: std::io::Error| StoreError::Write { reason: e.to_string() };
            self.head.write_now(last_seq).map_err(failed)?;
        }
        self.wal.resume(contents.end);
        if contents.unsettled.is_empty() {
            self.wal.begin_again();
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
        let kept_records = contents.records.get(kept.clone()).unwrap_or_default();
        let kept_numbers: BTreeSet<&[u8]> = kept_records.iter().map(|(k, _)| &**k).collect();
        let moved = || {
            self.store(contents.unsettled.iter().map(|record| vec![record.clone()]))?;
            let (mut copies, mut removals) = (Batch::default(), Batch::default());
            for entry in &self.journal {
                let (key, value) = entry?;
                if !kept_numbers.contains(chunks::number_of(&key)) {
                    copies.insert(&key, value);
                    removals.remove(key);
                }
            }
            self.cut.clear()?;
            self.cut.apply_batch(copies)?;
            self.sync()?;
            self.journal.apply_batch(removals)?;
            self.sync()?;
            // Numbers that were cut are used again.
            self.wal.resume(contents.end);
            self.empty_recent()
        };
        moved().map_err(|e: ::sled::Error| StoreError::Write { reason: e.to_string() })?;
        let before = contents.records.get(..kept.end).filter(|_| kept.start == 0);
        let offset = before.unwrap_or_default().iter().map(|(_, v)| v.len() as u64).sum();
        let bytes = records.iter().map(|(_, v)| v.len() as u64).sum();
        let first = records.first().map(|(k, _)| chunks::number_of(k));
        let first_key = first.and_then(|number| <[u8; 8]>::try_from(number).ok());
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

    /// Keeps a snapshot. Its first piece comes last: without it there is no snapshot.
    pub(super) fn keep_snapshot(&self, seq: u64, record: &[u8]) -> ::sled::Result<()> {
        let mut pieces = chunks::pieces(seq, record);
        let first = pieces.next();
        for (at, (key, piece)) in pieces.enumerate() {
            self.snapshots.insert(key, piece)?;
            if (at + 1).is_multiple_of(UNSYNCED_ENTRIES) {
                self.sync()?;
            }
        }
        self.sync()?;
        if let Some((key, piece)) = first {
            self.snapshots.insert(key, piece)?;
        }
        self.sync()
    }

    /// The numbers of the snapshots, ascending.
    fn snapshot_seqs(&self) -> ::sled::Result<Vec<u64>> {
        let keys = self.snapshots.iter().keys();
        keys.filter_map(|key| key.map(|key| chunks::first_of(&key)).transpose()).collect()
    }

    /// Drops events up to `wanted` at most, and the snapshots that nobody needs then; tells which
    /// event is the last that is gone.
    pub(super) fn compact(&self, wanted: u64, snapshots_max: usize) -> ::sled::Result<u64> {
        let kept = self.snapshot_seqs()?;
        let Forgotten { events_up_to, checkpoints } = forgotten(&kept, wanted, snapshots_max);
        // Events first: of a cut between, the snapshot before them is left.
        let dropped = self.journal.range(..events_up_to.saturating_add(1).to_be_bytes()).keys();
        self.remove(&self.journal, &dropped.collect::<Result<Vec<_>, _>>()?)?;
        let is_dropped = |key: &IVec| {
            let seq = <[u8; 8]>::try_from(chunks::number_of(key)).map(u64::from_be_bytes);
            // Also what a cut has left of one.
            !seq.is_ok_and(|seq| kept.contains(&seq) && !checkpoints.contains(&seq))
        };
        let keys = self.snapshots.iter().keys().collect::<Result<Vec<_>, _>>()?;
        self.remove(&self.snapshots, keys.iter().filter(|key| is_dropped(key)))?;
        Ok(events_up_to)
    }

    /// Removes entries from the oldest on; a cut leaves some of the later ones.
    fn remove<'k>(
        &self,
        tree: &Tree,
        keys: impl IntoIterator<Item = &'k ::sled::IVec>,
    ) -> ::sled::Result<()> {
        for (at, key) in keys.into_iter().enumerate() {
            tree.remove(key)?;
            if (at + 1).is_multiple_of(UNSYNCED_ENTRIES) {
                self.sync()?;
            }
        }
        self.sync()
    }
}

fn read_error(error: &::sled::Error) -> StoreError {
    StoreError::Read { reason: error.to_string() }
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
