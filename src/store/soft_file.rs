//! One JSON file of what is worth keeping and not worth a log: replaced whole, never half-written.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::durable;

/// A larger file is not read: what is kept here takes a few hundred bytes for each model.
const MAX_BYTES: u64 = 64 << 20;

/// A file in a directory of the server's own.
#[derive(Debug, Clone)]
pub struct SoftFile(PathBuf);

impl SoftFile {
    /// `name` in `directory`; neither has to be there.
    #[must_use]
    pub fn new(directory: &Path, name: &str) -> Self {
        Self(directory.join(name))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What was written last; `None` if nothing was.
    ///
    /// # Errors
    /// The file cannot be read, is too large, or holds something else.
    pub fn read<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        let file = match File::open(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut text = String::new();
        if file.take(MAX_BYTES + 1).read_to_string(&mut text)? as u64 > MAX_BYTES {
            return Err(io::Error::other(format!("it is larger than {MAX_BYTES} bytes")));
        }
        Ok(Some(serde_json::from_str(&text)?))
    }

    /// Replaces it. Who reads meanwhile, or after a kill or a power cut, sees the old or the new
    /// whole.
    ///
    /// # Errors
    /// The directory's; the old file is still there, or the new one may not last.
    pub fn write<T: Serialize>(&self, value: &T) -> io::Result<()> {
        durable::replace(&self.0, &serde_json::to_vec(value)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = SoftFile::new(directory.path(), "numbers.json");
        assert_eq!(file.read::<Vec<u8>>().unwrap(), None);
        file.write(&[1, 2]).unwrap();
        file.write(&[3]).unwrap();
        assert_eq!(file.read::<Vec<u8>>().unwrap(), Some(vec![3]));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        fs::write(file.path(), "[3").unwrap();
        assert!(file.read::<Vec<u8>>().is_err());
        fs::write(file.path(), [0xff]).unwrap();
        assert!(file.read::<Vec<u8>>().is_err());
    }
}
