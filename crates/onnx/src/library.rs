//! Where ONNX Runtime's shared library is looked for, and how it is loaded.
//!
//! A place that somebody named (a setting, `ORT_DYLIB_PATH`) must work: the search does not go on
//! behind their back. Everything else is tried in order, and a library that is too old or broken
//! is passed over with a warning.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ort::environment::Environment;

use crate::engine_error::{EngineError, guarded};

/// Names a library, as the `ort` crate and others understand it.
const VARIABLE: &str = "ORT_DYLIB_PATH";

/// Why ONNX Runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// No library in any of the usual places.
    #[error(
        "no ONNX Runtime library found. Install it (pip install onnxruntime), or name it \
         (--library FILE, library in [model.container], {VARIABLE}). Looked in: {}",
        listed(.0)
    )]
    NotFound(Vec<PathBuf>),
    /// The file that was named cannot be used.
    #[error("cannot use ONNX Runtime's library {}: {why}", path.display())]
    Unusable {
        path: PathBuf,
        /// What the loader says.
        why: String,
    },
}

fn listed(places: &[PathBuf]) -> String {
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    places.join(", ")
}

/// Where to look, in this order.
#[derive(Debug, Clone, Default)]
pub(crate) struct LibraryPlaces {
    /// Files that somebody named.
    named: Option<PathBuf>,
    /// Folders that may hold the library.
    folders: Vec<PathBuf>,
}

impl LibraryPlaces {
    /// Those of this process.
    pub(crate) fn here(setting: Option<PathBuf>) -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let named = setting.or_else(|| variable(VARIABLE).map(PathBuf::from));
        if named.is_some() {
            return Self { named, folders: Vec::new() };
        }
        let mut folders = Vec::new();
        if let Some(folder) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
            folders.push(folder.to_owned());
            folders.push(folder.join("../lib"));
        }
        let paths = |name| variable(name).map(|v| std::env::split_paths(&v).collect::<Vec<_>>());
        folders.extend(paths("LD_LIBRARY_PATH").unwrap_or_default());
        folders.extend(system_folders());
        let mut prefixes: Vec<PathBuf> = ["VIRTUAL_ENV", "CONDA_PREFIX"]
            .into_iter()
            .filter_map(variable)
            .map(PathBuf::from)
            .collect();
        prefixes.push(PathBuf::from(".venv"));
        for folder in paths("PATH").unwrap_or_default() {
            prefixes.extend(python_prefixes(&folder));
        }
        prefixes.extend(variable("HOME").map(|home| Path::new(&home).join(".local")));
        prefixes.extend(["/usr/local".into(), "/usr".into()]);
        prefixes.dedup();
        folders.extend(prefixes.iter().flat_map(|prefix| wheel_folders(prefix)));
        Self { named, folders }
    }

    /// The libraries that are there.
    fn found(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.folders.iter().filter_map(|folder| library_in(folder))
    }
}

fn system_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        ["/usr/local/lib", "/usr/lib", "/usr/lib64", "/opt/onnxruntime/lib"]
            .map(PathBuf::from)
            .into();
    // Debian's, such as /usr/lib/x86_64-linux-gnu.
    folders.push(Path::new("/usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH)));
    folders
}

/// Where a Python whose program stands in `folder` keeps its packages; a virtual environment's
/// program is a link out of it.
fn python_prefixes(folder: &Path) -> Vec<PathBuf> {
    let program = folder.join("python3");
    let Ok(target) = program.canonicalize() else { return Vec::new() };
    let prefix = |program: &Path| program.parent().and_then(Path::parent).map(Path::to_owned);
    prefix(&program).into_iter().chain(prefix(&target)).collect()
}

/// The folders of `onnxruntime` wheels under `prefix`, for every Python version there.
fn wheel_folders(prefix: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for lib in ["lib", "lib64"] {
        let Ok(entries) = std::fs::read_dir(prefix.join(lib)) else { continue };
        let mut pythons: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| name_of(path).starts_with("python3"))
            .collect();
        pythons.sort();
        for python in pythons.iter().rev() {
            for packages in ["site-packages", "dist-packages"] {
                let folder = python.join(packages).join("onnxruntime/capi");
                if folder.is_dir() {
                    folders.push(folder);
                }
            }
        }
    }
    folders
}

/// ONNX Runtime's library in the wheel that is installed under `prefix`, a virtual environment.
#[must_use]
pub fn library_of_environment(prefix: &Path) -> Option<PathBuf> {
    wheel_folders(prefix).iter().find_map(|folder| library_in(folder))
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

/// ONNX Runtime's library in `folder`; the highest version where there are several.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    files.filter(|path| is_library(name_of(path))).max_by_key(|path| version_in(name_of(path)))
}

