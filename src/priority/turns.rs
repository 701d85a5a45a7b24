//! How soon the calling thread gets a core, and how much of it.

/// Of what nobody waits for who asks for a prediction, as of `nice`: management, the journal's
/// past, what pages and scrapes are told, the export of traces.
///
/// Where all cores are busy such a thread gets a tenth of one, or less. So it holds no lock that
/// answers, feedback or changes need but to copy a pointer or a few thousand bytes: what it reads
/// is a copy, or shared and never locked while it is read.
pub const BACKGROUND: i32 = 10;

/// Lets this thread, and those that it starts, have a core as soon as they want it: for the first
/// one of a server. Others give way ([`give_way`]).
pub fn come_first() {
    told(clipper_priority::come_first());
}

/// Lets those who answer queries have this thread's core when they want it.
pub fn give_way(niceness: i32) {
    told(clipper_priority::give_way(niceness));
}

/// Does what makes a process that is no part of the server: it has the turns of other programs.
pub fn as_others<T>(start: impl FnOnce() -> T) -> T {
    told(clipper_priority::have_usual_turns());
    let started = start();
    come_first();
    started
}

fn told(outcome: std::io::Result<()>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}
