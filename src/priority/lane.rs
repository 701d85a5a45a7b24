//! Threads that give way, for work that would hold up those that answer queries.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};

use super::turns::{BACKGROUND, give_way, run_when_idle};
use clipper_clock::{self as clock, Instant};

/// A thread of the pool ends after so long without work.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Why work has not been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undone {
    /// Others were before it for as long as it could wait.
    Crowded,
    /// It has begun, and was not done in time. It goes on, and has its thread until it ends.
    Overdue,
    /// It panicked, or the threads end.
    Broken,
}

/// Threads of one priority. What they do not get done waits; dropping it ends them.
#[derive(Debug)]
pub struct Lane {
    /// Only for its blocking threads; `None` while it is dropped.
    threads: Option<Runtime>,
    free: Arc<Semaphore>,
}

impl Lane {
    fn begun_by(
        threads: usize,
        name: &str,
        begin: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .thread_name(name)
            .max_blocking_threads(threads)
            .thread_keep_alive(KEEP_ALIVE)
            .on_thread_start(begin)
            .build()?;
        let free = Arc::new(Semaphore::new(threads));
        Ok(Self { threads: Some(runtime), free })
    }

    /// At most `threads`, as nice as that.
    ///
    /// # Errors
    /// The system has no room for a runtime.
    pub fn new(threads: usize, name: &str, niceness: i32) -> std::io::Result<Self> {
        Self::begun_by(threads, name, move || give_way(niceness))
    }

    /// Where a core has nothing else to do.
    ///
    /// # Errors
    /// The system has no room for a runtime.
    pub fn idle(threads: usize, name: &str) -> std::io::Result<Self> {
        Self::begun_by(threads, name, run_when_idle)
    }

    /// For what nobody waits for who asks for a prediction.
    ///
    /// # Errors
    /// The system has no room for a runtime.
    pub fn background(threads: usize, name: &str) -> std::io::Result<Self> {
        Self::new(threads, name, BACKGROUND)
    }

    /// What `work` gives, whenever a thread is free. `None`: it panicked, or the threads end.
    pub async fn done<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.run(None, work).await.ok().map(|(done, _)| done)
    }

    /// What `work` gives and how long it took, if that is there by `until`.
    ///
    /// # Errors
    /// See [`Undone`].
    pub async fn run<T: Send + 'static>(
        &self,
        until: Option<Instant>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(T, Duration), Undone> {
        let thread = by(until, Arc::clone(&self.free).acquire_owned()).await;
        let thread = thread.ok_or(Undone::Crowded)?.map_err(|_| Undone::Broken)?;
        let (tell, told) = oneshot::channel();
        let timed = move || {
            let _thread = thread;
            let start = clock::now();
            let done = work();
            let took = clock::now().saturating_duration_since(start);
            // Who has gone meanwhile does not get it, and the thread has worked all the same.
            let _ = tell.send((done, took));
        };
        self.threads.as_ref().ok_or(Undone::Broken)?.spawn_blocking(timed);
        by(until, told).await.ok_or(Undone::Overdue)?.map_err(|_| Undone::Broken)
    }
}

/// What comes of `work`, if it is done by `until`.
async fn by<T>(until: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match until {
        Some(until) => tokio::time::timeout_at(until, work).await.ok(),
        None => Some(work.await),
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            // Not by waiting: this may be an HTTP worker's thread.
            threads.shutdown_background();
        }
    }
}

#[cfg(test)]
impl Lane {
    /// Whether one of its threads has nothing to do.
    pub fn has_free(&self) -> bool {
        self.free.available_permits() > 0
    }
}
