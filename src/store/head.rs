//! The number of the last acknowledged event, in a small file beside the engine's.
//!
//! sled takes the first damaged byte of its file for the end of its log, and what came after it is
//! gone without a word. This number tells: a state that ends before it has lost acknowledged
//! events. It is written after each flush and not flushed itself, so after a power failure it may
//! be too low, never too high.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const FILE: &str = "acknowledged";
const BYTES: usize = 12;

/// The open file: u64 little-endian, then its CRC-32.
#[derive(Debug)]
pub struct Head(File);

impl Head {
    /// Opens or creates the file in `directory`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(directory.join(FILE)).map(Self)
    }

    /// The last acknowledged event; 0 if the file is new or damaged, which is logged.
    #[must_use]
    pub fn read(&self) -> u64 {
        let mut bytes = [0; BYTES];
        let read = self.0.read_exact_at(&mut bytes, 0);
        if let (Ok(()), Some((seq, checksum))) = (read, bytes.split_first_chunk::<8>())
            && crc32fast::hash(seq).to_le_bytes() == checksum
        {
            return u64::from_le_bytes(*seq);
        }
        if self.0.metadata().is_ok_and(|m| m.len() > 0) {
            tracing::warn!(file = FILE, "damaged; the last acknowledged event is not known");
        }
        0
    }

    /// Notes that everything up to `seq` is durable. A failure is logged: the events are durable
    /// all the same.
    pub fn write(&self, seq: u64) {
        let seq_bytes = seq.to_le_bytes();
        let mut bytes = [0; BYTES];
        let (to_seq, to_checksum) = bytes.split_at_mut(seq_bytes.len());
        to_seq.copy_from_slice(&seq_bytes);
        to_checksum.copy_from_slice(&crc32fast::hash(&seq_bytes).to_le_bytes());
        if let Err(error) = self.0.write_all_at(&bytes, 0) {
            tracing::warn!(file = FILE, %error, "cannot be written");
        }
    }
}
