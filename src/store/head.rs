//! The number of the last acknowledged event, in a small file beside the engine's.
//!
//! sled takes the first damaged byte of its file for the end of its log, and what came after it is
//! gone without a word. This number tells: a state that ends before it has lost acknowledged
//! events. It is written after the events are on the disk, and asked of the disk by a thread of its
//! own, so that no change waits for it: a power cut may leave it a moment behind, never ahead. The
//! file is made before the engine's, so one that is missing or damaged beside events has been
//! tampered with, and then nobody knows whether the events are all.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use super::durable::sync_directory;

pub(super) const FILE: &str = "acknowledged";
const BYTES: usize = 12;
/// What the disk has of it may be so far behind.
const BETWEEN_SYNCS: Duration = Duration::from_millis(100);

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acknowledged {
    /// Everything up to this event.
    UpTo(u64),
    /// Not what it said once, for this reason.
    Unknown(String),
}

/// The open file: u64 little-endian, then its CRC-32.
#[derive(Debug)]
pub struct Head {
    file: Arc<File>,
    to_sync: SyncSender<()>,
}

impl Head {
    /// Opens the file in `directory`; `fresh`: the store is new, so it has to be created.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(directory: &Path, fresh: bool) -> io::Result<Self> {
        let path = directory.join(FILE);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        let file = Arc::new(file);
        let (to_sync, asked) = sync_channel::<()>(1);
        let synced = Arc::clone(&file);
        thread::Builder::new().name("acknowledged".to_owned()).spawn(move || {
            while asked.recv().is_ok() {
                if let Err(error) = synced.sync_data() {
                    tracing::warn!(file = FILE, %error, "cannot be synced");
                }
                // A sync for each change would cost the changes their disk.
                thread::park_timeout(BETWEEN_SYNCS);
            }
        })?;
        let head = Self { file, to_sync };
        if fresh && head.file.metadata()?.len() == 0 {
            head.write_now(0)?;
            sync_directory(directory)?;
        }
        Ok(head)
    }

    /// What the file says.
    #[must_use]
    pub fn read(&self) -> Acknowledged {
        let mut bytes = [0; BYTES];
        match self.file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Acknowledged::Unknown("it is missing or cut short".to_owned());
            }
            Err(error) => return Acknowledged::Unknown(error.to_string()),
        }
        match bytes.split_first_chunk::<8>() {
            Some((seq, checksum)) if crc32fast::hash(seq).to_le_bytes() == checksum => {
                Acknowledged::UpTo(u64::from_le_bytes(*seq))
            }
            _ => Acknowledged::Unknown("its checksum is wrong".to_owned()),
        }
    }

    /// Notes that everything up to `seq` is on the disk. A failure is logged: the events are there
    /// all the same.
    pub fn write(&self, seq: u64) {
        if let Err(error) = self.file.write_all_at(&encode(seq), 0) {
            tracing::warn!(file = FILE, %error, "cannot be written");
            return;
        }
        match self.to_sync.try_send(()) {
            // Full: the sync that is asked for already will cover this too.
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => {
                tracing::warn!(file = FILE, "nobody syncs it any more");
            }
        }
    }

    /// As [`Self::write`], and on the disk on return.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write_now(&self, seq: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(seq), 0)?;
        self.file.sync_all()
    }
}

fn encode(seq: u64) -> [u8; BYTES] {
    let seq = seq.to_le_bytes();
    let mut bytes = [0; BYTES];
    let (to_seq, to_checksum) = bytes.split_at_mut(seq.len());
    to_seq.copy_from_slice(&seq);
    to_checksum.copy_from_slice(&crc32fast::hash(&seq).to_le_bytes());
    bytes
}
