//! The engine's files as the disk sees them.
//!
//! sled 0.34 calls a write durable after `sync_file_range`, which asks neither for the file's new
//! length and places nor for the disk's own cache. Its data file is therefore synced here after
//! each flush of the engine; changes do not wait for that, but for [`crate::store::wal`]. What sled
//! writes between two syncs may reach the disk in any order, and it uses the places of replaced
//! pages again as soon as two further buffers were written; so callers sync before that much has
//! been written (see [`super::chunks`]).
//!
//! The kernel tells of a failed sync once, to whoever asks first; it may forget then that the pages
//! were to be written, and goes on showing them. So one failure fails every further sync of the
//! same open store, whatever its kind, and a store that is opened reads what the disk has.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::store::durable::sync_directory;
use crate::store::error::StoreError;
use crate::store::{head, wal};

pub(super) const DATA_FILE: &str = "db";
/// sled's parameters, written once.
const PARAMETERS_FILE: &str = "conf";
/// The ending of a file that sled has begun to write and not renamed yet.
const UNFINISHED: &str = "generating";
/// Where older releases let sled put large values.
const BLOBS: &str = "blobs";

/// The open store's files.
#[derive(Clone)]
pub(super) struct Files {
    directory: PathBuf,
    data: Arc<File>,
    device_and_number: (u64, u64),
    /// The first sync that failed.
    failed: Arc<OnceLock<(io::ErrorKind, String)>>,
}

impl Files {
    /// Before the engine opens its files: what was written and not synced is on the disk when this
    /// returns, and what is read from now on comes from there.
    pub(super) fn settle(directory: &Path) -> io::Result<()> {
        let Ok(data) = File::open(directory.join(DATA_FILE)) else { return Ok(()) };
        // Not under the hands of another process, of which the engine will tell.
        if data.try_lock().is_err() {
            return Ok(());
        }
        // A full disk or a kill leaves them, and sled takes them for damaged ones that it needs.
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(path)?;
            }
        }
        let recent = directory.join(wal::FILE);
        let recent = recent.exists().then(|| File::open(recent)).transpose()?;
        for file in recent.iter().chain([&data]) {
            file.sync_all()?;
            #[cfg(target_os = "linux")]
            {
                use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
                posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
            }
        }
        Ok(())
    }

    /// Syncs all that sled has made or left in `directory`, and its entries.
    ///
    /// What a killed process wrote but did not sync is served from now on, so it must last.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let data = Arc::new(File::open(directory.join(DATA_FILE))?);
        data.sync_all()?;
        File::open(directory.join(PARAMETERS_FILE))?.sync_all()?;
        let blobs = directory.join(BLOBS);
        for blob in fs::read_dir(&blobs)? {
            File::open(blob?.path())?.sync_all()?;
        }
        sync_directory(&blobs)?;
        sync_directory(directory)?;
        let metadata = data.metadata()?;
        let device_and_number = (metadata.dev(), metadata.ino());
        let failed = Arc::default();
        Ok(Self { directory: directory.to_path_buf(), data, device_and_number, failed })
    }

    /// What has been written is on the disk when this returns.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.outcome(self.data.sync_data())
    }

    /// The result of a sync of the same store, unless one before it has failed.
    pub(super) fn outcome(&self, synced: io::Result<()>) -> io::Result<()> {
        if let Err(error) = synced {
            self.note_failure(&error);
        }
        match self.failed.get() {
            None => Ok(()),
            Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
        }
    }

    pub(super) fn note_failure(&self, error: &io::Error) {
        let text = format!("the disk has not kept what was written: {error}");
        self.failed.get_or_init(|| (error.kind(), text));
    }

    /// Whether who opens the directory anew finds these files.
    ///
    /// # Errors
    /// `Gone`: what is written would be lost with the process.
    pub(super) fn check_in_place(&self, wal: (u64, u64)) -> Result<(), StoreError> {
        let gone = |reason| StoreError::Gone { path: self.directory.clone(), reason };
        let metadata = |name: &str| {
            fs::metadata(self.directory.join(name)).map_err(|e| gone(format!("{name}: {e}")))
        };
        metadata(head::FILE)?;
        for (name, device_and_number) in [(DATA_FILE, self.device_and_number), (wal::FILE, wal)] {
            let now = metadata(name)?;
            if (now.dev(), now.ino()) != device_and_number {
                return Err(gone(format!("{name} is another file")));
            }
        }
        Ok(())
    }
}
