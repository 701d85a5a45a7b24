//! A load generator for `POST /{app}/predict` and the Open Inference Protocol, built as a measuring
//! instrument.
//!
//! Closed loop: each connection sends its next request when it has its answer. Open loop: requests
//! have times of their own, whatever the server does. A latency counts from the time at which its
//! request was meant to start, so that a server that stalls cannot hide what it kept waiting.
//!
//! [`run`] measures one [`Plan`]; [`search::GoodputSearch`] looks for the highest rate answered in
//! time; [`report::Report`] is what was seen.

mod error;
mod float;
pub mod inputs;
mod load;
mod pacing;
mod plan;
pub mod plot;
pub mod record;
pub mod report;
mod requests;
pub mod search;
mod shared;
pub mod signature;
mod wire;

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

pub use self::error::BenchError;
pub use self::plan::{Arrivals, Load, Plan, Target};

use self::inputs::InputSource;
use self::record::Recorder;
use self::report::Report;
use self::shared::SharedCounts;

/// Pause between two calls of [`run`]'s progress function.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// How far a measurement is.
#[derive(Debug, Clone, Copy)]
pub struct BenchProgress {
    /// Requests with an answer, warmup included.
    pub answered: u64,
    pub failed: u64,
}

/// Makes one measurement; `progress` is called twice a second.
///
/// Takes warmup, duration and at most twice the timeout.
///
/// # Errors
/// See [`BenchError`]. Requests that fail are counted, not errors.
pub fn run(plan: &Plan, mut progress: impl FnMut(BenchProgress)) -> Result<Report, BenchError> {
    let threads = plan.threads.clamp(1, plan.connections.max(1));
    let shared = SharedCounts {
        answered: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        source: InputSource::new(&plan.inputs, plan.seed),
        connected: Barrier::new(threads),
    };
    let recorder = std::thread::scope(|scope| {
        let (done, results) = channel();
        for thread in 0..threads {
            let (done, shared) = (done.clone(), &shared);
            let share = load::ThreadShare { index: thread, of: threads };
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
                Err(RecvTimeoutError::Timeout) => progress(BenchProgress {
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
