//! A file that has its name only when all of it is there: whatever happens before, the one that had
//! the name stays.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::store::durable::{directory_of, give_name};

/// One that is being written, in the same folder.
#[derive(Debug)]
pub(super) struct WholeFile {
    pub(super) aside: NamedTempFile,
    name: PathBuf,
}

impl WholeFile {
    /// `mode`: who may do what with a new file, as far as this process lets others at all.
    ///
    /// # Errors
    /// There is no such folder, or the name is that of something else than a file, such as a
    /// device or a pipe, which would be gone.
    pub(super) fn beside(name: &Path, mode: u32) -> io::Result<Self> {
        // What a link leads to is what is meant.
        let name = fs::canonicalize(name).unwrap_or_else(|_| name.to_owned());
        let there = fs::metadata(&name).ok();
        if there.as_ref().is_some_and(|there| !there.is_file()) {
            return Err(io::Error::other("something is there that is no file"));
        }
        let permissions =
            there.map_or_else(|| Permissions::from_mode(mode), |there| there.permissions());
        let mut options = tempfile::Builder::new();
        let options = options.prefix(".clipper-").permissions(permissions);
        Ok(Self { aside: options.tempfile_in(directory_of(&name))?, name })
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn keep(self) -> io::Result<()> {
        give_name(self.aside, &self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_was_there_stays_until_all_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (name, link) = (folder.path().join("a"), folder.path().join("link"));
        fs::write(&name, "before").unwrap();
        fs::set_permissions(&name, Permissions::from_mode(0o640)).unwrap();
        symlink(&name, &link).unwrap();
        let mut file = WholeFile::beside(&link, 0o600).unwrap();
        file.aside.write_all(b"after").unwrap();
        assert_eq!(fs::read_to_string(&name).unwrap(), "before");
        file.keep().unwrap();
        assert_eq!(fs::read_to_string(&name).unwrap(), "after");
        assert!(link.is_symlink());
        assert_eq!(fs::metadata(&name).unwrap().permissions().mode() & 0o777, 0o640);
        // One that is not finished leaves nothing.
        drop(WholeFile::beside(&name, 0o600).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in [&pipe, Path::new("/dev/null"), folder.path()] {
            let why = WholeFile::beside(name, 0o600).unwrap_err().to_string();
            assert!(why.contains("no file"), "{why}");
        }
        assert!(WholeFile::beside(&folder.path().join("none/a"), 0o600).is_err());
    }
}
