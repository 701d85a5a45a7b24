//! What one request waits on: a slot for each of its queries, filled from any thread.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::budget::{Budget, Held};
use super::output::Output;
use super::query_context::{Carried, QueryContext};
use clipper_domain::Outcome;

/// Why a query is answered by the default output (invariant P2). Shown to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefaultReason {
    /// The application queries no model.
    Unlinked,
    /// Nothing is connected that could answer.
    NoReplica,
    Late,
    /// Refused at the door of the model's queue.
    Shed(Arc<str>),
    /// Tried, and the replica failed on it.
    Failed(Arc<str>),
    /// The model answered with this error.
    Model(Arc<str>),
    /// There is an answer, and the application's policy is not sure enough of it.
    Doubtful(Arc<str>),
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
            Self::Unlinked | Self::NoReplica => Outcome::NoReplica,
            Self::Late => Outcome::Late,
            Self::Shed(_) => Outcome::Shed,
            Self::Failed(_) => Outcome::Failed,
            Self::Model(_) => Outcome::ModelError,
            Self::Doubtful(_) => Outcome::Doubtful,
        }
    }
}

impl fmt::Display for DefaultReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlinked => f.write_str(
                "The application is not linked to a model (POST /admin/add_model_links)",
            ),
            Self::NoReplica => f.write_str("No connected models found for query"),
            Self::Late => f.write_str(
                "Failed to retrieve a prediction response within the specified latency SLO",
            ),
            Self::Shed(why) | Self::Failed(why) | Self::Doubtful(why) => f.write_str(why),
            Self::Model(why) => write!(f, "The model answered with an error: {why}"),
        }
    }
}

/// What came of one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Output(Output),
    /// None in time; the application's default output goes out, with this explanation.
    Default(DefaultReason),
}

impl Answer {
    /// Why it is the default output, if it is.
    #[must_use]
    pub fn default_reason(&self) -> Option<&DefaultReason> {
        match self {
            Self::Output(_) => None,
            Self::Default(reason) => Some(reason),
        }
    }

    /// Bytes that are kept for this answer alone, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Output(output) => output.bytes(),
            Self::Default(DefaultReason::Failed(why) | DefaultReason::Model(why)) => why.len(),
            Self::Default(_) => 0,
        }
    }
}

/// What the answers to one request, and all that wait for others of their request, may take.
#[derive(Debug, Clone)]
pub struct AnswerBounds {
    /// One request's, bytes.
    pub max_bytes: usize,
    /// All requests' together, those of up to [`UNCOUNTED_BYTES`] not counted.
    pub all: Arc<Budget>,
}

/// Answers of a request up to this are not counted in sum.
pub const UNCOUNTED_BYTES: usize = 64 << 10;

/// Why a request ends before it has its answers: they take too much room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// Those of this request.
    OfOne,
    /// Those of all requests.
    InSum,
}

/// The answers of a request that has been closed.
#[derive(Debug)]
pub struct Closed {
    pub answers: SmallVec<[Answer; 1]>,
    /// What they take of the sum of all answers.
    pub held: Option<Held>,
}

#[derive(Debug, Default)]
struct Slots {
    answers: SmallVec<[Option<Answer>; 1]>,
    bytes: usize,
    held: Option<Held>,
    excess: Option<Excess>,
}

impl Slots {
    /// Counts an answer; what is over a bound if there is no room for it.
    fn count(&mut self, answer: &Answer, bounds: Option<&AnswerBounds>) -> Result<(), Excess> {
        self.bytes += answer.bytes();
        let Some(bounds) = bounds.filter(|_| self.bytes > UNCOUNTED_BYTES) else { return Ok(()) };
        if self.bytes > bounds.max_bytes {
            return Err(Excess::OfOne);
        }
        let held = self.held.get_or_insert_with(|| bounds.all.hold());
        if held.resize(self.bytes) { Ok(()) } else { Err(Excess::InSum) }
    }
}

#[derive(Debug, Default)]
struct TicketSlots {
    slots: Mutex<Slots>,
    bounds: Option<Arc<AnswerBounds>>,
    open: AtomicUsize,
    closed: AtomicBool,
    waker: AtomicWaker,
    first_query_id: u64,
    /// Of the request, if it belongs to one.
    trace: Option<Carried>,
}

