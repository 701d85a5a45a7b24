//! What a deployment may have the server start: which runtimes, and files of which folders.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use clipper_domain::Runtime;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Where interpreters of the system lie, to which those of virtual environments are links.
const SYSTEM: &str = "/usr";

/// What `deploy.allow` names. Without a runtime in it all are allowed, without a folder files
/// everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    runtimes: Vec<String>,
    folders: Vec<PathBuf>,
}

/// Why something is not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    #[error("deploy.allow does not name the runtime {0}")]
    Runtime(&'static str),
    #[error("{} lies in no folder that deploy.allow names", .0.display())]
    Elsewhere(PathBuf),
    #[error(
        "{} leads out of {}, the folder that deploy.allow names",
        file.display(),
        folder.display()
    )]
    LeadsOut { file: PathBuf, folder: PathBuf },
    #[error("{} cannot be opened: {why}", file.display())]
    Unreadable { file: PathBuf, why: Errno },
    #[error(
        "'{0}' would be looked up in PATH: deploy.allow names folders, so that the program has to \
         be a path in one of them"
    )]
    LookedUp(String),
    #[error("the command is empty")]
    Nothing,
}

impl Allowed {
    /// From runtimes by name and folders by absolute path.
    #[must_use]
    pub fn new(entries: &[String]) -> Self {
        let (folders, runtimes): (Vec<_>, Vec<_>) =
            entries.iter().cloned().partition(|entry| entry.starts_with('/'));
        Self { runtimes, folders: folders.into_iter().map(PathBuf::from).collect() }
    }

    /// The folders in which files have to lie; none: anywhere.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Whether this may be started. Looks at the files, none of which is opened for reading.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, runtime: &Runtime) -> Result<(), NotAllowed> {
        let name = runtime.name();
        if !self.runtimes.is_empty() && !self.runtimes.iter().any(|allowed| allowed == name) {
            return Err(NotAllowed::Runtime(name));
        }
        if self.folders.is_empty() {
            return Ok(());
        }
        match runtime {
            Runtime::Onnx { path, library, .. } => {
                library.iter().chain([path]).try_for_each(|file| self.beneath(Path::new(file)))
            }
            Runtime::Python { function, python } => {
                let file = function.rsplit_once(':').map_or(&**function, |(file, _)| file);
                self.beneath(Path::new(file))?;
                self.interpreter(python)
            }
            Runtime::Command { command } => {
                let program = command.first().ok_or(NotAllowed::Nothing)?;
                if !program.contains('/') {
                    return Err(NotAllowed::LookedUp(program.clone()));
                }
                self.beneath(Path::new(program))
            }
        }
    }

    /// A Python by its usual name, or one of a virtual environment in one of the folders, which
    /// may be a link to one of the system or of another of the folders.
    fn interpreter(&self, python: &str) -> Result<(), NotAllowed> {
        if !python.contains('/') {
            return if is_python(Path::new(python)) {
                Ok(())
            } else {
                Err(NotAllowed::LookedUp(python.to_owned()))
            };
        }
        let path = Path::new(python);
        let refused = match self.beneath(path) {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        let lies_here = path.parent().is_some_and(|folder| self.beneath(folder).is_ok());
        let is_good = |target: PathBuf| {
            is_python(&target) && (target.starts_with(SYSTEM) || self.beneath(&target).is_ok())
        };
        if lies_here && std::fs::canonicalize(path).is_ok_and(is_good) {
            Ok(())
        } else {
            Err(refused)
        }
    }

    fn beneath(&self, file: &Path) -> Result<(), NotAllowed> {
        let mut refused = NotAllowed::Elsewhere(file.to_owned());
        for folder in &self.folders {
            let Ok(rest) = file.strip_prefix(folder) else { continue };
            if rest.as_os_str().is_empty() {
                continue;
            }
            match open_beneath(folder, rest) {
                Ok(_) => return Ok(()),
                Err(Errno::EXDEV | Errno::ELOOP) => {
                    refused =
                        NotAllowed::LeadsOut { file: file.to_owned(), folder: folder.clone() };
                }
                Err(why) => refused = NotAllowed::Unreadable { file: file.to_owned(), why },
            }
        }
        Err(refused)
    }
}

