//! How soon the calling thread gets a core, and how much of it.

/// Of what nobody waits for who asks for a prediction, as of `nice`: management, the journal's
/// past, what pages and scrapes are told, the export of traces.
///
/// Where all cores are busy such a thread gets a tenth of one, or less. So it holds no lock that
/// answers, feedback or changes need but to copy a pointer or a few thousand bytes: what it reads
/// is a copy, or shared and never locked while it is read.
pub const BACKGROUND: i32 = 10;

/// Lets those who answer queries have this thread's core when they want it.
pub fn give_way(niceness: i32) {
    told(clipper_priority::give_way(niceness));
}

/// Takes only a core that nobody wants: for what another thread does as well where there is none.
/// What is said of [`BACKGROUND`] holds all the more.
pub fn run_when_idle() {
    told(clipper_priority::run_when_idle());
}

fn told(outcome: std::io::Result<()>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}