/// The waiting end: owned by the request's handler; dropping it tells everybody not to bother.
#[derive(Debug)]
pub struct Ticket(Arc<TicketSlots>);

/// The filling end of one query's slot.
#[derive(Debug, Clone)]
pub struct Slot {
    shared: Arc<TicketSlots>,
    index: usize,
}

impl Ticket {
    /// A ticket for `queries` queries with consecutive ids, none answered.
    #[must_use]
    pub fn new(queries: usize, first_query_id: u64) -> Self {
        Self::open(queries, first_query_id, (None, None))
    }

    /// The same within bounds: beyond them it is closed, and keeps nothing. `trace`: what the
    /// request belongs to.
    #[must_use]
    pub fn within(
        bounds: &Arc<AnswerBounds>,
        queries: usize,
        first_query_id: u64,
        trace: Option<Carried>,
    ) -> Self {
        Self::open(queries, first_query_id, (Some(Arc::clone(bounds)), trace))
    }

    fn open(
        queries: usize,
        first_query_id: u64,
        (bounds, trace): (Option<Arc<AnswerBounds>>, Option<Carried>),
    ) -> Self {
        let mut answers = SmallVec::with_capacity(queries);
        answers.resize(queries, None);
        Self(Arc::new(TicketSlots {
            slots: Mutex::new(Slots { answers, ..Slots::default() }),
            bounds,
            open: AtomicUsize::new(queries),
            first_query_id,
            trace,
            ..TicketSlots::default()
        }))
    }

    /// The filling end of query `index`.
    #[must_use]
    pub fn slot(&self, index: usize) -> Slot {
        Slot { shared: Arc::clone(&self.0), index }
    }

