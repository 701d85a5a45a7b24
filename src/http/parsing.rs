//! Long parsing, away from the threads that answer queries.
//!
//! One HTTP worker answers for many applications: while it parses a body of 16 MB, nobody else is
//! answered (invariant P1). So a body that takes longer than `http.parse_slice_us` is parsed on
//! one of a few threads of low priority. How long it takes is known from the bodies before. Bodies
//! that take several slices have threads of their own, of lower priority still, so that the others
//! do not wait behind them either.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::priority::{Lane, Undone};
use clipper_clock::Instant;

/// Of the threads, as of `nice`: whoever answers queries comes first, then bodies of a few slices.
const NICENESS: i32 = 5;
const NICENESS_LONGEST: i32 = 15;
/// A body that takes so many slices is among the longest.
const LONGEST_SLICES: u32 = 10;

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
    long: Lane,
    longest: Lane,
    slice: Duration,
    pace: Pace,
}

impl Parsing {
    /// At most `threads` at a time of each priority; a body that is parsed within `slice` does not
    /// need them.
    ///
    /// # Errors
    /// The system has no room for a runtime.
    pub fn new(threads: usize, slice: Duration) -> std::io::Result<Self> {
        let long = Lane::new(threads, "http-parse", NICENESS)?;
        let longest = Lane::new(threads, "http-parse", NICENESS_LONGEST)?;
        Ok(Self(Arc::new(Pool { long, longest, slice, pace: Pace::default() })))
    }

    /// Whether a body of so many bytes is to be parsed here.
    #[must_use]
    pub fn is_long(&self, bytes: usize) -> bool {
        bytes > self.0.pace.bytes_within(self.0.slice)
    }

    fn lane(&self, bytes: usize) -> &Lane {
        let is_longest = bytes > self.0.pace.bytes_within(self.0.slice * LONGEST_SLICES);
        if is_longest { &self.0.longest } else { &self.0.long }
    }

    /// Parses a body of so many bytes by `until`.
    ///
    /// # Errors
    /// See [`Undone`].
    pub async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        until: Instant,
        parse: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Undone> {
        let (parsed, took) = self.lane(bytes).run(Some(until), parse).await?;
        self.0.pace.observe(bytes, took);
        Ok(parsed)
    }

    /// The same where the time that it takes is not that of so many bytes: nothing is learnt. Of a
    /// compressed body `bytes` is the most that may come of it, since half a kilobyte can be 16 MB.
    ///
    /// # Errors
    /// See [`Undone`].
    pub async fn run_apart<T: Send + 'static>(
        &self,
        bytes: usize,
        until: Instant,
        parse: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Undone> {
        self.lane(bytes).run(Some(until), parse).await.map(|(parsed, _)| parsed)
    }

    /// Does something else that takes long, about a body of so many bytes, and waits as long as
    /// that takes. `None`: it panicked, or the threads end.
    pub async fn aside<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.lane(bytes).run(None, work).await.ok().map(|(done, _)| done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipper_clock as clock;

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
        let soon = clock::now() + Duration::from_secs(60);
        assert!(parsing.is_long(1 << 20) && !parsing.is_long(100));
        assert_eq!(parsing.run(3, soon, || 7).await, Ok(7));
        assert_eq!(parsing.run(3, soon, || -> u8 { panic!("a test") }).await, Err(Undone::Broken));
        assert_eq!(parsing.run(3, soon, || 8).await, Ok(8));
        assert_eq!(parsing.aside(3, || 9).await, Some(9));
    }

    #[tokio::test]
    async fn line_09a_who_waits_for_its_own_body_waits_until_the_deadline() {
        let parsing = Parsing::new(1, Duration::from_millis(1)).unwrap();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let soon = clock::now() + Duration::from_millis(20);
        let overdue = parsing.run(16 << 20, soon, move || wait.recv().is_ok()).await;
        assert_eq!(overdue, Err(Undone::Overdue));
        let soon = clock::now() + Duration::from_millis(20);
        let next = parsing.run(16 << 20, soon, || 2).await;
        assert_eq!(next, Err(Undone::Crowded), "the thread is still taken");
        go_on.send(()).unwrap();
        let late = clock::now() + Duration::from_secs(60);
        assert_eq!(parsing.run(16 << 20, late, || 3).await, Ok(3));
    }

    #[tokio::test]
    async fn line_09a_nobody_waits_behind_the_longest_bodies_or_for_ever() {
        let parsing = Parsing::new(1, Duration::from_millis(1)).unwrap();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let of_thread = parsing.clone();
        let longest = tokio::spawn(async move {
            let late = clock::now() + Duration::from_secs(60);
            of_thread.run(16 << 20, late, move || wait.recv().is_ok()).await
        });
        while parsing.0.longest.has_free() {
            tokio::task::yield_now().await;
        }
        let soon = clock::now() + Duration::from_secs(60);
        assert_eq!(parsing.run(100_000, soon, || 1).await, Ok(1), "a shorter one");
        let at_once = clock::now();
        assert_eq!(parsing.run(16 << 20, at_once, || 2).await, Err(Undone::Crowded));
        go_on.send(()).unwrap();
        assert_eq!(longest.await.unwrap(), Ok(true));
        assert_eq!(parsing.run(16 << 20, soon, || 3).await, Ok(3));
    }
}
