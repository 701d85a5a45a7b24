//! How lost tables are told from emptied ones, and what a frontend remembers of its Redis.
//!
//! A frontend leaves a marker in table 4, which the original reserves and never uses. Tables
//! without it, on a server that was restarted since, have lost their data. On a server that was
//! not, somebody emptied them.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::connect::LinkError;
use super::tables::{Key, Table};
use super::writes::Write;
use crate::store::soft_file::SoftFile;
use clipper_domain::ModelName;

/// How long a link is marked: longer than its notice takes to any frontend that is connected.
const LINKING_MS: u64 = 60_000;

/// What the keys of living frontends begin with.
const PEERS: &str = "clipper:frontend:";

/// The key of the marker.
#[must_use]
pub fn marker_key() -> Key {
    Key::new(Table::Resource, "clipper:marker")
}

/// The key that a frontend holds while it writes lost tables back.
#[must_use]
pub fn restoring_key() -> Key {
    Key::new(Table::Resource, "clipper:restoring")
}

/// The key that a frontend holds while it hands out the replica numbers of a slot.
#[must_use]
pub fn slot_key(slot: u32) -> Key {
    Key::new(Table::Resource, &format!("clipper:slot:{slot}"))
}

/// The key that a frontend keeps while it lives; what it holds is its [`Peer`].
#[must_use]
pub fn peer_key(frontend: &str) -> Key {
    Key::new(Table::Resource, &format!("{PEERS}{frontend}"))
}

/// The key of the set of frontends' names, those of some that are gone among them: nobody has to
/// look for them among all that a database may hold.
#[must_use]
pub fn peers_key() -> Key {
    Key::new(Table::Resource, "clipper:frontends")
}

/// What all such keys look like.
#[must_use]
pub fn every_peer() -> String {
    format!("{PEERS}*")
}

/// The frontend of such a key.
#[must_use]
pub fn frontend_of(key: &Key) -> Option<&str> {
    std::str::from_utf8(&key.name).ok()?.strip_prefix(PEERS)
}

/// What a frontend says of itself to the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Where an operator finds it.
    pub place: String,
    /// Whether it keeps replicas that others have planned.
    pub keeps_planned: bool,
}

/// The key that says when a model was linked last, in a text that nobody uses twice.
#[must_use]
pub fn linking_key(model: &ModelName) -> Key {
    Key::new(Table::Resource, &format!("clipper:linking:{model}"))
}

/// The write that says so; `mark` is a random number.
#[must_use]
pub fn mark_of_link(model: &ModelName, mark: u64) -> Write {
    let args = [format!("{mark:016x}"), "PX".to_owned(), LINKING_MS.to_string()];
    let args = args.map(String::into_bytes).into();
    Write { key: linking_key(model), command: "SET", args }
}

/// What a frontend remembers from one connection to the next, in its data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The frontend's name in the tables.
    pub frontend: String,
    /// The marker it saw last.
    pub marker: Option<String>,
    /// The run of the Redis server that it saw it in.
    pub run_id: Option<String>,
    /// Its range of replica numbers.
    #[serde(default)]
    pub slot: Option<u32>,
    /// How many keys that run had evicted when the tables were seen last.
    #[serde(default)]
    pub evicted: Option<u64>,
}

impl Memory {
    const FILE: &str = "redis.json";

    fn file(data_dir: &Path) -> SoftFile {
        SoftFile::new(data_dir, Self::FILE)
    }

    /// What is remembered in `data_dir`; a frontend without memory takes the name `fresh`.
    ///
    /// # Errors
    /// The file is there and cannot be read or understood.
    pub fn load(data_dir: &Path, fresh: impl FnOnce() -> String) -> io::Result<Self> {
        let kept = Self::file(data_dir).read()?;
        let new =
            || Self { frontend: fresh(), marker: None, run_id: None, slot: None, evicted: None };
        Ok(kept.unwrap_or_else(new))
    }

    /// Keeps it; a kill leaves the old or the new memory.
    ///
    /// # Errors
    /// The disk's.
    pub fn store(&self, data_dir: &Path) -> io::Result<()> {
        Self::file(data_dir).write(self)
    }
}

/// The memory and where it is kept.
#[derive(Debug)]
pub struct Remembered {
    pub memory: Memory,
    data_dir: PathBuf,
}

