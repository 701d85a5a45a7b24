//! Changes of soft state, in a file before the engine: appended as they come and synced together.
//!
//! | bytes | what |
//! |---|---|
//! | 0-3 | u32 little-endian: payload bytes |
//! | 4-7 | u32: CRC-32 (IEEE) of the payload |
//! | 8 | 1: put, 2: remove, 3: remove all that begin so |
//! | 9-12 | u32: bytes of the key |
//! | 13- | the key, and then the value |
//!
//! What follows the last whole record was never synced.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::durable::sync_directory;
use super::record::checksum;

pub const FILE: &str = "states";

const HEADER: usize = 8;
const PUT: u8 = 1;
const REMOVE: u8 = 2;
const REMOVE_PREFIX: u8 = 3;

impl StateChange {
    fn payload(&self) -> Vec<u8> {
        let (kind, key, value) = match self {
            Self::Put(key, value) => (PUT, key, value.as_str()),
            Self::Remove(key) => (REMOVE, key, ""),
            Self::RemovePrefix(prefix) => (REMOVE_PREFIX, prefix, ""),
        };
        let length = u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes();
        [&[kind], length.as_slice(), key.as_bytes(), value.as_bytes()].concat()
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let (kind, rest) = payload.split_first()?;
        let (length, rest) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (key, value) = rest.split_at_checked(length)?;
        let [key, value] = [key, value].map(|bytes| String::from_utf8(bytes.to_vec()));
        let key = key.ok()?;
        match *kind {
            PUT => Some(Self::Put(key, value.ok()?)),
            REMOVE => Some(Self::Remove(key)),
            REMOVE_PREFIX => Some(Self::RemovePrefix(key)),
            _ => None,
        }
    }
}

/// What becomes of values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateChange {
    Put(String, String),
    Remove(String),
    /// Of all keys that begin so.
    RemovePrefix(String),
}

/// The open file.
#[derive(Debug)]
pub struct StateLog {
    file: File,
    /// Bytes of whole records that are on the disk.
    synced: u64,
    /// What follows them.
    unsynced: Vec<u8>,
}

impl StateLog {
    /// Opens the file in `directory`, or makes it; what is in it, in order.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(directory: &Path) -> io::Result<(Self, Vec<StateChange>)> {
        let path = directory.join(FILE);
        let is_new = !path.exists();
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path)?;
        if is_new {
            sync_directory(directory)?;
        }
        let bytes = std::fs::read(&path)?;
        let (changes, whole) = read(&bytes);
        let synced = whole as u64;
        if whole < bytes.len() {
            // What is written from now on must not meet the rest of a torn record.
            file.set_len(synced)?;
        }
        // It is served from now on, so it must last.
        file.sync_all()?;
        Ok((Self { file, synced, unsynced: Vec::new() }, changes))
    }

    /// Notes a change, which lasts after [`Self::sync`].
    pub fn add(&mut self, change: &StateChange) {
        let payload = change.payload();
        let Ok(length) = u32::try_from(payload.len()) else { return };
        self.unsynced.extend(length.to_le_bytes());
        self.unsynced.extend(checksum(&[], &payload).to_le_bytes());
        self.unsynced.extend(payload);
    }

    /// All that was added is on the disk when this returns.
    ///
    /// # Errors
    /// The operating system's; it may be tried again.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        self.file.write_all_at(&self.unsynced, self.synced)?;
        self.file.sync_data()?;
        self.synced += self.unsynced.len() as u64;
        self.unsynced.clear();
        Ok(())
    }

    /// Forgets everything, also on the disk: the engine has it.
    ///
    /// # Errors
    /// The operating system's; what it held is then read again, which changes nothing.
    pub fn empty(&mut self) -> io::Result<()> {
        self.unsynced.clear();
        if self.synced == 0 {
            return Ok(());
        }
        self.file.set_len(0)?;
        self.synced = 0;
        self.file.sync_data()
    }

    pub fn bytes(&self) -> u64 {
        self.synced + self.unsynced.len() as u64
    }
}

/// The changes up to the first record that is not whole, and where that begins.
fn read(bytes: &[u8]) -> (Vec<StateChange>, usize) {
    let (mut changes, mut whole) = (Vec::new(), 0);
    while let Some((change, length)) = bytes.get(whole..).and_then(record) {
        changes.push(change);
        whole += length;
    }
    (changes, whole)
}

fn record(bytes: &[u8]) -> Option<(StateChange, usize)> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let (length, wanted) = header.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let payload = rest.get(..length)?;
    if checksum(&[], payload).to_le_bytes() != wanted {
        return None;
    }
    Some((StateChange::read(payload)?, HEADER + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(n: u32) -> StateChange {
        StateChange::Put(format!("key {n}"), format!("value {n}"))
    }

    #[test]
    fn what_was_synced_is_read_in_order_and_a_torn_tail_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let all = [
            put(1),
            StateChange::Remove("key 1".into()),
            put(2),
            StateChange::RemovePrefix("k".into()),
        ];
        let (mut log, found) = StateLog::open(dir.path()).unwrap();
        assert_eq!(found, []);
        for change in &all {
            log.add(change);
        }
        log.sync().unwrap();
        let whole = log.bytes();
        log.add(&put(3));
        log.add(&put(4));
        log.sync().unwrap();
        let path = dir.path().join(FILE);
        let bytes = std::fs::read(&path).unwrap();
        // A cut at any byte of the last two leaves those before.
        for cut in usize::try_from(whole).unwrap()..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let (log, found) = StateLog::open(dir.path()).unwrap();
            assert_eq!(found[..4], all);
            assert!(log.bytes() <= cut as u64 && found.len() < 6);
        }
        // Bytes that never came, and a record behind them.
        let mut damaged = bytes.clone();
        damaged[usize::try_from(whole).unwrap() + HEADER] = 0;
        std::fs::write(&path, &damaged).unwrap();
        let (mut log, found) = StateLog::open(dir.path()).unwrap();
        assert_eq!(found, all);
        log.add(&put(5));
        log.sync().unwrap();
        let (mut log, found) = StateLog::open(dir.path()).unwrap();
        assert_eq!(found.last(), Some(&put(5)));
        log.empty().unwrap();
        assert_eq!((log.bytes(), StateLog::open(dir.path()).unwrap().1), (0, vec![]));
    }
}
