//! Threads that give way to those that answer queries.
//!
//! Architecture invariant: beside the allocator's, the only unsafe code is here.

use std::io;

use rustix::process::{getpriority_process, setpriority_process};

/// How long such a thread may keep a core that others want, ns: the least that the kernel takes.
///
/// Niceness alone does not make it leave: since Linux 6.6 a thread that wakes up waits until the
/// running one has had its slice, 3 ms, however nice that is.
const SLICE_NS: u64 = 100_000;
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
    /// Under `SCHED_OTHER` the slice, since Linux 6.12; passed over before.
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// The calling thread becomes as nice as that, 0 to 19, unless it is nicer already, and its turns
/// on a core become short. Where the system refuses the turns, it becomes nice all the same.
///
/// # Errors
/// The system refuses both; the thread stays as it is.
pub fn give_way(niceness: i32) -> io::Result<()> {
    let niceness = niceness.max(getpriority_process(None)?);
    set(libc::SCHED_OTHER, niceness).or_else(|_| Ok(setpriority_process(None, niceness)?))
}

/// The calling thread leaves its core at once to whoever wants it. Where all cores are busy it
/// stands still for seconds.
///
/// # Errors
/// As [`give_way`].
pub fn run_when_idle() -> io::Result<()> {
    set(libc::SCHED_IDLE, getpriority_process(None)?).or_else(|_| give_way(NICEST))
}

#[allow(unsafe_code, reason = "the C library has no function for it")]
fn set(policy: libc::c_int, nice: i32) -> io::Result<()> {
    const THIS_THREAD: libc::pid_t = 0;
    const NO_FLAGS: libc::c_uint = 0;
    let policy = policy.unsigned_abs();
    let (size, flags, priority, runtime, deadline, period) = (48, 0, 0, SLICE_NS, 0, 0);
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
}
