//! What the journal keeps, asked of a running server: its events, the state at any of them, who
//! made an application what it is.
//!
//! Everything here blocks and may take long, and belongs on threads that answer no queries.

pub mod blame;
pub mod index;
pub mod log;
pub mod moment;
pub mod retention;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use tokio::sync::watch;

use self::index::{Found, Index};
pub use self::moment::Point;
use super::error::StoreError;
use super::event::Envelope;
use super::projection::Catalog;
use super::replay::Snapshot;
use super::view::CatalogView;
use super::wal::Numbered;

/// Bytes of records read at a time while a state is made of them.
const STEP_BYTES: usize = 1 << 20;

/// What a storage engine keeps, readable from any thread while the journal's own thread writes.
pub trait Archive: Send + Sync {
    /// The events of these numbers, ascending, and no others: about so many bytes of them, one at
    /// least.
    ///
    /// # Errors
    /// `NotKept` if one of them is not there any more.
    fn events(&self, seqs: &[u64], bytes: usize) -> Result<Vec<Envelope>, StoreError>;

    /// The newest checkpoint at or before an event.
    fn checkpoint(&self, seq: u64) -> Result<Option<Snapshot>, StoreError>;

    /// The records of some events that follow each other, as they are kept.
    ///
    /// # Errors
    /// `NotKept` if one of them is not there any more.
    fn records(&self, from: u64, to: u64) -> Result<Vec<Numbered>, StoreError>;

    /// The numbers of all checkpoints, ascending.
    fn checkpoints(&self) -> Result<Vec<u64>, StoreError>;

    /// Runs `look` on the index.
    fn index(&self, look: &mut dyn FnMut(&Index));
}

/// The state right after an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateAt {
    pub seq: u64,
    pub catalog: Arc<Catalog>,
}

/// The journal's past; clones share it.
#[derive(Clone)]
pub struct History {
    archive: Arc<dyn Archive>,
    view: CatalogView,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("last", &self.last()).finish_non_exhaustive()
    }
}

impl History {
    /// The past that ends with what `view` shows.
    #[must_use]
    pub fn new(archive: Arc<dyn Archive>, view: CatalogView) -> Self {
        Self { archive, view }
    }

    /// The last event that is acknowledged.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.view.seq()
    }

    /// Events up to this one are not kept any more; 0: all are.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.indexed(Index::forgotten)
    }

    /// The number of the last event, whenever it is another one.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.view.follow()
    }

    pub(super) fn indexed<T: Default>(&self, look: impl Fn(&Index) -> T) -> T {
        let mut found = T::default();
        self.archive.index(&mut |index| found = look(index));
        found
    }

    /// The number of the event that a point is right after; it may be one that is not kept.
    #[must_use]
    pub fn seq_of(&self, point: Point) -> u64 {
        match point {
            Point::Seq(seq) => seq,
            Point::Time(unix_ms) => self.indexed(|index| index.by(unix_ms)).min(self.last()),
        }
    }

    /// The events of an application and a model within these numbers, or all.
    fn find(&self, app: Option<&str>, model: Option<&str>, seqs: &RangeInclusive<u64>) -> Found {
        self.indexed(|index| Some(index.find(app, model, seqs))).unwrap_or(Found::Some(Vec::new()))
    }

    /// The events of these numbers, about `bytes` of them and one at least.
    ///
    /// # Errors
    /// `NotKept`, or the engine's.
    pub fn events(&self, seqs: &[u64], bytes: usize) -> Result<Vec<Envelope>, StoreError> {
        self.archive.events(seqs, bytes)
    }

    pub(super) fn records(&self, from: u64, to: u64) -> Result<Vec<Numbered>, StoreError> {
        self.archive.records(from, to)
    }

    pub(super) fn checkpoints(&self) -> Result<Vec<u64>, StoreError> {
        self.archive.checkpoints()
    }

    pub(super) fn checkpoint(&self, seq: u64) -> Result<Option<Snapshot>, StoreError> {
        self.archive.checkpoint(seq)
    }

    /// The state at a point.
    ///
    /// # Errors
    /// `NotKept` if the events up to it are forgotten, or it has not happened yet.
    pub fn state_at(&self, point: Point) -> Result<StateAt, StoreError> {
        let seq = self.seq_of(point);
        let (last, catalog) = self.view.copy();
        if seq == last {
            return Ok(StateAt { seq, catalog });
        }
        drop(catalog);
        let oldest = self.forgotten() + 1;
        let not_kept = StoreError::NotKept { seq, oldest, newest: last };
        // Then nobody knows which event was the last by that time.
        let is_before = matches!(point, Point::Time(_)) && seq + 1 == oldest && oldest > 1;
        if seq > last || is_before {
            return Err(not_kept);
        }
        let (base, catalog) = match self.archive.checkpoint(seq)? {
            Some(Snapshot { seq, catalog }) => (seq, catalog),
            None => (0, Catalog::default()),
        };
        let catalog = self.go_on(catalog, base, seq).map_err(|error| match error {
            StoreError::NotKept { .. } => not_kept,
            other => other,
        })?;
        Ok(StateAt { seq, catalog: Arc::new(catalog) })
    }

    /// The state after `to`, from that after `from`.
    fn go_on(&self, mut catalog: Catalog, from: u64, to: u64) -> Result<Catalog, StoreError> {
        let mut next = from + 1;
        while next <= to {
            let seqs: Vec<u64> = (next..=to.min(next + 1_023)).collect();
            let events = self.archive.events(&seqs, STEP_BYTES)?;
            for envelope in &events {
                catalog.fold(&envelope.event);
            }
            next += events.len().max(1) as u64;
        }
        Ok(catalog)
    }
}
