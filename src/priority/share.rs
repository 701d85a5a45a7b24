//! A part of the machine, for all who look together, while predictions are asked for.

use std::thread::available_parallelism;
use std::time::Duration;

use clipper_clock::{self as clock, Instant};
use parking_lot::Mutex;

/// Of all cores, for all of them: a thirty-second of one of two.
const SHARE: f64 = 1.0 / 64.0;
/// What has been saved up is worked off at once: a few questions of a person who was away.
const SAVED_MAX: Duration = Duration::from_millis(50);
/// So long after a prediction was asked for the next one is expected.
const ASKED_OF_LATE: Duration = Duration::from_secs(1);
/// Whoever waits looks so often whether predictions still are asked for.
const WAIT_MAX: Duration = Duration::from_millis(250);

/// What may be worked. Pure.
#[derive(Debug)]
struct Account {
    /// Of one core.
    share: f64,
    /// Seconds of work; below zero, those that were too many.
    saved: f64,
    since: Instant,
    /// Predictions that were asked for up to now.
    asked: u64,
    /// When there were more of them.
    asked_at: Option<Instant>,
}

impl Account {
    fn new(share: f64, now: Instant) -> Self {
        let saved = SAVED_MAX.as_secs_f64();
        Self { share, saved, since: now, asked: 0, asked_at: None }
    }

    fn settle(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.saved = self.share.mul_add(passed, self.saved).min(SAVED_MAX.as_secs_f64());
        self.since = self.since.max(now);
    }

    /// How long the next one waits, so many predictions having been asked for since the start.
    fn wait(&mut self, asked: u64, now: Instant) -> Duration {
        self.settle(now);
        if asked != self.asked {
            self.asked = asked;
            self.asked_at = Some(now);
        }
        if self.asked_at.is_none_or(|at| at + ASKED_OF_LATE < now) {
            // Nobody is held up, and what was worked does not count.
            self.saved = SAVED_MAX.as_secs_f64();
        }
        Duration::from_secs_f64((-self.saved / self.share).max(0.0))
    }

    fn worked(&mut self, now: Instant, took: Duration) {
        self.settle(now);
        self.saved -= took.as_secs_f64();
    }
}

/// Whoever asks without a break waits until what was worked is made good, in the order in which
/// they came.
pub struct Share {
    queue: tokio::sync::Mutex<()>,
    account: Mutex<Account>,
    /// Tells how many predictions were asked for since the start.
    asked: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Share {
    pub fn new(asked: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self::of(cores, asked)
    }

    fn of(cores: usize, asked: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let account = Account::new(SHARE * cores as f64, clock::now());
        let (queue, account) = (tokio::sync::Mutex::new(()), Mutex::new(account));
        Self { queue, account, asked: Box::new(asked) }
    }

    /// Until there is something to work off.
    pub async fn turn(&self) {
        let _first = self.queue.lock().await;
        loop {
            let wait = self.account.lock().wait((self.asked)(), clock::now());
            if wait.is_zero() {
                return;
            }
            tokio::time::sleep(wait.min(WAIT_MAX)).await;
        }
    }

    /// What `work` gives; what this thread worked for it is taken off.
    pub fn charge<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = clipper_priority::worked();
        let done = work();
        let took = clipper_priority::worked().saturating_sub(before);
        self.account.lock().worked(clock::now(), took);
        done
    }
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Share").field("account", &self.account).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Of one core.
    const OF_ONE: f64 = 0.1;
    const SECOND: Duration = Duration::from_secs(1);

    /// What is worked in a minute by somebody who asks again at once, who takes 7 ms each time,
    /// while so many predictions a second are asked for.
    fn worked_beside(predictions: u64) -> Duration {
        let start = clock::now();
        let (mut now, mut worked) = (start, Duration::ZERO);
        let mut account = Account::new(OF_ONE, now);
        let look = Duration::from_millis(7);
        while now < start + 60 * SECOND {
            let asked = (now - start).as_secs() * predictions;
            now += account.wait(asked, now);
            now += look;
            account.worked(now, look);
            worked += look;
        }
        worked
    }

    #[test]
    fn who_asks_without_a_break_gets_the_share_and_no_more() {
        let part = worked_beside(100).as_secs_f64() / 60.0;
        assert!((OF_ONE..OF_ONE * 1.2).contains(&part), "{part}");
    }

    #[test]
    fn nobody_waits_where_no_predictions_are_asked_for() {
        assert!(worked_beside(0) >= 60 * SECOND);
    }

    #[test]
    fn who_was_away_is_answered_at_once_and_nobody_saves_up_for_more() {
        let now = clock::now() + 3_600 * SECOND;
        let mut account = Account::new(OF_ONE, clock::now());
        let one = SAVED_MAX / 4;
        for _ in 0..5 {
            assert_eq!(account.wait(1, now), Duration::ZERO);
            account.worked(now, one);
        }
        assert!(account.wait(2, now) >= one, "{:?}", account.wait(2, now));
    }

    #[tokio::test(start_paused = true)]
    async fn they_wait_in_the_order_in_which_they_came_until_predictions_end() {
        let asked = Arc::new(AtomicU64::new(1));
        let told = Arc::clone(&asked);
        let share = Arc::new(Share::of(1, move || told.load(Ordering::Relaxed)));
        share.turn().await;
        share.account.lock().worked(clock::now(), SAVED_MAX * 100);
        let (start, came) = (clock::now(), Arc::new(Mutex::new(Vec::new())));
        let waiting: Vec<_> = (0..3)
            .map(|n| {
                let (share, came) = (Arc::clone(&share), Arc::clone(&came));
                tokio::spawn(async move {
                    share.turn().await;
                    came.lock().push(n);
                })
            })
            .collect();
        for _ in 0..10 {
            tokio::time::sleep(SECOND / 2).await;
            asked.fetch_add(1, Ordering::Relaxed);
        }
        assert!(came.lock().is_empty());
        for one in waiting {
            one.await.unwrap();
        }
        assert_eq!(*came.lock(), [0, 1, 2]);
        assert!(clock::now() - start < 8 * SECOND, "the account alone would take minutes");
    }
}