impl Remembered {
    /// What is kept in `data_dir`; a frontend without memory takes a random name.
    ///
    /// # Errors
    /// The file is there and cannot be read or understood.
    pub fn load(data_dir: &Path) -> Result<Self, LinkError> {
        let fresh = || format!("{:016x}", rand::random::<u64>());
        let memory = Memory::load(data_dir, fresh);
        let failed =
            |e| LinkError::Failed(format!("what is remembered of Redis cannot be read: {e}"));
        Ok(Self { memory: memory.map_err(failed)?, data_dir: data_dir.to_path_buf() })
    }

    /// Keeps it.
    ///
    /// # Errors
    /// The disk's.
    pub fn keep(&self) -> Result<(), LinkError> {
        let failed =
            |e| LinkError::Failed(format!("what is to be remembered of Redis cannot be kept: {e}"));
        self.memory.store(&self.data_dir).map_err(failed)
    }
}

/// What was found at a connection.
#[derive(Debug, Clone, Copy)]
pub struct Found<'f> {
    pub marker: Option<&'f str>,
    /// The server's run; `None` if it does not tell.
    pub run_id: Option<&'f str>,
    /// Whether the tables of the catalog hold nothing.
    pub tables_empty: bool,
    /// Whether the journal's catalog holds nothing.
    pub journal_empty: bool,
    /// Whether Redis has evicted keys since they were seen.
    pub evicted: bool,
}

/// What the tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TablesVerdict {
    /// Marked: the truth, however little is in them.
    Marked,
    /// Never seen with a marker: the truth, to be marked.
    New,
    /// Emptied by somebody while the server ran: the truth, to be marked again.
    Emptied,
    /// Without the data they had.
    Lost,
    /// Without keys that Redis gave up to save memory, which nobody has asked for.
    Evicted,
}

#[must_use]
pub fn judge(memory: &Memory, found: Found<'_>) -> TablesVerdict {
    if found.marker.is_some() {
        return TablesVerdict::Marked;
    }
    if memory.marker.is_none() {
        // Also a server that moves from its own journal to an empty Redis.
        let moving = found.tables_empty && !found.journal_empty;
        return if moving { TablesVerdict::Lost } else { TablesVerdict::New };
    }
    let same_run = found.run_id.is_some() && found.run_id == memory.run_id.as_deref();
    match (same_run, found.evicted) {
        (true, true) => TablesVerdict::Evicted,
        (true, false) => TablesVerdict::Emptied,
        (false, _) => TablesVerdict::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_restarted_server_without_its_marker_has_lost_data() {
        let memory = |marker: Option<&str>| Memory {
            frontend: "f".to_owned(),
            marker: marker.map(str::to_owned),
            run_id: Some("run".to_owned()),
            slot: None,
            evicted: None,
        };
        let found = |marker, run_id, tables_empty, journal_empty| Found {
            marker,
            run_id,
            tables_empty,
            journal_empty,
            evicted: false,
        };
        let evicted = Found { evicted: true, ..found(None, Some("run"), true, false) };
        assert_eq!(judge(&memory(Some("m")), evicted), TablesVerdict::Evicted);
        let cases = [
            (memory(Some("m")), found(Some("m"), Some("new"), true, false), TablesVerdict::Marked),
            (
                memory(Some("m")),
                found(Some("other"), Some("new"), false, false),
                TablesVerdict::Marked,
            ),
            (memory(Some("m")), found(None, Some("new"), true, false), TablesVerdict::Lost),
            (memory(Some("m")), found(None, Some("new"), false, false), TablesVerdict::Lost),
            (memory(Some("m")), found(None, None, true, false), TablesVerdict::Lost),
            (memory(Some("m")), found(None, Some("run"), true, false), TablesVerdict::Emptied),
            (memory(None), found(None, Some("new"), false, false), TablesVerdict::New),
            (memory(None), found(None, Some("new"), true, true), TablesVerdict::New),
            (memory(None), found(None, Some("new"), true, false), TablesVerdict::Lost),
        ];
        for (memory, found, want) in cases {
            assert_eq!(judge(&memory, found), want, "{memory:?} {found:?}");
        }
    }

    #[test]
    fn memory_survives() {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = Memory::load(folder.path(), || "fresh".to_owned()).unwrap();
        assert_eq!(memory.frontend, "fresh");
        memory.marker = Some("m".to_owned());
        memory.store(folder.path()).unwrap();
        let again = Memory::load(folder.path(), || "other".to_owned()).unwrap();
        assert_eq!(again, memory);
        std::fs::write(folder.path().join(Memory::FILE), "{").unwrap();
        assert!(Memory::load(folder.path(), String::new).is_err());
    }
}
