//! What the server asks of the operating system about its own process.

use tracing::warn;

/// Every connection takes a file, and the usual soft limit of 1,024 is far below the connections
/// that the config allows. The hard limit is the operator's and stays.
pub(super) fn raise_open_files_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!(%error, "the limit of open files cannot be raised");
    }
}

/// A future that is done when the process is asked to stop. The handlers are in place on return.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()>, String> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|e| format!("cannot handle signals: {e}"));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            // The terminal it was started in is gone.
            _ = hup.recv() => {}
        }
    })
}
