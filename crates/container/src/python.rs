//! The container of a Python function: the Python package `clipper_serving` itself, which this
//! binary carries and writes to a folder that the interpreter can run.
//!
//! One implementation: a function answers alike whether the server starts it or the package does.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};

const PACKAGE: &str = "clipper_serving";
const PREFIX: &str = "python-";

/// What the interpreter runs when it is given the folder: the package's command line.
const MAIN: &str = "\
\"\"\"Serves FILE.py:function as a container of the server that has started this.\"\"\"

import sys

if sys.version_info < (3, 9):
    # In the words of an old Python, which cannot read the package.
    found = \".\".join(map(str, sys.version_info[:3]))
    sys.exit(\"a Python model needs Python 3.9 or later, and %s is %s\" % (sys.executable, found))

from clipper_serving.__main__ import start

sys.argv.insert(1, \"serve\")
sys.exit(start())
";

macro_rules! package_files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../python/src/clipper_serving/", $name)))),*]
    };
}

/// The files of the package by name.
const FILES: &[(&str, &str)] = package_files![
    "__init__.py",
    "__main__.py",
    "admin.py",
    "aio.py",
    "building.py",
    "cli.py",
    "client.py",
    "container_metrics.py",
    "errors.py",
    "failures.py",
    "http.py",
    "input_types.py",
    "loaders.py",
    "metrics.py",
    "metrics_server.py",
    "outputs.py",
    "predictor.py",
    "protocol.py",
    "rpc.py",
    "rpc_keys.py",
    "serving.py",
    "signatures.py",
    "stopping.py",
    "streaming.py",
    "tensors.py",
    "traces.py",
    "wire_json.py",
    "wire_tensors.py",
];

/// Writes the package below `parent`, unless it is there, and returns the folder to run. Folders
/// that other versions of this binary have left there are removed.
///
/// `parent` must be nobody else's meanwhile, as a data directory is its server's alone.
///
/// # Errors
/// When the folder can be neither read nor written.
pub fn install(parent: &Path) -> io::Result<PathBuf> {
    let folder = parent.join(folder_name());
    remove_others(parent, &folder);
    if is_whole(&folder) {
        return Ok(folder);
    }
    let new = folder.with_extension("new");
    for leftover in [&new, &folder] {
        match fs::remove_dir_all(leftover) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::create_dir_all(new.join(PACKAGE))?;
    for (file, text) in files() {
        fs::write(new.join(file), text)?;
    }
    // Whole or not there at all, also after a crash in between.
    fs::rename(&new, &folder)?;
    Ok(folder)
}

/// The interpreter's arguments that serve `function`, `FILE.py:function`.
#[must_use]
pub fn arguments(folder: &Path, function: OsString) -> Vec<OsString> {
    vec!["-u".into(), folder.into(), function]
}

fn files() -> impl Iterator<Item = (PathBuf, &'static str)> {
    let package = FILES.iter().map(|(name, text)| (Path::new(PACKAGE).join(name), *text));
    package.chain(std::iter::once((PathBuf::from("__main__.py"), MAIN)))
}

/// Another content is another folder: a process of an older server may still read the old one.
fn folder_name() -> String {
    let mut hasher = DefaultHasher::new();
    for (file, text) in files() {
        (file, text).hash(&mut hasher);
    }
    format!("{PREFIX}{:016x}", hasher.finish())
}

fn is_whole(folder: &Path) -> bool {
    files()
        .all(|(file, text)| fs::read(folder.join(file)).is_ok_and(|found| found == text.as_bytes()))
}

fn remove_others(parent: &Path, folder: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if is_ours
            && entry.path() != folder
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(folder = %entry.path().display(), %error, "cannot be removed");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn the_whole_package_is_carried() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/src/clipper_serving");
        let mut there: Vec<String> = fs::read_dir(source)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| Path::new(name).extension().is_some_and(|kind| kind == "py"))
            .collect();
        there.sort();
        let carried: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(carried, there);
    }

    #[test]
    fn it_is_written_once_and_mended_where_it_is_damaged() {
        let parent = tempfile::tempdir().unwrap();
        let old = parent.path().join("python-0123");
        fs::create_dir(&old).unwrap();
        fs::write(parent.path().join("journal"), "kept").unwrap();
        let folder = install(parent.path()).unwrap();
        assert!(!old.exists());
        assert!(parent.path().join("journal").exists());
        let written = fs::metadata(&folder).unwrap().modified().unwrap();
        assert_eq!(install(parent.path()).unwrap(), folder);
        assert_eq!(fs::metadata(&folder).unwrap().modified().unwrap(), written);
        let part = folder.join(PACKAGE).join("rpc.py");
        fs::write(&part, "half").unwrap();
        assert_eq!(install(parent.path()).unwrap(), folder);
        assert_ne!(fs::read_to_string(part).unwrap(), "half");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2);
    }
}
