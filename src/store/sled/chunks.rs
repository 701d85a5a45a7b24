//! How records lie in sled's trees: in pieces, so that no page outgrows what sled writes inline.
//!
//! A page of more than 128 KiB goes to a file of its own, which sled does not sync and removes as
//! soon as the page has a successor in memory: a power cut then leaves neither. The first piece of
//! a record has the event's number as its key, big-endian; each further one that number and its
//! index.

use ::sled::{Batch, IVec, Tree};

use crate::store::error::StoreError;
use crate::store::wal::Numbered;

/// Sixteen entries make a full page; these and some changes to them stay far below 128 KiB.
const PIECE_BYTES: usize = 4096;

/// Written without a sync between, at most; with the pages that follow from it a fraction of sled's
/// buffer of 512 KiB.
pub(super) const UNSYNCED_BYTES: usize = 128 << 10;

/// Pieces of [`UNSYNCED_BYTES`], and entries removed without a sync between.
pub(super) const UNSYNCED_ENTRIES: usize = UNSYNCED_BYTES / PIECE_BYTES;

/// How much records are of [`UNSYNCED_BYTES`].
pub(super) fn bytes_of(records: &[Numbered]) -> usize {
    records.iter().map(|(_, record)| record.len()).sum()
}

/// Bytes of an event's number.
const NUMBER: usize = size_of::<u64>();

/// A record as it was written: key and value.
pub(super) type Stored = (Vec<u8>, Vec<u8>);

/// The entries that a record takes.
pub(super) fn pieces(seq: u64, record: &[u8]) -> impl Iterator<Item = (Vec<u8>, &[u8])> {
    let pieces = record.chunks(PIECE_BYTES).zip(0_u32..);
    pieces.map(move |(piece, index)| {
        let mut key = seq.to_be_bytes().to_vec();
        if index > 0 {
            key.extend(index.to_be_bytes());
        }
        (key, piece)
    })
}

/// Adds a record to a batch.
pub(super) fn insert(batch: &mut Batch, seq: u64, record: &[u8]) {
    for (key, piece) in pieces(seq, record) {
        batch.insert(key, piece);
    }
}

/// The event's number in a key, as bytes; the whole of a damaged key.
pub(super) fn number_of(key: &[u8]) -> &[u8] {
    key.get(..NUMBER).unwrap_or(key)
}

/// Whether an entry is the first of its record.
pub(super) fn is_first(key: &[u8]) -> bool {
    key.len() <= NUMBER
}

/// The event's number, if an entry is the first of its record.
pub(super) fn first_of(key: &[u8]) -> Option<u64> {
    <[u8; NUMBER]>::try_from(key).ok().map(u64::from_be_bytes)
}

/// The records of events `from` to `to`, in order.
pub(super) fn records(
    tree: &Tree,
    from: u64,
    to: u64,
) -> impl Iterator<Item = Result<Numbered, StoreError>> + use<> {
    let end = to.saturating_add(1).to_be_bytes();
    let mut pieces = tree.range(from.to_be_bytes()..end).peekable();
    std::iter::from_fn(move || {
        let (key, value) = match pieces.next()? {
            Ok(entry) => entry,
            Err(error) => return Some(Err(StoreError::Read { reason: error.to_string() })),
        };
        let number = <[u8; NUMBER]>::try_from(number_of(&key)).map_or(0, u64::from_be_bytes);
        let mut record = value.to_vec();
        let is_more = |entry: &::sled::Result<(IVec, IVec)>| {
            let next = entry.as_ref().map(|(next, _)| next);
            next.is_ok_and(|next| !is_first(next) && number_of(next) == number_of(&key))
        };
        while let Some(Ok((_, piece))) = pieces.next_if(is_more) {
            record.extend_from_slice(&piece);
        }
        Some(Ok((number, record)))
    })
}

/// All records of a tree, in order. Pieces whose first one is missing come as they are.
pub(super) fn read(tree: &Tree) -> Result<Vec<Stored>, StoreError> {
    let mut records: Vec<Stored> = Vec::new();
    for entry in tree {
        let (key, value): (IVec, IVec) =
            entry.map_err(|e| StoreError::Read { reason: e.to_string() })?;
        match records.last_mut() {
            Some((first, record)) if !is_first(&key) && *first == number_of(&key) => {
                record.extend_from_slice(&value);
            }
            _ => records.push((key.to_vec(), value.to_vec())),
        }
    }
    Ok(records)
}