fn is_library(name: &str) -> bool {
    name.strip_prefix("libonnxruntime.")
        .is_some_and(|rest| rest == "so" || rest.starts_with("so.") || rest.ends_with("dylib"))
}

/// `1.32.0` of `libonnxruntime.so.1.32.0`.
fn version_in(name: &str) -> Option<Vec<u32>> {
    let name = name.trim_end_matches(".dylib");
    let (_, version) = name.split_once(".so.").or_else(|| name.split_once("libonnxruntime."))?;
    version.split('.').map(|part| part.parse().ok()).collect()
}

/// ONNX Runtime, ready for sessions.
pub(crate) struct LoadedLibrary {
    pub(crate) environment: Environment,
    pub(crate) version: String,
    pub(crate) path: PathBuf,
}

/// The library of a process is loaded once: ONNX Runtime cannot be replaced while it runs.
static LOADED: OnceLock<(Environment, PathBuf)> = OnceLock::new();

/// Loads the library from the first place that has a usable one; none where there is none.
pub(crate) fn load(places: &LibraryPlaces) -> Result<Option<LoadedLibrary>, LibraryError> {
    if let Some(path) = &places.named {
        let unusable = |error: EngineError| LibraryError::Unusable {
            path: path.clone(),
            why: error.to_string(),
        };
        return load_file(path).map(Some).map_err(unusable);
    }
    for path in places.found() {
        match load_file(&path) {
            Ok(loaded) => return Ok(Some(loaded)),
            Err(why) => tracing::warn!(library = %path.display(), "ONNX Runtime not used: {why}"),
        }
    }
    Ok(None)
}

/// As [`load`], where there has to be one.
pub(crate) fn require(places: &LibraryPlaces) -> Result<LoadedLibrary, LibraryError> {
    load(places)?.ok_or_else(|| LibraryError::NotFound(places.folders.clone()))
}

fn load_file(path: &Path) -> Result<LoadedLibrary, EngineError> {
    let (environment, path) = if let Some(loaded) = LOADED.get() {
        loaded.clone()
    } else {
        let environment = guarded(|| open_environment(path))?;
        LOADED.get_or_init(|| (environment, path.to_owned())).clone()
    };
    let version = version_of(&path);
    Ok(LoadedLibrary { environment, version, path })
}

fn open_environment(path: &Path) -> Result<Environment, EngineError> {
    // The loader takes a bare name for one to be searched for.
    let path = path.canonicalize().map_err(EngineError::library)?;
    let builder = ort::init_from(&path).map_err(EngineError::library)?;
    builder.with_telemetry(false).build().map_err(EngineError::library)
}

/// By the file's name, which is that of the release; else by the branch that it was built from.
fn version_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if let Some(version) = version_in(name_of(&path)) {
        let parts: Vec<String> = version.iter().map(u32::to_string).collect();
        return parts.join(".");
    }
    let build = ort::info();
    let branch = build.split("git-branch=rel-").nth(1).and_then(|rest| rest.split(',').next());
    branch.unwrap_or("of unknown version").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_library_of_a_folder_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(library_in(folder.path()), None);
        for name in [
            "libonnxruntime_providers_shared.so",
            "libonnxruntime.so.1.9.0",
            "libonnxruntime.so.1.32.0",
            "libonnxruntime.so",
        ] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = library_in(folder.path()).unwrap();
        assert_eq!(name_of(&found), "libonnxruntime.so.1.32.0");
        assert_eq!(version_in("libonnxruntime.1.22.1.dylib"), Some(vec![1, 22, 1]));
        assert!(!is_library("libonnxruntime_providers_shared.so"));
    }

    #[test]
    fn wheels_are_found_in_the_environment_of_any_python() {
        let prefix = tempfile::tempdir().unwrap();
        let capi = "site-packages/onnxruntime/capi";
        for version in ["lib/python3.11", "lib/python3.13"] {
            std::fs::create_dir_all(prefix.path().join(version).join(capi)).unwrap();
        }
        let found = wheel_folders(prefix.path());
        assert_eq!(found[0], prefix.path().join("lib/python3.13").join(capi));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_library_that_was_named_has_to_work() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libonnxruntime.so");
        std::fs::write(&file, "no library").unwrap();
        let places = LibraryPlaces { named: Some(file), folders: vec![folder.path().to_owned()] };
        let error = load(&places).err().unwrap().to_string();
        assert!(error.contains("cannot use ONNX Runtime's library"), "{error}");
        // One that was merely found is passed over.
        let places = LibraryPlaces { named: None, ..places };
        assert!(load(&places).unwrap().is_none());
        let error = require(&places).err().unwrap().to_string();
        assert!(error.contains("pip install onnxruntime"), "{error}");
    }
}
