//! The log in memory, with planned failures: for tests and simulations of everything above the
//! store.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::error::StoreError;
use super::event::Envelope;
use super::journal::{Change, EventLog, check_continues};
use super::projection::Catalog;
use super::record;
use super::replay::{Replay, Snapshot, replay};
use super::scan::scan;

/// Where a planned failure strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailPoint {
    /// Nothing has been written, and the error says so.
    BeforeAppend,
    /// Written, but not flushed; the error leaves it open.
    AfterAppend,
    /// Written, but not flushed.
    BeforeFlush,
    /// Durable, but the caller is told of a failure.
    AfterFlush,
    PanicInAppend,
    /// The state cannot be read.
    Load,
}

/// What happens to events that were written but not flushed when the log is loaded again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unflushed {
    Lost,
    Kept,
}

#[derive(Debug, Default)]
struct Disk {
    durable: Vec<(Vec<u8>, Vec<u8>)>,
    written: Vec<(Vec<u8>, Vec<u8>)>,
    snapshots: Vec<Snapshot>,
    plan: VecDeque<(FailPoint, Unflushed)>,
    unflushed: Option<Unflushed>,
    flushes: usize,
    held: bool,
}

impl Disk {
    fn last_seq(&self) -> u64 {
        let last = self.written.last().or(self.durable.last());
        let key = last.and_then(|(key, _)| <[u8; 8]>::try_from(key.as_slice()).ok());
        key.map_or(0, u64::from_be_bytes)
    }
}

/// The disk behind a [`MemoryLog`]; clones share it, and it outlives the log.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<(Mutex<Disk>, Condvar)>);

impl MemoryDisk {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A log on this disk.
    #[must_use]
    pub fn log(&self) -> MemoryLog {
        MemoryLog(self.clone())
    }

    /// Plans a failure: each plan strikes once, in the order planned.
    pub fn fail_next(&self, point: FailPoint, unflushed: Unflushed) {
        self.0.0.lock().plan.push_back((point, unflushed));
    }

    /// Makes flushes wait until [`Self::release`].
    pub fn hold(&self) {
        self.0.0.lock().held = true;
    }

    /// Lets held flushes go on.
    pub fn release(&self) {
        self.0.0.lock().held = false;
        self.0.1.notify_all();
    }

    /// How many flushes were asked for.
    #[must_use]
    pub fn flushes(&self) -> usize {
        self.0.0.lock().flushes
    }

    /// The durable events.
    ///
    /// # Errors
    /// What the scan found.
    pub fn durable(&self) -> Result<Vec<Envelope>, StoreError> {
        scan(&self.0.0.lock().durable).map(|s| s.events)
    }

    /// Takes the next planned failure if it is `point`.
    fn strikes(&self, point: FailPoint) -> bool {
        let mut disk = self.0.0.lock();
        let next = disk.plan.front().copied().filter(|(planned, _)| *planned == point);
        let Some((_, unflushed)) = next else {
            return false;
        };
        disk.plan.pop_front();
        disk.unflushed = Some(unflushed);
        true
    }
}

/// [`EventLog`] on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryLog(MemoryDisk);

fn broken() -> StoreError {
    StoreError::Write { reason: "planned failure".to_owned() }
}

impl EventLog for MemoryLog {
    fn append(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        if self.0.strikes(FailPoint::BeforeAppend) {
            return Err(StoreError::NotWritten { reason: "planned failure".to_owned() });
        }
        assert!(!self.0.strikes(FailPoint::PanicInAppend), "planned panic of the engine");
        check_continues(self.0.0.0.lock().last_seq(), changes)?;
        for change in changes {
            let records = record::encode_change(change)
                .map_err(|e| StoreError::NotWritten { reason: e.to_string() })?;
            let keyed = records.into_iter().map(|(seq, r)| (seq.to_be_bytes().to_vec(), r));
            self.0.0.0.lock().written.extend(keyed);
        }
        if self.0.strikes(FailPoint::AfterAppend) { Err(broken()) } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let (lock, released) = &*self.0.0;
        let mut disk = lock.lock();
        disk.flushes += 1;
        while disk.held {
            released.wait(&mut disk);
        }
        drop(disk);
        if self.0.strikes(FailPoint::BeforeFlush) {
            return Err(broken());
        }
        let mut disk = lock.lock();
        let written = std::mem::take(&mut disk.written);
        disk.durable.extend(written);
        drop(disk);
        if self.0.strikes(FailPoint::AfterFlush) { Err(broken()) } else { Ok(()) }
    }

    fn load(&mut self, after: u64) -> Result<Replay, StoreError> {
        if self.0.strikes(FailPoint::Load) {
            return Err(StoreError::Read { reason: "planned failure".to_owned() });
        }
        let mut disk = self.0.0.0.lock();
        let written = std::mem::take(&mut disk.written);
        if disk.unflushed.take() != Some(Unflushed::Lost) {
            disk.durable.extend(written);
        }
        replay(&disk.snapshots, &scan(&disk.durable)?, after, u64::MAX)
    }

    fn snapshot(&mut self, seq: u64, catalog: &Catalog) -> Result<(), StoreError> {
        self.0.0.0.lock().snapshots.push(Snapshot { seq, catalog: catalog.clone() });
        Ok(())
    }
}
