//! Which files a program sees and which ports it reaches, by Landlock: a list of what is allowed
//! that the kernel holds a process and what descends from it to.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort,
    PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, Scope,
};

/// The newest rules that are asked for; an older kernel enforces those that it knows.
const RULES: ABI = ABI::V6;

/// What programs and their libraries are made of.
const SYSTEM: [&str; 12] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc",
    "/opt",
    "/proc",
    "/sys",
    // Where `/etc/resolv.conf` and the name service lead.
    "/run/systemd/resolve",
    "/run/nscd",
];

/// Devices that harm nobody, and those that compute, by the beginning of their names.
const DEVICES: [&str; 12] = [
    "null", "zero", "full", "random", "urandom", "tty", "shm", "fd", "nvidia", "dri", "kfd",
    "accel",
];

/// What a program may see beside the system's own files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fence {
    /// Files and folders to read.
    pub read: Vec<PathBuf>,
    /// Those that it may change.
    pub write: Vec<PathBuf>,
    /// What it does not see although what is around it may be read.
    pub hidden: Vec<PathBuf>,
    /// The ports to which it may connect; `None`: all.
    pub ports: Option<Vec<u16>>,
    /// Whether it does not start where the kernel has no Landlock.
    pub is_required: bool,
}

/// Why there is no fence.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    #[error("Landlock: {0}")]
    Rules(#[from] RulesetError),
    #[error("this kernel has no Landlock, or not what containers.landlock = \"required\" asks for")]
    NotThere,
}

impl Fence {
    /// Holds this thread, and what it becomes and starts, to it.
    pub(crate) fn put_up(&self) -> Result<(), FenceError> {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(RULES))?
            .scope(Scope::Signal)?;
        if self.ports.is_some() {
            let level = if self.is_required {
                CompatLevel::HardRequirement
            } else {
                CompatLevel::BestEffort
            };
            rules = rules.set_compatibility(level).handle_access(AccessNet::ConnectTcp)?;
            rules = rules.set_compatibility(CompatLevel::BestEffort);
        }
        let hidden: Vec<PathBuf> = self.hidden.iter().map(|path| real(path)).collect();
        let mut rules = rules.create()?;
        let reading = AccessFs::from_read(RULES);
        let read = SYSTEM.iter().map(PathBuf::from).chain(self.read.iter().cloned());
        for path in read.flat_map(|path| shown(&path, &hidden)) {
            rules = allow(rules, &path, reading)?;
        }
        let writing = AccessFs::from_all(RULES);
        for path in self.write.iter().flat_map(|path| shown(path, &hidden)).chain(devices()) {
            rules = allow(rules, &path, writing)?;
        }
        for port in self.ports.iter().flatten() {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
        let status = rules.restrict_self()?;
        if self.is_required && status.ruleset == RulesetStatus::NotEnforced {
            return Err(FenceError::NotThere);
        }
        Ok(())
    }
}

/// Nothing happens if there is no such file.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let (Ok(file), Ok(known)) = (PathFd::new(path), path.metadata()) else { return Ok(rules) };
    let access = if known.is_dir() { access } else { access & AccessFs::from_file(RULES) };
    rules.add_rule(PathBeneath::new(file, access))
}

fn devices() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let is_harmless = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        DEVICES.iter().any(|device| name.starts_with(device))
    };
    entries.map(|entry| entry.path()).filter(is_harmless).collect()
}

/// Where its links lead.
fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// What of `path` is not hidden. Landlock takes nothing away from a folder that it has allowed, so
/// that of one with something hidden in it everything else is named.
fn shown(path: &Path, hidden: &[PathBuf]) -> Vec<PathBuf> {
    let path = real(path);
    if hidden.contains(&path) {
        return Vec::new();
    }
    if !hidden.iter().any(|hidden| hidden.starts_with(&path)) {
        return vec![path];
    }
    let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
    // What a link leads to is allowed where it lies, or is not.
    let is_itself = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|t| !t.is_symlink());
    entries.filter(is_itself).flat_map(|entry| shown(&entry.path(), hidden)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_left_out_and_what_is_named_inside_it_is_not() {
        let root = tempfile::tempdir().unwrap();
        let root = real(root.path());
        std::fs::create_dir_all(root.join("data/python")).unwrap();
        std::fs::create_dir_all(root.join("models/a")).unwrap();
        for file in ["data/journal", "models/key", "models/m"] {
            std::fs::write(root.join(file), "").unwrap();
        }
        std::os::unix::fs::symlink("../data/journal", root.join("models/link")).unwrap();
        let hidden = [root.join("data"), root.join("models/key")];
        let mut seen = shown(&root, &hidden);
        seen.sort();
        assert_eq!(seen, [root.join("models/a"), root.join("models/m")]);
        assert_eq!(shown(&root.join("data/python"), &hidden), [root.join("data/python")]);
        assert!(shown(&root.join("models/key"), &hidden).is_empty());
    }
}