    /// Waits until every query has its answer, or the answers are over a bound.
    pub async fn filled(&self) {
        let has_ended =
            || self.0.open.load(Ordering::Acquire) == 0 || self.0.closed.load(Ordering::Acquire);
        poll_fn(|cx| {
            if has_ended() {
                return Poll::Ready(());
            }
            self.0.waker.register(cx.waker());
            if has_ended() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Whether a query has an output by now.
    #[must_use]
    pub fn has_output(&self, index: usize) -> bool {
        matches!(self.0.slots.lock().answers.get(index), Some(Some(Answer::Output(_))))
    }

    /// Closes the ticket and takes what there is; a slot still empty is late (invariant P1: from
    /// here on nothing can change the answer).
    ///
    /// # Errors
    /// The answers were over a bound.
    pub fn close(self) -> Result<Closed, Excess> {
        self.0.closed.store(true, Ordering::Release);
        let Slots { answers, held, excess, .. } = std::mem::take(&mut *self.0.slots.lock());
        let late = || Answer::Default(DefaultReason::Late);
        if let Some(excess) = excess {
            return Err(excess);
        }
        let answers = answers.into_iter().map(|slot| slot.unwrap_or_else(late)).collect();
        Ok(Closed { answers, held })
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
        let mut slots = self.shared.slots.lock();
        if !matches!(slots.answers.get(self.index), Some(None)) {
            return;
        }
        if let Err(excess) = slots.count(&answer, self.shared.bounds.as_deref()) {
            let dropped = std::mem::take(&mut *slots);
            slots.excess = Some(excess);
            drop(slots);
            // Not under the lock: it may be much.
            drop(dropped);
            self.shared.closed.store(true, Ordering::Release);
            return self.shared.waker.wake();
        }
        if let Some(slot) = slots.answers.get_mut(self.index) {
            *slot = Some(answer);
        }
        drop(slots);
        if self.shared.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.waker.wake();
        }
    }

    /// The id of its query, as the client is told.
    #[must_use]
    pub fn query_id(&self) -> u64 {
        self.shared.first_query_id + self.index as u64
    }

    /// The trace of its request, if that belongs to one.
    #[must_use]
    pub fn trace(&self) -> Option<&Arc<QueryContext>> {
        self.shared.trace.as_ref().map(|trace| &trace.context)
    }

    /// Whether its query is to have spans of its own.
    #[must_use]
    pub fn has_spans(&self) -> bool {
        let of = |trace: &Carried| trace.context.is_recorded() && self.index < trace.spans;
        self.shared.trace.as_ref().is_some_and(of)
    }

    /// The trace in which it has them, or will have: none if its client has given it up.
    #[must_use]
    pub fn recorded(&self) -> Option<&Arc<QueryContext>> {
        let context = self.trace().filter(|_| self.has_spans())?;
        (self.is_awaited() || context.is_kept()).then_some(context)
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
    use clipper_domain::{TraceContext, TraceParent};

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
        assert_eq!(ticket.close().unwrap().answers.as_slice(), [output("1"), output("2")]);
    }

    #[test]
    fn what_is_missing_at_the_close_is_late_and_later_answers_go_nowhere() {
        let ticket = Ticket::new(2, 0);
        let (a, b) = (ticket.slot(0), ticket.slot(1));
        a.fill(output("1"));
        assert!(b.is_awaited());
        let answers = ticket.close().unwrap().answers;
        assert_eq!(answers.as_slice(), [output("1"), Answer::Default(DefaultReason::Late)]);
        assert!(!b.is_awaited());
        b.fill(output("2"));
    }

    #[tokio::test]
    async fn line_09b_outputs_that_wait_for_others_are_bounded() {
        let all = Budget::new(300_000);
        let bounds = Arc::new(AnswerBounds { max_bytes: 200_000, all: Arc::clone(&all) });
        let long = || output(&format!("\"{}\"", "x".repeat(49_998)));
        let request = || {
            let ticket = Ticket::within(&bounds, 10, 0, None);
            let slots: Vec<Slot> = (0..10).map(|index| ticket.slot(index)).collect();
            (ticket, slots)
        };
        let (one, slots) = request();
        slots[0].fill(long());
        assert_eq!(all.used(), 0, "not counted yet");
        (1..4).for_each(|n| slots[n].fill(long()));
        assert_eq!(all.used(), 200_000);
        slots[4].fill(long());
        assert!(all.used() == 0 && !slots[5].is_awaited(), "nothing is kept");
        slots[5].fill(long());
        one.filled().await;
        assert_eq!(one.close().unwrap_err(), Excess::OfOne);

        let (one, slots) = request();
        let (other, others) = request();
        (0..4).for_each(|n| slots[n].fill(long()));
        (0..3).for_each(|n| others[n].fill(long()));
        assert_eq!(other.close().unwrap_err(), Excess::InSum);
        let Closed { answers, held } = one.close().unwrap();
        assert_eq!((answers.len(), all.used()), (10, 200_000), "as long as they are held");
        drop(held);
        assert_eq!(all.used(), 0);
    }

    #[test]
    fn a_dropped_ticket_is_not_awaited() {
        let ticket = Ticket::new(1, 0);
        let slot = ticket.slot(0);
        drop(ticket);
        assert!(!slot.is_awaited());
    }

    #[test]
    fn as_many_queries_have_spans_as_may_have_and_none_that_was_given_up() {
        let text = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent = TraceParent::parse(text).unwrap();
        let bounds = Arc::new(AnswerBounds { max_bytes: 1_000, all: Budget::new(1_000) });
        let context = Arc::new(QueryContext::recorded(TraceContext { parent, state: None }));
        let ticket = || {
            let trace = Carried { context: Arc::clone(&context), spans: 2 };
            Ticket::within(&bounds, 3, 0, Some(trace))
        };
        let recorded =
            |slots: &[Slot]| slots.iter().map(|slot| slot.recorded().is_some()).collect::<Vec<_>>();
        let given_up = ticket();
        let slots: Vec<Slot> = (0..3).map(|index| given_up.slot(index)).collect();
        assert_eq!(recorded(&slots), [true, true, false]);
        drop(given_up);
        assert_eq!(recorded(&slots), [false; 3]);
        // One that was answered late is kept.
        context.keep();
        assert_eq!(recorded(&slots), [true, true, false]);
        let passed_on = QueryContext::passed_on(TraceContext { parent, state: None });
        let trace = Carried { context: Arc::new(passed_on), spans: 2 };
        assert!(Ticket::within(&bounds, 1, 0, Some(trace)).slot(0).recorded().is_none());
    }
}
