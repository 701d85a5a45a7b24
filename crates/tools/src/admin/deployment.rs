//! What `clipper deploy` asks for: pure, except that it looks which files are there.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use clipper_domain::{OnnxEngine, Runtime};

/// What is deployed, as the server is told: paths absolute.
///
/// `path` is the environment's `PATH`: programs are those that the caller's shell would run, not
/// the server's.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn runtime(
    model: Option<&str>,
    command: &[String],
    python: &str,
    path: Option<&OsStr>,
    here: &Path,
) -> Result<Runtime, NotDeployable> {
    match (model, command) {
        (None, []) => Err(NotDeployable::Nothing),
        (Some(_), [_, ..]) => Err(NotDeployable::Both),
        (None, command) => Ok(Runtime::Command { command: absolute_words(command, path, here) }),
        (Some(model), []) => of_file(model, program(python, path, here), here),
    }
}

/// Why a command line names nothing that can be deployed.
#[derive(Debug, thiserror::Error)]
pub enum NotDeployable {
    #[error("name a MODEL (FILE.onnx or FILE.py:function) or a --command")]
    Nothing,
    #[error("a MODEL and a --command do not go together")]
    Both,
    #[error("'{0}' lacks the function's name: FILE.py:function")]
    NoFunction(String),
    #[error("which function of it? {0}:FUNCTION")]
    WhichFunction(String),
    #[error(
        "'{model}' is served by the Python package (pip install ./python); end the line with:\n  \
         --name {name} --command python3 -m clipper_serving serve {model}\n\
         or load it in a file and name the function: {name}.py:model.predict"
    )]
    OfPythonLibrary { model: String, name: String },
    #[error(
        "'{0}' is neither FILE.onnx nor FILE.py:function; anything else that speaks the protocol \
         goes by --command"
    )]
    Unknown(String),
    #[error("{file}: {error}")]
    Missing { file: String, error: io::Error },
    #[error("{0} is no file")]
    NoFile(String),
    #[error("the path {} is not UTF-8", .0.display())]
    NotUtf8(OsString),
}

fn of_file(model: &str, python: String, here: &Path) -> Result<Runtime, NotDeployable> {
    if let Some((file, function)) = model.rsplit_once(':')
        && !function.contains('/')
    {
        let path = existing(file, here)?;
        if function.is_empty() {
            return Err(NotDeployable::NoFunction(model.to_owned()));
        }
        return Ok(Runtime::Python { function: format!("{path}:{function}"), python });
    }
    let kind = Path::new(model).extension().and_then(|extension| extension.to_str());
    match kind {
        Some("onnx") => Ok(Runtime::Onnx {
            path: existing(model, here)?,
            engine: OnnxEngine::Auto,
            library: None,
            threads: None,
        }),
        Some("py") => Err(NotDeployable::WhichFunction(model.to_owned())),
        Some(kind) if PYTHON_KINDS.contains(&kind) => Err(of_python_library(model)),
        _ => Err(NotDeployable::Unknown(model.to_owned())),
    }
}

/// Suffixes of the files that the Python package loads by itself.
const PYTHON_KINDS: [&str; 11] =
    ["joblib", "pkl", "pickle", "pt", "pth", "pt2", "ubj", "json", "xgb", "txt", "lgb"];

/// A model file of a Python library is served by the package, as a command.
fn of_python_library(model: &str) -> NotDeployable {
    let name = Path::new(model).file_stem().and_then(|stem| stem.to_str()).unwrap_or("NAME");
    NotDeployable::OfPythonLibrary { model: model.to_owned(), name: name.to_owned() }
}

/// The absolute path of a file that has to be there.
fn existing(file: &str, here: &Path) -> Result<String, NotDeployable> {
    let path = here.join(file);
    match std::fs::metadata(&path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Err(NotDeployable::NoFile(file.to_owned())),
        Err(error) => return Err(NotDeployable::Missing { file: file.to_owned(), error }),
    }
    path.into_os_string().into_string().map_err(NotDeployable::NotUtf8)
}

