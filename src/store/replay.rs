//! From what the store holds to the state it means. Pure.

use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::event::Envelope;
use super::projection::Catalog;
use super::scan::Scan;

/// The catalog after an event, kept so that a start need not replay everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The last event included.
    pub seq: u64,
    pub catalog: Catalog,
}

/// A [`Snapshot`] to be written, in the same form.
#[derive(Debug, Serialize)]
pub struct SnapshotOf<'c> {
    /// The last event included.
    pub seq: u64,
    pub catalog: &'c Catalog,
}

/// The state that a store means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    /// The last event included; 0 = none yet.
    pub seq: u64,
    pub catalog: Catalog,
    /// The snapshot it was built on; 0 = none.
    pub snapshot_seq: u64,
    /// The events after the one asked for, up to `seq`.
    pub tail: Vec<Envelope>,
}

/// Replays `scan` on top of the newest of `snapshots` (ascending, all valid), up to event `until`.
///
/// # Errors
/// `Missing` if the events do not connect to a snapshot or to the beginning.
pub fn replay(
    snapshots: &[Snapshot],
    scan: &Scan,
    after: u64,
    until: u64,
) -> Result<Replay, StoreError> {
    let snapshot = snapshots.iter().rev().find(|s| s.seq <= until);
    let base = snapshot.map_or(0, |s| s.seq);
    let first = scan.events.first().map_or(base + 1, |e| e.seq);
    let last = scan.events.last().map_or(base, |e| e.seq);
    if first > base + 1 {
        return Err(StoreError::Missing { from: base + 1, to: first - 1 });
    }
    if last < base {
        return Err(StoreError::Missing { from: last + 1, to: base });
    }
    let mut catalog = snapshot.map(|s| s.catalog.clone()).unwrap_or_default();
    let mut seq = base;
    for envelope in scan.events.iter().filter(|e| e.seq > base && e.seq <= until) {
        catalog.fold(&envelope.event);
        seq = envelope.seq;
    }
    let tail = scan.events.iter().filter(|e| e.seq > after && e.seq <= until).cloned().collect();
    Ok(Replay { seq, catalog, snapshot_seq: base, tail })
}
