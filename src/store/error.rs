//! Every way the store can fail, and the one question callers ask: was it certainly not written?

use std::path::PathBuf;

/// Why the store could not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the data directory.
    #[error(
        "the data directory {} is already in use by another process; stop it, or choose another \
         directory with --data-dir", .path.display()
    )]
    InUse { path: PathBuf },
    /// The directory is not there; only asked of by commands that must not create one.
    #[error("there is no journal in {}", .path.display())]
    NotThere { path: PathBuf },
    /// The operating system refused to open the store.
    #[error("cannot open the store in {}: {reason}", .path.display())]
    Open {
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The storage engine cannot read its own files.
    #[error(
        "the files of the store in {} are damaged ({reason}); restore the directory from a backup, \
         or move it away to start empty", .path.display()
    )]
    EngineDamaged {
        path: PathBuf,
        /// What the engine said.
        reason: String,
    },
    /// A record is bad although good ones follow it: cutting it would lose acknowledged changes.
    #[error(
        "event {seq} of the journal (byte {offset}) is bad: {reason}; good events follow, up to \
         {last_valid}. See `clipper journal verify`; restore the data directory from a backup, or \
         cut the journal at this event with `clipper journal verify --repair`"
    )]
    Corrupt {
        /// The first bad event.
        seq: u64,
        /// Bytes of good records before it.
        offset: u64,
        /// What is wrong with it.
        reason: String,
        /// The last good event after it.
        last_valid: u64,
    },
    /// Events between the newest snapshot and the journal are not there.
    #[error(
        "events {from} to {to} are missing and no snapshot covers them; restore the data directory \
         from a backup, or keep what is before them with `clipper journal verify --repair`"
    )]
    Missing { from: u64, to: u64 },
    /// The state ends before the last acknowledged event: the engine has lost some.
    #[error(
        "events {from} to {to} were acknowledged and are lost: the store's files are damaged, or \
         an older copy of some. Restore the data directory from a backup, or go on without them \
         with `clipper journal verify --repair`"
    )]
    Lost { from: u64, to: u64 },
    /// The file that tells whether events were lost does not tell it.
    #[error(
        "the file `acknowledged` beside the journal is damaged ({reason}), so nobody knows whether \
         acknowledged events are lost; the journal ends with event {last}. Restore the data \
         directory from a backup, or take what is there for everything with `clipper journal \
         verify --repair`"
    )]
    Unwitnessed {
        /// What is wrong with the file.
        reason: String,
        /// The last event there is.
        last: u64,
    },
    /// The directory is not where it was when it was opened.
    #[error(
        "{}: the data directory was moved or deleted while the server runs ({reason})",
        .path.display()
    )]
    Gone {
        path: PathBuf,
        /// What is not there.
        reason: String,
    },
    /// Written by a later release.
    #[error(
        "event {seq} has format version {found}, this release knows up to {known}; run the release \
         that wrote it, or a later one"
    )]
    NewerFormat {
        seq: u64,
        found: u8,
        /// The newest version this release reads.
        known: u8,
    },
    /// An intact record that this release cannot understand.
    #[error(
        "event {seq} is intact but not understood ({reason}); it was written by another release: \
         run that one, or a later one"
    )]
    NotUnderstood {
        seq: u64,
        /// What the parser said.
        reason: String,
    },
    /// The state at this event cannot be told: compacted away, or not there yet.
    #[error("the state at event {seq} is not known; the journal keeps events {oldest} to {newest}")]
    NotKept {
        /// The event asked for.
        seq: u64,
        /// The oldest event kept.
        oldest: u64,
        /// The newest event kept.
        newest: u64,
    },
    /// Refused before anything was written.
    #[error("not written: {reason}")]
    NotWritten { reason: String },
    /// Refused before anything was written, because something before it failed.
    #[error("not written: the store has failed and is being read again: {reason}")]
    Failed { reason: String },
    /// A write or flush failed half-way: it may be on disk or not.
    #[error("the store failed while writing: {reason}")]
    Write {
        /// What the engine said.
        reason: String,
    },
    #[error("the store failed while reading: {reason}")]
    Read {
        /// What the engine said.
        reason: String,
    },
    /// The journal's thread has ended.
    #[error("the journal is closed")]
    Closed,
}

impl StoreError {
    /// Whether the write that answered this has certainly left no trace.
    ///
    /// Yes: answer the caller. No: drop what was derived and read the store again.
    #[must_use]
    pub fn certainly_not_written(&self) -> bool {
        !matches!(self, Self::Write { .. } | Self::Read { .. } | Self::Closed)
    }

    /// Whether the store takes nothing more before it is read again.
    #[must_use]
    pub fn asks_for_reading(&self) -> bool {
        !self.certainly_not_written() || matches!(self, Self::Failed { .. })
    }
}
