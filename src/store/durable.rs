//! What a file needs besides being written, so that a power cut leaves it: its bytes asked of the
//! disk, and the entry in its directory too.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Makes the entries of a directory last: names that were created, renamed or removed in it.
///
/// # Errors
/// The operating system's.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(named(path))?.sync_all()
}

/// The parent of a relative name is the empty path.
fn named(directory: &Path) -> &Path {
    if directory.as_os_str().is_empty() { Path::new(".") } else { directory }
}

/// The directory that a file is or will be in.
#[must_use]
pub fn directory_of(file: &Path) -> &Path {
    named(file.parent().unwrap_or_else(|| Path::new("")))
}

/// Gives a file that was written beside it the name `path`, for good.
///
/// # Errors
/// As of [`replace`].
pub fn give_name(written: NamedTempFile, path: &Path) -> io::Result<()> {
    written.as_file().sync_all()?;
    written.persist(path).map_err(|error| error.error)?;
    sync_directory(directory_of(path))
}

/// Creates a directory and those above it; the entries of all of them last.
///
/// # Errors
/// The operating system's.
pub fn create_directory(path: &Path) -> io::Result<()> {
    let mut created: Vec<PathBuf> = Vec::new();
    let mut at = Some(path);
    while let Some(directory) = at.filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
        created.push(directory.to_path_buf());
        at = directory.parent();
    }
    fs::create_dir_all(path)?;
    created.iter().filter_map(|directory| directory.parent()).try_for_each(sync_directory)
}

/// Replaces a file whole: who reads it meanwhile, or after a kill or a power cut, finds the old or
/// the new bytes.
///
/// # Errors
/// The operating system's; the old file is then still there, or the new one may not last.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut next = tempfile::Builder::new().prefix(".new-").tempfile_in(directory_of(path))?;
    next.write_all(bytes)?;
    give_name(next, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_has_the_new_bytes_and_nothing_lies_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b");
        create_directory(&deep).unwrap();
        create_directory(&deep).unwrap();
        let file = deep.join("file");
        replace(&file, b"old").unwrap();
        replace(&file, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::read_dir(&deep).unwrap().count(), 1);
        assert!(replace(&directory.path().join("absent/file"), b"x").is_err());
    }
}
