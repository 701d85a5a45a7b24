//! The table of processes: who descends from whom, and how to end all of them.
//!
//! A process group holds what a program starts, unless that leaves the group (`setsid`). What has
//! left is found by its ancestors: a process that is its descendants' reaper stays one of them,
//! even when those between have ended. Without `/proc` only groups are ended.

use std::os::fd::RawFd;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// Rounds of killing what is left: a program that starts processes all the time could win one.
const KILL_ROUNDS: u32 = 100;

/// Between two of them.
const KILL_PAUSE: Duration = Duration::from_millis(10);

/// A process as the table shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: Pid,
    /// That of its parent.
    pub parent: Pid,
    /// It has ended and waits for its parent to ask.
    pub is_zombie: bool,
}

/// Every process there is; none where there is no `/proc`.
#[must_use]
pub fn all() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name());
    let pids = names.filter_map(|name| name.to_str()?.parse::<i32>().ok());
    let stat = |pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    pids.filter_map(|pid| parse_stat(pid, &stat(pid)?)).collect()
}

/// `PID (NAME) STATE PARENT ...`; a name may hold anything, parentheses too.
fn parse_stat(pid: i32, stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    let parent = Pid::from_raw(fields.next()?.parse().ok()?);
    Some(Process { pid: Pid::from_raw(pid), parent, is_zombie })
}

/// The processes below `ancestor`, parents before their children.
#[must_use]
pub fn descendants(ancestor: Pid) -> Vec<Process> {
    below(ancestor, all())
}

fn below(ancestor: Pid, mut others: Vec<Process>) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    let mut parent = ancestor;
    let mut at = 0;
    loop {
        let (children, rest) = others.into_iter().partition(|process| process.parent == parent);
        others = rest;
        found.extend::<Vec<_>>(children);
        let Some(next) = found.get(at) else { return found };
        parent = next.pid;
        at += 1;
    }
}

/// Makes this process the parent of what its descendants leave behind, so that it finds them.
pub fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        tracing::debug!(%error, "orphans cannot be adopted");
    }
}

/// Sends a signal to a process group. An error means that the group is gone, which is what was
/// wanted.
pub fn signal_group(group: Pid, signal: Signal) {
    let _ = killpg(group, signal);
}

/// Sends a signal to the group and to everything below `ancestor`.
pub fn signal_tree(ancestor: Pid, group: Pid, signal: Signal) {
    signal_group(group, signal);
    for process in descendants(ancestor) {
        // It may have ended meanwhile.
        let _ = kill(process.pid, signal);
    }
}

/// Kills what `doomed` picks until nothing of it is left; reaps those that are this process's
/// children.
pub async fn kill_all(doomed: impl Fn() -> Vec<Process>) {
    for _ in 0..KILL_ROUNDS {
        let mut is_left = false;
        for process in doomed() {
            if process.is_zombie {
                reap(process.pid);
            } else {
                is_left = true;
                let _ = kill(process.pid, Signal::SIGKILL);
            }
        }
        if !is_left {
            return;
        }
        tokio::time::sleep(KILL_PAUSE).await;
    }
    tracing::debug!("processes are left that do not end");
}

/// Asks for the end of an adopted child, which nobody else does. Nothing happens if it is somebody
/// else's child.
pub fn reap(pid: Pid) {
    let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
}

/// Closes every file beyond stdin, stdout and stderr that whoever started this process left open:
/// a container needs none. To be called before anything is opened.
pub fn close_inherited_files() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let names = entries.flatten().map(|entry| entry.file_name());
    let files: Vec<RawFd> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    for file in files.into_iter().filter(|file| *file > 2) {
        // The one that listed them is closed already.
        let _ = nix::unistd::close(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        Process { pid: Pid::from_raw(pid), parent: Pid::from_raw(parent), is_zombie: false }
    }

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_parent() {
        let stat = "42 (a) Z 7 (b)) S 17 42 42 0 -1";
        assert_eq!(parse_stat(42, stat), Some(process(42, 17)));
        assert!(parse_stat(42, "42 (sh) Z 1 1").unwrap().is_zombie);
        assert_eq!(parse_stat(42, "garbage"), None);
    }

    #[test]
    fn descendants_are_all_below_and_nobody_else() {
        let table = vec![process(9, 5), process(2, 1), process(5, 3), process(3, 1), process(8, 2)];
        let below_one: Vec<i32> =
            below(Pid::from_raw(3), table).iter().map(|process| process.pid.as_raw()).collect();
        assert_eq!(below_one, [5, 9]);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let own = nix::unistd::getpid();
        assert!(all().iter().any(|process| process.pid == own));
    }
}
