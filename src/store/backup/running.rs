//! A backup of a journal while it is written: all that was acknowledged when it began, and policy
//! state as it is met.

use super::format::{BackupError, Header};
use super::writing::BackupWriter;
use crate::store::error::StoreError;
use crate::store::history::History;
use crate::store::policy_state::PolicyStateStore;
use crate::store::record;

/// Events read at a time.
const RUN: u64 = 256;
/// Policy state read at a time, bytes.
const PAGE_BYTES: usize = 256 << 10;

/// Writes a backup to `put`, piece by piece; blocks as long as that takes.
///
/// # Errors
/// The engine's, or that of `put`. `NotKept` if the journal was compacted meanwhile, more than it
/// keeps: then a new attempt may be quicker.
pub fn back_up(
    (history, states): (&History, &PolicyStateStore),
    made_at_ms: u64,
    mut put: impl FnMut(Vec<u8>) -> Result<(), BackupError>,
) -> Result<Header, BackupError> {
    let (last, forgotten) = (history.last(), history.forgotten());
    // Events before the oldest snapshot, of a journal that an older release has compacted, stay.
    let bases = history.checkpoints()?;
    let base = bases.into_iter().find(|base| *base >= forgotten).filter(|_| forgotten > 0);
    let base = base.unwrap_or(0);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let header = Header { version, made_at_ms, base, last };
    let mut writer = BackupWriter::default();
    put(writer.header(&header))?;
    if base > 0 {
        let snapshot = history.checkpoint(base)?.filter(|snapshot| snapshot.seq == base);
        let gone = StoreError::NotKept { seq: base, oldest: base + 1, newest: last };
        let record = record::encode(0, &snapshot.ok_or(gone)?);
        put(writer.snapshot(&record.map_err(|error| not_encoded(&error))?))?;
    }
    let mut next = base + 1;
    while next <= last {
        let records = history.records(next, last.min(next + RUN - 1))?;
        next += records.len().max(1) as u64;
        let piece: Vec<u8> =
            records.iter().flat_map(|(seq, record)| writer.event(*seq, record)).collect();
        put(piece)?;
    }
    let mut after: Option<String> = None;
    loop {
        let page = states.page(after.as_deref(), PAGE_BYTES)?;
        let Some((key, _)) = page.last() else { break };
        after = Some(key.clone());
        put(page.iter().flat_map(|(key, value)| writer.state(key, value)).collect())?;
    }
    put(writer.end())?;
    Ok(header)
}

fn not_encoded(error: &record::RecordError) -> BackupError {
    StoreError::Read { reason: error.to_string() }.into()
}
