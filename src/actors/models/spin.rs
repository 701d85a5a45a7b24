//! Keeps a thread awake for a while, by asking for events again and again: the shell around
//! [`clipper_scheduling::spin_wait`].

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use clipper_clock::{self as clock, Instant};
use clipper_scheduling::spin_wait::SpinWait;

/// Who stays awake, at most one at a time.
#[derive(Debug)]
pub struct Spin {
    wait: Rc<RefCell<SpinWait>>,
    until: Rc<Cell<Option<Instant>>>,
}

impl Spin {
    /// Pauses up to `pause_max` are waited for.
    #[must_use]
    pub fn new(pause_max: Duration) -> Self {
        Self { wait: Rc::new(RefCell::new(SpinWait::new(pause_max))), until: Rc::default() }
    }

    /// A message has come at `now`, of a caller that is alone or not. The future that stays awake
    /// for the next one, for this thread; none where that does not pay, or one is at work, which is
    /// prolonged.
    pub fn heard(&self, now: Instant, alone: bool) -> Option<impl Future<Output = ()> + use<>> {
        let time = self.wait.borrow_mut().heard(now, alone)?;
        let is_at_work = self.until.replace(Some(now + time)).is_some();
        let (wait, until) = (Rc::clone(&self.wait), Rc::clone(&self.until));
        (!is_at_work).then_some(async move {
            loop {
                let begin = clock::now();
                if until.get().is_none_or(|until| begin >= until) {
                    break;
                }
                // Others that want this core come first, then whatever this thread has to do.
                std::thread::yield_now();
                if !wait.borrow_mut().yielded(begin, clock::now()) {
                    break;
                }
                tokio::task::yield_now().await;
            }
            until.set(None);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_it_ends() {
        let spin = Spin::new(Duration::from_micros(300));
        let mut now = clock::now();
        let mut hear = || {
            now += Duration::from_micros(10);
            spin.heard(now, true)
        };
        let at_work = (0..100).find_map(|_| hear()).expect("messages follow each other quickly");
        assert!(hear().is_none(), "one is at work");
        at_work.await;
        assert!(spin.until.get().is_none());
    }
}
