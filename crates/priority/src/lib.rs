//! Threads that give way to those that answer queries.
//!
//! Niceness alone says how much of a core a thread gets, not how soon. Since Linux 6.12 a thread
//! that wakes up takes the core at once from one whose turns are longer, and otherwise waits until
//! the turn is over, 3 ms, however nice that one is. So those that give way have long turns. Under
//! `SCHED_IDLE` they would leave as soon, and stand still for seconds where all cores are busy.
//!
//! Architecture invariant: beside the allocator's, the only unsafe code is here.

use std::io;

use rustix::process::{getpriority_process, setpriority_process};

/// Of a thread that gives way, ns: long beside those of anybody who does not ask, 3 ms or less.
const LONG_TURN_NS: u64 = 20_000_000;

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
    set(niceness, LONG_TURN_NS).or_else(|_| Ok(setpriority_process(None, niceness)?))
}

#[allow(unsafe_code, reason = "the C library has no function for it")]
fn set(nice: i32, turn_ns: u64) -> io::Result<()> {
    const THIS_THREAD: libc::pid_t = 0;
    const NO_FLAGS: libc::c_uint = 0;
    /// `SCHED_FLAG_KEEP_POLICY`: that of whoever started the process.
    const KEEP_POLICY: u64 = 0x08;
    let (size, policy, priority, deadline, period) = (48, 0, 0, 0, 0);
    let attributes = Attributes {
        size,
        policy,
        flags: KEEP_POLICY,
        nice,
        priority,
        runtime: turn_ns,
        deadline,
        period,
    };
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
