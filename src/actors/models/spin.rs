//! Keeps a thread awake for a while, by asking for events again and again: the shell around
//! [`clipper_scheduling::spin_wait`].

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use clipper_clock::{self as clock, Instant};

/// At most one at a time; a longer one prolongs it.
#[derive(Debug, Default)]
pub struct Spin(Rc<Cell<Option<Instant>>>);

impl Spin {
    /// Stays awake for `time` from `now` on. The future that does it, for this thread, unless one
    /// is at work.
    pub fn prolong(
        &self,
        now: Instant,
        time: Duration,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let is_kept = self.0.replace(Some(now + time)).is_some();
        let until = Rc::clone(&self.0);
        (!is_kept).then_some(async move {
            while until.get().is_some_and(|until| clock::now() < until) {
                // Others that want this core come first, then whatever this thread has to do.
                std::thread::yield_now();
                tokio::task::yield_now().await;
            }
            until.set(None);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_micros(300);

    #[tokio::test]
    async fn one_at_a_time_and_it_ends() {
        let spin = Spin::default();
        let kept = spin.prolong(clock::now(), TIME).expect("none is at work");
        assert!(spin.prolong(clock::now(), TIME).is_none());
        kept.await;
        assert!(spin.prolong(clock::now(), TIME).is_some());
    }
}
