//! What one request waits on: a slot for each of its queries, filled from any thread.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::output::Output;
use clipper_domain::Outcome;

/// Why a query is answered by the default output (invariant P2). Shown to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefaultReason {
    /// Nothing is connected that could answer.
    NoReplica,
    /// The deadline passed.
    Late,
    /// Refused at the door of the model's queue.
    Shed(Arc<str>),
    /// Tried, and the replica failed on it.
    Failed(Arc<str>),
    /// The model answered with this error.
    Model(Arc<str>),
}

impl DefaultReason {
    /// The query stood so far back in the queue that its answer would have been late.
    #[must_use]
    pub fn overtaken() -> Self {
        Self::Shed(Arc::from(
            "The query could not be answered within its latency SLO behind those before it",
        ))
    }

    /// The metric label of this reason.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NoReplica => Outcome::NoReplica,
            Self::Late => Outcome::Late,
            Self::Shed(_) => Outcome::Shed,
            Self::Failed(_) => Outcome::Failed,
            Self::Model(_) => Outcome::ModelError,
        }
    }
}

impl fmt::Display for DefaultReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoReplica => f.write_str("No connected models found for query"),
            Self::Late => f.write_str(
                "Failed to retrieve a prediction response within the specified latency SLO",
            ),
            Self::Shed(why) | Self::Failed(why) => f.write_str(why),
            Self::Model(why) => write!(f, "The model answered with an error: {why}"),
        }
    }
}

/// What came of one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A model's output.
    Output(Output),
    /// None in time; the application's default output goes out, with this explanation.
    Default(DefaultReason),
}

#[derive(Debug, Default)]
struct Shared {
    slots: Mutex<SmallVec<[Option<Answer>; 1]>>,
    open: AtomicUsize,
    closed: AtomicBool,
    waker: AtomicWaker,
    first_query_id: u64,
}

/// The waiting end: owned by the request's handler; dropping it tells everybody not to bother.
#[derive(Debug)]
pub struct Ticket(Arc<Shared>);

/// The filling end of one query's slot.
#[derive(Debug, Clone)]
pub struct Slot {
    shared: Arc<Shared>,
    index: usize,
}

impl Ticket {
    /// A ticket for `queries` queries with consecutive ids, none answered.
    #[must_use]
    pub fn new(queries: usize, first_query_id: u64) -> Self {
        let mut slots = SmallVec::with_capacity(queries);
        slots.resize(queries, None);
        Self(Arc::new(Shared {
            slots: Mutex::new(slots),
            open: AtomicUsize::new(queries),
            first_query_id,
            ..Shared::default()
        }))
    }

    /// The filling end of query `index`.
    #[must_use]
    pub fn slot(&self, index: usize) -> Slot {
        Slot { shared: Arc::clone(&self.0), index }
    }

    /// Waits until every query has its answer.
    pub async fn filled(&self) {
        poll_fn(|cx| {
            if self.0.open.load(Ordering::Acquire) == 0 {
                return Poll::Ready(());
            }
            self.0.waker.register(cx.waker());
            if self.0.open.load(Ordering::Acquire) == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Closes the ticket and takes what there is; a slot still empty is late (invariant P1: from
    /// here on nothing can change the answer).
    #[must_use]
    pub fn close(self) -> SmallVec<[Answer; 1]> {
        self.0.closed.store(true, Ordering::Release);
        let slots = std::mem::take(&mut *self.0.slots.lock());
        slots.into_iter().map(|s| s.unwrap_or(Answer::Default(DefaultReason::Late))).collect()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
    }
}

impl Slot {
    /// Gives the answer. Only the first one counts; after the ticket is closed none does.
    pub fn fill(&self, answer: Answer) {
        let first = {
            let mut slots = self.shared.slots.lock();
            match slots.get_mut(self.index) {
                Some(slot @ None) => {
                    *slot = Some(answer);
                    true
                }
                _ => false,
            }
        };
        if first && self.shared.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.waker.wake();
        }
    }

    /// The id of its query, as the client is told.
    #[must_use]
    pub fn query_id(&self) -> u64 {
        self.shared.first_query_id + self.index as u64
    }

    /// Whether somebody still waits for it.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        !self.shared.closed.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &str) -> Answer {
        Answer::Output(Output::from_text(text.as_bytes()).expect("UTF-8"))
    }

    #[tokio::test]
    async fn wakes_when_the_last_slot_is_filled_and_keeps_each_first_answer() {
        let ticket = Ticket::new(2, 0);
        let (a, b) = (ticket.slot(0), ticket.slot(1));
        let filler = tokio::spawn(async move {
            b.fill(output("2"));
            b.fill(output("3"));
            tokio::task::yield_now().await;
            a.fill(output("1"));
        });
        ticket.filled().await;
        filler.await.expect("filler");
        assert_eq!(ticket.close().as_slice(), [output("1"), output("2")]);
    }

    #[test]
    fn what_is_missing_at_the_close_is_late_and_later_answers_go_nowhere() {
        let ticket = Ticket::new(2, 0);
        let (a, b) = (ticket.slot(0), ticket.slot(1));
        a.fill(output("1"));
        assert!(b.is_awaited());
        let answers = ticket.close();
        assert_eq!(answers.as_slice(), [output("1"), Answer::Default(DefaultReason::Late)]);
        assert!(!b.is_awaited());
        b.fill(output("2"));
    }

    #[test]
    fn a_dropped_ticket_is_not_awaited() {
        let ticket = Ticket::new(1, 0);
        let slot = ticket.slot(0);
        drop(ticket);
        assert!(!slot.is_awaited());
    }
}
