//! A load generator for `POST /{app}/predict`, built as a measuring instrument.
//!
//! Closed loop: each connection sends its next request when it has its answer. Open loop: requests
//! have times of their own, whatever the server does. A latency counts from the time at which its
//! request was meant to start, so that a server that stalls cannot hide what it kept waiting.
//!
//! [`run`] measures one [`Plan`]; [`search::GoodputSearch`] looks for the highest rate answered in
//! time; [`report::Report`] is what was seen.

pub mod inputs;
mod load;
mod pacing;
pub mod plot;
pub mod record;
pub mod report;
pub mod search;
mod wire;

use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use inputs::{InputPlan, InputSource};
use record::Recorder;
use report::Report;

/// Pause between two calls of [`run`]'s progress function.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// When requests of an open loop start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// At random, independently of each other, as from many users.
    Poisson,
    /// Evenly.
    Constant,
}

/// How requests follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// Each connection waits for its answer.
    Closed,
    /// Requests start at their own times.
    Open {
        /// Requests per second.
        rate: f64,
        /// Their spacing.
        arrivals: Arrivals,
    },
}

/// Where requests go.
#[derive(Debug, Clone)]
pub struct Target {
    /// The server's address.
    pub addr: SocketAddr,
    /// For the `Host` header.
    pub host: String,
    /// The application.
    pub app: String,
}

/// One measurement.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where requests go.
    pub target: Target,
    /// What they carry.
    pub inputs: InputPlan,
    /// How they follow each other.
    pub load: Load,
    /// Connections that carry requests; in an open loop the most requests under way.
    pub connections: usize,
    /// Further connections that are held open and silent.
    pub idle_connections: usize,
    /// Threads of the generator.
    pub threads: usize,
    /// Time under load before anything is counted.
    pub warmup: Duration,
    /// Time that is counted.
    pub duration: Duration,
    /// A request without an answer after this has failed.
    pub timeout: Duration,
    /// The objective that goodput is counted against.
    pub slo: Duration,
    /// Decides arrivals and inputs.
    pub seed: u64,
}

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The server cannot be reached, or a thread not be started.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Latencies cannot be counted.
    #[error("cannot count latencies: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// A thread of the generator ended before its time.
    #[error("a thread of the load generator died")]
    ThreadDied,
}

impl BenchError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// How far a measurement is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Requests with an answer, warmup included.
    pub answered: u64,
    /// Requests that failed.
    pub failed: u64,
}

/// What the threads share: counts for the progress display and the source of input numbers.
#[derive(Debug)]
struct Shared {
    answered: AtomicU64,
    failed: AtomicU64,
    source: InputSource,
    /// All threads have their connections when they pass it.
    connected: Barrier,
}

/// Makes one measurement; `progress` is called twice a second.
///
/// Takes warmup, duration and at most twice the timeout.
///
/// # Errors
/// See [`BenchError`]. Requests that fail are counted, not errors.
pub fn run(plan: &Plan, mut progress: impl FnMut(Progress)) -> Result<Report, BenchError> {
    let threads = plan.threads.clamp(1, plan.connections.max(1));
    let shared = Shared {
        answered: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        source: InputSource::new(&plan.inputs, plan.seed),
        connected: Barrier::new(threads),
    };
    let recorder = std::thread::scope(|scope| {
        let (done, results) = channel();
        for thread in 0..threads {
            let (done, shared) = (done.clone(), &shared);
            let share = load::Share { index: thread, of: threads };
            scope.spawn(move || {
                // The receiver is gone only when another thread has failed already.
                let _ = done.send(load::drive(plan, share, shared));
            });
        }
        drop(done);
        let mut total = Recorder::new()?;
        let mut waiting = threads;
        while waiting > 0 {
            match results.recv_timeout(PROGRESS_INTERVAL) {
                Ok(result) => {
                    total.add(&result?);
                    waiting -= 1;
                }
                Err(RecvTimeoutError::Timeout) => progress(Progress {
                    answered: shared.answered.load(Ordering::Relaxed),
                    failed: shared.failed.load(Ordering::Relaxed),
                }),
                Err(RecvTimeoutError::Disconnected) => return Err(BenchError::ThreadDied),
            }
        }
        Ok(total)
    })?;
    Ok(Report::new(plan, &recorder))
}

#[allow(clippy::cast_precision_loss, reason = "counts above 2^53 lose their last digits only")]
fn float(count: u64) -> f64 {
    count as f64
}
