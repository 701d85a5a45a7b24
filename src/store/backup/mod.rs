//! A journal and its policy state in one file: written from a running server, read by a restore.
//!
//! The file begins with `CLIPBAK1`. Then come parts, in this order: a header, at most one snapshot,
//! the events after it, policy state, an end. Each part:
//!
//! | bytes | what |
//! |---|---|
//! | 0 | what it is |
//! | 1-4 | u32 little-endian: payload bytes |
//! | 5-8 | u32: CRC-32 (IEEE) of bytes 0-4 and the payload |
//! | 9- | payload |
//!
//! A file without its end is none: whoever wrote it was cut off. The end has the number of the
//! parts and a checksum of all their checksums, so that one that is missing or stands elsewhere is
//! seen.

mod format;
mod reading;
mod restore;
mod running;
mod writing;

pub use self::format::{BackupError, Header};
pub use self::reading::{BackupReader, Contained};
pub use self::restore::{Restored, restore};
pub use self::running::Backup;
