//! Threads for what takes long and can be begun twice: it costs those that answer nothing where a
//! core is idle, and is done also where none is.

use std::sync::Arc;
use std::time::Duration;

use super::lane::{Lane, Undone};
use clipper_clock as clock;

/// After its work a thread rests for so many times as long as that took: two people who ask again
/// and again take half a core, whatever the machine has left.
const RESTS: u32 = 3;
/// The same where no core is idle: a sixth of one.
const RESTS_OF_NICE: u32 = 10;
/// Whoever looks waits so long for a core that has nothing else to do.
const IDLE_PATIENCE: Duration = Duration::from_millis(250);

/// They hold no lock that others need ([`super::BACKGROUND`]). Cheap to clone.
#[derive(Debug, Clone)]
pub struct Looking {
    idle: Arc<Lane>,
    nice: Arc<Lane>,
}

impl Looking {
    /// So many of each kind.
    ///
    /// # Errors
    /// The system has no room for a runtime.
    pub fn new(threads: usize, name: &str) -> std::io::Result<Self> {
        let idle = Lane::idle(threads, name)?.resting(RESTS).into();
        let nice = Lane::background(threads, name)?.resting(RESTS_OF_NICE).into();
        Ok(Self { idle, nice })
    }

    /// What `work` gives: what is not done soon, since no core has time, is begun once more on a
    /// thread that gets a part of one. `None`: it panicked, or the threads end.
    pub async fn look<T: Send + 'static>(
        &self,
        work: impl Fn() -> T + Clone + Send + 'static,
    ) -> Option<T> {
        let soon = clock::now() + IDLE_PATIENCE;
        match self.idle.run(Some(soon), work.clone()).await {
            Err(Undone::Crowded | Undone::Overdue) => self.nice.done(work).await,
            done => done.ok().map(|(done, _)| done),
        }
    }

    /// The same of what cannot be begun twice.
    pub async fn once<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.nice.done(work).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_looks_is_answered_also_where_no_core_is_idle() {
        let looks = Looking::new(1, "look").unwrap();
        assert_eq!(looks.look(|| 1).await, Some(1));
        // The one thread for idle cores stands still.
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let idle = Arc::clone(&looks.idle);
        let stands = tokio::spawn(async move {
            let _ = idle.done(move || wait.recv().is_ok()).await;
        });
        while looks.idle.has_free() {
            tokio::task::yield_now().await;
        }
        assert_eq!(looks.look(|| 2).await, Some(2));
        assert_eq!(looks.once(|| 3).await, Some(3));
        go_on.send(()).unwrap();
        stands.await.unwrap();
    }
}
