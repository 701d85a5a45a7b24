//! Whether a file is still the one that was read.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use clipper_config::TlsConfig;

/// Device, inode, size and time of the last change: a file that is replaced, or a link that is
/// turned to another, differs in one of them.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// Those of all files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamps([Stamp; 3]);

impl Stamps {
    pub(super) fn of(config: &TlsConfig) -> Self {
        Self([&config.cert, &config.key, &config.client_ca].map(|file| stamp(file)))
    }
}

fn stamp(file: &Path) -> Stamp {
    let found = std::fs::metadata(file).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}
