//! Threads and processes that give way to those that answer queries.
//!
//! Niceness alone says how much of a core a thread gets, not how soon. Since Linux 6.12 a thread
//! that wakes up takes the core at once from one whose turns are longer, and otherwise waits until
//! the turn is over, 3 ms, however nice that one is. So those that give way have long turns.
//!
//! Whoever wakes up is sent to a core where nobody is, and may queue there beside another one; one
//! where only `SCHED_IDLE` is counts as such. That costs others least, and stands still for seconds
//! where all cores are busy.
//!
//! Architecture invariant: beside the allocator's, the only unsafe code is here.

use std::io;
use std::time::Duration;

use rustix::process::{Pid, getpriority_process, setpriority_pgrp, setpriority_process};
use rustix::time::{ClockId, clock_gettime};

/// Of a thread that gives way, ns: long beside those of anybody who does not ask, 3 ms or less.
const LONG_TURN_NS: u64 = 20_000_000;
/// As nice as a thread can be.
const NICEST: i32 = 19;

/// `struct sched_attr` of `sched_setattr(2)` in its first version, which all kernels take.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// Of threads without a deadline the length of a turn, since Linux 6.12; passed over before.
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// The calling thread becomes as nice as that, 0 to 19, unless it is nicer already, and leaves its
/// core at once to whoever wants it and does not give way. Where the system knows no turns, it
/// becomes nice all the same.
///
/// # Errors
/// The system refuses both; the thread stays as it is.
pub fn give_way(niceness: i32) -> io::Result<()> {
    let niceness = niceness.max(getpriority_process(None)?);
    set(None, niceness).or_else(|_| Ok(setpriority_process(None, niceness)?))
}

/// The calling thread takes a core that has nothing else to do; where there is none it stands
/// still.
///
/// # Errors
/// As [`give_way`].
pub fn run_when_idle() -> io::Result<()> {
    set(Some(libc::SCHED_IDLE), getpriority_process(None)?).or_else(|_| give_way(NICEST))
}

/// A group of processes, and all that they start from now on, becomes nicer than the calling thread
/// by so much. Their turns stay as they are: they share cores with each other.
///
/// # Errors
/// There is no such group, or it is somebody else's.
pub fn make_group_nicer(group: i32, by: i32) -> io::Result<()> {
    let niceness = getpriority_process(None)?.saturating_add(by);
    Ok(setpriority_pgrp(Pid::from_raw(group), niceness)?)
}

/// How long the calling thread has had a core, since it began.
#[must_use]
pub fn worked() -> Duration {
    let worked = clock_gettime(ClockId::ThreadCPUTime);
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    Duration::from_secs(part(worked.tv_sec)) + Duration::from_nanos(part(worked.tv_nsec))
}

/// Another policy, or that of whoever started the process.
#[allow(unsafe_code, reason = "the C library has no function for it")]
fn set(policy: Option<libc::c_int>, nice: i32) -> io::Result<()> {
    const THIS_THREAD: libc::pid_t = 0;
    const NO_FLAGS: libc::c_uint = 0;
    /// `SCHED_FLAG_KEEP_POLICY`.
    const KEEP_POLICY: u64 = 0x08;
    let flags = if policy.is_none() { KEEP_POLICY } else { 0 };
    let policy = policy.unwrap_or_default().unsigned_abs();
    let (size, priority, runtime, deadline, period) = (48, 0, LONG_TURN_NS, 0, 0);
    let attributes = Attributes { size, policy, flags, nice, priority, runtime, deadline, period };
    // SAFETY: the kernel reads `size` bytes, which the struct has, and keeps no pointer.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            THIS_THREAD,
            std::ptr::from_ref(&attributes),
            NO_FLAGS,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn niceness() -> i32 {
        getpriority_process(None).unwrap()
    }

    /// Of the calling thread, ns, where the kernel tells.
    fn turn_ns() -> Option<u64> {
        let told = std::fs::read_to_string("/proc/thread-self/sched").ok()?;
        let line = told.lines().find(|line| line.starts_with("se.slice"))?;
        line.rsplit(':').next()?.trim().parse().ok()
    }

    #[test]
    fn a_thread_becomes_nicer_and_its_siblings_do_not() {
        let before = niceness();
        let there = std::thread::spawn(|| {
            give_way(15).unwrap();
            give_way(5).unwrap();
            niceness()
        });
        assert_eq!(there.join().unwrap(), before.max(15), "and never less nice");
        assert_eq!(niceness(), before);
        assert_eq!(size_of::<Attributes>(), 48);
    }

    #[test]
    fn a_thread_that_gives_way_has_long_turns() {
        std::thread::spawn(|| {
            let Some(usual) = turn_ns() else { return };
            give_way(10).unwrap();
            assert_eq!(turn_ns(), Some(LONG_TURN_NS));
            assert!(usual < LONG_TURN_NS, "{usual}");
        })
        .join()
        .unwrap();
    }
}
