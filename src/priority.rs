//! Threads that give way to those that answer queries.

/// Of what nobody waits for who asks for a prediction, as of `nice`: management, the journal's
/// past, the export of traces.
///
/// Where all cores are busy such a thread gets a tenth of one, or less. So it holds no lock that
/// answers, feedback or changes need but to copy a pointer or a few thousand bytes: what it reads
/// is a copy, or shared and never locked while it is read.
pub const BACKGROUND: i32 = 10;

/// Leaves this thread's core at once to whoever wants it: for what another thread does as well
/// where no core has time for it. What is said of [`BACKGROUND`] holds all the more.
pub fn run_when_idle() {
    if let Err(error) = clipper_priority::run_when_idle() {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

/// Lets those who answer queries have this thread's core when they want it.
pub fn give_way(niceness: i32) {
    if let Err(error) = clipper_priority::give_way(niceness) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}
