//! Long parsing, away from the threads that answer queries.
//!
//! One HTTP worker answers for many applications: while it parses a body of 16 MB, nobody else is
//! answered (invariant P1). So a body that takes longer than `http.parse_slice_us` is parsed on
//! one of a few threads of low priority, which the system shares among the bodies. How long it
//! takes is known from the bodies before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use clipper_clock as clock;

/// Of a thread of the pool, as of `nice`: whoever answers queries comes first.
const NICENESS: i32 = 15;
/// A thread of the pool ends after so long without work.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How quickly bodies are parsed, as far as known. Pure.
#[derive(Debug)]
pub struct Pace {
    bytes_per_ms: AtomicU64,
}

/// Slower than a small machine, until something has been measured.
const FIRST_BYTES_PER_MS: u64 = 20_000;
/// The bounds of what is believed.
const BYTES_PER_MS: (u64, u64) = (500, 1_000_000);

impl Default for Pace {
    fn default() -> Self {
        Self { bytes_per_ms: AtomicU64::new(FIRST_BYTES_PER_MS) }
    }
}

impl Pace {
    /// So many bytes took so long.
    pub fn observe(&self, bytes: usize, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let seen = (bytes as u64).saturating_mul(1_000) / micros;
        let seen = seen.clamp(BYTES_PER_MS.0, BYTES_PER_MS.1);
        let before = self.bytes_per_ms.load(Ordering::Relaxed);
        // An eighth of each: one body that was disturbed does not decide.
        self.bytes_per_ms.store(before - before / 8 + seen / 8, Ordering::Relaxed);
    }

    /// Bytes that are parsed within `slice`.
    #[must_use]
    pub fn bytes_within(&self, slice: Duration) -> usize {
        let micros = u64::try_from(slice.as_micros()).unwrap_or(u64::MAX);
        let bytes = self.bytes_per_ms.load(Ordering::Relaxed).saturating_mul(micros) / 1_000;
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

/// Where long bodies are parsed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Parsing(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    /// Only for its blocking threads; `None` while it is dropped.
    threads: Option<Runtime>,
    slice: Duration,
    pace: Pace,
}

impl Parsing {
    /// At most `threads` at a time; a body that is parsed within `slice` does not need them.
    ///
    /// # Errors
    /// The system has no room for a runtime.
    pub fn new(threads: usize, slice: Duration) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .thread_name("http-parse")
            .max_blocking_threads(threads)
            .thread_keep_alive(KEEP_ALIVE)
            .on_thread_start(|| {
                if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
                    tracing::debug!(%error, "a parsing thread keeps its priority");
                }
            })
            .build()?;
        Ok(Self(Arc::new(Pool { threads: Some(runtime), slice, pace: Pace::default() })))
    }

    /// Whether a body of so many bytes is to be parsed here.
    #[must_use]
    pub fn is_long(&self, bytes: usize) -> bool {
        bytes > self.0.pace.bytes_within(self.0.slice)
    }

    /// Does other long work of requests there; `None`: it panicked, or the pool ends.
    pub async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.0.threads.as_ref()?.spawn_blocking(work).await.ok()
    }

    /// Parses a body of so many bytes; `None`: the parser panicked, or the pool ends.
    pub async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        parse: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let timed = move || {
            let start = clock::now();
            let parsed = parse();
            (parsed, clock::now().saturating_duration_since(start))
        };
        let (parsed, took) = self.aside(timed).await?;
        self.0.pace.observe(bytes, took);
        Some(parsed)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            // Not by waiting: this may be an HTTP worker's thread.
            threads.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_into_a_slice_follows_what_was_measured() {
        let (pace, slice) = (Pace::default(), Duration::from_millis(2));
        assert_eq!(pace.bytes_within(slice), 40_000);
        for _ in 0..100 {
            pace.observe(1_000_000, Duration::from_millis(10));
        }
        let bytes = pace.bytes_within(slice);
        assert!((199_000..=200_000).contains(&bytes), "{bytes}");
        pace.observe(1_000_000, Duration::from_secs(100));
        let bytes = pace.bytes_within(slice);
        assert!(bytes > 150_000, "one disturbed body: {bytes}");
        pace.observe(0, Duration::ZERO);
        assert!(pace.bytes_within(Duration::ZERO) == 0);
    }

    #[tokio::test]
    async fn long_bodies_are_parsed_and_a_panic_is_only_theirs() {
        let parsing = Parsing::new(2, Duration::from_millis(1)).unwrap();
        assert!(parsing.is_long(1 << 20) && !parsing.is_long(100));
        assert_eq!(parsing.run(3, || 7).await, Some(7));
        assert_eq!(parsing.run(3, || -> u8 { panic!("a test") }).await, None);
        assert_eq!(parsing.run(3, || 8).await, Some(8));
    }
}
