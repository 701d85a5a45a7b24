//! Keys from `access.keys_file` and from the variable [`VARIABLE`].

use std::path::{Path, PathBuf};

use clipper_domain::AccessKey;
use clipper_domain::access::listed::{ListFault, parse};

use super::hash;

/// The environment variable that lists keys.
pub const VARIABLE: &str = "CLIPPER_KEYS";

/// Why the keys of a file or variable are not known.
#[derive(Debug, thiserror::Error)]
pub enum ListedError {
    #[error("access.keys_file: {}: {error}", file.display())]
    File { file: PathBuf, error: std::io::Error },
    #[error("access.keys_file: {}: {fault}", file.display())]
    InFile { file: PathBuf, fault: ListFault },
    #[error("{VARIABLE}: {0}")]
    InVariable(ListFault),
}

/// All of them; relative to the working directory.
///
/// # Errors
/// What is wrong with them, without a secret.
pub fn read(file: &Path, variable: Option<&str>) -> Result<Vec<AccessKey>, ListedError> {
    let mut keys = Vec::new();
    if !file.as_os_str().is_empty() {
        let of = |error| ListedError::File { file: file.to_owned(), error };
        let text = std::fs::read_to_string(file).map_err(of)?;
        let fault = |fault| ListedError::InFile { file: file.to_owned(), fault };
        keys.extend(parse(&text, hash).map_err(fault)?);
    }
    if let Some(text) = variable {
        keys.extend(parse(text, hash).map_err(ListedError::InVariable)?);
    }
    Ok(keys)
}
