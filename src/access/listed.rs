//! Keys from files and from the variable [`VARIABLE`].

use std::io;
use std::path::{Path, PathBuf};

use clipper_domain::AccessKey;
use clipper_domain::access::listed::{ListFault, parse};

use super::secret::hash;

/// The environment variable that lists keys.
pub const VARIABLE: &str = "CLIPPER_KEYS";

/// Largest file that is read.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// Why the keys of a file or variable are not known. Shows no secret.
#[derive(Debug, thiserror::Error)]
pub enum ListedError {
    #[error("{setting}: {}: {error}", file.display())]
    File { setting: &'static str, file: PathBuf, error: io::Error },
    #[error("{setting}: {}: {fault}", file.display())]
    InFile { setting: &'static str, file: PathBuf, fault: ListFault },
    #[error(
        "{setting}: {}: key '{key}' has not the role container, and this file is for keys of \
         containers",
        file.display()
    )]
    NotOfContainers { setting: &'static str, file: PathBuf, key: String },
    #[error("{VARIABLE}: {0}")]
    InVariable(ListFault),
}

/// Where keys are listed; relative to the working directory, empty where there is none.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    /// `access.keys_file`.
    pub keys: PathBuf,
    /// `rpc.keys`, for those of containers alone.
    pub container_keys: PathBuf,
    /// What the variable has.
    pub variable: Option<String>,
}

impl Lists {
    /// All keys.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(&self) -> Result<Vec<AccessKey>, ListedError> {
        let mut keys = of_file("access.keys_file", &self.keys)?;
        let setting = "rpc.keys";
        let of_containers = of_file(setting, &self.container_keys)?;
        if let Some(other) = of_containers.iter().find(|key| key.is_of_people()) {
            let (file, key) = (self.container_keys.clone(), other.name.to_string());
            return Err(ListedError::NotOfContainers { setting, file, key });
        }
        keys.extend(of_containers);
        if let Some(text) = &self.variable {
            keys.extend(parse(text, hash).map_err(ListedError::InVariable)?);
        }
        Ok(keys)
    }

    /// Whether anything of them can change.
    #[must_use]
    pub fn have_files(&self) -> bool {
        !is_none(&self.keys) || !is_none(&self.container_keys)
    }
}

fn is_none(file: &Path) -> bool {
    file.as_os_str().is_empty()
}

fn of_file(setting: &'static str, file: &Path) -> Result<Vec<AccessKey>, ListedError> {
    if is_none(file) {
        return Ok(Vec::new());
    }
    let of = |error| ListedError::File { setting, file: file.to_owned(), error };
    let text = whole(file).map_err(of)?;
    let fault = |fault| ListedError::InFile { setting, file: file.to_owned(), fault };
    parse(&text, hash).map_err(fault)
}

/// All of a file. One that is too large is refused: half a list would be another one.
pub(super) fn whole(file: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(file)?.take(FILE_MAX_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > FILE_MAX_BYTES {
        return Err(io::Error::other(format!("it is over {FILE_MAX_BYTES} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let lists = Lists { container_keys: file.clone(), ..Lists::default() };
            lists.read().map_err(|error| error.to_string())
        };
        let line = format!("c container {} v-*\n", "0".repeat(32));
        assert_eq!(read(&line).unwrap().len(), 1);
        let told = read(&format!("{line}ops admin {}", "1".repeat(32))).unwrap_err();
        assert!(told.contains("key 'ops' has not the role container"), "{told}");
        let long = "#".repeat(usize::try_from(FILE_MAX_BYTES).unwrap());
        assert!(read(&long).unwrap().is_empty());
        let told = read(&format!("{long}\n{line}")).unwrap_err();
        assert!(told.contains("rpc.keys: ") && told.contains("it is over 4194304 bytes"), "{told}");
        assert!(Lists { keys: "/none".into(), ..Lists::default() }.read().is_err());
    }
}
