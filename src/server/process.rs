//! What the server asks of the operating system about its own process: files and signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::error::StartError;
use crate::logging;
use clipper_config::Config;

/// Files of a process that does nothing yet: the journal, the listeners, the log, Redis.
const FILES_ALWAYS: u64 = 24;

/// Files of each thread with an event loop.
const FILES_PER_THREAD: u64 = 4;

/// Threads with an event loop beside those that are configured: control, RPC, signals, metrics,
/// management.
const OTHER_THREADS: u64 = 6;

/// A server that has not begun to stop so long after it was asked to is stuck, and is ended.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Every connection takes a file, and the usual soft limit of 1,024 is far below the connections
/// that the config allows. The hard limit is the operator's and stays.
///
/// # Errors
/// The hard limit does not even let the server start.
pub(super) fn raise_open_files_limit(config: &Config) -> Result<(), StartError> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    if let Err(error) = raised {
        warn!(%error, "the limit of open files cannot be raised");
    }
    let limit = if raised.is_ok() { hard } else { soft };
    let needed = files_needed(config);
    if limit < needed {
        return Err(StartError::OpenFiles { limit, needed });
    }
    Ok(())
}

fn files_needed(config: &Config) -> u64 {
    let threads = (config.http.workers() + config.serving.data_threads) as u64 + OTHER_THREADS;
    FILES_ALWAYS + FILES_PER_THREAD * threads
}

/// Whether somebody has asked the server to stop.
///
/// Signals are heard on a thread of their own, so that a start that hangs can be stopped as well.
#[derive(Debug, Clone)]
pub(super) struct StopRequest {
    asked: watch::Receiver<bool>,
    has_begun: Arc<AtomicBool>,
    reloads: watch::Receiver<u64>,
}

impl StopRequest {
    /// Listens from now on. A signal that was ignored when the process was started stays ignored:
    /// `nohup` ignores SIGHUP, a shell SIGINT of what runs in its background.
    ///
    /// SIGHUP has two meanings: a terminal sends it when it is closed, and an operator to have the
    /// config file read again. It is the latter for a process that has a file and no terminal.
    ///
    /// # Errors
    /// Signals cannot be handled.
    pub(super) fn listen(has_file: bool) -> Result<Self, StartError> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let signals: Vec<Signal> = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
            .into_iter()
            .filter(|signal| !is_ignored(&status, *signal))
            .collect();
        let (ask, asked) = watch::channel(false);
        let (reload, reloads) = watch::channel(0);
        let reload = (has_file && !has_terminal()).then_some(reload);
        let has_begun = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let begun = Arc::clone(&has_begun);
        let thread = std::thread::Builder::new().name("signals".to_owned()).stack_size(256 << 10);
        thread
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let result = runtime.and_then(|runtime| {
                    let _inside = runtime.enter();
                    let heard = hear(&signals)?;
                    let _ = ready.send(Ok(()));
                    runtime.block_on(attend(heard, &ask, &begun, reload.as_ref()));
                    Ok(())
                });
                if let Err(error) = result {
                    let _ = ready.send(Err(error));
                }
            })
            .map_err(StartError::Signals)?;
        match is_ready.recv() {
            Ok(result) => result.map_err(StartError::Signals)?,
            Err(error) => return Err(StartError::Signals(std::io::Error::other(error))),
        }
        Ok(Self { asked, has_begun, reloads })
    }

    /// Counts how often the config file is to be read again.
    pub(super) fn reloads(&self) -> watch::Receiver<u64> {
        self.reloads.clone()
    }

    /// Done when the process is asked to stop, with which the stop begins.
    pub(super) async fn begins(&mut self) {
        if self.asked.wait_for(|asked| *asked).await.is_err() {
            // The thread lives as long as the process.
            std::future::pending::<()>().await;
        }
        self.has_begun.store(true, Ordering::Release);
    }
}

/// The signals as they come, each with its number.
type Heard = tokio::sync::mpsc::Receiver<i32>;

fn hear(signals: &[Signal]) -> std::io::Result<Heard> {
    let (tell, heard) = tokio::sync::mpsc::channel(4);
    for kind in signals {
        let number = *kind as i32;
        let mut stream = signal(SignalKind::from_raw(number))?;
        let tell = tell.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                // Nobody needs more than a few.
                let _ = tell.try_send(number);
            }
        });
    }
    Ok(heard)
}

/// Whether the process would end with a terminal.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// The first signal asks for a stop, a second SIGTERM or SIGINT ends the process at once.
async fn attend(
    mut heard: Heard,
    ask: &watch::Sender<bool>,
    has_begun: &AtomicBool,
    reload: Option<&watch::Sender<u64>>,
) {
    loop {
        match (heard.recv().await, reload) {
            (None, _) => return std::future::pending().await,
            (Some(number), Some(reload)) if number == Signal::SIGHUP as i32 => {
                reload.send_modify(|count| *count += 1);
            }
            (Some(_), _) => break,
        }
    }
    ask.send_replace(true);
    let again = async {
        loop {
            match heard.recv().await {
                Some(number) if number != Signal::SIGHUP as i32 => return number,
                Some(_) => {}
                None => return std::future::pending().await,
            }
        }
    };
    let stuck = async {
        tokio::time::sleep(STOP_PATIENCE).await;
        if has_begun.load(Ordering::Acquire) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        number = again => {
            info!("asked to stop a second time: ended at once");
            end_now(128 + number);
        }
        () = stuck => {
            error!("asked to stop {STOP_PATIENCE:?} ago and stuck: ended at once");
            end_now(1);
        }
    }
}

/// Children see their lifelines close.
#[allow(clippy::disallowed_methods, reason = "what should run destructors does not come to it")]
fn end_now(code: i32) {
    logging::flush();
    std::process::exit(code);
}

/// Reads `SigIgn` of `/proc/self/status`: a mask in which the lowest bit is signal 1.
fn is_ignored(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal as i32 - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_is_ignored_is_in_the_mask() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001003\nSigCgt:\t0\n";
        assert!(is_ignored(status, Signal::SIGHUP));
        assert!(is_ignored(status, Signal::SIGINT));
        assert!(!is_ignored(status, Signal::SIGTERM));
        assert!(!is_ignored("", Signal::SIGHUP));
    }
}
