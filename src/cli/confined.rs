//! `clipper container confined`: a program within limits, as the server starts those of models.

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::PathBuf;

use super::value::Expected;
use clap::Args;
use clipper_container::confine::{ChildUser, ConfineError, Limits, become_program};
use clipper_container::fence::Fence;

/// `clipper container confined -- PROGRAM ARGS...`
#[derive(Debug, Clone, Args)]
pub struct ConfinedArgs {
    /// Address space of each process.
    #[arg(long, value_name = "BYTES")]
    address_space_max_bytes: Option<u64>,
    /// Files that each process may have open.
    #[arg(long, value_name = "N")]
    open_files_max: Option<u64>,
    /// Processes and threads of its user, all together.
    #[arg(long, value_name = "N")]
    processes_max: Option<u64>,
    /// CPU time after which a process is killed.
    #[arg(long, value_name = "S")]
    cpu_seconds_max: Option<u64>,
    /// As whom it runs; only root can.
    #[arg(long, value_name = "UID:GID", value_parser = user)]
    user: Option<ChildUser>,
    /// Have the kernel keep it from files that are not named (Landlock): try, or required, which
    /// fails where the kernel cannot.
    #[arg(long, value_name = "HOW", value_parser = ["try", "required"])]
    landlock: Option<String>,
    /// A file or folder that it reads, beside the system's.
    #[arg(long, value_name = "PATH", requires = "landlock")]
    read: Vec<PathBuf>,
    /// One that it changes.
    #[arg(long, value_name = "PATH", requires = "landlock")]
    write: Vec<PathBuf>,
    /// One inside those that it does not see.
    #[arg(long, value_name = "PATH", requires = "landlock")]
    hide: Vec<PathBuf>,
    /// A port to which it may connect by TCP, and to no other.
    #[arg(long, value_name = "PORT", requires = "landlock")]
    connect_port: Vec<u16>,
    /// Program and arguments.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

fn user(text: &str) -> Result<ChildUser, Expected> {
    let (uid, gid) = text.split_once(':').unwrap_or_default();
    match (uid.parse(), gid.parse()) {
        (Ok(uid), Ok(gid)) => Ok(ChildUser { uid, gid }),
        _ => Err(Expected::new("two numbers, UID:GID".to_owned())),
    }
}

impl ConfinedArgs {
    /// Becomes the program.
    pub(super) fn run(self) -> Result<Infallible, ConfineError> {
        let limits = Limits {
            address_space_bytes: self.address_space_max_bytes,
            open_files: self.open_files_max,
            processes: self.processes_max,
            cpu_seconds: self.cpu_seconds_max,
        };
        let fence = self.landlock.map(|how| Fence {
            read: self.read,
            write: self.write,
            hidden: self.hide,
            ports: (!self.connect_port.is_empty()).then_some(self.connect_port),
            is_required: how == "required",
        });
        become_program(&self.command, &limits, fence.as_ref(), self.user)
    }
}
