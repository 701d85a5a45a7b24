//! Threads that look into the journal's past: none of them holds up those that answer queries, and
//! whoever asks is answered also where all cores are busy.

use std::sync::Arc;
use std::time::Duration;

use super::lane::{Lane, Undone};
use crate::priority::{BACKGROUND, give_way, run_when_idle};
use clipper_clock as clock;

/// After work that others look for, a thread rests for so many times as long as it took: two people
/// who ask for the past again and again take half a core, whatever the machine has left.
const RESTS: u32 = 3;
/// Whoever looks waits so long for a core that has nothing else to do.
const IDLE_PATIENCE: Duration = Duration::from_millis(250);

/// They rest after their work for three times as long, and may hold no lock that others need
/// ([`BACKGROUND`]). Cheap to clone.
#[derive(Debug, Clone)]
pub struct Looking {
    /// Where a core has nothing else to do.
    idle: Arc<Lane>,
    /// With a part of a core.
    nice: Arc<Lane>,
}

impl Looking {
    /// So many of each.
    ///
    /// # Errors
    /// The system has no room for a runtime.
    pub fn new(threads: usize, name: &str) -> std::io::Result<Self> {
        let idle = Lane::new(threads, name, RESTS, run_when_idle)?;
        let nice = Lane::new(threads, name, RESTS, || give_way(BACKGROUND))?;
        Ok(Self { idle, nice })
    }

    /// Does something that takes long where a core has nothing else to do. `None`: it panicked, or
    /// the threads end.
    pub async fn when_idle<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.idle.run(None, work).await.ok().map(|(done, _)| done)
    }

    /// The same for somebody who waits: what is not done soon, since no core has time, is begun
    /// once more on a thread that gets its part of one. `None` likewise.
    pub async fn look<T: Send + 'static>(
        &self,
        work: impl Fn() -> T + Clone + Send + 'static,
    ) -> Option<T> {
        let soon = clock::now() + IDLE_PATIENCE;
        let done = match self.idle.run(Some(soon), work.clone()).await {
            Err(Undone::Crowded | Undone::Overdue) => self.nice.run(None, work).await,
            done => done,
        };
        done.ok().map(|(done, _)| done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_looks_is_answered_also_where_no_core_is_idle() {
        let looks = Looking::new(1, "look").unwrap();
        assert_eq!(looks.when_idle(|| 1).await, Some(1));
        // The one thread for idle cores stands still.
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let of_thread = looks.clone();
        let stands = tokio::spawn(async move {
            let _ = of_thread.when_idle(move || wait.recv().is_ok()).await;
        });
        while looks.idle.has_free() {
            tokio::task::yield_now().await;
        }
        assert_eq!(looks.look(|| 2).await, Some(2));
        go_on.send(()).unwrap();
        stands.await.unwrap();
    }

    #[tokio::test]
    async fn who_looks_again_and_again_takes_a_share_of_a_thread_only() {
        let looks = Looking::new(1, "look").unwrap();
        let work = Duration::from_millis(20);
        let looked = looks.when_idle(move || {
            let start = clock::now();
            while clock::now() < start + work {
                std::hint::spin_loop();
            }
            clock::now()
        });
        let ended = looked.await.unwrap();
        let next = looks.when_idle(clock::now).await.unwrap();
        assert!(next >= ended + work * RESTS, "{:?}", next - ended);
    }
}
