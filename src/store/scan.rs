//! Reads a journal's records in order and says where it stops being good. Pure.

use serde::Serialize;

use super::error::StoreError;
use super::event::Envelope;
use super::record::{self, Record, RecordError, VERSION};

/// The first bad record and what comes after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The event that is bad, incomplete or missing.
    pub seq: u64,
    /// Bytes of good records before it.
    pub offset: u64,
    pub reason: String,
    /// Records from here to the end.
    pub records: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The last good record after the fault; `None` = a torn tail, which may be cut.
    pub last_valid: Option<u64>,
}

/// What a journal holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The good events before the first fault, whole changes only.
    pub events: Vec<Envelope>,
    /// Bytes of their records.
    pub bytes: u64,
    pub fault: Option<Fault>,
}

/// One change of which not all records have been seen.
struct OpenChange {
    first: u64,
    at: usize,
    events: usize,
    offset: u64,
    following: u16,
}

/// Checks `records` (key and value, in key order): keys without a gap, frames, whole changes
/// (invariant J1).
///
/// # Errors
/// `NewerFormat` and `NotUnderstood` for intact records of another release, wherever they are: such
/// a journal is not damaged and must not be cut.
pub fn scan<K: AsRef<[u8]>, V: AsRef<[u8]>>(records: &[(K, V)]) -> Result<Scan, StoreError> {
    let mut scan = Scan::default();
    let mut open: Option<OpenChange> = None;
    for (at, (key, value)) in records.iter().enumerate() {
        let expected = scan.events.last().map(|e| e.seq + 1);
        let before = open.as_ref().map(|o| o.following);
        match check(key.as_ref(), value.as_ref(), expected, before) {
            Ok(record) => {
                if record.following == 0 {
                    open = None;
                } else if let Some(open) = &mut open {
                    open.following = record.following;
                } else {
                    let events = scan.events.len();
                    let (first, offset) = (record.value.seq, scan.bytes);
                    let following = record.following;
                    open = Some(OpenChange { first, at, events, offset, following });
                }
                scan.events.push(record.value);
                scan.bytes += value.as_ref().len() as u64;
            }
            Err(Bad::Foreign(error)) => return Err(error),
            Err(Bad::Damaged { seq, reason }) => {
                return stop(scan, open, records, (at, seq, reason));
            }
        }
    }
    match &open {
        None => Ok(scan),
        Some(o) => {
            let reason = format!("{} more events of its change are missing", o.following);
            let from = (o.at, o.first, reason);
            stop(scan, open, records, from)
        }
    }
}

/// Why one record does not continue a journal.
enum Bad {
    Foreign(StoreError),
    Damaged { seq: u64, reason: String },
}

fn check(
    key: &[u8],
    value: &[u8],
    expected: Option<u64>,
    before: Option<u16>,
) -> Result<Record<Envelope>, Bad> {
    let damaged = |seq, reason| Err(Bad::Damaged { seq, reason });
    let Ok(key) = <[u8; 8]>::try_from(key) else {
        let reason = format!("its key has {} bytes instead of 8", key.len());
        return damaged(expected.unwrap_or(0), reason);
    };
    let seq = u64::from_be_bytes(key);
    let record = match record::decode::<Envelope>(value) {
        Ok(record) => record,
        Err(RecordError::Newer(found)) => {
            return Err(Bad::Foreign(StoreError::NewerFormat { seq, found, known: VERSION }));
        }
        Err(RecordError::NotUnderstood(reason)) => {
            return Err(Bad::Foreign(StoreError::NotUnderstood { seq, reason }));
        }
        Err(error) => return damaged(expected.unwrap_or(seq).min(seq), error.to_string()),
    };
    if record.value.seq != seq {
        return damaged(seq, format!("it calls itself event {}", record.value.seq));
    }
    if let Some(expected) = expected.filter(|e| *e != seq) {
        return damaged(expected, format!("it is missing; event {seq} comes next"));
    }
    if before.is_some_and(|b| u32::from(record.following) + 1 != u32::from(b)) {
        return damaged(
            seq,
            "it does not belong to the change before it, which goes on".to_owned(),
        );
    }
    Ok(record)
}

/// Ends a scan at a fault; an incomplete change before it belongs to the fault.
fn stop<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    mut scan: Scan,
    open: Option<OpenChange>,
    records: &[(K, V)],
    (mut at, mut seq, reason): (usize, u64, String),
) -> Result<Scan, StoreError> {
    let mut last_valid = None;
    for (key, value) in records.iter().skip(at) {
        match check(key.as_ref(), value.as_ref(), None, None) {
            Ok(record) => last_valid = Some(record.value.seq),
            Err(Bad::Foreign(error)) => return Err(error),
            Err(Bad::Damaged { .. }) => {}
        }
    }
    if let Some(open) = open {
        // A tail that ends within a change: its records are good, but it was never acknowledged.
        if at == open.at {
            last_valid = None;
        }
        (at, seq) = (open.at, open.first);
        scan.events.truncate(open.events);
        scan.bytes = open.offset;
    }
    let tail = records.iter().skip(at);
    let bytes = tail.map(|(_, v)| v.as_ref().len() as u64).sum();
    let records = records.len() - at;
    scan.fault = Some(Fault { seq, offset: scan.bytes, reason, records, bytes, last_valid });
    Ok(scan)
}
