//! What the threads of logs write to.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::sink;
use clipper_clock::{self as clock, Instant};

/// How often it is looked at whether a file is still where it was.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// Of a file that is made.
const MODE: u32 = 0o640;

/// An output of several logs: what one of them writes at a time is not torn apart by another.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Mutex<File>>);

/// What all logs of the process that are not in files share.
static STDERR: OnceLock<Shared> = OnceLock::new();

/// Standard error, for all logs of the process.
///
/// # Errors
/// It cannot be had.
pub fn stderr() -> io::Result<Shared> {
    if let Some(shared) = STDERR.get() {
        return Ok(shared.clone());
    }
    // A descriptor of its own: a write that waits must not hold the lock of `std::io::stderr`.
    let own = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    Ok(STDERR.get_or_init(|| Shared(Arc::new(Mutex::new(own)))).clone())
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match sink::write(&mut *self.0.lock(), bytes) {
            0 if !bytes.is_empty() => Err(io::ErrorKind::WriteZero.into()),
            written => Ok(written),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that lines are added to; made anew where it was moved or deleted, as whoever keeps logs
/// short does.
#[derive(Debug)]
pub struct Appended {
    path: PathBuf,
    file: File,
    looked: Instant,
}

impl Appended {
    /// # Errors
    /// The file cannot be opened or made.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: open(path)?, looked: clock::now() })
    }

    /// Where it cannot be made anew, the old one goes on.
    fn follow(&mut self) {
        let is = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        let there = std::fs::metadata(&self.path);
        let is_same = there.and_then(|there| Ok(is(&there, &self.file.metadata()?)));
        if !is_same.unwrap_or(false)
            && let Ok(file) = open(&self.path)
        {
            self.file = file;
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

impl Write for Appended {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = clock::now();
        if now.saturating_duration_since(self.looked) >= LOOK_AFTER {
            self.looked = now;
            self.follow();
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mut output = Appended::open(&path).unwrap();
        output.write_all(b"one\n").unwrap();
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        output.follow();
        output.write_all(b"two\n").unwrap();
        output.follow();
        output.write_all(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("old")).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\nthree\n");
        let mode = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o007, 0, "{mode:o}");
    }
}
