//! What a program may use and see: limits of the kernel on a process and what descends from it.
//!
//! A process sets them for itself and becomes the program, which cannot take them back. Nothing of
//! it needs privileges.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::fence::{Fence, FenceError};

/// What one process may use; what is not said is not limited further.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    pub address_space_bytes: Option<u64>,
    pub open_files: Option<u64>,
    /// Of its user, in all.
    pub processes: Option<u64>,
    pub cpu_seconds: Option<u64>,
}

/// As whom a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildUser {
    pub uid: u32,
    pub gid: u32,
}

/// Why a program was not started as it is to be.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    #[error("the limit of {what} cannot be set: {why}")]
    Limit { what: &'static str, why: Errno },
    #[error("it cannot run as another user: {0}")]
    User(Errno),
    #[error("the privileges of root cannot be given up: {0}")]
    Privileges(rustix::io::Errno),
    #[error(transparent)]
    Fence(#[from] FenceError),
    #[error("no program given")]
    NoProgram,
    #[error("cannot start {}: {why}", program.display())]
    Start { program: PathBuf, why: io::Error },
}

/// Becomes the program.
///
/// # Errors
/// It comes back only if it could not.
pub fn become_program(
    command: &[OsString],
    limits: &Limits,
    fence: Option<&Fence>,
    user: Option<ChildUser>,
) -> Result<Infallible, ConfineError> {
    let [program, arguments @ ..] = command else { return Err(ConfineError::NoProgram) };
    if let Some(fence) = fence {
        fence.put_up()?;
    }
    limits.set()?;
    if let Some(user) = user {
        user.become_it().map_err(ConfineError::User)?;
    }
    if fence.is_some() {
        drop_privileges().map_err(ConfineError::Privileges)?;
    }
    let why = Command::new(program).args(arguments).exec();
    Err(ConfineError::Start { program: program.into(), why })
}

/// A fence is none for who may look into any process, as root may. Behind it nobody gains what was
/// given up.
fn drop_privileges() -> Result<(), rustix::io::Errno> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets)
}

impl ChildUser {
    /// Without the groups of the user before it.
    fn become_it(self) -> Result<(), Errno> {
        setgroups(&[])?;
        setgid(Gid::from_raw(self.gid))?;
        setuid(Uid::from_raw(self.uid))
    }
}

impl Limits {
    fn set(&self) -> Result<(), ConfineError> {
        let all = [
            ("open files", Resource::RLIMIT_NOFILE, self.open_files),
            ("processes", Resource::RLIMIT_NPROC, self.processes),
            ("CPU time", Resource::RLIMIT_CPU, self.cpu_seconds),
            ("address space", Resource::RLIMIT_AS, self.address_space_bytes),
        ];
        for (what, resource, wanted) in all {
            let Some(wanted) = wanted else { continue };
            let failed = |why| ConfineError::Limit { what, why };
            // Never more than there is.
            let (_, most) = getrlimit(resource).map_err(failed)?;
            let limit = wanted.min(most);
            setrlimit(resource, limit, limit).map_err(failed)?;
        }
        Ok(())
    }
}
