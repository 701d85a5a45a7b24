//! Threads for what takes long and can be begun twice: it costs those that answer nothing where a
//! core is idle, and is done also where none is.

use std::sync::Arc;
use std::time::Duration;

use super::lane::{Lane, Undone};
use super::share::Share;
use clipper_clock::{self as clock, Instant};
use parking_lot::Mutex;

/// Whoever looks waits so long for a core that has nothing else to do.
const IDLE_PATIENCE: Duration = Duration::from_millis(250);
/// After one who waited for it in vain nobody does for so long.
const CROWDED: Duration = Duration::from_secs(2);

/// They hold no lock that others need ([`super::BACKGROUND`]). Cheap to clone.
#[derive(Debug, Clone)]
pub struct Looking {
    idle: Arc<Lane>,
    nice: Arc<Lane>,
    /// While predictions are asked for, people who ask again and again take a part of the machine,
    /// whatever it has left.
    share: Arc<Share>,
    /// No core had time of late.
    crowded_until: Arc<Mutex<Option<Instant>>>,
}

impl Looking {
    /// So many of each kind. `asked` tells how many predictions were asked for since the start.
    ///
    /// # Errors
    /// The system has no room for a runtime.
    pub fn new(
        threads: usize,
        name: &str,
        asked: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let idle = Lane::idle(threads, name)?.into();
        let nice = Lane::background(threads, name)?.into();
        Ok(Self { idle, nice, share: Share::new(asked).into(), crowded_until: Arc::default() })
    }

    /// What `work` gives: what is not done soon, since no core has time, is begun once more on a
    /// thread that gets a part of one. `None`: it panicked, or the threads end.
    pub async fn look<T: Send + 'static>(
        &self,
        work: impl Fn() -> T + Clone + Send + 'static,
    ) -> Option<T> {
        self.share.turn().await;
        let share = Arc::clone(&self.share);
        let work = move || share.charge(&work);
        let now = clock::now();
        if self.crowded_until.lock().is_some_and(|until| now < until) {
            return self.nice.done(work).await;
        }
        match self.idle.run(Some(now + IDLE_PATIENCE), work.clone()).await {
            Err(Undone::Crowded | Undone::Overdue) => {
                *self.crowded_until.lock() = Some(clock::now() + CROWDED);
                self.nice.done(work).await
            }
            done => done.ok().map(|(done, _)| done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_looks_is_answered_also_where_no_core_is_idle_and_only_the_first_waits_for_it() {
        let looks = Looking::new(1, "look", || 0).unwrap();
        // The one thread for idle cores stands still.
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let idle = Arc::clone(&looks.idle);
        let stands = tokio::spawn(async move {
            let _ = idle.done(move || wait.recv().is_ok()).await;
        });
        while looks.idle.has_free() {
            tokio::task::yield_now().await;
        }
        for waits in [IDLE_PATIENCE, Duration::ZERO] {
            let start = clock::now();
            assert_eq!(looks.look(|| 2).await, Some(2));
            assert_eq!(clock::now() - start, waits);
        }
        tokio::time::advance(CROWDED).await;
        let start = clock::now();
        assert_eq!(looks.look(|| 3).await, Some(3));
        assert_eq!(clock::now() - start, IDLE_PATIENCE);
        go_on.send(()).unwrap();
        stands.await.unwrap();
    }

    #[tokio::test]
    async fn a_thread_that_breaks_is_told() {
        let looks = Looking::new(1, "look", || 0).unwrap();
        assert_eq!(looks.look(|| 1).await, Some(1));
        assert_eq!(looks.look(|| -> u32 { panic!("as it was told to") }).await, None);
    }
}
