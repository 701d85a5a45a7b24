//! Makes a data directory of a backup.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use serde::Serialize;

use super::format::BackupError;
use super::reading::{BackupReader, Contained};
use crate::store::durable::{create_directory, sync_directory};
use crate::store::error::StoreError;
use crate::store::inspect;
use crate::store::journal::{Change, EventLog as _};
use crate::store::sled::{DIRECTORY, SledLog};
use clipper_config::JournalConfig;

/// Events written at a time.
const GROUP: usize = 500;

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The state that the events go on from; 0: from the beginning.
    pub base: u64,
    /// The last event.
    pub last: u64,
    pub events: u64,
    /// Entries of policy state.
    pub states: u64,
    /// When the backup was made, Unix milliseconds.
    pub made_at_ms: u64,
}

/// Reads a whole backup, and makes the journal in `data_dir` of it, which has none. Nothing is
/// there before all of it is.
///
/// # Errors
/// It is no whole backup, there is a journal already, or the disk's.
pub fn restore(
    backup: &Path,
    data_dir: &Path,
    config: &JournalConfig,
) -> Result<Restored, BackupError> {
    let journal = data_dir.join(DIRECTORY);
    if journal.exists() {
        return Err(BackupError::Present(data_dir.to_path_buf()));
    }
    // Once to its end before anything is made of it.
    let mut check = open(backup)?;
    while check.read()?.is_some() {}
    create_directory(data_dir)?;
    let aside = tempfile::Builder::new().prefix(".restore-").tempdir_in(data_dir)?;
    let restored = fill(open(backup)?, aside.path(), config)?;
    let verified = inspect::verify(aside.path(), config)?;
    if !verified.is_clean() {
        return Err(BackupError::Damaged(verified.to_string()));
    }
    fs::rename(aside.path().join(DIRECTORY), &journal)?;
    sync_directory(data_dir)?;
    Ok(restored)
}

fn open(backup: &Path) -> Result<BackupReader<BufReader<File>>, BackupError> {
    BackupReader::open(BufReader::new(File::open(backup)?))
}

fn fill(
    mut backup: BackupReader<impl Read>,
    data_dir: &Path,
    config: &JournalConfig,
) -> Result<Restored, BackupError> {
    let (mut log, _) = SledLog::open(data_dir, config)?;
    let states = log.policy_state();
    let header = backup.header.clone();
    let mut restored = Restored {
        base: header.base,
        last: header.last,
        events: 0,
        states: 0,
        made_at_ms: header.made_at_ms,
    };
    let (mut changes, mut change): (Vec<Change>, Change) = (Vec::new(), Vec::new());
    while let Some(part) = backup.read()? {
        match part {
            Contained::Snapshot(snapshot, record) => log.begin_at(snapshot.seq, &record)?,
            Contained::Event(envelope, following) => {
                restored.events += 1;
                change.push(envelope);
                if following == 0 {
                    changes.push(std::mem::take(&mut change));
                }
                if changes.len() >= GROUP {
                    write(&mut log, &mut changes)?;
                }
            }
            Contained::State(key, value) => {
                restored.states += 1;
                states.replace(&key, &value)?;
            }
        }
    }
    write(&mut log, &mut changes)?;
    states.flush()?;
    log.close()?;
    Ok(restored)
}

fn write(log: &mut SledLog, changes: &mut Vec<Change>) -> Result<(), StoreError> {
    log.append(changes)?;
    changes.clear();
    log.flush()
}
