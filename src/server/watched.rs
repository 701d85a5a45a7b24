//! Whether the config file is another one than the one that was read last. Pure but for the look.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

/// What tells one content of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: SystemTime,
    bytes: u64,
    /// Another one where the file was replaced, which links into other folders are by.
    inode: u64,
}

impl Stamp {
    /// Of the file that the path leads to; none if it cannot be looked at.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let (bytes, inode) = (metadata.len(), metadata.ino());
        Some(Self { modified: metadata.modified().ok()?, bytes, inode })
    }
}

/// What was seen of it.
#[derive(Debug, Default)]
pub(super) struct Watched {
    read: Option<Stamp>,
    seen: Option<Stamp>,
}

impl Watched {
    /// It was read as it is.
    pub(super) fn read(&mut self, stamp: Option<Stamp>) {
        (self.read, self.seen) = (stamp, stamp);
    }

    /// Whether it is to be read: it is another one, and has stayed so from one look to the next, as
    /// one that is being written does not.
    pub(super) fn look(&mut self, now: Option<Stamp>) -> bool {
        let is_still = self.seen == now;
        self.seen = now;
        is_still && now.is_some() && now != self.read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_when_it_has_changed_and_stays_so() {
        let stamp = |bytes| Some(Stamp { modified: SystemTime::UNIX_EPOCH, bytes, inode: 1 });
        let mut watched = Watched::default();
        watched.read(stamp(1));
        assert!(!watched.look(stamp(1)) && !watched.look(stamp(1)));
        // Written piece by piece.
        assert!(!watched.look(stamp(2)) && !watched.look(stamp(3)));
        assert!(watched.look(stamp(3)));
        watched.read(stamp(3));
        assert!(!watched.look(stamp(3)));
        // It goes away for a moment, as where it is replaced, or for good.
        assert!(!watched.look(None) && !watched.look(None));
        assert!(!watched.look(stamp(3)) && !watched.look(stamp(3)));
        assert!(!watched.look(stamp(1)) && watched.look(stamp(1)), "an older one");
    }
}
