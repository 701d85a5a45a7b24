//! The engine's files as the disk sees them.
//!
//! sled 0.34 calls a write durable after `sync_file_range`, which asks neither for the file's new
//! length and places nor for the disk's own cache. Its data file is therefore synced here after
//! each flush of the engine. What sled writes between two syncs may reach the disk in any order,
//! and it uses the places of replaced pages again as soon as two further buffers were written; so
//! callers sync before that much has been written (see [`super::chunks`]).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::store::durable::sync_directory;
use crate::store::error::StoreError;
use crate::store::head;

/// sled's data file.
pub(super) const DATA_FILE: &str = "db";
/// sled's parameters, written once.
const PARAMETERS_FILE: &str = "conf";
/// Where older releases let sled put large values.
const BLOBS: &str = "blobs";

/// The open store's files.
#[derive(Clone)]
pub(super) struct Files {
    directory: PathBuf,
    data: Arc<File>,
    device_and_number: (u64, u64),
}

impl Files {
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
        Ok(Self { directory: directory.to_path_buf(), data, device_and_number })
    }

    /// What has been written is on the disk when this returns.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.data.sync_data()
    }

    /// Whether who opens the directory anew finds these files.
    ///
    /// # Errors
    /// `Gone`: what is written would be lost with the process.
    pub(super) fn check_in_place(&self) -> Result<(), StoreError> {
        let gone = |reason| StoreError::Gone { path: self.directory.clone(), reason };
        let metadata = |name: &str| {
            fs::metadata(self.directory.join(name)).map_err(|e| gone(format!("{name}: {e}")))
        };
        metadata(head::FILE)?;
        let now = metadata(DATA_FILE)?;
        if (now.dev(), now.ino()) != self.device_and_number {
            return Err(gone(format!("{DATA_FILE} is another file")));
        }
        Ok(())
    }
}
