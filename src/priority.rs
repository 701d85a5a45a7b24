//! Threads that give way to those that answer queries.

use thread_priority::ThreadPriority;
use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

/// Of what answers nobody who waits, as of `nice`: management, the export of traces.
pub const BACKGROUND: i32 = 10;

/// Gives this thread a lower priority, as `nice` does.
pub fn give_way(niceness: i32) {
    if let Err(error) = rustix::process::setpriority_process(None, niceness) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

/// Gives this thread's core to whoever else wants it, at once. Low priority alone would not: since
/// Linux 6.6 a thread that wakes up waits until the one that runs has had its slice, 3 ms.
///
/// On a busy machine such a thread stands still for seconds. So it may hold no lock that answers,
/// feedback or changes need but for as long as a pointer takes to be copied: what it reads is a
/// copy, or shared and never locked while it is read.
pub fn run_when_idle() {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let priority = ThreadPriority::Min;
    // It also fails where the niceness of who began this thread may not be taken back; then that is
    // done, and nothing is lost.
    if set_thread_priority_and_policy(thread_native_id(), priority, idle).is_err() {
        give_way(19);
    }
}
