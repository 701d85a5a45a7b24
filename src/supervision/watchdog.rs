//! Sees threads that do not get round to their messages: blocking code on an arbiter stops all
//! that lives there, silently.
//!
//! One message a second to each thread; an answer that takes longer than [`STALL`] is logged and
//! counted. Runs on the control thread, which is the one it does not see.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tracing::{info, warn};

use crate::metrics::Metrics;
use clipper_clock::{self as clock, Instant};

/// Between two messages to one thread.
const PERIOD: Duration = Duration::from_secs(1);

/// An answer later than this is a stall: far above any handler, far below what callers notice.
pub const STALL: Duration = Duration::from_millis(500);

/// The threads to watch; clones share the list.
#[derive(Debug, Clone, Default)]
pub struct Watchdog(Arc<Mutex<Vec<WatchedThread>>>);

#[derive(Debug)]
struct WatchedThread {
    kind: &'static str,
    number: usize,
    arbiter: ArbiterHandle,
    asked: Option<(Instant, oneshot::Receiver<Instant>)>,
    reported: bool,
}

impl Watchdog {
    /// Adds a thread; `kind` is the label of the metric.
    pub fn watch(&self, kind: &'static str, arbiter: ArbiterHandle) {
        let mut threads = self.0.lock();
        let number = threads.iter().filter(|watched| watched.kind == kind).count();
        threads.push(WatchedThread { kind, number, arbiter, asked: None, reported: false });
    }

    pub async fn run(self, metrics: Arc<Metrics>) {
        let mut interval = tokio::time::interval(PERIOD);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            // A thread that has ended is not watched any longer.
            self.0.lock().retain_mut(|watched| watched.review(&metrics) && watched.ask());
        }
    }
}

impl WatchedThread {
    /// Looks for the answer to the last message. False if the thread has ended.
    fn review(&mut self, metrics: &Metrics) -> bool {
        let Some((asked, answer)) = &mut self.asked else { return true };
        let (took, answered) = match answer.try_recv() {
            Ok(at) => (at - *asked, true),
            Err(TryRecvError::Empty) => (clock::now() - *asked, false),
            Err(TryRecvError::Closed) => return false,
        };
        let (kind, number) = (self.kind, self.number);
        if took >= STALL && !self.reported {
            metrics.thread_stalled(kind);
            warn!(thread = kind, number, ?took, answered, "a thread does not answer in time");
            self.reported = true;
        } else if answered && self.reported {
            info!(thread = kind, number, ?took, "the thread answers again");
        }
        if answered {
            self.asked = None;
            self.reported = false;
        }
        true
    }

    /// Sends the next message, unless the last one is not answered. False if the thread has ended.
    fn ask(&mut self) -> bool {
        if self.asked.is_some() {
            return true;
        }
        let (answer, answered) = oneshot::channel();
        self.asked = Some((clock::now(), answered));
        self.arbiter.spawn_fn(move || {
            // Nobody waits only if the watchdog has ended.
            let _ = answer.send(clock::now());
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{FlatNames, prometheus_text_body};

    #[actix::test]
    async fn a_thread_that_blocks_is_counted_once_and_the_others_are_not() {
        let metrics = Metrics::new();
        let watchdog = Watchdog::default();
        let (blocked, free) = (Arbiter::new(), Arbiter::new());
        watchdog.watch("data", blocked.handle());
        watchdog.watch("http", free.handle());
        actix::spawn(watchdog.run(Arc::clone(&metrics)));
        let (release, held) = std::sync::mpsc::channel::<()>();
        blocked.spawn_fn(move || {
            let _ = held.recv();
        });

        let text = || prometheus_text_body(&metrics, FlatNames::LeftOut).unwrap();
        let seen = async {
            while !text().contains("clipper_thread_stalls_total{thread=\"data\"} 1") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), seen).await.unwrap();
        drop(release);
        tokio::time::sleep(2 * PERIOD).await;
        assert!(text().contains("clipper_thread_stalls_total{thread=\"data\"} 1"), "{}", text());
    }
}