/// `python`, `python3`, `python3.12`.
fn is_python(program: &Path) -> bool {
    let name = program.file_name().and_then(|name| name.to_str());
    let version = name.and_then(|name| name.strip_prefix("python"));
    version.is_some_and(|version| version.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

/// Opens what is named from a folder, of which no link and no `..` leads out: the kernel looks at
/// every step as it takes it.
fn open_beneath(folder: &Path, rest: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let from = open(folder, flags | OFlag::O_DIRECTORY, Mode::empty())?;
    let opened = resolve_beneath(&from, rest, flags);
    match opened {
        // An old kernel, or a filter of system calls that does not know it.
        Err(Errno::ENOSYS | Errno::EPERM) => open_canonical(folder, rest, flags),
        opened => opened,
    }
}

#[cfg(target_os = "linux")]
fn resolve_beneath(from: &OwnedFd, rest: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    use nix::fcntl::{OpenHow, ResolveFlag, openat2};

    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    openat2(from, rest, OpenHow::new().flags(flags).resolve(resolve))
}

#[cfg(not(target_os = "linux"))]
fn resolve_beneath(_: &OwnedFd, _: &Path, _: OFlag) -> Result<OwnedFd, Errno> {
    Err(Errno::ENOSYS)
}

/// The second best: links are followed first, and may be changed until the file is opened.
fn open_canonical(folder: &Path, rest: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let of = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    if rest.components().any(|part| part == Component::ParentDir) {
        return Err(Errno::EXDEV);
    }
    let folder = std::fs::canonicalize(folder).map_err(of)?;
    let file = std::fs::canonicalize(folder.join(rest)).map_err(of)?;
    if !file.starts_with(&folder) {
        return Err(Errno::EXDEV);
    }
    open(&file, flags | OFlag::O_NOFOLLOW, Mode::empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use std::os::unix::fs::symlink;

    use clipper_domain::OnnxEngine;

    use super::*;

    fn onnx(path: &Path) -> Runtime {
        let path = path.display().to_string();
        Runtime::Onnx { path, engine: OnnxEngine::default(), library: None, threads: None }
    }

    fn python(file: &Path, python: &str) -> Runtime {
        Runtime::Python { function: format!("{}:f", file.display()), python: python.to_owned() }
    }

    fn command(words: &[&str]) -> Runtime {
        Runtime::Command { command: words.iter().map(|word| (*word).to_owned()).collect() }
    }

    #[test]
    fn what_is_not_named_is_not_limited() {
        let all = Allowed::new(&[]);
        assert_eq!(all.check(&command(&["sh", "-c", "true"])), Ok(()));
        let some = Allowed::new(&["onnx".to_owned(), "python".to_owned()]);
        assert_eq!(some.check(&onnx(Path::new("/nowhere/m.onnx"))), Ok(()));
        assert_eq!(some.check(&command(&["sh"])), Err(NotAllowed::Runtime("command")));
    }

    #[test]
    fn files_lie_beneath_the_folders_and_no_link_leads_out() {
        let root = tempfile::tempdir().unwrap();
        let (models, other) = (root.path().join("models"), root.path().join("other"));
        for folder in [&models, &other, &models.join("sub")] {
            std::fs::create_dir(folder).unwrap();
        }
        for file in [models.join("sub/m.onnx"), other.join("m.onnx"), models.join("f.py")] {
            std::fs::write(file, "").unwrap();
        }
        symlink("sub/m.onnx", models.join("inside.onnx")).unwrap();
        symlink(other.join("m.onnx"), models.join("absolute.onnx")).unwrap();
        symlink("../other", models.join("up")).unwrap();
        symlink("/usr/bin/env", models.join("python3")).unwrap();
        let allowed = Allowed::new(&[models.display().to_string()]);
        for file in ["sub/m.onnx", "inside.onnx", "./sub/../sub/m.onnx"] {
            assert_eq!(allowed.check(&onnx(&models.join(file))), Ok(()), "{file}");
        }
        for file in ["absolute.onnx", "up/m.onnx", "../other/m.onnx"] {
            let (file, folder) = (models.join(file), models.clone());
            let refused = Err(NotAllowed::LeadsOut { file: file.clone(), folder });
            assert_eq!(allowed.check(&onnx(&file)), refused);
        }
        let elsewhere = other.join("m.onnx");
        assert_eq!(allowed.check(&onnx(&elsewhere)), Err(NotAllowed::Elsewhere(elsewhere)));
        let none = NotAllowed::Unreadable { file: models.join("none"), why: Errno::ENOENT };
        assert_eq!(allowed.check(&onnx(&models.join("none"))), Err(none));
        assert!(allowed.check(&onnx(&models)).is_err());
        let function = models.join("f.py");
        assert_eq!(allowed.check(&python(&function, "python3.12")), Ok(()));
        let sly = models.join("python3").display().to_string();
        for interpreter in ["bash", "/usr/bin/python3", "python3-evil", &sly] {
            assert!(allowed.check(&python(&function, interpreter)).is_err(), "{interpreter}");
        }
        assert!(matches!(allowed.check(&command(&["sh"])), Err(NotAllowed::LookedUp(_))));
        assert!(allowed.check(&command(&["/bin/sh"])).is_err());
        assert_eq!(allowed.check(&command(&[function.to_str().unwrap()])), Ok(()));
    }

    #[test]
    fn without_the_kernels_help_links_do_not_lead_out_either() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("models")).unwrap();
        std::fs::write(root.path().join("m"), "").unwrap();
        let models = root.path().join("models");
        std::fs::write(models.join("m"), "").unwrap();
        symlink("../m", models.join("out")).unwrap();
        let ends = |rest: &str| open_canonical(&models, Path::new(rest), OFlag::O_PATH).err();
        assert_eq!(ends("m"), None);
        assert_eq!([ends("out"), ends("../m")], [Some(Errno::EXDEV); 2]);
    }
}
