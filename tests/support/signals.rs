//! Signals to processes under test.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::served::until;

/// A process that is told to stop has stopped afterwards, with all its threads: until one of them
/// has its turn on a core, all go on.
pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    if signal == Signal::SIGSTOP {
        until("every thread has stopped", || has_stopped(pid).then_some(()));
    }
}

/// Also if it has ended meanwhile.
fn has_stopped(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    tasks.flatten().all(|task| {
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { return true };
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['T', 'Z', 'X']))
    })
}