/// The words of a command, those that name a file here made absolute: the server's folder is not
/// this one.
fn absolute_words(command: &[String], path: Option<&OsStr>, here: &Path) -> Vec<String> {
    let absolute = |(n, word): (usize, &String)| {
        if n == 0 {
            return program(word, path, here);
        }
        match here.join(word).to_str() {
            Some(file) if Path::new(file).exists() && !word.is_empty() => file.to_owned(),
            _ => word.clone(),
        }
    };
    command.iter().enumerate().map(absolute).collect()
}

/// A model's name from its file's: `models/my digits.v2.onnx` is `my digits.v2`. Of two functions
/// in one file, the second is `FILE-FUNCTION`. None for a command.
#[must_use]
pub fn name_of(runtime: &Runtime, is_taken: impl Fn(&str) -> bool) -> Option<String> {
    let (source, function) = match runtime {
        Runtime::Onnx { path, .. } => (path.as_str(), None),
        Runtime::Python { function, .. } => {
            let (file, function) = function.rsplit_once(':')?;
            (file, Some(function))
        }
        // A program's name is rarely the model's: `python3`, `sh`.
        Runtime::Command { .. } => return None,
    };
    let stem = Path::new(source).file_stem()?.to_str()?.replace([':', ','], "-");
    match function.filter(|_| is_taken(&stem)) {
        Some(function) => Some(format!("{stem}-{function}")),
        None => Some(stem),
    }
}

/// The version after those there are: one more than the highest number.
#[must_use]
pub fn next_version<'v>(versions: impl Iterator<Item = &'v str>) -> String {
    let highest = versions.filter_map(|version| version.parse::<u64>().ok()).max();
    highest.map_or(1, |highest| highest.saturating_add(1)).to_string()
}

/// The absolute path of a program; the bare name where it is not found.
fn program(name: &str, path: Option<&OsStr>, here: &Path) -> String {
    let found = if name.contains('/') {
        Some(here.join(name))
    } else {
        let folders = path.into_iter().flat_map(std::env::split_paths);
        folders.map(|folder| here.join(folder).join(name)).find(|file| file.is_file())
    };
    found.and_then(|file| file.to_str().map(str::to_owned)).unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_told_by_its_name_and_made_absolute() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        for file in ["m.onnx", "m.py"] {
            std::fs::write(here.join(file), "").unwrap();
        }
        let of = |model| runtime(Some(model), &[], "py", None, here);
        let onnx = of("m.onnx").unwrap();
        assert_eq!(onnx.source(), here.join("m.onnx").to_str().unwrap());
        let python = of("m.py:f").unwrap();
        let function = format!("{}:f", here.join("m.py").display());
        assert_eq!(python.source(), function);
        assert_eq!(name_of(&python, |_| false).unwrap(), "m");
        assert_eq!(name_of(&python, |name| name == "m").unwrap(), "m-f");
        // A file is one model: the server says whose name it is.
        assert_eq!(name_of(&onnx, |name| name == "m").unwrap(), "m");
        let command = Runtime::Command { command: vec!["sh".to_owned()] };
        assert_eq!(name_of(&command, |_| false), None);
        for (wrong, part) in [
            ("none.onnx", "No such file"),
            ("m.py", "m.py:FUNCTION"),
            ("m.py:", "function's name"),
            ("m.pkl", "--name m --command python3 -m clipper_serving serve m.pkl"),
            ("m.bin", "--command"),
        ] {
            let error = of(wrong).unwrap_err().to_string();
            assert!(error.contains(part), "{wrong}: {error}");
        }
        assert!(runtime(None, &[], "py", None, here).is_err());
    }

    #[test]
    fn words_of_a_command_that_are_files_become_absolute() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        std::fs::write(here.join("serve.py"), "").unwrap();
        let words = ["python3", "serve.py", "--port=1", "x"].map(str::to_owned);
        let file = here.join("serve.py").to_str().unwrap().to_owned();
        assert_eq!(absolute_words(&words, None, here), ["python3", &file, "--port=1", "x"]);
        let bin = here.join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::write(bin.join("python3"), "").unwrap();
        let found = absolute_words(&words, Some(bin.as_os_str()), here);
        assert_eq!(found[0], bin.join("python3").to_str().unwrap());
    }

    #[test]
    fn versions_count_on() {
        assert_eq!(next_version([].into_iter()), "1");
        assert_eq!(next_version(["1", "v7", "9", "10"].into_iter()), "11");
    }
}
