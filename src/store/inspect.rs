//! What `clipper journal list | verify | state` shows. Reads only, except [`repair`].
//!
//! The store has one owner at a time: while a server runs on the directory these answer `InUse`.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::event::{Author, Envelope};
use super::head::Acknowledged;
use super::history::index::Index;
use super::history::moment::{Point, utc};
use super::journal::OpenReport;
use super::projection::Catalog;
use super::replay::replay;
use super::scan::Fault;
use super::sled::{OnFault, SledLog};
use clipper_config::JournalConfig;

/// The events that are kept, from `from` on, at most `limit`; stops before the first fault.
///
/// # Errors
/// As [`SledLog::inspect`].
pub fn list(
    data_dir: &Path,
    config: &JournalConfig,
    from: u64,
    limit: usize,
) -> Result<Vec<Envelope>, StoreError> {
    let events = SledLog::inspect(data_dir, config)?.scan.events;
    Ok(events.into_iter().filter(|e| e.seq >= from).take(limit).collect())
}

/// One line for people.
#[must_use]
pub fn line(envelope: &Envelope) -> String {
    let event = serde_json::to_string(&envelope.event).unwrap_or_else(|e| e.to_string());
    let Author { origin, asker } = &envelope.author;
    let (seq, at, who) = (envelope.seq, utc(envelope.recorded_at_ms), envelope.author.who());
    let from = asker.from.as_ref().map_or_else(String::new, |from| format!(" from {from}"));
    let why = asker.why.as_ref().map_or("unknown".to_owned(), |why| format!("\"{why}\""));
    format!("{seq:>8}  {at}  {:<9}  {who}{from}, why: {why}  {event}", origin.name())
}

/// What a check of the whole store found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    pub events: usize,
    /// Bytes of their records.
    pub bytes: u64,
    /// The oldest event kept.
    pub first_seq: Option<u64>,
    /// The newest good event.
    pub last_seq: Option<u64>,
    /// The last event known to have been acknowledged; 0 if that is not known.
    pub acknowledged: u64,
    pub snapshots: Vec<u64>,
    pub bad_snapshots: Vec<u64>,
    /// Snapshots that differ from the replay of the events up to them (invariant J2).
    pub wrong_snapshots: Vec<u64>,
    /// The first fault of the journal.
    pub fault: Option<Fault>,
    /// Why no state can be made of it.
    pub unusable: Option<String>,
}

impl Verification {
    /// Whether everything is as it was written.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.fault.is_none()
            && self.unusable.is_none()
            && self.bad_snapshots.is_empty()
            && self.wrong_snapshots.is_empty()
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events, {} bytes", self.events, self.bytes)?;
        if let (Some(first), Some(last)) = (self.first_seq, self.last_seq) {
            write!(f, ", {first} to {last}")?;
        }
        write!(f, "\nsnapshots: {:?}", self.snapshots)?;
        if !self.bad_snapshots.is_empty() {
            write!(f, "\ndamaged snapshots: {:?}", self.bad_snapshots)?;
        }
        if !self.wrong_snapshots.is_empty() {
            write!(f, "\nsnapshots that differ from their events: {:?}", self.wrong_snapshots)?;
        }
        if let Some(fault) = &self.fault {
            let (seq, offset, reason) = (fault.seq, fault.offset, &fault.reason);
            write!(f, "\nfault at event {seq} (byte {offset}): {reason}; ")?;
            let (records, bytes) = (fault.records, fault.bytes);
            match fault.last_valid {
                None => write!(
                    f,
                    "a torn tail of {records} records, {bytes} bytes; the next start cuts it"
                )?,
                Some(last) => write!(
                    f,
                    "good events follow, up to {last}; the server will not start. Restore the data \
                     directory from a backup, or cut {records} records ({bytes} bytes) with \
                     --repair"
                )?,
            }
        }
        if let Some(reason) = &self.unusable {
            write!(f, "\nnot usable: {reason}")?;
        }
        f.write_str(if self.is_clean() { "\nclean" } else { "\nNOT clean" })
    }
}

/// Checks every record and snapshot, and that snapshots equal their events.
///
/// # Errors
/// As [`SledLog::inspect`]; faults of the journal are in the answer, not errors.
pub fn verify(data_dir: &Path, config: &JournalConfig) -> Result<Verification, StoreError> {
    let contents = SledLog::inspect(data_dir, config)?;
    let mut wrong_snapshots = Vec::new();
    for (at, snapshot) in contents.snapshots.iter().enumerate() {
        let before = contents.snapshots.get(..at).unwrap_or_default();
        match replay(before, &contents.scan, u64::MAX, snapshot.seq) {
            Ok(state) if state.seq == snapshot.seq && state.catalog != snapshot.catalog => {
                wrong_snapshots.push(snapshot.seq);
            }
            // Without the events before it there is nothing to compare with.
            Ok(_) | Err(_) => {}
        }
    }
    let acknowledged = match contents.acknowledged {
        Acknowledged::UpTo(seq) => seq,
        Acknowledged::Unknown(_) => 0,
    };
    let usable = replay(&contents.snapshots, &contents.scan, u64::MAX, u64::MAX);
    let unusable = contents.lost().or(usable.err()).map(|e| e.to_string());
    let events = &contents.scan.events;
    Ok(Verification {
        events: events.len(),
        bytes: contents.scan.bytes,
        first_seq: events.first().map(|e| e.seq),
        last_seq: events.last().map(|e| e.seq),
        acknowledged,
        snapshots: contents.snapshots.iter().map(|s| s.seq).collect(),
        bad_snapshots: contents.bad_snapshots.clone(),
        wrong_snapshots,
        fault: contents.scan.fault.clone(),
        unusable,
    })
}

/// Cuts the journal at its first fault, wherever that is; the cut records stay in the store's `cut`
/// tree.
///
/// # Errors
/// As [`SledLog::open_with`].
pub fn repair(data_dir: &Path, config: &JournalConfig) -> Result<OpenReport, StoreError> {
    SledLog::inspect(data_dir, config)?;
    SledLog::open_with(data_dir, config, OnFault::Repair).map(|(_, report)| report)
}

/// The state right after an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateAt {
    pub seq: u64,
    pub catalog: Catalog,
}

/// The state at a point; `None` = after the last event.
///
/// # Errors
/// `NotKept` if the events up to it are compacted away or it has not happened yet.
pub fn state(
    data_dir: &Path,
    config: &JournalConfig,
    at: Option<Point>,
) -> Result<StateAt, StoreError> {
    let contents = SledLog::inspect(data_dir, config)?;
    let events = &contents.scan.events;
    let at = at.map(|at| match at {
        Point::Seq(seq) => seq,
        Point::Time(unix_ms) => {
            Index::of(events.first().map_or(0, |e| e.seq - 1), events).by(unix_ms)
        }
    });
    let until = at.unwrap_or(u64::MAX);
    let oldest = contents.scan.events.first().map_or(0, |e| e.seq);
    let newest = contents.scan.events.last().map_or(0, |e| e.seq);
    let not_kept = StoreError::NotKept { seq: until, oldest, newest };
    match replay(&contents.snapshots, &contents.scan, u64::MAX, until) {
        Ok(state) if at.is_none_or(|at| at == state.seq) => {
            Ok(StateAt { seq: state.seq, catalog: state.catalog })
        }
        Err(error) if at.is_none() => Err(error),
        Ok(_) | Err(_) => Err(not_kept),
    }
}
